"""Theorems about guest kernels: what they choose, write and report, and what keeps them from being exposed."""

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field, replace
from itertools import pairwise

from specctrl.model import guest
from specctrl.model.exposure import (
    BtiProtection,
    Overhead,
    Protection,
    RrsbaProtection,
    SameModeProtection,
    bhi_protection,
    bti_protection,
    exposed,
    overhead,
    rrsba_protection,
    same_mode_protection,
    sequence_works,
)
from specctrl.model.guest import (
    RELEASES,
    BhbSequence,
    BhiDisS,
    Kernel,
    KernelCpu,
    Os,
    Software,
    SpectreBhi,
    SpectreV2,
)
from specctrl.model.kvm.variant import Variant
from specctrl.model.outcomes import GP, Fault
from specctrl.model.parts import Features, Host
from specctrl.model.registers import (
    ARCH_CAP_BHI_NO,
    ARCH_CAP_RRSBA,
    ARCH_CAP_VIRTUAL_ENUM,
    BHI_DIS_S,
    IA32_ARCH_CAPABILITIES,
    IA32_SPEC_CTRL,
    IBRS,
    MSR_VIRTUAL_ENUMERATION,
    MSR_VIRTUAL_MITIGATION_CTRL,
    MSR_VIRTUAL_MITIGATION_ENUM,
    RRSBA_DIS_S,
)
from specctrl.proof.any_vcpu import Symbols, same
from specctrl.proof.symbolic import flag_term, word_term
from specctrl.proof.terms import Term, all_of, any_of, implies, not_, when
from specctrl.proof.theorems.capability import a_host
from specctrl.proof.theorems.statement import Parts, any_bit, choose, equal, has, iff, term_of, theorem, truth

VIRTUAL = (MSR_VIRTUAL_ENUMERATION, MSR_VIRTUAL_MITIGATION_ENUM, MSR_VIRTUAL_MITIGATION_CTRL)
MAY_FAULT = ((MSR_VIRTUAL_ENUMERATION, "read"), (MSR_VIRTUAL_MITIGATION_ENUM, "read"),
             (MSR_VIRTUAL_MITIGATION_CTRL, "write"))
"""The accesses that may fault in the theorem about reports."""


@dataclass(slots=True)
class AnyCpu:
    """The CPU that a kernel comes up on: every MSR holds any word."""

    cpuid: Features
    held: dict[int, int]
    faults: Callable[[int, str], bool]
    accesses: list[tuple[str, int]] = field(default_factory=list)
    wrote: list[tuple[int, int]] = field(default_factory=list)

    def rdmsr(self, msr: int) -> int:
        """RDMSR."""
        self.accesses.append(("read", msr))
        if self.faults(msr, "read"):
            raise Fault(GP)
        return self.held[msr]

    def wrmsr(self, msr: int, value: int) -> None:
        """WRMSR."""
        self.accesses.append(("write", msr))
        if self.faults(msr, "write"):
            raise Fault(GP)
        self.held[msr] = value
        self.wrote.append((msr, value))

    def written(self, msr: int) -> list[int]:
        """What was written to one MSR, in order."""
        return [value for number, value in self.wrote if number == msr]


def any_cpu(values: Symbols, name: str = "cpu", faults: Callable[[int, str], bool] = lambda *_: False) -> AnyCpu:
    """A CPU of a guest: what it shows is that of every CPU of the guest, what its other MSRs hold is its own."""
    msrs = (IA32_SPEC_CTRL, *VIRTUAL)
    held = {msr: values.word(f"{name}.{msr:x}") for msr in msrs}
    return AnyCpu(any_cpuid(values), held | {IA32_ARCH_CAPABILITIES: values.word("arch_capabilities")}, faults)


def any_cpuid(values: Symbols) -> Features:
    """What any guest's CPUID shows, as far as a kernel looks at it."""
    names = ("spec_ctrl", "rrsba_ctrl", "bhi_ctrl", "arch_capabilities", "amd_ibrs")
    return Features(**{name: values.flag(f"cpuid.{name}") for name in names})


def any_kernel(values: Symbols) -> Kernel:
    """A kernel as its owner may configure it."""
    return Kernel(
        os=choose(values, "os", list(Os)), version=choose(values, "version", list(RELEASES)),
        reports=values.flag("reports"), sequence=choose(values, "sequence", [BhbSequence.SHORT, BhbSequence.LONG]),
        spectre_v2=choose(values, "spectre_v2", [mode for mode in SpectreV2 if mode is not SpectreV2.AUTO]),
        bhi_dis_s=choose(values, "bhi_dis_s", list(BhiDisS)),
        spectre_bhi=choose(values, "spectre_bhi", list(SpectreBhi)))


