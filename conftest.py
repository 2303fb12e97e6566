"""Collects every example of the pages and of the docstrings as a test of its own, with file and line."""

import os
from doctest import ELLIPSIS
from pathlib import Path

import pytest
from hypothesis import settings
from sybil import Sybil
from sybil.document import PythonDocStringDocument
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.myst import CodeBlockParser, DocTestDirectiveParser, PythonCodeBlockParser, SkipParser
from sybil.parsers.rest import DocTestParser

ROOT = Path(__file__).resolve().parent

PAGES = Sybil(
    [
        PythonCodeBlockParser(doctest_optionflags=ELLIPSIS),
        CodeBlockParser(language="ipython3", evaluator=PythonEvaluator()),
        DocTestDirectiveParser(optionflags=ELLIPSIS),
        SkipParser(),
    ],
    path=str(ROOT),
    patterns=["index.md", "README.md", "spec/*.md"],
    name="pages",
)
DOCSTRINGS = Sybil(
    [DocTestParser(optionflags=ELLIPSIS)],
    path=str(ROOT / "src"),
    patterns=["**/*.py"],
    document_types={".py": PythonDocStringDocument},
    name="docstrings",
)

settings.register_profile("quick", max_examples=50, deadline=None, derandomize=True)
settings.register_profile("ci", settings.get_profile("quick"), max_examples=200)
settings.load_profile("ci" if os.environ.get("SPECCTRL_SLOW") else "quick")

LONGEST = (
    "tests/evidence/test_mutants.py",  # it forks often, so it comes before what makes the process large
    "tests/evidence/test_suspects.py",
    "tests/targets/test_c_reference.py",
    "tests/targets/test_rust_sample.py",
    "tests/targets/test_c_proofs.py",
    "tests/targets/test_lockstep.py",
    "tests/proof/test_prove.py",
    "tests/exploration/test_search.py",
    "tests/exploration/test_compiled.py",
    "tests/cli/test_surroundings.py",
    "tests/vectors/test_upstream.py",
)
"""The files that take longest."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest, so that at the end no process waits for another; files stay whole."""
    order = {ROOT / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path, len(LONGEST)))


pytest_collect_file = (PAGES + DOCSTRINGS).pytest()
