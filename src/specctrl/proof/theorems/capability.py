"""Theorems about the contract and the capability: what can be forced, what is, and what is told of it."""

import errno
from copy import copy
from dataclasses import replace

from specctrl.model.contract import Contract, ReportKeptBy, can_force, requested_bits, supported_force_spec_ctrl
from specctrl.model.kvm.system import FEATURE_MSRS, check_extension, feature_msr, msr_index_list
from specctrl.model.kvm.variant import Assumptions, Variant
from specctrl.model.outcomes import Errno, Fault
from specctrl.model.parts import Features, Host
from specctrl.model.registers import (
    ARCH_CAP_BHI_NO,
    ARCH_CAP_RRSBA,
    ARCH_CAP_VIRTUAL_ENUM,
    BHI_DIS_S,
    IA32_ARCH_CAPABILITIES,
    IA32_SPEC_CTRL,
    IBRS,
    KVM_CAP_FORCE_SPEC_CTRL,
    KVM_CAP_X86_USER_SPACE_MSR,
    MSR_VIRTUAL_ENUMERATION,
    MSR_VIRTUAL_MITIGATION_CTRL,
    MSR_VIRTUAL_MITIGATION_ENUM,
    RRSBA_DIS_S,
    SSBD,
    STIBP,
)
from specctrl.model.words import is_subset, merge, newly_set, overlay
from specctrl.proof.any_vcpu import Symbols, any_host, exists, host_facts, same
from specctrl.proof.invariant import askings
from specctrl.proof.symbolic import assume, current, flag_term, settled, word_term
from specctrl.proof.terms import Term, all_of, any_of, implies, not_, when
from specctrl.proof.theorems.statement import (
    Parts,
    any_bit,
    attempt,
    ends,
    equal,
    has,
    iff,
    merged_outside,
    outside,
    taken_from,
    theorem,
    truth,
    unchanged,
)
from specctrl.scenario.machine import Machine


def a_host(values: Symbols, name: str = "host") -> Host:
    """Every host that the assumptions of the proofs let exist."""
    host = any_host(values, name)
    for fact in host_facts(host).values():
        current().assume(fact)
    return host


def forceable(host: Host, bit: object) -> Term:
    """The term that this one bit can be forced to 1 on this host, from the host's features alone."""
    features, one = host.features, word_term(bit)
    rrsba = all_of(flag_term(features.rrsba_ctrl), flag_term(features.rrsba))
    return all_of(flag_term(host.spec_ctrl_shadow), any_of(
        one == IBRS, all_of(one == STIBP, flag_term(features.stibp)), all_of(one == SSBD, flag_term(features.ssbd)),
        all_of(one == RRSBA_DIS_S, rrsba), all_of(one == BHI_DIS_S, flag_term(features.bhi_ctrl))))


def forceable_bits(host: Host) -> Term:
    """All bits of which that holds, as one word."""
    bits = word_term(0)
    for bit in (IBRS, STIBP, SSBD, RRSBA_DIS_S, BHI_DIS_S):
        bits = bits | when(forceable(host, bit), word_term(bit), word_term(0))
    return bits


def asked_for(host: Host, report: object, bit: object) -> Term:
    """The term that the report asks for this one bit and the host can deliver it."""
    return any_of([all_of(has(report, asked), word_term(bit) == wanted, deliverable)
                  for asked, wanted, deliverable in askings(host)])


def pair_is_accepted(host: Host, mask: object, value: object) -> Term:
    """The term that userspace may force this pair: some bit can be, each that it sets can be, and its mask has each."""
    return all_of(flag_term(host.spec_ctrl_shadow), word_term(value) & ~forceable_bits(host) == 0,
                  word_term(value) & ~word_term(mask) == 0)


