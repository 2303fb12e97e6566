# SPDX-License-Identifier: GPL-2.0-only
"""Programs that run whole on the test machine.

The exported KVM selftest, the programs that the exported rows and lines are for, a Linux guest whose kernel reports.
``python3 reference/linux/programs.py batch DIR`` writes their batches, ``compare DIR`` reads what they printed.  What
each must say is the emulator's answer with Bochs' processor in it: where a WRMSR of the guest leaves SHADOW as it was,
a case must fail, at that step.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date
from itertools import zip_longest
from pathlib import Path
from typing import Any

from expected import variant
from judging import KNOWN
from rig import replace as write
from rig import seconds
from tables import predicted_lines, predicted_rows, rows, said_of_lines, said_of_rows

from specctrl.model.guest import Kernel
from specctrl.model.parts import Host, resolve_host
from specctrl.model.registers import (
    IA32_ARCH_CAPABILITIES,
    MSR_VIRTUAL_ENUMERATION,
    MSR_VIRTUAL_MITIGATION_CTRL,
    MSR_VIRTUAL_MITIGATION_ENUM,
)
from specctrl.scenario import EmulatorTarget, Scenario, read, run_one
from specctrl.scenario.machine import Machine
from specctrl.targets.kernel_record import programs_identity
from specctrl.vectors.upstream.cases import (
    CPUID_FEATURES,
    PER_VCPU,
    VIRTUAL_MSRS,
    Case,
    cases,
    host_object,
    present,
    with_exits,
)
from specctrl.vectors.upstream.shapes import SHAPES

VECTORS = Path(__file__).parents[2] / "vectors"
MACHINE = {"part": "sapphire-rapids", "features": [*resolve_host("sapphire-rapids").features.names(), "DDPD_U"]}
"""What Bochs' arrow_lake enumerates, of what a case can need."""
LOADED = "enable_apicv=0 preemption_timer=0 arch_capabilities_or=0x80000"
"""kvm_intel with RRSBA in what it takes from the processor, as ``sapphire-rapids`` has it."""
# A kernel without KVM has no guest-to-host vector, and then chooses nothing of BHI by itself: spectre_bhi=on.
QUIET = "console=ttyS0 tsc=reliable reboot=k panic=-1"

WITH, WITHOUT = "with the control", "without it"
LOADS = {WITH: LOADED, WITHOUT: LOADED + " no_spec_ctrl_virt=1"}
PAIR = (0x400, 0x400)
"""What a VM of kvm-unit-tests forces where the control is there."""
GUESTS = {
    "retpoline, no BHI_CTRL": f"boot_guest BHI_CTRL spectre_v2=retpoline {QUIET}",
    "no BHI_CTRL": f"boot_guest BHI_CTRL spectre_bhi=on {QUIET}",
}


TEXTS = {"program-selftest": ["selftest"], "program-rows": ["msrs-rows"], "program-lines": ["kvm-unit-tests-rows"],
         "program-guests": []}
"""The texts of this project that are built into the programs of each boot."""


def exported(boot: str) -> dict[str, str]:
    """What is built into the programs of a boot."""
    return {name: SHAPES[name].text() for name in TEXTS[boot]}


def all_and_alone(control: bool) -> list[str]:
    """The command lines for the rows: all, and each alone where Bochs' processor stops them."""
    return ["msrs_test", *(f"msrs_test {number}" for number in range(1, len(rows()) + 1) if control)]


BOOTS: dict[str, dict[str, list[str]]] = {
    "program-selftest": {title: ["force_spec_ctrl_test"] for title in LOADS},
    "program-rows": {title: all_and_alone(title == WITH) for title in LOADS},
    "program-lines": {WITH: [" ".join(["run_unit msr.elf", *map(hex, PAIR)])], WITHOUT: ["run_unit msr.elf"]},
    "program-guests": {WITH: list(GUESTS.values())},
}
"""For each boot the command lines, by how kvm_intel is loaded."""


def batch(folder: Path, has: Path) -> None:
    """The lines that the machine performs, of each boot; none of a program that is not among its files."""
    folder.mkdir(parents=True, exist_ok=True)
    for boot, loads in BOOTS.items():
        if boot == "program-lines" and not (has / "msr.elf").exists():
            continue
        lines = []
        for title, commands in loads.items():
            lines.append(f"#param {LOADS[title]}")
            lines += [f"#run {line}" for line in commands]
        write(folder / f"{boot}.batch", "\n".join(lines) + "\n")
        write(folder / f"{boot}.append", "\n")


