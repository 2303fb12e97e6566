"""A posting of the series, hunk by hunk: what each does, which rules it concerns, and the verdict.

Postings are the TOML files of ``spec/postings``; a later one is another file.
"""

import re
import tomllib
from dataclasses import dataclass, fields
from datetime import date
from pathlib import Path
from typing import Any, TypeVar, get_origin

from specctrl.rules import Rule

VERDICTS = ("taken over", "repaired", "stated", "text", "outside")
"""What can become of a hunk: the first three say how the rules relate to its code."""


class ReviewError(ValueError):
    """A posting's file says something that cannot be; the message names file, patch and hunk."""


@dataclass(frozen=True, slots=True)
class Hunk:
    """A part of a patch, usually one function."""

    place: str
    does: str
    rules: tuple[str, ...]
    verdict: str
    defects: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Patch:
    """One mail of a posting."""

    number: int
    title: str
    author: str
    message: str
    hunks: tuple[Hunk, ...]


@dataclass(frozen=True, slots=True)
class Posting:
    """A whole posting; ``variant`` is the emulator's variant that does as it says."""

    name: str
    title: str
    subject: str
    date: date
    base: str
    variant: str
    cover: str
    patches: tuple[Patch, ...]

    def defects(self) -> set[str]:
        """Every defect that a hunk names."""
        return {defect for patch in self.patches for hunk in patch.hunks for defect in hunk.defects}


def read_posting(file: Path) -> Posting:
    """Read one posting; ReviewError for an unknown or missing key or verdict."""
    try:
        text = tomllib.loads(file.read_text("utf-8"))
        patches = tuple(_patch(item) for item in text.pop("patch", ()))
        return _made(Posting, "the posting", text, name=file.stem, patches=patches)
    except (tomllib.TOMLDecodeError, ReviewError) as error:
        raise ReviewError(f"{file.name}: {error}") from error


def _patch(item: dict[str, Any]) -> Patch:
    where = f"patch {item.get('number')}"
    hunks = tuple(_hunk(hunk, where) for hunk in item.pop("hunk", ()))
    return _made(Patch, where, item, hunks=hunks)


def _hunk(item: dict[str, Any], where: str) -> Hunk:
    where += f", {item.get('place', 'a hunk')}"
    texts = {key: tuple(item.pop(key, ())) for key in ("rules", "defects")}
    hunk = _made(Hunk, where, item, **texts)
    if hunk.verdict not in VERDICTS:
        raise ReviewError(f"{where}: {hunk.verdict!r} is no verdict")
    return hunk


Made = TypeVar("Made", Posting, Patch, Hunk)


def _made(record: type[Made], where: str, given: dict[str, Any], **read: Any) -> Made:
    """The record of what is given and what was read of it; ReviewError for a key that is missing, unknown, or wrong."""
    try:
        made = record(**given, **read)
    except TypeError as error:
        raise ReviewError(f"{where}: {error}") from error
    for item in fields(record):
        kind = get_origin(item.type) or item.type
        assert isinstance(kind, type)
        if not isinstance(getattr(made, item.name), kind):
            raise ReviewError(f"{where}: {item.name} is {getattr(made, item.name)!r}: not of type {kind.__name__}")
    return made


def problems(posting: Posting, rules: dict[str, Rule]) -> list[str]:
    """What does not fit the rules, each as a sentence; empty if all does.

    A hunk names rules that exist; one that is repaired or differs in text names a defect, and a rule with that
    status or an assumption in its place; one that is taken over names no defect that is a repaired rule's.  And every
    rule that cites a patch of RFC v3 as its source stands under that patch.
    """
    found = []
    for patch in posting.patches:
        for hunk in patch.hunks:
            where = f"patch {patch.number}, {hunk.place}"
            unknown = [rule for rule in hunk.rules if rule not in rules]
            found += [f"{where}: no rule is called {rule}" for rule in unknown]
            statuses = {rules[rule].status for rule in hunk.rules if rule in rules}
            if hunk.verdict == "repaired" and not (hunk.defects and statuses & {"repaired", "assumed"}):
                found.append(f"{where}: repaired, and names no defect or no repaired rule")
            if hunk.verdict in ("taken over", "stated") and "repaired" in statuses:
                found.append(f"{where}: {hunk.verdict}, and names a repaired rule")
            if hunk.verdict == "stated" and not hunk.defects:
                found.append(f"{where}: stated, and says not what surprises")
    for number, cited in sorted(cited_patches(rules).items()):
        standing = {rule for patch in posting.patches if patch.number == number for hunk in patch.hunks
                    for rule in hunk.rules}
        found += [f"patch {number}: {rule} cites it and is not there" for rule in sorted(cited - standing)]
    return found


def cited_patches(rules: dict[str, Rule]) -> dict[int, set[str]]:
    """The rules that name a patch of RFC v3 *first* in their source: where they come from."""
    cited: dict[int, set[str]] = {}
    for rule in rules.values():
        if match := re.match(r"v3 p(\d+)", rule.source):
            cited.setdefault(int(match[1]), set()).add(rule.id)
    return cited
