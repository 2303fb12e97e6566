"""``specctrl policies``: the policies compared, as a table, as data, or one cell as a scenario."""

import argparse
import json
import sys
from typing import Any

from specctrl.cli.command import command

EPILOG = """\
Without an option: what becomes of each guest under each policy when it boots on --from and moves to --to.

exit status:
  0  printed
  2  a wrong command line, or no such cell

examples:
  specctrl policies
  specctrl policies --from cascade-lake --to sierra-forest
  specctrl policies --csv > policies.csv
  specctrl policies --cell policy.p1.linux-old.ice-lake-server.to.sapphire-rapids > cell.json
  specctrl run cell.json
"""


def add_policies(commands: Any) -> None:
    """Add the command to the command line."""
    from specctrl.exploration.policies import HOSTS

    parser = command(
        commands, "policies", policies_command, "compare the policies over guests and pairs of hosts", EPILOG)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_true", help="print every cell as CSV")
    form.add_argument("--json", action="store_true", help="print every cell as JSON")
    form.add_argument("--cell", metavar="ID", help="print one cell as a scenario")
    parser.add_argument(
        "--from", dest="source", choices=HOSTS, default="ice-lake-server", metavar="HOST",
        help="where the guest boots; default: ice-lake-server")
    parser.add_argument(
        "--to", dest="destination", choices=HOSTS, default="sapphire-rapids", metavar="HOST",
        help=f"where it moves; default: sapphire-rapids; hosts: {', '.join(HOSTS)}")


def policies_command(options: argparse.Namespace) -> int:
    """``specctrl policies``: compute, and print."""
    from specctrl.exploration.policies import as_csv, compare
    from specctrl.exploration.policy_files import as_document

    if options.csv:
        print(as_csv(compare()), end="")
    elif options.json:
        print(json.dumps(as_document(compare()), indent=1, ensure_ascii=False))
    elif options.cell is not None:
        return _print_cell(options.cell)
    else:
        _print_table(options.source, options.destination)
    return 0


def _print_cell(id: str) -> int:
    from specctrl.exploration.policies import compare

    found = next((cell for cell in compare() if cell.id == id), None)
    if found is None:
        print(f"specctrl: no cell is {id!r}; specctrl policies --csv lists them", file=sys.stderr)
        return 2
    print(json.dumps(found.scenario(), indent=1, ensure_ascii=False))
    return 0


def _print_table(source: str, destination: str) -> None:
    from specctrl.exploration.policies import cell
    from specctrl.model.vmm.policies import GUESTS, POLICIES

    rows = [("", *GUESTS)]
    rows += [
        (policy, *(cell(policy, guest, source, destination).result.value for guest in GUESTS)) for policy in POLICIES
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    print(f"{source} to {destination}")
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    print()
    for name, policy in POLICIES.items():
        print(f"{name.ljust(widths[0])}  {policy.title}")
