"""Proofs by induction: what holds of every host, policy, 64-bit value and history of any length.

Each step of the machine is run, by the symbolic executor, from a state that stands for every state of the
invariant; on every path the invariant must hold again, and so must the claims that name the step.  A claim that
can fail comes with a concrete state in which it does.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from typing import Any

import z3

from specctrl import claims, contract, posted
from specctrl.claims import (
    AnyFilter,
    Term,
    abstract,
    any_controls,
    any_host,
    any_vcpu,
    assume_invariant,
    invariant,
    same,
)
from specctrl.contract import Contract, can_force
from specctrl.kvm import entry, vm
from specctrl.kvm.state import Loaded, NestedState
from specctrl.kvm.variant import Assumptions, Variant
from specctrl.kvm.vcpu import Vcpu
from specctrl.outcomes import (
    Blocked,
    Errno,
    Fault,
    HostFault,
    MsrRefused,
    Outcome,
    Reflected,
    UserspaceExit,
)
from specctrl.parts import Features
from specctrl.registers import (
    IA32_SPEC_CTRL,
    KVM_CAP_FORCE_SPEC_CTRL,
    MSR_VIRTUAL_ENUMERATION,
    MSR_VIRTUAL_MITIGATION_CTRL,
)
from specctrl.symbolic import (
    Flag,
    Infeasible,
    Path,
    assume,
    evaluate,
    flag,
    flag_term,
    paths,
    summarized,
    word,
    word_term,
)
from specctrl.vmm.migration import MsrsRefused, Plan, migrate
from specctrl.words import is_subset

CLAIMS: dict[str, str] = {
    "invariant_holds_again": "Every step of every machine leads from the invariant to the invariant.",
    "mechanism_refines_contract": "After every step, view, force, report and level are what the contract says.",
    "masked_bits_never_change": "Whatever the guest writes, at L1 or L2, every masked bit of the processor's "
    "IA32_SPEC_CTRL stays the force value.",
    "zero_forced_bits_never_set": "A bit forced to 0 is never set in the processor while the guest runs.",
    "guest_reads_what_it_wrote": "RDMSR of IA32_SPEC_CTRL returns the guest's view, at L1 and L2.",
    "view_survives": "Exits, reports, forcing, nested transitions, SMM, saved nested state and migration leave "
    "the guest's view as it is; only the guest, L1's lists, INIT, reset and KVM_SET_MSRS change it.",
    "get_msrs_is_the_view": "KVM_GET_MSRS of IA32_SPEC_CTRL returns the guest's view.",
    "host_value_after_exit": "After every VM exit the processor holds the host's value.",
    "saved_is_hardware": "At every VM exit, before the host's value is written back, KVM's saved value is the "
    "processor's.",
    "host_never_faults": "KVM never writes a value to the MSR that the host refuses.",
    "report_is_in_force": "A report that the host can deliver and userspace does not mask is in force in L1 and L2.",
    "nothing_else_is_forced": "No bit is forced that neither userspace's pair nor the report asks for.",
    "userspace_wins": "In every bit of userspace's mask the processor holds userspace's value while the guest runs.",
    "reset_leaves_userspace": "INIT and a platform reset leave exactly userspace's pair in force, and view 0.",
    "migration_is_identity": "A migration that succeeds, in either order, leaves view, pair, report and level.",
    "first_state": "A new vCPU, on any host with any valid pair, satisfies the invariant.",
    "invariant_is_not_empty": "The invariant has states: with and without the control, in L1 and L2, inside and "
    "outside the guest, with a report in force.",
}
"""Every claim, in plain English."""


@dataclass(frozen=True, slots=True)
class Refutation:
    """A claim that fails: at which step, which part, and a concrete state before it."""

    claim: str
    step: str
    detail: str
    state: dict[str, int | bool]


@dataclass(slots=True)
class Result:
    """What came of the proofs: how many paths and obligations each claim has, and what failed."""

    paths: int = 0
    obligations: dict[str, int] = field(default_factory=lambda: dict.fromkeys(CLAIMS, 0))
    refutations: list[Refutation] = field(default_factory=list)

    def add(self, other: "Result") -> None:
        """Take the figures of another result into this one."""
        self.paths += other.paths
        for claim, count in other.obligations.items():
            self.obligations[claim] += count
        self.refutations += other.refutations

    def refuted(self) -> set[str]:
        """The claims that failed somewhere."""
        return {refutation.claim for refutation in self.refutations}


# ---- the steps

Act = Callable[[Vcpu, Contract], tuple[object, object]]


@dataclass(frozen=True, slots=True)
class Step:
    """One operation: performed on the mechanism and on the contract; returns what each observer saw.

    ``levels`` and ``places`` say from where it can happen: which VMCS is loaded, and whether the guest runs.
    """

    name: str
    act: Act
    levels: tuple[Loaded, ...] = (Loaded.VMCS01, Loaded.VMCS02)
    places: tuple[bool, ...] = (False, True)
    keeps_view: bool = True
    refines: bool = True


def outcome_of(perform: Callable[[], object]) -> object:
    """What a mechanism's operation shows to its observer: its value, or the kind of its outcome."""
    try:
        return perform()
    except (Fault, UserspaceExit, MsrRefused):
        return "refused"
    except Errno:
        return False
    except Reflected:
        return "reflected"
    except Blocked:
        return "blocked"


