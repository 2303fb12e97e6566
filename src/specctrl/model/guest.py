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
    ARCH_CAP_BHI_NO,
    ARCH_CAP_ITS_NO,
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
    SSBD,
    STIBP,
)


class Os(Enum):
    """Whose rules a guest follows."""

    LINUX = "linux"  # it reports as RFC v3 p4 and p5 have it
    WINDOWS_LIKE = "windows-like"  # an OS that reports just what Intel's text asks for; assumed


class BhbSequence(Enum):
    """A software sequence that clears the branch history; which one works depends on the processor."""

    NONE = "none"
    SHORT = "short"  # 5 times 5 iterations: cores before Alder Lake and Sapphire Rapids
    LONG = "long"  # 12 times 7 iterations: those cores too
    TSX = "tsx"  # an aborted transaction


class SpectreV2(Enum):
    """Linux' command-line option ``spectre_v2=``: what protects the kernel's indirect branches."""

    AUTO = "auto"  # what Kernel.retpoline says; Linux itself takes enhanced IBRS where it is shown
    EIBRS = "eibrs"
    RETPOLINE = "retpoline"
    EIBRS_RETPOLINE = "eibrs,retpoline"
    IBRS = "ibrs"  # legacy IBRS: bit 0 is written at each entry of the kernel, and taken back on the way out
    OFF = "off"


class SpectreBhi(Enum):
    """Linux' command-line option ``spectre_bhi=``; VMEXIT was called ``auto`` when the RFC was posted."""

    ON = "on"  # clear the history at system calls and after VM exits
    VMEXIT = "vmexit"  # after VM exits only
    OFF = "off"


class BhiDisS(Enum):
    """Whether a kernel uses BHI_DIS_S."""

    AUTO = "auto"  # where CPUID shows it
    NEVER = "never"


class KernelCpu(Enum):
    """Which CPU comes up."""

    BOOT = "boot"
    SECONDARY = "secondary"  # also every CPU but the first after S3
    RESUME = "resume"  # the boot CPU after S3


MANAGED_BITS = IBRS | STIBP | SSBD | RRSBA_DIS_S | BHI_DIS_S
"""The bits of IA32_SPEC_CTRL that Linux manages; what it finds in the others it keeps (SPEC_CTRL_MITIGATIONS_MASK)."""


@dataclass(frozen=True, slots=True)
class Release:
    """What a version of Linux knows of branch history injection, and of the attacks beside it."""

    versions: str
    source: str
    managed: int = MANAGED_BITS
    mitigates_bhi: bool = True
    bhi_no_is_enough: bool = False  # it chooses nothing where IA32_ARCH_CAPABILITIES shows BHI_NO
    ibhf: bool = True  # it clears the history at the end of classic BPF: its sequence, and IBHF
    its_thunks: bool = False  # it avoids indirect branches in the lower half of a cache line (ITS)


