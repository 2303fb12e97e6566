"""Exhaustive exploration: every history over a few bits of IA32_SPEC_CTRL, and the shortest one to each violation.

The rule code itself runs, breadth first, from every host and every pair of userspace, in step with the
contract.  What a step shows is compared with what the contract says, each new state is looked at, and every
VM exit is watched.  The first history that violates a property is a shortest one.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

from specctrl.exploration.events import (
    REFUSED,
    RESERVED,
    Ended,
    Event,
    HostSpec,
    Pair,
    World,
    all_events,
    pairs_of,
)
from specctrl.exploration.histories import Exploration, History
from specctrl.exploration.looks import (
    NOTES,
    Forced,
    broken_by_move,
    broken_by_register,
    broken_by_reset,
    forced_by,
    of_contract,
    of_vcpu,
    watched,
)
from specctrl.exploration.snapshot import State, forget, put, take
from specctrl.model.contract import Contract, can_force
from specctrl.model.kvm.variant import SPEC, Assumptions, Variant
from specctrl.model.kvm.vcpu import Vcpu
from specctrl.model.kvm.vm import Vm
from specctrl.model.outcomes import HostFault, Outcome
from specctrl.model.parts import Host, resolve_host
from specctrl.model.registers import (
    BHI_DIS_S,
    IA32_ARCH_CAPABILITIES,
    IBRS,
    MSR_VIRTUAL_ENUMERATION,
    MSR_VIRTUAL_MITIGATION_ENUM,
    RRSBA_DIS_S,
    SSBD,
    STIBP,
)
from specctrl.model.vmm.migration import Plan, migrate
from specctrl.model.vmm.vmms import STATE_MSRS

BITS = {"IBRS": IBRS, "STIBP": STIBP, "SSBD": SSBD, "RRSBA_DIS_S": RRSBA_DIS_S, "BHI_DIS_S": BHI_DIS_S}
"""The bits that can be explored, by name."""

DEFAULT_BITS = ("IBRS", "BHI_DIS_S")

HOSTS: dict[str, HostSpec] = {
    "sapphire-rapids": "sapphire-rapids",
    "sapphire-rapids, host value 0": {"part": "sapphire-rapids", "host_spec_ctrl": 0},
    "sapphire-rapids without BHI_CTRL": {"part": "sapphire-rapids", "without": ["BHI_CTRL"]},
    "sapphire-rapids without the control": {"part": "sapphire-rapids", "spec_ctrl_shadow": False},
    "ice-lake-server": "ice-lake-server",
    "skylake-server": "skylake-server",
    "diamond-rapids": "diamond-rapids",
}
"""The hosts that are explored: with and without the control, BHI_CTRL, BHI_NO, legacy IBRS; three host values."""

Progress = Callable[[int, int], None]
"""Told how many states and transitions there are so far."""


# ---- the search

Node = tuple[int, int, State]
"""A state of the search: the host, the number of the contract's state, the vCPU's fields."""

whole: Callable[[Contract], tuple[Any, ...]] = attrgetter(*(field.name for field in fields(Contract)))
"""A state of the contract as a key."""


def take_and_forget(vcpu: Vcpu) -> State:
    """The state of a vCPU, with the VMCS that is not loaded spoilt."""
    forget(vcpu)
    return take(vcpu)


class Search:
    """A breadth-first search of one world."""

    def __init__(
        self,
        variant: Variant,
        world: World,
        events: Iterable[Event],
        wanted: frozenset[str] | None = None,
        depth: int | None = None,
        forgets: bool = False,
    ) -> None:
        self.forgets = forgets
        self.take = take_and_forget if forgets else take
        self.variant = replace(variant, vcpu=watched(variant.vcpu))
        self.assume = Assumptions()
        self.world = world
        self.events = list(events)
        self.wanted = wanted
        self.max_depth = depth
        self.found = Exploration(worlds=1)
        self.vcpus = [self.new_vcpu(host) for host in world.hosts]
        self.expected: list[Contract] = []
        self.number: dict[tuple[Any, ...], int] = {}
        self.moves: list[list[tuple[Event, Ended, int]]] = []
        self.fields: list[tuple[Any, ...]] = []
        self.forced: list[Forced] = []
        self.parents: dict[Node, tuple[Node, Event] | None] = {}
        self.moved: dict[tuple[Any, ...], tuple[Ended, State]] = {}
        self.arrived: set[Node] = set()
        self.nodes: list[Node] = []

    def new_vcpu(self, host: Host) -> Vcpu:
        """A vCPU of the world's VM, set up as each history begins."""
        vm: Vm = self.variant.make_vm(host)
        if self.world.pair != (0, 0):
            vm.force_spec_ctrl(*self.world.pair)
        vm.created_vcpus = 1
        vcpu = self.variant.make_vcpu(vm, self.world.cpuid, self.assume)
        if not self.world.bit_63:
            vcpu.set_msrs(((IA32_ARCH_CAPABILITIES, 0),))
        vcpu.set_msrs(((MSR_VIRTUAL_ENUMERATION, 1), (MSR_VIRTUAL_MITIGATION_ENUM, self.world.offered)))
        return vcpu

    def intern(self, at: Contract) -> int:
        """The number of a state of the contract."""
        known = self.number.get(key := whole(at))
        if known is None:
            known = self.number[key] = len(self.expected)
            self.expected.append(at)
            self.fields.append(of_contract(at))
            self.forced.append(forced_by(at))
            self.moves.append([])
        return known

    def moves_from(self, number: int) -> list[tuple[Event, Ended, int]]:
        """The events that are possible in a state of the contract: what must be seen, and where each leads."""
        moves = self.moves[number]
        if not moves:
            at = self.expected[number]
            for event in self.events:
                if event.possible(at):
                    then = replace(at)
                    try:
                        seen = event.expect(then)
                    except Outcome as outcome:
                        seen = (type(outcome), outcome.args)
                    moves.append((event, seen, self.intern(then)))
        return moves

    def run(self, progress: Progress | None = None) -> Exploration:
        """Search until nothing is new, or all that is wanted was found."""
        frontier: list[Node] = []
        for host, vcpu in enumerate(self.vcpus):
            node = (host, self.intern(self.world.contract(self.world.hosts[host])), self.take(vcpu))
            self.parents[node] = None
            frontier.append(node)
        depth = 0
        while frontier and not self.done() and depth != self.max_depth:
            frontier = self.level(frontier, progress)
            depth += bool(frontier)
        self.found.states = len(self.parents)
        self.found.depth = depth
        return self.found

    def done(self) -> bool:
        """Whether all that is wanted was found."""
        return self.wanted is not None and self.wanted <= set(self.found.violations)

    def level(self, frontier: list[Node], progress: Progress | None) -> list[Node]:
        """Every event in every state of one depth; returns the new states."""
        new: list[Node] = []
        parents, vcpus, notes = self.parents, self.vcpus, NOTES
        transitions = 0
        for count, node in enumerate(frontier):
            host, number, state = node
            vcpu = vcpus[host]
            for event, expected, then in self.moves_from(number):
                put(vcpu, state)
                transitions += 1
                try:
                    if event.moves_to is None:
                        seen = event.perform(vcpu)
                        reached = (host, then, self.take(vcpu))
                    else:
                        seen, reached = self.move(vcpu, node, event, then)
                except HostFault:
                    notes.clear()
                    self.violation("host_never_faults", node, event)
                    continue
                except Outcome as outcome:
                    seen = (type(outcome), outcome.args)
                    reached = (host, then, self.take(vcpu))
                if notes:
                    for name in notes:
                        self.violation(name, node, event)
                    notes.clear()
                if seen != expected:
                    self.violation(event.violates, node, event)
                    if event.violates != "guest_reads_what_it_wrote":
                        continue
                if reached not in parents:
                    parents[reached] = (node, event)
                    new.append(reached)
                    self.look(reached, event, node)
                if seen is None and (event.resets or event.moves_to is not None):
                    self.look_at_step(reached, event, node)
            if progress is not None and not count & 0xFF:
                progress(len(parents), self.found.transitions + transitions)
        self.found.transitions += transitions
        return new

    def move(self, vcpu: Vcpu, node: Node, event: Event, then: int) -> tuple[Ended, Node]:
        """A migration.  What it reads of the source decides its end, so an equal source is moved only once."""
        host, _, _ = node
        assert event.moves_to is not None
        vcpu.exit_guest()
        source = (
            host,
            vcpu.user_mask,
            vcpu.user_value,
            tuple(vcpu.get_msrs(STATE_MSRS)),
            vcpu.vmx_operation,
            vcpu.loaded,
            vcpu.controls.use_msr_bitmap,
            vcpu.nested_run_pending,
            vcpu.smm,
            vcpu.smm_left_level2,
            vcpu.smm_left_vmx,
            vcpu.init_pending,
            event.moves_to,
            event.order,
        )
        known = self.moved.get(source)
        if known is None:
            plan = Plan(self.world.hosts[event.moves_to], event.order == "nested-first", keep_force=True)
            try:
                vcpus = migrate(self.variant, self.assume, vcpu.vm, {0: vcpu}, plan)[1]
                known = (None, self.take(vcpus[0]))
            except HostFault:
                raise
            except Outcome:
                known = (REFUSED, ())
            self.moved[source] = known
        seen, state = known
        return (seen, (event.moves_to, then, state)) if seen is None else (seen, (host, then, self.take(vcpu)))

    def look_at_step(self, reached: Node, event: Event, before: Node) -> None:
        """The properties of a reset or a migration that was done; the state that it leads to need not be new."""
        host, number, state = reached
        vcpu, at = self.vcpus[host], self.expected[number]
        if event.resets:
            if broken_by_reset(vcpu, at):
                self.violation("reset_leaves_userspace", before, event)
        elif reached not in self.arrived:
            self.arrived.add(reached)
            put(vcpu, state)
            if broken_by_move(vcpu, at):
                self.violation("migration_is_identity", before, event)

    def look(self, reached: Node, event: Event, before: Node) -> None:
        """The properties of a new state."""
        host, number, _ = reached
        vcpu = self.vcpus[host]
        if event.moves_to is not None:
            put(vcpu, reached[2])
        if of_vcpu(vcpu) != self.fields[number]:
            self.violation("mechanism_refines_contract", before, event)
        for name in broken_by_register(vcpu, self.forced[number]):
            self.violation(name, before, event)

    def violation(self, name: str, node: Node, event: Event) -> None:
        """Note the first history that violates a property: breadth first, so a shortest one."""
        if name in self.found.violations:
            return
        steps = [event.step]
        start = node
        while (parent := self.parents[start]) is not None:
            start, earlier = parent
            steps.append(earlier.step)
        world = self.world
        self.found.violations[name] = History(
            name, world.specs[start[0]], world, tuple(reversed(steps))
        )