def contract_of(perform: Callable[[], object]) -> object:
    """What the contract says of it."""
    try:
        return perform()
    except Fault:
        return "refused"


def write_view(vcpu: Vcpu, contract: Contract) -> tuple[object, object]:
    value = word("written")
    seen = outcome_of(lambda: vcpu.wrmsr(IA32_SPEC_CTRL, value))
    return seen, reflected(contract) if seen == "reflected" else contract_of(lambda: contract.write_view(value))


def read_view(vcpu: Vcpu, contract: Contract) -> tuple[object, object]:
    seen = outcome_of(lambda: vcpu.rdmsr(IA32_SPEC_CTRL))
    if isinstance(seen, str) and seen == "reflected":
        return seen, reflected(contract)
    return seen, contract_of(contract.read_view)


def write_report(vcpu: Vcpu, contract: Contract) -> tuple[object, object]:
    value = word("written")
    seen = outcome_of(lambda: vcpu.wrmsr(MSR_VIRTUAL_MITIGATION_CTRL, value))
    return seen, reflected(contract) if seen == "reflected" else contract_of(lambda: contract.write_report(value))


def read_enumeration(vcpu: Vcpu, contract: Contract) -> tuple[object, object]:
    seen = outcome_of(lambda: vcpu.rdmsr(MSR_VIRTUAL_ENUMERATION))
    if isinstance(seen, str) and seen == "reflected":
        return seen, reflected(contract)
    return None, None


def reflected(contract: Contract) -> str:
    """An exit that L1 asked for: L1 runs."""
    contract.level = 1
    return "reflected"


def leave(vcpu: Vcpu, contract: Contract) -> tuple[object, object]:
    vcpu.run()
    vcpu.exit_guest()
    return None, None


def go_on(vcpu: Vcpu, contract: Contract) -> tuple[object, object]:
    vcpu.run()
    return None, None


def list_write_view(vcpu: Vcpu, contract: Contract) -> tuple[object, object]:
    value = word("written")
    seen = outcome_of(lambda: vcpu.emulate_wrmsr(IA32_SPEC_CTRL, value))
    return seen, contract_of(lambda: contract.write_view(value))


def list_write_report(vcpu: Vcpu, contract: Contract) -> tuple[object, object]:
    value = word("written")
    seen = outcome_of(lambda: vcpu.emulate_wrmsr(MSR_VIRTUAL_MITIGATION_CTRL, value))
    return seen, contract_of(lambda: contract.write_report(value))


def list_read_view(vcpu: Vcpu, contract: Contract) -> tuple[object, object]:
    return outcome_of(lambda: vcpu.emulate_rdmsr(IA32_SPEC_CTRL)), contract_of(contract.read_view)


def host_sets_view(vcpu: Vcpu, contract: Contract) -> tuple[object, object]:
    value = word("written")
    return vcpu.set_msrs(((IA32_SPEC_CTRL, value),)) == 1, contract.restore_view(value)


def host_gets_view(vcpu: Vcpu, contract: Contract) -> tuple[object, object]:
    return vcpu.get_msrs((IA32_SPEC_CTRL,))[0], contract.guest_view


def host_sets_report(vcpu: Vcpu, contract: Contract) -> tuple[object, object]:
    value = word("written")
    return vcpu.set_msrs(((MSR_VIRTUAL_MITIGATION_CTRL, value),)) == 1, contract.restore_report(value)


def userspace_forces(vcpu: Vcpu, contract: Contract) -> tuple[object, object]:
    mask, value = word("new_mask"), word("new_value")
    seen = outcome_of(lambda: vcpu.enable_cap(KVM_CAP_FORCE_SPEC_CTRL, 0, mask, value))
    return seen is None, contract.userspace_force(mask, value)


