"""What each kind of evidence says of the rule code as it is in this process: None, or the first of it that fails.

That is asked in a process where a mutant is planted.
"""

import os
import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from specctrl.evidence.collect import own_scenarios
from specctrl.evidence.mutants import PACKAGE
from specctrl.evidence.run_pages import failures
from specctrl.exploration import search as explorer
from specctrl.model.kvm.variant import SPEC
from specctrl.rules import data_folder
from specctrl.scenario import PASS, EmulatorTarget, read, run_one
from specctrl.scenario.selection import written_by

ROOT = PACKAGE.parents[1]
NOT_RUN = ("claims", "defects", "scenarios")
"""Pages that repeat proofs, explorations, this table, or the scenarios."""
DEPTH = 4
"""Events in the histories that are explored: this many at most."""

scenarios = cache(own_scenarios)


def _vectors(kind: str) -> Any:
    target, chosen = EmulatorTarget("spec"), [each for each in scenarios() if written_by(each) == kind]
    return min((each.id for each in chosen if run_one(each, target).status != PASS), default=None)


def first_scenario() -> str | None:
    """The first scenario that fails, or that the code does not survive, of all that are published."""
    target = EmulatorTarget("spec")
    for each in scenarios():
        try:
            if run_one(each, target).status != PASS:
                return each.id
        except Exception:
            return each.id
    return None


def fails(named: str) -> bool:
    """Whether the scenario of this id fails; whether any does, where there is none of this id."""
    if named not in files():
        return first_scenario() is not None
    return any(run_one(each, EmulatorTarget("spec")).status != PASS for each in read([files()[named]]))


@cache
def files() -> dict[str, Path]:
    """The file of each scenario, by its id."""
    return {file.stem: file for file in data_folder("vectors").rglob("*.json")}


def _pages() -> Any:
    pages = [ROOT / "index.md", *sorted((ROOT / "spec").glob("*.md"))]
    return next((page.stem for page in pages if page.stem not in NOT_RUN and failures(page)), None)


class _Violated(BaseException):
    pass


def _exploration() -> Any:
    class First(explorer.Search):
        def violation(self, name: str, *_: object) -> None:
            raise _Violated(name)

    bits, worlds = explorer.quick()
    with patch.object(explorer, "Search", First):
        try:
            for world in worlds:
                explorer.search(SPEC, world, bits, DEPTH)
        except _Violated as violated:
            return str(violated)
    return None


def _tests() -> Any:
    import pytest

    class First:
        failed = "stops"

        def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
            if report.failed:
                self.failed = report.nodeid.rsplit("::", 1)[-1]

    first = First()
    ended = pytest.main(["-q", "-x", "-p", "no:cacheprovider", "tests/model"], plugins=[first])
    return None if ended == pytest.ExitCode.OK else first.failed


EVERY: dict[str, Callable[[], Any]] = {
    "vectors": partial(_vectors, "hand"), "generated": partial(_vectors, "generated"),
    "pages": _pages, "exploration": _exploration,
}
"""What every mutant is shown to; vectors are those written by hand."""
REST: dict[str, Callable[[], Any]] = {"tests": _tests}
"""What those mutants are shown to that nothing of the above noticed: the tests of the model."""


def first_failure(kind: str) -> Any:
    """What of this kind of evidence fails first."""
    os.chdir(ROOT)
    sys.dont_write_bytecode = True
    return (EVERY | REST)[kind]()