@theorem(rules=("contract.effective.merge", "contract.force.overlay", "virt.ctrl.offered"))
def formulas_go_bit_by_bit(machine: Variant, values: Symbols) -> Parts:
    """The four word formulas, for each of the 64 bits: a merge has the value's bit where the mask has it and the
    guest's elsewhere; an overlay masks what either asks for, and forces to 1 what only the report asks for; a subset
    has no bit that the other lacks; newly set is what the new word has and the old one has not."""
    bit = any_bit(values)
    left, middle, right = (values.word(name) for name in ("left", "middle", "right"))
    yield "merge", taken_from(bit, merge(left, middle, right), left, middle, right)
    mask, value = overlay(left, middle, right)
    yield "overlay: mask", iff(has(mask, bit), any_of(has(left, bit), has(right, bit)))
    yield "overlay: value", iff(
        has(value, bit), any_of(has(middle, bit), all_of(has(right, bit), not_(has(left, bit)))))
    yield "newly set", iff(has(newly_set(left, right), bit), all_of(has(left, bit), not_(has(right, bit))))
    yield "subset", iff(is_subset(left, right), not_(outside(left, right)))


@theorem(rules=("cap.supported.set",))
def supported_set_is_what_the_host_has(machine: Variant, values: Symbols) -> Parts:
    """The supported set has a bit exactly if the host has the control and the features that this bit needs; it has no
    bit but IBRS, STIBP, SSBD, RRSBA_DIS_S and BHI_DIS_S."""
    host, bit = a_host(values), any_bit(values)
    yield "each bit", iff(has(supported_force_spec_ctrl(host), bit), forceable(host, bit))


@theorem(rules=("cap.check.boolean", "cap.supported.ioctl-fd", "cap.supported.bad-pointer", "numbers.detect.by-ioctl"))
def support_is_told(machine: Variant, values: Symbols) -> Parts:
    """KVM_CHECK_EXTENSION answers 1 exactly on a host where some bit can be forced to 1, and 0 on every other;
    KVM_GET_SUPPORTED_FORCE_SPEC_CTRL answers on the /dev/kvm fd of every host with exactly the bits that can be,
    fails with ENOTTY on a VM fd, and with EFAULT for a pointer that cannot be written."""
    host = a_host(values)
    some = any_of([forceable(host, bit) for bit in (IBRS, STIBP, SSBD, RRSBA_DIS_S, BHI_DIS_S)])
    answer = check_extension(host, KVM_CAP_FORCE_SPEC_CTRL)
    yield "0 or 1", truth(answer in (0, 1))
    yield "KVM_CHECK_EXTENSION", iff(truth(answer == 1), some)
    yield "no other pair", implies(truth(answer == 0), not_(
        flag_term(can_force(host, values.word("mask"), values.word("value")))))
    on_fd = Machine(host, record=False)
    seen = on_fd.get_supported_force_spec_ctrl()
    yield "the ioctl", all_of(truth(seen["ret"] == 0), same(int(seen["value"]), settled(forceable_bits(host))))
    yield "on a VM fd", truth(on_fd.get_supported_force_spec_ctrl(fd="vm") == {"errno": "ENOTTY"})
    yield "a bad pointer", truth(on_fd.get_supported_force_spec_ctrl(bad_pointer=True) == {"errno": "EFAULT"})


@theorem(rules=(
    "cap.enable.needs-support", "cap.enable.value-supported", "cap.enable.value-in-mask", "cap.enable.mask-arbitrary",
    "cap.enable.before-vcpus", "cap.enable.replaces",
))
def capability_takes_exactly_valid_pairs(machine: Variant, values: Symbols) -> Parts:
    """KVM_ENABLE_CAP of KVM_CAP_FORCE_SPEC_CTRL on a VM fd succeeds exactly if no vCPU exists, the host can force some
    bit, and the value has no bit that cannot be forced to 1 and none outside the mask, whatever else the mask has; it
    then replaces the pair and nothing else, and where it fails, with EINVAL, it changes nothing."""
    host, mask, value = a_host(values), values.word("new_mask"), values.word("new_value")
    vm = machine.vm(host, values.word("user_mask"), values.word("user_value"), values.word("created_vcpus"),
                    values.word("exit_reasons"))
    before = copy(vm)
    seen = attempt(lambda: vm.enable_cap(KVM_CAP_FORCE_SPEC_CTRL, 0, mask, value))
    accepted = all_of(same(vm.created_vcpus, 0), pair_is_accepted(host, mask, value))
    yield "it succeeds", iff(truth(seen is None), accepted)
    yield "or EINVAL", truth(seen is None or ends(seen, Errno, errno.EINVAL))
    yield "the pair", when(accepted, all_of(same(vm.user_mask, mask), same(vm.user_value, value)),
                            all_of(same(vm.user_mask, before.user_mask), same(vm.user_value, before.user_value)))
    yield "nothing else", unchanged(vm, before, "user_mask", "user_value")
    again = copy(vm)
    undone = attempt(lambda: again.enable_cap(KVM_CAP_FORCE_SPEC_CTRL, 0, 0, 0))
    if seen is None:
        yield "(0, 0) takes it back", all_of(
            truth(undone is None), same(again.user_mask, 0), same(again.user_value, 0))


