"""Kernels: what an event does to every state of a vCPU, and of the contract, as terms over the fields of a state.

An event's own code (:mod:`specctrl.exploration.events`) runs on symbols, once for each VMCS that can be loaded, with
the control and without.  The host is symbolic too, and so are the words of the event, so that one kernel serves all
hosts, all pairs of userspace and all values.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from specctrl.exploration.compiled.merging import (
    LOADED,
    NOTED,
    RAISED,
    CannotMerge,
    Record,
    as_it_is,
    in_order,
    merged,
    recorded,
    restore,
    symbols,
    term_of,
)
from specctrl.exploration.events import REFUSED, Event
from specctrl.exploration.looks import (
    broken_by_move,
    broken_by_register,
    broken_by_reset,
    forced_by,
    of_contract,
    of_vcpu,
)
from specctrl.exploration.snapshot import FIELDS, forget
from specctrl.model.contract import Contract, L1Controls, ReportKeptBy
from specctrl.model.kvm.state import Loaded
from specctrl.model.kvm.variant import Assumptions, Variant
from specctrl.model.kvm.vcpu import Vcpu
from specctrl.model.outcomes import HostFault, Outcome
from specctrl.model.parts import Features, Host
from specctrl.model.vmm.migration import Plan, migrate
from specctrl.proof.any_vcpu import Symbols, any_host, exists
from specctrl.proof.induction import PURE
from specctrl.proof.summaries import summarized, tree
from specctrl.proof.symbolic import Path, Word, flag, flag_term, paths, word, word_term
from specctrl.proof.terms import ZERO, Term, any_of, equal, not_, truth

AT = "at."
"""The names of the contract's fields begin so; those of the vCPU's have the names of the rule code."""
CONTRACT_WORDS = ("guest_view", "user_mask", "user_value", "report")
CONTRACT_FLAGS = ("level", "vmx_operation", "controls", "smm", "smm_left_level2", "smm_left_vmx", "init_pending",
                  "shut_down")
"""The fields of the contract that change, but for the host; as a flag, ``level`` is whether L2 runs."""

NOTHING, ONE_WORD, TWO_WORDS, NO_WORDS, LIST_OF_ONE, HOST_FAULT, IMPOSSIBLE, CRASH = range(8)
"""How a step ends: with nothing to show, a word, a list of words; the host faults; the contract does not allow the
event; rule code raises what no search catches."""
FIRST_OTHER = 16
"""Outcomes have numbers from here."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A node of a diagram: a test, and what comes of it."""

    test: Term
    yes: "Choice | int"
    no: "Choice | int"


