"""Theorems about the MSR accesses that KVM performs or hands to userspace, and about the virtual MSRs."""

from collections.abc import Callable
from typing import Any

from specctrl.model.kvm.state import NestedState, PendingExit
from specctrl.model.kvm.system import FEATURE_MSRS
from specctrl.model.kvm.vcpu import Vcpu
from specctrl.model.outcomes import Errno, ExitKind, ExitReason, Fault, MsrRefused, UserspaceExit
from specctrl.model.parts import Features
from specctrl.model.registers import (
    IA32_ARCH_CAPABILITIES,
    IA32_SPEC_CTRL,
    KVM_CAP_FORCE_SPEC_CTRL,
    MSR_VIRTUAL_ENUMERATION,
    MSR_VIRTUAL_MITIGATION_CTRL,
    MSR_VIRTUAL_MITIGATION_ENUM,
)
from specctrl.proof.any_vcpu import AnyFilter, Symbols, same, view_now
from specctrl.proof.side_by_side import UNKNOWN_MSR
from specctrl.proof.symbolic import current, flag_term, word_term
from specctrl.proof.terms import Term, all_of, implies, not_, when
from specctrl.proof.theorems.statement import (
    L1_GUEST,
    L1_KVM,
    L2_GUEST,
    L2_KVM,
    Parts,
    attempt,
    choose,
    ends,
    equal,
    has,
    iff,
    outside,
    theorem,
    truth,
    twin,
    unchanged,
)

VIRTUAL = (MSR_VIRTUAL_ENUMERATION, MSR_VIRTUAL_MITIGATION_ENUM, MSR_VIRTUAL_MITIGATION_CTRL)
KNOWN = (IA32_SPEC_CTRL, IA32_ARCH_CAPABILITIES, *VIRTUAL)


def filter_of(vcpu: Vcpu, msr: int, write: bool) -> Term:
    """The term that the filter allows an access of the guest."""
    return flag_term(vcpu.vm.msr_filter.allows(msr, write=write))


def any_ioctl(values: Symbols, state: NestedState) -> Callable[[Vcpu], object]:
    """Each ioctl of userspace, with any words, one a path; KVM_SET_NESTED_STATE with this state."""
    value, mask = values.word("value"), values.word("new_mask")
    msr_filter: Any = AnyFilter("new_filter", values)
    ioctl = choose(values, "ioctl", ("force", "filter", "save", "restore", "set", "get"))
    msr = choose(values, "ioctl.msr", KNOWN) if ioctl in ("set", "get") else 0

    def performed(vcpu: Vcpu) -> object:
        match ioctl:
            case "set":
                return vcpu.set_msrs(((msr, value),))
            case "get":
                return tuple(vcpu.get_msrs((msr,)))
            case "save":
                return vcpu.save_nested()
            case "force":
                vcpu.enable_cap(KVM_CAP_FORCE_SPEC_CTRL, 0, mask, value)
            case "filter":
                vcpu.vm.msr_filter = msr_filter
                vcpu.msr_filter_changed()
            case _:
                vcpu.restore_nested(state)
        return None

    return performed


def same_ioctls(vcpu: Vcpu, other: Vcpu, values: Symbols, *but: str) -> Parts:
    """That each ioctl ends alike on two vCPUs that differ in these fields, and leaves the same in all others."""
    ioctl = any_ioctl(values, other.save_nested())
    seen, expected = attempt(lambda: ioctl(vcpu)), attempt(lambda: ioctl(other))
    failed = isinstance(expected, Errno)
    yield "an ioctl ends alike", truth(ends(seen, Errno, expected.args[0])) if failed else equal(seen, expected)
    yield "it leaves the same", unchanged(vcpu, other, "vm", *but)


@theorem(L1_KVM, L2_KVM, L1_GUEST, L2_GUEST, rules=("access.read.view", "migration.view-not-effective"))
def userspace_reads_what_is_kept(vcpu: Vcpu, values: Symbols) -> Parts:
    """KVM_GET_MSRS returns the guest's view, never the effective value, and the report and the three feature MSRs as
    they are kept; for every guest CPUID, filter and exit reason, in whichever state the vCPU is."""
    expected = (view_now(vcpu), vcpu.arch_capabilities, vcpu.virtual_enumeration, vcpu.mitigation_enum,
                vcpu.mitigation_ctrl)
    got = vcpu.get_msrs(KNOWN)
    yield "how many", truth(len(got) == len(KNOWN))
    for msr, value, kept in zip(KNOWN, got, expected, strict=True):
        yield f"{msr:#x}", same(value, kept)