@theorem(rules=("msr-exit.caps",))
def exit_reasons_are_three_bits(machine: Variant, values: Symbols) -> Parts:
    """KVM_ENABLE_CAP of KVM_CAP_X86_USER_SPACE_MSR takes exactly the combinations of bits 0 to 2; it replaces the
    reasons and nothing else, and where it fails, with EINVAL, it changes nothing."""
    reasons = values.word("args[0]")
    vm = machine.vm(a_host(values), values.word("user_mask"), values.word("user_value"), values.word("created_vcpus"),
                    values.word("exit_reasons"))
    before = copy(vm)
    seen = attempt(lambda: vm.enable_cap(KVM_CAP_X86_USER_SPACE_MSR, 0, reasons, values.word("args[1]")))
    yield "it succeeds", iff(truth(seen is None), not_(outside(reasons, 0b111)))
    yield "or EINVAL", truth(seen is None or ends(seen, Errno, errno.EINVAL))
    yield "the reasons", same(vm.exit_reasons, reasons if seen is None else before.exit_reasons)
    yield "nothing else", unchanged(vm, before, "exit_reasons")


@theorem(rules=("cap.enable.flags-zero",))
def flags_are_refused(machine: Variant, values: Symbols) -> Parts:
    """KVM_ENABLE_CAP on a VM fd with any flag, or of a capability that is not one of the two, fails with EINVAL and
    changes nothing, whatever its arguments."""
    vm = machine.vm(a_host(values), values.word("user_mask"), values.word("user_value"), values.word("created_vcpus"),
                    values.word("exit_reasons"))
    before, flags, capability = copy(vm), values.word("flags"), values.word("capability")
    known = any_of([same(capability, one) for one in (KVM_CAP_FORCE_SPEC_CTRL, KVM_CAP_X86_USER_SPACE_MSR)])
    current().assume(any_of(word_term(flags) != 0, not_(known)))
    seen = attempt(lambda: vm.enable_cap(capability, flags, values.word("args[0]"), values.word("args[1]")))
    yield "EINVAL", truth(ends(seen, Errno, errno.EINVAL))
    yield "nothing changes", unchanged(vm, before)


# ---- the contract


def any_contract(values: Symbols, kept_by: ReportKeptBy) -> Contract:
    """A contract on any host, with every field from ``values`` and a pair whose value lies in its mask."""
    words = ("offered", "guest_view", "user_mask", "user_value", "report")
    contract = Contract(
        host=a_host(values), cpuid=Features(spec_ctrl=values.flag("cpuid.spec_ctrl")), kept_by=kept_by,
        announced=values.flag("announced"), init_withdraws_report=values.flag("assume.init_withdraws_report"),
        **{name: values.word(name) for name in words})
    current().assume(not_(outside(contract.user_value, contract.user_mask)))
    return contract


def heard(contract: Contract, bit: object) -> Term:
    """The term that the report makes the hypervisor force this bit, if userspace's mask leaves room."""
    if contract.kept_by is ReportKeptBy.NOBODY:
        return truth(False)
    asked = asked_for(contract.host, contract.report, bit)
    return asked if contract.kept_by is ReportKeptBy.KVM else all_of(asked, forceable(contract.host, bit))