def any_software(values: Symbols) -> Software:
    """What a kernel may run with, whichever way it came by it."""
    at_entry = choose(values, "at_entry", list(BhbSequence))
    flags = ("retpoline", "wants_bhi", "relies_on_ibrs", "writes_at_entry", "classic_bpf", "ibhf", "its_thunks")
    return Software(
        at_entry=at_entry, in_bpf=choose(values, "in_bpf", (at_entry, BhbSequence.NONE)),
        **{name: values.flag(f"software.{name}") for name in flags})


# ---- what a kernel chooses


@theorem(rules=("guest.boot.hardware-first", "guest.boot.retpoline"))
def kernel_uses_retpoline_or_hardware_or_software(machine: Variant, values: Symbols) -> Parts:
    """For every CPUID, IA32_ARCH_CAPABILITIES and configuration: a kernel sets BHI_DIS_S exactly if its CPUID shows
    BHI_CTRL, its owner wants a mitigation and lets it, and it does not take retpoline for one; it clears the history in
    software exactly if it wants one and does neither. It takes retpoline for one exactly if it is shown no RRSBA or has
    set RRSBA_DIS_S. A version that takes BHI_NO for enough wants none where that is shown, one from before 6.9 never,
    and keeps a BHI_DIS_S that it found. It sets IBRS where it relies on it and can, and else no bit but those that it
    found and does not manage; each value that it writes has the bits of the one before."""
    kernel, cpuid, shown = any_kernel(values), any_cpuid(values), values.word("arch_capabilities")
    found, release, mode = values.word("found"), RELEASES[kernel.version], kernel.spectre_v2
    chosen = guest.choose(kernel, cpuid, shown, found)
    last = chosen.spec_ctrl[-1] if chosen.spec_ctrl else 0
    retpoline, rrsba = truth("retpoline" in mode.value), has(shown, ARCH_CAP_RRSBA)
    trusts = all_of(retpoline, any_of(not_(rrsba), has(last, RRSBA_DIS_S)))
    exempt = all_of(truth(release.bhi_no_is_enough), has(shown, ARCH_CAP_BHI_NO))
    wished = truth(
        release.mitigates_bhi and kernel.spectre_bhi is not SpectreBhi.OFF and mode is not SpectreV2.OFF)
    wants = all_of(wished, not_(exempt), not_(trusts))
    hardware = all_of(flag_term(cpuid.bhi_ctrl), truth(kernel.bhi_dis_s is BhiDisS.AUTO))
    kept = found & ~release.managed if chosen.spec_ctrl else 0
    yield "BHI_DIS_S", iff(has(last, BHI_DIS_S), any_of(all_of(wants, hardware), has(kept, BHI_DIS_S)))
    software = all_of(wants, not_(hardware))
    yield "after an exit", truth(chosen.after_exit in (kernel.sequence, BhbSequence.NONE))
    yield "a sequence", iff(truth(chosen.after_exit is not BhbSequence.NONE), software)
    yield "at system calls", truth(
        chosen.at_entry is (chosen.after_exit if kernel.spectre_bhi is SpectreBhi.ON else BhbSequence.NONE))
    yield "RRSBA_DIS_S", iff(has(last, RRSBA_DIS_S), all_of(retpoline, rrsba, flag_term(cpuid.rrsba_ctrl)))
    ibrs = all_of(any_of(flag_term(cpuid.spec_ctrl), flag_term(cpuid.amd_ibrs)), truth("ibrs" in mode.value))
    yield "IBRS", iff(has(last, IBRS), ibrs)
    yield "it relies on IBRS", iff(chosen.relies_on_ibrs, ibrs)
    yield "legacy IBRS", iff(chosen.writes_at_entry, all_of(ibrs, truth(mode is SpectreV2.IBRS)))
    yield "no other bit", (word_term(last) ^ word_term(kept)) & ~word_term(IBRS | RRSBA_DIS_S | BHI_DIS_S) == 0
    for earlier, later in pairwise(chosen.spec_ctrl):
        yield "each adds", word_term(earlier) & ~word_term(later) == 0
        yield "each is another", word_term(earlier) != word_term(later)
    yield "the rest is the owner's", all_of(
        iff(chosen.retpoline, retpoline),
        truth(chosen.wants_bhi is (kernel.spectre_bhi is SpectreBhi.ON and mode is not SpectreV2.OFF)))
    clears = any_of(all_of(wants, hardware), truth(chosen.at_entry is not BhbSequence.NONE))
    yield "IBHF", iff(chosen.ibhf, all_of(truth(release.ibhf), clears))
    yield "classic BPF", truth(chosen.in_bpf is (chosen.at_entry if release.ibhf else BhbSequence.NONE))


