"""Runs the code of a page, and the prompts of the docstrings, and says what fails."""

import contextlib
import doctest
import importlib
import io
import pkgutil
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from specctrl.rules import Block, blocks

Failure = tuple[str, int, str]
"""The file, the line, and what went wrong."""


class _Runner(doctest.DocTestRunner):
    """Collects failures instead of printing them."""

    def __init__(self) -> None:
        super().__init__(verbose=False, optionflags=doctest.ELLIPSIS)
        self.failures_found: list[Failure] = []

    def _note(self, test: doctest.DocTest, example: doctest.Example, what: str) -> None:
        line = (test.lineno or 0) + example.lineno + 1
        self.failures_found.append((test.filename or test.name, line, f">>> {example.source.strip()}\n{what.rstrip()}"))

    def report_failure(self, out: Any, test: doctest.DocTest, example: doctest.Example, got: str) -> None:
        self._note(test, example, self._checker.output_difference(example, got, self.optionflags))

    def report_unexpected_exception(
        self, out: Any, test: doctest.DocTest, example: doctest.Example, exc_info: Any
    ) -> None:
        self._note(test, example, "".join(traceback.format_exception_only(*exc_info[:2])))

    _checker: doctest.OutputChecker


def run_page(path: Path) -> list[Failure]:
    """Run a page's cells and prompts in one namespace; after a failing cell the rest cannot be judged."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    failures: list[Failure] = []
    for block in blocks(path.read_text("utf-8")):
        if block.kind == "cell":
            failed = _run_cell(block, path, namespace)
            if failed is not None:
                return [*failures, failed]
        else:
            runner = _Runner()
            test = doctest.DocTestParser().get_doctest(block.code, {}, path.name, str(path), block.line - 1)
            test.globs = namespace
            runner.run(test, clear_globs=False)
            failures += runner.failures_found
    return failures


def _run_cell(block: Block, path: Path, namespace: dict[str, Any]) -> Failure | None:
    if "skip-execution" in block.tags:
        return None
    try:
        code = compile("\n" * (block.line - 1) + block.code, str(path), "exec", dont_inherit=True)
        with contextlib.redirect_stdout(io.StringIO()):
            exec(code, namespace)
    except Exception as error:
        if "raises-exception" in block.tags:
            return None
        inside = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        return str(path), (inside or [block.line])[-1] or block.line, f"cell raises {error!r}"
    return None


def run_docstrings(package: str) -> Iterator[Failure]:
    """Run the prompts in the docstrings of a package's modules, each docstring on its own."""
    root = importlib.import_module(package)
    names = [package, *(info.name for info in pkgutil.walk_packages(root.__path__, package + "."))]
    for name in names:
        if name.endswith(".__main__"):
            continue
        module = importlib.import_module(name)
        for test in doctest.DocTestFinder().find(module):
            runner = _Runner()
            runner.run(test)
            yield from runner.failures_found
