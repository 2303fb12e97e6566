"""Theorems about userspace: what a VMM forces of its own accord, and what it keeps for the guest."""

import errno
from dataclasses import fields, replace
from typing import Any

from specctrl.model.contract import ReportKeptBy
from specctrl.model.kvm.variant import Variant
from specctrl.model.kvm.vcpu import Vcpu
from specctrl.model.outcomes import Errno, ExitKind, MsrRefused
from specctrl.model.parts import NOT_IN_CPUID, Features
from specctrl.model.registers import ARCH_CAP_BHI_NO, ARCH_CAP_RRSBA, ARCH_CAP_VIRTUAL_ENUM, BHI_DIS_S
from specctrl.model.vmm.filtering import FilteredSpecCtrl
from specctrl.model.vmm.hotplug import SharedPair
from specctrl.model.vmm.keeper import ReportKeeper, keep_report
from specctrl.model.vmm.policies import POLICIES
from specctrl.model.vmm.pool import advertise
from specctrl.proof.any_vcpu import Symbols, any_host, same
from specctrl.proof.symbolic import Word, current, flag_term
from specctrl.proof.terms import Term, all_of, any_of, not_, when
from specctrl.proof.theorems.capability import a_host, any_contract, asked_for, forceable
from specctrl.proof.theorems.msrs import VIRTUAL, filter_of
from specctrl.proof.theorems.statement import (
    L1_KVM,
    L2_KVM,
    Parts,
    any_bit,
    attempt,
    choose,
    equal,
    has,
    iff,
    taken_from,
    term_of,
    theorem,
    truth,
    unchanged,
)

CAPABILITIES = ("arch_capabilities", "rrsba", "bhi_no")
"""The features that IA32_ARCH_CAPABILITIES depends on."""


@theorem(rules=("vmm.pool.common-features", "vmm.pool.virtual-msrs", "vmm.pool.rrsba"))
def pool_of_two_shows_what_both_have(machine: Variant, values: Symbols) -> Parts:
    """In a pool of any two hosts a guest's CPUID shows a feature exactly if both have it and CPUID can show it.
    IA32_ARCH_CAPABILITIES has BHI_NO exactly if both report it; RRSBA exactly if both do, or one has it and the VMM
    tells; and no other bit but bit 63.  That bit, the enumeration's bit 0 and both bits of the report are shown exactly
    if the VMM offers the report, whatever the hosts are."""
    name = choose(values, "feature", [item.name for item in fields(Features)])
    names = set(CAPABILITIES) if name in CAPABILITIES else {name}
    one, other = (
        replace(any_host(values, host), features=Features(**{each: values.flag(f"{host}.{each}") for each in names}))
        for host in ("host", "destination"))
    offers, tells = values.flag("offers"), values.flag("tells")
    shown = advertise([one, other], offers, tells)

    def both(feature: str) -> Term:
        return all_of([term_of(getattr(host.features, feature)) for host in (one, other)])

    yield name, iff(getattr(shown.cpuid, name), all_of(both(name), truth(name.upper() not in NOT_IN_CPUID)))
    yield "no other feature", truth({each.lower() for each in shown.cpuid.names()} <= names)
    told = all_of(term_of(tells), any_of([term_of(host.features.rrsba) for host in (one, other)]))
    listed, bit = both("arch_capabilities"), any_bit(values)
    yield "IA32_ARCH_CAPABILITIES", iff(has(shown.arch_capabilities, bit), any_of(
        all_of(term_of(offers), same(bit, ARCH_CAP_VIRTUAL_ENUM)),
        all_of(same(bit, ARCH_CAP_BHI_NO), listed, both("bhi_no")),
        all_of(same(bit, ARCH_CAP_RRSBA), any_of(told, all_of(listed, both("rrsba"))))))
    yield "the report", truth((shown.virtual_enumeration, shown.mitigation_enum) == ((1, 0b11) if offers else (0, 0)))


