"""A vCPU of which no value is known, and methods of it that are run once for all its values.

A method is run on every path through it, as in a proof; then each field becomes one term for all paths that end alike.
So what calls the method goes on once, and not once for each path.  The terms come from the rule code, which runs here:
no rule is written again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from specctrl.exploration.looks import NOTES
from specctrl.exploration.snapshot import CONSTANT, FIELDS, put, take
from specctrl.model.contract import L1Controls
from specctrl.model.kvm.state import Loaded
from specctrl.model.kvm.vcpu import Vcpu
from specctrl.model.kvm.vm import Vm
from specctrl.model.outcomes import MsrRefused, Outcome, VmEntryFailed, VmExit, VmxInstructionError
from specctrl.proof.summaries import tree
from specctrl.proof.symbolic import Flag, Path, Word, flag, flag_term, paths, settled, word, word_term
from specctrl.proof.terms import Term, truth

NOTED = ("saved_is_hardware", "host_value_after_exit")
"""What may be noted at a VM exit, each with a truth value of its own in a record."""

MERGED = ("run", "enter_guest", "exit_guest", "update_force", "update_interception", "merge_bitmap", "load_vmcs")
"""The methods that are run once for all values.  Which these are changes how long it takes, and no result."""

WORDS = ("cpu.spec_ctrl", "vmcs01.spec_ctrl_mask", "vmcs01.spec_ctrl_shadow", "vmcs02.spec_ctrl_mask",
         "vmcs02.spec_ctrl_shadow", "user_mask", "user_value", "force_mask", "force_value", "guest_view", "saved",
         "mitigation_ctrl")
FLAGS = tuple(name for name in FIELDS if name not in (*WORDS, "loaded"))
"""The fields of a state: words, and truth values.  Which VMCS is loaded is neither: it is always known."""

RAISED = (Outcome, MsrRefused, VmExit, VmxInstructionError, VmEntryFailed, AssertionError)
"""What rule code raises; anything else is of the executor, and no ending."""

CONTROLS, LOADED = FIELDS.index("controls"), FIELDS.index("loaded")

constants: Callable[[Vcpu], tuple[Any, ...]] = attrgetter(*sorted(CONSTANT))

Record = tuple[Any, ...]
"""The values of all fields, and of what is noted; words, flags, and plain values."""


class CannotMerge(Exception):
    """Rule code does what no term can say."""


def term_of(index: int, value: Any) -> Term:
    """One value of a record as a term."""
    return word_term(value) if index < len(FIELDS) and FIELDS[index] in WORDS else flag_term(value)


def symbols(loaded: Loaded) -> Record:
    """A record in which each field is a symbol of its own name, and nothing is noted."""
    fields = [loaded.value if name == "loaded" else word(name) if name in WORDS else flag(name) for name in FIELDS]
    return (*fields, *[False] * len(NOTED))


def restore(vcpu: Any, record: Record) -> None:
    """Give a vCPU the values of a record."""
    fields = list(record[:len(FIELDS)])
    fields[CONTROLS] = True
    put(vcpu, tuple(fields))
    vcpu.controls = L1Controls(use_msr_bitmap=record[CONTROLS])
    vcpu.noted = list(record[len(FIELDS):])


def recorded(vcpu: Any) -> Record:
    """The record of a vCPU."""
    noted = [True if name in NOTES else before
             for name, before in zip(NOTED, getattr(vcpu, "noted", [False] * len(NOTED)), strict=True)]
    NOTES.clear()
    vcpu.noted = noted
    return (*take(vcpu), *noted)


@dataclass(frozen=True, slots=True)
class Ending:
    """One way in which a method ends: when, what it raises, and the record then, for all its paths."""

    condition: Any
    raised: Exception | None
    record: Record


def endings(vcpu: Any, method: Callable[..., None], arguments: Sequence[Any]) -> list[Ending]:
    """Every way in which a method ends; which VMCS is loaded then tells two endings apart too."""
    before, fixed = recorded(vcpu), constants(vcpu)

    def go() -> tuple[Exception | None, Record]:
        raised: Exception | None = None
        restore(vcpu, before)
        try:
            method(vcpu, *arguments)
        except RAISED as error:
            raised = error
        if any(now is not was for now, was in zip(constants(vcpu), fixed, strict=True)):
            raise CannotMerge(f"{method.__name__} changes a field that no step of an exploration changes")
        return raised, recorded(vcpu)

    cases = in_order(paths(go))
    kinds = [(record[LOADED], type(raised), getattr(raised, "args", ())) for _, (raised, record) in cases]
    found = []
    for kind in dict.fromkeys(kinds):
        own = [case for case, its in zip(cases, kinds, strict=True) if its == kind]
        when = tree([(path, its == kind) for (path, _), its in zip(cases, kinds, strict=True)], 0, truth)
        found.append(Ending(settled(when), own[0][1][0], together([(path, record) for path, (_, record) in own])))
    return found


def as_it_is(term: Any) -> Term:
    """A value that is a term already."""
    assert isinstance(term, Term)
    return term


def in_order(cases: Any) -> list[tuple[Path, Any]]:
    """Paths with what came of each, in the order of their answers: so a term does not depend on what was found when."""
    return sorted(cases, key=lambda case: case[0].answers)


def together(cases: list[tuple[Path, Record]]) -> Record:
    """The records of some paths as one record."""
    first = cases[0][1]
    return tuple(
        first[index] if index == LOADED else settled(
            tree([(path, term_of(index, record[index])) for path, record in cases], 0, as_it_is))
        for index in range(len(first)))


def key_of(value: Any) -> Any:
    """What makes two values the same: the terms in them; a host is itself."""
    if isinstance(value, Word | Flag):
        return Word, value.term.serial
    if isinstance(value, Vm):
        return id(value.host), key_of(value.user_mask), key_of(value.user_value), value.exit_reasons, value.msr_filter
    return value


def merged(vcpu: type[Vcpu]) -> type[Vcpu]:
    """The same vCPU, with its methods of :data:`MERGED` run once for all values of a record."""
    known: dict[Any, tuple[Any, list[Ending]]] = {}

    def once(name: str) -> Callable[..., None]:
        method = getattr(vcpu, name)

        def call(self: Any, *arguments: Any) -> None:
            before = recorded(self)
            key = (name, arguments, *map(key_of, before), *map(key_of, constants(self)))
            if key not in known:
                known[key] = (self.vm.host, endings(self, method, arguments))  # the host's id is in the key
            *others, last = known[key][1]
            ending = next((one for one in others if one.condition), last)
            restore(self, ending.record)
            if ending.raised is not None:
                raise ending.raised

        return call

    return type("Merged", (vcpu,), {"__slots__": ("noted",), **{name: once(name) for name in MERGED}})
