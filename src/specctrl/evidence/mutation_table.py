"""Plants mutants of the rule code, and asks each kind of evidence whether it notices.

Each is planted alone in a copy of the project, where a process of its own runs the scenarios, the pages, the
exploration, and for those of functions that handle a word the proofs.  The stored table has what each noticed.
"""

import compileall
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from typing import Any

from specctrl.evidence.mutants import MODULES, PACKAGE, Mutant, source_of
from specctrl.evidence.touching import linked, of_words

NOT_RUN = ("c-reference", "claims", "defects", "mutants", "scenarios")
"""Pages that repeat proofs, explorations, this table or the scenarios, or need files beside the package."""
DEPTH = 4
"""Events in the histories that are explored: this many at most."""
TESTS = tuple(f"tests/model/test_{module.split('.')[-1]}.py" for module in MODULES)
"""The tests of the rule modules."""
LIMIT = 60
"""So many seconds of processor time may each kind of evidence take; one that does not end has noticed the mutant."""


class _NoEnd(BaseException):
    pass


class _Violated(BaseException):
    pass


def _vectors(kind: str = "hand") -> Any:
    from specctrl.scenario import PASS, EmulatorTarget, read, run_one
    from specctrl.scenario.selection import Selection

    target, chosen = EmulatorTarget("spec"), Selection(kind=kind).of(read(["vectors"]))
    failed = [each.id for each in chosen if each.profile == "spec" and run_one(each, target).status != PASS]
    return min(failed, default=None)


def _generated() -> Any:
    return _vectors("generated")


def _pages() -> Any:
    from specctrl.evidence.run_pages import failures

    pages = [Path("index.md"), *sorted(Path("spec").glob("*.md"))]
    return next((page.stem for page in pages if page.stem not in NOT_RUN and failures(page)), None)


def _exploration() -> Any:
    from unittest.mock import patch

    from specctrl.exploration import search as explore
    from specctrl.model.kvm.variant import SPEC

    class First(explore.Search):
        def violation(self, name: str, *_: object) -> None:
            raise _Violated(name)

    quick = json.loads(explore.MANIFEST.read_text("utf-8"))[0]
    bits, hosts = explore.bits_of(quick["bits"]), [explore.HOSTS[name] for name in quick["hosts"]]
    with patch.object(explore, "Search", First):
        try:
            for world in explore.worlds(bits, hosts, explore.few_pairs(bits)):
                explore.search(SPEC, world, bits, DEPTH)
        except _Violated as violated:
            return str(violated)
    return None


def _tests() -> Any:
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *TESTS], text=True, check=False,
            timeout=10 * LIMIT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:  # a process of its own, which the limit of this one does not count
        raise _NoEnd from None
    if done.returncode == 0:
        return None
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    return failed[1].rsplit("::", 1)[-1] if failed else "stops"


KINDS: dict[str, Callable[[], Any]] = {
    "vectors": _vectors, "generated": _generated, "pages": _pages, "exploration": _exploration,
}
"""What every mutant is shown to; vectors are those written by hand."""
MISSING = "missing"
"""What is said in place of all else when a module is not installed."""
PROOF = "proof"
"""What the mutants of functions that handle a word are shown to as well."""
Task = str
"""A proof's name, as :func:`specctrl.proof.prove.prove` takes it."""
REST: dict[str, Callable[[], Any]] = {"tests": _tests}
"""What those mutants are shown to that nothing of the above noticed."""


def judge(kinds: Iterable[str], proofs: Iterable[Task] = ()) -> None:
    """Print what these kinds of evidence, or these proofs, say of the code: null, or what was noticed."""
    def stop(*_: object) -> None:
        raise _NoEnd

    def prove() -> Any:
        from specctrl.evidence.refuting import refuted_by

        return refuted_by(list(proofs))

    signal.signal(signal.SIGPROF, stop)
    said: dict[str, Any] = {}
    asked = [*kinds, *(REST if set(kinds) == set(KINDS) else ())]
    for kind in asked:
        if kind in REST and any(said.values()):
            continue
        signal.setitimer(signal.ITIMER_PROF, LIMIT * (2 if kind == PROOF else 1))  # another's load changes nothing
        try:
            said[kind] = prove() if kind == PROOF else (KINDS | REST)[kind]()
        except _NoEnd:
            said[kind] = "does not end"
        except ModuleNotFoundError as error:  # no mutant's doing: something is not installed
            said = {MISSING: error.name}
            break
        except Exception as error:
            said[kind] = f"stops: {type(error).__name__}"
        signal.setitimer(signal.ITIMER_PROF, 0)
    print(json.dumps(said))


