"""All proofs of a variant: every step of the induction, its first state, migration, the keepers; and refutations."""

import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from specctrl.model import contract
from specctrl.model.kvm.state import Loaded
from specctrl.model.kvm.variant import SPEC, Assumptions, Variant
from specctrl.model.kvm.vcpu import Vcpu
from specctrl.model.outcomes import Errno, Outcome, VmEntryFailed, VmxInstructionError
from specctrl.model.parts import Features
from specctrl.model.registers import VALID_MITIGATION_ENUM
from specctrl.model.variants import VARIANTS
from specctrl.model.vmm.migration import MsrsRefused, Plan, migrate
from specctrl.proof.any_vcpu import (
    Solved,
    Symbols,
    abstract,
    announced,
    any_host,
    any_vcpu,
    host_facts,
    same,
    vm_facts,
)
from specctrl.proof.claims import CLAIMS
from specctrl.proof.induction import (
    PURE,
    Refutation,
    Result,
    assume_all,
    gather,
    own_state,
    perform_step,
    prove_beginning,
    prove_once,
    prove_step,
    starts,
)
from specctrl.proof.instrumented import watched
from specctrl.proof.invariant import Obligation, invariant
from specctrl.proof.protection import prove_protection
from specctrl.proof.report_keepers import prove_keepers
from specctrl.proof.steps import STEPS, THEN, find_step
from specctrl.proof.summaries import summarized
from specctrl.proof.symbolic import Infeasible, assume, flag_term, paths, word_term
from specctrl.proof.terms import Term, all_of, not_, truth
from specctrl.proof.theorems import THEOREMS, Of, Start, Theorem
from specctrl.proof.theorems.statement import equal


def prove_first_state(variant: Variant) -> Result:
    """KVM_CREATE_VCPU on any host, for any guest CPUID, under any pair that KVM_ENABLE_CAP lets pass."""
    values = Solved({})

    def run() -> list[Obligation]:
        host = any_host(values, "host")
        assume_all(list(host_facts(host).values()))
        machine = watched(variant)
        vm = machine.make_vm(host)
        if values.flag("capability"):
            try:
                vm.force_spec_ctrl(values.word("vm.user_mask"), values.word("vm.user_value"))
            except Errno:
                raise Infeasible from None
        cpuid = Features(spec_ctrl=values.flag("cpuid.spec_ctrl"), arch_capabilities=values.flag("cpuid.arch_cap"))
        vcpu = machine.make_vcpu(vm, cpuid, Assumptions())
        return [Obligation("first_state", part, term) for part, term in invariant(vcpu).items()]

    result = Result()
    with summarized(PURE):
        gather(run, values, result, "KVM_CREATE_VCPU")
    return result


def prove_migration(variant: Variant, loaded: Loaded, nested_first: bool) -> Result:
    """A move to any other host: what arrives has the invariant and is the same for the guest.

    It begins, as every ioctl does, after an exit.
    """
    result, machine = Result(), watched(variant)
    order = "nested state first" if nested_first else "MSRs first"
    with summarized(PURE):
        for values, known in starts(machine, loaded, False, lambda vcpu: list(vm_facts(vcpu).values())):

            def run(values: Solved = values, known: list[Term] = known) -> list[Obligation]:
                assume_all(known)
                vcpu = any_vcpu(machine, values, loaded, False)
                return [Obligation("migration_is_identity", part, term)
                        for part, term in move(machine, vcpu, values, nested_first)]

            gather(run, values, result, f"migration, {order}", loaded)
    return result


def move(variant: Variant, vcpu: Vcpu, values: Symbols, nested_first: bool) -> Iterator[tuple[str, Term]]:
    """Migrate a vCPU and its contract; what must hold."""
    before, beside, source, own = abstract(vcpu), abstract(vcpu), vcpu.vm, own_state(vcpu)
    destination = any_host(values, "destination")
    assume_all(list(host_facts(destination).values()))
    try:
        vm, moved = migrate(variant, Assumptions(), source, {0: vcpu}, Plan(destination, nested_first))
    except (Errno, MsrsRefused):
        vm, moved = source, {}
    allowed = beside.move(destination)
    if source.user_mask or source.user_value:
        allowed = allowed and contract.can_force(destination, source.user_mask, source.user_value)
    if vcpu.vmx_operation and not destination.nested:
        allowed = False
    yield "outcome", flag_term(allowed) == truth(bool(moved))
    yield "the source is as it was", truth(own_state(vcpu) == own)
    if moved:
        after = abstract(moved[0])
        yield from invariant(moved[0]).items()
        for name in ("guest_view", "report", "user_mask", "user_value"):
            yield name, same(getattr(after, name), getattr(before, name))
        yield "level", truth(after.level == before.level)
        yield "the VM's pair", all_of(same(vm.user_mask, source.user_mask), same(vm.user_value, source.user_value))
        for name in ("arch_capabilities", "virtual_enumeration", "mitigation_enum"):
            yield name, same(getattr(moved[0], name), getattr(vcpu, name))
        yield "the mode", all_of(equal(moved[0].save_nested(), vcpu.save_nested()), equal(moved[0].cpuid, vcpu.cpuid))
        yield "the VM's filter and exit reasons", all_of(
            truth(vm.msr_filter is source.msr_filter), same(vm.exit_reasons, source.exit_reasons))
        yield "it has not run there", truth(moved[0].has_run is False)


