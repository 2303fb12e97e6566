"""The published set of scenarios: who owns an id, what is released, what may change.

The id of a scenario stands for its content: what decides whether it passes.  Once released, neither changes.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from specctrl.rules import data_folder
from specctrl.scenario import Invalid, Problem, Scenario, loads, read
from specctrl.scenario.format import ID, LEVELS, OPERATIONS, PROFILES, SCHEMA
from specctrl.scenario.kinds import At, Json
from specctrl.scenario.levels import level
from specctrl.scenario.reading import parse, scenario_files
from specctrl.scenario.schema import schema_text
from specctrl.scenario.writing import write_whole

PREFIX = "gen"
"""The first word of every generated id, and of no other."""

DIGITS = 8
"""Hex digits of its content that end a generated id."""

MANIFEST = "RELEASED.json"
"""The file beside the scenarios that says what was released."""

CONTENT = ("schema", "profile", "assume", "host", "steps")
"""The keys that decide whether a scenario passes."""


def content_hash(document: Mapping[str, Json]) -> str:
    """The sha256 of what decides whether a scenario passes: its canonical JSON.

    Title, reason, rules, the id itself and the layout of the file do not count; the notation of a value does.

    >>> content_hash({"id": "a", "steps": []}) == content_hash({"id": "b", "title": "B", "steps": []})
    True
    """
    content = {key: document[key] for key in CONTENT if key in document}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def digits(document: Mapping[str, Json]) -> str:
    """The last word of a generated scenario's id."""
    return content_hash(document)[:DIGITS]


def is_generated(id: str) -> bool:
    """Whether the id is that of a generated scenario."""
    return id.split(".")[0] == PREFIX