def shows(cpuid: Features) -> Term:
    """The term that this CPUID shows IA32_SPEC_CTRL."""
    return any_of(flag_term(cpuid.spec_ctrl), flag_term(cpuid.amd_ibrs))


@theorem(rules=("guest.boot.chooses-once", "guest.boot.secondary", "guest.boot.keeps"))
def every_cpu_of_a_guest_chooses_alike(machine: Variant, values: Symbols) -> Parts:
    """What a kernel chooses depends on its CPUID, IA32_ARCH_CAPABILITIES and the bits alone that the boot CPU found and
    keeps: on two CPUs that show the same it is the same, whatever their other MSRs hold and offer, and after S3.  The
    boot CPU writes IA32_SPEC_CTRL value by value; a secondary CPU, and the boot CPU after S3, writes the last of them
    once, what is kept if there is none, exactly if CPUID shows the MSR."""
    kernel = replace(any_kernel(values), reports=False)
    first, other = any_cpu(values, "first"), any_cpu(values, "other")
    which = choose(values, "which", (KernelCpu.SECONDARY, KernelCpu.RESUME))
    found = first.held[IA32_SPEC_CTRL]
    chosen = guest.boot(kernel, first)
    again = guest.boot(kernel, other, which, chosen.kept)
    yield "what is kept", implies(term_of(shows(first.cpuid)), same(
        chosen.kept, found & ~guest.RELEASES[kernel.version].managed))
    yield "the choice", equal(chosen, again)
    wrote = first.written(IA32_SPEC_CTRL)
    yield "the boot CPU writes so many", truth(len(wrote) == len(chosen.spec_ctrl))
    for written, value in zip(wrote, chosen.spec_ctrl, strict=False):
        yield "the boot CPU writes", same(written, value)
    now = other.written(IA32_SPEC_CTRL)
    yield "another CPU writes", iff(truth(len(now) == 1), shows(first.cpuid))
    yield "or nothing", truth(len(now) <= 1)
    if now:
        yield "the last value", same(now[0], chosen.spec_ctrl[-1] if chosen.spec_ctrl else chosen.kept)


# ---- what it reports


@theorem(rules=("guest.report.what-it-uses", "guest.report.other-os"))
def report_says_what_runs(machine: Variant, values: Symbols) -> Parts:
    """Linux wants to report BHB_CLEAR_SEQ_S_USED exactly if it clears the history at system calls, with any sequence;
    the other OS exactly if it does so with the short one.  Each wants RETPOLINE_S_USED exactly if it uses retpoline,
    and no other bit."""
    kernel, software = any_kernel(values), any_software(values)
    wanted = guest.wanted_report(kernel, software)
    clears = software.at_entry is not BhbSequence.NONE
    short = software.at_entry is BhbSequence.SHORT
    yield "BHB_CLEAR_SEQ_S_USED", iff(has(wanted, 1), truth(clears if kernel.os is Os.LINUX else short))
    yield "RETPOLINE_S_USED", iff(has(wanted, 2), software.retpoline)
    yield "no other bit", has(wanted, 0b11) == (word_term(wanted) != 0)


@theorem(rules=("guest.report.what-it-uses", "guest.report.offered-only"))
def report_sets_and_clears_what_is_offered(machine: Variant, values: Symbols) -> Parts:
    """A report makes each of the two bits that is offered what the kernel wants, and leaves every other bit as it is;
    it leaves all as it is where MSR_VIRTUAL_ENUMERATION does not announce the MSR, and where an access faults that
    should not.  It writes at most once for a bit, never a value that is there already, and nothing but this MSR."""
    def faults(msr: int, access: str) -> bool:
        return (msr, access) in MAY_FAULT and bool(values.flag(f"{msr:x}.{access} faults"))

    cpu, wanted, bit = any_cpu(values, faults=faults), values.word("wanted"), any_bit(values)
    before = dict(cpu.held)
    guest.report(cpu, wanted)
    announced = all_of(has(before[MSR_VIRTUAL_ENUMERATION], 1), *(
        not_(term_of(values.flag(f"{msr:x}.{access} faults"))) for msr, access in MAY_FAULT))
    offered = all_of(announced, has(before[MSR_VIRTUAL_MITIGATION_ENUM], bit), has(0b11, bit))
    report = MSR_VIRTUAL_MITIGATION_CTRL
    yield "each bit", iff(has(cpu.held[report], bit), when(offered, has(wanted, bit), has(before[report], bit)))
    for msr in before.keys() - {report}:
        yield f"{msr:#x}", same(cpu.held[msr], before[msr])
    values_of = [before[report], *cpu.written(report)]
    yield "at most two writes", truth(len(values_of) <= 3)
    for one, then in pairwise(values_of):
        changed = word_term(one) ^ word_term(then)
        yield "one bit a write", all_of(changed != 0, changed & (changed - 1) == 0)