def worlds(bits: int, hosts: Iterable[HostSpec] | None = None, pairs: Iterable[Pair] | None = None) -> list[World]:
    """Every world over these bits: each pair with the hosts on which it is valid."""
    specs = tuple(HOSTS.values() if hosts is None else hosts)
    resolved = tuple(resolve_host(spec) for spec in specs)
    made = []
    for pair in all_pairs(bits) if pairs is None else pairs:
        valid = [index for index, host in enumerate(resolved) if pair == (0, 0) or can_force(host, *pair)]
        if valid:
            chosen = tuple(specs[index] for index in valid)
            made.append(World(chosen, tuple(resolved[index] for index in valid), pair, offered=3))
    return made


def all_pairs(bits: int) -> list[Pair]:
    """Every pair of userspace over these bits, and one that masks a reserved bit."""
    return [*pairs_of(bits), (RESERVED, 0)]


def few_pairs(bits: int) -> list[Pair]:
    """No pair; the lowest bit forced to 0; the highest forced to 1; both; a reserved bit masked."""
    low, high = bits & -bits, 1 << (bits.bit_length() - 1)
    return [(0, 0), (low, 0), (high, high), (low | high, high), (RESERVED, 0)]


def bits_of(names: Iterable[str]) -> int:
    """The bits of these names; ValueError for an unknown one."""
    bits = 0
    for name in names:
        if name not in BITS:
            raise ValueError(f"no bit is named {name!r}; known: {', '.join(BITS)}")
        bits |= BITS[name]
    return bits


