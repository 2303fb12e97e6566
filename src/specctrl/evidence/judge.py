"""The judge of the evidence: a mutant is planted in the code that a rule binds, and the evidence must break.

What names a rule and executes its code may still look elsewhere.  So each example, scenario and explored property
is run again on mutants of that code until one breaks it, in processes of their own; what none breaks does not count.
"""

import contextlib
import importlib
import io
import json
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

from specctrl.evidence.collect import EvidenceError, Shown, bound_code, own_scenarios
from specctrl.evidence.mutants import Mutant, all_mutants
from specctrl.evidence.run_pages import run_page
from specctrl.exploration.search import HOSTS, MANIFEST, bits_of, few_pairs, search, worlds
from specctrl.model.kvm.variant import SPEC
from specctrl.rules import Rule
from specctrl.scenario.running import PASS, EmulatorTarget, run_one

DEPTH = 3
"""Events in the histories that are explored on a mutant: this many at most."""
SECONDS = 20
"""So much processor time may one piece of evidence take on a mutant; one that does not end has noticed it."""
TABLE = Path(__file__).with_name("mutants.json")
"""What noticed each mutant first, when all were planted: which of them to try first on an exploration."""


# ---- planting, in a process that is thrown away


def function_of(mutant: Mutant) -> FunctionType | None:
    """The function that a mutant changes; None if it changes a class's default.

    >>> from specctrl.evidence.mutants import mutants_of
    >>> sorted({function_of(mutant).__name__ for mutant in mutants_of("words")})
    ['is_subset', 'merge', 'newly_set', 'overlay']
    """
    found: Any = importlib.import_module(f"specctrl.model.{mutant.module}")
    for name in mutant.key.split(":")[1].split("."):
        found = vars(found)[name] if isinstance(found, type | ModuleType) else found
        found = found.fget if isinstance(found, property) else getattr(found, "__func__", found)
        found = getattr(found, "__wrapped__", found)
        if isinstance(found, FunctionType):
            return found
    return None


def changed_code(mutant: Mutant, function: FunctionType) -> CodeType:
    """The code of a function in a mutant's text."""
    inside: list[object] = [compile(mutant.text, function.__code__.co_filename, "exec", dont_inherit=True)]
    while inside:
        code = inside.pop()
        if isinstance(code, CodeType):
            if code.co_qualname == function.__code__.co_qualname:
                return code
            inside += code.co_consts
    raise LookupError(f"{mutant.key}: its text has no {function.__qualname__}")


@cache
def plantable() -> dict[str, tuple[Mutant, FunctionType]]:
    """Every mutant that changes a function, by its key, with that function."""
    found = {key: (mutant, function_of(mutant)) for key, mutant in all_mutants().items()}
    return {key: (mutant, function) for key, (mutant, function) in found.items() if function is not None}


def mutants_of_rule(rule: Rule) -> list[str]:
    """The mutants of the code that a rule binds."""
    bound = bound_code(rule)
    return [key for key, (_, function) in plantable().items() if function.__code__ in bound]