@theorem(L1_KVM, L2_KVM, rules=("set-msrs.stops",))
def lists_of_ioctls_stop_at_the_first_refusal(vcpu: Vcpu, values: Symbols) -> Parts:
    """KVM_SET_MSRS of two entries does what two calls would, the second only if the first succeeded; it returns how
    many it wrote.  KVM_GET_MSRS stops at an MSR that KVM does not have."""
    again = twin(vcpu)
    entries = ((choose(values, "msr", (IA32_SPEC_CTRL, MSR_VIRTUAL_MITIGATION_CTRL)), values.word("first")),
               (choose(values, "second msr", (MSR_VIRTUAL_MITIGATION_ENUM, UNKNOWN_MSR)), values.word("second")))
    done, expected = vcpu.set_msrs(entries), 0
    for entry in entries:
        if not again.set_msrs((entry,)):
            break
        expected += 1
    yield "how many", truth(done == expected)
    yield "the same", unchanged(vcpu, again, "vm")
    read = vcpu.get_msrs((MSR_VIRTUAL_MITIGATION_CTRL, UNKNOWN_MSR, MSR_VIRTUAL_MITIGATION_CTRL))
    yield "KVM_GET_MSRS", equal(tuple(read), (vcpu.mitigation_ctrl,))


@theorem(L1_KVM, L2_KVM, rules=("access.cpuid-gate",))
def cpuid_gates_the_guest_alone(vcpu: Vcpu, values: Symbols) -> Parts:
    """An access of IA32_SPEC_CTRL that KVM performs for a guest is refused with INVAL, and changes nothing, if its
    CPUID hides the MSR; KVM_SET_MSRS and KVM_GET_MSRS end alike, and set the same words, whatever the guest's CPUID."""
    before, other, value = twin(vcpu), twin(vcpu), values.word("written")
    hidden = not_(flag_term(vcpu.cpuid.spec_ctrl))
    match choose(values, "access", ("guest reads", "guest writes", "ioctls")):
        case "guest reads":
            seen = attempt(lambda: vcpu.read_msr(IA32_SPEC_CTRL, host_initiated=False))
            yield "the guest's read", iff(ends(seen, MsrRefused, ExitReason.INVAL), hidden)
        case "guest writes":
            seen = attempt(lambda: vcpu.write_msr(IA32_SPEC_CTRL, value, host_initiated=False))
            yield "the guest's write", implies(hidden, all_of(
                truth(ends(seen, MsrRefused, ExitReason.INVAL)), unchanged(vcpu, before, "vm")))
        case _:
            other.cpuid = Features(spec_ctrl=values.flag("other.cpuid.spec_ctrl"),
                                   arch_capabilities=values.flag("other.cpuid.arch_cap"))
            entry = (choose(values, "msr", KNOWN), value)
            yield "KVM_SET_MSRS", truth(vcpu.set_msrs((entry,)) == other.set_msrs((entry,)))
            yield "the words", unchanged(vcpu, other, "vm", "cpu", "cpuid", "vmcs01", "vmcs02", "passthrough")
            yield "KVM_GET_MSRS", equal(tuple(vcpu.get_msrs(KNOWN)), tuple(other.get_msrs(KNOWN)))


@theorem(L1_KVM, L2_KVM, rules=("filter.decides-first", "filter.guest-only"))
def filter_decides_first_and_for_guests_alone(vcpu: Vcpu, values: Symbols) -> Parts:
    """What the filter denies a guest is refused with the reason FILTER, and changes nothing, for MSRs that KVM has and
    for one that it has not; what it allows never is.  KVM_SET_MSRS and KVM_GET_MSRS end alike, and set the same words,
    under every filter."""
    before, other, value = twin(vcpu), twin(vcpu), values.word("written")
    msr, access = choose(values, "msr", (*KNOWN, UNKNOWN_MSR)), choose(values, "access", ("read", "write", "ioctls"))
    if access == "ioctls":
        other.vm.msr_filter = AnyFilter("other_filter", values)  # type: ignore[assignment]  # stands for every MsrFilter
        yield "KVM_SET_MSRS", truth(vcpu.set_msrs(((msr, value),)) == other.set_msrs(((msr, value),)))
        yield "the words", unchanged(vcpu, other, "vm", "vmcs01", "vmcs02")
        yield "KVM_GET_MSRS", equal(tuple(vcpu.get_msrs(KNOWN)), tuple(other.get_msrs(KNOWN)))
        return
    write = access == "write"
    denied = not_(filter_of(vcpu, msr, write))
    seen = attempt(lambda: vcpu.emulate_wrmsr(msr, value) if write else vcpu.emulate_rdmsr(msr))
    yield access, iff(ends(seen, MsrRefused, ExitReason.FILTER), denied)
    yield f"a denied {access} changes nothing", implies(denied, unchanged(vcpu, before, "vm"))


