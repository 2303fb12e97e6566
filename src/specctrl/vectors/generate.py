"""All generated scenarios: of each transition class that an exploration reaches, and of each field of the register."""

from collections.abc import Iterable, Iterator, Sequence
from types import CodeType

from specctrl.evidence.collect import bound_code
from specctrl.evidence.run_pages import calls
from specctrl.rules import load_rules
from specctrl.scenario import EmulatorTarget, Scenario, load
from specctrl.scenario.format import SCHEMA
from specctrl.scenario.kinds import Json
from specctrl.scenario.published import PREFIX, digits
from specctrl.vectors.expectations import class_of_last, classes_of, dress, with_own_bit
from specctrl.vectors.register_fields import of_fields
from specctrl.vectors.shortest import Carried, shortest
from specctrl.vectors.titles import reason, title
from specctrl.vectors.transition_classes import Class

RULES = 3
"""Rules that a generated scenario names at most."""

COMMON = frozenset(["create_vcpu", "observe", "rdmsr", "wrmsr", "get_msrs", "set_msrs"])
"""Operations that say nothing of what a scenario is about."""

CLOSE = 0.5
"""How close a rule must be to be named beside a closer one."""


def named(words: Sequence[str], why: str, origin: str, body: dict[str, Json]) -> dict[str, Json]:
    """A generated scenario: the words of its class, and digits of its content, are its id."""
    document: dict[str, Json] = {
        "schema": SCHEMA, "id": "", "title": title(words), "why": why, "rules": [], "profile": "spec",
        "x-generated": origin, **body,
    }
    document["id"] = ".".join([PREFIX, *words, digits(document)])
    return document


def of_classes(depth: int | None = None, carried: Carried = map) -> Iterator[dict[str, Json]]:
    """One scenario of each transition class that an exploration reaches within so many events."""
    for words, found in shortest(depth, carried).items():
        steps = with_own_bit(found.host, found.setup, found.steps)
        yield named(words, reason(words), "exploration", dress(found.host, found.setup, steps))


# ---- which rules

def name_rules(documents: Sequence[dict[str, Json]], written: Iterable[Scenario]) -> None:
    """Give each scenario the closest of the rules whose code its last event executes.

    A rule is close if those scenarios that somebody wrote for it do the same kind of thing; one whose scenarios
    all have an operation that this one has not is none of its rules.
    """
    rules = load_rules()
    bound = {id: bound_code(rule) for id, rule in rules.items()}
    meant: dict[str, list[set[Class]]] = {id: [] for id in rules}
    needs: dict[str, set[str]] = {}
    for scenario in written:
        does = {words for words in classes_of(scenario.host, [step.source for step in scenario.steps]) if words}
        for id in scenario.rules:
            meant[id].append(does)
            ops = {step.op for step in scenario.steps}
            needs[id] = needs.get(id, ops - COMMON) & ops
    for document in documents:
        words = class_of_last(document["host"], document["steps"])
        assert words is not None, document["id"]
        called = called_by_last(load(document))
        ops = {step["op"] for step in document["steps"]}
        executed = [id for id, own in bound.items() if own & called]
        fitting = [id for id in executed if needs.get(id, set()) <= ops]
        near = {id: closeness(words, meant[id]) for id in fitting or executed}
        best = sorted(near, key=lambda id: (-near[id], id))
        document["rules"] = [id for id in best if near[id] >= CLOSE or id == best[0]][:RULES]


def closeness(words: Class, scenarios: Sequence[set[Class]]) -> float:
    """How like these words the nearest step of each of these scenarios is, on average; from 0 to 1.

    >>> closeness(("smi", "level-1", "free"), [{("smi", "level-2", "free")}, {("rsm", "smm", "free")}])
    0.3
    """
    nearest = [max((_alike(words, other) for other in does), default=0.0) for does in scenarios]
    return sum(nearest) / len(nearest) if nearest else 0.0


def _alike(words: Class, other: Class) -> float:
    """Words of another event are nothing alike."""
    if words[0] != other[0]:
        return 0.0
    return (1 + len({*words} & {*other})) / (1 + len({*words} | {*other}))


def called_by_last(scenario: Scenario) -> set[CodeType]:
    """The functions that the emulator calls to perform the last step that is no ``observe``."""
    target = EmulatorTarget("spec")
    target.begin(scenario.host, "spec", {})
    steps = [step for step in scenario.steps if step.op != "observe"]
    for step in steps[:-1]:
        target.step(step)
    with calls() as called:
        target.step(steps[-1])
    return called


def generate(written: Sequence[Scenario], carried: Carried = map) -> list[dict[str, Json]]:
    """Every generated scenario; ``written`` are those written by hand, ``carried`` explores the worlds."""
    documents = list(of_classes(carried=carried))
    known = [scenario for scenario in written if scenario.profile == "spec" and not scenario.assume]
    name_rules(documents, known)
    return [*documents, *of_fields()]  # last: what the others are does not depend on them
