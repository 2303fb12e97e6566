# SPDX-License-Identifier: GPL-2.0-only
"""The scenarios that the test machine performs: which it can show, and on which boot.

``python3 reference/linux/rig.py batches DIR`` writes one batch for each boot, ``compare DIR`` reads the answers;
``initrd`` and ``replay`` are for ``run`` and for ``specctrl run``.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from expected import OPERATIONS_AS_POSTED, REPAIRS, history
from judging import HISTORIES, compare, failed, replay, summary

from specctrl.model.parts import resolve_host
from specctrl.scenario import Scenario, read
from specctrl.scenario.format import HOST
from specctrl.targets.kernel_record import identity
from specctrl.targets.plain import encode


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


HIDDEN_BY = {"STIBP": "stibp,603", "SSBD": "ssbd,607", "RRSBA_CTRL": "363", "BHI_CTRL": "674"}
"""What KVM asks of the host, and how Linux is told by ``clearcpuid=`` that the processor lacks it.

A flag without a name there is a number: 32 times its word in the kernel's cpufeatures.h, plus its bit.
"""


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


HIDDEN = {"STIBP": 1 << 0, "SSBD": 1 << 1, "RRSBA_CTRL": 1 << 2, "BHI_CTRL": 1 << 3}
"""The bits of the test-only parameter ``hidden``."""
PLAIN = Boot("plain", "")


def places(scenario: Scenario) -> tuple[Boot, list[str]] | str:
    """The boot of a scenario, and the parameters of its host and of each that it moves to; a sentence if there is none.

    Where a move would need another boot, the hosts are what the test-only parameters make of the plain one.
    """
    hosts = [resolve_host(scenario.host)]
    hosts += [resolve_host(step.args["to"]) for step in scenario.steps if step.op == "migrate"]
    found = []
    for host in hosts:
        where = place(host)
        if isinstance(where, str):
            return where
        found.append(where)
    boot = found[0][0]
    if all(each[0] == boot for each in found):
        return boot, [each[1] for each in found]
    if any(host.legacy_ibrs for host in hosts):
        return "a move between a host with legacy IBRS and one without"
    parameters = []
    for host, (_, usual) in zip(hosts, found, strict=True):
        hidden = sum(bit for name, bit in HIDDEN.items() if name not in host.features.names())
        parameters.append(f"{usual} hidden={hidden:#x} host_spec_ctrl={host.spec_ctrl:#x}")
    return PLAIN, parameters


def parameters_of(scenario: Scenario) -> list[str]:
    """The parameters of its host and of each that it moves to, where there are any."""
    where = places(scenario)
    return [] if isinstance(where, str) else where[1]


PERFORMED = {
    "check_extension": "cap fd", "get_supported_force_spec_ctrl": "fd bad_pointer",
    "enable_cap": "fd vcpu cap args flags",
    "create_vcpu": "vcpu features", "get_msrs": "vcpu msrs", "set_msrs": "vcpu msrs", "get_feature_msrs": "msrs",
    "get_msr_index_list": "", "get_msr_feature_index_list": "", "set_msr_filter": "default ranges",
    "reply_msr_exit": "vcpu value error", "reset_vcpu": "vcpu", "get_nested_state": "vcpu state",
    "set_nested_state": "vcpu state run_pending", "migrate": "to order msrs force", "rdmsr": "vcpu msr",
    "wrmsr": "vcpu msr value", "nested_enter": "vcpu msr_load intercept exit_msr_store exit_msr_load",
    "nested_exit": "vcpu msr_store msr_load", "init": "vcpu", "vmxoff": "vcpu", "smi": "vcpu", "rsm": "vcpu",
    "exit": "vcpu nmi_leaves", "host_write": "vcpu value", "observe": "vcpu",
}
"""What ``vmm.c`` performs, with the arguments that it looks at; ``boot`` is made of accesses above it."""


CODE_HAS = {"init-withdraws-report": True, "vm-entry-loads-shadow": False}
"""How the code, and Bochs, have what is only assumed."""


def cannot_show(scenario: Scenario) -> str:
    """Why the rig cannot show a scenario, or ""."""
    where = places(scenario)
    if isinstance(where, str):
        return where
    for name, on in scenario.assume.items():
        if name in CODE_HAS and on != CODE_HAS[name]:
            return f"an assumption that the code does not have: {name} {on}"
    for step in scenario.steps:
        if step.op == "bare_stay":
            return "a stay on a processor without a hypervisor"
        beyond = set(step.args) - set(PERFORMED.get(step.op, " ".join(step.args)).split())
        if beyond:
            return f"the machine's VMM does not know {step.op} with {', '.join(sorted(beyond))}"
        smm = any(each.op == "smi" for each in scenario.steps)
        if step.op == "migrate" and smm and not resolve_host(step.args["to"]).nested:
            return "the rig's guests run with CR4.VMXE, which RSM on a host without nested virtualization refuses"
    return ""


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
        where = places(scenario)
        assert not isinstance(where, str)
        boot, parameters = where
        for away in runs_without(scenario, taken):
            posted = sum(OPERATIONS_AS_POSTED[name][0] for name in REPAIRS[away]) if away else 0
            faults = any(seen.get("host_fault") for _, seen in history(scenario, away))  # such a boot ends with it
            its = Boot(f"{boot.name}-faults-{away}", boot.append) if faults else boot
            wanted.setdefault(its, {}).setdefault(Load(parameters[0], posted), []).append((away, scenario))
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
                moves = iter(parameters_of(scenario)[1:])
                for step, _ in steps:
                    if step.op == "migrate":
                        lines.append(f"#to {next(moves)}")
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


def initrd(folder: Path) -> bytes:
    """A cpio archive (newc) of a folder's files, with /dev/console."""
    archive = bytearray()
    entries = [("dev", 0o40755, b"", (0, 0)), ("dev/console", 0o20600, b"", (5, 1))]
    entries += [(file.name, 0o100755, file.read_bytes(), (0, 0)) for file in sorted(folder.iterdir())]
    for name, mode, data, (major, minor) in [*entries, ("TRAILER!!!", 0, b"", (0, 0))]:
        path = name.encode() + b"\0"
        fields = [0, mode, 0, 0, 1, 0, len(data), 0, 0, major, minor, len(path), 0]
        archive += b"070701" + b"".join(b"%08x" % each for each in fields) + path
        archive += b"\0" * (-len(archive) % 4) + data
        archive += b"\0" * (-len(archive) % 4)
    return bytes(archive)


