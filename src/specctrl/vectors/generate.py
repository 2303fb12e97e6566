"""All generated scenarios: of each transition class, each rare kind of step, each mutant that is left, each field."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import CodeType

from specctrl.evidence.collect import bound_code, calls
from specctrl.evidence.mutants import OPERATORS, Mutant, all_mutants
from specctrl.evidence.twins import Twin
from specctrl.rules import load_rules
from specctrl.scenario import EmulatorTarget, Scenario, load
from specctrl.scenario.format import SCHEMA
from specctrl.scenario.kinds import Json
from specctrl.scenario.published import PREFIX, digits
from specctrl.vectors.expectations import ANYBODY, INSIDE, Class, class_of_last, classes_of, dress, with_own_bit
from specctrl.vectors.random_histories import History, minimised, random_history, scenario_of
from specctrl.vectors.register_fields import of_fields
from specctrl.vectors.shortest import shortest
from specctrl.vectors.titles import OUTCOMES, reason, title

SEEDS = 2000
"""Random histories that are tried."""

RULES = 3
"""Rules that a generated scenario names at most."""

COMMON = frozenset(["create_vcpu", "observe", "rdmsr", "wrmsr", "get_msrs", "set_msrs"])
"""Operations that say nothing of what a scenario is about."""

CLOSE = 0.5
"""How close a rule must be to be named beside a closer one."""

Progress = Callable[[str], None]


def named(words: Sequence[str], why: str, origin: str, body: dict[str, Json]) -> dict[str, Json]:
    """A generated scenario: the words of its class, and digits of its content, are its id."""
    document: dict[str, Json] = {
        "schema": SCHEMA, "id": "", "title": title(words), "why": why, "rules": [], "profile": "spec",
        "x-generated": origin, **body,
    }
    document["id"] = ".".join([PREFIX, *words, digits(document)])
    return document


def of_classes(depth: int | None = None) -> Iterator[dict[str, Json]]:
    """One scenario of each transition class that an exploration reaches within so many events."""
    for words, found in shortest(depth).items():
        steps = with_own_bit(found.host, found.setup, found.steps)
        yield named(words, reason(words), "exploration", dress(found.host, found.setup, steps, ANYBODY))


STRAYS = 600
"""Random histories that are looked through for kinds of steps."""

CONSTANT = re.compile("enumeration|offer|capabilities")
"""The MSRs that no guest can write: what happens to one of them happens to all."""

Coarse = tuple[str, str, str]


def coarse(words: Class) -> Coarse:
    """Event, place and outcome of a class: what random histories are looked through for."""
    return CONSTANT.sub("constant", words[0]), words[1], words[-1] if words[-1] in OUTCOMES else ""


def of_strays(known: Iterable[Scenario], histories: Sequence[History]) -> Iterator[dict[str, Json]]:
    """Scenarios of events, places and outcomes that no known scenario has, out of random histories."""
    covered = set()
    for scenario in known:
        source = [step.source for step in scenario.steps]
        covered |= {coarse(words) for words in classes_of(scenario.host, source) if words is not None}
    for host, setup, steps in histories:
        for length, found in enumerate(classes_of(host, steps), 1):
            if found is None or coarse(found) in covered:
                continue
            wanted = coarse(found)
            covered.add(wanted)

            def keeps(part: History, wanted: Coarse = wanted) -> bool:
                last = class_of_last(part[0], part[2]) if scenario_of(part, ()) is not None else None
                return last is not None and coarse(last) == wanted

            part = minimised((host, setup, steps[:length]), keeps)
            words = _class(part)
            yield named(words, reason(words), "random history", dress(*part, ANYBODY))


def _class(history: History) -> Class:
    """The words of a history that ends with a step of a class; of the last one that does, if it does not."""
    return [words for words in classes_of(history[0], history[2]) if words is not None][-1]


def of_mutants(
    known: Sequence[Scenario], histories: Sequence[History], mutants: Iterable[Mutant], progress: Progress
) -> Iterator[dict[str, Json]]:
    """A scenario for each mutant that no known scenario notices and a random history does.

    One that only names what anybody can see is taken if there is one.
    """
    tried = [(history, made) for history in histories if (made := scenario_of(history, INSIDE)) is not None]
    known = list(known)
    for mutant in mutants:
        progress(mutant.key)
        try:
            twin = Twin(mutant)
        except Exception:  # it cannot even be imported
            continue
        if any(twin.notices(scenario) for scenario in known):
            continue
        first = next((history for history, scenario in tried if twin.notices(scenario)), None)
        if first is None:
            continue

        def keeps(part: History, looks: Sequence[str], twin: Twin = twin) -> bool:
            scenario = scenario_of(part, looks)
            return scenario is not None and twin.notices(scenario)

        looks = ANYBODY if keeps(first, ANYBODY) else INSIDE
        part = minimised(first, lambda part, keeps=keeps, looks=looks: keeps(part, looks))  # type: ignore[misc]  # bound now
        words = _class(part)
        document = named(words, _without(mutant), f"random history, notices {mutant.key}", dress(*part, looks))
        known.append(load(document))
        yield document


def _without(mutant: Mutant) -> str:
    function = mutant.key.split(":")[1]
    change = OPERATORS[mutant.operator].split(",")[0].split(":")[0].replace("`", "")
    return f"no other scenario notices one change of {function}: {change}"


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
        words = _class((document["host"], 0, tuple(document["steps"])))
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


def generate(written: Sequence[Scenario], progress: Progress) -> list[dict[str, Json]]:
    """Every generated scenario; ``written`` are those written by hand."""
    progress("exploration")
    documents = list(of_classes())
    progress("random histories")
    histories = [random_history(seed) for seed in range(SEEDS)]
    known = [scenario for scenario in written if scenario.profile == "spec" and not scenario.assume]
    documents += of_strays([*known, *map(load, documents)], histories[:STRAYS])
    mutants = [mutant for mutant in all_mutants().values() if mutant.module != "contract"]
    documents += of_mutants([*known, *map(load, documents)], histories, mutants, progress)
    name_rules(documents, known)
    return [*documents, *of_fields()]  # last: what the others are does not depend on them
