"""Guest kernels: which mitigation they choose from what they see, and what they report.

What a kernel can see is its CPUID and the MSRs that it may read; it never sees the host.  So a guest that
moves keeps the choice that it made where it booted: that is the whole problem.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from specctrl.model.outcomes import Fault
from specctrl.model.parts import Features
from specctrl.model.registers import (
    ARCH_CAP_RRSBA,
    ARCH_CAP_VIRTUAL_ENUM,
    BHB_CLEAR_SEQ_S_USED,
    BHI_DIS_S,
    IA32_ARCH_CAPABILITIES,
    IA32_SPEC_CTRL,
    IBRS,
    MITIGATION_CTRL_SUPPORT,
    MSR_VIRTUAL_ENUMERATION,
    MSR_VIRTUAL_MITIGATION_CTRL,
    MSR_VIRTUAL_MITIGATION_ENUM,
    RETPOLINE_S_USED,
    RRSBA_DIS_S,
)


class Os(Enum):
    """Whose rules a guest follows when it reports."""

    LINUX = "linux"  # with RFC v3 p4 and p5
    WINDOWS_LIKE = "windows-like"  # an OS that reports just what Intel's text asks for; assumed


class BhbSequence(Enum):
    """A software sequence that clears the branch history; which one works depends on the processor."""

    NONE = "none"
    SHORT = "short"  # 5 times 5 iterations: cores before Alder Lake and Sapphire Rapids
    LONG = "long"  # 12 times 7 iterations: those cores too
    TSX = "tsx"  # an aborted transaction


class SpectreBhi(Enum):
    """Linux' command-line option ``spectre_bhi=``; VMEXIT was called ``auto`` when the RFC was posted."""

    ON = "on"  # clear the history at system calls and after VM exits
    VMEXIT = "vmexit"  # after VM exits only
    OFF = "off"


class KernelCpu(Enum):
    """Which CPU comes up."""

    BOOT = "boot"
    SECONDARY = "secondary"  # also every CPU but the first after S3
    RESUME = "resume"  # the boot CPU after S3


@dataclass(frozen=True, slots=True)
class Kernel:
    """A guest kernel as it is configured; the keys are the scenario format's."""

    os: Os = Os.LINUX
    reports: bool = False  # whether it writes MSR_VIRTUAL_MITIGATION_CTRL at all
    sequence: BhbSequence = BhbSequence.SHORT  # what it uses where it clears the history in software
    retpoline: bool = False  # retpoline protects its indirect branches; False: enhanced IBRS does
    bhi_dis_s: str = "auto"  # "auto": use BHI_DIS_S where CPUID shows it; "never"
    spectre_bhi: SpectreBhi = SpectreBhi.ON

    @classmethod
    def from_keys(cls, keys: Mapping[str, Any]) -> "Kernel":
        """The kernel that the format's object describes; KeyError or ValueError if it describes none.

        >>> Kernel.from_keys(Kernel(sequence=BhbSequence.LONG).as_keys()).sequence
        <BhbSequence.LONG: 'long'>
        """
        if keys["bhi_dis_s"] not in ("auto", "never"):
            raise ValueError(f"bhi_dis_s is {keys['bhi_dis_s']!r}: not one of auto, never")
        return cls(
            Os(keys["os"]), keys["reports"], BhbSequence(keys["sequence"]), keys["retpoline"],
            keys["bhi_dis_s"], SpectreBhi(keys["spectre_bhi"]),
        )

    def as_keys(self) -> dict[str, Any]:
        """The format's object."""
        return {
            "os": self.os.value,
            "reports": self.reports,
            "sequence": self.sequence.value,
            "retpoline": self.retpoline,
            "bhi_dis_s": self.bhi_dis_s,
            "spectre_bhi": self.spectre_bhi.value,
        }


@dataclass(frozen=True, slots=True)
class Software:
    """What a kernel runs with once it has chosen: no instruction of the guest changes it again."""

    spec_ctrl: tuple[int, ...] = ()  # what the boot CPU writes to IA32_SPEC_CTRL, in order
    at_entry: BhbSequence = BhbSequence.NONE  # the sequence that clears the history at system calls
    after_exit: BhbSequence = BhbSequence.NONE  # … and after an exit of its own guest
    retpoline: bool = False
    wants_bhi: bool = True  # whether the kernel is meant to be protected from BHI at system calls