@theorem(rules=("policy.unasked.only-without-control",))
def only_guests_without_the_control_are_forced(machine: Variant, values: Symbols) -> Parts:
    """A hypervisor that forces unasked forces BHI_DIS_S to 1, and nothing else, exactly on a guest whose CPUID shows no
    BHI_CTRL and on a host that can force it and does not report BHI_NO; but with P1 not where the short sequence
    works."""
    for name in ("P1", "Xen"):
        host, cpuid = a_host(values), Features(bhi_ctrl=values.flag("cpuid.bhi_ctrl"))
        mask, value = POLICIES[name].pair(host, cpuid)
        suffices = all_of(truth(name == "P1"), term_of(host.short_sequence_works))
        forces = all_of(not_(flag_term(cpuid.bhi_ctrl)), forceable(host, BHI_DIS_S),
                        not_(term_of(host.features.bhi_no)), not_(suffices))
        yield name, when(forces, all_of(same(mask, BHI_DIS_S), same(value, BHI_DIS_S)),
                          all_of(same(mask, 0), same(value, 0)))


def is_read(reply: dict[str, Any], word: object) -> Term:
    """The term that a reply gives the guest this word."""
    return same(reply["value"], word) if set(reply) == {"value"} else truth(False)


@theorem(rules=("policy.filter.guest-reads-its-own",))
def filtered_guest_reads_what_it_wrote(machine: Variant, values: Symbols) -> Parts:
    """A VMM that forces with a filter alone gives KVM, for each bit, its own value where its mask has it and what the
    guest wrote elsewhere.  If KVM takes that, the guest reads what it wrote; if not, its write is #GP and it reads what
    it read before.  A read changes nothing and gives KVM nothing."""
    given: list[int] = []
    takes, written, bit = values.flag("KVM takes it"), values.word("written"), any_bit(values)

    def set_msr(value: int) -> bool:
        given.append(value)
        return bool(takes)

    kept = FilteredSpecCtrl(values.word("mask"), values.word("value"), set_msr, values.word("view"))
    before = replace(kept)
    first = kept.answer(ExitKind.RDMSR, written)
    yield "a read", all_of(is_read(first, before.view), unchanged(kept, before), truth(not given))
    reply = kept.answer(ExitKind.WRMSR, written)
    yield "once", truth(len(given) == 1)
    yield "what KVM is given", all_of([taken_from(bit, each, written, before.mask, before.value) for each in given])
    yield "#GP", iff(truth(reply == {"error": True}), not_(flag_term(takes)))
    yield "or done", iff(truth(reply == {"error": False}), takes)
    again = kept.answer(ExitKind.RDMSR, 0)
    yield "the view", when(flag_term(takes), is_read(again, written), is_read(again, before.view))
    yield "mask and value", unchanged(kept, before, "view")


# ---- a report kept in userspace


@theorem(L1_KVM, L2_KVM, rules=("vmm.keeper.answers",))
def keeper_answers_as_kvm_does(vcpu: Vcpu, values: Symbols) -> Parts:
    """In front of a guest with bit 63 set and 0x50000000 = 1, whatever its CPUID shows, a VMM that keeps the report
    answers every access as KVM does that holds the same report and offers the same: the same value, #GP for the same
    accesses, and the same report after."""
    theirs = keep_report(vcpu.host, vcpu.cpuid, vcpu.mitigation_enum)
    theirs.contract.report = vcpu.mitigation_ctrl
    current().assume(all_of(has(vcpu.arch_capabilities, ARCH_CAP_VIRTUAL_ENUM), same(vcpu.virtual_enumeration, 1)))
    msr, value = choose(values, "msr", VIRTUAL), values.word("written")
    kind = choose(values, "kind", list(ExitKind))
    write = kind is ExitKind.WRMSR
    current().assume(filter_of(vcpu, msr, write))
    seen = attempt(lambda: vcpu.emulate_wrmsr(msr, value) if write else vcpu.emulate_rdmsr(msr))
    reply = theirs.reply(kind, msr, value)
    if write or isinstance(seen, MsrRefused):
        yield "#GP", truth(reply == {"error": isinstance(seen, MsrRefused)})
    else:
        yield "the value", is_read(reply, seen) if isinstance(seen, Word | int) else truth(False)
    yield "the report", same(theirs.contract.report, vcpu.mitigation_ctrl)


