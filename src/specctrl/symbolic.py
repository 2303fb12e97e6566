"""Runs ordinary rule code on 64-bit words that stand for every value at once.

A :class:`Word` is a Z3 term.  Where rule code tests one, the test asks Z3 which answers are possible; if both
are, the run goes on with one and the whole run is repeated later with the other, from fresh records.  So each
run is one path through plain Python, with the conditions under which the code takes it.
Exceptions that rule code raises (a fault, an errno) end a path like a return does.

What rule code must not do with a word (order it, add to it, format it, use it as an index) raises SymbolicError.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import z3

from specctrl.words import WORD

WIDTH = 64


class SymbolicError(Exception):
    """Rule code did something with a word that cannot be followed for every value."""


class Infeasible(Exception):
    """An assumption rules this path out; it is not a path."""


@dataclass(slots=True)
class Path:
    """One run: the answers already fixed, the conditions met so far, and where it may branch off."""

    prefix: tuple[bool, ...]
    solver: z3.Solver
    answers: list[bool] = field(default_factory=list)
    branches: list[tuple[bool, ...]] = field(default_factory=list)
    known: dict[int, tuple[z3.BoolRef, bool]] = field(default_factory=dict)  # tests already answered
    checks: int = 0

    def possible(self, condition: z3.BoolRef) -> bool:
        """Whether the condition can hold on this path."""
        self.checks += 1
        result = self.solver.check(condition)
        if result == z3.unknown:
            raise SymbolicError(f"the solver gave up: {self.solver.reason_unknown()}")
        return bool(result == z3.sat)

    def decide(self, condition: z3.BoolRef) -> bool:
        """The answer of a truth test on this path; remembers the other one if it is possible too."""
        simple = z3.simplify(condition)
        if z3.is_true(simple) or z3.is_false(simple):
            return bool(z3.is_true(simple))
        if simple.get_id() in self.known:
            return self.known[simple.get_id()][1]
        number = len(self.answers)
        if number < len(self.prefix):
            answer = self.prefix[number]
        elif not self.possible(simple):
            answer = False
        else:
            answer = True
            if self.possible(z3.Not(simple)):
                self.branches.append((*self.answers, False))
        self.answers.append(answer)
        self.solver.add(simple if answer else z3.Not(simple))
        self.known[simple.get_id()] = (simple, answer)
        return answer


_current: list[Path] = []


def current() -> Path:
    """The path that runs; SymbolicError outside :func:`paths`."""
    if not _current:
        raise SymbolicError("a truth test of a symbolic word outside an executor's run")
    return _current[-1]


def paths(run: Callable[[], Any]) -> Iterator[tuple[Path, Any]]:
    """Run ``run`` once for each path through it; yields the path and what the run returned.

    ``run`` must build its records anew each time, and must do the same when the same tests answer alike.

    >>> def absolute() -> str:
    ...     return "zero" if word("x") == 0 else "other"
    >>> sorted(result for path, result in paths(absolute))
    ['other', 'zero']
    """
    todo: list[tuple[bool, ...]] = [()]
    while todo:
        path = Path(todo.pop(), z3.Solver())
        _current.append(path)
        try:
            result = run()
        except Infeasible:
            todo += path.branches
            continue
        finally:
            _current.pop()
        todo += path.branches
        if path.possible(z3.BoolVal(True)):
            yield path, result


def assume(condition: "Flag | bool") -> None:
    """Restrict the path to where the condition holds; a path on which that is nowhere is none."""
    current().solver.add(flag_term(condition))


def refuse(name: str) -> Callable[..., Any]:
    """A method that says what rule code must not do."""

    def method(self: object, *_: object) -> Any:
        raise SymbolicError(f"rule code uses {name} on a symbolic {type(self).__name__.lower()}")

    return method


class Flag:
    """A truth value that may depend on symbolic words; testing it forks."""

    __slots__ = ("term",)

    def __init__(self, term: z3.BoolRef) -> None:
        self.term = term

    def __bool__(self) -> bool:
        return current().decide(self.term)

    __hash__ = None  # type: ignore[assignment]  # a flag has no value to hash
    __and__ = __or__ = __xor__ = __invert__ = __int__ = __index__ = refuse("bit arithmetic")
    __eq__ = __ne__ = refuse("comparison")  # type: ignore[assignment]  # test it instead

    def __repr__(self) -> str:
        return f"<flag {self.term}>"


class Word:
    """A 64-bit word that may stand for every value."""

    __slots__ = ("term",)

    def __init__(self, term: z3.BitVecRef) -> None:
        self.term = term

    def __and__(self, other: "Word | int") -> "Word":
        return Word(self.term & word_term(other))

    def __or__(self, other: "Word | int") -> "Word":
        return Word(self.term | word_term(other))

    def __xor__(self, other: "Word | int") -> "Word":
        return Word(self.term ^ word_term(other))

    __rand__, __ror__, __rxor__ = __and__, __or__, __xor__

    def __invert__(self) -> "Word":
        return Word(~self.term)

    def __eq__(self, other: object) -> Flag:  # type: ignore[override]  # the answer is symbolic too
        return Flag(self.term == word_term(other))

    def __ne__(self, other: object) -> Flag:  # type: ignore[override]  # the answer is symbolic too
        return Flag(self.term != word_term(other))

    def __bool__(self) -> bool:
        return current().decide(self.term != 0)

    __hash__ = None  # type: ignore[assignment]  # a word is no key of a table
    __lt__ = __le__ = __gt__ = __ge__ = refuse("order")
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __lshift__ = __rshift__ = refuse("arithmetic")
    __int__ = __index__ = __float__ = refuse("conversion to a number")
    __format__ = __len__ = __iter__ = refuse("formatting or indexing")

    def __repr__(self) -> str:
        return f"<word {self.term}>"


def word(name: str) -> Any:
    """A word that stands for every value; typed Any, since rule code takes it for an int."""
    return Word(z3.BitVec(name, WIDTH))


def flag(name: str) -> Any:
    """A truth value that stands for both; typed Any, since rule code takes it for a bool."""
    return Flag(z3.Bool(name))


def word_term(value: object) -> z3.BitVecRef:
    """The Z3 term of a word or an int; SymbolicError for anything else, ~ of an int among it."""
    if isinstance(value, Word):
        return value.term
    if isinstance(value, int) and not isinstance(value, bool):
        if not -WORD - 1 <= value <= WORD:
            raise SymbolicError(f"{value:#x} is not a 64-bit word")
        return z3.BitVecVal(value, WIDTH)
    raise SymbolicError(f"a symbolic word meets a {type(value).__name__}")


def flag_term(value: object) -> z3.BoolRef:
    """The Z3 term of a flag or a bool."""
    if isinstance(value, Flag):
        return value.term
    if isinstance(value, bool):
        return z3.BoolVal(value)
    raise SymbolicError(f"a truth value is expected, not a {type(value).__name__}")


def summarize(run: Callable[[], Any]) -> Any:
    """One term for all that a pure function returns, over all its paths: a case distinction instead of a fork.

    >>> def clamp() -> int:
    ...     return 1 if word("x") else 0
    >>> summarize(clamp)
    <word If(x == 0, 0, 1)>
    """
    cases = [(z3.And(path.solver.assertions()), result) for path, result in paths(run)]
    if isinstance(cases[0][1], bool | Flag):
        term = flag_term(cases[0][1])
        for condition, result in cases[1:]:
            term = z3.If(condition, flag_term(result), term)
        return Flag(z3.simplify(term))
    term = word_term(cases[0][1])
    for condition, result in cases[1:]:
        term = z3.If(condition, word_term(result), term)
    return Word(z3.simplify(term))


def identity(value: Any) -> Any:
    """What makes two arguments the same for a summary: the terms in them."""
    if isinstance(value, Word | Flag):
        return value.term.get_id()
    if hasattr(value, "__dataclass_fields__"):
        return tuple(identity(getattr(value, name)) for name in value.__dataclass_fields__)
    return value


@contextmanager
def summarized(places: Iterable[tuple[ModuleType, str]]) -> Iterator[None]:
    """While it lasts, these pure functions of these modules are replaced by summaries of themselves.

    A proof means the same and takes fewer paths; the summary is made from the function, so no rule is written twice.
    """
    originals = [(module, name, getattr(module, name)) for module, name in places]
    for module, name, function in originals:
        setattr(module, name, _summary_of(function))
    try:
        yield
    finally:
        for module, name, function in originals:
            setattr(module, name, function)


def _summary_of(function: Callable[..., Any]) -> Callable[..., Any]:
    made: dict[Any, tuple[Any, Any]] = {}

    def call(*arguments: Any) -> Any:
        key = tuple(identity(argument) for argument in arguments)
        if key not in made:
            made[key] = (arguments, summarize(lambda: function(*arguments)))  # the arguments keep their terms alive
        return made[key][1]

    return call


def evaluate(model: z3.ModelRef, value: object) -> int | bool:
    """What a word or flag is in a model: a concrete counterexample."""
    if isinstance(value, Word):
        return int(model.eval(value.term, model_completion=True).as_long())
    if isinstance(value, Flag):
        return bool(z3.is_true(model.eval(value.term, model_completion=True)))
    if isinstance(value, (int, bool)):
        return value
    raise SymbolicError(f"a {type(value).__name__} has no value in a model")
