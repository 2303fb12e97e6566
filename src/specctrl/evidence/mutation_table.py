"""The table of mutants: each is planted, and each kind of evidence is asked whether it notices.

That is the scenarios, the pages, the exploration, and the theorems that are linked to the changed function.  The
stored table has what each noticed.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from specctrl.evidence.links import theorems_of
from specctrl.evidence.mutants import TABLE, all_mutants, spread, stored
from specctrl.evidence.notices import EVERY, REST, files, scenarios
from specctrl.evidence.planted import functions, on_mutant, on_mutants, planters
from specctrl.evidence.score import SCENARIOS, levels_of, reached, unseen
from specctrl.model.kvm.variant import SPEC
from specctrl.proof.prove import prove
from specctrl.proof.theorems import THEOREMS
from specctrl.scenario.writing import write_whole
from specctrl.shards import Told, Workers, carry_out, untold

LIMIT = 60
"""So many seconds of processor time may each kind of evidence take; one that does not end has noticed the mutant."""


LONG_FOR_ONE = 1
"""So many seconds does no scenario take by itself."""


def _told(key: str | None, ask: Callable[[], Any], seconds: float) -> Any:
    def answer() -> list[Any]:
        try:
            return [ask()]
        except Exception as error:
            return [f"stops: {type(error).__name__}"]

    said = on_mutant(key, answer, seconds)
    return "does not end" if said is None else said[0]


def noticed(key: str | None, kind: str) -> Any:
    """What of this kind of evidence notices a mutant, or fails without one; None if nothing does."""
    return _told(key, lambda: import_module("specctrl.evidence.notices").first_failure(kind), LIMIT)


def noticed_by(key: str | None) -> dict[str, Any]:
    """What notices a mutant, for each kind of evidence."""
    said = {kind: noticed(key, kind) for kind in EVERY}
    return said if any(said.values()) else said | {kind: noticed(key, kind) for kind in REST}


def noticed_by_scenarios(key: str | None) -> dict[str, Any]:
    """What notices a mutant, for the kinds of scenarios alone."""
    return {kind: noticed(key, kind) for kind in SCENARIOS}


def refuted(theorems: Iterable[str]) -> str | None:
    """The first of these theorems that does not hold of the code as it is; None if all hold."""
    return next((name for name in theorems if prove(SPEC, name).refuted()), None)


def refuted_by(key: str, theorems: list[str]) -> Any:
    """The first of these theorems that a mutant makes false."""
    return _told(key, partial(refuted, theorems), 2 * LIMIT)


class NotGreen(Exception):
    """Evidence fails of the code as it is, so it would notice every mutant; the message names it."""


def plant_all(
    keys: Iterable[str], workers: Workers | None = None, kept: Path | None = None, told: Told = untold,
    ask: Callable[[str | None], dict[str, Any]] | None = None,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Plant mutants, each a shard; yields key and what noticed it, in order.  What is kept stays: the table needs more.

    NotGreen if some evidence fails without a mutant.
    """
    keys, ask = list(keys), ask or noticed_by
    scenarios()
    planting = planters(workers)
    (unchanged,) = carry_out(ask, [None], planting)
    red = {kind: said for kind, said in unchanged.items() if said}
    if red:
        raise NotGreen(", ".join(f"{kind}: {said}" for kind, said in red.items()))
    yield from zip(keys, carry_out(ask, keys, planting, kept, told, forget=False), strict=True)


def refute(
    keys: Iterable[str], workers: Workers | None = None, kept: Path | None = None, told: Told = untold
) -> Iterator[tuple[str, str | None]]:
    """For each of these mutants that a theorem is linked to: the first such theorem that it makes false."""
    linked = [key for key in keys if key in theorems_of()]
    made = carry_out(refuted_by_linked, linked, planters(workers), kept, told, forget=False)
    yield from zip(linked, made, strict=True)


def refuted_by_linked(key: str) -> Any:
    """The first of the theorems that are linked to a mutant's function that it makes false."""
    return refuted_by(key, theorems_of()[key])


def one_of_each(proofs: dict[str, str | None], known: dict[str, str]) -> dict[str, str]:
    """For each theorem a mutant that it refutes; one that met none first is shown alone to those it is linked to."""
    caught = {claim: key for key, claim in reversed(proofs.items()) if claim in THEOREMS} | known
    for name in THEOREMS.keys() - caught.keys():
        linked = (key for key, names in theorems_of().items() if name in names)
        caught[name] = next((key for key in linked if refuted_by(key, [name]) == name), "")
    return {name: caught[name] for name in THEOREMS}


# ---- what is stored, asked again


def outdated(table: dict[str, Any], workers: Workers | None = None) -> list[str]:
    """The mutants that the scenarios which the table names for them do not notice any more."""
    files(), scenarios()
    asked = [(key, said[kind]) for key, said in table["mutants"].items() for kind in SCENARIOS if said.get(kind)]
    made = carry_out(still_noticed_by, asked, planters(workers))
    return sorted({key for (key, _), noticed in zip(asked, made, strict=True) if not noticed})