@theorem(rules=("contract.force.deliverable",))
def report_asks_for_exactly_what_can_be_delivered(machine: Variant, values: Symbols) -> Parts:
    """BHB_CLEAR_SEQ_S_USED asks for BHI_DIS_S exactly on a host with BHI_CTRL and without BHI_NO, RETPOLINE_S_USED for
    RRSBA_DIS_S exactly on a host with RRSBA_CTRL and RRSBA, and no report asks for another bit."""
    host, bit, report = a_host(values), any_bit(values), values.word("report")
    yield "each bit", iff(has(requested_bits(host, report), bit), asked_for(host, report, bit))


@theorem(rules=(
    "contract.effective.merge", "contract.force.overlay", "contract.force.nothing-else",
    "contract.report.userspace-supported",
))
def contract_forces_bit_by_bit(machine: Variant, values: Symbols) -> Parts:
    """Whoever keeps the report: a bit is forced exactly if userspace's mask has it or the report asks for it; to
    userspace's value in the first case, and to 1 in the second.  The processor holds the force value there and the
    guest's view elsewhere.  A report kept in userspace asks for no bit outside the supported set, and one that nobody
    keeps for none."""
    bit = any_bit(values)
    for kept_by in ReportKeptBy:
        contract = any_contract(values, kept_by)
        mask, value = contract.force()
        users = has(contract.user_mask, bit)
        asked = heard(contract, bit)
        yield f"{kept_by.value}: mask", iff(has(mask, bit), any_of(users, asked))
        yield f"{kept_by.value}: value", iff(has(value, bit), when(users, has(contract.user_value, bit), asked))
        yield f"{kept_by.value}: effective", iff(has(contract.effective(), bit), when(
            users, has(contract.user_value, bit), any_of(asked, has(contract.guest_view, bit))))


@theorem(rules=("contract.view.reads-back", "contract.write.merged-decides"))
def contract_decides_on_the_merge(machine: Variant, values: Symbols) -> Parts:
    """A view may be held exactly if the host has the MSR and accepts every bit of the value that would take effect.
    A guest's write is decided by that and by its CPUID, and KVM_SET_MSRS by that alone; what is accepted is read back
    as it was written, and what is refused changes nothing."""
    contract, value = any_contract(values, ReportKeptBy.KVM), values.word("written")
    before = replace(contract)
    mask, forced = contract.force()
    fits = all_of(flag_term(exists(contract.host)), not_(merged_outside(value, mask, forced, contract.host.writable)))
    seen = attempt(lambda: contract.write_view(value))
    yield "the guest's write", iff(truth(seen is None), all_of(flag_term(contract.cpuid.spec_ctrl), fits))
    yield "the view", same(contract.guest_view, value if seen is None else before.guest_view)
    yield "nothing else", unchanged(contract, before, "guest_view")
    read = attempt(contract.read_view)
    yield "the guest's read", iff(truth(not isinstance(read, Fault)), flag_term(contract.cpuid.spec_ctrl))
    if not isinstance(read, Fault):
        yield "what is read", same(read, contract.guest_view)
    restored = replace(before)
    yield "KVM_SET_MSRS", iff(truth(restored.restore_view(value)), fits)
    yield "the view restored", when(
        fits, same(restored.guest_view, value), same(restored.guest_view, before.guest_view))


