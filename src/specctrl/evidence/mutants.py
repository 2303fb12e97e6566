"""Mutants of the rule code: one small change each.

A mutant is named by module, function, operator and its number among that operator's places in the function, not by
a line.  So the names change exactly when the code does.
"""

import ast
import json
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import CodeType
from typing import Any

PACKAGE = Path(__file__).resolve().parents[1]
NO_RULES = {
    "registers": "numbers of registers and bits, each compared with its source",
    "parts": "what a processor part has",
    "outcomes": "how an operation can end",
    "variants": "a list",
    "kvm.state": "the record that the vCPU's functions work on",
    "kvm.variant": "which classes make a variant",
    "posted": "the posted series, which is no rule: its own errors are what it is for",
}
"""The modules of the model without code that carries out rules, each with the reason."""
TABLE = Path(__file__).with_name("mutants.json")
"""What noticed each mutant, which theorem refutes it, and why no scenario notices those that none notices."""

OPERATORS = {
    "swap-bits": "`&` and `|` exchanged",
    "drop-complement": "`~` left out",
    "drop-not": "`not` left out",
    "swap-and-or": "`and` and `or` exchanged",
    "negate-compare": "a comparison turned into its opposite",
    "always": "a condition that is always true",
    "never": "a condition that is never true",
    "flip": "`True` and `False` exchanged, defaults included",
    "delete": "a statement left out: an assignment, a call, a `raise`",
    "swap-field": "a field replaced by another of its kind, as `force_mask` by `user_mask`",
    "boundary": "a limit off by one, in a comparison or in a constant",
    "swap-name": "another host, VM or vCPU of the same function consulted",
    "first-vmcs": "vmcs01 instead of the loaded VMCS",
}
"""Each way to change code."""

_OPPOSITE: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
    ast.Lt: ast.GtE, ast.GtE: ast.Lt, ast.Gt: ast.LtE, ast.LtE: ast.Gt,
}
_STRICTER: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
}
_USERSPACE = (("user_mask", "user_value"),)
_PROCESSOR = (("spec_ctrl_mask", "spec_ctrl_shadow"), ("intercept_read", "intercept_write"),
              ("entry_load", "exit_load"), ("entry_load_value", "exit_load_value"))
_VCPU = (*_PROCESSOR[:2], ("vmcs01", "vmcs02"), ("VMCS01", "VMCS02"), ("smm_left_level2", "smm_left_vmx"),
         ("force_mask", "user_mask"), ("force_value", "user_value"), ("guest_view", "saved"))
_SOFTWARE = (("at_entry", "after_exit"),)
_PAIRS: dict[str, tuple[tuple[str, str], ...]] = {
    "contract": (*_USERSPACE, ("guest_view", "report")), "kvm.vm": _USERSPACE, "vmm.migration": _USERSPACE,
    "processor": _PROCESSOR, "kvm.entry": _VCPU, "kvm.msrs": _VCPU, "kvm.nested": _VCPU, "kvm.vcpu": _VCPU,
    "guest": _SOFTWARE, "exposure": _SOFTWARE, "vmm.filtering": (("mask", "value"),),
}
_NAMES = {"source": "target", "target": "source", "vm": "new_vm", "new_vm": "vm", "vcpus": "new_vcpus",
          "new_vcpus": "vcpus", "destination": "source"}
"""Names of one function that stand for two of a kind, on either side of a move."""


def _partners(module: str) -> dict[str, str]:
    pairs = _PAIRS.get(module, ())
    return {**dict(pairs), **{second: first for first, second in pairs}}