RELEASES: dict[str, Release] = {
    "6.3": Release("6.3 to 6.8, but for stable trees that took the mitigation over",
                   "Linux 0125acda7d76 (January 2023); the mitigation of BHI came with 6.9",
                   managed=MANAGED_BITS & ~BHI_DIS_S, mitigates_bhi=False, ibhf=False),
    "6.9": Release("6.9 to 6.15-rc6, and stable trees of that time", "Linux 6.9 to 6.14.6, bhi_select_mitigation",
                   bhi_no_is_enough=True, ibhf=False),
    "6.15": Release("since 12 May 2025: 6.15-rc7, 6.14.7, 6.12.29 and later",
                    "Linux 9f725eec8fc0; Linux 7.3.4, bhi_apply_mitigation, bpf_jit_comp.c and vulnerable_to_its",
                    its_thunks=True),
    "any": Release("not said", "Linux since 9f725eec8fc0 (May 2025), ITS not asked"),
}
"""Linux by the first version of each kind, as the scenario format's ``version`` names it."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """A guest kernel as it is configured; the keys are the scenario format's."""

    os: Os = Os.LINUX
    version: str = "any"  # of :data:`RELEASES`; what another OS than Linux does has no version here
    reports: bool = False  # whether it writes MSR_VIRTUAL_MITIGATION_CTRL at all
    sequence: BhbSequence = BhbSequence.SHORT  # what it uses where it clears the history in software
    retpoline: bool = False  # retpoline protects its indirect branches; False: enhanced IBRS does
    spectre_v2: SpectreV2 = SpectreV2.AUTO
    bhi_dis_s: BhiDisS = BhiDisS.AUTO
    spectre_bhi: SpectreBhi = SpectreBhi.ON

    @classmethod
    def from_keys(cls, keys: Mapping[str, Any]) -> "Kernel":
        """The kernel that the format's object describes; KeyError or ValueError if it describes none.

        >>> Kernel.from_keys(Kernel(sequence=BhbSequence.LONG).as_keys()).sequence
        <BhbSequence.LONG: 'long'>
        >>> Kernel.from_keys({"os": "linux", "spectre_v2": "ibrs"}).relies_on()
        <SpectreV2.IBRS: 'ibrs'>
        """
        given = {**cls().as_keys(), **keys}
        if given["version"] not in RELEASES:
            raise ValueError(f"version is {given['version']!r}: not one of {', '.join(RELEASES)}")
        if given["retpoline"] and given["spectre_v2"] not in ("auto", "retpoline", "eibrs,retpoline"):
            raise ValueError(f"retpoline is true and spectre_v2 is {given['spectre_v2']!r}: they contradict each other")
        return cls(
            Os(given["os"]), given["version"], given["reports"], BhbSequence(given["sequence"]), given["retpoline"],
            SpectreV2(given["spectre_v2"]), BhiDisS(given["bhi_dis_s"]), SpectreBhi(given["spectre_bhi"]),
        )

    def as_keys(self) -> dict[str, Any]:
        """The format's object."""
        return {
            "os": self.os.value,
            "version": self.version,
            "reports": self.reports,
            "sequence": self.sequence.value,
            "retpoline": self.retpoline,
            "spectre_v2": self.spectre_v2.value,
            "bhi_dis_s": self.bhi_dis_s.value,
            "spectre_bhi": self.spectre_bhi.value,
        }

    def relies_on(self) -> SpectreV2:
        """What protects this kernel's indirect branches, AUTO resolved."""
        if self.spectre_v2 is not SpectreV2.AUTO:
            return self.spectre_v2
        return SpectreV2.RETPOLINE if self.retpoline else SpectreV2.EIBRS


@dataclass(frozen=True, slots=True)
class Software:
    """What a kernel runs with once it has chosen: no instruction of the guest changes it again."""

    spec_ctrl: tuple[int, ...] = ()  # what the boot CPU writes to IA32_SPEC_CTRL, in order
    at_entry: BhbSequence = BhbSequence.NONE  # the sequence that clears the history at system calls
    after_exit: BhbSequence = BhbSequence.NONE  # … and after an exit of its own guest
    retpoline: bool = False
    wants_bhi: bool = True  # whether the kernel is meant to be protected from BHI at system calls
    relies_on_ibrs: bool = False  # whether bit 0 of IA32_SPEC_CTRL protects its indirect branches
    writes_at_entry: bool = False  # legacy IBRS: bit 0 is written at each entry of the kernel, 0 on the way out
    classic_bpf: bool = False  # whether an unprivileged program of the guest can have code run in its kernel
    in_bpf: BhbSequence = BhbSequence.NONE  # the sequence that clears the history when such code ends
    ibhf: bool = False  # whether IBHF stands there too, which works while BHI_DIS_S is in effect
    its_thunks: bool = False  # whether it pays for a mitigation of ITS
    kept: int = 0  # the bits of IA32_SPEC_CTRL that it found and keeps on every CPU


