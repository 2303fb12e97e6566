"""The scenarios that the test machine performs: which it can show, on which boot, what must come of them.

``python3 reference/linux/rig.py batches DIR`` writes one batch for each boot, ``compare DIR`` reads the answers.

What must come of a step is what the emulator says with two things in it:

* *the processor is Bochs'*: WRMSR leaves SHADOW as it is, and MSR 0x48 takes exactly 0x5FF, whatever CPUID says;
* *the rig leaves the guest after each instruction*: each exit takes over what the guest changed.
"""

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from specctrl.kvm.variant import Variant
from specctrl.kvm.vcpu import Vcpu
from specctrl.machine import VARIANTS, Machine
from specctrl.outcomes import Misuse, VmExit
from specctrl.parts import resolve_host
from specctrl.posted import PostedVcpu
from specctrl.processor import LogicalProcessor, Vmcs
from specctrl.registers import KVM_CAP_FORCE_SPEC_CTRL
from specctrl.scenario import Scenario, read
from specctrl.scenario.reading import Step
from specctrl.scenario.running import TargetFailed, differences, normalised, written
from specctrl.scenario.table import HOST, OUTCOMES, SETS
from specctrl.targets.guests import GuestsAbove
from specctrl.targets.plain import decode, encode
from specctrl.words import is_subset, merge

HISTORIES = Path(__file__).parent / "histories"  # of the rig's own: no published vectors
BOCHS_WRITABLE = 0x5FF
MODELLED = 1 << 63 | 1 << 20 | 1 << 19  # of IA32_ARCH_CAPABILITIES; a real one has more


class BochsProcessor(LogicalProcessor):
    """A logical processor of Bochs 3.0 (cpu/msr.cc): two deviations from the manual as this specification reads it."""

    __slots__ = ()

    def accepts(self, value: int) -> bool:
        """Exactly 0x5FF."""
        return bool(self.has_spec_ctrl and is_subset(value, BOCHS_WRITABLE))

    def wrmsr_in_guest(self, vmcs: Vmcs, source: int) -> None:
        """As the manual has it, but that the SHADOW field stays as it was."""
        if vmcs.write_intercepted:
            raise VmExit
        if not vmcs.virtualize_spec_ctrl:
            self.wrmsr(source)
            return
        self.wrmsr(merge(source, vmcs.spec_ctrl_mask, self.spec_ctrl))


OPERATIONS_AS_POSTED: dict[str, tuple[int, tuple[str, ...]]] = {
    "save": (1 << 0, ("save_spec_ctrl",)),
    "load_vmcs": (1 << 1, ("load_vmcs", "set_nested_state")),
    "abandon": (1 << 2, ("abandon_entry",)),
    "interception": (1 << 3, ("update_interception",)),
    "read": (1 << 4, ("read_spec_ctrl",)),
    "write": (1 << 5, ("write_spec_ctrl",)),
    "init": (1 << 6, ("init_reset",)),
    "vcpu_cap": (1 << 7, ("force_spec_ctrl",)),
    "shows_enumeration": (1 << 8, ("shows_enumeration",)),
    "shows_mitigation_ctrl": (1 << 9, ("shows_mitigation_ctrl",)),
    "report": (1 << 10, ("write_mitigation_ctrl",)),
}
"""The bits of the test-only parameter ``as_posted``, and the methods of the posted variant that they stand for."""

REPAIRS: dict[str, tuple[str, ...]] = {
    "D1": ("save", "load_vmcs", "report"),
    "D2": ("write",),
    "D4": ("load_vmcs",),
    "D5": ("abandon", "save"),
    "D7": ("save", "load_vmcs", "report"),
    "D8": ("write",),
    "D9": ("init",),
    "D10": ("shows_enumeration", "shows_mitigation_ctrl", "report"),
    "D21": ("report",),
    "all": tuple(OPERATIONS_AS_POSTED),
}
"""What is taken away with each repair: these operations are as posted, everything else stays as specified."""


