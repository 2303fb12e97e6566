"""Kernels as C: each term that is used is a local variable, computed once, without a branch."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

from specctrl.exploration.compiled.kernels import (
    AT,
    CONTRACT_FLAGS,
    CONTRACT_WORDS,
    CRASH,
    HOST_FAULT,
    IMPOSSIBLE,
    NOTHING,
    Diagram,
    Form,
    Kernel,
    Kernels,
    form_of,
)
from specctrl.exploration.compiled.merging import FLAGS, NOTED, WORDS
from specctrl.exploration.events import Event
from specctrl.exploration.properties import PROPERTIES
from specctrl.model.kvm.state import Loaded
from specctrl.proof.terms import Term

NODE_FLAGS = ("loaded", *FLAGS)
PROPERTY = {name: number for number, name in enumerate(PROPERTIES)}
BROKEN_BY = {"reset": 30, "move": 31}
"""The bits of what :meth:`~specctrl.exploration.compiled.kernels.Kernels.looks` finds that no property has."""
HOSTS = 64
"""How many hosts a world may have."""
SEARCH = Path(__file__).with_name("search.c")


class CannotWrite(Exception):
    """A term that is not bit by bit."""


@dataclass(slots=True)
class Names:
    """Where a program has its constants and the values of a host; each is added when it is first used."""

    constants: list[int] = field(default_factory=list)
    host_words: list[str] = field(default_factory=list)
    host_flags: list[str] = field(default_factory=list)

    def place(self, known: list[str], name: str) -> int:
        """The place of a host's value, new ones at the end."""
        if name not in known:
            known.append(name)
        return known.index(name)

    def constant(self, value: int) -> str:
        """A word that is known."""
        if value not in self.constants:
            self.constants.append(value)
        return f"CONSTANTS[{self.constants.index(value)}]"

    def read(self, name: str, wide: bool) -> str:
        """The value of a name."""
        if name in ("v0", "v1"):
            return name
        if name.startswith(AT) and name[len(AT):] in (*CONTRACT_WORDS, *CONTRACT_FLAGS):
            record, words, flags = "at", list(CONTRACT_WORDS), list(CONTRACT_FLAGS)
            name = name[len(AT):]
        elif name in WORDS or name in NODE_FLAGS:
            record, words, flags = "from", list(WORDS), list(NODE_FLAGS)
        else:
            record, words, flags = "host", self.host_words, self.host_flags
            if name.startswith("to."):
                record, name = "target", f"host.{name.removeprefix('to.')}"
        if wide:
            return f"{record}->w[{self.place(words, name)}]"
        return f"({record}->f >> {self.place(flags, name)} & 1)"


@dataclass(slots=True)
class Function:
    """The body of a function that is being written."""

    names: Names
    lines: list[str] = field(default_factory=list)
    known: dict[int, str] = field(default_factory=dict)

    def value(self, term: Term) -> str:
        """What stands for a term; it is computed above, once."""
        found = self.known.get(term.serial)
        if found is None:
            text = self.expression(term)
            if term.kind == "constant":
                return text
            found = self.known[term.serial] = f"t{len(self.known)}"
            self.lines.append(f"const {'word' if term.wide else 'flag'} {found} = {text};")
        return found

    def expression(self, term: Term) -> str:
        """A term of the values of its parts."""
        if term.kind == "name":
            return self.names.read(term.value, term.wide)
        if term.kind == "constant":
            return self.names.constant(term.value) if term.wide else str(int(term.value))
        parts = [self.value(part) for part in term.parts]
        match term.kind:
            case "if":
                return f"{parts[0]} ? {parts[1]} : {parts[2]}"
            case "not":
                return f"!{parts[0]}"
            case "~":
                return f"~{parts[0]} & {self.names.constant((1 << 64) - 1)}"
            case "==":
                return f"{parts[0]} == {parts[1]}"
            case "all" | "&":
                return " & ".join(parts)
            case "any" | "|":
                return " | ".join(parts)
            case "^":
                return " ^ ".join(parts)
        raise CannotWrite(f"{term.kind} is not bit by bit")

    def ending(self, ends: Diagram) -> str:
        """A diagram as one expression."""
        if isinstance(ends, int):
            return str(ends)
        test = self.value(ends.test)
        return f"({test} ? {self.ending(ends.yes)} : {self.ending(ends.no)})"

    def store(
        self, into: str, before: str, after: dict[str, Term], words: Sequence[str], flags: Sequence[str]
    ) -> None:
        """Write the fields of a record that change; the record before, and its copy, have the same layout."""
        stays, changed = 0, []
        for place, name in enumerate(words):
            if not is_name(after[name], name):
                self.lines.append(f"{into}->w[{place}] = {self.value(after[name])};")
        for place, name in enumerate(flags):
            term = after[name]
            if is_name(term, name):
                stays |= 1 << place
            elif term.kind != "constant" or term.value:
                changed.append(f"(uint32_t){self.value(term)} << {place}")
        parts = ([f"({before}->f & {stays:#x}u)"] if stays else []) + changed
        self.lines.append(f"{into}->f = {' | '.join(parts) or '0'};")

    def written(self, head: str) -> str:
        """The function."""
        return "\n".join([f"static {head}", "{", *(f"\t{line}" for line in self.lines), "}", ""])


