"""The shortest history to each transition class, by exhaustive exploration of the rule code."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from specctrl.exploration.events import Event, World, all_events
from specctrl.exploration.histories import History, spelt, spelt_host
from specctrl.exploration.search import DEFAULT_BITS, HOSTS, Node, Search, bits_of, few_pairs, worlds
from specctrl.exploration.snapshot import put
from specctrl.model.kvm.variant import SPEC
from specctrl.model.outcomes import Outcome
from specctrl.scenario.kinds import Json
from specctrl.scenario.observation import Observation, describe
from specctrl.vectors.transition_classes import Class, look, transition

BITS = bits_of(DEFAULT_BITS)
WALKED = ("sapphire-rapids", "sapphire-rapids without the control", "ice-lake-server")
"""The hosts that are explored, by their names in :data:`specctrl.exploration.search.HOSTS`."""


@dataclass(frozen=True, slots=True)
class Found:
    """A history that reaches a class with its last step, as a file writes it; the first ``setup`` steps prepare it."""

    host: Json
    setup: int
    steps: tuple[dict[str, Json], ...]


Key = tuple[int, bool]
"""What a history is compared by: its events, and whether the capability's form for one vCPU is in it."""
Best = dict[Class, tuple[Key, Found]]
Carried = Callable[[Callable[[tuple[World, int | None]], Best], Sequence[tuple[World, int | None]]], Iterable[Best]]
"""What carries out some work for each shard, in order: ``map``, or processes."""


def shortest(depth: int | None = None, carried: Carried = map) -> dict[Class, Found]:
    """The shortest history to each class, of all that have at most ``depth`` events; a pair of the VM is one.

    Of two equally short ones the one that comes first stays: without the capability's form for one vCPU if there is
    one, then in the order of the exploration.
    """
    best: Best = {}
    tasks = [(world, depth) for world in worlds(BITS, [HOSTS[name] for name in WALKED], few_pairs(BITS))]
    for made in carried(shortest_of, tasks):
        for found, (key, history) in made.items():
            if found not in best or key < best[found][0]:
                best[found] = key, history
    return {found: history for found, (_, history) in sorted(best.items(), key=lambda item: item[0])}


def shortest_of(task: tuple[World, int | None]) -> Best:
    """The same of one world."""
    world, depth = task
    best: dict[Class, tuple[Key, Node, Event]] = {}
    search = explored(world, depth)
    lengths: dict[Node, Key] = {}
    for node, parent in search.parents.items():
        if parent is None:
            lengths[node] = (int(world.pair != (0, 0)), False)
        else:
            before, proposed = lengths[parent[0]]
            lengths[node] = (before + 1, proposed or parent[1].op == "enable_cap")
        events, proposed = lengths[node]
        if depth is not None and events >= depth:
            continue
        for event, found in classes_from(search, node):
            key = (events + 1, proposed or event.op == "enable_cap")
            if found not in best or key < best[found][0]:
                best[found] = (key, node, event)
    return {found: (key, _found(search, node, event)) for found, (key, node, event) in best.items()}


def explored(world: World, depth: int | None) -> Search:
    """The exploration of one world, done."""
    vcpu_pairs = few_pairs(BITS)[:-1] if world.pair == (0, 0) else [(0, 0)]
    search = Search(SPEC, world, all_events(world, BITS, vcpu_pairs), depth=depth, forgets=True)
    found = search.run()
    assert not found.violations, found.violations
    return search


def classes_from(search: Search, node: Node) -> Iterator[tuple[Event, Class]]:
    """Every event that is possible in a state, and the class of what it does there."""
    host, number, state = node
    vcpu = search.vcpus[host]
    for event, _, then in search.moves_from(number):
        put(vcpu, state)
        before = look(vcpu)
        after = vcpu
        try:
            if event.moves_to is None:
                seen = _observation(event, event.perform(vcpu))
            else:
                refused, reached = search.move(vcpu, node, event, then)
                seen = Observation() if refused is None else Observation(refused=True)
                after = search.vcpus[reached[0]]
                put(after, reached[2])
        except Outcome as outcome:
            seen = describe(outcome)
        yield event, transition(event.step, seen, before, look(after))


def _observation(event: Event, seen: Any) -> Observation:
    """What a step showed, as far as a class asks."""
    if event.op == "set_msrs":
        return Observation(ret=seen)
    return Observation(ret=len(seen)) if event.op == "get_msrs" else Observation()


def _found(search: Search, node: Node, event: Event) -> Found:
    events = [event.step]
    while (parent := search.parents[node]) is not None:
        node, earlier = parent
        events.append(earlier.step)
    history = History("", search.world.specs[node[0]], search.world, tuple(reversed(events)))
    steps = tuple(spelt(step) for step in history.steps()[:-1])  # without the look at the end
    return Found(spelt_host(history.host), len(history.setup()), steps)