def variant(taken_away: str) -> str:
    """The name of the variant on Bochs' processor without one repair; "" takes none away."""
    name = f"bochs{'-without-' + taken_away if taken_away else ''}"
    if name not in VARIANTS:
        methods: dict[str, Any] = {}
        for operation in REPAIRS[taken_away] if taken_away else ():
            for method in OPERATIONS_AS_POSTED[operation][1]:
                methods[method] = getattr(PostedVcpu, method)
        if methods:
            methods["set_spec_ctrl"] = PostedVcpu.set_spec_ctrl
        vcpu = type("TakenAwayVcpu", (Vcpu,), {"__slots__": (), **methods}) if methods else Vcpu
        VARIANTS[name] = Variant(name, processor=BochsProcessor, vcpu=vcpu)
    return name


# ---- which hosts, by boot


@dataclass(frozen=True, order=True)
class Boot:
    """One boot of the test machine: what the kernel's command line takes away."""

    name: str
    append: str


@dataclass(frozen=True, order=True)
class Load:
    """kvm_intel loaded once: its parameters, and the operations that are as posted."""

    parameters: str
    posted: int


FULL = frozenset("SPEC_CTRL STIBP SSBD RRSBA_CTRL BHI_CTRL IPRED_CTRL PSFD DDPD_U ARCH_CAPABILITIES".split())
HIDDEN_BY = {"STIBP": "stibp,intel_stibp", "SSBD": "ssbd,spec_ctrl_ssbd", "RRSBA_CTRL": "rrsba_ctrl", "BHI_CTRL": "bhi_ctrl"}
"""What KVM asks of the host, and the names under which Linux can be told that the processor lacks it."""


def place(host: Any) -> tuple[Boot, str] | str:
    """The boot and the module's parameters that make a host; a sentence if the rig cannot."""
    features = set(host.features.names())
    if not host.has_spec_ctrl:
        return "Bochs has IA32_SPEC_CTRL, whatever CPUID says"
    if "SPEC_CTRL" not in features:
        return "a host with some field of IA32_SPEC_CTRL and without IBRS"
    hidden = [name for name in HIDDEN_BY if name not in features]
    append = f"clearcpuid={','.join(HIDDEN_BY[name] for name in hidden)}" if hidden else ""
    if host.legacy_ibrs:
        append += " spectre_v2=ibrs"
    natural = 0x401 if "BHI_CTRL" in features else 0x1
    if host.spec_ctrl == 0 and not host.legacy_ibrs:
        append += " mitigations=off"
    elif host.spec_ctrl != natural:
        if host.spec_ctrl == 0x1:
            append += " spectre_bhi=off"
        else:
            return f"no command line makes Linux run with {host.spec_ctrl:#x}"
    bits = (1 << 19 if "RRSBA" in features else 0) | (1 << 20 if "BHI_NO" in features else 0)
    parameters = f"enable_apicv=0 preemption_timer=0 arch_capabilities_or={bits:#x}"
    if not host.spec_ctrl_shadow:
        parameters += " no_spec_ctrl_virt=1"
    if not host.nested:
        parameters += " nested=0"
    name = append.strip().translate({ord(c): "-" for c in " =,"}) or "plain"
    return Boot(name, append.strip()), parameters


# ---- the emulator, as the rig is


INSTRUCTIONS = ("rdmsr", "wrmsr", "nested_enter", "nested_exit", "reply_msr_exit", "init", "vmxoff", "smi", "rsm")


