# SPDX-License-Identifier: GPL-2.0-only
"""Programs that run whole on the test machine: the exported KVM selftest, and a Linux guest whose kernel reports.

``python3 reference/linux/programs.py batch DIR`` writes their batch, ``compare DIR`` reads what they printed.  What the
selftest must say of each case is the emulator's answer with Bochs' processor in it: where a WRMSR of the guest leaves
SHADOW as it was, the case must fail, at that step.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

from expected import variant
from judging import KNOWN
from rig import replace as write

from specctrl.model.guest import Kernel
from specctrl.model.parts import resolve_host
from specctrl.model.registers import (
    IA32_ARCH_CAPABILITIES,
    MSR_VIRTUAL_ENUMERATION,
    MSR_VIRTUAL_MITIGATION_CTRL,
    MSR_VIRTUAL_MITIGATION_ENUM,
)
from specctrl.scenario import EmulatorTarget, Scenario, read, run_one
from specctrl.scenario.machine import Machine
from specctrl.targets.kernel_record import identity
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

VECTORS = Path(__file__).parents[2] / "vectors"
MACHINE = {"part": "sapphire-rapids", "features": [*resolve_host("sapphire-rapids").features.names(), "DDPD_U"]}
"""What Bochs' arrow_lake enumerates, of what a case can need."""
LOADED = "enable_apicv=0 preemption_timer=0 arch_capabilities_or=0x80000"
"""kvm_intel with RRSBA in what it takes from the processor, as ``sapphire-rapids`` has it."""
# A kernel without KVM has no guest-to-host vector, and then chooses nothing of BHI by itself: spectre_bhi=on.
QUIET = "console=ttyS0 tsc=reliable reboot=k panic=-1"

SELFTESTS = {"with the control": LOADED, "without it": LOADED + " no_spec_ctrl_virt=1"}
BOOTS = ("program-selftest", "program-guests")
GUESTS = {
    "retpoline, no BHI_CTRL": f"boot_guest BHI_CTRL spectre_v2=retpoline {QUIET}",
    "no BHI_CTRL": f"boot_guest BHI_CTRL spectre_bhi=on {QUIET}",
}


def batch(folder: Path) -> None:
    """The lines that the machine performs, of two boots."""
    selftest = [line for load in SELFTESTS.values() for line in (f"#param {load}", "#run force_spec_ctrl_test")]
    guests = [f"#param {LOADED}", *(f"#run {line}" for line in GUESTS.values())]
    folder.mkdir(parents=True, exist_ok=True)
    for boot, lines in zip(BOOTS, (selftest, guests), strict=True):
        write(folder / f"{boot}.batch", "\n".join(lines) + "\n")
        write(folder / f"{boot}.append", "\n")


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


def predicted(case: Case, control: bool) -> str:
    """What the selftest must say of a case: "pass", "skip", or the step at which it fails."""
    host = replace(resolve_host(MACHINE), spec_ctrl_shadow=control)
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


def judge_selftest(lines: list[str], control: bool) -> dict[str, Any]:
    """How many cases ended in which way, and where that is not what was predicted."""
    found = said(lines)
    wanted = {case.id: predicted(case, control) for case in cases(read([VECTORS]))[0]}
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


def compare(folder: Path) -> dict[str, Any]:
    """What came of each program."""
    files = [folder / f"{boot}.answers" for boot in BOOTS]
    ran = [each for file in files for each in printed(file.read_text(encoding="utf-8", errors="replace"))]
    record: dict[str, Any] = {}
    selftests = [lines for name, _, lines in ran if name == "force_spec_ctrl_test"]
    for (title, load), lines in zip(SELFTESTS.items(), [*selftests, [], []], strict=False):
        record[f"selftest, {title}"] = judge_selftest(lines, "no_spec_ctrl_virt" not in load)
    guests = {name: lines for name, _, lines in ran}
    for title, line in GUESTS.items():
        record[f"guest, {title}"] = judge_guest(line, guests.get(line, []))
    return record


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=("batch", "compare"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--record", type=Path, help="where to write what came of them")
    options = parser.parse_args()
    if options.command == "batch":
        batch(options.folder)
        return 0
    programs = compare(options.folder)
    if options.record:
        record = {"date": date.today().isoformat(), "programs": programs, "of": {"series": identity()["series"]}}
        write(options.record, json.dumps(record, indent=1) + "\n")
    print(json.dumps(programs, indent=1))
    return int(any(each["unlike the prediction"] for each in programs.values()))


if __name__ == "__main__":
    sys.exit(main())
