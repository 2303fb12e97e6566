"""Which rules are about 64-bit words: those of which some bound code handles one.

A word is a mask, a value, a view, what the processor or KVM holds of an MSR, or a set of bits.  Computed from the
code: a field that holds a word is an ``int`` of a record that is no count; a function handles a word if it names such
a field, combines bits, or takes or returns an ``int`` that is no number of something.  Calls are not followed.
"""

import ast
import inspect
import textwrap
from dataclasses import fields
from functools import cache
from importlib import import_module
from types import FunctionType
from typing import Any

from specctrl.evidence.claimed import claims_of
from specctrl.model.contract import Contract
from specctrl.model.kvm.state import VcpuState
from specctrl.model.kvm.vm import Vm
from specctrl.model.parts import Host
from specctrl.model.processor import LogicalProcessor, Vmcs
from specctrl.rules import Rule, load_rules, resolve

RECORDS: tuple[Any, ...] = (Host, Vm, Vmcs, LogicalProcessor, VcpuState, Contract)
"""The records of the rule code."""
NUMBERS = frozenset({"created_vcpus", "level", "capability", "flags", "msr", "number"})
"""What is an ``int`` and no word: counts, levels, numbers of capabilities, flags, MSRs and vCPUs."""
WORDS = frozenset(item.name for record in RECORDS for item in fields(record) if item.type in (int, "int")) - NUMBERS
"""The fields that hold a word."""


def functions_of(rule: Rule) -> list[FunctionType]:
    """The functions that a rule binds; a class stands for its methods.

    >>> from specctrl.rules import load_rules
    >>> [one.__name__ for one in functions_of(load_rules()["contract.effective.merge"])]
    ['merge', 'effective']
    """
    found = []
    for name in rule.code:
        target = resolve(name)
        for member in list(vars(target).values()) if isinstance(target, type) else [target]:
            function = member.fget if isinstance(member, property) else getattr(member, "__wrapped__", member)
            if isinstance(function, FunctionType) and not function.__name__.startswith("__"):
                found.append(function)
    return found


@cache
def handles_word(function: FunctionType) -> bool:
    """Whether a function handles a word.

    >>> from specctrl.model.kvm.vcpu import Vcpu
    >>> handles_word(Vcpu.wrmsr), handles_word(Vcpu.vmxoff)
    (True, False)
    """
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    assert isinstance(tree, ast.FunctionDef)
    given = [*tree.args.args, *tree.args.kwonlyargs]
    if any(_words(one.annotation) for one in given if one.arg not in NUMBERS) or _words(tree.returns):
        return True
    return any((isinstance(node, ast.Attribute) and node.attr in WORDS) or _bits(node) for node in ast.walk(tree))


def _bits(node: ast.AST) -> bool:
    """Whether a node is an operation on bits."""
    binary = isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.BitAnd | ast.BitOr | ast.BitXor)
    return binary or (isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Invert))


def _words(annotation: ast.expr | None) -> bool:
    """Whether an annotation is of words: ints, lists and pairs of them, but not a tuple of numbers of MSRs."""
    text = "" if annotation is None else ast.unparse(annotation)
    return "int" in text.replace("tuple[int, ...]", "")


def touches_word(rule: Rule) -> bool:
    """Whether some code that a rule binds handles a word.

    >>> from specctrl.rules import load_rules
    >>> rules = load_rules()
    >>> touches_word(rules["force.zeros-too"]), touches_word(rules["filter.limits"])
    (True, False)
    """
    return any(handles_word(function) for function in functions_of(rule))


# ---- mutants of such functions


def place(function: FunctionType) -> str:
    """A function as the mutants name it.

    >>> from specctrl.model.words import merge
    >>> place(merge)
    'words:merge'
    """
    return f"{function.__module__.removeprefix('specctrl.model.')}:{function.__qualname__}"


def function_at(key: str) -> FunctionType | None:
    """The function that a mutant changes; None for one that changes a field's default.

    >>> function_at("kvm.entry:VcpuEntry.update_force:delete:1").__name__
    'update_force'
    >>> function_at("contract:Contract:flip:1")
    """
    module, name = key.split(":")[:2]
    found: Any = import_module(f"specctrl.model.{module}")
    for part in name.split("."):
        found = vars(found)[part]
    found = found.fget if isinstance(found, property) else found
    return found if isinstance(found, FunctionType) else None


def of_words(keys: list[str]) -> list[str]:
    """The mutants of functions that handle a word."""
    return [key for key in keys if (function := function_at(key)) is not None and handles_word(function)]


def linked(key: str) -> set[str]:
    """The claims named beside a rule that binds the function which a mutant changes.

    >>> sorted(linked("kvm.entry:VcpuEntry.enter_guest:delete:1"))
    ['entry_loads_the_saved_value']
    """
    return links().get(":".join(key.split(":")[:2]), set())


@cache
def links() -> dict[str, set[str]]:
    """For each function that some rule binds, as the mutants name it: the claims named beside those rules."""
    found: dict[str, set[str]] = {}
    for rule in load_rules().values():
        for function in functions_of(rule):
            found.setdefault(place(function), set()).update(claims_of(rule.id))
    return found