def of_world(
    variant: Variant, world: World, bits: int, depth: int | None = None, wanted: frozenset[str] | None = None
) -> Search:
    """The search of one world of a variant, to a depth, until all that is wanted is found, or to the end.

    It has not run yet.

    Where the capability has a form for one vCPU, userspace can take a VM's pair back, and without one set a few.
    What the VMCS that is not loaded holds is forgotten if the variant always writes it anew.
    """
    vcpu_pairs: list[Pair] = []
    own = variant == SPEC  # not "is": another process has a copy
    if own:
        vcpu_pairs = few_pairs(bits)[:-1] if world.pair == (0, 0) else [(0, 0)]
    events = all_events(world, bits, vcpu_pairs)
    return Search(variant, world, events, wanted, depth, forgets=own)


def search(
    variant: Variant, world: World, bits: int, depth: int | None = None, progress: Progress | None = None
) -> Exploration:
    """Explore one world of a variant, to a depth or to the end."""
    return of_world(variant, world, bits, depth).run(progress)


Work = Callable[[Variant, World, int, int | None, Progress | None], Exploration]
"""What explores one world: :func:`search`, or its compiled form."""


def explore(
    variant: Variant,
    tasks: Sequence[World],
    bits: int,
    depth: int | None = None,
    progress: Progress | None = None,
    work: Work = search,
) -> Exploration:
    """Explore worlds of a variant, one after the other; ``progress`` is told of states and transitions."""
    total = Exploration()

    def told(states: int, transitions: int) -> None:
        if progress is not None:
            progress(total.states + states, total.transitions + transitions)

    for world in tasks:
        total.add(work(variant, world, bits, depth, told))
    return total


MANIFEST = Path(__file__).with_name("explored.json")
"""The figures of the explorations that were made for this version; tests make them again."""


def quick() -> tuple[int, list[World]]:
    """The bits and the worlds of the first exploration in the manifest, which each build repeats."""
    first = json.loads(MANIFEST.read_text("utf-8"))[0]
    bits = bits_of(first["bits"])
    return bits, worlds(bits, [HOSTS[name] for name in first["hosts"]], few_pairs(bits))
