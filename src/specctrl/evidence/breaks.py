"""Which mutant breaks each piece of evidence: planted in the code that a rule binds, it must break what shows the rule.

What names a rule and executes its code may still look elsewhere.  So each example, scenario and explored property
is run again on mutants of that code until one breaks it; what none breaks does not count.
"""

import signal
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from specctrl.evidence.collect import EvidenceError, Shown, bound_code, own_scenarios
from specctrl.evidence.mutants import stored
from specctrl.evidence.planted import functions, on_mutant, planters
from specctrl.evidence.run_pages import calls, name_of, run_page
from specctrl.exploration.search import of_world, quick
from specctrl.model.kvm.variant import SPEC
from specctrl.rules import Rule
from specctrl.scenario.running import PASS, EmulatorTarget, run_one
from specctrl.shards import Workers

DEPTH = 3
"""Events in the histories that are explored on a mutant: this many at most."""
SECONDS = 0.5
"""So much of its own time may a scenario take on a mutant, which is a hundred times what it takes."""


def mutants_of_rule(rule: Rule) -> list[str]:
    """The mutants of the code that a rule binds."""
    bound = bound_code(rule)
    return [key for key, function in functions().items() if function.__code__ in bound]


def executed(keys: Sequence[str], called: Collection[str]) -> list[str]:
    """Those of some mutants whose function is called; no other can be noticed."""
    return [key for key in keys if name_of(functions()[key].__code__) in called]


# ---- examples


def break_cells(page: Path, wanted: dict[str, list[Rule]]) -> dict[tuple[str, str], str]:
    """For each cell of a page that shows rules, by its place: a mutant of each rule's code that breaks it, or ""."""
    found: dict[tuple[str, str], str] = {}

    def before(_: list[str], place: str, code: CodeType, names: dict[str, Any]) -> None:
        run = partial(called_in, code, names)

        @cache
        def holds(mutant: str) -> bool:
            return on_mutant(mutant, run) is not None

        if place not in wanted:
            return
        called = on_mutant(None, run)
        if called is None:
            raise EvidenceError(f"{place}: the cell fails in a process of its own")
        for rule in wanted[place]:
            keys = executed(mutants_of_rule(rule), called)
            found[rule.id, place] = next((key for key in keys if not holds(key)), "")

    run_page(page, before)
    return found


def called_in(code: CodeType, names: dict[str, Any]) -> list[str]:
    """Run a cell: the functions that it calls; an exception ends the process."""
    with calls() as called:
        exec(code, names)
    return sorted(map(name_of, called))


# ---- scenarios


@cache
def scenarios_by_id(vectors: Path | None) -> dict[str, Any]:
    """The scenarios of profile ``spec``."""
    return {scenario.id: scenario for scenario in own_scenarios(vectors)}


@cache
def called_by(name: str, vectors: Path | None) -> frozenset[str]:
    """The functions that a scenario calls."""
    with calls() as called:
        run_one(scenarios_by_id(vectors)[name], EmulatorTarget("spec"))
    return frozenset(map(name_of, called))


def break_scenarios(keys: Sequence[str], names: Sequence[str], vectors: Path | None) -> dict[str, str]:
    """For each of some scenarios: the first of the mutants on which it does not pass, or ""."""
    scenarios = scenarios_by_id(vectors)
    found = dict.fromkeys(names, "")
    for key in keys:
        left = [name for name in names if not found[name] and executed([key], called_by(name, vectors))]
        if left:
            found |= dict.fromkeys(_broken(key, [scenarios[name] for name in left]), key)
    return found


def _broken(key: str, scenarios: Sequence[Any]) -> list[str]:
    """Those of some scenarios that do not pass on a mutant, each in its time; all, if its process breaks."""
    def broken() -> list[str]:
        return [scenario.id for scenario in scenarios if not passes(scenario)]

    said = on_mutant(key, broken, len(scenarios) * SECONDS)
    return [scenario.id for scenario in scenarios] if said is None else list(said)


def passes(scenario: Any) -> bool:
    """Whether a scenario passes; one that breaks the emulator does not, nor one that does not end."""
    signal.signal(signal.SIGVTALRM, _late)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        return run_one(scenario, EmulatorTarget("spec")).status == PASS
    except Exception:
        return False
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def _late(signum: int, frame: FrameType | None) -> None:
    raise TimeoutError


# ---- explored properties


@cache
def violates(key: str, name: str) -> bool:
    """Whether short histories of a mutant violate a property, in the quick exploration's worlds."""

    def explore() -> bool:
        bits, worlds = quick()
        return any(name in of_world(SPEC, world, bits, DEPTH, frozenset({name})).run().violations for world in worlds)

    return on_mutant(key, explore) is True


def break_property(name: str, rule: Rule) -> str:
    """A mutant of a rule's code on which the property is violated, or ""."""
    table = stored()["mutants"]
    noticed = [key for key in mutants_of_rule(rule) if table.get(key, {}).get("exploration")]
    likely = sorted(noticed, key=lambda key: table[key]["exploration"] != name)
    return next((key for key in likely if violates(key, name)), "")


# ---- everything


def break_shown(
    rules: dict[str, Rule], found: dict[str, Shown], spec: Path, vectors: Path, jobs: int = 0
) -> None:
    """Note for each example and scenario what breaks it; what no mutant breaks moves to ``unmoved``.

    Where the code of a rule has no mutant, what executes it counts.
    """
    mutants = {id: keys for id, rule in rules.items() if (keys := mutants_of_rule(rule))}
    pages: dict[str, dict[str, list[Rule]]] = {}
    for id in mutants:
        for example in found[id].examples:
            pages.setdefault(example.page, {}).setdefault(example.place, []).append(rules[id])
    scenarios_by_id(vectors)
    with planters(Workers(jobs)).executor(len(pages) + len(mutants)) as pool:
        cells = [pool.submit(break_cells, spec / Path(page).name, wanted) for page, wanted in pages.items()]
        runs = [pool.submit(break_scenarios, keys, found[id].scenarios, vectors) for id, keys in mutants.items()]
        broken = {item: mutant for one in cells for item, mutant in one.result().items()}
        for id, run in zip(mutants, runs, strict=True):
            examples = {example.place: broken[id, example.place] for example in found[id].examples}
            keep_broken(found[id], examples | run.result())


def keep_broken(shown: Shown, broken: dict[str, str]) -> None:
    """Keep of a rule's examples and scenarios those that some mutant breaks."""
    shown.unmoved += [place for place, mutant in broken.items() if not mutant]
    shown.broken_by |= {place: mutant for place, mutant in broken.items() if mutant}
    shown.examples = [example for example in shown.examples if example.place not in shown.unmoved]
    shown.scenarios = [name for name in shown.scenarios if name not in shown.unmoved]


def break_properties(pairs: Sequence[tuple[str, Rule]], jobs: int = 0) -> Iterator[str]:
    """For each pair of a property and a rule: a mutant of the rule's code that violates the property, or ""."""
    with planters(Workers(jobs)).executor(len(pairs)) as pool:
        yield from pool.map(break_property, [name for name, _ in pairs], [rule for _, rule in pairs])


def noticed(rule: Rule) -> dict[str, int]:
    """How many mutants a rule's code has, and how many of them each kind of evidence notices, by the stored table."""
    table = stored()["mutants"]
    of_code = [table[key] for key in mutants_of_rule(rule) if key in table]
    counts = Counter(kind for said in of_code for kind in said if said[kind])
    return {"mutants": len(of_code), **{kind: counts[kind] for kind in ("vectors", "pages", "exploration", "tests")}}
