"""Brings the evidence of each rule into the site, and shows it: beneath the rule, and as tables.

It is made beside the reading of the pages; what is missing or red is a warning.
"""

import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from specctrl.evidence.collect import EvidenceError, Shown, anchor_of
from specctrl.evidence.records import Evidence, RecordError, evidence_folder, gather
from specctrl.evidence.run_pages import tagged_rules
from specctrl.rules import Rule, RuleError
from specctrl.scenario.published import is_generated
from specctrl.site.domain import SpecDomain
from specctrl.site.nodes import code, disclosure, joined, reference, scrolling, table

logger = logging.getLogger(__name__)


class Making:
    """Lets a process of its own make what evidence there is none of yet, while the pages are read."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, app: Sphinx) -> None:
        """Start it, in a checkout, which keeps its evidence."""
        if app.config.rule_evidence and evidence_folder(Path(app.confdir)):
            command = [sys.executable, "-m", "specctrl.cli", "evidence"]
            self.process = subprocess.Popen(
                command, cwd=app.confdir, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def take(self, app: Sphinx, env: BuildEnvironment) -> None:
        """Wait for it, and take its records: the pages find them in the environment when they are written."""
        evidence: Evidence | None = None
        if self.process is not None:
            self.process.wait()
        if app.config.rule_evidence:
            root = Path(app.confdir)
            try:
                evidence = gather(root, root / "_build" / "evidence", logger.info)
            except (EvidenceError, RecordError, RuleError) as error:
                logger.warning("%s", error, type="spec", subtype="evidence")
            else:
                for id, why in evidence.complaints():
                    rule = evidence.rules.get(id)
                    location = f"{root / rule.page}:{rule.line}" if rule else None
                    logger.warning("%s", why, location=location, type="spec", subtype="evidence")
        env.spec_evidence = evidence  # type: ignore[attr-defined]  # Sphinx keeps what extensions put there


def evidence_of(env: BuildEnvironment) -> Evidence | None:
    """What :meth:`Making.take` left in the environment; None if the site shows no evidence."""
    found: Evidence | None = getattr(env, "spec_evidence", None)
    return found


def name_cells(app: Sphinx, document: nodes.document) -> None:
    """Give each tagged cell the fragments by which the rules that it shows link to it."""
    numbers: dict[str, int] = {}
    for cell in document.findall(nodes.container):
        if "cell" not in cell["classes"]:
            continue
        source = next((part for part in cell.findall(nodes.literal_block)), None)
        for id in tagged_rules(source.astext()) if source is not None else ():
            numbers[id] = numbers.get(id, 0) + 1
            cell["ids"].append(anchor_of(id, numbers[id]))


# ---- beneath a rule


class rule_evidence(nodes.General, nodes.Element):  # noqa: N801 - docutils names node classes so
    """Holds the place of a rule's evidence until every page was read."""


def example_links(shown: Shown) -> Iterator[nodes.reference]:
    """A link to each cell that shows the rule."""
    pages = Counter(example.page for example in shown.examples)
    numbers: Counter[str] = Counter()
    for example in shown.examples:
        page = PurePosixPath(example.page).stem
        numbers[page] += 1
        text = f"{page}, {numbers[page]}" if pages[example.page] > 1 else page
        yield nodes.reference("", text, refuri=f"{page}.html#{example.anchor}", internal=True)


def vector_links(shown: Shown) -> Iterator[nodes.reference]:
    """A link to each scenario's file; those that somebody wrote for the rule come first."""
    for id in sorted(shown.scenarios, key=is_generated):
        yield nodes.reference("", "", code(id), refuri=f"../vectors/{id}.json", internal=True)


def claim_links(shown: Shown) -> Iterator[nodes.reference]:
    """A link to each claim that carries the rule."""
    for claim in shown.claims:
        yield nodes.reference("", "", code(claim), refuri=f"claims.html#claim-{claim}", internal=True)


def property_links(shown: Shown) -> Iterator[nodes.reference]:
    """A link to each explored property that carries the rule."""
    for name in shown.properties:
        yield nodes.reference("", "", code(name), refuri=f"claims.html#property-{name}", internal=True)


KINDS = (
    # kind, the label for one and for more, the heading, the links
    ("example", "1 example", "{} examples", "Examples", example_links),
    ("vector", "1 vector", "{} vectors", "Vectors", vector_links),
    ("proof", "proven", "proven, {} claims", "Proven", claim_links),
    ("explored", "explored", "explored, {} properties", "Explored", property_links),
)
"""Every kind of evidence, as it is shown."""


def labels(shown: Shown) -> list[nodes.reference]:
    """One label for each kind that shows the rule, linked to the first place."""
    made = []
    for kind, one, more, _, links in KINDS:
        found = list(links(shown))
        if found:
            text = one if len(found) == 1 else more.format(len(found))
            classes = ["spec-kind", f"spec-kind-{kind}"]
            made.append(nodes.reference("", text, refuri=found[0]["refuri"], internal=True, classes=classes))
    return made


