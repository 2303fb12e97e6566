"""Runs the code of a page, once: what each block shows, which functions a tagged cell calls, and what fails.

A block is a notebook cell or a run of prompts.  All blocks of a page share one namespace, in the order of the page.
"""

import ast
import contextlib
import doctest
import importlib
import io
import pkgutil
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from pprint import pformat
from types import CodeType, FrameType
from typing import Any

from specctrl.rules import Block, blocks

PACKAGE = str(Path(__file__).resolve().parents[1])
WIDTH = 80
"""How wide a value may be before it is broken into lines."""
_TAG = re.compile(r"^\s*# rule: (?P<ids>.+)$", re.MULTILINE)

Output = dict[str, str]
"""What is shown: its ``kind``, text or html, and its ``data``."""
Failure = tuple[str, int, str]
"""The file, the line, and what went wrong."""
Names = dict[str, Any]
Before = Callable[[list[str], str, CodeType, Names], None]
"""Told of a tagged cell before it runs: its rules, its place, its code, the page's names."""


@dataclass(slots=True)
class Ran:
    """A block that ran; ``line`` is the number of its first line, ``called`` what a tagged cell called."""

    kind: str
    code: str
    line: int
    outputs: list[Output] = field(default_factory=list)
    called: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)


def tagged_rules(code: str) -> list[str]:
    """The rules that a cell names.

    >>> tagged_rules("x = 1\\n# rule: a.b, c.d")
    ['a.b', 'c.d']
    """
    return [id.strip() for tag in _TAG.findall(code) for id in tag.split(",")]


def run_page(path: Path, before: Before | None = None) -> list[Ran]:
    """Run a page's cells and prompts; after a failing cell the rest cannot be judged, and is not run.

    Calls are recorded in tagged cells alone, and not where ``before`` is told of them: recording is slow.
    Nothing runs after the last of these then.
    """
    names: Names = {"__name__": "__main__"}
    done = []
    to_run = list(blocks(path.read_text("utf-8")))
    while before is not None and to_run and not _tells(to_run[-1]):
        to_run.pop()
    for block in to_run:
        ran = Ran(block.kind, block.code, block.line)
        done.append(ran)
        if block.kind == "prompts":
            prompts = Prompts(block.code, names, str(path), block.line)
            ran.failures = prompts.failed
        elif "skip-execution" not in block.tags:
            _run_block(block, path, names, before, ran)
            if ran.failures:
                break
    return done


def _tells(block: Block) -> bool:
    return block.kind == "cell" and "skip-execution" not in block.tags and bool(tagged_rules(block.code))


def _run_block(block: Block, path: Path, names: Names, before: Before | None, ran: Ran) -> None:
    ids = tagged_rules(block.code)
    text = "\n" * (block.line - 1) + block.code  # so that the lines are those of the page
    if ids and before is not None:
        code = compile(text, str(path), "exec", dont_inherit=True)
        before(ids, f"{path.parent.name}/{path.name}:{block.line}", code, names)
    recording = calls() if ids and before is None else contextlib.nullcontext(set[CodeType]())
    with recording as called:
        ran.outputs, raised = run_cell(text, str(path), names)
    ran.called = sorted(map(name_of, called))
    if raised is not None and "raises-exception" not in block.tags:
        inside = [frame.lineno for frame in traceback.extract_tb(raised.__traceback__) if frame.filename == str(path)]
        ran.failures = [(str(path), (inside or [block.line])[-1] or block.line, f"the cell raises {raised!r}")]


def failures(path: Path) -> list[Failure]:
    """What fails on a page."""
    return [failure for ran in run_page(path) for failure in ran.failures]


# ---- a cell


def run_cell(text: str, name: str, names: Names) -> tuple[list[Output], BaseException | None]:
    """Run a cell: what it prints, the value of its last line, and what it raises.

    A value is shown if the last line is an expression that no semicolon ends.  An assertion that fails says what it
    compared.

    >>> run_cell("print('a'); 6 * 7", "cell", {})
    ([{'kind': 'text', 'data': 'a\\n'}, {'kind': 'text', 'data': '42'}], None)
    >>> run_cell("assert 6 * 7 == 41", "cell", {})[1]
    AssertionError('42 == 41')
    """
    printed = io.StringIO()
    shown: list[Output] = []
    raised = None
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            shown = _execute(text, name, names)
        except BaseException as error:  # sys.exit() too ends the cell, and nothing else
            raised = error
    said = printed.getvalue()
    return ([{"kind": "text", "data": said}] if said else []) + shown, raised


SHOWN = 300
"""So many characters of a side are said."""


