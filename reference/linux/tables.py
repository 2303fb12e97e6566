# SPDX-License-Identifier: GPL-2.0-only
"""What the exported rows and lines must print in the programs that they are for, on the test machine.

Both are performed here as those programs do it, on the emulator with Bochs' processor: its WRMSR leaves SHADOW as it
was, so a guest that writes without an exit reads back what was there before.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from expected import variant

from specctrl.model.parts import Host
from specctrl.model.registers import (
    IA32_ARCH_CAPABILITIES,
    MSR_NUMBERS,
    MSR_VIRTUAL_ENUMERATION,
    MSR_VIRTUAL_MITIGATION_CTRL,
    MSR_VIRTUAL_MITIGATION_ENUM,
)
from specctrl.scenario.machine import Machine
from specctrl.vectors.upstream.rows import msrs_rows, unit_test_rows

CAPABILITIES = "ARCH_CAPABILITIES"
"""The CPUID bit that the model has no name for: KVM shows it to each guest, and the third vCPU lacks it."""
VCPUS = (0, 1, 2)
LACKS_ALL = 2
"""The vCPU of msrs_test.c whose CPUID has none of the features."""
PROGRAMS_OWN = {"SPEC_CTRL": 1 << 0, "STIBP": 1 << 1, "SSBD": 1 << 2}
"""What ``test_mitigation_msrs`` of kvm-unit-tests looks at without the exported lines."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table of msrs_test.c."""

    name: str
    value: int
    reserved: int
    feature: str
    other: str

    @property
    def msr(self) -> int:
        """Its number."""
        return MSR_NUMBERS[self.name.replace("MSR_IA32_", "IA32_")]

    def __str__(self) -> str:
        return f"{self.name} {self.value:#x}"


def rows() -> list[Row]:
    """The exported rows.

    >>> print(rows()[0])
    MSR_IA32_SPEC_CTRL 0x1
    """
    found = re.findall(r"^MSR_TEST2?\((\w+), (\w+), (\w+), (\w+)(?:, (\w+))?\),$", msrs_rows(), re.MULTILINE)
    return [Row(name, int(value, 0), int(reserved, 0), feature, other or feature)
            for name, value, reserved, feature, other in found]


class Stops(Exception):
    """An assertion of the program that does not hold; it ends there."""


class MsrsTest:
    """That program on one host: three vCPUs of one VM, and one exit for each half of a row."""

    def __init__(self, host: Host) -> None:
        self.features = {*host.features.names(), CAPABILITIES}
        self.machine = Machine(host, variant(""), record=False)
        for vcpu in VCPUS:
            if vcpu == LACKS_ALL:
                self.machine.create_vcpu(vcpu=vcpu, features=[])
            else:
                self.machine.create_vcpu(vcpu=vcpu)
                self.machine.set_msrs(vcpu=vcpu, msrs=[(IA32_ARCH_CAPABILITIES, 1 << 63)])
            self.machine.set_msrs(vcpu=vcpu, msrs=[(MSR_VIRTUAL_ENUMERATION, 1), (MSR_VIRTUAL_MITIGATION_ENUM, 3)])

    def read(self, vcpu: int, row: Row, want: int) -> None:
        """RDMSR that must give a value."""
        seen = self.machine.rdmsr(vcpu=vcpu, msr=row.msr)
        if "fault" in seen:
            raise Stops(f"Unexpected {seen['fault']} on RDMSR({row.msr:#x})")
        if seen["value"] != want:
            raise Stops(f"Wanted {want:#x} from RDMSR({row.msr:#x}), got {int(seen['value']):#x}")

    def refused(self, vcpu: int, row: Row, value: int | None) -> None:
        """WRMSR of a value, or RDMSR, that must be #GP."""
        if value is None:
            seen, what = self.machine.rdmsr(vcpu=vcpu, msr=row.msr), f"RDMSR({row.msr:#x})"
        else:
            seen, what = self.machine.wrmsr(vcpu=vcpu, msr=row.msr, value=value), f"WRMSR({row.msr:#x}, {value:#x})"
        if "fault" not in seen:
            raise Stops(f"Wanted #GP on {what}, got no exception")

    def first_half(self, vcpu: int, row: Row) -> int:
        """Until the guest's first exit; returns the value that it says."""
        shown = set() if vcpu == LACKS_ALL else self.features
        if row.feature in shown:
            self.read(vcpu, row, 0)
            if "fault" in (seen := self.machine.wrmsr(vcpu=vcpu, msr=row.msr, value=row.value)):
                raise Stops(f"Unexpected {seen['fault']} on WRMSR({row.msr:#x}, {row.value:#x})")
            self.read(vcpu, row, row.value)
            return row.value
        if row.other not in shown:
            self.refused(vcpu, row, None)
            self.refused(vcpu, row, row.value)
        return 0

    def second_half(self, vcpu: int, row: Row) -> int:
        """Until its second exit."""
        if row.feature in self.features and vcpu != LACKS_ALL:
            self.read(vcpu, row, 0)
        self.refused(vcpu, row, row.reserved)
        return 0

    def userspace(self, vcpu: int, row: Row, said: int) -> None:
        """What it checks at each exit, and that it puts the MSR back."""
        if row.feature not in self.features:
            return
        for want in (said, 0):
            got = int(self.machine.get_msrs(vcpu=vcpu, msrs=[row.msr])["values"][0])
            if got != want:
                raise Stops(f"Wanted {want:#x} from get_msr({row.msr:#x}), got {got:#x}")
            self.machine.set_msrs(vcpu=vcpu, msrs=[(row.msr, 0)])

    def perform(self, row: Row) -> None:
        """One row on all three vCPUs; Stops where an assertion fails."""
        for half in (self.first_half, self.second_half):
            for vcpu in VCPUS:
                said = half(vcpu, row)
                self.machine.exit(vcpu=vcpu)
                self.userspace(vcpu, row, said)