class RigTarget:
    """The emulator on Bochs' processor, left after each instruction; keeps what it was asked and what it said."""

    observes = None
    max_unsupported = None

    def __init__(self, name: str) -> None:
        self.name = name
        self.profiles = frozenset(["spec", "rfc-v3"])
        self.steps: list[tuple[Step, Mapping[str, Any]]] = []

    def begin(self, host: Any, profile: str, assume: dict[str, bool]) -> None:
        """A fresh machine."""
        self.machine = Machine(host=host, variant=self.name, assume=assume, record=False)
        self.steps = []

    def step(self, step: Step) -> Mapping[str, Any]:
        """Perform the step, then leave the guest."""
        seen = self.machine.perform(step.call())
        if step.op in INSTRUCTIONS:
            vcpu = self.machine.vcpus[step.args.get("vcpu", 0)]
            if step.op in ("smi", "rsm", "init", "vmxoff") and not vcpu.shut_down:
                vcpu.run()  # the rig sees where the vCPU is by letting it run
            vcpu.exit_guest()
        self.steps.append((step, seen))
        return seen

    def end(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""


def history(scenario: Scenario, taken_away: str) -> list[tuple[Step, Mapping[str, Any]]]:
    """Every step of a scenario that reaches the hypervisor, and what the emulator says of it; a boot is its accesses."""
    target = RigTarget(variant(taken_away))
    above = GuestsAbove(target)
    above.begin(scenario.host, scenario.profile, scenario.assume)
    for step in scenario.steps:
        seen = above.step(step)
        if seen.get("host_fault") or seen.get("abort"):
            break
    return target.steps


def cannot_show(scenario: Scenario) -> str:
    """Why the rig cannot show a scenario, or ""."""
    where = place(resolve_host(scenario.host))
    if isinstance(where, str):
        return where
    for name, on in scenario.assume.items():
        if name in ("init-withdraws-report", "vm-entry-loads-shadow") and on != {"init-withdraws-report": True}.get(name, False):
            return f"an assumption that the code does not have: {name} {on}"
    for step in scenario.steps:
        if step.op == "migrate":
            to = place(resolve_host(step.args["to"]))
            if isinstance(to, str):
                return to
            if to[0] != where[0]:
                return "a move to a host that needs another boot"
            if not resolve_host(step.args["to"]).nested and any(each.op == "smi" for each in scenario.steps):
                return "the rig's guests run with CR4.VMXE, which RSM on a host without nested virtualization refuses"
    return ""


# ---- batches


def batch_line(scenario: Scenario) -> str:
    """The line that begins a scenario."""
    return encode({"op": "begin", "host": HOST.write(scenario.host), "profile": scenario.profile})


def batches(folder: Path, vectors: Path, only: str, taken: list[str]) -> None:
    """Write a batch and a command line for each boot, and the list of what cannot be shown."""
    wanted: dict[Boot, dict[Load, list[tuple[str, Scenario]]]] = {}
    not_shown: dict[str, str] = {}
    for scenario in read([vectors, HISTORIES]):
        if only and only not in scenario.id:
            continue
        reason = cannot_show(scenario)
        if reason:
            not_shown[scenario.id] = reason
            continue
        where = place(resolve_host(scenario.host))
        assert not isinstance(where, str)
        parameters = where[1]
        for away in runs_without(scenario, taken):
            posted = sum(OPERATIONS_AS_POSTED[name][0] for name in REPAIRS[away]) if away else 0
            if any(seen.get("host_fault") for _, seen in history(scenario, away)):
                boot = Boot(f"{where[0].name}-faults-{away}", where[0].append)  # such a boot ends with it
            else:
                boot = where[0]
            wanted.setdefault(boot, {}).setdefault(Load(parameters, posted), []).append((away, scenario))
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.batch"):
        old.unlink()
    for boot, loads in sorted(wanted.items()):
        lines: list[str] = []
        last = ""
        for load in sorted(loads):
            if load.parameters != last:
                lines.append(f"#param {load.parameters}")
                last = load.parameters
            lines.append(f"#posted {load.posted}")
            for away, scenario in loads[load]:
                lines.append(f"#id {scenario.id} {away or '-'}")
                steps = history(scenario, away)
                if any(seen.get("host_fault") for _, seen in steps):
                    lines.append("#fatal")
                lines.append(batch_line(scenario))
                for step, _ in steps:
                    if step.op == "migrate":
                        to = place(resolve_host(step.args["to"]))
                        lines.append(f"#to {to[1]}")
                    lines.append(encode(step.message()))
        replace(folder / f"{boot.name}.batch", "\n".join(lines) + "\n")
        replace(folder / f"{boot.name}.append", boot.append + "\n")
    replace(folder / "not-shown.json", json.dumps(not_shown, indent=1) + "\n")
    print(f"{sum(len(each) for loads in wanted.values() for each in loads.values())} scenarios in {len(wanted)} boots, "
          f"{len(not_shown)} not shown")


def runs_without(scenario: Scenario, taken: list[str]) -> Iterator[str]:
    """Which repairs are taken away for this scenario; "" for none."""
    if scenario.profile == "spec":
        yield ""
        return
    defect = next((word.rstrip(":") for word in scenario.why.split() if word.startswith("D")), "")
    for away in ("", defect, "all"):
        if (away in REPAIRS or not away) and (not taken or away in taken):
            yield away


def replace(path: Path, text: str) -> None:
    """Write a file beside and rename it."""
    fresh = path.with_suffix(path.suffix + ".new")
    fresh.write_text(text, encoding="utf-8")
    os.replace(fresh, path)


# ---- comparing


def modelled(step: Step, seen: Mapping[str, Any]) -> dict[str, Any]:
    """An observation with only the bits of IA32_ARCH_CAPABILITIES that are modelled."""
    seen = dict(seen)
    if step.op == "rdmsr" and step.args["msr"] == 0x10A and "value" in seen:
        seen["value"] &= MODELLED
    for key, asked in (("values", "msrs"), ("stored", "msr_store")):
        if key in seen and asked in step.args:
            pairs = zip(step.args[asked], seen[key], strict=False)
            seen[key] = [value & MODELLED if msr == 0x10A else value for msr, value in pairs]
    return seen


def disagreement(step: Step, expected: Mapping[str, Any], seen: Mapping[str, Any]) -> str:
    """What of a step is not as the emulator says, or ""."""
    expected, seen = modelled(step, expected), modelled(step, seen)
    if "contains" in expected:
        wrong = [hex(msr) for msr in expected["contains"] if msr not in seen.get("contains", ())]
        wrong += [hex(msr) for msr in expected["lacks"] if msr in seen.get("contains", ())]
        return f"the list differs in {', '.join(wrong)}" if wrong else ""
    for key, value in expected.items():
        if key in ("exposed", "overhead"):
            continue
        if key == "intercepted" and key not in seen:
            continue  # L2's bitmap is merged when it next runs, and cannot be looked at before
        if key not in seen:
            return f"{key}: expected {value!r}, nothing was shown"
        same = set(seen[key]) == set(value) if key in SETS else seen[key] == value
        if not same:
            return f"{key}: expected {value!r}, the kernel {seen[key]!r}"
    for key in OUTCOMES:
        if seen.get(key) not in (None, False) and expected.get(key) in (None, False):
            return f"{key}: the kernel {seen[key]!r}, which is not expected"
    return ""


def answers(text: str) -> Iterator[tuple[str, str, list[str]]]:
    """The scenarios of a boot's output: id, the repair taken away, and the answers."""
    current: tuple[str, str, list[str]] | None = None
    for line in text.splitlines():
        if line.startswith("#id "):
            if current:
                yield current
            _, id, away = line.split(" ")
            current = (id, "" if away == "-" else away, [])
        elif current and not line.startswith("#"):
            current[2].append(line)
    if current:
        yield current


def compare(folder: Path, vectors: Path, verbose: bool) -> dict[str, Any]:
    """Judge every boot's answers; returns the record."""
    scenarios = {scenario.id: scenario for scenario in read([vectors, HISTORIES])}
    record: dict[str, Any] = {"scenarios": {}, "taken-away": {}}
    for file in sorted(folder.glob("*.answers")):
        for id, away, lines in answers(file.read_text(encoding="utf-8", errors="replace")):
            verdict = judge_one(scenarios[id], away, lines)
            into = record["scenarios"] if scenarios[id].profile == "spec" else record["taken-away"].setdefault(id, {})
            into[id if scenarios[id].profile == "spec" else away or "none"] = verdict
            if verbose and not verdict["outcome"] == "equal":
                print(f"{id} {away}: {verdict['outcome']}: {verdict.get('why', '')}")
    for id, reason in json.loads((folder / "not-shown.json").read_text(encoding="utf-8")).items():
        record["scenarios"].setdefault(id, {"outcome": "not shown", "why": reason})
    return record


def judge_one(scenario: Scenario, away: str, lines: list[str]) -> dict[str, Any]:
    """One scenario: equal, differs or not shown; and whether it is also what is published."""
    steps = history(scenario, away)
    published = away == "" and len(steps) == len(scenario.steps)
    for index, (step, expected) in enumerate([(None, {}), *steps]):
        if index >= len(lines):
            return {"outcome": "differs", "step": index - 1, "why": "the machine stopped before it answered"}
        line = lines[index]
        if "unsupported=" in line:
            why = line.partition("unsupported=")[2]
            return {"outcome": "not shown", "step": index - 1, "why": why}
        if step is None:
            continue
        try:
            seen = normalised(decode(line))
        except (ValueError, TargetFailed) as nonsense:
            return {"outcome": "differs", "step": index - 1, "why": f"nonsense: {nonsense}: {line[:100]}"}
        why = disagreement(step, normalised(written(expected)), seen)
        if why:
            return {"outcome": "differs", "step": index - 1, "why": f"{encode(step.message())}: {why}"}
        if published:
            written_step = scenario.steps[index - 1]
            published = not differences(written_step, modelled(step, {**expected, **seen}))
    return {"outcome": "equal", "published": bool(published), "steps": len(steps)}


def summary(record: Mapping[str, Any]) -> str:
    """The table."""
    counts = Counter(verdict["outcome"] for verdict in record["scenarios"].values())
    published = sum(bool(verdict.get("published")) for verdict in record["scenarios"].values())
    lines = [f"performed {counts['equal'] + counts['differs']}, equal {counts['equal']} (as published, step by step: {published}), "
             f"differ {counts['differs']}, not shown {counts['not shown']}"]
    for why, number in Counter(verdict["why"] for verdict in record["scenarios"].values()
                               if verdict["outcome"] == "not shown").most_common():
        lines.append(f"  not shown {number:4}: {why}")
    for id, each in sorted(record["taken-away"].items()):
        lines.append(f"  {id}: " + ", ".join(f"{away} {verdict['outcome']}" for away, verdict in each.items()))
    return "\n".join(lines)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=("batches", "compare"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--vectors", type=Path, default=Path(__file__).parents[2] / "vectors")
    parser.add_argument("--only", default="", help="scenarios whose id has this")
    parser.add_argument("--without", action="append", default=[], help="only this repair taken away; of the defects' scenarios")
    parser.add_argument("--record", type=Path)
    parser.add_argument("-v", "--verbose", action="store_true")
    options = parser.parse_args()
    if options.command == "batches":
        batches(options.folder, options.vectors, options.only, options.without)
        return 0
    record = compare(options.folder, options.vectors, options.verbose)
    if options.record:
        replace(options.record, json.dumps(record, indent=1, sort_keys=True) + "\n")
    print(summary(record))
    return 1 if any(verdict["outcome"] == "differs" for verdict in record["scenarios"].values()) else 0


if __name__ == "__main__":
    sys.exit(main())
