"""Runs ordinary rule code on 64-bit words that stand for every value at once.

A :class:`Word` is a Z3 term.  Where rule code tests one, the run goes on with an answer that is possible; the whole
run is repeated later with the other answer, from fresh records, if Z3 says that this one is possible too.  So each
run is one path through plain Python, and it comes with the conditions under which the code takes it.
Exceptions that rule code raises (a fault, an errno) end a path like a return does.

What rule code must not do with a word (order it, add to it, format it, use it as an index) raises SymbolicError.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import z3

from specctrl.model.words import WORD

WIDTH = 64
Term = Any
"""A term of Z3, which publishes no types."""


class SymbolicError(Exception):
    """Rule code did something with a word that cannot be followed for every value."""


class Infeasible(Exception):
    """An assumption rules this path out; it is not a path."""


class Questions:
    """Asks Z3 whether conditions can hold together.  Each condition gets a name, so that it is translated once."""

    def __init__(self) -> None:
        self._solver = z3.SolverFor("QF_BV")
        self._names: dict[int, tuple[Term, Term]] = {}

    def name(self, condition: Term) -> Term:
        """A boolean variable that is true where the condition is."""
        found = self._names.get(condition.get_id())
        if found is None:
            found = (condition, z3.Bool(f"?{len(self._names)}"))  # the condition kept here keeps its id
            self._names[condition.get_id()] = found
            self._solver.add(found[1] == condition)
        return found[1]

    def model(self, conditions: Sequence[Term]) -> Any:
        """Values for which all conditions hold; None if there are none."""
        result = self._solver.check([self.name(condition) for condition in conditions])
        return answer_of(self._solver, result)


def failing(conditions: Sequence[Term], owed: Sequence[Term]) -> Any:
    """Values for which all conditions hold and something that is owed does not; None if there are none."""
    solver = z3.SolverFor("QF_BV")
    solver.add(*conditions, z3.Not(z3.And(owed)))
    return answer_of(solver, solver.check())


def answer_of(solver: Any, result: Any) -> Any:
    """The solver's model, or None; SymbolicError if it gave up."""
    if result == z3.unknown:
        raise SymbolicError(f"the solver gave up: {solver.reason_unknown()}")
    return solver.model() if result == z3.sat else None


@dataclass(slots=True)
class Branch:
    """A path not taken yet: the answers that lead there, and the conditions under which they are given."""

    answers: tuple[bool, ...] = ()
    conditions: tuple[Term, ...] = ()


@dataclass(slots=True)
class Path:
    """One run: the answers that are fixed, what holds so far, and where other paths branch off."""

    branch: Branch
    questions: Questions
    model: Any  # values for which everything holds so far; None: not known
    answers: list[bool] = field(default_factory=list)
    conditions: list[Term] = field(default_factory=list)
    others: list[Branch] = field(default_factory=list)
    known: dict[int, tuple[Term, bool]] = field(default_factory=dict)
    """Tests already answered, by the condition's id; the condition stands with its answer, since Z3 gives the id of a
    term that nobody keeps to another term."""

    def decide(self, condition: Term) -> bool:
        """The answer of a truth test on this path; the other one is another path, if it is possible."""
        condition = z3.simplify(condition)
        if z3.is_true(condition) or z3.is_false(condition):
            return bool(z3.is_true(condition))
        if condition.get_id() in self.known:
            return self.known[condition.get_id()][1]
        opposite = z3.simplify(z3.Not(condition))
        if len(self.answers) < len(self.branch.answers):
            answer = self.branch.answers[len(self.answers)]
        else:
            answer = bool(z3.is_true(self.some_model().eval(condition, model_completion=True)))
            other = opposite if answer else condition
            self.others.append(Branch((*self.answers, not answer), (*self.conditions, other)))
        self.answers.append(answer)
        self.conditions.append(condition if answer else opposite)
        self.known[condition.get_id()], self.known[opposite.get_id()] = (condition, answer), (opposite, not answer)
        if len(self.answers) == len(self.branch.answers) and not self.as_foretold():
            raise SymbolicError("a run is not the same when the same tests answer alike")
        return answer

    def as_foretold(self) -> bool:
        """Whether this run came where the branch said."""
        if len(self.conditions) != len(self.branch.conditions):
            return False
        pairs = zip(self.conditions, self.branch.conditions, strict=True)
        changed = [z3.Xor(mine, told) for mine, told in pairs if mine.get_id() != told.get_id()]
        return not changed or Questions().model([z3.Or(changed)]) is None

    def some_model(self) -> Any:
        """Values for which everything holds so far; Infeasible if there are none."""
        if self.model is None:
            self.model = self.questions.model(self.conditions)
            if self.model is None:
                raise Infeasible
        return self.model

    def assume(self, condition: Term) -> None:
        """Restrict the path to where the condition holds."""
        if self.model is not None and not z3.is_true(self.model.eval(condition, model_completion=True)):
            self.model = None
        self.conditions.append(condition)


_current: list[Path] = []