@theorem(rules=("guest.report.every-cpu", "guest.report.offered-only", "guest.report.after-s3", "guest.report.kexec"))
def each_cpu_reports_for_itself(machine: Variant, values: Symbols) -> Parts:
    """A Linux kernel that reports does so on the boot CPU and on each secondary CPU, as its choice asks, exactly if
    CPUID and bit 63 announce the enumeration.  Without that, and on the boot CPU after S3, and if it does not report,
    it neither reads nor writes a virtual MSR: what the register holds, from whichever kernel, stays."""
    kernel = Kernel(reports=values.flag("reports"), retpoline=values.flag("retpoline"),
                    spectre_bhi=choose(values, "spectre_bhi", list(SpectreBhi)))
    cpu, which = any_cpu(values), choose(values, "which", list(KernelCpu))
    after = copy(cpu)
    after.held = dict(cpu.held)
    software = guest.boot(kernel, cpu, which)
    reports = all_of(flag_term(kernel.reports), flag_term(cpu.cpuid.arch_capabilities),
                     has(cpu.held[IA32_ARCH_CAPABILITIES], ARCH_CAP_VIRTUAL_ENUM),
                     truth(which is not KernelCpu.RESUME))
    touched = any(msr in VIRTUAL for _, msr in cpu.accesses)
    yield "it reports", iff(truth(touched), reports)
    if touched:
        guest.report(after, guest.wanted_report(kernel, software))
    for msr in VIRTUAL:
        yield f"{msr:#x}", same(cpu.held[msr], after.held[msr])


# ---- what protects it


def protects(host: Host, software: Software | None, effective: object) -> tuple[Term, Term]:
    """The terms that retpoline protects this software, and that its sequence does, from the host's features alone."""
    if software is None:
        return truth(False), truth(False)
    features = host.features
    works = {BhbSequence.NONE: truth(False), BhbSequence.SHORT: term_of(host.short_sequence_works),
             BhbSequence.LONG: truth(True), BhbSequence.TSX: term_of(features.tsx)}[software.at_entry]
    disabled = any_of(not_(term_of(features.rrsba)), has(effective, RRSBA_DIS_S))
    return all_of(term_of(software.retpoline), disabled), works


def known_or_not(values: Symbols) -> Software | None:
    """Any software, or None of a guest that has not booted."""
    return any_software(values) if choose(values, "booted", (True, False)) else None


@theorem(rules=("exposure.bhi",))
def four_things_stop_bhi(machine: Variant, values: Symbols) -> Parts:
    """On every host, for every effective value and all software: nothing stops BHI across modes exactly unless the host
    reports BHI_NO, the value has BHI_DIS_S, retpoline is used without RRSBA behaviour, or a sequence runs at system
    calls that works on this host.  Whichever is named is there; before a boot only the first two count.  A kernel is
    exposed to BHI exactly if nothing stops it across modes, or within one."""
    host, effective, software = a_host(values), values.word("effective"), known_or_not(values)
    retpoline, sequence = protects(host, software, effective)
    stops = {
        Protection.NOT_AFFECTED: term_of(host.features.bhi_no), Protection.BHI_DIS_S: has(effective, BHI_DIS_S),
        Protection.RETPOLINE: retpoline, Protection.SEQUENCE: sequence,
    }
    named = bhi_protection(host, effective, software)
    yield "what is named is there", stops.get(named, not_(any_of(list(stops.values()))))
    across = not_(any_of(list(stops.values())))
    yield "nothing", iff(truth(named is Protection.NOTHING), across)
    within = truth(
        software is not None and same_mode_protection(host, effective, software) is SameModeProtection.NOTHING)
    yield "exposed", iff(truth("BHI" in exposed(host, effective, software)), any_of(across, within))
    for each in BhbSequence:
        yield f"the {each.value} sequence", iff(
            sequence_works(host, each), protects(host, Software(at_entry=each), effective)[1])


