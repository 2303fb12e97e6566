"""The C reference in a checkout: its register header, and which rules its functions were reviewed against.

``specctrl_regs.h`` is generated from the tables in :mod:`specctrl.model.registers`.
``specctrl.h`` is written by hand.  Each function names in a comment the rules that it carries out; ``reviewed.txt``
has of each such rule a hash of its text as it was when its functions were last reviewed.  A changed text makes them
stale.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from specctrl.model.registers import (
    CAPABILITIES,
    KVM_GET_SUPPORTED_FORCE_SPEC_CTRL,
    REGISTERS,
    VMCS_ENCODINGS,
    Register,
)
from specctrl.rules import Rule, data_folder
from specctrl.scenario.writing import write_whole

FOLDER = "reference/c"
HEADER, REGISTER_HEADER, ADAPTER = "specctrl.h", "specctrl_regs.h", "adapter.c"
HEADERS = (HEADER, "specctrl_cpu.h")
"""What is written by hand: what a hypervisor does, and the model of the processor under it."""
ANNOTATED = (*HEADERS, ADAPTER)
"""The files whose functions name rules."""
TABLE = "reviewed.txt"
"""Beside them: of each rule, the hash of the text that its functions were reviewed against."""
LAYERS = ("contract", "mechanism")
"""The layers whose rules the C reference carries out or lists as left out; VMMs and guest kernels stand above it."""


class ReferenceMissing(Exception):
    """The C reference is not where it belongs."""


def folder() -> Path:
    """The C reference: the repository's own, else the installed package's copy."""
    found = data_folder(FOLDER)
    if not (found / HEADER).is_file():
        raise ReferenceMissing(f"{found / HEADER} is not there")
    return found


# ---- the register header

_MACROS: Mapping[str, tuple[str, str]] = {
    "IA32_SPEC_CTRL": ("MSR_IA32_SPEC_CTRL", "SPEC_CTRL"),
    "IA32_ARCH_CAPABILITIES": ("MSR_IA32_ARCH_CAPABILITIES", "ARCH_CAP"),
    "MSR_VIRTUAL_ENUMERATION": ("MSR_VIRTUAL_ENUMERATION", "VIRT_ENUM"),
    "MSR_VIRTUAL_MITIGATION_ENUM": ("MSR_VIRTUAL_MITIGATION_ENUM", "MITI_ENUM"),
    "MSR_VIRTUAL_MITIGATION_CTRL": ("MSR_VIRTUAL_MITIGATION_CTRL", "MITI_CTRL"),
    "CPUID.(7,0):EDX": ("", "CPUID_7_0_EDX"),
    "CPUID.(7,2):EDX": ("", "CPUID_7_2_EDX"),
    "IA32_VMX_PROCBASED_CTLS3": ("MSR_IA32_VMX_PROCBASED_CTLS3", "VMX_PROCBASED_CTLS3"),
}
"""The number's macro ("" for none) and the prefix of the fields' macros, for each register but the VMCS fields."""

_VALID = ("VIRT_ENUM", "MITI_ENUM", "MITI_CTRL")
"""Prefixes of the registers whose reserved bits KVM checks."""

_HEAD = """\
/* SPDX-License-Identifier: (GPL-2.0 OR MIT) */
/*
 * Numbers and bits of virtual IA32_SPEC_CTRL, generated from the specification's
 * tables by `specctrl reference --write`.  Do not edit.
 *
 * A kernel that has some of these in msr-index.h or vmx.h takes the rest.
 */
#ifndef SPECCTRL_REGS_H
#define SPECCTRL_REGS_H
"""


def register_header() -> str:
    """The text of ``specctrl_regs.h``, from the register tables."""
    parts = [_HEAD]
    parts += [_register(register) for register in REGISTERS.values() if register.kind != "VMCS field"]
    parts.append("/* VMCS field encodings */\n" + "".join(
        _define(name, f"0x{number:08x}") for name, number in VMCS_ENCODINGS.items()))
    parts.append("/* Capabilities and ioctls of KVM */\n" + "".join(
        _define(capability.name, str(capability.number)) for capability in CAPABILITIES.values()) + _define(
            KVM_GET_SUPPORTED_FORCE_SPEC_CTRL.name, f"0x{KVM_GET_SUPPORTED_FORCE_SPEC_CTRL.number:08x}"))
    return "\n".join([*parts, "#endif /* SPECCTRL_REGS_H */\n"])


def _register(register: Register) -> str:
    number, prefix = _MACROS[register.name]
    lines = [f"/* {register.name}: {register.title} */\n"]
    if number:
        lines.append(_define(number, f"0x{register.number:08x}"))
    for field in register:
        lines.append(_define(f"{prefix}_{field.name}", f"(1ULL << {field.low})", field.meaning))
    if prefix in _VALID:
        names = " | ".join(f"{prefix}_{field.name}" for field in register)
        lines.append(_define(f"{prefix}_VALID", f"({names})"))
    return "".join(lines)


def _define(name: str, value: str, meaning: str = "") -> str:
    tabs = "\t" * max(1, 6 - (len("#define ") + len(name)) // 8)
    return f"#define {name}{tabs}{value}" + (f"\t/* {meaning} */\n" if meaning else "\n")


def register_header_is_stale(where: Path) -> bool:
    """Whether ``specctrl_regs.h`` in this folder is not what the tables give."""
    path = where / REGISTER_HEADER
    return not path.is_file() or path.read_text("utf-8") != register_header()


# ---- the rules that functions name

_ID = r"[a-z0-9-]+(?:\.[a-z0-9-]+)+(?:\+[2-9])?"
_ANNOTATION = re.compile(rf"\brule: (?P<ids>{_ID}(?:,\s*(?:\*\s*)?{_ID})*)")
_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_FUNCTION = re.compile(r"\s*[a-z_][^;{}#/]*?\b(?P<name>[A-Za-z_0-9]+)\(")
_REVIEWED = re.compile(rf"(?P<id>{_ID}) (?P<hash>[0-9a-f]{{8}})")
_LEFT_OUT = "## What is not here"
_OMITTED = re.compile(r"^\| `(?P<id>[a-z0-9.-]+)` \|", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Annotation:
    """A function of the C code says that it carries out a rule."""

    file: str
    line: int
    function: str
    rule: str


def text_hash(rule: Rule) -> str:
    """8 hex digits that change with the rule's text; spaces and line ends do not count."""
    return hashlib.sha256(" ".join(rule.text.split()).encode()).hexdigest()[:8]