@theorem(rules=("vmm.keeper.forces-first",))
def keeper_forces_before_it_replies(machine: Variant, values: Symbols) -> Parts:
    """To complete an access, of any MSR with any value, a VMM that keeps the report puts one pair on the vCPU: the one
    that the contract has for the report as it is after the access.  Then it replies, and nothing changes any more."""
    kept = ReportKeeper(any_contract(values, ReportKeptBy.USERSPACE))
    alone = ReportKeeper(replace(kept.contract))
    msr, value = choose(values, "msr", VIRTUAL), values.word("written")
    kind = choose(values, "kind", list(ExitKind))
    forced: list[tuple[int, int, object]] = []
    reply = attempt(lambda: kept.complete(
        kind, msr, value, lambda mask, bits: forced.append((mask, bits, replace(kept.contract)))))
    expected = attempt(lambda: alone.reply(kind, msr, value))
    yield "the reply", is_read(reply, expected["value"]) if "value" in expected else truth(reply == expected)
    yield "once", truth(len(forced) == 1)
    for mask, bits, at_the_time in forced:
        yield "the pair", equal((mask, bits), alone.contract.force())
        yield "after the access", unchanged(at_the_time, alone.contract)
        yield "and before the reply", unchanged(kept.contract, at_the_time)


@theorem(rules=("vmm.arrive.force-anew",))
def arrival_forces_for_this_host(machine: Variant, values: Symbols) -> Parts:
    """Where a guest arrives, a VMM that keeps its report forces a bit that userspace's mask has not exactly if the
    report asks for it and this host can deliver and force it, and to 1: whatever was forced where it came from.  The
    report stays; a reset takes it away, and then only userspace's pair is forced."""
    kept, bit = ReportKeeper(any_contract(values, ReportKeptBy.USERSPACE)), any_bit(values)
    before, destination = replace(kept.contract), a_host(values, "destination")
    kept.arrive(destination)
    mask, value = kept.pair()
    asked = all_of(asked_for(destination, before.report, bit), forceable(destination, bit))
    own = has(before.user_mask, bit)
    yield "mask", iff(has(mask, bit), any_of(own, asked))
    yield "value", iff(has(value, bit), when(own, has(before.user_value, bit), asked))
    yield "nothing else", unchanged(kept.contract, before, "host")
    kept.reset()
    yield "after a reset", equal(kept.pair(), (before.user_mask, before.user_value))
    yield "a reset", unchanged(kept.contract, replace(before, host=destination, report=0))


# ---- vCPUs that are created later


@theorem(rules=("vmm.create.force-anew",))
def later_vcpu_has_the_pair_of_its_siblings(machine: Variant, values: Symbols) -> Parts:
    """A VMM that changes the pair of its two vCPUs forces the new pair on both, and on one that it creates later; if
    KVM refuses the new pair for either of them, all three have the VM's."""
    pairs: dict[int, object] = {}
    vm_pair = (values.word("vm.mask"), values.word("vm.value"))
    changed = (values.word("mask"), values.word("value"))
    refusing = choose(values, "refusing", [None, 0, 1])

    def force(vcpu: int, mask: int, value: int) -> None:
        if vcpu == refusing:
            raise Errno(errno.EINVAL)
        pairs[vcpu] = (mask, value)

    def create(vcpu: int) -> None:
        pairs[vcpu] = vm_pair  # as KVM does
        shared.created(vcpu)

    shared = SharedPair(force, vm_pair)
    create(0)
    create(1)
    seen = attempt(lambda: shared.change(*changed))
    create(2)
    yield "refused", truth(isinstance(seen, Errno) == (refusing is not None))
    for pair in pairs.values():
        yield "one pair", equal(pair, changed if refusing is None else vm_pair)