class Bench:
    """A copy of the project in which mutants are planted, one at a time."""

    def __init__(self, folder: Path) -> None:
        self.root = folder
        for name in ("src", "spec", "vectors", "tests"):
            shutil.copytree(PACKAGE.parents[1] / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("index.md", "pyproject.toml"):
            shutil.copy(PACKAGE.parents[1] / name, folder)
        self.package = folder / "src" / "specctrl"
        compileall.compile_dir(self.package, quiet=1)
        for module in MODULES:  # never a stale one of these
            for old in source_of(module, self.package).parent.glob(f"__pycache__/{module.split('.')[-1]}.*"):
                old.unlink()

    def run(
        self, mutant: Mutant | None, kinds: Iterable[str] = tuple(KINDS), proofs: Iterable[Task] = ()
    ) -> dict[str, Any]:
        """What notices a mutant; without one, what the unchanged project is told."""
        if mutant is None:
            return self._judge(kinds, proofs)
        file = source_of(mutant.module, self.package)
        kept = file.read_text("utf-8")
        file.write_text(mutant.text, "utf-8")
        try:
            return self._judge(kinds, proofs)
        finally:
            file.write_text(kept, "utf-8")

    def _judge(self, kinds: Iterable[str], proofs: Iterable[Task]) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-c", f"from {__name__} import judge; judge({tuple(kinds)}, {tuple(proofs)})"],
            cwd=self.root, text=True, check=False,
            env={**os.environ, "PYTHONPATH": str(self.root / "src"), "PYTHONDONTWRITEBYTECODE": "1"},
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, preexec_fn=partial(os.nice, 10))
        if done.returncode:  # the package cannot even be imported
            return dict.fromkeys(kinds, "does not start")
        said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        if MISSING in said:
            raise RuntimeError(f"{said[MISSING]} is not installed; nothing can be said of a mutant")
        return said