@theorem(rules=("virt.ctrl.reserved", "virt.ctrl.offered", "virt.report.silent"))
def contract_decides_on_reports(machine: Variant, values: Symbols) -> Parts:
    """A guest's report is accepted exactly if it is shown the MSR, sets no reserved bit, and sets no new bit that it is
    not offered; userspace's exactly if KVM keeps it and it has no reserved bit.  Host, pair and what comes of it do not
    matter; what is accepted is read back, and what is refused changes nothing."""
    for kept_by in ReportKeptBy:
        contract, value = any_contract(values, kept_by), values.word("written")
        before = replace(contract)
        shown = all_of(truth(kept_by is not ReportKeptBy.NOBODY), flag_term(contract.announced))
        valid = not_(outside(value, 0b11))
        new = word_term(value) & ~word_term(before.report)
        seen = attempt(lambda: contract.write_report(value))  # noqa: B023
        yield f"{kept_by.value}: the guest's", iff(
            truth(seen is None), all_of(shown, valid, new & ~word_term(before.offered) == 0))
        yield f"{kept_by.value}: the report", same(contract.report, value if seen is None else before.report)
        yield f"{kept_by.value}: nothing else", unchanged(contract, before, "report")
        read = attempt(contract.read_report)
        yield f"{kept_by.value}: read", iff(truth(not isinstance(read, Fault)), shown)
        if not isinstance(read, Fault):
            yield f"{kept_by.value}: what is read", same(read, contract.report)
        restored = replace(before)
        yield f"{kept_by.value}: KVM_SET_MSRS", iff(
            truth(restored.restore_report(value)), all_of(truth(kept_by is ReportKeptBy.KVM), valid))
        yield f"{kept_by.value}: KVM_SET_MSRS leaves", unchanged(restored, before, "report")


@theorem(rules=("contract.report.userspace-init", "init.view-zero", "init.report.withdrawn"))
def contract_init_reaches_kvm_only(machine: Variant, values: Symbols) -> Parts:
    """INIT makes the view 0.  It withdraws a report that KVM keeps, where the assumption init-withdraws-report holds,
    and changes no report that userspace keeps, nor what is forced for it."""
    for kept_by in ReportKeptBy:
        contract = any_contract(values, kept_by)
        before = replace(contract)
        contract.init()
        gone = all_of(truth(kept_by is ReportKeptBy.KVM), flag_term(before.init_withdraws_report))
        yield f"{kept_by.value}: view", same(contract.guest_view, 0)
        yield f"{kept_by.value}: report", when(gone, same(contract.report, 0), same(contract.report, before.report))
        yield f"{kept_by.value}: nothing else", unchanged(contract, before, "guest_view", "report")
        if kept_by is ReportKeptBy.USERSPACE:
            yield "userspace: what is forced", equal(contract.force(), before.force())


@theorem(rules=("contract.move.identity",))
def contract_takes_exactly_valid_pairs(machine: Variant, values: Symbols) -> Parts:
    """Userspace's new pair for a vCPU, and a move to another host, are accepted exactly if that host can force the
    pair, where there is one to move, and accepts the guest's view merged with what would be in force, where the vCPU
    has the MSR.  A pair then replaces the old one, a move changes the host alone, and what is refused changes
    nothing."""
    contract = any_contract(values, ReportKeptBy.KVM)
    before, mask, value = replace(contract), values.word("new_mask"), values.word("new_value")
    new = replace(before, user_mask=mask, user_value=value)
    fits = all_of(flag_term(exists(contract.host)), not_(merged_outside(
        before.guest_view, *new.force(), contract.host.writable)))
    accepted = contract.userspace_force(mask, value)
    yield "a pair", iff(accepted, all_of(pair_is_accepted(contract.host, mask, value), fits))
    yield "the pair", unchanged(contract, new if accepted else before)

    contract, destination = replace(before), a_host(values, "destination")
    there = replace(before, host=destination)
    none = all_of(same(before.user_mask, 0), same(before.user_value, 0))
    fits = all_of(flag_term(exists(destination)), not_(merged_outside(
        before.guest_view, *there.force(), destination.writable)))
    accepted = contract.move(destination)
    yield "a move", iff(accepted, all_of(
        any_of(none, pair_is_accepted(destination, before.user_mask, before.user_value)),
        any_of(not_(flag_term(exists(before.host))), fits)))
    yield "the host alone", unchanged(contract, there if accepted else before)


# ---- creation, and what KVM offers


