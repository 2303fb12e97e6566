"""Collects every example of the pages and of the docstrings as a test of its own, with file and line."""

from doctest import ELLIPSIS
from pathlib import Path

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
pytest_collect_file = (PAGES + DOCSTRINGS).pytest()