def filter_changes(vcpu: Vcpu, contract: Contract) -> tuple[object, object]:
    vcpu.vm.msr_filter = AnyFilter("new_filter")  # type: ignore[assignment]  # stands for every MsrFilter
    vcpu.msr_filter_changed()
    return None, None


def l1_enters(vcpu: Vcpu, contract: Contract) -> tuple[object, object]:
    vcpu.vmlaunch(any_controls("new_l1"), ())
    contract.level = 2
    return None, None


def entry_fails(vcpu: Vcpu, contract: Contract) -> tuple[object, object]:
    vcpu.abandon_entry()
    contract.level = 1
    return None, None


def l2_exits(vcpu: Vcpu, contract: Contract) -> tuple[object, object]:
    vcpu.vmcall((), ())
    contract.level = 1
    return None, None


def nested_state(level2: bool) -> Act:
    """KVM_SET_NESTED_STATE of any state that was saved in L2 or not."""

    def act(vcpu: Vcpu, contract: Contract) -> tuple[object, object]:
        names = [f.name for f in fields(NestedState) if f.name not in ("level2", "controls")]
        flags = {name: flag(f"state.{name}") for name in names}
        vcpu.restore_nested(NestedState(level2=level2, controls=any_controls("state.l1"), **flags))
        contract.level = 2 if level2 else 1
        return None, None

    return act


def smi(vcpu: Vcpu, contract: Contract) -> tuple[object, object]:
    vcpu.smi()
    contract.level = 1
    return None, None


def rsm(vcpu: Vcpu, contract: Contract) -> tuple[object, object]:
    vcpu.smm, vcpu.smm_left_level2, vcpu.smm_left_vmx = True, flag("left_level2"), flag("left_vmx")
    assume(Flag(z3.Implies(flag_term(vcpu.smm_left_level2), flag_term(vcpu.smm_left_vmx))))
    back_in_l2 = bool(vcpu.smm_left_level2)
    vcpu.rsm()
    contract.level = 2 if back_in_l2 else 1
    return None, None


def init(vcpu: Vcpu, contract: Contract) -> tuple[object, object]:
    vcpu.smm, vcpu.vmx_operation = flag("smm"), flag("vmx_operation")
    seen = outcome_of(vcpu.init)
    if seen == "reflected":
        contract.level = 1
    elif seen is None:
        contract.init()
    return seen, seen


def reset(vcpu: Vcpu, contract: Contract) -> tuple[object, object]:
    vcpu.platform_reset()
    contract.level = 1
    if contract.host.has_spec_ctrl:
        contract.restore_view(0)
    contract.restore_report(0)
    return None, None


LOADED_01, LOADED_02 = (Loaded.VMCS01,), (Loaded.VMCS02,)
IN_KVM = (False,)

STEPS: tuple[Step, ...] = (
    Step("guest writes IA32_SPEC_CTRL", write_view, keeps_view=False),
    Step("guest reads IA32_SPEC_CTRL", read_view),
    Step("guest writes MSR_VIRTUAL_MITIGATION_CTRL", write_report),
    Step("guest reads MSR_VIRTUAL_ENUMERATION", read_enumeration),
    Step("VM exit to the host", leave),
    Step("VM entry", go_on),
    Step("KVM_SET_MSRS of IA32_SPEC_CTRL", host_sets_view, keeps_view=False),
    Step("KVM_GET_MSRS of IA32_SPEC_CTRL", host_gets_view),
    Step("KVM_SET_MSRS of MSR_VIRTUAL_MITIGATION_CTRL", host_sets_report),
    Step("KVM_ENABLE_CAP on the vCPU", userspace_forces),
    Step("KVM_X86_SET_MSR_FILTER", filter_changes),
    Step("L1 enters L2", l1_enters, LOADED_01),
    Step("list entry writes IA32_SPEC_CTRL", list_write_view, places=IN_KVM, keeps_view=False),
    Step("list entry writes MSR_VIRTUAL_MITIGATION_CTRL", list_write_report, places=IN_KVM),
    Step("list entry stores IA32_SPEC_CTRL", list_read_view, places=IN_KVM),
    Step("L1's VM entry fails", entry_fails, LOADED_02, IN_KVM),
    Step("L2 exits to L1", l2_exits, LOADED_02),
    Step("KVM_SET_NESTED_STATE, in L2", nested_state(True)),
    Step("KVM_SET_NESTED_STATE, not in L2", nested_state(False)),
    Step("SMI", smi),
    Step("RSM", rsm, LOADED_01),
    Step("INIT", init, keeps_view=False),
    Step("platform reset", reset, keeps_view=False),
)
"""Every step of the induction; KVM_RUN between two steps is the step "VM entry"."""