def still_noticed_by(named: tuple[str, str]) -> bool:
    """Whether a mutant is noticed by a scenario; one that does not end, or breaks the code, is."""
    key, scenario = named
    said = on_mutant(key, lambda: import_module("specctrl.evidence.notices").fails(scenario), LONG_FOR_ONE)
    return said is not False


# ---- two at once

PAIRS = 120
"""Pairs of mutants that are planted together: a sample."""


def pairs_of(table: dict[str, Any]) -> list[tuple[str, str]]:
    """The pairs that are planted: each mutant is of a level and noticed by a scenario when it is alone.

    Evenly spread over the table; the two are of different functions.
    """
    levels = levels_of(all_mutants().values(), table["reached"])
    fit = [key for key, said in table["mutants"].items()
           if key in levels and key in functions() and any(said[kind] for kind in SCENARIOS)]
    chosen = spread(fit, 2 * PAIRS)
    half = len(chosen) // 2
    # the second half in another order, so that the two are of any two modules
    return [(first, chosen[half + 7 * at % half]) for at, first in enumerate(chosen[:half])
            if functions()[first] is not functions()[chosen[half + 7 * at % half]]]


def pair_noticed_by(pair: tuple[str, str]) -> Any:
    """A scenario that notices two mutants planted together; None if all pass."""

    def ask() -> str | None:
        first: str | None = import_module("specctrl.evidence.notices").first_scenario()
        return first

    said = on_mutants([all_mutants()[key] for key in pair], lambda: [ask()], LIMIT)
    return "does not end, or stops" if said is None else said[0]


# ---- the stored table


def store(found: dict[str, Any], proofs: dict[str, Any], theorems: dict[str, str]) -> None:
    """Store the results of a full run; what was written about those that no scenario notices again is kept.

    The pairs are planted anew.
    """
    before = stored() if TABLE.is_file() else {}
    table = {"mutants": found, "proofs": proofs, "theorems": theorems, "reached": reached()}
    table["unseen"] = {key: before.get("unseen", {}).get(key, "") for key in unseen(table)}
    table["pairs"] = {" + ".join(pair): pair_noticed_by(pair) for pair in pairs_of(table)}
    write(table)


def write(table: dict[str, Any]) -> None:
    """Write the table, one line for each entry."""
    parts = []
    for name, entries in table.items():
        lines = ",\n".join(f"  {json.dumps(key)}: {json.dumps(entry)}" for key, entry in entries.items())
        parts.append(f" {json.dumps(name)}: {{\n{lines}\n }}")
    write_whole(TABLE, "{\n" + ",\n".join(parts) + "\n}\n")


def without(table: dict[str, Any], keys: Iterable[str], mutants: Iterable[str]) -> dict[str, Any]:
    """The table without the results of these mutants, and of those that are no mutants of the code any more."""
    kept, linked = set(mutants) - set(keys), theorems_of()
    return {
        "mutants": {key: said for key, said in table["mutants"].items() if key in kept},
        "proofs": {key: claim for key, claim in table["proofs"].items() if key in kept & linked.keys()},
        "theorems": {name: key for name, key in table["theorems"].items()
                     if key in kept and name in linked.get(key, ())},
    }


def survivors(found: dict[str, Any]) -> list[str]:
    """The mutants that nothing noticed."""
    return [key for key, said in found.items() if not any(said.values())]


def complaints(table: dict[str, Any], keys: Iterable[str]) -> list[str]:
    """What is wrong with a table: mutants that it lacks or has too many, survivors without an explanation."""
    keys = list(keys)
    known, now = set(table["mutants"]), set(keys)
    linked = {key for key in keys if key in theorems_of()}
    hidden = set(unseen(table))
    return [
        *(f"{key}: not in the table; run specctrl mutants --all" for key in sorted(now - known)),
        *(f"{key}: in the table, but no mutant of the code" for key in sorted(known - now)),
        *(f"{key}: noticed by no scenario, without an explanation"
          for key in sorted(hidden) if not table["unseen"].get(key)),
        *(f"{key}: explained, but noticed by a scenario" for key in sorted(set(table["unseen"]) - hidden)),
        *(f"{pair}: two that no scenario notices together" for pair, said in table["pairs"].items() if not said),
        *(f"{key}: shown to theorems, but none is linked to the function"
          for key in sorted(set(table["proofs"]) - linked)),
        *(f"{key}: not shown to the theorems; run specctrl mutants --proofs"
          for key in sorted(linked - set(table["proofs"]))),
        *(f"{name}: refutes no mutant" for name, key in table["theorems"].items() if key not in now),
    ]


def figures(table: dict[str, Any], module: str | None = None) -> dict[str, int]:
    """How many mutants there are, of one module or of all, and how many each kind of evidence noticed."""
    chosen = {key: said for key, said in table["mutants"].items() if module in (None, key.split(":")[0])}
    counts = Counter(kind for said in chosen.values() for kind in said if said[kind])
    return {"mutants": len(chosen), **{kind: counts[kind] for kind in (*EVERY, *REST)},
            "survivors": len(survivors(chosen))}