def run_all(
    mutants: Iterable[Mutant], jobs: int = 2, kinds: Iterable[str] = tuple(KINDS),
    proofs: Callable[[str], Iterable[Task]] = lambda key: (),
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Plant mutants one by one in ``jobs`` copies; yields key and what noticed it, in order.

    ``proofs`` gives for a mutant's key the proofs that the kind "proof" makes.
    """
    with TemporaryDirectory() as folder, ThreadPoolExecutor(jobs) as pool:
        free: SimpleQueue[Bench] = SimpleQueue()
        for number in range(jobs):
            free.put(Bench(Path(folder) / str(number)))

        def one(mutant: Mutant) -> tuple[str, dict[str, Any]]:
            bench = free.get()
            try:
                return mutant.key, bench.run(mutant, kinds, tuple(proofs(mutant.key)))
            finally:
                free.put(bench)

        yield from pool.map(one, mutants)


def refuting(
    mutants: dict[str, Mutant], jobs: int = 2, known: dict[str, Any] | None = None
) -> tuple[dict[str, str | None], dict[str, str]]:
    """For each mutant of a function that handles a word what refutes it, and for each theorem a mutant that it refutes.

    A theorem that no mutant meets first is shown alone to the mutants of the functions that it is linked to.
    ``known`` is a table of which the results are kept, without those that are to be made again.
    """
    from specctrl.evidence.refuting import other_proofs, proofs_of_links, reached
    from specctrl.proof.theorems import THEOREMS

    kept = known or {"proofs": {}, "theorems": {}}
    candidates = of_words(list(mutants))
    chosen = [key for key in candidates if key not in kept["proofs"]]

    def shown(keys: list[str], proofs: Callable[[str], Iterable[Task]]) -> Iterator[tuple[str, str | None]]:
        for number, (key, said) in enumerate(run_all([mutants[key] for key in keys], jobs, (PROOF,), proofs), 1):
            if len(keys) > 1:
                print(f"\r{number} of {len(keys)}", end="" if number < len(keys) else "\n", file=sys.stderr, flush=True)
            yield key, said[PROOF]

    found = dict(shown(chosen, proofs_of_links))
    run_by = reached()
    found |= dict(shown([key for key in chosen if not found[key]], lambda key: other_proofs(key, run_by)))
    found = {key: (kept["proofs"] | found)[key] for key in candidates}
    caught: dict[str, str] = {name: key for name, key in kept["theorems"].items() if name in THEOREMS}
    for key, claim in found.items():
        if claim in linked(key):
            caught.setdefault(claim, key)
    for name in THEOREMS.keys() - caught.keys():
        tasks: list[Task] = [name]
        for key in mutants:
            if tasks[0] in proofs_of_links(key) and dict(shown([key], lambda _, tasks=tasks: tasks))[key] == name:  # type: ignore[misc]  # the default binds this loop's
                caught[name] = key
                break
    return found, {name: caught.get(name, "") for name in THEOREMS}


# ---- the stored table

TABLE = Path(__file__).with_name("mutants.json")
"""What noticed each mutant, which claim refutes it, and why each survivor survives."""


def stored() -> dict[str, Any]:
    """The table as stored: ``mutants``, ``proofs``, ``theorems`` and ``survivors``."""
    table: dict[str, Any] = json.loads(TABLE.read_text("utf-8"))
    return table


def store(found: dict[str, Any], proofs: dict[str, Any], theorems: dict[str, str]) -> None:
    """Store the results of a full run; what was written about those that survive again is kept."""
    why = stored()["survivors"] if TABLE.is_file() else {}
    table = {"mutants": found, "proofs": proofs, "theorems": theorems,
             "survivors": {key: why.get(key, "") for key in survivors(found)}}
    parts = []
    for name, entries in table.items():
        lines = ",\n".join(f"  {json.dumps(key)}: {json.dumps(entry)}" for key, entry in entries.items())
        parts.append(f" {json.dumps(name)}: {{\n{lines}\n }}")
    TABLE.write_text("{\n" + ",\n".join(parts) + "\n}\n", "utf-8")


def without(table: dict[str, Any], keys: Iterable[str], mutants: Iterable[str]) -> dict[str, Any]:
    """The table without the results of these mutants, and of those that are no mutants of the code any more."""
    kept = set(mutants) - set(keys)
    return {
        "mutants": {key: said for key, said in table["mutants"].items() if key in kept},
        "proofs": {key: claim for key, claim in table["proofs"].items() if key in kept},
        "theorems": {name: key for name, key in table["theorems"].items() if key in kept},
    }


def survivors(found: dict[str, Any]) -> list[str]:
    """The mutants that nothing noticed."""
    return [key for key, noticed in found.items() if not any(noticed.values())]


def complaints(table: dict[str, Any], keys: Iterable[str]) -> list[str]:
    """What is wrong with a table: mutants that it lacks or has too many, survivors without an explanation."""
    keys = list(keys)
    known, now = set(table["mutants"]), set(keys)
    alive = set(survivors(table["mutants"]))
    return [
        *(f"{key}: not in the table; run specctrl mutants --all" for key in sorted(now - known)),
        *(f"{key}: in the table, but no mutant of the code" for key in sorted(known - now)),
        *(f"{key}: survives without an explanation" for key in sorted(alive) if not table["survivors"].get(key)),
        *(f"{key}: explained, but noticed" for key in sorted(set(table["survivors"]) - alive)),
        *(f"{key}: shown to the theorems, but no mutant of a function that handles a word"
          for key in sorted(set(table["proofs"]) - set(of_words(keys)))),
        *(f"{key}: not shown to the theorems; run specctrl mutants --proofs"
          for key in sorted(set(of_words(keys)) - set(table["proofs"]))),
        *(f"{name}: refutes no mutant" for name, key in table["theorems"].items() if key not in now),
    ]


def figures(table: dict[str, Any], module: str | None = None) -> dict[str, int]:
    """How many mutants there are, of one module or of all, and how many each kind of evidence noticed."""
    chosen = {key: said for key, said in table["mutants"].items() if module in (None, key.split(":")[0])}
    counts = Counter(kind for said in chosen.values() for kind in said if said[kind])
    return {"mutants": len(chosen), **{kind: counts[kind] for kind in (*KINDS, *REST)},
            "survivors": len(survivors(chosen))}
