"""Runs a page's code blocks in the reader's browser; the page's script calls in with JSON and gets JSON.

A block is a notebook cell or a run of prompts.  All blocks of a page share one namespace, as in the build.
"""

import ast
import contextlib
import doctest
import importlib
import io
import json
import linecache
import traceback
from pprint import pformat
from types import ModuleType, TracebackType
from typing import Any

WIDTH = 80
"""How wide a value may be before it is broken into lines: the notebook kernel's width."""

Answer = dict[str, Any]

_namespace: dict[str, Any] = {}


def call(module: str, function: str, arguments: str) -> str:
    """Call a function of this package with keyword arguments given as JSON; its answer as JSON.

    >>> call("specctrl.site.in_browser", "run", '{"code": "6 * 7", "name": "cell 1", "fresh": true}')
    '{"outputs": [{"kind": "text", "data": "42"}]}'
    >>> call("os", "remove", '{"path": "x"}')
    Traceback (most recent call last):
    ValueError: os is no module of specctrl
    """
    if module.partition(".")[0] != "specctrl":
        raise ValueError(f"{module} is no module of specctrl")
    return json.dumps(getattr(importlib.import_module(module), function)(**json.loads(arguments)))


def run(code: str, name: str, fresh: bool = False, place: str = "") -> Answer:
    """Run one block; ``name`` stands in tracebacks, ``fresh`` empties the namespace first.

    A docstring's prompts see the names of its module: ``place`` is the dotted name of what the docstring is about.

    The answer holds ``outputs`` in order, each with its ``kind`` (text or html) and ``data``; ``error`` where a
    cell raised; for prompts ``same``: whether each printed what stands beneath it.

    >>> run("1 / 0", "cell 1", fresh=True)["error"]["last"]
    'ZeroDivisionError: division by zero'
    >>> run(">>> 1 + 1\\n2\\n>>> 1 + 2\\n4\\n", "prompts 2")
    {'outputs': [{'kind': 'text', 'data': '>>> 1 + 1\\n2\\n>>> 1 + 2\\n3\\n'}], 'same': False}
    >>> run(">>> merge(1, 2, 2)\\n3\\n", "prompts 1", fresh=True, place="specctrl.model.words.merge")["same"]
    True
    """
    if fresh:
        _namespace.clear()
        _namespace.update(vars(module_of(place)) if place else {"__name__": "__main__"})
    return _run_prompts(code, name) if _is_prompts(code) else _run_cell(code, name)


def module_of(place: str) -> ModuleType:
    """The module that has what is named so; ModuleNotFoundError if none has.

    >>> module_of("specctrl.scenario.machine.Machine.perform").__name__
    'specctrl.scenario.machine'
    """
    name = place
    while True:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if not name.startswith(str(error.name)) or "." not in name:
                raise  # the module is there, and lacks something else
            name = name.rpartition(".")[0]


def _is_prompts(code: str) -> bool:
    return any(line.lstrip().startswith(">>> ") for line in code.splitlines())


def _run_cell(code: str, name: str) -> Answer:
    linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
    printed = io.StringIO()
    shown: list[dict[str, str]] = []
    error = None
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            shown = _execute(code, name)
        except BaseException as raised:  # sys.exit() too ends the cell, not the page
            error = _described(raised, name)
    text = printed.getvalue()
    outputs = ([{"kind": "text", "data": text}] if text else []) + shown
    return {"outputs": outputs} if error is None else {"outputs": outputs, "error": error}


def _execute(code: str, name: str) -> list[dict[str, str]]:
    """Run a cell; the value of its last line, if that is an expression, is shown unless a semicolon ends it."""
    tree = ast.parse(code, name)
    last = tree.body[-1] if tree.body else None
    if not isinstance(last, ast.Expr) or code.rstrip().endswith(";"):
        exec(compile(tree, name, "exec", dont_inherit=True), _namespace)
        return []
    tree.body.pop()
    exec(compile(tree, name, "exec", dont_inherit=True), _namespace)
    value = eval(compile(ast.Expression(last.value), name, "eval", dont_inherit=True), _namespace)
    if value is None:
        return []
    for method in ("_repr_html_", "_repr_svg_"):
        if hasattr(value, method):
            return [{"kind": "html", "data": getattr(value, method)()}]
    return [{"kind": "text", "data": pformat(value, width=WIDTH, sort_dicts=False)}]


def _described(raised: BaseException, name: str) -> dict[str, str]:
    """An exception's last line, the line of the cell that raised it, and its traceback from the cell on."""
    trace: TracebackType | None = raised.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename != name:
        trace = trace.tb_next
    last = traceback.format_exception_only(raised)[-1].strip()
    where = ""
    if trace is not None:
        where = f"line {trace.tb_lineno}: {linecache.getline(name, trace.tb_lineno).strip()}"
    full = "".join(traceback.format_exception(type(raised), raised, trace))
    return {"last": last, "where": where, "traceback": full}


class _Transcript(doctest.DocTestRunner):
    """Keeps what each prompt printed, instead of saying which failed."""

    def __init__(self) -> None:
        super().__init__(verbose=False, optionflags=doctest.ELLIPSIS)
        self.lines: list[str] = []
        self.same = True

    def _note(self, example: doctest.Example, got: str) -> None:
        source = example.source.rstrip("\n").split("\n")
        self.lines += [f">>> {source[0]}", *(f"... {line}" for line in source[1:])]
        if got:
            self.lines.append(got.rstrip("\n"))

    def report_success(self, out: Any, test: doctest.DocTest, example: doctest.Example, got: str) -> None:
        self._note(example, example.want)  # as it stands in the page, where it may leave something open

    def report_failure(self, out: Any, test: doctest.DocTest, example: doctest.Example, got: str) -> None:
        self.same = False
        self._note(example, got)

    def report_unexpected_exception(
        self, out: Any, test: doctest.DocTest, example: doctest.Example, exc_info: Any
    ) -> None:
        self.same = False
        raised = "".join(traceback.format_exception_only(exc_info[1]))
        self._note(example, f"Traceback (most recent call last):\n{raised}")


def _run_prompts(code: str, name: str) -> Answer:
    try:
        test = doctest.DocTestParser().get_doctest(code, {}, name, name, 0)
    except ValueError as wrong:  # a prompt without its space, an indentation that is none
        return {"outputs": [], "error": {"last": f"{wrong}", "where": "", "traceback": ""}}
    test.globs = _namespace
    runner = _Transcript()
    runner.run(test, clear_globs=False)
    return {"outputs": [{"kind": "text", "data": "\n".join(runner.lines) + "\n"}], "same": runner.same}
