"""``specctrl vectors``: the published set of scenarios."""

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from specctrl.cli.command import command
from specctrl.cli.workers import Progress, add_workers, kept_results, workers_of

EPILOG = """\
  check     every file is a valid scenario, named after its id; no id twice; a generated id ends in digits of its
            content; nothing that was released has changed, gone or been renamed
  list      the scenarios, with level and title
  new       writes the skeleton of a scenario under an id, and prints its path
  release   enters what is not released yet into RELEASED.json, under a version
  generate  makes the generated scenarios again (some minutes); those that were released stay as they are

exit status:
  0  all is well
  1  check: something is wrong; generate --check: a file differs from what is generated
  2  a wrong command line, or a set that cannot be read

examples:
  specctrl vectors check
  specctrl vectors list --level processor
  specctrl vectors list --rule exit.host-restored --kind hand --json
  specctrl vectors new entry.first-exit
  specctrl vectors release 0.1.0
"""


def add_vectors(commands: Any) -> None:
    """Add ``vectors`` to the command line."""
    from specctrl.scenario.selection import add_selection

    parser = command(commands, "vectors", vectors_command, "check, list and extend the published scenarios", EPILOG)
    parser.add_argument("--folder", type=Path, metavar="DIR", help="another set than this project's own")
    parts = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    parts.add_parser("check", help="check files and ids", description="Check files and ids.")
    listing = parts.add_parser("list", help="list scenarios", description="List scenarios.")
    add_selection(listing)
    listing.add_argument("--json", action="store_true", help="print the index of those scenarios as JSON")
    new = parts.add_parser("new", help="write a skeleton", description="Write a skeleton.")
    new.add_argument("id", metavar="ID", help="the id, which names the file too")
    release = parts.add_parser(
        "release", help="enter everything new into RELEASED.json",
        description="Enter everything new into RELEASED.json.")
    release.add_argument("version", metavar="VERSION", help="the version, as 0.1.0")
    generate = parts.add_parser(
        "generate", help="make the generated scenarios again", description="Make the generated scenarios again.")
    generate.add_argument("--check", action="store_true", help="change nothing; say what would change")
    add_workers(generate)


def vectors_command(options: argparse.Namespace) -> int:
    """``specctrl vectors WHAT``."""
    from specctrl.rules import data_folder
    from specctrl.scenario import Invalid
    from specctrl.scenario.published import NotPossible

    folder = options.folder or data_folder("vectors")
    try:
        return WHAT[options.what](options, folder)
    except Invalid as invalid:
        for problem in invalid.problems:
            print(problem, file=sys.stderr)
    except BrokenPipeError:
        raise
    except (NotPossible, OSError) as error:
        print(f"specctrl: {error}", file=sys.stderr)
    return 2


def _check(_options: argparse.Namespace, folder: Path) -> int:
    from specctrl.scenario.published import check, read_manifest, read_set

    problems = check(folder)
    for problem in problems:
        print(problem)
    documents, _, _ = read_set(folder)
    if not problems:
        released = read_manifest(folder).released.keys() & documents.keys()
        print(f"{len(documents)} scenarios, {len(released)} of them released: all is well")
    return 1 if problems else 0


def _list(options: argparse.Namespace, folder: Path) -> int:
    from specctrl.scenario import read
    from specctrl.scenario.levels import level
    from specctrl.scenario.selection import selection
    from specctrl.vectors.archive import index

    chosen = selection(options).of(read([folder]))
    if options.json:
        entries = index(folder)["scenarios"]
        print(json.dumps({scenario.id: entries[scenario.id] for scenario in chosen}, indent=1))
        return 0
    for scenario in chosen:
        print(f"{level(scenario):<9}  {scenario.id}  {scenario.title}")
    print(f"{len(chosen)} scenario{'' if len(chosen) == 1 else 's'}", file=sys.stderr)
    return 0


def _new(options: argparse.Namespace, folder: Path) -> int:
    from specctrl.scenario.published import create

    print(create(folder, options.id))
    return 0


def _release(options: argparse.Namespace, folder: Path) -> int:
    from specctrl.scenario.published import NotPossible, release

    if not re.fullmatch(r"[0-9]+\.[0-9]+\.[0-9]+", options.version):
        raise NotPossible(f"{options.version!r} is not a version such as 0.1.0")
    new = release(folder, options.version)
    print(f"{len(new)} scenarios released with {options.version}")
    return 0


def _generate(options: argparse.Namespace, folder: Path) -> int:
    from specctrl.shards import ShardError, carry_out
    from specctrl.vectors.generated_files import differences, generated, write

    try:
        with Progress("worlds explored") as told:
            texts = generated(folder, lambda work, worlds: carry_out(
                work, worlds, workers_of(options), kept_results("vectors"), told))
    except ShardError as error:
        print(f"specctrl: {error}", file=sys.stderr)
        return 2
    changes = differences(folder, texts)
    for change in changes:
        print(change)
    if not options.check:
        write(folder, texts)
    print(f"{len(texts)} generated scenarios, {len(changes)} changes")
    return 1 if options.check and changes else 0


WHAT: dict[str, Callable[[argparse.Namespace, Path], int]] = {
    "check": _check, "list": _list, "new": _new, "release": _release, "generate": _generate,
}
