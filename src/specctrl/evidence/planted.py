"""Plants a mutant of the rule code in a copy of this process, and asks something of that copy.

The copy is thrown away, and may take so much processor time and no more.  What this process computed from rule code
before it made the copy is not the mutant's: who asks about mutants computes nothing from it first.
"""

import ast
import contextlib
import importlib
import io
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from importlib.machinery import SourceFileLoader
from types import CodeType, FunctionType, ModuleType
from typing import Any

from specctrl.evidence.mutants import Mutant, all_mutants, names_of, source_of
from specctrl.processes import end_with
from specctrl.shards import Workers

SECONDS = 20
"""So much processor time may a copy take, unless more is asked for."""


def _find(module: ModuleType, names: list[str]) -> Any:
    """What a mutant's key names in a module: a function, the outermost if one is inside another, or a class."""
    found: Any = module
    for name in names:
        found = vars(found)[name]
        found = found.fget if isinstance(found, property) else getattr(found, "__func__", found)
        found = getattr(found, "__wrapped__", found)
        if isinstance(found, FunctionType):
            return found
    return found


@cache
def functions() -> dict[str, FunctionType]:
    """For each mutant's key the function that it changes; without those of a record's fields.

    >>> functions()["words:merge:swap-bits:1"].__name__
    'merge'
    """
    found = {key: function_of(mutant) for key, mutant in all_mutants().items()}
    return {key: function for key, function in found.items() if function is not None}


def function_of(mutant: Mutant) -> FunctionType | None:
    """The function that a mutant changes, as it is in this process; None if it changes a record or a constant."""
    changed = _find(importlib.import_module(f"specctrl.model.{mutant.module}"), mutant.key.split(":")[1].split("."))
    return changed if isinstance(changed, FunctionType) else None


@cache
def compiled(mutant: Mutant) -> CodeType:
    """The code of the function that a mutant changes; made once for all copies of this process that follow."""
    return mutant.compiled(str(source_of(mutant.module)))


def plant(mutant: Mutant) -> None:
    """Change this process; nothing takes it back.

    The function that a mutant changes is made again among the names of its module; its code and defaults are moved to
    the one that is there, which others have imported.  What a field of a record is decides what every record holds
    that was made since: where a mutant changes one, the package is forgotten, and whoever imports it finds the mutant.
    """
    there = function_of(mutant)
    if there is None:
        _import_anew(mutant)
        return
    module = importlib.import_module(there.__module__)
    made = ModuleType(module.__name__)
    vars(made).update(vars(module))
    exec(compiled(mutant), vars(made))
    changed = _find(made, mutant.key.split(":")[1].split("."))
    # without a call of super() the mutant's code has one free variable fewer
    there.__code__ = changed.__code__.replace(co_freevars=there.__code__.co_freevars)
    there.__defaults__, there.__kwdefaults__ = changed.__defaults__, changed.__kwdefaults__


def _import_anew(mutant: Mutant) -> None:
    """Forget the package; a later import of the mutant's module finds its source with the mutant."""
    source = ast.parse(source_of(mutant.module).read_text("utf-8"))
    changed = ast.parse(mutant.text).body[0]
    name = mutant.key.split(":")[1].split(".")[0]
    source.body = [changed if name in names_of(node) else node for node in source.body]
    package = __name__.partition(".")[0]
    own = SourceFileLoader.get_code

    def get_code(loader: SourceFileLoader, fullname: str) -> CodeType | None:
        if fullname == f"{package}.model.{mutant.module}":
            return compile(source, loader.path, "exec", dont_inherit=True)
        return own(loader, fullname)

    SourceFileLoader.get_code = get_code  # type: ignore[assignment,method-assign]  # of this process
    for loaded in [each for each in sys.modules if each.partition(".")[0] == package]:
        del sys.modules[loaded]


def on_mutant(key: str | None, ask: Callable[[], Any], seconds: float | None = None) -> Any:
    """What ``ask`` answers where a mutant is planted, or nothing is; None if it raises, or does not end in time.

    Where the mutant is of a record's field, ``ask`` has to import what it asks about.
    """
    return on_mutants([] if key is None else [all_mutants()[key]], ask, seconds)


def on_mutants(mutants: Sequence[Mutant], ask: Callable[[], Any], seconds: float | None = None) -> Any:
    """The same where all of some mutants are planted, each of another function."""
    for mutant in mutants:
        compiled(mutant)
    reading, writing = os.pipe()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        try:
            end_with(parent)
            signal.signal(signal.SIGPROF, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_PROF, seconds or SECONDS)  # its own time: another's load changes nothing
            for mutant in mutants:
                plant(mutant)
            with contextlib.redirect_stdout(io.StringIO()):
                os.write(writing, json.dumps(ask()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return json.loads(said) if said else None


def planters(workers: Workers | None = None) -> Workers:
    """Who plants mutants: copies of this process, which has made the mutants by then, unless a cluster does."""
    functions()
    return replace(workers or Workers(), method="fork")
