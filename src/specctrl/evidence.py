"""Which examples and scenarios show which rule; evidence counts only if it executes the code that the rule binds.

A cell of a page names its rules in a comment, ``# rule: id, id``; a scenario names them in ``rules``.
Everything here is run, with a record of the functions called meanwhile.
"""

import contextlib
import io
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any

from specctrl.pages import blocks
from specctrl.rules import Rule, data_folder, resolve
from specctrl.scenario.reading import read
from specctrl.scenario.running import EmulatorTarget, run_one

_TAG = re.compile(r"^\s*# rule: (?P<ids>.+)$", re.MULTILINE)


class EvidenceError(ValueError):
    """Evidence names a rule that does not exist, or fails; the message says where."""


@dataclass(frozen=True, slots=True)
class Example:
    """A cell of a page that asserts a rule; ``line`` is where it starts."""

    page: str
    line: int


@dataclass(slots=True)
class Shown:
    """What shows one rule: evidence that counts, and what names the rule without executing its code."""

    examples: list[Example] = field(default_factory=list)
    scenarios: list[str] = field(default_factory=list)
    idle: list[str] = field(default_factory=list)


def bound_code(rule: Rule) -> set[CodeType]:
    """The code objects of everything that the rule binds; a class stands for its methods.

    >>> from specctrl.rules import load_rules
    >>> rule = load_rules()["contract.effective.merge"]
    >>> sorted(code.co_name for code in bound_code(rule))
    ['effective', 'merge']
    """
    found: set[CodeType] = set()
    for name in rule.code:
        target = resolve(name)
        members = list(vars(target).values()) if isinstance(target, type) else [target]
        for member in members:
            function = member.fget if isinstance(member, property) else getattr(member, "__wrapped__", member)
            if isinstance(function, FunctionType):
                found.add(function.__code__)
    return found


@contextlib.contextmanager
def calls() -> Iterator[set[CodeType]]:
    """Record the code objects of all functions called meanwhile."""
    seen: set[CodeType] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            seen.add(frame.f_code)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield seen
    finally:
        sys.setprofile(before)


def collect(rules: dict[str, Rule], spec: Path | None = None, vectors: Path | None = None) -> dict[str, Shown]:
    """Run every tagged cell and every scenario of profile ``spec``; EvidenceError names the first that fails.

    The folders are the specification's own by default.
    """
    found = {id: Shown() for id in rules}
    bound = {id: bound_code(rule) for id, rule in rules.items()}

    def counted(ids: list[str], where: str, called: set[CodeType]) -> Iterator[Shown]:
        for id in ids:
            if id not in rules:
                raise EvidenceError(f"{where} names the rule {id!r}, which no page states")
            if bound[id] and not bound[id] & called:
                found[id].idle.append(where)
            else:
                yield found[id]

    folder = data_folder("spec") if spec is None else spec
    for page in sorted(folder.glob("*.md")):
        for ids, line, called in run_cells(page):
            example = Example(f"{folder.name}/{page.name}", line)
            for shown in counted(ids, f"{example.page}:{line}", called):
                shown.examples.append(example)
    for scenario in read([data_folder("vectors") if vectors is None else vectors]):
        if scenario.profile != "spec":
            continue
        with calls() as called:
            result = run_one(scenario, EmulatorTarget("spec"))
        if result.status != "pass":
            raise EvidenceError(f"the scenario {scenario.id} does not pass")
        for shown in counted(list(scenario.rules), scenario.id, called):
            shown.scenarios.append(scenario.id)
    return found


def run_cells(page: Path) -> Iterator[tuple[list[str], int, set[CodeType]]]:
    """Run a page's cells in one namespace; yields, for each tagged one, its rules, its line and what it called.

    A page without a tag is not run, and calls are recorded in tagged cells alone: recording is slow.
    """
    text = page.read_text("utf-8")
    if not _TAG.search(text):
        return
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(text):
        if block.kind != "cell" or "skip-execution" in block.tags:
            continue
        code = compile("\n" * (block.line - 1) + block.code, str(page), "exec", dont_inherit=True)
        tags = _TAG.findall(block.code)
        recording = calls() if tags else contextlib.nullcontext(set[CodeType]())
        with recording as called, contextlib.redirect_stdout(io.StringIO()):
            try:
                exec(code, namespace)
            except Exception as error:
                raise EvidenceError(f"{page.name}:{block.line}: the cell raises {error!r}") from error
        for tag in tags:
            yield [id.strip() for id in tag.split(",")], block.line, called


def missing(rules: dict[str, Rule], found: dict[str, Shown]) -> list[str]:
    """The rules with MUST or MUST NOT that nothing shows."""
    return [
        id
        for id, rule in rules.items()
        if rule.strength.startswith("MUST") and not found[id].examples and not found[id].scenarios
    ]