Diagram = Choice | int
"""How a step ends, and which tests decide it."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """What one event does: how it ends, the words that it shows, and what each field is afterwards."""

    ends: Diagram
    shows: tuple[Term, Term]
    after: dict[str, Term]


Case = tuple[int, list[Any], dict[str, Term] | None]
"""What comes of one path: the number of the ending, what it shows, and the fields; None if there is no state then."""


def kernel(cases: list[tuple[Path, Case]]) -> Kernel:
    """The paths of an event as one kernel."""
    shows = [[(path, word_term(case[1][place]) if place < len(case[1]) else ZERO) for path, case in cases]
             for place in (0, 1)]
    states = [(path, state) for path, (_, _, state) in cases if state is not None]
    names = states[0][1] if states else {}
    return Kernel(
        diagram([(path, case[0]) for path, case in cases], 0),
        (tree(shows[0], 0, as_it_is), tree(shows[1], 0, as_it_is)),
        {name: tree([(path, state[name]) for path, state in states], 0, as_it_is) for name in names})


def diagram(cases: list[tuple[Path, int]], depth: int) -> Diagram:
    """The ending of cases that have the first answers in common, as many as ``depth``."""
    if all(number == cases[0][1] for _, number in cases):
        return cases[0][1]
    no, yes = ([case for case in cases if case[0].answers[depth] is answer] for answer in (False, True))
    if not no or not yes:
        return diagram(cases, depth + 1)
    return Choice(yes[0][0].conditions[depth], diagram(yes, depth + 1), diagram(no, depth + 1))


Form = tuple[Any, ...]
"""What events have in common that differ in words alone; of migrations, their order."""


def form_of(event: Event) -> Form:
    """The form of an event."""
    if event.moves_to is not None:
        return "migrate", event.order
    if not event.form:
        raise CannotMerge(f"{event.op} does not say what makes it")
    return (*event.form, event.possible, event.violates)


@dataclass(slots=True)
class Kernels:
    """The kernels of a variant, for guests with one CPUID."""

    variant: Variant
    cpuid: Features
    forgets: bool
    outcomes: list[Any] = field(default_factory=list)
    machine: Variant = field(init=False)
    hosts: dict[tuple[str, bool], Host] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.machine = replace(self.variant, vcpu=merged(self.variant.vcpu))

    # ---- symbols

    def host(self, name: str, control: bool) -> Host:
        """A host of which only the control is known; the same one each time."""
        if (name, control) not in self.hosts:
            self.hosts[name, control] = replace(any_host(Symbols(), name), spec_ctrl_shadow=control)
        return self.hosts[name, control]

    def vcpu(self, control: bool) -> Vcpu:
        """A vCPU of which only the control is known; its fields are set by a record."""
        host = self.host("host", control)
        make = self.machine
        return make.vcpu(
            vm=make.vm(host, word("vm.user_mask"), word("vm.user_value"), created_vcpus=1),
            cpu=make.processor(writable=host.writable, has_spec_ctrl=exists(host), has_control=control),
            cpuid=self.cpuid,
            vmcs01=make.vmcs(virtualize_spec_ctrl=control),
            vmcs02=make.vmcs(virtualize_spec_ctrl=control),
            init_withdraws_report=Assumptions().init_withdraws_report,
            arch_capabilities=word("arch_capabilities"),
            virtual_enumeration=word("virtual_enumeration"),
            mitigation_enum=word("mitigation_enum"))

    def contract(self, level: int) -> Contract:
        """A contract of which only the level is known."""
        flags = {name: flag(AT + name) for name in CONTRACT_FLAGS if name not in ("level", "controls")}
        return Contract(any_host(Symbols(), "host"), self.cpuid, ReportKeptBy.KVM, word("offered"), flag("announced"),
                        level=level, controls=L1Controls(use_msr_bitmap=flag(AT + "controls")),
                        **{name: word(AT + name) for name in CONTRACT_WORDS}, **flags)

    # ---- what a step does

    def seen(self, seen: Any) -> tuple[int, list[Any]]:
        """The number of what a step shows, and the words in it."""
        if seen is None:
            return NOTHING, []
        if isinstance(seen, Word | int):
            return ONE_WORD, [seen]
        if isinstance(seen, list):
            return (NO_WORDS, LIST_OF_ONE, TWO_WORDS)[len(seen)], seen
        if seen not in self.outcomes:
            self.outcomes.append(seen)
        return FIRST_OTHER + self.outcomes.index(seen), []

    def of_vcpu(self, event: Event, control: bool, loaded: Loaded, to_control: bool = False) -> Kernel:
        """What an event does to a vCPU; a migration, to a host with the control or without."""
        vcpu = self.vcpu(control)
        performed = event if event.moves_to is not None else event.with_words(arguments(event))
        destination = self.host("to", to_control)

        def go() -> Case:
            restore(vcpu, symbols(loaded))
            reached = vcpu
            try:
                if performed.moves_to is None:
                    seen = performed.perform(vcpu)
                else:
                    seen, reached = self.move(vcpu, performed, destination)
            except HostFault:
                return HOST_FAULT, [], None
            except Outcome as outcome:
                seen = (type(outcome), outcome.args)
            except RAISED:
                return CRASH, [], None
            noted = recorded(vcpu)[len(FIELDS):]
            if self.forgets:
                forget(reached)
            return *self.seen(seen), fields_of((*recorded(reached)[:len(FIELDS)], *noted))

        return self.made(go)

    def move(self, vcpu: Vcpu, event: Event, destination: Host) -> tuple[Any, Vcpu]:
        """A migration, as a search performs it."""
        vcpu.exit_guest()
        plan = Plan(destination, event.order == "nested-first", keep_force=True)
        try:
            return None, migrate(self.machine, Assumptions(), vcpu.vm, {0: vcpu}, plan)[1][0]
        except HostFault:
            raise
        except Outcome:
            return REFUSED, vcpu

    def of_contract(self, event: Event, level: int) -> Kernel:
        """What the contract says of an event."""
        moves = event.moves_to is not None
        performed = event if moves else event.with_words(arguments(event))
        destination = any_host(Symbols(), "to")

        def go() -> Case:
            at = self.contract(level)
            if not (not at.shut_down if moves else performed.possible(at)):
                return IMPOSSIBLE, [], None
            try:
                seen = (None if at.move(destination) else REFUSED) if moves else performed.expect(at)
            except Outcome as outcome:
                seen = (type(outcome), outcome.args)
            return *self.seen(seen), fields_of_contract(at)

        return self.made(go)

    def made(self, go: Callable[[], Case]) -> Kernel:
        """The kernel of what is done on each path."""
        with summarized(PURE):
            return kernel(in_order(paths(go)))

    # ---- what is looked at

    def looks(self, control: bool, loaded: Loaded, level: int) -> dict[str, Term]:
        """The properties that a state of both violates; ``reset`` and ``move``: what these must leave, is not there."""
        vcpu = self.vcpu(control)

        def go() -> dict[str, Term]:
            restore(vcpu, symbols(loaded))
            at = self.contract(level)
            broken = set(broken_by_register(vcpu, forced_by(at)))
            return {name: truth(name in broken) for name in REGISTER}

        def checked(check: Callable[[Vcpu, Contract], bool]) -> Callable[[], dict[str, Term]]:
            def run() -> dict[str, Term]:
                restore(vcpu, symbols(loaded))
                return {"": truth(check(vcpu, self.contract(level)))}

            return run

        restore(vcpu, symbols(loaded))
        differs = any_of([differ(own, other) for own, other in
                          zip(of_vcpu(vcpu), of_contract(self.contract(level)), strict=True)])
        return {
            "mechanism_refines_contract": differs,
            **self.of_each_path(go),
            "reset": self.of_each_path(checked(broken_by_reset))[""],
            "move": self.of_each_path(checked(broken_by_move))[""],
        }

    def of_each_path(self, go: Callable[[], dict[str, Term]]) -> dict[str, Term]:
        """Terms that differ from path to path, as one term for all paths."""
        with summarized(PURE):
            cases = in_order(paths(go))
        return {name: tree([(path, found[name]) for path, found in cases], 0, as_it_is) for name in cases[0][1]}


REGISTER = ("userspace_wins", "zero_forced_bits_never_set", "report_is_in_force", "nothing_else_is_forced",
            "forced_is_intercepted")
"""The properties of the register while the guest runs."""


def arguments(event: Event) -> list[Any]:
    """Symbols in place of an event's words."""
    return [word(f"v{number}") for number in range(len(event.words))]


def fields_of(record: Record) -> dict[str, Term]:
    """A record by names; ``loaded``: whether L2's VMCS is."""
    names = (*FIELDS, *(f"noted.{name}" for name in NOTED))
    return {name: truth(value == Loaded.VMCS02.value) if index == LOADED else term_of(index, value)
            for index, (name, value) in enumerate(zip(names, record, strict=True))}


def fields_of_contract(at: Contract) -> dict[str, Term]:
    """The fields of a contract by names."""
    flags = {name: getattr(at, name) for name in CONTRACT_FLAGS}
    flags |= {"level": at.level == 2, "controls": at.controls.use_msr_bitmap}
    return {**{AT + name: word_term(getattr(at, name)) for name in CONTRACT_WORDS},
            **{AT + name: flag_term(value) for name, value in flags.items()}}


def differ(own: Any, other: Any) -> Term:
    """That a field of the vCPU is not the contract's."""
    if isinstance(own, L1Controls):
        own, other = own.use_msr_bitmap, other.use_msr_bitmap
    if isinstance(own, int) and isinstance(other, int):
        return truth(own != other)
    term = word_term if isinstance(own, Word) else flag_term
    return not_(equal(term(own), term(other)))
