"""Measures searches of one fragment in one run: the rule code, its compiled steps, SPIN, and TLC.

The fragment is that of ``tla/SpecCtrl.tla``.  SPIN's model is ``spin/fragment.py``; SPIN explores depth first, so its
depth is not compared.  All must find the same numbers of states and transitions, or this ends with an error.
What is missing here is left out and named.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from figures import Figure, Growth
from spin.fragment import model
from tla.compare import BITS, HOST, fragment, install, with_tlc

from specctrl.exploration.compiled import explorer
from specctrl.exploration.events import World
from specctrl.exploration.search import Search
from specctrl.model.kvm.variant import SPEC
from specctrl.model.parts import resolve_host
from specctrl.targets.c import CannotBuild

AREA = "explorer"
NAMES = tuple(BITS)
Counts = dict[str, float]
RUNS = 7
"""Of programs in C, of which the quickest run counts."""


def search(names: Sequence[str]) -> Search:
    """The search of the fragment over these bits."""
    world = World((HOST,), (resolve_host(HOST),), (0, 0), offered=1)
    return Search(SPEC, world, fragment(sum(BITS[name] for name in names)), forgets=True)


def with_rule_code(names: Sequence[str]) -> Counts:
    """The rule code itself."""
    begin = time.process_time()
    found = search(names).run()
    return {"states": found.states, "transitions": found.transitions, "seconds": time.process_time() - begin}


def with_compiled_steps(names: Sequence[str]) -> Counts:
    """The steps made from it; the time is the program's own, without that for making it."""
    found = explorer.run(search(names))  # makes the program
    seconds = quickest(lambda: explorer.run(search(names)))
    return {"states": found.states, "transitions": found.transitions, "seconds": seconds}


def quickest(run: Callable[[], object]) -> float:
    """Processor seconds that its child processes take, the least of so many runs: they are short."""
    taken = []
    for _ in range(RUNS):
        begin = os.times().children_user
        run()
        taken.append(os.times().children_user - begin)
    return min(taken)


def with_spin(names: Sequence[str]) -> Counts:
    """SPIN, with nothing optimized away that would make two states one.

    It counts the first state as a transition.
    """
    spin, compiler = shutil.which("spin"), shutil.which("cc")
    if spin is None or compiler is None:
        raise CannotBuild("needs spin and a C compiler")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "fragment.pml").write_text(model(names))
        for command in ([spin, "-o1", "-o2", "-a", "fragment.pml"],
                        [compiler, "-O2", "-w", "-DSAFETY", "-DNOREDUCE", "-o", "pan", "pan.c"]):
            subprocess.run(command, cwd=folder, check=True, capture_output=True)
        pan = partial(subprocess.run, ["./pan", "-m1000000"], cwd=folder, check=True, capture_output=True, text=True)
        said, seconds = pan().stdout, quickest(pan)
    states = re.search(r"(\d+) states, stored", said)
    transitions = re.search(r"(\d+) transitions", said)
    assert states is not None, said
    assert transitions is not None, said
    assert "errors: 0" in said, said
    return {"states": int(states[1]), "transitions": int(transitions[1]) - 1, "seconds": seconds}


def with_java(names: Sequence[str]) -> Counts:
    """TLC with one worker, from its first state to its verdict: seconds of the clock, for Java runs several threads."""
    if shutil.which("java") is None:
        raise CannotBuild("needs java")
    with tempfile.TemporaryDirectory() as folder:
        jar = install(Path(folder) / "venv")
        found = with_tlc(jar, f"SpecCtrl{'' if len(names) == 2 else len(names)}.cfg", Path(folder) / "run", edges=False)
    return {"states": found.states, "transitions": found.transitions, "seconds": found.seconds}


def rate_of(row: Counts) -> float:
    """Transitions a second; the clock of processes has steps of ten milliseconds."""
    return row["transitions"] / max(row["seconds"], 0.01)


SEARCHES = {"rule code": with_rule_code, "compiled steps": with_compiled_steps, "SPIN": with_spin, "TLC": with_java}


def searched(names: Sequence[str]) -> dict[str, Counts]:
    """What each search that can be had here finds over these bits; SystemExit if they differ."""
    rows: dict[str, Counts] = {}
    for label, run in SEARCHES.items():
        try:
            rows[label] = run(names)
        except (CannotBuild, SystemExit) as missing:
            print(f"left out, {label}: {missing}")
    if len({(row["states"], row["transitions"]) for row in rows.values()}) != 1:
        sys.exit(f"the searches differ over {len(names)} bits: {rows}")
    return rows


def measure() -> Iterator[Figure | Growth]:
    """The rates over all bits of the fragment, and how two of the searches grow with the bits."""
    rows = searched(NAMES)
    base = rate_of(rows["rule code"])
    yield Figure(AREA, "rule code, six bits", base, "transitions a second")
    for label in [label for label in rows if label != "rule code"]:
        rate = rate_of(rows[label])
        yield Figure(AREA, f"{label}, six bits", rate, "transitions a second", "the rule code", rate / base)
    for label in [label for label in ("rule code", "compiled steps") if label in rows]:
        points = [(count, SEARCHES[label](NAMES[:count])["seconds"]) for count in range(2, len(NAMES) + 1)]
        yield Growth(AREA, label, "bits", points)
