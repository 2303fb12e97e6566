"""A search of the exploration, run by a compiled program instead of by the rule code itself.

It finds what :meth:`specctrl.exploration.search.Search.run` finds, in the same order: the same states and transitions,
and of each property the same shortest history.
"""

import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from specctrl.exploration.compiled.as_c import HOSTS, NODE_FLAGS, PROPERTY, Names, Program, program
from specctrl.exploration.compiled.columns import Columns
from specctrl.exploration.compiled.kernels import CONTRACT_FLAGS, CONTRACT_WORDS, Form, Kernels, form_of
from specctrl.exploration.compiled.merging import WORDS
from specctrl.exploration.events import Event, World
from specctrl.exploration.histories import Exploration, History
from specctrl.exploration.search import Progress, Search, of_world
from specctrl.exploration.snapshot import FIELDS
from specctrl.model.contract import Contract
from specctrl.model.kvm.state import Loaded
from specctrl.model.kvm.variant import Variant
from specctrl.model.kvm.vcpu import Vcpu
from specctrl.proof.any_vcpu import Symbols, any_host
from specctrl.proof.symbolic import Flag, Word
from specctrl.targets.c import compiled

FLAGS = ("-std=c99", "-O1")
WIDTHS = (16, 32)
"""Bits of a word in a program."""
FOREVER = (1 << 64) - 1
RESET, MIGRATION = 2, 1


class SearchFailed(Exception):
    """The compiled search did not come to its end; the message says why."""


def bound(symbolic: Any, concrete: Any) -> Iterator[tuple[str, int | bool]]:
    """What the symbols in a record are in another record."""
    if isinstance(symbolic, Word | Flag):
        yield symbolic.term.value, concrete
    elif is_dataclass(symbolic):
        for one in fields(symbolic):
            yield from bound(getattr(symbolic, one.name), getattr(concrete, one.name))


def values_of_host(vcpu: Vcpu, at: Contract) -> dict[str, int | bool]:
    """Everything that the kernels call by a name of a host, or of the world."""
    return {
        **dict(bound(any_host(Symbols(), "host"), vcpu.vm.host)),
        "vm.user_mask": vcpu.vm.user_mask, "vm.user_value": vcpu.vm.user_value,
        "arch_capabilities": vcpu.arch_capabilities, "virtual_enumeration": vcpu.virtual_enumeration,
        "mitigation_enum": vcpu.mitigation_enum, "offered": at.offered, "announced": at.announced,
    }


def bits_of(values: Sequence[bool]) -> int:
    """Truth values as the bits of a number."""
    return sum(bool(value) << place for place, value in enumerate(values))


@dataclass(slots=True)
class Input:
    """What a program reads: the numbers of one search."""

    search: Search
    program: Program
    columns: Columns

    def numbers(self, memory: int, dump: bool) -> Iterator[int]:
        """All of them, words as columns."""
        names, packed = self.program.names, self.columns.packed
        yield memory
        yield from map(packed, names.constants)
        yield len(self.search.vcpus)
        for values, vcpu in zip(hosts_of(self.search), self.search.vcpus, strict=True):
            yield from (packed(values[name]) for name in names.host_words)
            yield bits_of([bool(values[name]) for name in names.host_flags])
            yield vcpu.cpu.has_control
        yield len(self.search.events)
        for event in self.search.events:
            moves = event.moves_to is not None
            yield self.program.forms.index(form_of(event))
            yield MIGRATION if moves else RESET if event.resets else 0
            yield PROPERTY[event.violates]
            assert len(event.words) <= 2, f"{event.op} has more words than a program takes"
            yield from (packed(word) for word in (*event.words, 0, 0)[:2])
            yield event.moves_to or 0
        yield FOREVER if self.search.max_depth is None else self.search.max_depth
        yield dump
        for vcpu, host in zip(self.search.vcpus, self.search.world.hosts, strict=True):
            at = self.search.world.contract(host)
            yield from (packed(getattr(at, name)) for name in CONTRACT_WORDS)
            flags = {name: getattr(at, name) for name in CONTRACT_FLAGS}
            yield bits_of(list((flags | {"level": at.level == 2, "controls": at.controls.use_msr_bitmap}).values()))
            state = dict(zip(FIELDS, self.search.take(vcpu), strict=True))
            state["loaded"] = state["loaded"] == Loaded.VMCS02.value
            yield from (packed(state[name]) for name in WORDS)
            yield bits_of([state[name] for name in NODE_FLAGS])


def hosts_of(search: Search) -> list[dict[str, Any]]:
    """The values of each host."""
    return [values_of_host(vcpu, search.world.contract(host))
            for vcpu, host in zip(search.vcpus, search.world.hosts, strict=True)]


def columns_of(search: Search, names: Names) -> Columns:
    """The columns of all words that occur in a search."""
    words = set(names.constants)
    for vcpu, host, values in zip(search.vcpus, search.world.hosts, hosts_of(search), strict=True):
        state = dict(zip(FIELDS, search.take(vcpu), strict=True))
        at = search.world.contract(host)
        words |= {values[name] for name in names.host_words} | {state[name] for name in WORDS}
        words |= {getattr(at, name) for name in CONTRACT_WORDS}
    for event in search.events:
        words |= set(event.words)
    return Columns(words)