def seconds(file: Path | None) -> dict[str, int]:
    """How long each part took: lines of a name and a number; of a part that ran again the last one."""
    lines = file.read_text(encoding="utf-8").splitlines() if file else []
    return {name: int(number) for name, number in (line.rsplit(" ", 1) for line in lines)}


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=("batches", "compare", "initrd", "replay"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--vectors", type=Path, default=Path(__file__).parents[2] / "vectors")
    parser.add_argument("--only", default="", help="scenarios whose id has this")
    parser.add_argument("--without", action="append", default=[], help="of the defects' histories: without this repair")
    parser.add_argument("--record", type=Path, help="where to write what came of each")
    parser.add_argument("--seconds", type=Path, help="a file that says how long each part took")
    parser.add_argument("--version", action="append", default=[], help="what it ran on, for the record")
    parser.add_argument("-v", "--verbose", action="store_true")
    options = parser.parse_args()
    if options.command == "batches":
        batches(options.folder, options.vectors, options.only, options.without)
        return 0
    if options.command == "replay":
        replay(options.folder)
        return 0
    if options.command == "initrd":
        sys.stdout.buffer.write(initrd(options.folder))
        return 0
    record = compare(options.folder, options.vectors, options.verbose)
    if options.record:
        on = {"date": date.today().isoformat(), "versions": options.version, "seconds": seconds(options.seconds)}
        replace(options.record, json.dumps({"on": on, **record, "of": identity()}, indent=1) + "\n")
    print(summary(record))
    return int(failed(record))


if __name__ == "__main__":
    sys.exit(main())