# ---- the obligations of one path


@dataclass(frozen=True, slots=True)
class Obligation:
    """What must hold at the end of a path."""

    claim: str
    detail: str
    term: Term


def agree(left: object, right: object) -> Term:
    """The term that mechanism and contract showed the same."""
    if isinstance(left, str | bool | None) or isinstance(right, str | bool | None):
        return z3.BoolVal(type(left) is type(right) and left == right)
    return same(left, right)


def obligations(step: Step, before: Contract, vcpu: Vcpu, contract: Contract, seen: tuple[object, object]) -> list[Obligation]:
    """Everything that must hold after a step."""
    after = abstract(vcpu)
    found = [Obligation("invariant_holds_again", part, term) for part, term in invariant(vcpu).items()]
    compared: list[tuple[str, Term]] = [
        ("what is seen", agree(*seen)),
        ("guest view", same(after.guest_view, contract.guest_view)),
        ("userspace's mask", same(after.user_mask, contract.user_mask)),
        ("userspace's value", same(after.user_value, contract.user_value)),
        ("report", same(after.report, contract.report)),
        ("level", z3.BoolVal(after.level == contract.level)),
    ]
    found += [Obligation("mechanism_refines_contract", part, term) for part, term in compared]
    if step.keeps_view:
        found.append(Obligation("view_survives", "view", same(after.guest_view, before.guest_view)))
    if step.act is read_view and not isinstance(seen[0], str):
        found.append(Obligation("guest_reads_what_it_wrote", "value read", same(seen[0], before.guest_view)))
    if step.act is host_gets_view:
        found.append(Obligation("get_msrs_is_the_view", "value", same(seen[0], before.guest_view)))
    if step.act in (init, reset):
        if seen[0] is None and flag_term(vcpu.init_withdraws_report) is not None:
            found.append(Obligation("reset_leaves_userspace", "view", same(after.guest_view, 0)))
            withdrawn = z3.Or(same(after.report, 0), z3.Not(flag_term(vcpu.init_withdraws_report)))
            found.append(Obligation("reset_leaves_userspace", "report", withdrawn))
    register = word_term(vcpu.cpu.spec_ctrl)
    mask, value = after.force()
    exists = word_term(vcpu.host.writable) != 0
    if vcpu.in_guest:
        forced, kept = word_term(mask), register & word_term(mask)
        found += [
            Obligation("masked_bits_never_change", "register", z3.Implies(exists, kept == word_term(value))),
            Obligation("zero_forced_bits_never_set", "register",
                       z3.Implies(exists, register & forced & ~word_term(value) == 0)),
            Obligation("userspace_wins", "register", z3.Implies(
                exists, register & word_term(after.user_mask) == word_term(after.user_value))),
            Obligation("report_is_in_force", "register", z3.Implies(
                exists, report_in_force(after, register))),
            Obligation("nothing_else_is_forced", "register", z3.Implies(
                exists, (register ^ word_term(after.guest_view)) & ~asked_for(after) == 0)),
        ]
    else:
        found.append(Obligation("host_value_after_exit", "register", same(register_of(vcpu), vcpu.host.spec_ctrl)))
    return found


def register_of(vcpu: Vcpu) -> Any:
    """The processor's IA32_SPEC_CTRL."""
    return vcpu.cpu.spec_ctrl


def asked_for(contract: Contract) -> z3.BitVecRef:
    """Every bit that userspace's mask or the report names, written without the rule code's formulas."""
    report, mask = word_term(contract.report), word_term(contract.user_mask)
    bhi = z3.If(report & 1 != 0, z3.BitVecVal(1 << 10, 64), z3.BitVecVal(0, 64))
    rrsba = z3.If(report & 2 != 0, z3.BitVecVal(1 << 6, 64), z3.BitVecVal(0, 64))
    return mask | bhi | rrsba


