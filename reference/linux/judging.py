# SPDX-License-Identifier: GPL-2.0-only
"""The answers of the test machine: compared with what must come of them, and replayed as an adapter."""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from expected import history

from specctrl.scenario import Scenario, read
from specctrl.scenario.format import OUTCOMES, SETS, SHOWS
from specctrl.scenario.reading import Step
from specctrl.scenario.running import TargetFailed, differences, normalised, written
from specctrl.targets.kernel_record import AS_PUBLISHED, DIFFERS, ENDINGS, EQUAL, KNOWN_DIFFERENCE, NOT_SHOWN
from specctrl.targets.plain import decode, encode

HISTORIES = Path(__file__).parent / "histories"  # of the machine's own: no published vectors
KNOWN = {
    **dict.fromkeys(("kvm-abi.create-vcpu", "cap.vcpu-ids"),
        "KVM_MAX_VCPU_IDS is four times CONFIG_KVM_MAX_NR_VCPUS, which Debian has at 4096, not at the default of 1024"),
    "field.capabilities-hidden":
        "userspace cannot give IA32_ARCH_CAPABILITIES to a guest whose CPUID lacks it (kvm_set_msr_common)",
    "nested.state.not-nested":
        "KVM_GET_NESTED_STATE is EINVAL where kvm_intel offers no nested virtualization (kvm_vcpu_ioctl)",
    "nested.state.leaves-l2":
        "KVM performs L1's VM-exit MSR-load list when it is forced to leave L2; the rule is the manual's",
    **dict.fromkeys(("nested.state.bitmap-at-run", "nested.state.bitmap-at-run.no-control"),
        "vcpu_enter_guest merges L2's bitmap (KVM_REQ_GET_NESTED_STATE_PAGES) before it takes over a new MSR filter "
        "(KVM_REQ_RECALC_INTERCEPTS): L2 goes on with the old one until its next entry"),
    **dict.fromkeys((
        "gen.rdmsr-report.smm.control.free.exits-inval.7c5fca5c",
        "gen.reply-msr-exit.smm.control.free.faults.4484e4fc",
        "gen.wrmsr-capabilities.level-2.control.free.exits-inval.2287276e",
        "gen.wrmsr-capabilities.smm.control.free.exits-inval.a53e709f"),
        "a refused access of IA32_ARCH_CAPABILITIES has the reason UNKNOWN, not INVAL: KVM_MSR_RET_UNSUPPORTED"),
}
"""Where this kernel differs from what is specified, and why; a scenario that no longer does fails."""
UNASKED = "unsupported=this was not asked of the kernel"
ABOVE = ("exposed", "overhead", "wrote", "host_fault")  # what no hypervisor shows
UNSHOWN = ("in_guest", "reads_intercepted", "nested_flags")
"""What the machine's VMM does not look at; a scenario is compared without it."""
MODELLED = 1 << 63 | 1 << 20 | 1 << 19  # of IA32_ARCH_CAPABILITIES; a real one has more


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
        if key in ("exposed", "overhead", *UNSHOWN):
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
    """Judge every boot's answers; returns what came of each scenario, and of each history without its repair."""
    scenarios = {scenario.id: scenario for scenario in read([vectors, HISTORIES])}
    outcomes: dict[str, dict[str, Any]] = {name: {} for name in ENDINGS}
    taken_away: dict[str, dict[str, Any]] = {}
    for file in sorted(folder.glob("*.batch")):
        said = file.with_suffix(".answers").read_text(encoding="utf-8", errors="replace")
        lines_of = {(id, away): lines for id, away, lines in answers(said)}
        for id, away, _ in answers(file.read_text(encoding="utf-8")):
            verdict = declared(id, judge_one(scenarios[id], away, lines_of.get((id, away), [])))
            if verbose and verdict["outcome"] not in (AS_PUBLISHED, EQUAL):
                print(f"{id} {away}: {verdict['outcome']}: {verdict['why']}")
            if scenarios[id].profile == "spec":
                outcomes[verdict["outcome"]][id] = verdict.get("why")
            else:
                shows = difference(scenarios[id], away) if away else None
                taken_away.setdefault(id, {})[away or "none"] = {**verdict, **({"shows": shows} if shows else {})}
    for id, reason in json.loads((folder / "not-shown.json").read_text(encoding="utf-8")).items():
        outcomes[NOT_SHOWN][id] = reason
    return {
        "outcomes": {
            AS_PUBLISHED: sorted(outcomes[AS_PUBLISHED]),
            EQUAL: sorted(outcomes[EQUAL]),
            **{name: by_reason(outcomes[name]) for name in (KNOWN_DIFFERENCE, DIFFERS, NOT_SHOWN)},
        },
        "repairs taken away": taken_away,
    }


def by_reason(reasons: Mapping[str, str]) -> dict[str, list[str]]:
    """The scenarios of each reason, the most frequent first."""
    found: dict[str, list[str]] = {}
    for id, why in sorted(reasons.items()):
        found.setdefault(why, []).append(id)
    return dict(sorted(found.items(), key=lambda item: (-len(item[1]), item[0])))