def is_name(term: Term, name: str) -> bool:
    """Whether a term is this name alone."""
    return term.kind == "name" and bool(term.value == name)


STEP = ("const struct node *from, struct node *to, const struct host *host, const struct host *target, "
        "word v0, word v1, word *x0, word *x1, unsigned *noted")
CONTRACT_STEP = ("const struct contract *at, struct contract *then, const struct host *host, "
                 "const struct host *target, word v0, word v1, word *x0, word *x1")
LOOK = "const struct node *from, const struct contract *at, const struct host *host"


def vcpu_function(name: str, kernel: Kernel, names: Names) -> str:
    """What an event does to a vCPU."""
    body = Function(names)
    if kernel.after:
        bits = [f"(unsigned){body.value(kernel.after[f'noted.{noted}'])} << {PROPERTY[noted]}" for noted in NOTED]
        body.lines.append(f"*noted = {' | '.join(bits)};")
        body.store("to", "from", kernel.after, WORDS, NODE_FLAGS)
    return finished(body, f"unsigned {name}({STEP})", kernel)


def contract_function(name: str, kernel: Kernel, names: Names) -> str:
    """What the contract says of an event."""
    body = Function(names)
    if kernel.after:
        body.store("then", "at", kernel.after, [AT + word for word in CONTRACT_WORDS],
                   [AT + flag for flag in CONTRACT_FLAGS])
    return finished(body, f"unsigned {name}({CONTRACT_STEP})", kernel)


def finished(body: Function, head: str, kernel: Kernel) -> str:
    """The end of both: what is shown, and how it ends."""
    for place, shown in enumerate(kernel.shows):
        body.lines.append(f"*x{place} = {body.value(shown)};")
    body.lines.append(f"return {body.ending(kernel.ends)};")
    return body.written(head)


def look_function(name: str, found: dict[str, Term], names: Names) -> str:
    """The properties that a state violates, as bits."""
    body = Function(names)
    bits = [f"(unsigned){body.value(term)} << {(PROPERTY | BROKEN_BY)[property_]}" for property_, term in found.items()]
    body.lines.append(f"return {' | '.join(bits)};")
    return body.written(f"unsigned {name}({LOOK})")


@dataclass(frozen=True, slots=True)
class Program:
    """A search in C, for the events of some forms; the numbers that it reads are found by these names."""

    text: str
    forms: list[Form]
    names: Names


