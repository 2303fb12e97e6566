"""What ran in a real kernel, as it is committed and shown; and what has changed since it ran.

``make kernel-test`` ends with a record of this form, in its own folder.  The one that is committed is
``reference/linux/recorded.json``.  It names every scenario, every rule and every file of the series by a hash, so a
page can say what is new or has changed since.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from specctrl.rules import data_folder, load_rules
from specctrl.scenario import Scenario, read
from specctrl.targets.c_reference import text_hash

FOLDER = Path(__file__).resolve().parents[3] / "reference" / "linux"
AS_PUBLISHED, EQUAL, KNOWN_DIFFERENCE = "as published", "equal", "known difference"
DIFFERS, NOT_SHOWN = "differs", "not shown"
ENDINGS = (AS_PUBLISHED, EQUAL, KNOWN_DIFFERENCE, DIFFERS, NOT_SHOWN)
"""What can come of a scenario.

*equal*: what the emulator says with the machine's own processor in it, which is not what is published step by step.
"""

_COMMENT = re.compile(r"/\*.*?\*/|^# .*?$", re.DOTALL | re.MULTILINE)


def recorded(folder: Path = FOLDER) -> dict[str, Any]:
    """The committed record."""
    record: dict[str, Any] = json.loads((folder / "recorded.json").read_text("utf-8"))
    return record


def scenario_hash(scenario: Scenario) -> str:
    """8 hex digits that change with what a scenario does or expects; its title and rules do not count."""
    done = [[step.message(), step.source.get("expect")] for step in scenario.steps]
    return _hash(json.dumps([scenario.host, scenario.profile, scenario.assume, done], sort_keys=True))


def source_hash(path: Path) -> str:
    """8 hex digits that change with the code of a file; C comments, headings of diffs and spaces do not count."""
    return _hash(" ".join(_COMMENT.sub(" ", path.read_text("utf-8")).split()))


def identity(folder: Path = FOLDER) -> dict[str, dict[str, str]]:
    """What a run depends on, each part by name with its hash: scenarios, rules, the series, the machine."""
    return {
        "scenarios": {each.id: scenario_hash(each) for each in read([data_folder("vectors")])},
        "rules": {id: text_hash(rule) for id, rule in load_rules().items()},
        "series": _files(folder, "series/*"),
        "machine": _files(folder, "rig.py", "expected.py", "judging.py", "vmm/*", "histories/*"),
    }


def programs_identity(texts: Mapping[str, str], folder: Path = FOLDER) -> dict[str, dict[str, str]]:
    """What a run of whole programs depends on: rules, the series, the exported texts, what builds and judges them."""
    known = identity(folder)
    return {
        "rules": {"all": _hash(json.dumps(known["rules"]))},
        "series": known["series"],
        "texts": {name: _hash(text) for name, text in texts.items()},
        "machine": _files(folder, "expected.py", "programs.py", "tables.py", "programs/*"),
    }


@dataclass(frozen=True, slots=True)
class Change:
    """Names that are new, that have another hash, and that are gone."""

    new: tuple[str, ...]
    changed: tuple[str, ...]
    gone: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.new or self.changed or self.gone)

    def __str__(self) -> str:
        counts = {"new": self.new, "changed": self.changed, "gone": self.gone}
        return ", ".join(f"{len(names)} {what}" for what, names in counts.items() if names) or "as they were"


def since(record: Mapping[str, Any], now: Mapping[str, Mapping[str, str]]) -> dict[str, Change]:
    """What of each part has changed since a run; ``now`` is the :func:`identity` of today.

    >>> since({"of": {"rules": {"a": "1", "b": "2"}}}, {"rules": {"b": "3", "c": "4"}})["rules"]
    Change(new=('c',), changed=('b',), gone=('a',))
    """
    changes = {}
    for part, before in record["of"].items():
        today = now[part]
        changes[part] = Change(
            tuple(sorted(today.keys() - before.keys())),
            tuple(sorted(name for name in today.keys() & before.keys() if today[name] != before[name])),
            tuple(sorted(before.keys() - today.keys())))
    return changes


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _files(folder: Path, *patterns: str) -> dict[str, str]:
    paths = sorted(path for pattern in patterns for path in folder.glob(pattern))
    return {path.relative_to(folder).as_posix(): source_hash(path) for path in paths}
