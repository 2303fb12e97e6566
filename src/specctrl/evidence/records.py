"""All evidence of the specification, made by running it; what was run once is kept as long as nothing changes.

Each kind has a record of its own, named by a digest of everything that it depends on: examples and scenarios on all
sources, the proofs and the exploration on the rooms that they may import, so that an edit of prose does not repeat
them.  A record that is red is kept like any other, and stays red.
"""

import fcntl
import json
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from inspect import getsource
from pathlib import Path
from typing import Any

from specctrl.digest import CORE, PACKAGE, digest, digest_of
from specctrl.evidence.collect import Example, Shown, collect
from specctrl.evidence.page_runs import read_runs, run_all, run_all_docstrings
from specctrl.exploration.properties import PROPERTIES
from specctrl.processes import workers
from specctrl.rules import Rule, load_rules
from specctrl.scenario.writing import write_whole

SCHEMA = "specctrl/evidence/1"
Content = dict[str, Any]
"""What a record says, as JSON has it."""
Told = Callable[[str], None]


class RecordError(ValueError):
    """A record cannot be used, or evidence cannot be made; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that shows the rules."""

    rules: dict[str, Rule]
    shown: dict[str, Shown]
    proof: Content
    explored: Content

    def complaints(self) -> list[tuple[str, str]]:
        """What is wrong with it: for each complaint the rule that it is about, or "", and what it says."""
        return [
            *(("", said) for said in (*_unknown(self), *_red(self))),
            *((id, why) for id, rule in self.rules.items() if (why := lacks(rule, self.shown[id]))),
        ]

    def as_json(self) -> dict[str, Any]:
        """One JSON object: figures of the proofs and of the exploration, and what shows each rule."""
        rows = {id: asdict(shown) for id, shown in self.shown.items()}
        return {"schema": SCHEMA, "proof": self.proof, "explored": self.explored, "rules": rows}


def lacks(rule: Rule, shown: Shown) -> str:
    """What a rule with MUST or MUST NOT lacks; "" if an example or a scenario shows it."""
    if not rule.strength.startswith("MUST") or shown.examples or shown.scenarios:
        return ""
    said = f"nothing shows the rule {rule.id!r}"
    if shown.unmoved:
        said += f": no mutant of its code breaks {', '.join(shown.unmoved)}"
    return said + (f"; {', '.join(shown.idle)} execute none of its code" if shown.idle else "")


def _unknown(evidence: Evidence) -> list[str]:
    """Rules that a claim or a property names and no page states."""
    claims = {f"the claim {name}": entry["rules"] for name, entry in evidence.proof["claims"].items()}
    properties = {f"the property {name}": judged for name, judged in evidence.explored["properties"].items()}
    return [f"{where} names the rule {id!r}, which no page states"
            for where, ids in (claims | properties).items() for id in ids if id not in evidence.rules]


def _red(evidence: Evidence) -> list[str]:
    """Claims that are refuted, properties that are violated, counts that are not the stored ones."""
    proof, explored = evidence.proof, evidence.explored
    stored: Content = json.loads((PACKAGE / "proof" / "proofs.json").read_text("utf-8"))["claims"]
    wrong = [f"the claim {claim} is refuted: {', '.join(entry['refuted'])}"
             for claim, entry in proof["claims"].items() if entry["refuted"]]
    for claim in {**stored, **proof["claims"]}:
        now = {key: count for key, count in proof["claims"].get(claim, {}).items() if key in ("paths", "obligations")}
        if now != stored.get(claim):
            wrong.append(f"the claim {claim} has {now or 'no counts'}, in proofs.json {stored.get(claim, 'none')}")
    wrong += [f"the property {name} is violated after {steps} events" for name, steps in explored["violations"].items()]
    expected = json.loads((PACKAGE / "exploration" / "explored.json").read_text("utf-8"))[0]["found"]
    found = {key: explored[key] for key in expected}
    if found != expected:
        wrong.append(f"the exploration found {found}, in explored.json it is {expected}")
    return wrong


