"""A guest that reports is protected wherever its host can deliver: proven of the contract and of exposure's own code.

The kernels are those of ``guest``; the report is the one that they make.  A state stands for every state of the
contract, so also for the one after any number of moves.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from specctrl.model.contract import Contract, ReportKeptBy
from specctrl.model.exposure import bhi_protection, rrsba_protection
from specctrl.model.guest import BhbSequence, Kernel, Software, choose, wanted_report
from specctrl.model.parts import Features, Host
from specctrl.model.registers import BHI_DIS_S, RRSBA_DIS_S
from specctrl.proof.any_vcpu import Symbols, any_host, same
from specctrl.proof.findings import Findings
from specctrl.proof.induction import assume_all
from specctrl.proof.report_keepers import Comparison, any_contract, outcome, prove_each
from specctrl.proof.side_by_side import perform
from specctrl.proof.symbolic import assume, flag_term, word_term
from specctrl.proof.terms import all_of, any_of, not_, truth

LEVELLED = Features(spec_ctrl=True, arch_capabilities=True)
"""The CPUID of a guest in a mixed pool: it shows no control that could replace the software."""
KERNELS = {
    "short sequence": Kernel(reports=True, sequence=BhbSequence.SHORT),
    "retpoline": Kernel(reports=True, retpoline=True),
}
KEEPERS = (ReportKeptBy.KVM, ReportKeptBy.USERSPACE)

PROTECTION: dict[str, str] = {
    "reporting_guest_is_protected": "A guest that reported, as a Linux kernel with the short sequence or with "
    "retpoline does in a mixed pool, is exposed to neither BHI nor RRSBA on any host that can deliver what it asked "
    "for, whether KVM or userspace keeps the report, unless userspace forces the bit to 0.",
    "only_the_guest_withdraws": "Whoever keeps it, a report outlives every move, every write of IA32_SPEC_CTRL and "
    "every change of userspace's pair: only the guest's own write, KVM_SET_MSRS and INIT change it.",
}
"""What is proven, in plain English."""


def deliverable(host: Host, kept_by: ReportKeptBy, bit: int) -> Any:
    """The term that this host can deliver the bit; in userspace's hands only with the control."""
    features = host.features
    if bit == BHI_DIS_S:
        possible = all_of(flag_term(features.bhi_ctrl), not_(flag_term(features.bhi_no)))
    else:
        possible = all_of(flag_term(features.rrsba_ctrl), flag_term(features.rrsba))
    if kept_by is ReportKeptBy.USERSPACE:
        possible = all_of(possible, flag_term(host.spec_ctrl_shadow))
    return possible


def reported(kernel: Kernel, vcpu: Contract) -> Software:
    """What this kernel runs with, where its report is among this vCPU's."""
    software = choose(kernel, LEVELLED, 0)
    assume(vcpu.report & wanted_report(kernel, software) == wanted_report(kernel, software))
    return software


def protected(kept_by: ReportKeptBy, kernel: Kernel, values: Symbols) -> Iterator[tuple[str, Any]]:
    """This kernel, in any state in which it has reported, on any host that can deliver."""
    vcpu = any_contract(values, kept_by)
    bit = RRSBA_DIS_S if kernel.retpoline else BHI_DIS_S
    assume_all([
        deliverable(vcpu.host, kept_by, bit),
        any_of(word_term(vcpu.user_mask) & bit == 0, word_term(vcpu.user_value) & bit != 0),
    ])
    software = reported(kernel, vcpu)
    effective = vcpu.effective()
    bhi, rrsba = bhi_protection(vcpu.host, effective, software), rrsba_protection(vcpu.host, effective, software)
    yield "BHI", truth(bhi.name != "NOTHING")
    yield "RRSBA", truth(rrsba.name != "NOTHING")


KEEPS: dict[str, Callable[[Contract, Symbols], object]] = {
    "guest writes IA32_SPEC_CTRL": lambda vcpu, values: vcpu.write_view(values.word("written")),
    "KVM_SET_MSRS of IA32_SPEC_CTRL": lambda vcpu, values: vcpu.restore_view(values.word("written")),
    "userspace's own pair": lambda vcpu, values: vcpu.userspace_force(values.word("mask"), values.word("value")),
    "migration": lambda vcpu, values: vcpu.move(any_host(values, "destination")),
}
"""The steps of the contract that leave a report alone."""


def keeps_report(kept_by: ReportKeptBy, step: str, values: Symbols) -> Iterator[tuple[str, Any]]:
    """One such step."""
    vcpu = any_contract(values, kept_by)
    before = vcpu.report
    perform(lambda: outcome(KEEPS[step], vcpu, values))
    yield "report", same(vcpu.report, before)


def prove_protection(keepers: tuple[ReportKeptBy, ...] = KEEPERS) -> Findings:
    """Both claims, for these keepers."""
    compared = [Comparison("reporting_guest_is_protected", f"{keeper.value}: {name}",
                           partial(protected, keeper, kernel))
                for keeper in keepers for name, kernel in KERNELS.items()]
    compared += [Comparison("only_the_guest_withdraws", f"{keeper.value}: {step}", partial(keeps_report, keeper, step))
                 for keeper in keepers for step in KEEPS]
    return prove_each(compared)
