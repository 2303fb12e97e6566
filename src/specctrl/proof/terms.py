"""Terms: formulas over named 64-bit words and named truth values.  Plain Python; no solver is asked here.

A term is made by the functions below or by an operator, and never changes.  Two things are done when one is made:

* The same formula made twice is one object, so that ``is`` tells whether two terms are the same.  Every term that was
  ever made is kept; its ``serial`` stands for it and is given to no other.
* What can be said of it already is said (*folding*): ``x & 0`` is 0, ``x ^ x`` is 0, and so on.

Folding is part of what a proof trusts: each case must be an identity, true for every value.
The tests compare random terms with what Python computes from the same operators on integers.
"""

from collections.abc import Callable, Iterable
from functools import reduce
from typing import Any

from specctrl.model.words import WORD

NAME, CONSTANT, IF = "name", "constant", "if"
BITAND, BITOR, BITXOR, COMPLEMENT, MINUS = "&", "|", "^", "~", "-"
EQUAL, NOT, ALL, ANY = "==", "not", "all", "any"


class Term:
    """A formula: its kind, and the terms that it is made of.  ``wide``: a word; otherwise it is a truth value.

    ``value`` is a constant's number or truth, and a name's name.
    """

    __slots__ = ("kind", "opposite", "parts", "serial", "value", "wide")

    def __init__(self, kind: str, parts: tuple["Term", ...], value: Any, wide: bool, serial: int) -> None:
        self.kind, self.parts, self.value, self.wide, self.serial = kind, parts, value, wide, serial
        self.opposite: Term | None = None  # its NOT or COMPLEMENT, once that was made

    def __and__(self, other: "Term | int") -> "Term":
        return _combined(BITAND, self, word_of(other))

    def __or__(self, other: "Term | int") -> "Term":
        return _combined(BITOR, self, word_of(other))

    def __xor__(self, other: "Term | int") -> "Term":
        return _exclusive(self, word_of(other))

    __rand__, __ror__, __rxor__ = __and__, __or__, __xor__

    def __invert__(self) -> "Term":
        return _opposite(self, COMPLEMENT)

    def __sub__(self, other: "Term | int") -> "Term":
        return _minus(self, word_of(other))

    def __eq__(self, other: object) -> "Term":  # type: ignore[override]  # the answer is a term too
        return equal(self, other if isinstance(other, Term) else word_of(other) if self.wide else truth(bool(other)))

    def __ne__(self, other: object) -> "Term":  # type: ignore[override]  # the answer is a term too
        return not_(self == other)

    def __hash__(self) -> int:
        return self.serial

    def __bool__(self) -> bool:
        raise TypeError(f"the truth of {self} depends on what its names stand for")

    def __repr__(self) -> str:
        return written(self)


_TERMS: dict[tuple[Any, ...], Term] = {}


def _made(kind: str, parts: tuple[Term, ...], value: Any = None, *, wide: bool) -> Term:
    """The term of this kind and these parts, which there is once."""
    key = (kind, value, wide, *[part.serial for part in parts])
    found = _TERMS.get(key)
    if found is None:
        found = _TERMS[key] = Term(kind, parts, value, wide, len(_TERMS))
    return found


def number(value: int) -> Term:
    """A word that is known; bits above the 64th are cut off."""
    return _made(CONSTANT, (), value & WORD, wide=True)


def truth(value: object) -> Term:
    """A truth value that is known, or settled on this path."""
    return TRUE if value else FALSE


def variable(name: str, wide: bool) -> Term:
    """A word, or a truth value, that may be any."""
    return _made(NAME, (), name, wide=wide)


TRUE, FALSE = (_made(CONSTANT, (), value, wide=False) for value in (True, False))
ZERO, ONES = number(0), number(WORD)


def word_of(value: Any) -> Term:
    """A term that is a word, from itself or from an int."""
    if isinstance(value, Term):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return number(value)
    raise TypeError(f"a word is expected, not a {type(value).__name__}")


def is_constant(term: Term) -> bool:
    """Whether nothing in it is open."""
    return term.kind is CONSTANT


# ---- words


def _opposite(term: Term, kind: str) -> Term:
    """NOT of a truth value, COMPLEMENT of a word: twice is the term itself."""
    if term.opposite is None:
        if term.kind is CONSTANT:
            made = number(~term.value) if kind is COMPLEMENT else truth(not term.value)
        else:
            made = _made(kind, (term,), wide=term.wide)
        term.opposite, made.opposite = made, term
    return term.opposite


def _collected(kind: str, terms: Iterable[Term]) -> dict[int, Term] | None:
    """The parts of a combination, each once, nested ones of the same kind opened; None if two are opposites."""
    found: dict[int, Term] = {}
    for term in terms:
        for part in term.parts if term.kind is kind else (term,):
            found[part.serial] = part
    opposites = (part.opposite for part in found.values())
    return None if any(one is not None and one.serial in found for one in opposites) else found


