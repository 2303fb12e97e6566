"""A refutation repeated on plain integers, and told as lines of text."""

from collections.abc import Iterable, Iterator
from typing import Any

from specctrl.model.kvm.state import Loaded
from specctrl.model.kvm.variant import Variant
from specctrl.model.kvm.vcpu import Vcpu
from specctrl.proof.any_vcpu import Numbers, any_vcpu, host_facts, vm_facts
from specctrl.proof.findings import Refutation
from specctrl.proof.induction import Replay, replay
from specctrl.proof.instrumented import instrumented
from specctrl.proof.invariant import invariant
from specctrl.proof.prove import MIGRATIONS, move, stated
from specctrl.proof.symbolic import paths
from specctrl.proof.terms import FALSE, TRUE
from specctrl.proof.theorems import THEOREMS, Of


def replays(variant: Variant, refutations: list[Refutation]) -> dict[str, dict[str, Any]]:
    """The first refutation of each claim that can be replayed, replayed on plain integers.

    AssertionError if the claim does not fail there too, or the vCPU does not have the invariant: a bug of the prover.
    """
    shown: dict[str, dict[str, Any]] = {}
    for refutation in refutations:
        if refutation.claim in shown:
            continue
        if refutation.claim in THEOREMS:
            replay_theorem(variant, refutation)
            lines = tell(refutation, [])
        elif refutation.loaded is None:
            continue
        else:
            again = (replay_migration if refutation.step in MIGRATIONS else replay)(variant, refutation)
            assert again.in_invariant, refutation
            assert (refutation.claim, refutation.part) in again.failed, refutation
            lines = tell(refutation, changes(again))
        shown[refutation.claim] = {
            "step": refutation.step, "part": refutation.part,
            "values": {name: hex(value) if not isinstance(value, bool) else value
                       for name, value in refutation.values.items() if value},
            "lines": lines,
        }
    return shown


def replay_theorem(variant: Variant, refutation: Refutation) -> None:
    """Perform what a theorem speaks of on plain integers; AssertionError if the part does not fail there too."""
    machine, values, theorem = instrumented(variant), Numbers(refutation.values), THEOREMS[refutation.claim]
    start = None if refutation.loaded is None else (refutation.loaded, refutation.in_guest)
    if start is not None and theorem.of is Of.INVARIANT:
        vcpu = any_vcpu(machine, values, *start)
        facts = (*host_facts(vcpu.host).values(), *invariant(vcpu).values())
        assert all(term is TRUE for term in facts), refutation
    ((_, owed),) = paths(lambda: stated(machine, theorem, start, values))
    assert refutation.part in {item.part for item in owed if item.term is FALSE}, refutation


def replay_migration(variant: Variant, refutation: Refutation) -> Replay:
    """The same for a migration: what is shown is the vCPU at the source, which a migration only reads."""
    assert refutation.loaded is not None
    machine, values = instrumented(variant), Numbers(refutation.values)
    vcpu = any_vcpu(machine, values, refutation.loaded, False)
    start = (*host_facts(vcpu.host).values(), *vm_facts(vcpu).values(), *invariant(vcpu).values())
    ((_, owed),) = paths(lambda: list(move(machine, vcpu, values, MIGRATIONS[refutation.step])))
    failed = frozenset(("migration_is_identity", part) for part, term in owed if term is FALSE)
    return Replay(vcpu, vcpu, failed, all(term is TRUE for term in start))


def tell(refutation: Refutation, changed: Iterable[tuple[str, int, int]]) -> list[str]:
    """A counterexample as lines of text."""
    where = "the guest runs" if refutation.in_guest else "KVM runs"
    level = "L1" if refutation.loaded is Loaded.VMCS01 else "L2"
    told = ", ".join(name if value is True else f"{name}={value:#x}" for name, value in refutation.values.items()
                     if value)
    place = "" if refutation.loaded is None else f"{level}, {where}; "
    lines = [f"{place}every value that is not named is 0: {told}", f"step: {refutation.step}",
             f"fails: {refutation.part}"]
    for name, before, after in changed:
        lines.append(f"  {name}: {before:#x} -> {after:#x}")
    return lines


def changes(again: Replay) -> Iterator[tuple[str, int, int]]:
    """The words of the vCPU that the replayed step changed."""
    def words(vcpu: Vcpu) -> dict[str, int]:
        found = {"register": vcpu.cpu.spec_ctrl}
        for name in ("guest_view", "saved", "force_mask", "force_value", "user_mask", "user_value", "mitigation_ctrl"):
            found[name] = getattr(vcpu, name)
        for name in ("vmcs01", "vmcs02"):
            found |= {f"{name} mask": getattr(vcpu, name).spec_ctrl_mask,
                      f"{name} shadow": getattr(vcpu, name).spec_ctrl_shadow}
        return found

    after = words(again.after)
    for name, value in words(again.before).items():
        if value != after[name]:
            yield name, value, after[name]