@dataclass(frozen=True)
class Ran:
    """One program that ran whole: how kvm_intel was loaded, its command line, its status and what it printed."""

    title: str
    line: str
    status: int
    lines: list[str]

    @property
    def control(self) -> bool:
        """Whether KVM had the control."""
        return self.title == WITH

    @property
    def host(self) -> Host:
        """The host that it ran on."""
        return replace(resolve_host(MACHINE), spec_ctrl_shadow=self.control)


def ran(folder: Path, boot: str) -> Iterator[Ran]:
    """What the batch of a boot asks for, with what came of it: nothing and -1 where the machine stopped before."""
    answers = (folder / f"{boot}.answers").read_text(encoding="utf-8", errors="replace")
    seen = list(printed(answers))
    titles = {load: title for title, load in LOADS.items()}
    title = ""
    for line in (folder / f"{boot}.batch").read_text(encoding="utf-8").splitlines():
        kind, _, rest = line.partition(" ")
        if kind == "#param":
            title = titles[rest]
        elif seen and seen[0][0] == rest:
            yield Ran(title, *seen.pop(0))
        else:
            yield Ran(title, rest, -1, [])


def printed(text: str) -> Iterator[tuple[str, int, list[str]]]:
    """Each program with its exit status and what it printed."""
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("#out "):
            lines.append(line[5:])
        elif line.startswith("#ran "):
            name, status = line[5:].rsplit(" ", 1)
            yield name, int(status), lines
            lines = []


# ---- the selftest


def predicted(case: Case, host: Host) -> str:
    """What the selftest must say of a case: "pass", "skip", or the step at which it fails."""
    has = present(host) | {VIRTUAL_MSRS, PER_VCPU}
    if set(case.needs) - has or set(case.lacks) & has:
        return "skip"
    steps = with_exits(case.steps)
    history = Scenario(case.id, host_object(host), steps)
    result = run_one(history, EmulatorTarget(variant("")), any_profile=True)
    if result.status == "pass":
        return "pass"
    assert result.step is not None
    return f"step {sum(step.op != 'exit' for step in steps[:result.step + 1])}"


def said(lines: list[str]) -> dict[str, str]:
    """What the selftest said of each case."""
    found = {}
    for line in lines:
        if match := re.fullmatch(r"(ok|not ok) \d+ (?:# SKIP )?([^\s:,]+)(?:: .*|, step (\d+))?", line):
            ok, id, step = match.groups()
            found[id] = f"step {step}" if ok == "not ok" else "skip" if "# SKIP" in line else "pass"
    return found


def judge_selftest(program: Ran) -> dict[str, Any]:
    """How many cases ended in which way, and where that is not what was predicted."""
    found = said(program.lines)
    wanted = {case.id: predicted(case, program.host) for case in cases(read([VECTORS]))[0]}
    ends = ["fail" if end.startswith("step") else end for end in found.values()]
    unlike = {id: f"{end} predicted, {found.get(id, 'nothing')} seen"
              for id, end in wanted.items() if found.get(id) != end}
    return {
        "pass": ends.count("pass"), "fail": ends.count("fail"), "skip": ends.count("skip"),
        "known difference": {id: KNOWN[id] for id in unlike if id in KNOWN},
        "unlike the prediction": {id: why for id, why in unlike.items() if id not in KNOWN},
    }


# ---- the guest


def reported(features: str, command_line: str) -> int:
    """What this specification's guest kernel reports on such a host."""
    host = resolve_host("sapphire-rapids")
    shown = [name for name in host.features.names() if name in CPUID_FEATURES and name not in features.split(",")]
    announced = [[IA32_ARCH_CAPABILITIES, 1 << 63], [MSR_VIRTUAL_ENUMERATION, 1], [MSR_VIRTUAL_MITIGATION_ENUM, 3]]
    machine = Machine(host=host, record=False)
    machine.create_vcpu(features=shown)
    machine.set_msrs(msrs=announced)
    kernel = Kernel(version="6.15", reports=True, retpoline="spectre_v2=retpoline" in command_line)
    wrote = machine.boot(kernel=kernel.as_keys())["wrote"]
    return next((int(value) for msr, value in wrote if msr == MSR_VIRTUAL_MITIGATION_CTRL), 0)


