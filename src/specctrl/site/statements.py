"""The pages' statements that age: what is said of a kernel, a VMM, a number or a tree as of a version or a day.

They are listed in ``spec/statements.toml``, each with its source and how to check it again.  ``problems`` compares that
list with the pages: a version or a day of reading that no entry has, and an entry that its page no longer mentions.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import date
from pathlib import Path
from typing import Any, get_origin

from specctrl.rules import data_folder

VERSION = re.compile(
    r"(?<![\w.§-])(?:"
    r"v?[4-7]\.\d{1,2}(?:\.\d{1,3})?(?:-rc\d)?"  # Linux
    r"|9\.[0-2](?:\.\d)?|1[01]\.\d\.\d"  # QEMU
    r")(?![\w.]*\d)"
)
"""A version of Linux or of QEMU, as prose writes it."""

NUMBER = re.compile(r"(?<![\w.])(?:236|25[0-9])(?![\w.]*\d)|\b0xe4\b")
"""A number of KVM's that another series may take: the capability's, and the ioctl's."""

TREE = re.compile(r"\b(?:81b38b9da|ae44c2971|c447b7308|783b58fd6|3ffc9b62|087af2c7d)[0-9a-f]*\b")
"""The revision at which another project's tree was read."""

DAY = re.compile(r"\b(\d{1,2}) (August|September|October|November|December) 2026\b")
"""A day after the last stored mail: so a day on which something was read or searched."""

ELSE = re.compile(r"(?:(?:api\.rst(?: section)?|sections after|leaf|issue) |issues/)\d[\d.]*(?: and \d[\d.]*)?")
"""What looks like a version or a number and is none: a section of a document, a leaf of CPUID, an issue."""

_FENCE = re.compile(r"^\s*(`{3,}|~{3,})")


class StatementError(ValueError):
    """The list of statements cannot be read; the message names file, entry and reason."""


@dataclass(frozen=True, slots=True)
class Statement:
    """One claim that ages.

    ``mentions`` are the words by which it is found on each of its ``pages``: versions, numbers, revisions and days as
    the pages write them.  ``checked`` is the day on which somebody last compared it with its source.
    """

    id: str
    says: str
    pages: tuple[str, ...]
    mentions: tuple[str, ...]
    source: str
    checked: date
    again: str


def read_statements(file: Path) -> tuple[Statement, ...]:
    """Read the list; StatementError for a missing, unknown or empty key, and for an id given twice."""
    try:
        entries = tomllib.loads(file.read_text("utf-8"))["statement"]
    except (OSError, KeyError, tomllib.TOMLDecodeError) as error:
        raise StatementError(f"{file.name}: {error}") from error
    statements = tuple(_statement(entry, f"{file.name}, {entry.get('id', 'an entry without id')}") for entry in entries)
    ids = [statement.id for statement in statements]
    if twice := sorted({name for name in ids if ids.count(name) > 1}):
        raise StatementError(f"{file.name}: twice: {', '.join(twice)}")
    return statements


def _statement(entry: Mapping[str, Any], where: str) -> Statement:
    given: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}
    try:
        statement = Statement(**given)
    except TypeError as error:
        raise StatementError(f"{where}: {error}") from error
    for field in fields(statement):
        value, kind = getattr(statement, field.name), get_origin(field.type) or field.type
        assert isinstance(kind, type)
        if not isinstance(value, kind) or not value:
            raise StatementError(f"{where}: {field.name} is {value!r}")
    return statement


def prose(text: str) -> str:
    """What a page says outside its code: fences and front matter are left out."""
    kept: list[str] = []
    fence = ""
    for line in text.removeprefix("---\n").splitlines():
        mark = _FENCE.match(line)
        if fence:
            if mark and mark[1].startswith(fence):
                fence = ""
        elif mark:
            fence = mark[1]
        else:
            kept.append(line)
    return "\n".join(kept)


def ageing(text: str) -> set[str]:
    """Every version, number, revision and day of reading in the prose of a page.

    >>> sorted(ageing("Not in Linux 7.3.4, where 0xe4 is free (read on 30 November 2026)."))
    ['0xe4', '30 November 2026', '7.3.4']
    >>> ageing("Posted on 10 April 2024, api.rst 7.35.")
    set()
    """
    said = ELSE.sub("", prose(text))
    return {found[0] for form in (VERSION, NUMBER, TREE, DAY) for found in form.finditer(said)}


def problems(statements: Iterable[Statement], pages: Mapping[str, str]) -> list[str]:
    """What does not fit, each as a sentence; empty if each ageing word is listed for its page, and each entry used."""
    statements = tuple(statements)
    found = []
    for name, text in sorted(pages.items()):
        listed = {word for statement in statements if name in statement.pages for word in statement.mentions}
        found += [f"{name}: {word} is in no statement of it" for word in sorted(ageing(text) - listed)]
    for statement in statements:
        for name in statement.pages:
            if name not in pages:
                found.append(f"{statement.id}: there is no page {name}")
            elif not any(word in prose(pages[name]) for word in statement.mentions):
                found.append(f"{statement.id}: {name} mentions none of {', '.join(statement.mentions)}")
        everywhere = "\n".join(prose(pages[name]) for name in statement.pages if name in pages)
        found += [f"{statement.id}: no page mentions {word}" for word in statement.mentions if word not in everywhere]
    return found


def own_pages() -> dict[str, str]:
    """The pages of the specification by name, ``spec`` and, in a repository, the two above it."""
    folder = data_folder("spec")
    files = [*folder.glob("*.md"), *(folder.parent / name for name in ("README.md", "index.md"))]
    return {file.name: file.read_text("utf-8") for file in files if file.is_file()}
