"""Which examples and scenarios show which rule; evidence counts only if it executes the code that the rule binds.

A cell of a page names its rules in a comment, ``# rule: id, id``; a scenario names them in ``rules``.
Everything here is run, with a record of the functions called meanwhile.  Whether a change of that code would be
noticed is asked in ``specctrl.evidence.judge``; everything together is made in ``specctrl.evidence.records``.
"""

import contextlib
import io
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any

from specctrl.rules import Rule, blocks, data_folder, resolve
from specctrl.scenario.reading import Scenario, read
from specctrl.scenario.running import PASS, EmulatorTarget, run_one

_TAG = re.compile(r"^\s*# rule: (?P<ids>.+)$", re.MULTILINE)


class EvidenceError(ValueError):
    """Evidence names a rule that does not exist, or fails; the message says where."""


@dataclass(frozen=True, slots=True)
class Example:
    """A cell of a page that asserts a rule; ``line`` is where it starts, ``anchor`` its fragment in the site."""

    page: str
    line: int
    anchor: str

    @property
    def place(self) -> str:
        """Where it stands, as an editor takes it."""
        return f"{self.page}:{self.line}"


@dataclass(slots=True)
class Shown:
    """What shows one rule, of four kinds; and what names the rule, but is no evidence of it."""

    examples: list[Example] = field(default_factory=list)
    scenarios: list[str] = field(default_factory=list)
    claims: list[str] = field(default_factory=list)
    properties: list[str] = field(default_factory=list)
    idle: list[str] = field(default_factory=list)
    """What executes none of the code that the rule binds."""
    unmoved: list[str] = field(default_factory=list)
    """What executes it, and does not notice any mutant of it."""
    broken_by: dict[str, str] = field(default_factory=dict)
    """For an example's place, a scenario and a property: a mutant of the rule's code that breaks it."""
    noticed: dict[str, int] = field(default_factory=dict)
    """How many mutants the rule's code has, and how many of them each kind of evidence notices, for whatever rule."""


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

    def counts(id: str, where: str, called: set[CodeType]) -> bool:
        if id not in rules:
            raise EvidenceError(f"{where} names the rule {id!r}, which no page states")
        if bound[id] and not bound[id] & called:
            found[id].idle.append(where)
            return False
        return True

    folder = data_folder("spec") if spec is None else spec
    for page in sorted(folder.glob("*.md")):
        for id, example, called in run_cells(page):
            if counts(id, example.place, called):
                found[id].examples.append(example)
    for scenario in own_scenarios(vectors):
        with calls() as called:
            result = run_one(scenario, EmulatorTarget("spec"))
        if result.status != PASS:
            raise EvidenceError(f"the scenario {scenario.id} does not pass")
        for id in scenario.rules:
            if counts(id, scenario.id, called):
                found[id].scenarios.append(scenario.id)
    return found


def own_scenarios(vectors: Path | None = None) -> list[Scenario]:
    """The scenarios of profile ``spec``; the folder is the specification's own by default."""
    return [one for one in read([data_folder("vectors") if vectors is None else vectors]) if one.profile == "spec"]


Cell = tuple[str, Example, set[CodeType]]
"""A tagged cell that ran: a rule that it names, where it stands, what it called."""


def tagged_rules(code: str) -> list[str]:
    """The rules that a cell names.

    >>> tagged_rules("x = 1\\n# rule: a.b, c.d")
    ['a.b', 'c.d']
    """
    return [id.strip() for tag in _TAG.findall(code) for id in tag.split(",")]


def anchor_of(rule: str, number: int) -> str:
    """The fragment of the cell that is a page's first, second, ... to name a rule.

    >>> anchor_of("force.zeros-too", 1), anchor_of("force.zeros-too", 2)
    ('shows-force.zeros-too', 'shows-force.zeros-too-2')
    """
    return f"shows-{rule}" if number == 1 else f"shows-{rule}-{number}"


Before = Callable[[list[str], str, CodeType, dict[str, Any]], None]
"""Told of a tagged cell before it runs: its rules, its place, its code, the page's names."""


def run_cells(page: Path, before: Before | None = None) -> Iterator[Cell]:
    """Run a page's cells in one namespace; yields each tagged one, once for each rule that it names.

    A page without a tag is not run, and calls are recorded in tagged cells alone: recording is slow.
    """
    text = page.read_text("utf-8")
    if not _TAG.search(text):
        return
    namespace: dict[str, Any] = {"__name__": "__main__"}
    name = f"{page.parent.name}/{page.name}"
    numbers: Counter[str] = Counter()
    for block in blocks(text):
        if block.kind != "cell" or "skip-execution" in block.tags:
            continue
        code = compile("\n" * (block.line - 1) + block.code, str(page), "exec", dont_inherit=True)
        ids = tagged_rules(block.code)
        if ids and before is not None:
            before(ids, f"{name}:{block.line}", code, namespace)
        recording = calls() if ids and before is None else contextlib.nullcontext(set[CodeType]())
        with recording as called, contextlib.redirect_stdout(io.StringIO()):
            try:
                exec(code, namespace)
            except Exception as error:
                raise EvidenceError(f"{name}:{block.line}: the cell raises {error!r}") from error
        for id in ids:
            numbers[id] += 1
            yield id, Example(name, block.line, anchor_of(id, numbers[id])), called


def missing(rules: dict[str, Rule], found: dict[str, Shown]) -> list[str]:
    """The rules with MUST or MUST NOT that nothing shows."""
    return [
        id
        for id, rule in rules.items()
        if rule.strength.startswith("MUST") and not found[id].examples and not found[id].scenarios
    ]
