"""Runs ordinary rule code on 64-bit words that stand for every value at once.

A :class:`Word` is a term (:mod:`specctrl.proof.terms`).  Where rule code tests one, the run goes on with an answer
that is possible; the whole run is repeated later with the other answer, from fresh records, if that is possible too
(:mod:`specctrl.proof.answers`).  So each run is one path through plain Python, and it comes with the conditions under
which the code takes it.  Exceptions that rule code raises (a fault, an errno) end a path like a return does.

What rule code must not do with a word (order it, add to it, format it, use it as an index) raises SymbolicError.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from specctrl.model.words import WORD
from specctrl.proof.answers import Questions
from specctrl.proof.repair import NOTHING_SET, Assignment
from specctrl.proof.terms import TRUE, Term, is_constant, not_, number, truth, variable


class SymbolicError(Exception):
    """Rule code did something with a word that cannot be followed for every value."""


class Infeasible(Exception):
    """An assumption rules this path out; it is not a path."""


@dataclass(slots=True)
class Branch:
    """A path not taken yet: the answers that lead there, and the conditions under which they are given."""

    answers: tuple[bool, ...] = ()
    conditions: tuple[Term, ...] = ()
    near: Assignment = NOTHING_SET  # values of the path from which it branches off


@dataclass(slots=True)
class Path:
    """One run: the answers that are fixed, what holds so far, and where other paths branch off."""

    branch: Branch
    questions: Questions
    near: Assignment  # values for which everything holds so far, if ``holds``; else some for which much of it does
    holds: bool = True
    answers: list[bool] = field(default_factory=list)
    conditions: list[Term] = field(default_factory=list)
    others: list[Branch] = field(default_factory=list)
    known: dict[Term, bool] = field(default_factory=dict)
    """Tests already answered."""

    def decide(self, condition: Term) -> bool:
        """The answer of a truth test on this path; the other one is another path, if it is possible."""
        if is_constant(condition):
            return condition is TRUE
        if condition in self.known:
            return self.known[condition]
        opposite = not_(condition)
        if len(self.answers) < len(self.branch.answers):
            answer = self.branch.answers[len(self.answers)]
        else:
            answer = bool(self.assignment().value(condition))
            other = opposite if answer else condition
            self.others.append(Branch((*self.answers, not answer), (*self.conditions, other), self.near))
        self.answers.append(answer)
        self.conditions.append(condition if answer else opposite)
        self.known[condition], self.known[opposite] = answer, not answer
        if len(self.answers) == len(self.branch.answers) and not self.as_foretold():
            raise SymbolicError("a run is not the same when the same tests answer alike")
        return answer

    def as_foretold(self) -> bool:
        """Whether this run came where the branch said."""
        return [term.serial for term in self.conditions] == [term.serial for term in self.branch.conditions]

    def assignment(self) -> Assignment:
        """Values for which everything holds so far; Infeasible if there are none."""
        if not self.holds:
            found = self.questions.assignment(self.conditions, self.near)
            if found is None:
                raise Infeasible
            self.near, self.holds = found, True
        return self.near

    def failing(self, owed: Sequence[Term]) -> Assignment | None:
        """Values that take this path and for which something that is owed does not hold; None if there are none."""
        return self.questions.failing(self.conditions, owed, self.near)

    def assume(self, condition: Term) -> None:
        """Restrict the path to where the condition holds."""
        self.holds = self.holds and self.near.value(condition)
        self.conditions.append(condition)


_current: list[Path] = []


def current() -> Path:
    """The path that runs; SymbolicError outside :func:`paths`."""
    if not _current:
        raise SymbolicError("a truth test of a symbolic word outside an executor's run")
    return _current[-1]


def paths(run: Callable[[], Any]) -> Iterator[tuple[Path, Any]]:
    """Run ``run`` once for each path through it; yields the path and what the run returned.

    ``run`` must build its records anew each time, and must do the same when the same tests answer alike.

    >>> def kind() -> str:
    ...     return "zero" if word("x") == 0 else "other"
    >>> sorted(result for path, result in paths(kind))
    ['other', 'zero']
    """
    questions = Questions()
    todo = [Branch()]
    while todo:
        branch = todo.pop()
        assignment = questions.assignment(branch.conditions, branch.near)
        if assignment is None:
            continue
        path = Path(branch, questions, assignment)
        _current.append(path)
        try:
            result = run()
            path.assignment()
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
    <word (x & ~y) | 0x1>
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
    return Word(variable(name, wide=True))


@cache
def flag(name: str) -> Any:
    """A truth value that stands for both; typed Any, since rule code takes it for a bool."""
    return Flag(variable(name, wide=False))


def word_term(value: object) -> Term:
    """The term of a word or an int; SymbolicError for anything else."""
    if isinstance(value, Word):
        return value.term
    if isinstance(value, int) and not isinstance(value, bool):
        if not 0 <= value <= WORD:
            raise SymbolicError(f"{value:#x} is not a 64-bit word")
        return number(value)
    raise SymbolicError(f"a symbolic word meets a {type(value).__name__}")


def flag_term(value: object) -> Term:
    """The term of a flag or a bool."""
    if isinstance(value, Flag):
        return value.term
    if isinstance(value, bool):
        return truth(value)
    raise SymbolicError(f"a truth value is expected, not a {type(value).__name__}")


def settled(term: Term) -> Any:
    """The term as a word or a flag, or as plain int or bool if nothing in it is open.

    >>> settled(word_term(0x5) & word_term(0x4)), settled(word("x").term & 0)
    (4, 0)
    """
    if is_constant(term):
        return term.value
    return Word(term) if term.wide else Flag(term)


def evaluate(assignment: Assignment, value: object) -> int | bool:
    """What a word or flag is in an assignment: a concrete value."""
    if isinstance(value, Word | Flag):
        found: int | bool = assignment.value(value.term)
        return found
    if isinstance(value, int):
        return value
    raise SymbolicError(f"a {type(value).__name__} has no value in an assignment")