def judge_guest(name: str, lines: list[str]) -> dict[str, Any]:
    """What each CPU had reported at each stage, and where that is not what was expected."""
    _, features, command_line = name.split(" ", 2)
    seen = {}
    for line in lines:
        if match := re.fullmatch(r"(stage \d|end): (cpu \d): report (0x[0-9a-f]+), .*effective (0x[0-9a-f]+)", line):
            stage, cpu, report, effective = match.groups()
            seen[f"{stage}, {cpu}"] = [report, effective]
    report = hex(reported(features, command_line))
    wanted = {f"stage {stage}, cpu {cpu}": report for stage in (1, 2) for cpu in (0, 1)} | {"end, cpu 0": "0x0"}
    return {
        "report and effective value": seen,
        "unlike the prediction": {place: f"{want} predicted, {seen.get(place, ['nothing'])[0]} seen"
                                  for place, want in wanted.items() if seen.get(place, [""])[0] != want},
    }


# ---- the rows and the lines


def judge_rows(programs: list[Ran]) -> dict[str, Any]:
    """How each row of msrs_test.c ended, among all of them and alone."""
    every, found, wanted = rows(), {}, {}
    for program in programs:
        _, _, number = program.line.partition(" ")
        asked = [every[-int(number)]] if number else every
        name = f"alone: {asked[0]}" if number else "all"
        found[name] = said_of_rows(program.lines, program.status)
        wanted[name] = predicted_rows(program.host, asked)
    return {
        "all": found["all"],
        "alone": {row: end for name, ends in found.items() if name != "all" for row, end in ends.items()},
        "unlike the prediction": {name: f"{ends} predicted, {found[name]} seen"
                                  for name, ends in wanted.items() if found[name] != ends},
    }


def judge_lines(program: Ran) -> dict[str, Any]:
    """How each line of kvm-unit-tests ended that is about our MSRs, and how many of the program's others did."""
    pair = PAIR if program.control else None
    wanted = predicted_lines(program.host, pair)
    found, others, failed = said_of_lines(program.lines)
    return {
        "forced": [hex(each) for each in pair] if pair else None,
        **{name: {"pass": ends.count(True), "fail": ends.count(False)} for name, ends in found.items()},
        "other lines": others,
        "unlike the prediction": {
            **{name: f"{len(ends)} lines predicted, {len(found[name])} seen; the first that differs is number {index}"
               for name, ends in wanted.items() if (index := first_difference(ends, found[name])) is not None},
            **dict.fromkeys(failed, "a line of the program's own fails"),
        },
    }


def first_difference(wanted: list[bool], found: list[bool]) -> int | None:
    """Where two lists differ; None if they do not."""
    return next((index for index, (one, other) in enumerate(zip_longest(wanted, found)) if one != other), None)


def compare(folder: Path, boot: str) -> dict[str, Any]:
    """What came of each program of a boot."""
    record: dict[str, Any] = {}
    guests = {line: title for title, line in GUESTS.items()}
    tables_of: dict[str, list[Ran]] = {}
    for each in ran(folder, boot):
        program, _, _ = each.line.partition(" ")
        if program == "force_spec_ctrl_test":
            record[f"selftest, {each.title}"] = judge_selftest(each)
        elif program == "run_unit":
            record[f"kvm-unit-tests' msr, {each.title}"] = judge_lines(each)
        elif program == "msrs_test":
            tables_of.setdefault(each.title, []).append(each)
        else:
            record[f"guest, {guests[each.line]}"] = judge_guest(each.line, each.lines)
    return record | {f"msrs_test, {title}": judge_rows(programs) for title, programs in tables_of.items()}


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=("batch", "compare"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--has", type=Path, default=Path(), help="the machine's files")
    parser.add_argument("--seconds", type=Path, help="a file that says how long each part took")
    parser.add_argument("--version", action="append", default=[], help="what it ran on, for the record")
    parser.add_argument("--record", type=Path, help="where to write what came of them")
    options = parser.parse_args()
    if options.command == "batch":
        batch(options.folder, options.has)
        return 0
    boots: dict[str, Any] = {}
    for boot in BOOTS:
        if (options.folder / f"{boot}.answers").exists():
            took = {"seconds": seconds(options.seconds).get(f"boot {boot}")}
            on = {"date": date.today().isoformat(), "versions": options.version, **took}
            boots[boot] = {"on": on, "programs": compare(options.folder, boot), "of": programs_identity(exported(boot))}
    if options.record:
        write(options.record, json.dumps(boots, indent=1) + "\n")
    programs = {title: each for boot in boots.values() for title, each in boot["programs"].items()}
    print(json.dumps(programs, indent=1))
    return int(not boots or any(each["unlike the prediction"] for each in programs.values()))


if __name__ == "__main__":
    sys.exit(main())