@theorem(rules=("cap.vcpu.starts-with-vm-pair", "virt.created-zero"))
def new_vcpu_starts_with_the_vms_pair(machine: Variant, values: Symbols) -> Parts:
    """A new vCPU, on any host and for any guest CPUID, has exactly the VM's pair in force, view 0, and reads and writes
    of IA32_SPEC_CTRL intercepted for L1 and L2; it runs with the VM's value.  The three virtual MSRs are 0, and
    IA32_ARCH_CAPABILITIES is what KVM offers."""
    host = a_host(values)
    vm = machine.make_vm(host)
    if values.flag("capability"):
        assume(can_force(host, values.word("new_mask"), values.word("new_value")))
        vm.force_spec_ctrl(values.word("new_mask"), values.word("new_value"))
    cpuid = Features(spec_ctrl=values.flag("cpuid.spec_ctrl"), arch_capabilities=values.flag("cpuid.arch_cap"))
    vcpu = machine.make_vcpu(vm, cpuid, Assumptions())
    yield "level 1, and KVM runs", truth(vcpu.level == 1 and not vcpu.in_guest)
    for name in ("user", "force"):
        yield f"{name} mask", same(getattr(vcpu, f"{name}_mask"), vm.user_mask)
        yield f"{name} value", same(getattr(vcpu, f"{name}_value"), vm.user_value)
    yield "view", all_of([same(seen, 0) for seen in (vcpu.guest_view, vcpu.vmcs01.spec_ctrl_shadow)])
    yield "MASK", implies(flag_term(host.spec_ctrl_shadow), same(vcpu.vmcs01.spec_ctrl_mask, vm.user_mask))
    for name, vmcs in (("vmcs01", vcpu.vmcs01), ("vmcs02", vcpu.vmcs02)):
        yield f"{name} intercepts", all_of(
            flag_term(vmcs.intercept_read), flag_term(vmcs.intercept_write), flag_term(vmcs.use_msr_bitmap))
        yield f"{name} has the control", iff(vmcs.virtualize_spec_ctrl, host.spec_ctrl_shadow)
    yield "the virtual MSRs", all_of([
        same(word, 0) for word in (vcpu.virtual_enumeration, vcpu.mitigation_enum, vcpu.mitigation_ctrl)])
    yield "IA32_ARCH_CAPABILITIES", same(vcpu.arch_capabilities, feature_msr(host, IA32_ARCH_CAPABILITIES))
    vcpu.run()
    yield "the register", implies(flag_term(exists(host)), same(vcpu.cpu.spec_ctrl, vm.user_value))


@theorem(rules=("virt.feature-msrs", "virt.index-list"))
def kvm_offers_the_virtual_msrs_everywhere(machine: Variant, values: Symbols) -> Parts:
    """On every host the feature MSRs of /dev/kvm are IA32_ARCH_CAPABILITIES, with bit 63 and of the other bits exactly
    RRSBA and BHI_NO as the host has them, MSR_VIRTUAL_ENUMERATION with bit 0, and MSR_VIRTUAL_MITIGATION_ENUM with bits
    0 and 1; the index list names the MSR where it exists, and the other four always, once each."""
    host, bit = a_host(values), any_bit(values)
    features = host.features
    offered = feature_msr(host, IA32_ARCH_CAPABILITIES)
    listed = flag_term(features.arch_capabilities)
    yield "IA32_ARCH_CAPABILITIES", iff(has(offered, bit), any_of(
        word_term(bit) == ARCH_CAP_VIRTUAL_ENUM,
        all_of(word_term(bit) == ARCH_CAP_RRSBA, listed, flag_term(features.rrsba)),
        all_of(word_term(bit) == ARCH_CAP_BHI_NO, listed, flag_term(features.bhi_no))))
    yield "the virtual MSRs", truth([feature_msr(host, msr) for msr in FEATURE_MSRS[1:]] == [0b1, 0b11])
    yield "no others", truth(all(feature_msr(host, msr) is None for msr in (
        IA32_SPEC_CTRL, MSR_VIRTUAL_MITIGATION_CTRL)))
    emulated = (IA32_ARCH_CAPABILITIES, MSR_VIRTUAL_ENUMERATION, MSR_VIRTUAL_MITIGATION_ENUM,
                MSR_VIRTUAL_MITIGATION_CTRL)
    named = msr_index_list(host)
    yield "the index list", truth(named[-4:] == emulated and named[:-4] in ((), (IA32_SPEC_CTRL,)))
    yield "the MSR is listed", iff(truth(IA32_SPEC_CTRL in named), exists(host))