_PROGRAMS: dict[Any, Program] = {}
"""Programs of this process: those of one variant, CPUID and set of forms, with the classes that they were made of."""


def program_for(search: Search) -> Program:
    """The program of a search; the same for all worlds whose events have the same forms."""
    examples: dict[Form, Event] = {}
    for event in search.events:
        examples.setdefault(form_of(event), event)
    made_of = (*search.variant.vcpu.__mro__[1:], search.variant.vm, search.variant.vmcs, search.variant.processor)
    key = (made_of, search.world.cpuid, search.forgets, tuple(examples))
    if key not in _PROGRAMS:
        made = Kernels(search.variant, search.world.cpuid, search.forgets)
        _PROGRAMS[key] = program(made, list(examples.values()))
    return _PROGRAMS[key]


def executable(made: Program, columns: Columns, cache: Path | None = None) -> Path:
    """The program, compiled for words of as many bits as there are columns; CannotBuild without a compiler."""
    width = next((width for width in WIDTHS if columns.width <= width), None)
    if width is None:
        raise SearchFailed(f"{columns.width} columns are more than {WIDTHS[-1]} bits")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "search.c"
        source.write_text(made.text, "utf-8")
        return compiled("search", source, (*FLAGS, f"-Dword=uint{width}_t"), (), cache)


@contextmanager
def running(command: Path, numbers: Sequence[int]) -> Iterator["subprocess.Popen[str]"]:
    """The program while it runs; it is ended with the block."""
    with tempfile.TemporaryFile("w+") as given:
        given.write("\n".join(str(int(number)) for number in numbers))
        given.seek(0)
        with subprocess.Popen([command], stdin=given, stdout=subprocess.PIPE, text=True) as process:
            try:
                yield process
            finally:
                process.kill()


def run(search: Search, progress: Progress | None = None, memory: int = 0) -> Exploration:
    """What the search finds; SearchFailed if it needs more than ``memory`` bytes (0: any number).

    CannotBuild without a C compiler.
    """
    found = Exploration(worlds=1)
    for word, rest in answers(search, memory, dump=False):
        match word:
            case "level":
                if progress is not None:
                    progress(rest[0], rest[1])
            case "violated":
                name = list(PROPERTY)[rest[0]]
                found.violations[name] = history(search, name, *rest[1:])
            case "found":
                found.states, found.transitions, found.depth = rest[:3]
            case "crash":
                return search.run(progress)  # to what the rule code raises, with its traceback
    return found


def answers(search: Search, memory: int, dump: bool) -> Iterator[tuple[str, list[int]]]:
    """The lines of the program, up to the last; SearchFailed if that does not come."""
    assert len(search.vcpus) <= HOSTS
    made = program_for(search)
    columns = columns_of(search, made.names)
    numbers = list(Input(search, made, columns).numbers(memory, dump))
    with running(executable(made, columns), numbers) as process:
        assert process.stdout is not None
        for line in process.stdout:
            word, *rest = line.split()
            if word == "failed":
                raise SearchFailed(f"the search failed for want of {rest[0]}")
            yield word, list(map(int, rest))
            if word in ("found", "crash"):
                return
    raise SearchFailed("the search ended early")


@dataclass(frozen=True, slots=True)
class Found:
    """One state that was found, and from which, by the number of an event; -1 for a first one."""

    host: int
    at: dict[str, int | bool]
    state: dict[str, int | bool]
    parent: int
    event: int


def states(search: Search) -> Iterator[Found]:
    """Every state, in the order in which they were found."""
    columns = columns_of(search, program_for(search).names)
    for word, numbers in answers(search, 0, dump=True):
        if word != "node":
            continue
        host, _, parent, event, *rest = numbers
        at = unpacked(rest, CONTRACT_WORDS, CONTRACT_FLAGS, columns)
        state = unpacked(rest[len(CONTRACT_WORDS) + 1:], WORDS, NODE_FLAGS, columns)
        yield Found(host, at, state, parent, event)


def unpacked(
    numbers: Sequence[int], words: Sequence[str], flags: Sequence[str], columns: Columns
) -> dict[str, int | bool]:
    """A record as the program prints it, with its names."""
    values = {name: columns.word(number) for name, number in zip(words, numbers, strict=False)}
    return {**values, **{name: bool(numbers[len(words)] >> place & 1) for place, name in enumerate(flags)}}


def history(search: Search, name: str, host: int, *steps: int) -> History:
    """A history that the program printed."""
    world = search.world
    return History(name, world.specs[host], world, tuple(search.events[step].step for step in steps))


def search(
    variant: Variant, world: World, bits: int, depth: int | None = None, progress: Progress | None = None
) -> Exploration:
    """What :func:`specctrl.exploration.search.search` finds."""
    return run(of_world(variant, world, bits, depth), progress)