def predicted_rows(host: Host, only: list[Row]) -> dict[str, str]:
    """The rows that the program comes to, each with "pass" or the assertion that ends it."""
    test, ends = MsrsTest(host), {}
    for row in only:
        try:
            test.perform(row)
        except Stops as why:
            return {**ends, str(row): str(why)}
        ends[str(row)] = "pass"
    return ends


def said_of_rows(lines: list[str], status: int) -> dict[str, str]:
    """What msrs_test printed of the exported rows: those that it came to, the last with the assertion that ended it.

    It performs all of them twice, the second time with KVM_SET_ONE_REG where the kernel has it.
    """
    ours = {str(row) for row in rows()}
    came_to = [match[1] for line in lines if (match := re.fullmatch(r"row (\w+ 0x[0-9a-f]+)(?:, one reg)?", line))]
    ends = dict.fromkeys((row for row in came_to if row in ours), "pass")
    if status:
        said = (line.strip() for line in lines if re.search("Wanted|Unexpected|Expected", line))
        why = next(said, f"status {status}")
        ends[came_to[-1] if came_to else "no row"] = why
    return ends


# ---- kvm-unit-tests


def tried(host: Host) -> Iterator[int]:
    """The values of IA32_SPEC_CTRL that ``test_mitigation_msrs`` writes, in its order."""
    added = re.findall(r"X86_FEATURE_(\w+)\)\)\n\t\tspec_ctrl_bits \|= (\w+);", unit_test_rows())
    features = host.features.names()
    bits = 0
    for feature, mask in [*PROGRAMS_OWN.items(), *((name, int(mask, 0)) for name, mask in added)]:
        bits |= mask if feature in features else 0
    return (value for value in range(bits + 1) if not value & ~bits)


def predicted_lines(host: Host, pair: tuple[int, int] | None) -> dict[str, list[bool]]:
    """What ``test_mitigation_msrs`` reports of IA32_SPEC_CTRL and of the guest's report, line by line."""
    machine = Machine(host, variant(""), record=False)
    if pair:
        machine.enable_cap(cap=236, args=list(pair))
    machine.create_vcpu()
    machine.set_msrs(msrs=[(IA32_ARCH_CAPABILITIES, 1 << 63), (MSR_VIRTUAL_ENUMERATION, 1),
                           (MSR_VIRTUAL_MITIGATION_ENUM, 3)])

    def holds(msr: int, value: int) -> bool:
        before = int(machine.rdmsr(msr=msr)["value"])
        machine.wrmsr(msr=msr, value=value)
        after = int(machine.rdmsr(msr=msr)["value"])
        machine.wrmsr(msr=msr, value=before)
        return after == value

    reserved = 1 << 63
    report = [holds(MSR_VIRTUAL_MITIGATION_CTRL, value) for value in range(4)]
    report.append("fault" in machine.wrmsr(msr=MSR_VIRTUAL_MITIGATION_CTRL, value=reserved))
    return {
        "MSR_VIRTUAL_MITIGATION_CTRL": report,
        "SPEC_CTRL": [holds(MSR_NUMBERS["IA32_SPEC_CTRL"], value) for value in tried(host)],
    }


def said_of_lines(lines: list[str]) -> tuple[dict[str, list[bool]], dict[str, int], list[str]]:
    """What msr.flat printed of both MSRs, how many of its other lines ended in which way, and which of them failed."""
    ours: dict[str, list[bool]] = {"MSR_VIRTUAL_MITIGATION_CTRL": [], "SPEC_CTRL": []}
    others, failed = {"pass": 0, "fail": 0}, []
    for line in lines:
        if match := re.fullmatch(r"(PASS|FAIL): (?:(\w+)|Expected #GP on WRMSR\((\w+), .*)", line):
            name = match[2] or match[3]
            if name in ours:
                ours[name].append(match[1] == "PASS")
                continue
        if match := re.fullmatch(r"(PASS|FAIL): (.*)", line):
            others[match[1].lower()] += 1
            if match[1] == "FAIL":
                failed.append(match[2])
    return ours, others, failed