@dataclass(frozen=True)
class Mutant:
    """One change: where, which, and the text of the module's function or class with it."""

    key: str
    module: str
    operator: str
    before: str
    after: str
    written: str = ""

    @property
    def text(self) -> str:
        """As somebody wrote it, or made when it is asked for: few mutants are planted in one process."""
        if self.written:
            return self.written
        definition, _, old, new = _changes_of(self.module)[self.key]
        with _replaced(definition, old, new):
            return ast.unparse(definition) + "\n"

    def compiled(self, file: str) -> CodeType:
        """The code of the changed function alone, in its class if it is a method: little, since many are planted."""
        if self.written:
            return compile(self.written, file, "exec", dont_inherit=True)
        definition, _, old, new = _changes_of(self.module)[self.key]
        alone = changed = definition
        if isinstance(definition, ast.ClassDef):
            changed = next(child for child in definition.body if any(each is old for each in ast.walk(child)))
            alone = copy(definition)
            alone.bases, alone.decorator_list, alone.body = [], [], [changed]
        ast.copy_location(new, old)
        with _replaced(changed, old, new):
            return compile(ast.Module([ast.fix_missing_locations(alone)], []), file, "exec", dont_inherit=True)


_Place = tuple[str, str, ast.AST, ast.AST]


def _places(node: ast.AST, where: str, module: str, local: frozenset[str] = frozenset()) -> Iterator[_Place]:
    """Every change below a node, in the order of the text: function, operator, node, and what replaces it."""
    children = ast.iter_child_nodes(node)
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        where = f"{where}.{node.name}" if where else node.name
        children = iter([*([node.args] if isinstance(node, ast.FunctionDef) else []), *node.body])
    elif where:
        yield from ((where, operator, node, new) for operator, new in _changes(node, _partners(module)))
        yield from ((where, operator, node, new) for operator, new in _state_changes(node, module, local))
    elif isinstance(node, ast.Assign):
        for name in names_of(node):
            yield from ((name, "boundary", limit, new)
                        for limit in _limits(name, node.value) for new in _off_by_one(limit))
    if isinstance(node, ast.FunctionDef):
        local = frozenset(each.id for each in ast.walk(node) if isinstance(each, ast.Name)
                          and isinstance(each.ctx, ast.Store)) | {each.arg for each in node.args.args}
    for child in children:
        enum_member = isinstance(node, ast.ClassDef) and isinstance(child, ast.Assign)
        if not enum_member and child is not getattr(node, "annotation", None):
            yield from _places(child, where, module, local)


def _limits(name: str, value: ast.expr) -> list[ast.expr]:
    """The limits that a module's constant holds: the ends of a range, the most or the first of something."""
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "range":
        return value.args
    if isinstance(value, ast.Tuple):
        value = value.elts[0] if name.endswith("_FIRST") else value.elts[-1]
    return [value] if name.startswith("MAX_") or name.endswith(("_FIRST", "_LAST")) else []


def _off_by_one(limit: ast.expr) -> list[ast.expr]:
    return [ast.BinOp(limit, op, ast.Constant(1)) for op in (ast.Add(), ast.Sub())]


def _state_changes(node: ast.AST, module: str, local: frozenset[str]) -> Iterator[tuple[str, ast.AST]]:
    """Changes of what is consulted: a limit off by one, another of two of a kind."""
    match node:
        case ast.Compare(left, ops, comparators):
            for at, op in enumerate(ops):
                if type(op) in _STRICTER:
                    changed = [*ops[:at], _STRICTER[type(op)](), *ops[at + 1:]]
                    yield "boundary", ast.Compare(left, changed, comparators)
        case ast.Name(name, ast.Load()) if module == "vmm.migration" and name in local and _NAMES.get(name) in local:
            yield "swap-name", ast.Name(_NAMES[name], ast.Load())
        case ast.Attribute(ast.Name("self") as owner, "vmcs", ast.Load()):
            yield "first-vmcs", ast.Attribute(owner, "vmcs01", ast.Load())


