"""The directive ``coverage``: how much of the rules each kind of evidence shows, and what was not counted."""

from collections.abc import Callable, Iterable
from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective

from specctrl.evidence.records import Evidence
from specctrl.rules import Rule
from specctrl.site.evidence import evidence_of
from specctrl.site.nodes import code, joined, reference, scrolling, table

Rows = tuple[tuple[str, ...], Iterable[list[list[nodes.Node]]]]


class CoverageDirective(SphinxDirective):
    """Shows one table of the evidence: ``areas`` or ``uncounted``."""

    required_arguments = 1
    option_spec: ClassVar = {}

    def run(self) -> list[nodes.Node]:
        """Render the table; a site without evidence says so."""
        what = directives.choice(self.arguments[0], list(TABLES))
        evidence = evidence_of(self.env)
        if evidence is None:
            return [nodes.paragraph("", "No evidence was gathered.")]
        label, made = TABLES[what]
        headings, rows = made(evidence, self.env.docname)
        rows = list(rows)
        if not rows:
            return [nodes.paragraph("", "None.")]
        return [scrolling(label, table(headings, rows, "spec-coverage"))]


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