@theorem(L1_KVM, L2_KVM, rules=("msr-exit.reasons",))
def refusals_exit_where_userspace_asked(vcpu: Vcpu, values: Symbols) -> Parts:
    """An instruction whose access is refused exits to userspace, with its reason, MSR and value and with the
    instruction waiting, exactly if the VM enabled that reason; otherwise the guest takes #GP."""
    kind, reason = choose(values, "kind", list(ExitKind)), choose(values, "reason", list(ExitReason))
    pending = PendingExit(kind, reason, choose(values, "msr", (IA32_SPEC_CTRL, UNKNOWN_MSR)), values.word("written"))
    seen = attempt(lambda: vcpu.hand_over(pending))
    yield "it exits", iff(ends(seen, UserspaceExit), has(vcpu.vm.exit_reasons, reason.value))
    yield "or #GP", truth(isinstance(seen, UserspaceExit | Fault))
    if isinstance(seen, UserspaceExit):
        yield "what is told", equal(PendingExit(seen.kind, seen.reason, seen.msr, seen.value), pending)
        yield "it waits", truth(vcpu.pending_exit is pending and not vcpu.in_guest)


@theorem(L1_KVM, L2_KVM, rules=("msr-exit.completes",))
def reply_completes_without_kvm(vcpu: Vcpu, values: Symbols) -> Parts:
    """Userspace's reply completes a pending RDMSR with its value and a pending WRMSR with nothing, or with #GP where it
    says so; no word that KVM keeps changes, and nothing is pending any more."""
    kind, data, error = choose(values, "kind", list(ExitKind)), values.word("data"), values.flag("error")
    vcpu.pending_exit = PendingExit(kind, ExitReason.FILTER, IA32_SPEC_CTRL, values.word("written"))
    before = twin(vcpu)
    seen = attempt(lambda: vcpu.reply(data, error))
    yield "#GP", iff(isinstance(seen, Fault), error)
    if not isinstance(seen, Fault):
        yield "the value", same(seen, data) if kind is ExitKind.RDMSR else truth(seen is None)
    yield "the guest runs", truth(vcpu.in_guest and vcpu.pending_exit is None)
    yield "nothing else", unchanged(
        vcpu, before, "vm", "cpu", "vmcs02", "pending_exit", "has_run", "nested_run_pending", "bitmap_merge_pending")


# ---- the virtual MSRs


@theorem(L1_KVM, L2_KVM, rules=(
    "virt.enumeration.gate", "virt.ctrl.gate", "virt.read-only", "virt.ctrl.reserved", "virt.ctrl.offered",
    "virt.ctrl.any-time", "virt.refusal.inval", "virt.report.silent",
))
def guest_accesses_of_virtual_msrs(vcpu: Vcpu, values: Symbols) -> Parts:
    """A guest's access of a virtual MSR that no filter denies is performed exactly if its CPUID and bit 63 announce
    the enumeration, and for the other two MSRs the enumeration's bit 0 too; it writes only the report, with no reserved
    bit and no new bit that it is not offered.  Every refusal is INVAL and changes nothing; a read returns what is kept,
    and an accepted report is read back."""
    before, value = twin(vcpu), values.word("written")
    msr = choose(values, "msr", (IA32_ARCH_CAPABILITIES, *VIRTUAL))
    write = choose(values, "access", ("read", "write")) == "write"
    current().assume(filter_of(vcpu, msr, write))
    listed = flag_term(vcpu.cpuid.arch_capabilities)
    shown = all_of(listed, has(vcpu.arch_capabilities, 1 << 63))
    if msr == IA32_ARCH_CAPABILITIES:
        gate, kept = listed, vcpu.arch_capabilities
    elif msr == MSR_VIRTUAL_ENUMERATION:
        gate, kept = shown, vcpu.virtual_enumeration
    else:
        gate = all_of(shown, has(vcpu.virtual_enumeration, 1))
        kept = vcpu.mitigation_enum if msr == MSR_VIRTUAL_MITIGATION_ENUM else vcpu.mitigation_ctrl
    if not write:
        seen = attempt(lambda: vcpu.emulate_rdmsr(msr))
        yield "a read", iff(ends(seen, MsrRefused, ExitReason.INVAL), not_(gate))
        if not isinstance(seen, MsrRefused):
            yield "what is read", same(seen, kept)
        return
    new = word_term(value) & ~word_term(before.mitigation_ctrl)
    takes = all_of(gate, truth(msr == MSR_VIRTUAL_MITIGATION_CTRL), not_(outside(value, 0b11)),
                   new & ~word_term(before.mitigation_enum) == 0)
    seen = attempt(lambda: vcpu.emulate_wrmsr(msr, value))
    yield "a write", iff(truth(seen is None), takes)
    yield "or INVAL", truth(seen is None or ends(seen, MsrRefused, ExitReason.INVAL))
    if seen is None:
        yield "the report", same(vcpu.read_msr(msr, host_initiated=False), value)
        yield "nothing else is kept", unchanged(
            vcpu, before, "vm", "cpu", "vmcs01", "vmcs02", "mitigation_ctrl", "force_mask", "force_value", "saved",
            "passthrough")
    else:
        yield "what is refused changes nothing", unchanged(vcpu, before, "vm")