def difference(scenario: Scenario, away: str) -> str:
    """The first thing that a repair taken away changes in a history, or "" if it changes nothing."""
    for (step, without), (_, repaired) in zip(history(scenario, away), history(scenario, ""), strict=False):
        before, after = written(without), written(repaired)
        for key in {**before, **after}:
            if key not in ABOVE and before.get(key) != after.get(key):
                return f"{encode(step.message())}: {key} {before.get(key)} without the repair, {after.get(key)} with it"
        if without.get("host_fault"):
            return f"{encode(step.message())}: the host's own WRMSR faults without the repair, and not with it"
    return ""


def replay(folder: Path) -> None:
    """An adapter that answers from the boots' answers, in words: what was not asked there is unsupported.

    ``specctrl run vectors --target 'cmd:python3 reference/linux/rig.py replay DIR' --plain``
    """
    asked: dict[str, list[tuple[list[str], list[str]]]] = {}
    for file in sorted(folder.glob("*.answers")):
        said = {(id, away): lines for id, away, lines in answers(file.read_text(encoding="utf-8", errors="replace"))}
        for id, away, lines in answers(file.with_suffix(".batch").read_text(encoding="utf-8")):
            if not away and (id, away) in said:
                asked.setdefault(lines[0], []).append((lines, said[id, away]))
    like: list[tuple[list[str], list[str]]] = []
    at = 0
    for line in sys.stdin:
        question = line.rstrip("\n")
        if question.startswith("op=begin "):
            like, at = asked.get(question.partition(" assume.")[0], []), 0
        else:
            at += 1
            like = [each for each in like if at < len(each[0]) and each[0][at] == question]
        answer = next((each[1][at] for each in like if at < len(each[1])), UNASKED)
        if question.startswith("op=begin ") and "unsupported" not in answer:
            answer = "observes=" + ",".join(key for key in SHOWS if key not in (*ABOVE, *UNSHOWN))
        print(answer, flush=True)


def declared(id: str, verdict: dict[str, Any]) -> dict[str, Any]:
    """A verdict with the differences that are known taken into account."""
    if id not in KNOWN or verdict["outcome"] == NOT_SHOWN:
        return verdict
    if verdict["outcome"] == DIFFERS:
        return {"outcome": KNOWN_DIFFERENCE, "why": KNOWN[id]}
    return {"outcome": DIFFERS, "why": f"a known difference is not there: {KNOWN[id]}"}


def judge_one(scenario: Scenario, away: str, lines: list[str]) -> dict[str, Any]:
    """One scenario: as published, equal, differs or not shown."""
    steps = history(scenario, away)
    published = away == "" and len(steps) == len(scenario.steps)
    for index, (step, expected) in enumerate([(None, {}), *steps]):
        if index >= len(lines):
            return {"outcome": DIFFERS, "why": "the machine stopped before it answered"}
        line = lines[index]
        if "unsupported=" in line:
            why = line.partition("unsupported=")[2]
            return {"outcome": NOT_SHOWN, "why": why}
        if step is None:
            continue
        try:
            seen = normalised(decode(line))
        except (ValueError, TargetFailed) as nonsense:
            return {"outcome": DIFFERS, "why": f"nonsense: {nonsense}: {line[:100]}"}
        why = disagreement(step, normalised(written(expected)), seen)
        if why:
            return {"outcome": DIFFERS, "why": f"{encode(step.message())}: {why}"}
        if published:
            written_step = scenario.steps[index - 1]
            published = not differences(written_step, modelled(step, {**expected, **seen}))
    return {"outcome": AS_PUBLISHED if published else EQUAL}


def summary(record: Mapping[str, Any]) -> str:
    """The table."""
    counts = {name: ids if isinstance(ids, list) else [id for each in ids.values() for id in each]
              for name, ids in record["outcomes"].items()}
    lines = [f"{len(ids):5}  {name}" for name, ids in counts.items()]
    for name in (DIFFERS, NOT_SHOWN, KNOWN_DIFFERENCE):
        for why, ids in record["outcomes"][name].items():
            lines.append(f"  {name} {len(ids):4}: {why}" + (f" ({', '.join(ids)})" if name != NOT_SHOWN else ""))
    for id, each in sorted(record["repairs taken away"].items()):
        lines.append(f"  {id}: " + ", ".join(f"{away} {verdict['outcome']}" + (", shows" if "shows" in verdict else "")
                                             for away, verdict in each.items()))
    return "\n".join(lines)


def failed(record: Mapping[str, Any]) -> bool:
    """Whether something differs that is not declared."""
    taken_away = [verdict["outcome"] for each in record["repairs taken away"].values() for verdict in each.values()]
    return bool(record["outcomes"][DIFFERS]) or DIFFERS in taken_away
