"""Runs a page's code blocks in the reader's browser; the page's script calls in with JSON and gets JSON.

A block is a notebook cell or a run of prompts.  All blocks of a page share one namespace, as in the build.
"""

import importlib
import json
import linecache
import traceback
from types import ModuleType, TracebackType
from typing import Any

from specctrl.evidence.run_pages import Prompts, run_cell

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
    outputs, raised = run_cell(code, name, _namespace)
    return {"outputs": outputs} if raised is None else {"outputs": outputs, "error": _described(raised, name)}


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


def _run_prompts(code: str, name: str) -> Answer:
    try:
        prompts = Prompts(code, _namespace, name)
    except ValueError as wrong:  # a prompt without its space, an indentation that is none
        return {"outputs": [], "error": {"last": f"{wrong}", "where": "", "traceback": ""}}
    text = "\n".join(prompts.lines) + "\n"
    return {"outputs": [{"kind": "text", "data": text}], "same": not prompts.failed}