# ---- the records


def _python() -> str:
    return ".".join(platform.python_version_tuple()[:2])


def run_shown(root: Path) -> Content:
    """Run examples and scenarios, then judge them by mutants."""
    from specctrl.evidence.breaks import break_shown, noticed

    spec, vectors = root / "spec", root / "vectors"
    rules = load_rules(spec)
    found = collect(rules, spec, vectors, read_runs(obtain("pages", root, evidence_folder(root))))
    break_shown(rules, found, spec, vectors)
    for id, rule in rules.items():
        found[id].noticed = noticed(rule)
    return {id: asdict(shown) for id, shown in found.items()}


def key_of_shown(root: Path) -> str:
    """A cell may read and run anything of the project."""
    return digest_of([digest(root), _python()])


def run_proof(root: Path) -> Content:
    """Prove every claim; each says which rules it carries."""
    try:
        from specctrl.proof.claims import CLAIMS
        from specctrl.proof.prove import figures, prove_all
    except ModuleNotFoundError as missing:
        raise RecordError(f"the claims cannot be proven without {missing.name}; install specctrl[prove]") from None
    result = prove_all("spec")
    outcome = figures(result)
    for claim, entry in outcome["claims"].items():
        entry["rules"] = list(CLAIMS[claim].rules)
        entry["refuted"] = sorted({f"{one.step}: {one.part}" for one in result.refutations if one.claim == claim})
    return outcome


def key_of_proof(root: Path) -> str:
    """The prover and the rooms below it, and the solver."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        solver = version("z3-solver")
    except PackageNotFoundError:
        solver = "none"
    return digest_of([digest(PACKAGE, (*CORE, "proof")), getsource(run_proof), _python(), solver])


def run_explored(root: Path) -> Content:
    """Explore two bits to the end; then judge each property by mutants of the rules that it carries."""
    from specctrl.evidence.breaks import break_properties
    from specctrl.exploration.search import MANIFEST, explore, quick
    from specctrl.model.kvm.variant import SPEC

    bits, worlds = quick()
    found = explore(SPEC, worlds, bits)
    rules = load_rules(root / "spec")
    pairs = [(name, rules[id]) for name, shown in PROPERTIES.items() for id in shown.rules if id in rules]
    broken = {name: dict.fromkeys(shown.rules, "") for name, shown in PROPERTIES.items()}
    for (name, rule), mutant in zip(pairs, break_properties(pairs), strict=True):
        broken[name][rule.id] = mutant
    first = json.loads(MANIFEST.read_text("utf-8"))[0]
    return {"bits": first["bits"], "hosts": first["hosts"], **found.figures(), "properties": broken}


def key_of_explored(root: Path) -> str:
    """The explorer, the mutants and the rooms below them, and which code the rules bind."""
    rules = load_rules(root / "spec")
    bound = {id: rules[id].code for shown in PROPERTIES.values() for id in shown.rules if id in rules}
    return digest_of([digest(PACKAGE, (*CORE, "exploration", "evidence")), repr(sorted(bound.items())), _python()])


def run_prompts(root: Path) -> Content:
    """Run the prompts of all docstrings."""
    return {"failures": run_all_docstrings("specctrl")}


RECORDS: dict[str, tuple[Callable[[Path], str], Callable[[Path], Content]]] = {
    "pages": (key_of_shown, run_all),
    "docstrings": (key_of_shown, run_prompts),
    "shown": (key_of_shown, run_shown),
    "proof": (key_of_proof, run_proof),
    "explored": (key_of_explored, run_explored),
}
"""For each record: what it depends on, as a digest, and how it is made."""


# ---- keeping them


def read_record(file: Path, kind: str, key: str) -> Content | None:
    """A record that is kept; RecordError if the file is not the record that its name says."""
    if not file.is_file():
        return None
    try:
        record = json.loads(file.read_text("utf-8"))
        said = (record["kind"], record["key"])
        outcome: Content = record["outcome"]
    except (ValueError, KeyError, TypeError) as error:
        raise RecordError(f"{file} is no record of evidence ({error!r}); delete it") from None
    if said != (kind, key):
        raise RecordError(f"{file} is stale: it is of {' '.join(map(str, said))}, not of {kind} {key}; delete it")
    return outcome


def write_file(file: Path, content: Any) -> None:
    """Write JSON so that a reader sees all of it or none."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, json.dumps(content, indent=1) + "\n")