def report_in_force(contract: Contract, register: z3.BitVecRef) -> Term:
    """A deliverable report that userspace does not mask is in the register, written without the formulas."""
    features, report = contract.host.features, word_term(contract.report)
    unmasked = ~word_term(contract.user_mask)
    bhi = z3.And(report & 1 != 0, flag_term(features.bhi_ctrl), z3.Not(flag_term(features.bhi_no)))
    rrsba = z3.And(report & 2 != 0, flag_term(features.rrsba_ctrl), flag_term(features.rrsba))
    return z3.And(
        z3.Implies(z3.And(bhi, unmasked & (1 << 10) != 0), register & (1 << 10) != 0),
        z3.Implies(z3.And(rrsba, unmasked & (1 << 6) != 0), register & (1 << 6) != 0),
    )


# ---- running the proofs

PURE = (
    (contract, "requested_bits"),
    (contract, "supported_force_spec_ctrl"),
    (claims, "requested_bits"),
    (entry, "requested_bits"),
    (entry, "can_force"),
    (vm, "can_force"),
    (posted, "requested_bits"),
)
"""Pure functions that the proofs summarize, in each module that names them."""


def watched(variant: Variant) -> Variant:
    """The variant, with vCPUs that keep what they held at each exit before the host's value went back."""

    class Watched(variant.vcpu):  # type: ignore[name-defined,misc]  # the variant's own class
        __slots__ = ("exits",)

        def restore_host_spec_ctrl(self) -> None:
            self.exits = (*getattr(self, "exits", ()), (self.saved, self.cpu.spec_ctrl))
            variant.vcpu.restore_host_spec_ctrl(self)

    return Variant(variant.name, variant.processor, variant.vmcs, variant.vm, Watched)


def discharge(path: Path, step: str, owed: list[Obligation], state: dict[str, Any], result: Result) -> None:
    """Ask for a state in which an obligation fails: all at once, one by one only if there is one."""
    for obligation in owed:
        result.obligations[obligation.claim] += 1
    bits = z3.Then("simplify", "propagate-values", "solve-eqs", "bit-blast", "sat").solver()
    bits.add(path.solver.assertions())
    bits.add(z3.Not(z3.And([obligation.term for obligation in owed])))
    if bits.check() == z3.unsat:
        return
    for obligation in owed:
        if path.possible(z3.Not(obligation.term)):
            model = path.solver.model()
            concrete = {name: evaluate(model, value) for name, value in state.items()}
            result.refutations.append(Refutation(obligation.claim, step, obligation.detail, concrete))


def prove_step(variant: Variant, step: Step, loaded: Loaded, in_guest: bool) -> Result:
    """One step from every state with this VMCS loaded and the guest running or not."""
    result = Result()
    name = f"{step.name} ({loaded.name.lower()}, {'guest' if in_guest else 'KVM'} runs)"
    kept: dict[str, Any] = {}

    def run() -> list[Obligation]:
        vcpu = any_vcpu(watched(variant), loaded, in_guest)
        kept.clear()
        kept.update(leaves(vcpu))
        assume_invariant(vcpu)
        before, contract = abstract(vcpu), abstract(vcpu)
        if step.name.startswith(("guest", "list")) and step.refines:
            for msr in (IA32_SPEC_CTRL, MSR_VIRTUAL_MITIGATION_CTRL, MSR_VIRTUAL_ENUMERATION):
                for write in (False, True):
                    assume(vcpu.vm.msr_filter.allows(msr, write))
        try:
            seen = step.act(vcpu, contract)
        except HostFault:
            return [Obligation("host_never_faults", "WRMSR of the saved value", z3.BoolVal(False))]
        owed = obligations(step, before, vcpu, contract, seen)
        owed.append(Obligation("host_never_faults", "no fault", z3.BoolVal(True)))
        owed += [Obligation("saved_is_hardware", "exit", same(saved, register))
                 for saved, register in getattr(vcpu, "exits", ())]
        return owed

    with summarized(PURE):
        for path, owed in paths(run):
            result.paths += 1
            discharge(path, name, owed, dict(kept), result)
    return result


def leaves(record: Any, prefix: str = "") -> dict[str, Any]:
    """Every word and flag of a record and the records in it, by dotted name, for a counterexample."""
    found: dict[str, Any] = {}
    for item in getattr(record, "__dataclass_fields__", ()):
        value = getattr(record, item)
        if type(value).__name__ in ("Word", "Flag"):
            found[prefix + item] = value
        elif (hasattr(value, "__dataclass_fields__") and not isinstance(value, Features)) or isinstance(value, Features):
            found.update(leaves(value, f"{prefix}{item}."))
    return found