def invariant_parts() -> list[str]:
    """Every part of the invariant, in plain English.

    >>> len(invariant_parts())
    18
    """
    found: dict[str, None] = {}
    with summarized(PURE):
        for loaded in Loaded:
            for in_guest in (False, True):
                found |= dict.fromkeys(invariant(any_vcpu(SPEC, Symbols(), loaded, in_guest)))
    return list(found)


def prove_not_empty(variant: Variant) -> Result:
    """No proof is vacuous: the invariant has states in each mode that matters, with a report, a mask and a view."""
    result, machine = Result(), watched(variant)
    for loaded in Loaded:
        for in_guest in (False, True):
            for control in (False, True):

                def run(loaded: Loaded = loaded, in_guest: bool = in_guest, control: bool = control) -> bool:
                    vcpu = any_vcpu(machine, Symbols(), loaded, in_guest)
                    assume_all([*host_facts(vcpu.host).values(), *vm_facts(vcpu).values(), *invariant(vcpu).values(),
                                flag_term(vcpu.cpu.has_control) == truth(control)])
                    for value in (vcpu.mitigation_ctrl, vcpu.force_mask, vcpu.guest_view):
                        assume(value != 0)
                    return True

                with summarized(PURE):
                    found = any(True for _ in paths(run))
                name = f"{loaded.name.lower()}, guest runs: {in_guest}, control: {control}"
                result.count([Obligation("invariant_is_not_empty", name, truth(found))])
                if not found:
                    result.refutations.append(Refutation("invariant_is_not_empty", name, "", {}))
    return result


def prove_theorem(variant: Variant, theorem: Theorem) -> Result:
    """One operation, from every state of which the theorem speaks."""
    result, machine = Result(), watched(variant)
    with summarized(PURE):
        for start, values, known in beginnings(machine, theorem):

            def run(
                start: Start | None = start, values: Solved = values, known: list[Term] = known
            ) -> list[Obligation]:
                assume_all(known)
                return stated(machine, theorem, start, values)

            loaded, in_guest = start or (None, False)
            gather(run, values, result, theorem.name, loaded, in_guest)
    return result


def beginnings(machine: Variant, theorem: Theorem) -> Iterator[tuple[Start | None, Solved, list[Term]]]:
    """Each situation that a theorem speaks of: the values of its states, and what they satisfy."""
    if theorem.of is Of.NONE:
        yield None, Solved({}), []
    for start in theorem.starts:
        if theorem.of is Of.ANY:
            yield start, Solved({}), []
        else:
            yield from ((start, values, known) for values, known in starts(machine, *start))


def stated(machine: Variant, theorem: Theorem, start: Start | None, values: Symbols) -> list[Obligation]:
    """What a theorem says at the end of a path."""
    about = machine if start is None else any_vcpu(machine, values, *start)
    try:
        return [Obligation(theorem.name, part, term) for part, term in theorem.run(about, values)]
    except (Outcome, VmxInstructionError, VmEntryFailed) as failure:  # where the theorem knows of no failure
        return [Obligation(theorem.name, type(failure).__name__, truth(False))]


# ---- refutations that take more than one step

HUNTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("host_value_after_exit", (
        "guest writes MSR_VIRTUAL_MITIGATION_CTRL", "guest writes IA32_SPEC_CTRL", "VM exit to KVM")),
    ("saved_is_hardware", (
        "guest writes MSR_VIRTUAL_MITIGATION_CTRL", "guest writes IA32_SPEC_CTRL", "VM exit to KVM")),
    ("userspace_wins", ("guest writes IA32_SPEC_CTRL",)),
)
"""Claims that the posted code keeps in one step from the invariant and breaks in a few: claim and steps."""