@contextmanager
def _alone(kind: str, folder: Path) -> Iterator[None]:
    """Wait while another process makes evidence of this kind there: it need not be made twice."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f".{kind}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def obtain(kind: str, root: Path, folder: Path | None, told: Told = lambda _: None) -> Content:
    """A record that is kept in ``folder``, or made now, which ``told`` hears of."""
    key_of, run = RECORDS[kind]
    if folder is None:
        told(f"evidence of kind {kind!r} is made now")
        return _made(run, root)
    key = key_of(root)
    file = folder / f"{kind}-{key}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        told(f"evidence of kind {kind!r} is made now, and cannot be kept in {folder}: {error.strerror}")
        return _made(run, root)
    with _alone(kind, folder):
        kept = read_record(file, kind, key)
        if kept is not None:
            return kept
        told(f"no record of kind {kind!r} is of these sources: it is made now")
        began = time.monotonic()
        outcome = _made(run, root)
        try:
            write_file(file, {"kind": kind, "key": key, "outcome": outcome})
            times = folder / "times.json"  # beside the evidence: no page shows a time
            known = json.loads(times.read_text("utf-8")) if times.is_file() else {}
            write_file(times, {**known, kind: round(time.monotonic() - began, 1)})
        except OSError as error:
            told(f"it cannot be kept in {folder}: {error.strerror}")
        return outcome


def _made(run: Callable[[Path], Content], root: Path) -> Content:
    """What a process of its own makes: a small one, that others can be copied from."""
    with workers(1, "spawn") as pool:
        return pool.submit(run, root).result()


def evidence_folder(root: Path) -> Path | None:
    """Where a checkout keeps its evidence; an installed package keeps none."""
    return root / "_build" / "evidence" if (root / "pyproject.toml").is_file() else None


def gather(root: Path, folder: Path | None, told: Told = lambda _: None) -> Evidence:
    """All evidence: what is kept for the present sources, and the rest run now.

    EvidenceError if an example or a scenario fails, RecordError if a record cannot be used.
    """
    rules = load_rules(root / "spec")
    kept = {kind: obtain(kind, root, folder, told) for kind in ("shown", "proof", "explored")}
    shown = {id: _shown(row) for id, row in kept["shown"].items()}
    for id, one in shown.items():
        one.claims = [claim for claim, entry in kept["proof"]["claims"].items() if id in entry["rules"]]
        _take_properties(id, one, kept["explored"]["properties"])
    evidence = Evidence(rules, shown, kept["proof"], kept["explored"])
    if folder is not None:
        with suppress(OSError):  # which was said of each record
            write_file(folder / f"{digest(root)}.json", evidence.as_json())
    return evidence


def _take_properties(id: str, shown: Shown, judged: dict[str, dict[str, str]]) -> None:
    for name, broken_by in judged.items():
        if mutant := broken_by.get(id):
            shown.properties.append(name)
            shown.broken_by[name] = mutant
        elif id in broken_by:
            shown.unmoved.append(name)


def _shown(row: Content) -> Shown:
    return Shown(**{**row, "examples": [Example(**one) for one in row["examples"]]})


__all__ = ["Evidence", "RecordError", "evidence_folder", "gather", "lacks", "obtain"]
