"""The other two keepers of a report, nobody and userspace: proven by comparing contracts, step by step."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

from specctrl.model.contract import Contract, ReportKeptBy, can_force
from specctrl.model.parts import Features
from specctrl.proof.any_vcpu import Solved, Symbols, any_host, host_facts, same
from specctrl.proof.findings import Findings, gather
from specctrl.proof.induction import PURE, agree, assume_all
from specctrl.proof.invariant import Obligation
from specctrl.proof.side_by_side import perform
from specctrl.proof.summaries import summarized
from specctrl.proof.symbolic import assume
from specctrl.proof.terms import Term, truth


@dataclass(frozen=True, slots=True)
class Comparison:
    """One step of contracts: ``run`` performs it, and yields the parts of a claim that must hold then."""

    claim: str
    step: str
    run: Callable[[Symbols], Iterator[tuple[str, Term]]]

    def prove(self) -> Findings:
        """On all paths of the step."""
        found, values = Findings(), Solved({})

        def owed() -> list[Obligation]:
            return [Obligation(self.claim, f"{self.step}: {part}", term) for part, term in self.run(values)]

        with summarized(PURE):
            gather(owed, values, found, self.step)
        return found


def prove_each(comparisons: Iterable[Comparison]) -> Findings:
    """Several of them."""
    found = Findings()
    for comparison in comparisons:
        found.add(comparison.prove())
    return found


def any_contract(values: Symbols, kept_by: ReportKeptBy) -> Contract:
    """A contract with every field from ``values``, on any host."""
    host = any_host(values, "host")
    assume_all(list(host_facts(host).values()))
    words = ("offered", "guest_view", "user_mask", "user_value", "report")
    return Contract(
        host=host, cpuid=Features(spec_ctrl=values.flag("cpuid.spec_ctrl")), kept_by=kept_by,
        announced=values.flag("announced"), init_withdraws_report=values.flag("assume.init_withdraws_report"),
        **{name: values.word(name) for name in words})


def alike(left: Contract, right: Contract) -> Iterator[tuple[str, Any]]:
    """What guest and userspace can compare: the view, and what takes effect."""
    yield "view", same(left.guest_view, right.guest_view)
    yield "effective value", same(left.effective(), right.effective())


OPERATIONS: dict[str, Callable[[Contract, Symbols], object]] = {
    "guest writes IA32_SPEC_CTRL": lambda vcpu, values: vcpu.write_view(values.word("written")),
    "guest reads IA32_SPEC_CTRL": lambda vcpu, values: vcpu.read_view(),
    "KVM_SET_MSRS of IA32_SPEC_CTRL": lambda vcpu, values: vcpu.restore_view(values.word("written")),
    "INIT": lambda vcpu, values: vcpu.init(),
}
"""The operations that the keeper has no part in."""
OF_NOBODY: dict[str, Callable[[Contract, Symbols], object]] = {
    **OPERATIONS,
    "guest writes the report": lambda vcpu, values: vcpu.write_report(values.word("written")),
    "guest reads the report": lambda vcpu, values: vcpu.read_report(),
    "KVM_ENABLE_CAP on the vCPU": lambda vcpu, values: vcpu.userspace_force(
        values.word("new_mask"), values.word("new_value")),
    "migration": lambda vcpu, values: vcpu.move(any_host(values, "destination")),
}


def outcome(operation: Callable[[Contract, Symbols], object], vcpu: Contract, values: Symbols) -> object:
    """What is seen of an operation of the contract."""
    seen = perform(lambda: operation(vcpu, values))
    return str(seen) if isinstance(seen, bool) else seen


def seen_alike(left: object, right: object) -> Any:
    """The term that two operations were seen to end alike."""
    return truth(left == right) if isinstance(left, str) else agree(left, right)


def nobody(operation: Callable[[Contract, Symbols], object], values: Symbols) -> Iterator[tuple[str, Any]]:
    """KVM's contract, with nothing announced and nothing reported, beside the contract without virtual MSRs."""
    theirs = any_contract(values, ReportKeptBy.NOBODY)
    ours = replace(theirs, kept_by=ReportKeptBy.KVM, announced=False, report=0)
    yield "outcome", seen_alike(outcome(operation, ours, values), outcome(operation, theirs, values))
    for item in fields(Contract):
        if item.name in ("guest_view", "user_mask", "user_value"):
            yield item.name, same(getattr(ours, item.name), getattr(theirs, item.name))
    yield "nothing is reported", same(ours.report, 0)
    yield from alike(ours, theirs)


def userspace_state(values: Symbols) -> tuple[Contract, Contract]:
    """A contract with a report kept in userspace, and KVM's, to which userspace gave what that one forces."""
    theirs = any_contract(values, ReportKeptBy.USERSPACE)
    if theirs.user_mask or theirs.user_value:
        assume(can_force(theirs.host, theirs.user_mask, theirs.user_value))
    if theirs.host.has_spec_ctrl:
        assume(theirs.acceptable(theirs.guest_view))
    else:
        assume(theirs.guest_view == 0)
    return theirs, given(theirs)


def given(theirs: Contract) -> Contract:
    """KVM's contract when userspace forces what this one asks for; its guest is shown no virtual MSR by KVM."""
    mask, value = theirs.force()
    return replace(theirs, kept_by=ReportKeptBy.KVM, announced=False, report=0, user_mask=mask, user_value=value)


def force_again(ours: Contract, theirs: Contract) -> Iterator[tuple[str, Any]]:
    """Userspace puts in force what the contract asks for now, unless that is in force; KVM must not refuse."""
    mask, value = theirs.force()
    if mask != ours.user_mask or value != ours.user_value:
        yield "KVM accepts the pair", truth(ours.userspace_force(mask, value))
    yield "mask", same(ours.user_mask, mask)
    yield "value", same(ours.user_value, value)


def userspace(name: str, values: Symbols) -> Iterator[tuple[str, Any]]:
    """One step of a VMM that keeps the report, beside the contract."""
    theirs, ours = userspace_state(values)
    if name in OPERATIONS:
        operation = OPERATIONS[name]
        yield "outcome", seen_alike(outcome(operation, ours, values), outcome(operation, theirs, values))
    elif name == "guest writes the report":
        perform(lambda: theirs.write_report(values.word("written")))
    elif name == "userspace's own pair":
        theirs.userspace_force(values.word("new_mask"), values.word("new_value"))
    elif name == "migration":
        destination = any_host(values, "destination")
        assume_all(list(host_facts(destination).values()))
        moves = theirs.move(destination)
        mask, value = theirs.force()
        if moves:
            ours = Contract(destination, theirs.cpuid, ReportKeptBy.KVM, theirs.offered, announced=False)
            if mask or value:
                yield "the destination accepts the pair", truth(ours.userspace_force(mask, value))
            if destination.has_spec_ctrl:
                yield "the destination accepts the view", truth(ours.restore_view(theirs.guest_view))
    yield from force_again(ours, theirs)
    yield from alike(ours, theirs)


USERSPACE_STEPS = (*OPERATIONS, "guest writes the report", "userspace's own pair", "migration")


def prove_keepers() -> Findings:
    """Both comparisons, on the contract's own code."""
    compared = [Comparison("nobody_keeps_a_report", name, partial(nobody, operation))
                for name, operation in OF_NOBODY.items()]
    compared += [Comparison("userspace_keeps_the_report", name, partial(userspace, name)) for name in USERSPACE_STEPS]
    return prove_each(compared)