def program(kernels: Kernels, examples: Sequence[Event]) -> Program:
    """The program for events like these, one of each form."""
    names = Names()
    functions, steps, contract_steps = [], [], []
    for kind, event in enumerate(examples):
        row: list[str] = []
        for target, control, loaded in product((False, True), (False, True), Loaded):
            if target and event.moves_to is None:
                row.append(row[len(row) - 4])
                continue
            row.append(f"step_{kind}_{target:d}{control:d}{loaded.value}")
            functions.append(vcpu_function(row[-1], kernels.of_vcpu(event, control, loaded, target), names))
        steps.append(row)
        contract_steps.append([f"contract_{kind}_{level}" for level in (1, 2)])
        functions += [contract_function(name, kernels.of_contract(event, level), names)
                      for name, level in zip(contract_steps[-1], (1, 2), strict=True)]
    looks = []
    for control, loaded, level in product((False, True), Loaded, (1, 2)):
        looks.append(f"look_{control:d}{loaded.value}{level}")
        functions.append(look_function(looks[-1], kernels.looks(control, loaded, level), names))
    tables = [
        f"static unsigned (*const STEPS[{len(steps)}][8])({STEP}) = {braced([braced(row) for row in steps])};",
        f"static unsigned (*const CONTRACT_STEPS[{len(steps)}][2])({CONTRACT_STEP}) = "
        f"{braced([braced(row) for row in contract_steps])};",
        f"static unsigned (*const LOOKS[8])({LOOK}) = {braced(looks)};",
    ]
    text = "\n".join([declarations(names), *functions, *tables, CALLS, SEARCH.read_text("utf-8")])
    return Program(text, [form_of(event) for event in examples], names)


def braced(items: Sequence[str]) -> str:
    """An initializer."""
    return f"{{ {', '.join(items)} }}"


def declarations(names: Names) -> str:
    """The records and the numbers that kernels and search share."""
    numbers = {
        "NOTHING": NOTHING, "HOST_FAULT": HOST_FAULT, "IMPOSSIBLE": IMPOSSIBLE, "CRASH": CRASH,
        "WORDS": len(WORDS), "CONTRACT_WORDS": len(CONTRACT_WORDS), "HOST_WORDS": len(names.host_words),
        "MAX_HOSTS": HOSTS, "PROPERTIES": len(PROPERTIES), "HOST_NEVER_FAULTS": PROPERTY["host_never_faults"],
        "GUEST_READS": PROPERTY["guest_reads_what_it_wrote"], "RESET_LEAVES": PROPERTY["reset_leaves_userspace"],
        "MIGRATION_IS": PROPERTY["migration_is_identity"],
    }
    return "\n".join([
        "#define _GNU_SOURCE",
        "#include <stdint.h>",
        "#ifndef word",
        "#define word uint16_t",
        "#endif",
        "typedef unsigned flag;",
        f"enum {{ {', '.join(f'{name} = {value}' for name, value in numbers.items())} }};",
        *(f"#define BROKEN_BY_{name.upper()} (1u << {bit})" for name, bit in BROKEN_BY.items()),
        "struct node { uint32_t f, at, host; word w[WORDS]; };",
        "struct contract { uint32_t f, host; word w[CONTRACT_WORDS]; };",
        "/* compared byte by byte: no padding */",
        "typedef char whole_node[sizeof(struct node) == 12 + WORDS * sizeof(word) ? 1 : -1];",
        "typedef char whole_contract[sizeof(struct contract) == 8 + CONTRACT_WORDS * sizeof(word) ? 1 : -1];",
        "struct host { uint32_t f, control; word w[HOST_WORDS]; };",
        f"static word CONSTANTS[{len(names.constants)}];",
        "",
    ])


CALLS = """
#define of_vcpu(kind, from, to, host, target, ...) \\
	STEPS[kind][(target)->control << 2 | (host)->control << 1 | ((from)->f & 1)](from, to, host, target, __VA_ARGS__)
#define of_contract(kind, at, ...) CONTRACT_STEPS[kind][(at)->f & 1](at, __VA_ARGS__)
#define looks(from, at, host) LOOKS[(host)->control << 2 | ((from)->f & 1) << 1 | ((at)->f & 1)](from, at, host)
"""
"""Which function is called: by the control, the VMCS that is loaded, and the level."""