def hunt(variant: Variant, claim: str, names: tuple[str, ...]) -> Refutation | None:
    """The first state of the invariant from which these steps break the claim.

    Of a guest that accesses the MSR directly, was offered both bits of the report and has reported nothing.
    """
    machine, step = watched(variant), find_step(THEN.join(names))

    def direct(vcpu: Vcpu) -> list[Term]:
        filtered = [flag_term(vcpu.vm.msr_filter.allows(msr, write)) for msr in (0x48, 0x5000_0002)
                    for write in (False, True)]
        return [flag_term(vcpu.cpu.has_control), flag_term(vcpu.passthrough), *filtered,
                not_(flag_term(vcpu.vmcs01.intercept_write)), not_(flag_term(vcpu.vmcs01.intercept_read)),
                not_(flag_term(vcpu.cpu.entry_loads_shadow)), word_term(vcpu.user_mask) == 0,
                word_term(vcpu.mitigation_ctrl) == 0, flag_term(announced(vcpu)),
                word_term(vcpu.mitigation_enum) == VALID_MITIGATION_ENUM]

    with summarized(PURE):
        for values, known in starts(machine, Loaded.VMCS01, True, direct):

            def run(values: Solved = values, known: list[Term] = known) -> list[Obligation]:
                assume_all(known)
                owed = perform_step(machine, step, any_vcpu(machine, values, Loaded.VMCS01, True), values)
                return [obligation for obligation in owed if obligation.claim == claim]

            result = Result()
            gather(run, values, result, step.name, Loaded.VMCS01, True)
            if result.refutations:
                return result.refutations[0]
    return None


# ---- everything

Task = tuple[str, ...]
"""One independent proof, by name: what it is, and its arguments."""


def tasks() -> list[Task]:
    """Every independent proof, those that take longest first."""
    found: list[Task] = [("migration", loaded.name, order) for loaded in Loaded for order in ("nested", "msrs")]
    for step in STEPS.values():
        for loaded in step.levels:
            found += [("step", step.name, loaded.name, "guest" if place else "kvm") for place in step.places]
            if step.begins:
                found.append(("beginning", step.name, loaded.name, "kvm" if True in step.places else "guest"))
    found += [("once", loaded.name, place) for loaded in Loaded for place in ("guest", "kvm")]
    found += [("theorem", name) for name in THEOREMS]
    return [*found, ("first state",), ("not empty",), ("keepers",), ("protection",)]


def prove(variant: Variant, task: Task) -> Result:
    """Carry out one proof."""
    match task:
        case ("migration", loaded, order):
            return prove_migration(variant, Loaded[loaded], order == "nested")
        case ("step", name, loaded, place):
            return prove_step(variant, STEPS[name], Loaded[loaded], place == "guest")
        case ("beginning", name, loaded, place):
            return prove_beginning(variant, STEPS[name], Loaded[loaded], place == "guest")
        case ("once", loaded, place):
            return prove_once(variant, Loaded[loaded], place == "guest")
        case ("first state",):
            return prove_first_state(variant)
        case ("not empty",):
            return prove_not_empty(variant)
        case ("keepers",):
            return prove_keepers()
        case ("protection",):
            return prove_protection()
        case ("theorem", name):
            return prove_theorem(variant, THEOREMS[name])
    raise ValueError(task)


def prove_named(variant: str, task: Task) -> Result:
    """The same, in a process of its own."""
    return prove(VARIANTS[variant], task)


def prove_all(variant: str, processes: int = 2) -> Result:
    """Every proof of a variant, and for each claim that one step cannot refute a search over a few."""
    result = Result()
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        for part in pool.map(prove_named, [variant] * len(tasks()), tasks()):
            result.add(part)
    if result.refutations:
        for claim, names in HUNTS:
            if claim not in result.refuted():
                found = hunt(VARIANTS[variant], claim, names)
                result.refutations += [found] if found else []
    return result


MANIFEST = Path(__file__).with_name("proofs.json")
"""What the proofs of ``spec`` came to: paths, and for each claim its paths and obligations."""


def figures(result: Result) -> dict[str, Any]:
    """The counts of a result, as the manifest has them."""
    return {"paths": result.paths, "claims": {
        claim: {"paths": result.claim_paths[claim], "obligations": result.obligations[claim]} for claim in CLAIMS}}


def manifest() -> dict[str, Any]:
    """The counts as stored."""
    stored: dict[str, Any] = json.loads(MANIFEST.read_text("utf-8"))
    return stored