@dataclass(slots=True)
class Manifest:
    """What was released: each id with the hash of its content and the version; and what was withdrawn, and why."""

    released: dict[str, dict[str, str]] = field(default_factory=dict)
    withdrawn: dict[str, str] = field(default_factory=dict)

    def text(self) -> str:
        """The manifest as its file."""
        return json.dumps({"released": self.released, "withdrawn": self.withdrawn}, indent=1, sort_keys=True) + "\n"


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a folder of scenarios; raises Invalid if there is none or it is not one."""
    file = folder / MANIFEST
    at = At(str(file))
    try:
        document = parse(file.read_bytes(), at)
    except OSError as error:
        at.refuse(f"cannot be read: {error.strerror}")
    if not at.problems and not _is_manifest(document):
        at.refuse('not a manifest: {"released": {ID: {"sha256", "version"}}, "withdrawn": {ID: WHY}} is wanted')
    if at.problems:
        raise Invalid(at.problems)
    return Manifest(document["released"], document["withdrawn"])


def _is_manifest(document: Json) -> bool:
    def words(value: Json) -> bool:
        return isinstance(value, dict) and all(isinstance(word, str) for word in value.values())

    return isinstance(document, dict) and document.keys() == {"released", "withdrawn"} and (
        isinstance(document["released"], dict) and words(document["withdrawn"])
        and all(words(entry) and entry.keys() == {"sha256", "version"} for entry in document["released"].values()))


def read_set(folder: Path) -> tuple[dict[str, dict[str, Json]], list[Scenario], list[Problem]]:
    """The documents by id and the scenarios of a folder, and what is wrong with its files and names."""
    documents: dict[str, dict[str, Json]] = {}
    scenarios: list[Scenario] = []
    problems: list[Problem] = []
    for file in scenario_files([folder]):
        text = file.read_bytes()
        try:
            scenario = loads(text, str(file))
        except Invalid as invalid:
            problems += invalid.problems
            continue
        id = scenario.id
        if file.name != f"{id}.json":
            problems.append(Problem(str(file), "/id", f"the file of {id} is called {id}.json"))
        if id in documents:
            problems.append(Problem(str(file), "/id", f"{id} is also the id of another file"))
        documents[id] = parse(text, At(str(file)))
        scenarios.append(scenario)
    return documents, scenarios, problems


def check(folder: Path) -> list[Problem]:
    """Everything that is wrong with a set of scenarios and its ids; raises Invalid without a readable manifest."""
    documents, scenarios, problems = read_set(folder)
    manifest = read_manifest(folder)
    for scenario in scenarios:
        problems += _id_problems(scenario, documents[scenario.id])
    return problems + list(_released_problems(folder, documents, manifest))


def _id_problems(scenario: Scenario, document: dict[str, Json]) -> Iterator[Problem]:
    """A generated id names its content; no other begins like one, or ends in a number that only counts."""
    id, last = scenario.id, scenario.id.split(".")[-1]
    if is_generated(id):
        if last != digits(document):
            yield Problem(scenario.file, "/id", f"the content of {id} has the digits {digits(document)}")
        if "x-generated" not in document:
            yield Problem(scenario.file, "", f'{id} is generated, and does not say from what: "x-generated"')
    elif "x-generated" in document:
        yield Problem(scenario.file, "/id", f"{id} is generated, and its id does not begin with {PREFIX}")
    elif last.isdigit():
        yield Problem(scenario.file, "/id", f"{id} ends in a number, and ids are never renumbered: use a word")


def _released_problems(folder: Path, documents: dict[str, dict[str, Json]], manifest: Manifest) -> Iterator[Problem]:
    file = str(folder / MANIFEST)
    by_content = {content_hash(document): id for id, document in documents.items()}
    for id, entry in manifest.released.items():
        if id in manifest.withdrawn:
            if id in documents:
                yield Problem(file, f"/withdrawn/{id}", f"{id} was withdrawn, and its id is in use")
        elif id not in documents:
            moved = by_content.get(entry["sha256"])
            became = f"; {moved} has its content now, and an id is never renamed" if moved else ""
            yield Problem(file, f"/released/{id}", f"{id} was released with {entry['version']}, and is gone{became}")
        elif content_hash(documents[id]) != entry["sha256"]:
            why = f"the content of {id} was released with {entry['version']}, and has changed; take a new id"
            yield Problem(file, f"/released/{id}", why)
    for id in manifest.withdrawn:
        if id not in manifest.released:
            yield Problem(file, f"/withdrawn/{id}", f"{id} was never released: remove its file, that is all")


class NotPossible(ValueError):
    """What is asked of the set cannot be done; the message says why."""


def released() -> list[Scenario]:
    """The scenarios that come with this package, as far as they were released.

    Raises Invalid as :func:`~specctrl.scenario.reading.read`.
    """
    folder = data_folder("vectors")
    manifest = read_manifest(folder)
    return [each for each in read([folder]) if each.id in manifest.released]


def release(folder: Path, version: str) -> list[str]:
    """Enter every scenario that was not released yet into the manifest; returns their ids."""
    problems = check(folder)
    if problems:
        raise Invalid(problems)
    manifest = read_manifest(folder)
    documents, _, _ = read_set(folder)
    new = sorted(documents.keys() - manifest.released.keys())
    for id in new:
        manifest.released[id] = {"sha256": content_hash(documents[id]), "version": version}
    write_whole(folder / MANIFEST, manifest.text())
    return new


def create(folder: Path, id: str) -> Path:
    """Write a skeleton under this id, in the folder of its first word; returns its path."""
    at = At(id)
    ID.read(id, at)
    if at.problems:
        raise NotPossible(at.problems[0].reason)
    if is_generated(id):
        raise NotPossible(f"ids that begin with {PREFIX} are those of generated scenarios")
    documents, _, _ = read_set(folder)
    if id in documents or id in read_manifest(folder).released:
        raise NotPossible(f"the id {id} is in use, or was")
    if id.split(".")[-1].isdigit():
        raise NotPossible(f"{id} ends in a number, and ids are never renumbered: use a word")
    path = folder / id.split(".")[0] / f"{id}.json"
    path.parent.mkdir(exist_ok=True)
    write_whole(path, SKELETON.replace("ID", id).replace("SCHEMA", SCHEMA))
    return path


SKELETON = """\
{
  "schema": "SCHEMA",
  "id": "ID",
  "title": "",
  "why": "",
  "rules": [],
  "profile": "spec",
  "host": "sapphire-rapids",
  "steps": [
    {"op": "create_vcpu", "vcpu": 0},
    {"op": "wrmsr", "msr": "IA32_SPEC_CTRL", "value": "0x1"},
    {"op": "observe", "expect": {"effective": "0x1", "guest_view": "0x1"}}
  ]
}
"""


def read_documents(folder: Path) -> dict[str, Any]:
    """Every document of a folder by its id; raises Invalid if a file is not a valid scenario."""
    documents, _, problems = read_set(folder)
    if problems:
        raise Invalid(problems)
    return documents


# ---- what follows from the table of operations and from the scenarios

_TABLE = re.compile(r"(?<=^\| Operation \| Arguments \| Answers \|\n\|---\|---\|---\|\n)(\|.*\n)+", re.MULTILINE)


def derived(folder: Path) -> dict[Path, str]:
    """The text of the files that follow from others: the schema, and the README with its table and its counts."""
    rows = "".join(
        f"| `{name}` | {_names(operation.args)} | {_names(operation.shows, but=('host_fault',))} |\n"
        for name, operation in OPERATIONS.items())
    own = [scenario for scenario in read([folder]) if scenario.profile == PROFILES[0]]
    counts = Counter(map(level, own))  # as many as an implementation of the specification runs
    readme = folder / "README.md"
    text = _TABLE.sub(lambda _: rows, readme.read_text("utf-8"))
    for name in LEVELS:
        text = re.sub(rf"^(\| `{name}` \|.*\| )\d+( \|)$", rf"\g<1>{counts[name]}\g<2>", text, flags=re.MULTILINE)
    return {folder / "scenario.schema.json": schema_text(), readme: text}


def _names(names: Iterable[str], but: tuple[str, ...] = ()) -> str:
    return ", ".join(f"`{name}`" for name in names if name not in but) or "\N{EN DASH}"
