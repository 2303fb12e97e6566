"""Summaries of pure functions: one term for all that a function returns, in place of a fork for each case."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from specctrl.proof.symbolic import Flag, Path, Word, flag_term, paths, settled, word_term
from specctrl.proof.terms import Term, when


def summarize(run: Callable[[], Any]) -> Any:
    """One word or flag for all that a pure function returns: its tests, nested as the function asks them.

    >>> from specctrl.proof.symbolic import word
    >>> summarize(lambda: 1 if word("x") else 0)
    <word if(x == 0x0, 0x0, 0x1)>
    """
    cases = sorted(paths(run), key=lambda case: case[0].answers)  # the same term, in whichever order they are found
    is_flag = isinstance(cases[0][1], bool | Flag)
    return settled(tree(cases, 0, flag_term if is_flag else word_term))


def tree(cases: list[tuple[Path, Any]], depth: int, term_of: Callable[[object], Term]) -> Term:
    """The term of cases that have the first answers in common, as many as ``depth``."""
    if len(cases) == 1:
        return term_of(cases[0][1])
    no, yes = ([case for case in cases if case[0].answers[depth] is answer] for answer in (False, True))
    if not no or not yes:  # the other answer is impossible here
        return tree(cases, depth + 1, term_of)
    return when(yes[0][0].conditions[depth], tree(yes, depth + 1, term_of), tree(no, depth + 1, term_of))


def identity(value: Any) -> Any:
    """What makes two arguments the same for a summary: the terms in them."""
    if isinstance(value, Word | Flag):
        return Word, value.term.serial
    if hasattr(value, "__dataclass_fields__"):
        return tuple(identity(getattr(value, name)) for name in value.__dataclass_fields__)
    if isinstance(value, tuple):
        return tuple(identity(item) for item in value)
    return value


def summary_of(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, summarized once for each list of arguments; on plain arguments, the function itself.

    >>> from specctrl.model.words import is_subset
    >>> from specctrl.proof.symbolic import word
    >>> summary_of(is_subset)(word("x"), 0x3), summary_of(is_subset)(0x4, 0x3)
    (<flag (x & 0xfffffffffffffffc) == 0x0>, False)
    """
    made: dict[Any, Any] = {}

    def call(*arguments: Any, **named: Any) -> Any:
        key = (identity(arguments), tuple(named.items()))
        if key not in made:
            made[key] = summarize(lambda: function(*arguments, **named))
        return made[key]

    return call


@contextmanager
def summarized(places: Iterable[tuple[ModuleType, str]]) -> Iterator[None]:
    """While it lasts, these pure functions of these modules are replaced by summaries of themselves.

    A proof means the same and takes fewer paths; the summary is made from the function, so no rule is written twice.
    """
    originals = [(module, name, getattr(module, name)) for module, name in places]
    summaries: dict[int, Callable[..., Any]] = {}
    for module, name, function in originals:
        setattr(module, name, summaries.setdefault(id(function), summary_of(function)))
    try:
        yield
    finally:
        for module, name, function in originals:
            setattr(module, name, function)