def _combined(kind: str, left: Term, right: Term) -> Term:
    """``&`` or ``|`` of words: parts in one order, all constants one, which comes last."""
    if left is right:
        return left
    neutral, absorbing = (ONES, ZERO) if kind is BITAND else (ZERO, ONES)
    found = _collected(kind, (left, right))
    if found is None:
        return absorbing  # x & ~x, x | ~x
    constants = [part.value for part in found.values() if part.kind is CONSTANT]
    bits = reduce(int.__and__ if kind is BITAND else int.__or__, constants, neutral.value)
    if bits == absorbing.value:
        return absorbing
    parts = sorted((part for part in found.values() if part.kind is not CONSTANT), key=_serial)
    if bits != neutral.value or not parts:
        parts.append(number(bits))
    return parts[0] if len(parts) == 1 else _made(kind, tuple(parts), wide=True)


def _serial(term: Term) -> int:
    return term.serial


def _exclusive(left: Term, right: Term) -> Term:
    """``^`` of words."""
    if left is right:
        return ZERO
    left, right = _ordered(left, right)
    if right.kind is CONSTANT:
        if left.kind is CONSTANT:
            return number(left.value ^ right.value)
        if right is ZERO or right is ONES:
            return left if right is ZERO else ~left
    return _made(BITXOR, (left, right), wide=True)


def _minus(left: Term, right: Term) -> Term:
    """``-`` of words, modulo 2**64."""
    if left.kind is CONSTANT and right.kind is CONSTANT:
        return number(left.value - right.value)
    return _made(MINUS, (left, right), wide=True)


def _ordered(left: Term, right: Term) -> tuple[Term, Term]:
    """Two terms of which the order does not matter: a constant last, otherwise as they were made."""
    if left.kind is CONSTANT or (right.kind is not CONSTANT and left.serial > right.serial):
        return right, left
    return left, right


# ---- truth values


def not_(term: Term) -> Term:
    """That it does not hold."""
    return _opposite(term, NOT)


def _junction(kind: str, terms: tuple[Any, ...]) -> Term:
    neutral, absorbing = (TRUE, FALSE) if kind is ALL else (FALSE, TRUE)
    found = _collected(kind, terms[0] if len(terms) == 1 and isinstance(terms[0], list) else terms)
    if found is None or absorbing.serial in found:
        return absorbing
    found.pop(neutral.serial, None)
    if len(found) < 2:
        return next(iter(found.values()), neutral)
    return _made(kind, tuple(sorted(found.values(), key=_serial)), wide=False)


def all_of(*terms: Term | list[Term]) -> Term:
    """That all of these hold; they may come as one list."""
    return _junction(ALL, terms)


def any_of(*terms: Term | list[Term]) -> Term:
    """That one of these holds at least; they may come as one list."""
    return _junction(ANY, terms)


def implies(premise: Term, conclusion: Term) -> Term:
    """That the second holds where the first does."""
    return any_of(not_(premise), conclusion)


def equal(left: Term, right: Term) -> Term:
    """That two words, or two truth values, are the same."""
    if left.wide is not right.wide:
        raise TypeError(f"{left} and {right}: a word is no truth value")
    if left is right:
        return TRUE
    if left.opposite is right:
        return FALSE
    left, right = _ordered(left, right)
    if right.kind is CONSTANT:
        folded = _equal_to_number(left, right) if left.wide else left if right is TRUE else not_(left)
        if folded is not None:
            return folded
    elif not left.wide and (left.kind is NOT or right.kind is NOT):  # not a == b is: not a == b
        plain = [term.parts[0] if term.kind is NOT else term for term in (left, right)]
        return equal(*plain) if left.kind is right.kind else not_(equal(*plain))
    return _made(EQUAL, (left, right), wide=False)


def _equal_to_number(word: Term, constant: Term) -> Term | None:
    """What equality with a constant comes to, if that is simpler."""
    bits = constant.value
    match word.kind:
        case "constant":
            return FALSE  # the same one is one object
        case "~":
            return equal(word.parts[0], ~constant)
        case "if":
            condition, then, otherwise = word.parts
            if is_constant(then) or is_constant(otherwise):
                return when(condition, equal(then, constant), equal(otherwise, constant))
        case "&":
            if is_constant(word.parts[-1]) and bits & ~word.parts[-1].value:
                return FALSE
        case "|":
            if is_constant(word.parts[-1]) and ~bits & word.parts[-1].value:
                return FALSE
            if bits == 0:
                return all_of([equal(part, ZERO) for part in word.parts])
    return None