def prove_first_state(variant: Variant) -> Result:
    """A new vCPU satisfies the invariant: any host, any guest CPUID, any valid pair of the VM."""
    result = Result()

    def run() -> list[Obligation]:
        host = any_host("host")
        new_vm = variant.make_vm(host)
        mask, value = word("vm.mask"), word("vm.value")
        if bool(flag("capability")):
            if not can_force(host, mask, value):
                raise Infeasible
            new_vm.force_spec_ctrl(mask, value)
        cpuid = Features(spec_ctrl=flag("cpuid.spec_ctrl"), arch_capabilities=flag("cpuid.arch_capabilities"))
        vcpu = variant.make_vcpu(new_vm, cpuid, Assumptions())
        return [Obligation("first_state", part, term) for part, term in invariant(vcpu).items()]

    with summarized(PURE):
        for path, owed in paths(run):
            result.paths += 1
            discharge(path, "KVM_CREATE_VCPU", owed, {}, result)
    return result


def prove_migration(variant: Variant, loaded: Loaded, nested_first: bool) -> Result:
    """A move to any other host: what arrives satisfies the invariant and is the same for the guest."""
    result = Result()
    order = "nested state first" if nested_first else "MSRs first"

    def run() -> list[Obligation]:
        vcpu = any_vcpu(variant, loaded, in_guest=False)
        assume_invariant(vcpu)
        assume(Flag(z3.And(same(vcpu.user_mask, vcpu.vm.user_mask), same(vcpu.user_value, vcpu.vm.user_value))))
        assume(is_subset(vcpu.vm.exit_reasons, 7))
        for valid, value in ((1, vcpu.virtual_enumeration), (3, vcpu.mitigation_enum)):
            assume(is_subset(value, valid))
        before = abstract(vcpu)
        destination = any_host("destination")
        carries_msr = destination.has_spec_ctrl and vcpu.host.has_spec_ctrl
        try:
            _, moved = migrate(variant, Assumptions(), vcpu.vm, {0: vcpu}, Plan(destination, nested_first))
        except (Errno, MsrsRefused):
            contract = abstract(vcpu)
            refused = not (carries_msr and contract.move(destination))
            return [Obligation("migration_is_identity", "refused", z3.BoolVal(refused))]
        except Outcome:
            return [Obligation("migration_is_identity", "outcome", z3.BoolVal(False))]
        arrived = moved[0]
        after = abstract(arrived)
        owed = [Obligation("migration_is_identity", part, term) for part, term in invariant(arrived).items()]
        for part, left, right in (
            ("view", after.guest_view, before.guest_view),
            ("report", after.report, before.report),
            ("userspace's mask", after.user_mask, before.user_mask),
            ("userspace's value", after.user_value, before.user_value),
        ):
            owed.append(Obligation("migration_is_identity", part, same(left, right)))
        owed.append(Obligation("migration_is_identity", "level", z3.BoolVal(after.level == before.level)))
        return owed

    with summarized(PURE):
        for path, owed in paths(run):
            result.paths += 1
            discharge(path, f"migration ({loaded.name.lower()}, {order})", owed, {}, result)
    return result


def prove_not_empty(variant: Variant) -> Result:
    """No proof is vacuous: states of the invariant exist in each mode that matters."""
    result = Result()
    for loaded in Loaded:
        for in_guest in (False, True):
            for control in (False, True):

                def run(loaded: Loaded = loaded, in_guest: bool = in_guest, control: bool = control) -> bool:
                    vcpu = any_vcpu(variant, loaded, in_guest)
                    assume(Flag(flag_term(vcpu.cpu.has_control) == z3.BoolVal(control)))
                    assume(vcpu.mitigation_ctrl != 0)
                    assume(vcpu.force_mask != 0)
                    assume(vcpu.guest_view != 0)
                    assume_invariant(vcpu)
                    return True

                result.obligations["invariant_is_not_empty"] += 1
                if not any(found for _, found in paths(run)):
                    detail = f"{loaded.name.lower()}, guest runs: {in_guest}, control: {control}"
                    result.refutations.append(Refutation("invariant_is_not_empty", "", detail, {}))
    return result


def tasks(variant: Variant) -> Iterator[Callable[[], Result]]:
    """Every independent proof, largest first."""
    for loaded in Loaded:
        for nested_first in (True, False):
            yield lambda loaded=loaded, order=nested_first: prove_migration(variant, loaded, order)  # type: ignore[misc]
    for step in STEPS:
        for loaded in step.levels:
            for place in step.places:
                yield lambda step=step, loaded=loaded, place=place: prove_step(variant, step, loaded, place)  # type: ignore[misc]
    yield lambda: prove_first_state(variant)
    yield lambda: prove_not_empty(variant)
