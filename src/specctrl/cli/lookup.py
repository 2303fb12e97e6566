"""``specctrl decode``, ``specctrl rules`` and ``specctrl parts``: what is stated, looked up."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from specctrl.cli.command import UserError, command
from specctrl.model.parts import PARTS
from specctrl.model.registers import REGISTERS, Register
from specctrl.rules import RuleError, load_rules
from specctrl.scenario.kinds import one_of

# ---- decode

def add_decode(commands: Any) -> None:
    """Add ``specctrl decode``."""
    names = "\n".join(f"  {register.name:<29} {_number(register)}" for register in REGISTERS.values())
    parser = command(commands, "decode", decode_command, "take a register's value apart into its fields", (
        f"registers:\n{names}\n\nAn MSR can be given by its number too.\n\n"
        "examples:\n  specctrl decode IA32_SPEC_CTRL 0x401\n  specctrl decode 0x50000002 3 --json\n\n"
        "exit status:\n  0, also if reserved bits are set (they are listed); 2 for an unknown register or a\n"
        "  value that does not fit it"))
    parser.add_argument("register", metavar="REGISTER", help="a name, or the number of an MSR")
    parser.add_argument("value", metavar="VALUE", help="a number: 0x401, 1025")
    parser.add_argument("--json", action="store_true", help="print a JSON object instead of a table")


def _number(register: Register) -> str:
    return f"{register.kind} {register.number:#x}" if register.kind != "CPUID" else "CPUID leaf 7"


def find_register(text: str) -> Register:
    """The register of that name (in upper or lower case), or the MSR of that number."""
    for register in REGISTERS.values():
        if text.upper() == register.name.upper():
            return register
    number = _integer(text)
    for register in REGISTERS.values():
        if register.kind == "MSR" and register.number == number:
            return register
    if number is not None:
        raise UserError(f"no MSR {text} is described here; {one_of(REGISTERS, text)}")
    raise UserError(f"no register is named {text!r}; {one_of(REGISTERS, text.upper())}")


def _integer(text: str) -> int | None:
    try:
        return int(text, 0)
    except ValueError:
        return None


def decode_command(options: argparse.Namespace) -> int:
    """``specctrl decode``: a table of fields."""
    register = find_register(options.register)
    value = _integer(options.value)
    if value is None:
        raise UserError(f"{options.value!r} is not a number such as 0x401")
    try:
        decoded = register.decode(value)
    except ValueError as error:
        raise UserError(str(error)) from None
    reserved = [bit for bit in range(register.width) if decoded.unknown >> bit & 1]
    if options.json:
        print(json.dumps({
            "register": register.name, "number": f"{register.number:#x}", "value": f"{value:#x}",
            "fields": {name: f"{content:#x}" for name, content in decoded.fields.items()},
            "reserved": f"{decoded.unknown:#x}",
        }, indent=1))
        return 0
    print(f"{register.name} ({_number(register)}) = {value:#x}")
    rows = [("bits", "field", "value", "meaning")]
    for field in register:
        high = field.low + field.width - 1
        bits = str(field.low) if field.width == 1 else f"{high}:{field.low}"
        content = decoded.fields[field.name]
        rows.append((bits, field.name, str(content) if field.width == 1 else f"{content:#x}", field.meaning))
    _table(rows)
    if reserved:
        print(f"bits set that no field describes: {', '.join(map(str, reserved))} ({decoded.unknown:#x})")
    return 0


def _table(rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


# ---- rules

def add_rules(commands: Any) -> None:
    """Add ``specctrl rules``."""
    parser = command(commands, "rules", rules_command, "list the specification's rules, or show one", (
        "examples:\n  specctrl rules\n  specctrl rules show cap.enable.before-vcpus\n"
        "  specctrl rules --json\n\n"
        "exit status:\n  0; 2 for an unknown rule or a page with an error"))
    parser.add_argument("what", nargs="?", choices=["list", "show"], default="list", help="default: list")
    parser.add_argument("id", nargs="?", metavar="ID", help="the rule to show")
    parser.add_argument("--json", action="store_true", help="print JSON: a list of rules, or the one")


def rules_command(options: argparse.Namespace) -> int:
    """``specctrl rules``: every rule on a line, or one in full."""
    if (options.what == "show") != (options.id is not None):
        raise UserError("specctrl rules show ID" if options.what == "show" else "an ID goes with show only")
    try:
        rules = load_rules()
    except RuleError as error:
        raise UserError(str(error)) from None
    if options.id is not None and options.id not in rules:
        raise UserError(f"no rule has the id {options.id!r}; {one_of(rules, options.id)}")
    chosen = list(rules.values()) if options.id is None else [rules[options.id]]
    if options.json:
        documents = [asdict(rule) for rule in chosen]
        print(json.dumps(documents if options.id is None else documents[0], indent=1, ensure_ascii=False))
    elif options.id is not None:
        rule = chosen[0]
        print(f"{rule.id}\n  {rule.text}")
        print(f"status  {rule.status}\nlayer   {rule.layer}\nsource  {rule.source}")
        if rule.defect:
            print(f"defect  {rule.defect}")
        print(f"code    {', '.join(rule.code)}\npage    {rule.page}:{rule.line}")
    elif chosen:
        _table([("id", "status", "rule"), *((rule.id, rule.status, rule.text) for rule in chosen)])
    return 0


# ---- parts

def add_parts(commands: Any) -> None:
    """Add ``specctrl parts``."""
    parser = command(
        commands, "parts", parts_command, "list the processor parts that a scenario's host can name",
        "example:\n  specctrl parts --json")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def parts_command(options: argparse.Namespace) -> int:
    """``specctrl parts``: the catalogue."""
    if options.json:
        print(json.dumps([
            {"part": part.name, "title": part.title, "features": list(part.features.names()),
             "spec_ctrl_shadow": part.spec_ctrl_shadow, "host_spec_ctrl": f"{part.spec_ctrl:#x}"}
            for part in PARTS.values()
        ], indent=1))
        return 0
    rows = [("part", "control", "host value", "features")]
    for part in PARTS.values():
        control = "yes" if part.spec_ctrl_shadow else "no"
        rows.append((part.name, control, f"{part.spec_ctrl:#x}", " ".join(part.features.names())))
    _table(rows)
    return 0
