"""How a theorem is stated: as a function whose docstring is the claim, and which yields what must hold.

An inductive claim speaks of every history.  A theorem speaks of one operation, from every state that it names: the
symbolic executor runs it, and each pair of a part's name and a term that it yields must hold on every path.
"""

from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, fields
from enum import Enum
from typing import Any, TypeVar

from specctrl.model.kvm.state import Loaded
from specctrl.model.kvm.vcpu import Vcpu
from specctrl.model.outcomes import MsrRefused, Outcome, VmEntryFailed, VmExit, VmxInstructionError
from specctrl.proof.any_vcpu import Symbols, same
from specctrl.proof.symbolic import Flag, Word, current, flag_term, word_term
from specctrl.proof.terms import Term, all_of, any_of, when
from specctrl.proof.terms import truth as truth

Choice = TypeVar("Choice")
Parts = Iterator[tuple[str, Term]]
"""What must hold at the end of a path: the names of the parts, and a term each."""


class Of(Enum):
    """The vCPUs that a theorem speaks of."""

    NONE = "none: it speaks of records that it makes itself"
    INVARIANT = "every vCPU that satisfies the invariant"
    ANY = "every vCPU, whatever its words and flags hold, on a processor of its host"


Start = tuple[Loaded, bool]
"""Which VMCS is loaded, and whether the guest runs, when the operation begins."""
L1_KVM, L2_KVM = (Loaded.VMCS01, False), (Loaded.VMCS02, False)
L1_GUEST, L2_GUEST = (Loaded.VMCS01, True), (Loaded.VMCS02, True)


@dataclass(frozen=True, slots=True)
class Theorem:
    """One claim about one operation; the rules are those whose sentence, or what of it is of words, follows."""

    name: str
    text: str
    rules: tuple[str, ...]
    of: Of
    starts: tuple[Start, ...]  # of a theorem about vCPUs
    run: Callable[[Any, Symbols], Parts]  # from the variant, or from a vCPU


THEOREMS: dict[str, Theorem] = {}
"""Every theorem, by name, in the order in which they are stated."""


def theorem(
    *starts: Start, rules: tuple[str, ...], of: Of = Of.INVARIANT
) -> Callable[[Callable[[Any, Symbols], Parts]], Theorem]:
    """State a theorem about every vCPU that is in one of these situations, and enter it.

    Without a situation it speaks of records that the function makes, with the variant's classes.
    Its name is the function's, its text the docstring's.
    """

    def entered(function: Callable[[Any, Symbols], Parts]) -> Theorem:
        text = " ".join((function.__doc__ or "").split())
        made = Theorem(function.__name__, text, rules, of if starts else Of.NONE, starts, function)
        THEOREMS[made.name] = made
        return made

    return entered


# ---- what theorems are made of


def attempt(operation: Callable[[], object]) -> Any:
    """What an operation returns, or the outcome that it raises."""
    try:
        return operation()
    except (Outcome, MsrRefused, VmExit, VmEntryFailed, VmxInstructionError) as outcome:
        return outcome


def ends(seen: object, outcome: type[Exception], value: object = None) -> bool:
    """Whether an operation ended in this outcome, with this number or reason."""
    return isinstance(seen, outcome) and (value is None or seen.args[0] == value)


def iff(left: object, right: object) -> Term:
    """The term that two truths are one."""
    return term_of(left) == term_of(right)


def term_of(value: object) -> Term:
    """A truth as a term: a bool, a flag, or a term already."""
    return value if isinstance(value, Term) else flag_term(value)


def any_bit(values: Symbols) -> Any:
    """One of the 64 bits: what holds of it holds of each."""
    bit = values.word("bit")
    term = word_term(bit)
    current().assume(all_of(term != 0, term & (term - 1) == 0))
    return bit


def choose(values: Symbols, what: str, options: Sequence[Choice]) -> Choice:
    """Each of these options, one a path."""
    for number, option in enumerate(options[:-1]):
        if values.flag(f"{what}.{number}"):
            return option
    return options[-1]


def has(word: object, bit: object) -> Term:
    """The term that a word has a bit."""
    return word_term(word) & word_term(bit) != 0


def none_of(word: object, bits: object) -> Term:
    """The term that a word has none of these bits."""
    return word_term(word) & word_term(bits) == 0


def outside(word: object, bits: object) -> Term:
    """The term that a word has a bit that is not among these."""
    return word_term(word) & ~word_term(bits) != 0


def merged_outside(view: object, mask: object, value: object, bits: object) -> Term:
    """The term that a bit is not among these in ``value``, where ``mask`` has it, or in ``view``, where it has not."""
    masked, refused = word_term(mask), ~word_term(bits)
    return any_of(word_term(value) & masked & refused != 0, word_term(view) & ~masked & refused != 0)


def taken_from(bit: object, word: object, view: object, mask: object, value: object) -> Term:
    """The term that ``word`` has this bit as ``value`` where ``mask`` has it, and as ``view`` elsewhere."""
    return has(word, bit) == when(has(mask, bit), has(value, bit), has(view, bit))


def unchanged(record: Any, before: Any, *but: str) -> Term:
    """The term that every field of a record is what it was, but for those named."""
    return all_of([equal(getattr(record, item.name), getattr(before, item.name))
                   for item in fields(record) if item.name not in but])


def equal(left: Any, right: Any) -> Term:
    """The term that two fields hold the same: words, flags, records of them, or anything that Python compares."""
    if isinstance(left, Word) or isinstance(right, Word):
        return same(left, right)
    if isinstance(left, Flag) or isinstance(right, Flag):
        return iff(left, right)
    if left is right:
        return truth(True)
    if hasattr(left, "__dataclass_fields__") and type(left) is type(right):
        return unchanged(left, right)
    if isinstance(left, tuple) and isinstance(right, tuple) and len(left) == len(right):
        return all_of([equal(one, other) for one, other in zip(left, right, strict=True)])
    return truth(bool(left == right))


def twin(vcpu: Vcpu) -> Vcpu:
    """Another vCPU in the same state, with records of its own and a VM of its own."""
    made = copy(vcpu)
    made.vm, made.cpu = copy(vcpu.vm), copy(vcpu.cpu)
    made.vmcs01, made.vmcs02 = copy(vcpu.vmcs01), copy(vcpu.vmcs02)
    return made