def when(condition: Term, then: Term, otherwise: Term) -> Term:
    """The one or the other, words or truth values, by a condition."""
    if then.wide is not otherwise.wide:
        raise TypeError(f"{then} and {otherwise}: a word is no truth value")
    if condition.kind is NOT:
        condition, then, otherwise = condition.parts[0], otherwise, then
    if then.kind is IF and then.parts[0] is condition:
        then = then.parts[1]
    if otherwise.kind is IF and otherwise.parts[0] is condition:
        otherwise = otherwise.parts[2]
    if condition.kind is CONSTANT:
        return then if condition.value else otherwise
    if then is otherwise:
        return then
    if not then.wide:
        if then.kind is CONSTANT:
            return any_of(condition, otherwise) if then.value else all_of(not_(condition), otherwise)
        if otherwise.kind is CONSTANT:
            return any_of(not_(condition), then) if otherwise.value else all_of(condition, then)
    return _made(IF, (condition, then, otherwise), wide=then.wide)


# ---- what is done with terms

_MADE_OF: dict[str, Callable[..., Term]] = {
    BITAND: lambda *parts: reduce(Term.__and__, parts), BITOR: lambda *parts: reduce(Term.__or__, parts),
    BITXOR: _exclusive, COMPLEMENT: Term.__invert__, MINUS: _minus,
    EQUAL: equal, NOT: not_, ALL: all_of, ANY: any_of, IF: when,
}
"""How a term of each kind is made again from other parts."""


def substitute(term: Term, name: Term, by: Term) -> Term:
    """The term with another in place of a name.

    >>> x, y = variable("x", wide=True), variable("y", wide=True)
    >>> substitute(x & 0x3 == y, x, y & 0x1)
    (y & 0x1) == y
    """
    done = {name.serial: by}

    def replaced(old: Term) -> Term:
        if name.serial not in names_in(old):
            return old
        new = done.get(old.serial)
        if new is None:
            new = done[old.serial] = _MADE_OF[old.kind](*[replaced(part) for part in old.parts])
        return new

    return replaced(term)


def names_in(term: Term) -> frozenset[int]:
    """The serials of the names in a term."""
    found = _NAMES.get(term.serial)
    if found is None:
        found = frozenset([term.serial]) if term.kind is NAME else frozenset().union(*map(names_in, term.parts))
        _NAMES[term.serial] = found
    return found


_NAMES: dict[int, frozenset[int]] = {}


def value_of(term: Term, known: dict[int, Any]) -> Any:
    """What a term is when its names are what ``known`` says, by serial; a name that is not there is 0 or False.

    ``known`` is filled with the values of all terms that were looked at.

    >>> x = variable("x", wide=True)
    >>> value_of(x & 0x6 == 0x4, {x.serial: 0xd})
    True
    """
    value = known.get(term.serial)
    if value is not None:
        return value
    kind, parts = term.kind, term.parts
    if kind is CONSTANT:
        return term.value
    if kind is NAME:
        value = 0 if term.wide else False
    elif kind is EQUAL:
        value = value_of(parts[0], known) == value_of(parts[1], known)
    elif kind is NOT:
        value = not value_of(parts[0], known)
    elif kind is ALL:
        value = all(value_of(part, known) for part in parts)
    elif kind is ANY:
        value = any(value_of(part, known) for part in parts)
    elif kind is IF:
        value = value_of(parts[1] if value_of(parts[0], known) else parts[2], known)
    elif kind is COMPLEMENT:
        value = ~value_of(parts[0], known) & WORD
    elif kind is MINUS:
        value = (value_of(parts[0], known) - value_of(parts[1], known)) & WORD
    else:
        operator = {BITAND: int.__and__, BITOR: int.__or__, BITXOR: int.__xor__}[kind]
        value = reduce(operator, [value_of(part, known) for part in parts])
    known[term.serial] = value
    return value


def written(term: Term) -> str:
    """A term as text, as Python would have it.

    >>> x, y = variable("x", wide=True), variable("y", wide=True)
    >>> when(x == 0, x & ~y | 0x1, y)
    if(x == 0x0, (x & ~y) | 0x1, y)
    """
    match term.kind:
        case "name":
            return str(term.value)
        case "constant":
            return hex(term.value) if term.wide else str(term.value)
        case "if":
            return f"if({', '.join(map(written, term.parts))})"
    texts = [f"({written(part)})" if len(part.parts) > 1 and part.kind is not IF else written(part)
             for part in term.parts]
    if len(texts) == 1:
        return f"{'not ' if term.kind is NOT else '~'}{texts[0]}"
    if term.kind is not MINUS:  # the order means nothing: it is that of the text, a constant last
        texts.sort(key=lambda text: (text[0].isdigit(), text))
    word = {ALL: "and", ANY: "or"}.get(term.kind, term.kind)
    return f" {word} ".join(texts)
