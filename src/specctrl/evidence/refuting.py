"""Which proofs a mutant of the rule code is shown to: the theorems that say something of the changed function.

A claim is *linked* to a function if it is named beside a rule that binds the function.  The theorems that are linked
come first, those with few paths before those with many; then, within a budget of paths, every other theorem that runs
the function.  A mutant is refuted by the first theorem that fails.
"""

import sys
from types import CodeType, FrameType

from specctrl.evidence.mutants import MODULES, source_of
from specctrl.evidence.touching import linked
from specctrl.model.kvm.variant import SPEC
from specctrl.proof.instrumented import instrumented
from specctrl.proof.prove import manifest, prove
from specctrl.proof.theorems import THEOREMS

BUDGET = 1000
"""Paths of the unchanged code that the theorems without a link may take together."""


def by_paths() -> list[str]:
    """Every theorem, those with the fewest paths first."""
    counts = manifest()["claims"]
    return sorted(THEOREMS, key=lambda name: counts[name]["paths"])


def proofs_of_links(key: str) -> list[str]:
    """The theorems that are linked to the function which a mutant changes.

    >>> proofs_of_links("kvm.entry:VcpuEntry.enter_guest:delete:1")
    ['entry_loads_the_saved_value']
    """
    claims = linked(key)
    return [name for name in by_paths() if name in claims]


def reached() -> dict[str, list[str]]:
    """Prove every theorem of the unchanged code, and record for each function, by module and name, which run it."""
    modules = {str(source_of(module)): module for module in MODULES}
    found: dict[str, list[str]] = {}
    for name in by_paths():
        called: set[CodeType] = set()

        def note(frame: FrameType, event: str, _: object, called: set[CodeType] = called) -> None:
            if event == "call":
                called.add(frame.f_code)

        instrumented.cache_clear()  # else a summary that an earlier proof made hides the function
        sys.setprofile(note)
        try:
            prove(SPEC, name)
        finally:
            sys.setprofile(None)
        for code in called:
            if code.co_filename in modules:
                found.setdefault(f"{modules[code.co_filename]}:{code.co_qualname}", []).append(name)
    return found


def other_proofs(key: str, known: dict[str, list[str]]) -> list[str]:
    """The theorems without a link that run the function which a mutant changes, as far as the budget goes."""
    counts, spent, chosen = manifest()["claims"], 0, list[str]()
    for name in known.get(":".join(key.split(":")[:2]), []):
        spent += counts[name]["paths"]
        if name not in linked(key) and spent <= BUDGET:
            chosen.append(name)
    return chosen


def refuted_by(todo: list[str]) -> str | None:
    """The first claim that fails of the code as it is, in these proofs; None if all hold."""
    for name in todo:
        failed = prove(SPEC, name).refuted()
        if failed:
            return min(failed)
    return None
