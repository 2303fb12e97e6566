"""Which examples and scenarios show which rule; evidence counts only if it executes the code that the rule binds.

A cell of a page names its rules in a comment, ``# rule: id, id``; a scenario names them in ``rules``.
What a tagged cell called, its run says; the scenarios are run here, with the same record of calls.
Whether a change of that code would be noticed is asked in ``specctrl.evidence.breaks``; everything together is made in
``specctrl.evidence.records``.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FunctionType

from specctrl.evidence.run_pages import Ran, calls, name_of, run_page, tagged_rules
from specctrl.rules import Rule, data_folder, resolve
from specctrl.scenario.reading import Scenario, read
from specctrl.scenario.running import PASS, EmulatorTarget, run_one


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


def collect(
    rules: dict[str, Rule], spec: Path | None = None, vectors: Path | None = None,
    runs: Mapping[str, list[Ran]] | None = None,
) -> dict[str, Shown]:
    """Take the tagged cells from the runs of the pages, and run every scenario of profile ``spec``.

    EvidenceError names the first that fails.  The folders are the specification's own by default; pages of which
    there are no runs are run here.
    """
    found = {id: Shown() for id in rules}
    bound = {id: set(map(name_of, bound_code(rule))) for id, rule in rules.items()}

    def counts(id: str, where: str, called: set[str]) -> bool:
        if id not in rules:
            raise EvidenceError(f"{where} names the rule {id!r}, which no page states")
        if bound[id] and not bound[id] & called:
            found[id].idle.append(where)
            return False
        return True

    folder = data_folder("spec") if spec is None else spec
    for page in sorted(folder.glob("*.md")):
        if not tagged_rules(page.read_text("utf-8")):
            continue  # it shows no rule; whether its code runs is another's question
        name = f"{page.parent.name}/{page.name}"
        for id, example, names in tagged_cells(name, run_page(page) if runs is None else runs.get(name, [])):
            if counts(id, example.place, names):
                found[id].examples.append(example)
    for scenario in own_scenarios(vectors):
        with calls() as called:
            result = run_one(scenario, EmulatorTarget("spec"))
        if result.status != PASS:
            raise EvidenceError(f"the scenario {scenario.id} does not pass")
        for id in scenario.rules:
            if counts(id, scenario.id, set(map(name_of, called))):
                found[id].scenarios.append(scenario.id)
    return found


def own_scenarios(vectors: Path | None = None) -> list[Scenario]:
    """The scenarios of profile ``spec``; the folder is the specification's own by default."""
    return [one for one in read([data_folder("vectors") if vectors is None else vectors]) if one.profile == "spec"]


def anchor_of(rule: str, number: int) -> str:
    """The fragment of the cell that is a page's first, second, ... to name a rule.

    >>> anchor_of("force.zeros-too", 1), anchor_of("force.zeros-too", 2)
    ('shows-force.zeros-too', 'shows-force.zeros-too-2')
    """
    return f"shows-{rule}" if number == 1 else f"shows-{rule}-{number}"


def tagged_cells(page: str, done: list[Ran]) -> Iterator[tuple[str, Example, set[str]]]:
    """Each tagged cell of a page that ran, once for each rule that it names: the rule, where it stands, what it called.

    EvidenceError if it failed.
    """
    numbers: Counter[str] = Counter()
    for ran in done:
        ids = tagged_rules(ran.code) if ran.kind == "cell" else []
        if ran.kind == "cell" and ran.failures:
            raise EvidenceError(f"{page}:{ran.line}: {ran.failures[0][2]}")
        for id in ids:
            numbers[id] += 1
            yield id, Example(page, ran.line, anchor_of(id, numbers[id])), set(ran.called)


def missing(rules: dict[str, Rule], found: dict[str, Shown]) -> list[str]:
    """The rules with MUST or MUST NOT that nothing shows."""
    return [
        id
        for id, rule in rules.items()
        if rule.strength.startswith("MUST") and not found[id].examples and not found[id].scenarios
    ]
