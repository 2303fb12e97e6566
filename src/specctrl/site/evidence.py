"""Brings the evidence of each rule into the site, and shows it: beneath the rule, and as tables.

It is made beside the reading of the pages; what is missing or red is a warning.
"""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective
from sphinx.util.osutil import relative_uri

from specctrl.evidence.collect import EvidenceError, Shown, anchor_of
from specctrl.evidence.records import Evidence, RecordError, evidence_folder, gather
from specctrl.evidence.run_pages import tagged_rules
from specctrl.rules import Rule, RuleError
from specctrl.scenario.published import is_generated
from specctrl.site.domain import SpecDomain
from specctrl.site.messages import linked
from specctrl.site.nodes import code, disclosure, joined, reference, scrolling, table
from specctrl.site.redirects import page_of

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
    """Give each tagged cell the fragments by which the rules that it shows link to it, and note its section's title."""
    numbers: dict[str, int] = {}
    sections = app.env.metadata[app.env.docname].setdefault("spec_sections", {})
    for cell in document.findall(nodes.container):
        if "cell" not in cell["classes"]:
            continue
        source = next((part for part in cell.findall(nodes.literal_block)), None)
        for id in tagged_rules(source.astext()) if source is not None else ():
            numbers[id] = numbers.get(id, 0) + 1
            cell["ids"].append(anchor_of(id, numbers[id]))
            sections[cell["ids"][-1]] = section_of(cell)


def section_of(node: nodes.Node) -> str:
    """The title of the section in which something stands."""
    parent = node.parent
    while parent is not None and not isinstance(parent, nodes.section):
        parent = parent.parent
    return parent[0].astext() if parent is not None else ""


# ---- beneath a rule


class rule_evidence(nodes.General, nodes.Element):  # noqa: N801 - docutils names node classes so
    """Holds the place of a rule's evidence until every page was read."""


Links = Callable[[Shown, BuildEnvironment, str], Iterator[nodes.reference]]
PLAYGROUND = "spec/playground"


def _link(text: str, start: str, page: str, rest: str) -> nodes.reference:
    """A link from the page ``start`` to a page, and what follows it in the address."""
    return nodes.reference("", text, refuri=f"{relative_uri(f'{start}.html', f'{page}.html')}{rest}", internal=True)


def example_links(shown: Shown, env: BuildEnvironment, start: str) -> Iterator[nodes.reference]:
    """A link to each cell that shows the rule, called by the section where it stands."""
    numbers: Counter[str] = Counter()
    for example in shown.examples:
        page = example.page.removesuffix(".md")
        section = env.metadata[page].get("spec_sections", {}).get(example.anchor, "")
        title = env.titles[page].astext() if page in env.titles else page
        said = section if page == start and section else f"{title}: {section}" if section not in ("", title) else title
        numbers[said] += 1
        again = f" ({numbers[said]})" if numbers[said] > 1 else ""
        yield _link(f"{said}{again}", start, page, f"#{example.anchor}")


@cache
def scenario_titles(folder: Path) -> dict[str, str]:
    """What each published scenario is called."""
    titles = {}
    for file in folder.rglob("*.json"):
        document = json.loads(file.read_text("utf-8"))
        if "steps" in document:
            titles[document["id"]] = document.get("title", document["id"])
    return titles


def vector_links(shown: Shown, env: BuildEnvironment, start: str) -> Iterator[nodes.reference]:
    """A link that performs each scenario; those that somebody wrote for the rule come first."""
    titles = scenario_titles(Path(env.srcdir) / "vectors")
    for id in sorted(shown.scenarios, key=is_generated):
        yield _link(titles.get(id, id), start, PLAYGROUND, f"?scenario={id}")


def claim_links(shown: Shown, env: BuildEnvironment, start: str) -> Iterator[nodes.reference]:
    """A link to each claim that carries the rule."""
    for claim in shown.claims:
        anchor = f"claim-{claim}"
        yield _link(claim, start, page_of(env, anchor, "spec/claims"), f"#{anchor}")


def property_links(shown: Shown, env: BuildEnvironment, start: str) -> Iterator[nodes.reference]:
    """A link to each explored property that carries the rule."""
    for name in shown.properties:
        anchor = f"property-{name}"
        yield _link(name, start, page_of(env, anchor, "spec/claims"), f"#{anchor}")


KINDS: tuple[tuple[str, str, str, str, Links], ...] = (
    # kind, the label for one and for more, the heading, the links
    ("proof", "proven", "proven", "Proven", claim_links),
    ("explored", "explored", "explored", "Explored", property_links),
    ("vector", "1 scenario", "{} scenarios", "Scenarios, to perform", vector_links),
    ("example", "1 example", "{} examples", "Examples", example_links),
)
"""Every kind of evidence, as it is shown."""


def labels(shown: Shown, env: BuildEnvironment, start: str) -> list[nodes.reference]:
    """One label for each kind that shows the rule, linked to the first place."""
    made = []
    for kind, one, more, _, links in KINDS:
        found = list(links(shown, env, start))
        if found:
            text = one if len(found) == 1 else more.format(len(found))
            classes = ["spec-kind", f"spec-kind-{kind}"]
            made.append(nodes.reference("", text, refuri=found[0]["refuri"], internal=True, classes=classes))
    return made


def beneath(domain: SpecDomain, id: str, docname: str) -> nodes.Node:
    """What stands beneath a rule: a quiet line that opens source, code, all that shows it, and the command."""
    env = domain.env
    evidence = evidence_of(env)
    stated = domain.rules()[id]
    rule = stated.rule
    origin = f"Source: {rule.source}" + (f" · Defect: {rule.defect}" if rule.defect else "") + f" · {rule.layer}"
    codes = joined(reference("code", name, docname, ".".join(name.split(".")[-2:])) for name in stated.code)
    lines: list[nodes.Element] = [nodes.paragraph("", "", *linked(f"{origin} · Code: "), *codes)]
    said = ""
    if evidence is not None and id in evidence.shown:
        shown = evidence.shown[id]
        said = "".join(f" · {label.astext()}" for label in labels(shown, env, docname))
        for kind, _, _, heading, links in KINDS:
            if found := list(links(shown, env, docname)):
                lines += _list(heading, found) if kind == "vector" else [_line(heading, found)]
        lines.append(nodes.paragraph("", judged(shown)))
        pages = [
            reference("listing", f"{page} ", docname, env.titles[page].astext(), plain=True)
            for page in domain.mentioned().get(id, ())
        ]
        if pages:
            lines.append(_line("Mentioned on", pages))
        lines.append(_line("Repeat it", [code(f"specctrl evidence {id}")]))
    return disclosure("", *lines, classes=["spec-fold"], status=rule.status, summary=said)


NAMED = 8
"""How many places of one kind are named; the command names them all."""


def _line(heading: str, items: Sequence[nodes.Node]) -> nodes.paragraph:
    more = [nodes.Text(f" and {len(items) - NAMED} more")] if len(items) > NAMED else []
    return nodes.paragraph("", "", nodes.strong("", f"{heading}: "), *joined(items[:NAMED]), *more)


def _list(heading: str, items: Sequence[nodes.Node]) -> list[nodes.Element]:
    more = f" (here {NAMED} of {len(items)})" if len(items) > NAMED else ""
    head = nodes.paragraph("", "", nodes.strong("", f"{heading}{more}:"))
    entries = (nodes.list_item("", nodes.paragraph("", "", item)) for item in items[:NAMED])
    return [head, nodes.bullet_list("", *entries)]


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
