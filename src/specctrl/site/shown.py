"""What stands beneath each rule: a small label for each kind of evidence, and all of it folded away."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from docutils import nodes

from specctrl.evidence.collect import Shown
from specctrl.scenario.published import is_generated
from specctrl.site.domain import SpecDomain
from specctrl.site.evidence import evidence_of
from specctrl.site.nodes import code, disclosure, joined, reference


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
        yield nodes.reference("", "", code(name), refuri=f"explored.html#property-{name}", internal=True)


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
