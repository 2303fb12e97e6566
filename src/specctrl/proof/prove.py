"""All proofs of a variant: every step of the induction, its first state, migration, the keepers; and refutations."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import count, product
from pathlib import Path
from typing import Any

from specctrl.model import contract
from specctrl.model.kvm.state import Loaded
from specctrl.model.kvm.variant import SPEC, Assumptions, Variant
from specctrl.model.kvm.vcpu import Vcpu
from specctrl.model.outcomes import Errno, Outcome, VmEntryFailed, VmxInstructionError
from specctrl.model.parts import Features
from specctrl.model.processor import Vmcs
from specctrl.model.variants import VARIANTS
from specctrl.model.vmm.migration import MsrsRefused, Plan, migrate
from specctrl.proof.any_vcpu import (
    Solved,
    Symbols,
    abstract,
    any_host,
    any_vcpu,
    host_facts,
    same,
    vm_facts,
)
from specctrl.proof.claims import CLAIMS
from specctrl.proof.findings import Findings, Refutation, gather
from specctrl.proof.induction import (
    PURE,
    Family,
    assume_all,
    hunt,
    of_each_family,
    own_state,
    prove_beginning,
    prove_once,
    prove_step,
)
from specctrl.proof.instrumented import instrumented
from specctrl.proof.invariant import Obligation, invariant
from specctrl.proof.protection import PROTECTION, prove_protection
from specctrl.proof.report_keepers import prove_keepers
from specctrl.proof.steps import HUNTS, STEPS
from specctrl.proof.summaries import summarized
from specctrl.proof.symbolic import Infeasible, assume, flag_term, paths
from specctrl.proof.terms import Term, all_of, truth
from specctrl.proof.theorems import THEOREMS, Of, Start, Theorem
from specctrl.proof.theorems.statement import equal
from specctrl.shards import Told, Workers, carry_out, untold


def never_written(kind: type[Vmcs], values: Symbols) -> type[Vmcs]:
    """A VMCS whose MASK and SHADOW hold any value until they are written: the SDM promises none."""
    numbers = count(1)

    class NeverWritten(kind):  # type: ignore[valid-type,misc]  # the class is the variant's own
        __slots__ = ()

        def __init__(self) -> None:
            number = next(numbers)
            kind.__init__(self, spec_ctrl_mask=values.word(f"fresh.{number}.mask"),
                          spec_ctrl_shadow=values.word(f"fresh.{number}.shadow"))

    return NeverWritten


def prove_first_state(variant: Variant) -> Findings:
    """KVM_CREATE_VCPU on any host, for any guest CPUID, under any pair that KVM_ENABLE_CAP lets pass."""
    values = Solved({})

    def owed() -> list[Obligation]:
        host = any_host(values, "host")
        assume_all(list(host_facts(host).values()))
        machine = instrumented(variant)
        machine = replace(machine, vmcs=never_written(machine.vmcs, values))
        vm = machine.make_vm(host)
        if values.flag("capability"):
            try:
                vm.force_spec_ctrl(values.word("vm.user_mask"), values.word("vm.user_value"))
            except Errno:
                raise Infeasible from None
        cpuid = Features(spec_ctrl=values.flag("cpuid.spec_ctrl"), arch_capabilities=values.flag("cpuid.arch_cap"))
        vcpu = machine.make_vcpu(vm, cpuid, Assumptions())
        return [Obligation("first_state", part, term) for part, term in invariant(vcpu).items()]

    found = Findings()
    with summarized(PURE):
        gather(owed, values, found, "KVM_CREATE_VCPU")
    return found


MIGRATIONS: dict[str, bool] = {"migration, nested state first": True, "migration, MSRs first": False}
"""Each order of restoring a vCPU, as a step: whether the nested state is restored first."""


def prove_migration(variant: Variant, step: str, loaded: Loaded) -> Findings:
    """A move to any other host: what arrives has the invariant and is the same for the guest.

    It begins, as every ioctl does, after an exit.
    """
    def owed(family: Family) -> list[Obligation]:
        moved = move(family.machine, family.vcpu(), family.values, MIGRATIONS[step])
        return [Obligation("migration_is_identity", part, term) for part, term in moved]

    return of_each_family(variant, step, loaded, False, owed, lambda vcpu: vm_facts(vcpu).values())


def move(variant: Variant, vcpu: Vcpu, values: Symbols, nested_first: bool) -> Iterator[tuple[str, Term]]:
    """Migrate a vCPU and its contract; what must hold."""
    before, beside, source, own = abstract(vcpu), abstract(vcpu), vcpu.vm, own_state(vcpu)
    destination = any_host(values, "destination")
    assume_all(list(host_facts(destination).values()))
    try:
        vm, moved = migrate(variant, Assumptions(), source, {0: vcpu}, Plan(destination, nested_first, keep_force=True))
    except (Errno, MsrsRefused):
        vm, moved = source, {}
    allowed = beside.move(destination)
    if source.user_mask or source.user_value:
        allowed = allowed and contract.can_force(destination, source.user_mask, source.user_value)
    if (vcpu.vmx_operation or vcpu.smm_left_vmx) and not destination.nested:
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


def has_states(machine: Variant, loaded: Loaded, in_guest: bool, control: bool) -> bool:
    """Whether the invariant has states here, with a report, a mask and a view."""
    def run() -> None:
        vcpu = any_vcpu(machine, Symbols(), loaded, in_guest)
        assume_all([*host_facts(vcpu.host).values(), *vm_facts(vcpu).values(), *invariant(vcpu).values(),
                    flag_term(vcpu.cpu.has_control) == truth(control)])
        for value in (vcpu.mitigation_ctrl, vcpu.force_mask, vcpu.guest_view):
            assume(value != 0)

    with summarized(PURE):
        return any(True for _ in paths(run))


def prove_not_empty(variant: Variant) -> Findings:
    """No proof is vacuous: the invariant has states in each mode that matters."""
    found, machine = Findings(), instrumented(variant)
    for loaded, in_guest, control in product(Loaded, (False, True), (False, True)):
        there = has_states(machine, loaded, in_guest, control)
        name = f"{loaded.name.lower()}, guest runs: {in_guest}, control: {control}"
        found.count([Obligation("invariant_is_not_empty", name, truth(there))])
        if not there:
            found.refutations.append(Refutation("invariant_is_not_empty", name, "", {}))
    return found


def prove_theorem(variant: Variant, theorem: Theorem) -> Findings:
    """One operation, from every state of which the theorem speaks."""
    found = Findings()
    if theorem.of is Of.NONE:
        found.add(prove_from(variant, theorem, None))
    for start in theorem.starts:
        found.add(of_each_family(variant, theorem.name, *start, partial(stated_of, theorem))
                  if theorem.of is Of.INVARIANT else prove_from(variant, theorem, start))
    return found


def prove_from(variant: Variant, theorem: Theorem, start: Start | None) -> Findings:
    """A theorem from one situation, whatever the words and flags are there; None: from none."""
    found, values = Findings(), Solved({})
    with summarized(PURE):
        gather(lambda: stated(instrumented(variant), theorem, start, values), values, found, theorem.name,
               *(start or (None, False)))
    return found


def stated_of(theorem: Theorem, family: Family) -> list[Obligation]:
    """What a theorem says at the end of a path, of vCPUs that have the invariant."""
    assume_all(family.known)
    return stated(family.machine, theorem, (family.loaded, family.in_guest), family.values)


def stated(machine: Variant, theorem: Theorem, start: Start | None, values: Symbols) -> list[Obligation]:
    """What a theorem says at the end of a path."""
    about = machine if start is None else any_vcpu(machine, values, *start)
    try:
        return [Obligation(theorem.name, part, term) for part, term in theorem.run(about, values)]
    except (Outcome, VmxInstructionError, VmEntryFailed) as failure:  # where the theorem knows of no failure
        return [Obligation(theorem.name, type(failure).__name__, truth(False))]


# ---- everything

Proof = Callable[[Variant], Findings]
"""One independent proof: what comes of it for a variant."""


def place(loaded: Loaded, in_guest: bool) -> str:
    """Where a step begins, in words."""
    return f"{'L1' if loaded is Loaded.VMCS01 else 'L2'}, {'guest' if in_guest else 'KVM'} runs"


def proofs() -> dict[str, Proof]:
    """Every independent proof by its name, those that take longest first; a theorem's is the theorem's name."""
    found: dict[str, Proof] = {}
    for migration, loaded in product(MIGRATIONS, Loaded):
        found[f"{migration}, {place(loaded, False)}"] = partial(prove_migration, step=migration, loaded=loaded)
    for step in STEPS.values():
        for loaded, in_guest in product(step.levels, step.places):
            found[f"{step.name}, {place(loaded, in_guest)}"] = partial(
                prove_step, step=step, loaded=loaded, in_guest=in_guest)
        for loaded in step.levels if step.begins else ():
            other = not step.places[0]
            found[f"{step.name}, {place(loaded, other)}: how it begins"] = partial(
                prove_beginning, step=step, loaded=loaded, in_guest=other)
    for loaded, in_guest in product(Loaded, (True, False)):
        found[f"run or exit again, {place(loaded, in_guest)}"] = partial(
            prove_once, loaded=loaded, in_guest=in_guest)
    for theorem in THEOREMS.values():
        found[theorem.name] = partial(prove_theorem, theorem=theorem)
    return found | {
        "first state": prove_first_state, "not empty": prove_not_empty,
        "keepers": lambda _: prove_keepers(), "protection": lambda _: prove_protection()}


def prove(variant: Variant, name: str) -> Findings:
    """Carry out one proof of :func:`proofs`; ValueError if none has that name."""
    try:
        proof = proofs()[name]
    except KeyError:
        raise ValueError(f"no proof is named {name!r}") from None
    return proof(variant)


def prove_named(variant: str, name: str) -> Findings:
    """The same, in a process of its own."""
    return prove(VARIANTS[variant], name)


ONE_PROOF = {"first_state": "first state", "invariant_is_not_empty": "not empty",
             **dict.fromkeys(PROTECTION, "protection"), **{name: name for name in THEOREMS}}
"""The claims that a single proof is about, with its name; of every other all proofs may say something."""


def prove_all(
    variant: str, workers: Workers | None = None, claim: str | None = None, kept: Path | None = None,
    told: Told = untold,
) -> Findings:
    """Every proof of a variant, and for each claim that one step cannot refute a search over a few.

    ``claim``: only what can say something of this one.  The rest is as for :func:`~specctrl.shards.carry_out`, which
    says what it raises: a proof is a shard.
    """
    found, names = Findings(), [ONE_PROOF[claim]] if claim in ONE_PROOF else list(proofs())
    for part in carry_out(partial(prove_named, variant), names, workers, kept, told):
        found.add(part)
    if found.refutations:
        refuted = found.refuted()
        for hunted in HUNTS if claim is None else {*HUNTS} & {claim}:
            refutation = None if hunted in refuted else hunt(VARIANTS[variant], hunted)
            found.refutations += [refutation] if refutation else []
    return found


MANIFEST = Path(__file__).with_name("proofs.json")
"""What the proofs of ``spec`` came to: paths, and for each claim its paths and obligations."""


def figures(found: Findings) -> dict[str, Any]:
    """The counts of a result, as the manifest has them."""
    return {"paths": found.paths, "claims": {
        claim: {"paths": found.claim_paths[claim], "obligations": found.obligations[claim]} for claim in CLAIMS}}


def manifest() -> dict[str, Any]:
    """The counts as stored."""
    stored: dict[str, Any] = json.loads(MANIFEST.read_text("utf-8"))
    return stored