@theorem(rules=("exposure.same-mode",))
def bhi_dis_s_helps_within_the_kernel_with_ibhf_alone(machine: Variant, values: Symbols) -> Parts:
    """On every host, for every effective value and all software: nothing stops classic BPF within the kernel exactly if
    programs can have it run, no retpoline holds, no sequence that works here ends it, and IBHF does not end it or
    works neither by BHI_DIS_S in the value nor by BHI_NO.  So without IBHF the bit changes nothing there."""
    host, effective, software = a_host(values), values.word("effective"), any_software(values)
    retpoline, sequence = protects(host, replace(software, at_entry=software.in_bpf), effective)
    fence = all_of(term_of(software.ibhf), any_of(has(effective, BHI_DIS_S), term_of(host.features.bhi_no)))
    stopped = any_of(retpoline, sequence, fence)
    found = same_mode_protection(host, effective, software)
    yield "nothing", iff(
        truth(found is SameModeProtection.NOTHING), all_of(term_of(software.classic_bpf), not_(stopped)))
    again = same_mode_protection(host, effective & ~BHI_DIS_S, software)
    yield "without IBHF", implies(not_(term_of(software.ibhf)), truth(again is found))


@theorem(rules=("exposure.bti",))
def a_lost_ibrs_is_named(machine: Variant, values: Symbols) -> Parts:
    """On every host, for every effective value and view and all software: a kernel is exposed to injected branch
    targets exactly if it relies on IBRS, bit 0 is not in the value, no retpoline holds, and it is not one that writes
    the bit at each entry and has taken it back by itself."""
    host, effective, view = a_host(values), values.word("effective"), values.word("view")
    software = any_software(values)
    retpoline, _ = protects(host, software, effective)
    outside_kernel = all_of(term_of(software.writes_at_entry), not_(has(view, IBRS)))
    lost = all_of(term_of(software.relies_on_ibrs), not_(has(effective, IBRS)), not_(retpoline), not_(outside_kernel))
    yield "nothing", iff(truth(bti_protection(host, effective, software, view) is BtiProtection.NOTHING), lost)
    yield "exposed", iff(truth("BTI" in exposed(host, effective, software, view)), lost)


@theorem(rules=("exposure.rrsba",))
def rrsba_needs_retpoline_and_no_bit(machine: Variant, values: Symbols) -> Parts:
    """On every host, for every effective value and all software: a kernel is exposed to RRSBA exactly if it relies on
    retpoline, or has not booted, the host has RRSBA behaviour, and the value lacks RRSBA_DIS_S."""
    host, effective, software = a_host(values), values.word("effective"), known_or_not(values)
    relies = truth(True) if software is None else term_of(software.retpoline)
    open_to = all_of(relies, term_of(host.features.rrsba), not_(has(effective, RRSBA_DIS_S)))
    yield "nothing", iff(truth(rrsba_protection(host, effective, software) is RrsbaProtection.NOTHING), open_to)
    yield "exposed", iff(truth("RRSBA" in exposed(host, effective, software)), open_to)


def without(item: Overhead, effective: int, software: Software) -> tuple[int, Software]:
    """The value and the software without what an overhead pays for."""
    if item in (Overhead.BHI_DIS_S_UNNEEDED, Overhead.BHI_DIS_S_OPTED_OUT, Overhead.BHI_DIS_S_AND_SEQUENCE):
        return effective & ~BHI_DIS_S, software
    if item is Overhead.RRSBA_DIS_S_UNNEEDED:
        return effective & ~RRSBA_DIS_S, software
    if item is Overhead.ITS_THUNKS_UNNEEDED:
        return effective, replace(software, its_thunks=False)
    cheaper = BhbSequence.SHORT if item is Overhead.SEQUENCE_TOO_LONG else BhbSequence.NONE
    return effective, replace(software, at_entry=cheaper)


@theorem(rules=("exposure.overhead",))
def what_is_needless_can_be_left_out(machine: Variant, values: Symbols) -> Parts:
    """On every host, for every effective value and all software: whatever is called needless is there, and the kernel
    without it is exposed to exactly the same, unless its owner wants no mitigation at system calls.  Of a guest that
    has not booted nothing is called needless."""
    host, effective, software = a_host(values), values.word("effective"), any_software(values)
    yield "before a boot", truth(overhead(host, effective, None) == ())
    for item in overhead(host, effective, software):
        value, other = without(item, effective, software)
        there = any_of(word_term(value) != word_term(effective), truth(other.at_entry is not software.at_entry),
                       not_(iff(other.its_thunks, software.its_thunks)))
        yield f"{item.value} is there", there
        still = truth(exposed(host, value, other) == exposed(host, effective, software))
        unwanted = all_of(truth(item is Overhead.BHI_DIS_S_OPTED_OUT), not_(term_of(software.wants_bhi)))
        yield f"without {item.value}", any_of(still, unwanted)
