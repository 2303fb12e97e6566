"""A fragment for the kernel's ``Documentation/virt/kvm/api.rst``, from the chapters, the rules and the tables.

The facts of each ioctl are the field list and the table of errors of its section in ``spec/capability.md``; what
follows are the rules' own sentences.
"""

import re
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from specctrl.model.registers import MSR_NUMBERS, REGISTERS, Register
from specctrl.rules import Rule, data_folder, load_rules

CAPABILITY, VIRTUAL_MSRS = "spec/capability.md", "spec/virtual-msrs.md"
ALSO_ON_THE_VM = (
    "cap.check.boolean", "cap.supported.set", "contract.effective.merge", "contract.view.reads-back",
    "contract.write.merged-decides", "contract.force.overlay", "cap.guest-cpuid.not-looked-at",
    "nested.mask-both", "migration.view-not-effective", "migration.restorable", "migration.order",
)
"""Rules of other sections and chapters that whoever calls the capability must know."""

ALSO_OF_THE_MSRS = ("init.report.withdrawn",)

_FIELD = re.compile(r"^:(?P<name>[A-Z]\w+): (?P<text>.+)$", re.MULTILINE)
_ERROR = re.compile(r"^\| `(?P<errno>E[A-Z]+)` \| (?P<when>.+) \|$", re.MULTILINE)
_ASIDE = re.compile(
    r": \{rule\}`[^`]+`| \(\{rule\}`[^`]+`\)|; [^;]*\(D\d+\)$| \(not emulated\)|; those [^;]* are not modelled$")
_OF_OTHER_KERNELS = "the kernel does not have the series"
_SPAN = re.compile(r"(?:\{rule\})?`([^`]+)`")


@dataclass(frozen=True, slots=True)
class _Section:
    """One second-level section of a chapter: its text and its lines, from 1."""

    text: str
    first: int
    last: int


def api_rst() -> str:
    """The fragment: the ioctl, the capability on the VM and on a vCPU, and the virtual MSRs."""
    rules = load_rules()
    page = (data_folder("spec") / "capability.md").read_text("utf-8")
    vm = "KVM_ENABLE_CAP on the VM"
    vcpu = "KVM_ENABLE_CAP on a vCPU (proposed)"
    parts = [
        ".. SPDX-License-Identifier: (GPL-2.0 OR MIT)\n",
        ".. Generated from the executable specification of virtual IA32_SPEC_CTRL.\n"
        "   The series is not merged; numbers of sections, capability and ioctl are whoever merges it to give.\n",
        _ioctl("KVM_GET_SUPPORTED_FORCE_SPEC_CTRL", _section(page, "KVM_GET_SUPPORTED_FORCE_SPEC_CTRL"), rules,
               leave=("cap.supported.set",)),
        _ioctl("KVM_CAP_FORCE_SPEC_CTRL", _section(page, vm), rules, ALSO_ON_THE_VM),
        _ioctl("KVM_CAP_FORCE_SPEC_CTRL on a vCPU (proposed, not part of the series)", _section(page, vcpu), rules),
        _msrs(rules),
    ]
    return "\n".join(parts)


def _section(page: str, title: str) -> _Section:
    """The section of a chapter with this title; KeyError if there is none."""
    found = re.search(rf"^## {re.escape(title)}\n(?P<text>.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    if found is None:
        raise KeyError(f"{CAPABILITY} has no section {title!r}")
    first = page.count("\n", 0, found.start()) + 1
    return _Section(found["text"], first, first + found["text"].count("\n"))


def _ioctl(title: str, section: _Section, rules: Mapping[str, Rule], also: Iterable[str] = (),
           leave: Iterable[str] = ()) -> str:
    lines = [_heading(title)]
    for field in _FIELD.finditer(section.text):
        lines.append(textwrap.fill(rst(field["text"]), 80, initial_indent=f":{field['name']}: ",
                                   subsequent_indent="    ") + "\n")
    lines += ["\nErrors:\n\n", _errors([(error["errno"], rst(error["when"]))
                                       for error in _ERROR.finditer(section.text)
                                       if error["when"] != _OF_OTHER_KERNELS]), "\n"]
    own = [rule.id for rule in rules.values()
           if rule.page == CAPABILITY and section.first <= rule.line <= section.last]
    chosen = [id for id in [*own, *also] if id not in leave]
    return "".join([*lines, *(_sentence(rules[id]) for id in dict.fromkeys(chosen))])


def _heading(title: str) -> str:
    return f"{title}\n{'-' * len(title)}\n\n"


def _errors(rows: list[tuple[str, str]]) -> str:
    """A simple table; a long text goes on in the next line, under an empty first column."""
    width = max(len(errno) for errno, _ in rows)
    border = f"  {'=' * width}  {'=' * (76 - width)}\n"
    lines = []
    for errno, when in rows:
        wrapped = textwrap.wrap(when, 76 - width)
        lines += [f"  {errno if at == 0 else '':<{width}}  {text}\n" for at, text in enumerate(wrapped)]
    return border + "".join(lines) + border


def _sentence(rule: Rule) -> str:
    mark = f" ({rule.status})" if rule.status in ("proposed", "assumed") else ""
    return textwrap.fill(f"{rst(rule.text)}{mark}", 80, initial_indent="- ", subsequent_indent="  ",
                         break_on_hyphens=False) + "\n"


def rst(text: str) -> str:
    """A chapter's inline markup as the kernel's: code in double marks, references to rules and defects dropped.

    >>> rst("`flags` is not 0: {rule}`cap.enable.flags-zero`")
    '``flags`` is not 0'
    """
    return _SPAN.sub(r"``\1``", _ASIDE.sub("", " ".join(text.split())))


def _msrs(rules: Mapping[str, Rule]) -> str:
    lines = [_heading("Virtual MSRs of the guest's report")]
    for name in MSR_NUMBERS:
        if name.startswith("MSR_VIRTUAL"):
            lines.append(_register(REGISTERS[name]))
    chosen = [rule for rule in rules.values()
              if (rule.page == VIRTUAL_MSRS and rule.layer != "userspace") or rule.id in ALSO_OF_THE_MSRS]
    return "".join([*lines, *(_sentence(rule) for rule in chosen)])


def _register(register: Register) -> str:
    fields = "".join(
        textwrap.fill(f"Bit {field.low}, {field.name}: {field.meaning}.", 78, initial_indent="  - ",
                      subsequent_indent="    ") + "\n" for field in register)
    return (f"{register.name}: {register.number:#010x}\n"
            + textwrap.fill(f"{register.title}.  Access: {register.access}.  Value: {_plain(register.reset)}.", 78,
                            initial_indent="  ", subsequent_indent="  ")
            + f"\n\n{fields}  - The other bits are reserved.\n\n")


def _plain(text: str) -> str:
    return text.partition("; at INIT see the rule")[0]