@theorem(L1_KVM, L2_KVM, rules=(
    "virt.host.valid-sets", "virt.frozen", "virt.ctrl.any-time", "virt.ctrl.reserved", "virt.report.silent",
))
def userspace_writes_of_virtual_msrs(vcpu: Vcpu, values: Symbols) -> Parts:
    """KVM_SET_MSRS of a virtual MSR is decided by its constant valid set alone; of the three feature MSRs, once the
    vCPU has run, by whether the value is the one that is kept.  What is accepted is kept as written, and what is
    refused changes nothing; the report stays writable."""
    before, value, msr = twin(vcpu), values.word("written"), choose(values, "msr", (IA32_ARCH_CAPABILITIES, *VIRTUAL))
    field, valid = {
        IA32_ARCH_CAPABILITIES: ("arch_capabilities", 2**64 - 1), MSR_VIRTUAL_ENUMERATION: ("virtual_enumeration", 0b1),
        MSR_VIRTUAL_MITIGATION_ENUM: ("mitigation_enum", 0b11), MSR_VIRTUAL_MITIGATION_CTRL: ("mitigation_ctrl", 0b11),
    }[msr]
    frozen = all_of(flag_term(vcpu.has_run), truth(msr in FEATURE_MSRS))
    taken = vcpu.set_msrs(((msr, value),)) == 1
    yield "it is accepted", iff(taken, when(
        frozen, same(value, getattr(before, field)), not_(outside(value, valid))))
    yield "what is kept", same(getattr(vcpu, field), value if taken else getattr(before, field))
    forced = ("force_mask", "force_value", "saved", "passthrough") if msr == MSR_VIRTUAL_MITIGATION_CTRL else ()
    records = ("vm", "cpu", "vmcs01", "vmcs02") if forced else ("vm",)
    yield "nothing else", unchanged(vcpu, before, field, *records, *forced)
    if not taken:
        yield "what is refused changes nothing", unchanged(vcpu, before, "vm")


@theorem(L1_KVM, L2_KVM, rules=("virt.report.per-vcpu", "virt.report.in-force"))
def report_forces_on_its_own_vcpu(vcpu: Vcpu, values: Symbols) -> Parts:
    """A report, by the guest or by userspace, changes no field of the VM or of another vCPU of that VM; on its own
    vCPU it is in force at the next VM entry, and before it is at L2 or at L1."""
    other, value = twin(vcpu), values.word("written")
    other.vm = vcpu.vm
    vm, before = twin(vcpu).vm, twin(other)
    hosts = bool(values.flag("userspace"))
    attempt(lambda: vcpu.write_mitigation_ctrl(value, host_initiated=hosts))
    yield "the other vCPU", unchanged(other, before, "vm")
    yield "the VM", unchanged(vcpu.vm, vm)
    vcpu.run()
    register, control = word_term(vcpu.cpu.spec_ctrl), flag_term(vcpu.cpu.has_control)
    yield "the register", implies(
        flag_term(vcpu.host.has_spec_ctrl), register & word_term(vcpu.force_mask) == word_term(vcpu.force_value))
    yield "MASK", implies(control, same(vcpu.vmcs.spec_ctrl_mask, vcpu.force_mask))