def choose(kernel: Kernel, cpuid: Features, arch_capabilities: int) -> Software:
    """What this kernel chooses from its CPUID and its IA32_ARCH_CAPABILITIES (0 where CPUID hides that).

    Retpoline with RRSBA absent, or disabled, is taken for a mitigation of BHI; then comes BHI_DIS_S; the
    software sequence is last.  Without retpoline the kernel is taken to use enhanced IBRS.

    Source: Linux 6.12, spectre_v2_select_mitigation, spec_ctrl_disable_kernel_rrsba, bhi_select_mitigation; for a
    week, the RFC's base among it, a kernel that had disabled RRSBA used BHI_DIS_S or a sequence all the same.

    >>> choose(Kernel(), Features(spec_ctrl=True), 0).at_entry
    <BhbSequence.SHORT: 'short'>
    >>> [hex(value) for value in choose(Kernel(), Features(spec_ctrl=True, bhi_ctrl=True), 0).spec_ctrl]
    ['0x1', '0x401']
    """
    writes: list[int] = []
    base = 0
    shows_rrsba = bool(arch_capabilities & ARCH_CAP_RRSBA)
    if cpuid.spec_ctrl and not kernel.retpoline:
        base |= IBRS
        writes.append(base)
    if kernel.retpoline and shows_rrsba and cpuid.rrsba_ctrl:
        base |= RRSBA_DIS_S
        writes.append(base)

    trusts_retpoline = kernel.retpoline and (not shows_rrsba or cpuid.rrsba_ctrl)
    at_entry = after_exit = BhbSequence.NONE
    if kernel.spectre_bhi is not SpectreBhi.OFF and not trusts_retpoline:
        if cpuid.bhi_ctrl and kernel.bhi_dis_s == "auto":
            base |= BHI_DIS_S
            writes.append(base)
        else:
            after_exit = kernel.sequence
            if kernel.spectre_bhi is SpectreBhi.ON:
                at_entry = kernel.sequence
    wants_bhi = kernel.spectre_bhi is SpectreBhi.ON
    return Software(tuple(writes), at_entry, after_exit, kernel.retpoline, wants_bhi)


def wanted_report(kernel: Kernel, software: Software) -> int:
    """The value of MSR_VIRTUAL_MITIGATION_CTRL that describes this kernel.

    Linux says that it clears the history at system calls, whichever sequence does it; the other OS only that
    its sequence is the short one, since the others need no help.

    Source: RFC v3 p4, p5 (virt_mitigation_ctrl_init); the other OS: assumed from Intel's text, in which a guest
    with the long or the TSX sequence may leave the bit clear.

    >>> wanted_report(Kernel(), Software(at_entry=BhbSequence.LONG))
    1
    >>> wanted_report(Kernel(os=Os.WINDOWS_LIKE), Software(at_entry=BhbSequence.LONG))
    0
    """
    if kernel.os is Os.LINUX:
        clears = software.at_entry is not BhbSequence.NONE
    else:
        clears = software.at_entry is BhbSequence.SHORT
    return (BHB_CLEAR_SEQ_S_USED if clears else 0) | (RETPOLINE_S_USED if software.retpoline else 0)


class GuestCpu(Protocol):
    """The CPU that a kernel runs on; a fault is raised as :class:`specctrl.model.outcomes.Fault`."""

    cpuid: Features

    def rdmsr(self, msr: int) -> int:
        """RDMSR."""

    def wrmsr(self, msr: int, value: int) -> None:
        """WRMSR."""


def boot(kernel: Kernel, cpu: GuestCpu, which: KernelCpu = KernelCpu.BOOT) -> Software:
    """Bring up one CPU of a guest: choose, write IA32_SPEC_CTRL, report.

    The boot CPU writes IA32_SPEC_CTRL at each choice, so perhaps never; a secondary CPU, and the boot CPU after
    S3, writes the last value once, 0 too.  After S3 the boot CPU does not report again (G1).

    Source: Linux, cpu_select_mitigations, x86_spec_ctrl_setup_ap, the MSRs that S3 saves; RFC v3 p4
    (cpu_select_mitigations and identify_secondary_cpu call virt_mitigation_ctrl_init).
    """
    arch_capabilities = read(cpu, IA32_ARCH_CAPABILITIES) if cpu.cpuid.arch_capabilities else 0
    software = choose(kernel, cpu.cpuid, arch_capabilities)
    if which is KernelCpu.BOOT:
        for value in software.spec_ctrl:
            write(cpu, IA32_SPEC_CTRL, value)
    elif cpu.cpuid.spec_ctrl:
        write(cpu, IA32_SPEC_CTRL, software.spec_ctrl[-1] if software.spec_ctrl else 0)
    if kernel.reports and arch_capabilities & ARCH_CAP_VIRTUAL_ENUM and which is not KernelCpu.RESUME:
        report(cpu, wanted_report(kernel, software))
    return software


def report(cpu: GuestCpu, wanted: int) -> None:
    """Write the report: each bit that the hypervisor offers, set or cleared, by itself; an equal value is not written.

    Source: RFC v3 p4, p5 (virt_mitigation_ctrl_init with msr_set_bit and msr_clear_bit).
    """
    if not read(cpu, MSR_VIRTUAL_ENUMERATION) & MITIGATION_CTRL_SUPPORT:
        return
    offered = read(cpu, MSR_VIRTUAL_MITIGATION_ENUM)
    for bit in (BHB_CLEAR_SEQ_S_USED, RETPOLINE_S_USED):
        if offered & bit:
            now = read(cpu, MSR_VIRTUAL_MITIGATION_CTRL)
            then = now & ~bit | wanted & bit
            if then != now:
                write(cpu, MSR_VIRTUAL_MITIGATION_CTRL, then)


def read(cpu: GuestCpu, msr: int) -> int:
    """RDMSR as a kernel performs it: one that faults is logged and reads 0."""
    try:
        return cpu.rdmsr(msr)
    except Fault:
        return 0


def write(cpu: GuestCpu, msr: int, value: int) -> None:
    """WRMSR as a kernel performs it: one that faults is logged and has no effect."""
    with suppress(Fault):
        cpu.wrmsr(msr, value)