def _changes(node: ast.AST, partners: dict[str, str]) -> Iterator[tuple[str, ast.AST]]:
    match node:
        case ast.BinOp(left, ast.BitAnd() | ast.BitOr() as op, right):
            yield "swap-bits", ast.BinOp(left, ast.BitOr() if isinstance(op, ast.BitAnd) else ast.BitAnd(), right)
        case ast.UnaryOp(ast.Invert(), operand):
            yield "drop-complement", operand
        case ast.UnaryOp(ast.Not(), operand):
            yield "drop-not", operand
        case ast.BoolOp(op, values):
            yield "swap-and-or", ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), values)
        case ast.Compare(left, [op], right):
            yield "negate-compare", ast.Compare(left, [_OPPOSITE[type(op)]()], right)
        case ast.Constant(bool() as value):
            yield "flip", ast.Constant(not value)
        case ast.Attribute(value, name, context) if name in partners:
            yield "swap-field", ast.Attribute(value, partners[name], context)
        case ast.Expr(ast.Constant()):
            pass  # a docstring
        case ast.Expr() | ast.Assign() | ast.AugAssign() | ast.Raise():
            yield "delete", ast.Pass()
        case ast.If(_, body, orelse) | ast.IfExp(_, body, orelse):
            for operator, value in (("always", True), ("never", False)):
                yield operator, type(node)(ast.Constant(value), body, orelse)  # type: ignore[arg-type]  # lists or expressions, as in the node


class _Replace(ast.NodeTransformer):
    def __init__(self, old: ast.AST, new: ast.AST) -> None:
        self.old, self.new = old, new

    def visit(self, node: ast.AST) -> Any:
        return self.new if node is self.old else super().generic_visit(node)


@contextmanager
def _replaced(node: ast.AST, old: ast.AST, new: ast.AST) -> Iterator[None]:
    """A part of a node is another meanwhile."""
    _Replace(old, new).visit(node)
    try:
        yield
    finally:
        _Replace(new, old).visit(node)


@cache
def _changes_of(module: str) -> dict[str, tuple[ast.stmt, str, ast.AST, ast.AST]]:
    """Each change of a module by its mutant's key: the function or class, the operator, the node, what replaces it."""
    counts: dict[str, int] = {}
    found: dict[str, tuple[ast.stmt, str, ast.AST, ast.AST]] = {}
    for definition in ast.parse(source_of(module).read_text("utf-8")).body:
        for where, operator, old, new in list(_places(definition, "", module)):
            key = f"{module}:{where}:{operator}"
            counts[key] = counts.get(key, 0) + 1
            found[f"{key}:{counts[key]}"] = (definition, operator, old, new)
    return found


def mutants_of(module: str) -> Iterator[Mutant]:
    """Every mutant of a module."""
    for key, (_, operator, old, new) in _changes_of(module).items():
        before, after = (ast.unparse(node).split("\n")[0] for node in (old, new))
        yield Mutant(key, module, operator, before, after)


@cache
def all_mutants() -> dict[str, Mutant]:
    """Every mutant of every rule module, by its key."""
    return {mutant.key: mutant for module in rule_modules() for mutant in mutants_of(module)}


def rule_modules() -> list[str]:
    """Every module of the model whose code carries out rules; a new one is among them.

    >>> rule_modules()[:3]
    ['contract', 'exposure', 'guest']
    """
    files = (PACKAGE / "model").rglob("*.py")
    names = [".".join(file.relative_to(PACKAGE / "model").with_suffix("").parts) for file in files]
    return sorted(name for name in names if name not in NO_RULES and not name.endswith("__init__"))


def source_of(module: str) -> Path:
    """The file of a rule module."""
    return PACKAGE.joinpath("model", *module.split(".")).with_suffix(".py")


def stored() -> dict[str, Any]:
    """The table of what noticed each mutant: ``mutants``, ``proofs``, ``theorems``, ``reached``, ``unseen``, pairs."""
    table: dict[str, Any] = json.loads(TABLE.read_text("utf-8"))
    return table


def names_of(node: ast.stmt) -> list[str]:
    """What a statement of a module defines: a class, a function, constants."""
    match node:
        case ast.ClassDef(name) | ast.FunctionDef(name):
            return [name]
        case ast.Assign([target]):
            return [each.id for each in ast.walk(target) if isinstance(each, ast.Name)]
    return []


def spread(keys: list[str], number: int) -> list[str]:
    """So many keys, evenly spread over the list.

    >>> spread(["a", "b", "c", "d", "e"], 2)
    ['a', 'd']
    """
    return [keys[-(-place * len(keys) // number)] for place in range(min(number, len(keys)))]