def on_mutant(key: str | None, ask: Callable[[], Any]) -> Any:
    """What ``ask`` answers in a copy of this process with a mutant planted; None if it does not get that far."""
    code, function = None, None
    if key is not None:
        mutant, function = plantable()[key]
        code = changed_code(mutant, function)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            signal.signal(signal.SIGPROF, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_PROF, SECONDS)  # the process's own time: another's load changes nothing
            if function is not None and code is not None:
                function.__code__ = code
            with contextlib.redirect_stdout(io.StringIO()):
                os.write(writing, json.dumps(ask()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return json.loads(said) if said else None


# ---- examples


def judge_page(page: Path, wanted: dict[str, list[Rule]]) -> dict[tuple[str, str], str]:
    """For each cell of a page that shows rules, by its place: a mutant of each rule's code that breaks it, or ""."""
    found: dict[tuple[str, str], str] = {}

    def before(_: list[str], place: str, code: CodeType, names: dict[str, Any]) -> None:
        @cache
        def holds(mutant: str | None) -> bool:
            return on_mutant(mutant, partial(runs, code, names)) is True

        if place in wanted and not holds(None):
            raise EvidenceError(f"{place}: the cell fails in a process of its own")
        for rule in wanted.get(place, ()):
            found[rule.id, place] = next((key for key in mutants_of_rule(rule) if not holds(key)), "")

    run_page(page, before)
    return found


def runs(code: CodeType, names: dict[str, Any]) -> bool:
    """Run a cell; an exception ends the process."""
    exec(code, names)
    return True


# ---- scenarios


@cache
def scenarios_by_id(vectors: Path | None) -> dict[str, Any]:
    """The scenarios of profile ``spec``."""
    return {scenario.id: scenario for scenario in own_scenarios(vectors)}


def broken_scenarios(key: str, names: Sequence[str], vectors: Path | None) -> list[str]:
    """Those of some scenarios that do not pass on a mutant."""

    def broken(asked: Sequence[str]) -> list[str]:
        scenarios = scenarios_by_id(vectors)
        return [name for name in asked if not passes(scenarios[name])]

    said = on_mutant(key, partial(broken, names))
    if said is None:  # one does not end: which?
        return [name for name in names if on_mutant(key, partial(broken, [name])) != []]
    return list(said)


def passes(scenario: Any) -> bool:
    """Whether a scenario passes; one that breaks the emulator does not."""
    try:
        return run_one(scenario, EmulatorTarget("spec")).status == PASS
    except Exception:
        return False


# ---- explored properties


@cache
def violated(key: str) -> frozenset[str]:
    """The properties that short histories of a mutant violate, in the quick exploration's worlds."""

    def explore() -> list[str]:
        quick = json.loads(MANIFEST.read_text("utf-8"))[0]
        bits = bits_of(quick["bits"])
        made = worlds(bits, [HOSTS[name] for name in quick["hosts"]], few_pairs(bits))
        return [name for world in made for name in search(SPEC, world, bits, DEPTH).violations]

    return frozenset(on_mutant(key, explore) or ())


def judge_property(name: str, rule: Rule) -> str:
    """A mutant of a rule's code on which the property is violated, or ""."""
    table = json.loads(TABLE.read_text("utf-8"))["mutants"]
    noticed = [key for key in mutants_of_rule(rule) if table.get(key, {}).get("exploration")]
    likely = sorted(noticed, key=lambda key: table[key]["exploration"] != name)
    return next((key for key in likely if name in violated(key)), "")


# ---- everything


def judges(jobs: int) -> ProcessPoolExecutor:
    """Processes that plant mutants; copies of this one, which has made the mutants by then."""
    plantable()
    return ProcessPoolExecutor(jobs, get_context("fork"))


def judge_shown(
    rules: dict[str, Rule], found: dict[str, Shown], spec: Path, vectors: Path, jobs: int = 2
) -> None:
    """Note for each example and scenario what breaks it; what no mutant breaks moves to ``unmoved``.

    Where the code of a rule has no mutant, what executes it counts.
    """
    mutants = {id: keys for id, rule in rules.items() if (keys := mutants_of_rule(rule))}
    pages: dict[str, dict[str, list[Rule]]] = {}
    asked: dict[str, set[str]] = {}
    for id, keys in mutants.items():
        for example in found[id].examples:
            pages.setdefault(example.page, {}).setdefault(example.place, []).append(rules[id])
        for key in keys:
            asked.setdefault(key, set()).update(found[id].scenarios)
    scenarios_by_id(vectors)
    with judges(jobs) as pool:
        cells = [pool.submit(judge_page, spec / Path(page).name, wanted) for page, wanted in pages.items()]
        runs = pool.map(broken_scenarios, asked, map(sorted, asked.values()), repeat(vectors), chunksize=16)
        breaks = dict(zip(asked, map(frozenset, runs), strict=True))
        broken = {item: mutant for one in cells for item, mutant in one.result().items()}
    for id, keys in mutants.items():
        judged = {example.place: broken[id, example.place] for example in found[id].examples}
        judged |= {name: next((key for key in keys if name in breaks[key]), "") for name in found[id].scenarios}
        note_judgement(found[id], judged)


def note_judgement(shown: Shown, broken: dict[str, str]) -> None:
    """Keep of a rule's examples and scenarios those that some mutant breaks."""
    shown.unmoved += [place for place, mutant in broken.items() if not mutant]
    shown.broken_by |= {place: mutant for place, mutant in broken.items() if mutant}
    shown.examples = [example for example in shown.examples if example.place not in shown.unmoved]
    shown.scenarios = [name for name in shown.scenarios if name not in shown.unmoved]


def judge_properties(pairs: Sequence[tuple[str, Rule]], jobs: int = 2) -> Iterator[str]:
    """For each pair of a property and a rule: a mutant of the rule's code that violates the property, or ""."""
    with judges(jobs) as pool:
        yield from pool.map(judge_property, [name for name, _ in pairs], [rule for _, rule in pairs])


def noticed(rule: Rule) -> dict[str, int]:
    """How many mutants a rule's code has, and how many of them each kind of evidence notices, by the stored table."""
    table = json.loads(TABLE.read_text("utf-8"))["mutants"]
    of_code = [table[key] for key in mutants_of_rule(rule) if key in table]
    counts = Counter(kind for said in of_code for kind in said if said[kind])
    return {"mutants": len(of_code), **{kind: counts[kind] for kind in ("vectors", "pages", "exploration", "tests")}}