def current() -> Path:
    """The path that runs; SymbolicError outside :func:`paths`."""
    if not _current:
        raise SymbolicError("a truth test of a symbolic word outside an executor's run")
    return _current[-1]


def paths(run: Callable[[], Any], questions: Questions | None = None) -> Iterator[tuple[Path, Any]]:
    """Run ``run`` once for each path through it; yields the path and what the run returned.

    ``run`` must build its records anew each time, and must do the same when the same tests answer alike.

    >>> def kind() -> str:
    ...     return "zero" if word("x") == 0 else "other"
    >>> sorted(result for path, result in paths(kind))
    ['other', 'zero']
    """
    questions = questions or Questions()
    todo = [Branch()]
    while todo:
        branch = todo.pop()
        model = questions.model(branch.conditions) if branch.conditions else None
        if branch.conditions and model is None:
            continue
        path = Path(branch, questions, model)
        _current.append(path)
        try:
            result = run()
            path.some_model()
        except Infeasible:
            continue
        finally:
            _current.pop()
            todo += path.others
        yield path, result


def assume(condition: "Flag | bool") -> None:
    """Restrict the path to where the condition holds; a path on which that is nowhere is none.

    >>> def high() -> bool:
    ...     assume(word("x") & 0x4 != 0)
    ...     return bool(word("x") == 0)
    >>> [result for path, result in paths(high)]
    [False]
    """
    current().assume(flag_term(condition))


def refuse(name: str) -> Callable[..., Any]:
    """A method that says what rule code must not do."""

    def method(self: object, *_: object) -> Any:
        raise SymbolicError(f"rule code uses {name} on a symbolic {type(self).__name__.lower()}")

    return method


class Flag:
    """A truth value that may depend on symbolic words; testing it forks."""

    __slots__ = ("term",)

    def __init__(self, term: Term) -> None:
        self.term = term

    def __bool__(self) -> bool:
        return current().decide(self.term)

    __hash__ = None  # type: ignore[assignment]  # a flag has no value to hash
    __and__ = __or__ = __xor__ = __rand__ = __ror__ = __rxor__ = refuse("bit arithmetic")
    __invert__ = __int__ = __index__ = refuse("bit arithmetic")
    __eq__ = __ne__ = refuse("comparison")

    def __repr__(self) -> str:
        return f"<flag {self.term}>"


class Word:
    """A 64-bit word that may stand for every value.

    >>> (word("x") & ~word("y")) | 0x1
    <word x & ~y | 1>
    """

    __slots__ = ("term",)

    def __init__(self, term: Term) -> None:
        self.term = term

    def __and__(self, other: "Word | int") -> "Word":
        if isinstance(other, int) and -WORD - 1 <= other < 0:
            other &= WORD  # ~ of an int, as the right operand of &
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
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __lshift__ = __rshift__ = refuse("arithmetic")
    __int__ = __index__ = __float__ = refuse("conversion to a number")
    __format__ = __len__ = __iter__ = refuse("formatting or indexing")

    def __repr__(self) -> str:
        return f"<word {self.term}>"


@cache
def word(name: str) -> Any:
    """A word that stands for every value; typed Any, since rule code takes it for an int."""
    return Word(z3.BitVec(name, WIDTH))


@cache
def flag(name: str) -> Any:
    """A truth value that stands for both; typed Any, since rule code takes it for a bool."""
    return Flag(z3.Bool(name))


def word_term(value: object) -> Term:
    """The Z3 term of a word or an int; SymbolicError for anything else."""
    if isinstance(value, Word):
        return value.term
    if isinstance(value, int) and not isinstance(value, bool):
        if not 0 <= value <= WORD:
            raise SymbolicError(f"{value:#x} is not a 64-bit word")
        return z3.BitVecVal(value, WIDTH)
    raise SymbolicError(f"a symbolic word meets a {type(value).__name__}")


def flag_term(value: object) -> Term:
    """The Z3 term of a flag or a bool."""
    if isinstance(value, Flag):
        return value.term
    if isinstance(value, bool):
        return z3.BoolVal(value)
    raise SymbolicError(f"a truth value is expected, not a {type(value).__name__}")


def settled(term: Term) -> Any:
    """The term as a word or a flag, or as plain int or bool if nothing in it is open.

    >>> settled(word_term(0x5) & word_term(0x4)), settled(word("x").term & 0)
    (4, 0)
    """
    term = z3.simplify(term)
    if z3.is_bv(term):
        return int(term.as_long()) if z3.is_bv_value(term) else Word(term)
    return bool(z3.is_true(term)) if z3.is_true(term) or z3.is_false(term) else Flag(term)


def evaluate(model: Any, value: object) -> int | bool:
    """What a word or flag is in a model: a concrete value."""
    if isinstance(value, Word):
        return int(model.eval(value.term, model_completion=True).as_long())
    if isinstance(value, Flag):
        return bool(z3.is_true(model.eval(value.term, model_completion=True)))
    if isinstance(value, int):
        return value
    raise SymbolicError(f"a {type(value).__name__} has no value in a model")
