"""The command line: all its commands; those that decode registers and list rules and parts are here themselves."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, NoReturn

from specctrl import __version__
from specctrl.commands_evidence import add_evidence
from specctrl.commands_explore import add_explore
from specctrl.commands_export import add_export
from specctrl.commands_lockstep import add_lockstep
from specctrl.commands_mutants import add_mutants
from specctrl.commands_policies import add_policies
from specctrl.commands_probe import add_probe
from specctrl.commands_prove import add_prove
from specctrl.commands_reference import add_reference
from specctrl.commands_run import add_run
from specctrl.commands_vectors import add_vectors
from specctrl.parts import PARTS
from specctrl.registers import REGISTERS, Register
from specctrl.rules import RuleError, load_rules
from specctrl.scenario.kinds import one_of
from specctrl.usage import UserError

USAGE = 2
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit status."""
    parser = make_parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help()
        return USAGE
    try:
        status: int = options.command(options)
        sys.stdout.flush()
    except UserError as error:
        print(f"specctrl: {error}", file=sys.stderr)
        return USAGE
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has had enough
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    return status


def make_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="specctrl",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="An executable specification of virtual IA32_SPEC_CTRL for KVM.",
        epilog="examples:\n"
               "  specctrl run vectors\n"
               "  specctrl decode IA32_SPEC_CTRL 0x401\n"
               "  specctrl rules show cap.enable.before-vcpus\n\n"
               "Each command has a --help of its own.",
    )
    parser.add_argument("--version", action="version", version=f"specctrl {__version__}")
    parser.set_defaults(command=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    add_run(_command, commands)
    _add_decode(commands)
    _add_rules(commands)
    _add_parts(commands)
    add_explore(_command, commands)
    add_prove(_command, commands)
    add_mutants(_command, commands)
    add_policies(_command, commands)
    add_evidence(_command, commands)
    add_reference(_command, commands)
    add_lockstep(_command, commands)
    add_probe(_command, commands)
    add_vectors(_command, commands)
    add_export(_command, commands)
    return parser


def _command(
    commands: Any, name: str, does: Callable[[Any], int], summary: str, epilog: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.set_defaults(command=does)
    return parser


# ---- decode

def _add_decode(commands: Any) -> None:
    names = "\n".join(f"  {register.name:<29} {_number(register)}" for register in REGISTERS.values())
    parser = _command(commands, "decode", decode_command, "take a register's value apart into its fields", (
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

def _add_rules(commands: Any) -> None:
    parser = _command(commands, "rules", rules_command, "list the specification's rules, or show one", (
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

def _add_parts(commands: Any) -> None:
    parser = _command(
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


def script() -> NoReturn:
    """Leave with the status of :func:`main`."""
    sys.exit(main())


if __name__ == "__main__":
    script()