class _BothSides(ast.NodeTransformer):
    """An assertion that compares says what it compared."""

    def visit_Assert(self, node: ast.Assert) -> ast.stmt | list[ast.stmt]:
        match node:
            case ast.Assert(ast.Compare(left, [operator], [right]), None):
                names = [ast.Name("left of assert", ast.Load()), ast.Name("right of assert", ast.Load())]
                sign = ast.unparse(ast.Compare(ast.Name("a"), [operator], [ast.Name("b")]))[1:-1]
                cut = ast.JoinedStr([ast.Constant(f".{SHOWN}")])
                said = [ast.FormattedValue(name, ord("r"), cut) for name in names]
                asserted = ast.Assert(ast.Compare(names[0], [operator], [names[1]]),
                                      ast.JoinedStr([said[0], ast.Constant(sign), said[1]]))
                made = [*(ast.Assign([ast.Name(name.id, ast.Store())], side)
                          for name, side in zip(names, (left, right), strict=True)), asserted]
                return [ast.fix_missing_locations(ast.copy_location(each, node)) for each in made]
        return node


def _execute(text: str, name: str, names: Names) -> list[Output]:
    tree = _BothSides().visit(ast.parse(text, name))
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, name, "exec", dont_inherit=True), names)
    if not isinstance(last, ast.Expr):
        return []
    value = eval(compile(ast.Expression(last.value), name, "eval", dont_inherit=True), names)
    if value is None or text.rstrip().endswith(";"):
        return []
    for method in ("_repr_html_", "_repr_svg_"):
        if hasattr(value, method):
            return [{"kind": "html", "data": getattr(value, method)()}]
    return [{"kind": "text", "data": pformat(value, width=WIDTH, sort_dicts=False)}]


@contextlib.contextmanager
def calls() -> Iterator[set[CodeType]]:
    """Record the code objects of all functions called meanwhile."""
    seen: set[CodeType] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            seen.add(frame.f_code)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield seen
    finally:
        sys.setprofile(before)


def name_of(code: CodeType) -> str:
    """A name for the code of one function, the same in every process and every checkout.

    >>> name_of(name_of.__code__).startswith("/evidence/run_pages.py:name_of:")
    True
    """
    return f"{code.co_filename.removeprefix(PACKAGE)}:{code.co_qualname}:{code.co_firstlineno}"


# ---- prompts


class Prompts(doctest.DocTestRunner):
    """Runs prompts: what fails, and the transcript, with what stands in the page where that is what was printed.

    >>> Prompts(">>> 1 + 1\\n2\\n>>> 1 + 2\\n4\\n", {}, "a page", 1).lines
    ['>>> 1 + 1', '2', '>>> 1 + 2', '3']
    """

    _checker: doctest.OutputChecker

    def __init__(self, code: str | doctest.DocTest, names: Names, name: str, line: int = 1) -> None:
        super().__init__(verbose=False, optionflags=doctest.ELLIPSIS)
        self.lines: list[str] = []
        self.failed: list[Failure] = []
        if isinstance(code, str):
            code = doctest.DocTestParser().get_doctest(code, {}, name, name, line - 1)
            code.globs = names
        self.run(code, clear_globs=False)

    def _note(self, test: doctest.DocTest, example: doctest.Example, got: str, wrong: str = "") -> None:
        source = example.source.rstrip("\n").split("\n")
        self.lines += [f">>> {source[0]}", *(f"... {line}" for line in source[1:])]
        if got:
            self.lines.append(got.rstrip("\n"))
        if wrong:
            place = (test.filename or test.name, (test.lineno or 0) + example.lineno + 1)
            self.failed.append((*place, f">>> {example.source.strip()}\n{wrong.rstrip()}"))

    def report_success(self, out: Any, test: doctest.DocTest, example: doctest.Example, got: str) -> None:
        """Note what the page says, where it may leave something open."""
        self._note(test, example, example.want)

    def report_failure(self, out: Any, test: doctest.DocTest, example: doctest.Example, got: str) -> None:
        """Note what was printed instead."""
        self._note(test, example, got, self._checker.output_difference(example, got, self.optionflags))

    def report_unexpected_exception(
        self, out: Any, test: doctest.DocTest, example: doctest.Example, exc_info: Any
    ) -> None:
        """Note what was raised."""
        raised = "".join(traceback.format_exception_only(exc_info[1]))
        self._note(test, example, f"Traceback (most recent call last):\n{raised}", raised)


def modules_of(package: str) -> list[str]:
    """The names of a package and of all modules in it, but for those that run when they are imported."""
    root = importlib.import_module(package)
    names = [package, *(info.name for info in pkgutil.walk_packages(root.__path__, package + "."))]
    return [name for name in names if not name.endswith(".__main__")]


def run_docstrings(module: str) -> list[Failure]:
    """Run the prompts in the docstrings of a module, each docstring on its own; what fails."""
    tests = doctest.DocTestFinder().find(importlib.import_module(module))
    return [failure for test in tests for failure in Prompts(test, test.globs, test.name).failed]