def annotations(path: Path, shown: str) -> Iterator[Annotation]:
    """Every annotation of a file, which is shown by this name; ValueError for one that stands before no function."""
    text = path.read_text("utf-8")
    for comment in _COMMENT.finditer(text):
        for found in _ANNOTATION.finditer(comment.group()):
            for id in re.finditer(_ID, found["ids"]):
                at = comment.start() + found.start("ids") + id.start()
                line = text.count("\n", 0, at) + 1
                function = _FUNCTION.match(text, comment.end())
                if function is None:
                    raise ValueError(f"{shown}:{line}: rule {id.group()} stands before no function")
                yield Annotation(shown, line, function["name"], id.group())


def own_annotations(where: Path) -> list[Annotation]:
    """Every annotation of the C reference in this folder."""
    return [found for name in ANNOTATED if (where / name).is_file()
            for found in annotations(where / name, f"{FOLDER}/{name}")]


def omitted(where: Path) -> set[str]:
    """The rules that the README lists as not carried out in C, each with the reason."""
    section = (where / "README.md").read_text("utf-8").partition(_LEFT_OUT)[2].partition("\n## ")[0]
    return set(_OMITTED.findall(section))


def reviewed(where: Path) -> dict[str, str]:
    """Each rule in the table of this folder, and the hash of the text that its functions were reviewed against.

    Empty where there is no table; ValueError for a line that is none.
    """
    path = where / TABLE
    table: dict[str, str] = {}
    for number, line in enumerate(path.read_text("utf-8").splitlines() if path.is_file() else (), 1):
        found = _REVIEWED.fullmatch(line)
        if found is None or found["id"] in table:
            raise ValueError(f"{path}:{number}: {line!r} is no rule with its hash, or has been there")
        table[found["id"]] = found["hash"]
    return table


def stale(named: Iterable[Annotation], rules: Mapping[str, Rule], table: Mapping[str, str]) -> list[str]:
    """The annotations of rules that have another text than the table says, or do not exist."""
    wrong = []
    for found in named:
        place = f"{found.file}:{found.line}: {found.function}"
        if found.rule not in rules:
            wrong.append(f"{place}: there is no rule {found.rule}")
        elif table.get(found.rule) != text_hash(rules[found.rule]):
            wrong.append(
                f"{place}: the text of {found.rule} has changed since the review; review the function, "
                f"then run specctrl reference --reviewed {found.rule}")
    return wrong


def complaints(where: Path, rules: Mapping[str, Rule]) -> list[str]:
    """What is wrong with the C reference: what is stale, and rules that are neither carried out nor left out."""
    named, table = own_annotations(where), reviewed(where)
    carried, left_out = {found.rule for found in named}, omitted(where)
    readme = f"{FOLDER}/README.md"
    wrong = []
    if register_header_is_stale(where):
        wrong.append(f"{FOLDER}/{REGISTER_HEADER}: not what the tables give; run specctrl reference --write")
    wrong += stale(named, rules, table)
    wrong += [f"{FOLDER}/{TABLE}: no function names {id}; its line can go" for id in sorted(table.keys() - carried)]
    wrong += [f"{readme}: there is no rule {id}" for id in sorted(left_out - rules.keys())]
    wrong += [f"{readme}: {id} is listed as left out, and carried out" for id in sorted(left_out & carried)]
    wrong += [f"{FOLDER}: nothing carries out {id}, and its README.md does not say why"
              for id, rule in rules.items() if rule.layer in LAYERS and id not in carried | left_out]
    return wrong


def mark_reviewed(
    where: Path, named: Iterable[Annotation], rules: Mapping[str, Rule], chosen: Iterable[str]
) -> int:
    """Give these rules, of those that are named, their present text's hash in this folder's table; how many changed."""
    table, carried = reviewed(where), {found.rule for found in named}
    new = table | {id: text_hash(rules[id]) for id in chosen if id in carried & rules.keys()}
    text = "".join(f"{id} {new[id]}\n" for id in sorted(new))
    write_whole(where / TABLE, text)
    return len({id for id, _ in table.items() ^ new.items()})
