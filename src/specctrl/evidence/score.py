"""How many mutants of each level's rule code the published scenarios notice, of those that any evidence notices.

A function is of the lowest level of a scenario that executes it; one that none executes is of no level.
"""

from collections.abc import Iterable
from typing import Any

from specctrl.evidence.collect import own_scenarios
from specctrl.evidence.mutants import Mutant, all_mutants
from specctrl.evidence.notices import EVERY, REST
from specctrl.evidence.planted import function_of, functions
from specctrl.evidence.run_pages import calls
from specctrl.scenario import EmulatorTarget, run_one
from specctrl.scenario.levels import ORDER, level

SCENARIOS = ("vectors", "generated")
"""The kinds of evidence that are published scenarios."""

KINDS = {
    "equivalent": "the same program in other words",
    "spared": "the same outcome by another way: an exit, a WRMSR or a merge more or less",
    "inside": "it changes only what nobody sees from outside the hypervisor, or the format does not name",
    "unreached": "no history reaches it: the code is there for other callers",
}
"""Why no scenario can notice a mutant, by the word that a reason begins with."""


def place(key: str) -> str:
    """The module and function of a mutant's key.

    >>> place("words:merge:swap-bits:1")
    'words:merge'
    """
    return key.rsplit(":", 2)[0]


def reached() -> dict[str, str]:
    """The level of each function that has mutants, as far as a scenario executes it; takes some seconds."""
    of_code: dict[Any, str] = {}
    for scenario in sorted(own_scenarios(), key=lambda each: ORDER.index(level(each))):
        with calls() as called:
            run_one(scenario, EmulatorTarget("spec"))
        for code in called - of_code.keys():
            of_code[code] = level(scenario)
    return {place(key): of_code[function.__code__] for key, function in functions().items()
            if function.__code__ in of_code}


def levels_of(mutants: Iterable[Mutant], known: dict[str, str]) -> dict[str, str]:
    """The level of each mutant that has one.

    A record's field is of the lowest level of the record's methods; one without, and a constant, of its module's.
    """
    found: dict[str, str] = {}
    for mutant in mutants:
        where = place(mutant.key)
        if where not in known and function_of(mutant) is None:
            own = any(place(key).startswith(f"{where}.") for key in functions())
            near = f"{where}." if own else f"{mutant.module}:"
            where = min((level for name, level in known.items() if name.startswith(near)), key=ORDER.index, default="")
            found |= {mutant.key: where} if where else {}
        elif where in known:
            found[mutant.key] = known[where]
    return found


def unseen(table: dict[str, Any]) -> list[str]:
    """The mutants that need a reason: those of a level that no scenario notices, and those that nothing notices."""
    levels = levels_of(all_mutants().values(), table["reached"])
    return [key for key, said in table["mutants"].items()
            if not any(said.values()) or (key in levels and not any(said[kind] for kind in SCENARIOS))]


def score(table: dict[str, Any]) -> dict[str, dict[str, int]]:
    """By level: mutants, those that anything notices, those that a scenario notices, and those that none can notice.

    What nothing notices is not counted among those that no scenario can.
    """
    levels = levels_of(all_mutants().values(), table["reached"])
    found = {level: dict.fromkeys(("mutants", "noticed", "scenarios", "unseen"), 0) for level in ORDER}
    for key, said in table["mutants"].items():
        if key in levels:
            row = found[levels[key]]
            row["mutants"] += 1
            row["noticed"] += any(said[kind] for kind in (*EVERY, *REST) if kind in said)
            row["scenarios"] += any(said[kind] for kind in SCENARIOS)
            row["unseen"] += any(said.values()) and not any(said[kind] for kind in SCENARIOS)
    return found