def choose(kernel: Kernel, cpuid: Features, arch_capabilities: int, found: int = 0) -> Software:
    """What this kernel chooses from its CPUID and its IA32_ARCH_CAPABILITIES (0 where CPUID hides that).

    ``found`` is what IA32_SPEC_CTRL held when the kernel came up: bits that Linux does not manage stay.
    Retpoline with RRSBA absent, or disabled, is taken for a mitigation of BHI; then comes BHI_DIS_S; the
    software sequence is last.  Without a mitigation of Spectre v2 there is none of BHI or ITS.

    Source: Linux 6.12 and 7.3.4, spectre_v2_select_mitigation, spectre_v2_apply_mitigation,
    spec_ctrl_disable_kernel_rrsba, bhi_select_mitigation, bhi_apply_mitigation, cpu_select_mitigations; for a week,
    the RFC's base among it, a kernel that had disabled RRSBA used BHI_DIS_S or a sequence all the same.

    >>> choose(Kernel(), Features(spec_ctrl=True), 0).at_entry
    <BhbSequence.SHORT: 'short'>
    >>> [hex(value) for value in choose(Kernel(), Features(spec_ctrl=True, bhi_ctrl=True), 0, found=0x90).spec_ctrl]
    ['0x91', '0x491']
    """
    release, mode = RELEASES[kernel.version], kernel.relies_on()
    retpoline = mode in (SpectreV2.RETPOLINE, SpectreV2.EIBRS_RETPOLINE)
    ibrs = (cpuid.spec_ctrl or cpuid.amd_ibrs) and mode in (SpectreV2.EIBRS, SpectreV2.EIBRS_RETPOLINE, SpectreV2.IBRS)
    shows_rrsba = bool(arch_capabilities & ARCH_CAP_RRSBA)
    writes: tuple[int, ...] = ()
    base = found & ~release.managed
    if ibrs:
        base = base | IBRS
        writes += (base,)
    if retpoline and shows_rrsba and cpuid.rrsba_ctrl:
        base = base | RRSBA_DIS_S
        writes += (base,)

    trusts_retpoline = retpoline and (not shows_rrsba or cpuid.rrsba_ctrl)
    affected = release.mitigates_bhi and not (release.bhi_no_is_enough and bool(arch_capabilities & ARCH_CAP_BHI_NO))
    wanted = kernel.spectre_bhi is not SpectreBhi.OFF and mode is not SpectreV2.OFF
    at_entry = after_exit = BhbSequence.NONE
    hardware = False
    if wanted and affected and not trusts_retpoline:
        if cpuid.bhi_ctrl and kernel.bhi_dis_s is BhiDisS.AUTO:
            hardware = True
            base = base | BHI_DIS_S
            writes += (base,)
        else:
            after_exit = kernel.sequence
            if kernel.spectre_bhi is SpectreBhi.ON:
                at_entry = kernel.sequence

    linux = kernel.os is Os.LINUX
    in_bpf = at_entry if release.ibhf else BhbSequence.NONE
    return Software(
        spec_ctrl=writes,
        at_entry=at_entry,
        after_exit=after_exit,
        retpoline=retpoline,
        wants_bhi=wanted and kernel.spectre_bhi is SpectreBhi.ON,
        relies_on_ibrs=ibrs,
        writes_at_entry=ibrs and mode is SpectreV2.IBRS,
        classic_bpf=linux,
        in_bpf=in_bpf,
        ibhf=release.ibhf and (hardware or in_bpf is not BhbSequence.NONE),
        its_thunks=linux and release.its_thunks and mode is not SpectreV2.OFF and not cpuid.bhi_ctrl
        and not bool(arch_capabilities & ARCH_CAP_ITS_NO),
        kept=found & ~release.managed,
    )


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


def boot(kernel: Kernel, cpu: GuestCpu, which: KernelCpu = KernelCpu.BOOT, kept: int = 0) -> Software:
    """Bring up one CPU of a guest: choose, write IA32_SPEC_CTRL, report.

    The boot CPU writes IA32_SPEC_CTRL at each choice, so perhaps never; a secondary CPU, and the boot CPU after S3 or
    hibernation, writes the last value once, 0 too, with what the boot CPU kept.  The boot CPU does not report again
    after S3 (G1).

    Source: Linux, cpu_select_mitigations, x86_spec_ctrl_setup_ap, the MSRs that S3 and hibernation save
    (pm_save_spec_msr); RFC v3 p4 (cpu_select_mitigations and identify_secondary_cpu call virt_mitigation_ctrl_init).
    """
    arch_capabilities = read(cpu, IA32_ARCH_CAPABILITIES) if cpu.cpuid.arch_capabilities else 0
    if which is KernelCpu.BOOT and cpu.cpuid.shows_spec_ctrl:
        kept = read(cpu, IA32_SPEC_CTRL)
    software = choose(kernel, cpu.cpuid, arch_capabilities, kept)
    if which is KernelCpu.BOOT:
        for value in software.spec_ctrl:
            write(cpu, IA32_SPEC_CTRL, value)
    elif cpu.cpuid.shows_spec_ctrl:
        write(cpu, IA32_SPEC_CTRL, software.spec_ctrl[-1] if software.spec_ctrl else software.kept)
    if kernel.reports and arch_capabilities & ARCH_CAP_VIRTUAL_ENUM and which is not KernelCpu.RESUME:
        report(cpu, wanted_report(kernel, software))
    return software


def enter_kernel(cpu: GuestCpu, software: Software) -> None:
    """A system call or interrupt of the guest, on the way in: legacy IBRS writes bit 0, all others write nothing.

    Source: Linux 7.3.4, arch/x86/entry/calling.h, IBRS_ENTER.
    """
    if software.writes_at_entry:
        write(cpu, IA32_SPEC_CTRL, software.spec_ctrl[-1])


def leave_kernel(cpu: GuestCpu, software: Software) -> None:
    """The same on the way out: legacy IBRS takes bit 0 back.

    Source: Linux 7.3.4, arch/x86/entry/calling.h, IBRS_EXIT.
    """
    if software.writes_at_entry:
        write(cpu, IA32_SPEC_CTRL, software.spec_ctrl[-1] & ~IBRS)


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