def beneath(domain: SpecDomain, id: str, docname: str) -> list[nodes.Node]:
    """Everything that stands beneath a rule."""
    evidence = evidence_of(domain.env)
    if evidence is None or id not in evidence.shown:
        return []
    shown = evidence.shown[id]
    lines = [_line(heading, found) for _, _, _, heading, links in KINDS if (found := list(links(shown)))]
    lines.append(nodes.paragraph("", judged(shown)))
    pages = [
        reference("listing", f"{page} ", docname, domain.env.titles[page].astext(), plain=True)
        for page in domain.mentioned().get(id, ())
    ]
    if pages:
        lines.append(_line("Mentioned on", pages))
    command = f"$ specctrl evidence {id}"
    block = nodes.literal_block(command, command, language="console", classes=["spec-command"])
    fold = disclosure("", *lines, block, classes=["spec-fold"], summary=f"Evidence of {id}, and the command")
    items = [nodes.list_item("", nodes.paragraph("", "", label)) for label in labels(shown)]
    return [nodes.bullet_list("", *items, classes=["spec-kinds"]), fold] if items else [fold]


NAMED = 16
"""How many places of one kind are named; a rule's JSON has them all."""


def _line(heading: str, items: Sequence[nodes.Node]) -> nodes.paragraph:
    more = [nodes.Text(f" and {len(items) - NAMED} more")] if len(items) > NAMED else []
    return nodes.paragraph("", "", nodes.strong("", f"{heading}: "), *joined(items[:NAMED]), *more)


def mutant_figures(shown: Shown) -> str:
    """How many mutants the rule's code has, and who notices how many of them.

    >>> mutant_figures(Shown(noticed={"mutants": 3, "vectors": 2, "pages": 3, "exploration": 0, "tests": 0}))
    '3 mutants; vectors notice 2, pages 3, exploration 0'
    """
    if not shown.noticed.get("mutants"):
        return "no mutants"
    count, vectors, pages, explored = (shown.noticed[key] for key in ("mutants", "vectors", "pages", "exploration"))
    said = f"{count} mutant{'s' if count > 1 else ''}; vectors notice {vectors}, pages {pages}, exploration {explored}"
    return f"{said}, tests {shown.noticed['tests']} more" if shown.noticed["tests"] else said


def judged(shown: Shown) -> str:
    """What the mutants say of a rule's evidence."""
    said = f"Its code: {mutant_figures(shown)}."
    if not shown.noticed.get("mutants"):
        return f"{said} So this evidence is only known to execute it."
    said += " Each example, vector and property named here breaks on one of them"
    left_out = len(shown.unmoved) + len(shown.idle)
    return f"{said}; {left_out} more that name the rule do not, and are not counted." if left_out else f"{said}."


# ---- the tables

Rows = tuple[tuple[str, ...], Iterable[list[list[nodes.Node]]]]


class coverage_table(nodes.General, nodes.Element):  # noqa: N801 - docutils names node classes so
    """Holds the place of a table until every page was read."""


class CoverageDirective(SphinxDirective):
    """Shows one table of the evidence: ``areas`` or ``uncounted``."""

    required_arguments = 1
    option_spec: ClassVar = {}

    def run(self) -> list[nodes.Node]:
        """Leave a place for the table."""
        place = coverage_table(table=directives.choice(self.arguments[0], list(TABLES)))
        self.set_source_info(place)
        return [place]


def coverage(evidence: Evidence | None, name: str, docname: str) -> nodes.Node:
    """The table; a site without evidence says so."""
    if evidence is None:
        return nodes.paragraph("", "No evidence was gathered.")
    label, made = TABLES[name]
    headings, rows = made(evidence, docname)
    rows = list(rows)
    return scrolling(label, table(headings, rows, "spec-coverage")) if rows else nodes.paragraph("", "None.")


def by_area(evidence: Evidence, docname: str) -> Rows:
    """For each area how many rules there are, and how many each kind shows."""
    areas: dict[str, list[Rule]] = {}
    for rule in evidence.rules.values():
        areas.setdefault(rule.area, []).append(rule)
    rows = [_counts(code(area), rules, evidence) for area, rules in sorted(areas.items())]
    rows.append(_counts(nodes.strong("", "in all"), list(evidence.rules.values()), evidence))
    return ("Area", "rules", "MUST", "example", "vector", "proof", "explored"), rows


def _counts(name: nodes.Node, rules: list[Rule], evidence: Evidence) -> list[list[nodes.Node]]:
    shown = [evidence.shown[rule.id] for rule in rules]
    numbers = (
        len(rules), sum(rule.strength.startswith("MUST") for rule in rules),
        sum(bool(one.examples) for one in shown), sum(bool(one.scenarios) for one in shown),
        sum(bool(one.claims) for one in shown), sum(bool(one.properties) for one in shown))
    cells: list[list[nodes.Node]] = [[nodes.Text(str(number))] for number in numbers]
    return [[name], *cells]


def _row(first: nodes.Node, *second: nodes.Node) -> list[list[nodes.Node]]:
    return [[first], list(second)]


def uncounted(evidence: Evidence, docname: str) -> Rows:
    """What names a rule and is no evidence of it."""
    rows: list[list[list[nodes.Node]]] = []
    for id, shown in evidence.shown.items():
        reasons = ((shown.idle, "executes none of its code"), (shown.unmoved, "no mutant of its code breaks it"))
        for items, why in reasons:
            if items:
                names = joined(code(item) for item in items)
                rows.append(_row(reference("rule", id, docname), nodes.Text(f"{why}: "), *names))
    return ("Rule", "Named, and not counted"), rows


TABLES: dict[str, tuple[str, Callable[[Evidence, str], Rows]]] = {
    "areas": ("Rules by area, and how many each kind of evidence shows", by_area),
    "uncounted": ("What names a rule and was not counted", uncounted),
}
"""Each table: what it is called, and how it is made."""
