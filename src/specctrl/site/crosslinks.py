"""Fills in what only the whole site knows: the rules table, links from code back to pages and rules."""

import hashlib
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar

from docutils import nodes
from sphinx.addnodes import desc, desc_content, desc_signature, pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.transforms.post_transforms import SphinxPostTransform

from specctrl.evidence.records import Evidence
from specctrl.rules import resolve
from specctrl.site.domain import Shown, SpecDomain, Stated, rules_by_code, spec_domain
from specctrl.site.evidence import beneath, coverage, coverage_table, evidence_of, labels, mutant_figures, rule_evidence
from specctrl.site.nodes import badge, disclosure, joined, reference, scrolling, sentence, table
from specctrl.site.rule import rules_table


class Crosslinks(SphinxPostTransform):
    """Runs before references are resolved, so that what it adds is resolved with the rest."""

    default_priority = 5

    def run(self, **kwargs: Any) -> None:
        """Fill in one page."""
        domain = spec_domain(self.env)
        docname = self.env.current_document.docname
        for place in list(self.document.findall(rules_table)):
            place.replace_self(_rules_by_area(domain, docname))
        for foot in list(self.document.findall(rule_evidence)):
            foot.replace_self(beneath(domain, foot["rule"], docname))
        for one in list(self.document.findall(coverage_table)):
            one.replace_self(coverage(evidence_of(self.env), one["table"], docname))
        for frame in self.document.findall(nodes.container):
            if "spec-source" in frame["classes"] and "name" in frame:  # what is in C has no name here
                _rules_of_listing(domain, frame, docname)
        for entry in self.document.findall(desc):
            if entry["domain"] == "py":
                _explained_in(domain, entry, docname)


def _explained_in(domain: SpecDomain, entry: desc, docname: str) -> None:
    names = [id for signature in entry.findall(desc_signature) if signature.parent is entry for id in signature["ids"]]
    pages: dict[str, Shown] = {}
    for shown in (shown for name in names for shown in domain.listings_of(name)):
        pages.setdefault(shown.docname, shown)
    titles = domain.env.titles
    links = [
        reference("listing", f"{page} {shown.anchor}", docname, titles[page].astext(), plain=True)
        for page, shown in pages.items()
    ]
    rules = [reference("rule", id, docname) for id in rules_by_code(domain, names)]
    for child in entry.children:
        if isinstance(child, desc_content):
            for title, items in (("Explained in: ", links), ("Rules: ", rules)):
                if items:
                    child += nodes.paragraph("", "", nodes.Text(title), *joined(items), classes=["spec-backlinks"])


def _rules_of_listing(domain: SpecDomain, frame: nodes.container, docname: str) -> None:
    foot = frame[-1]
    assert isinstance(foot, nodes.Element)
    ids = rules_by_code(domain, [frame["name"]])
    if ids:
        foot += [nodes.Text("Carries out "), *joined(reference("rule", id, docname) for id in ids)]
    else:
        frame.remove(foot)


def _rules_by_area(domain: SpecDomain, docname: str) -> list[nodes.Node]:
    """Make a fold for each area, with the table of its rules; its line names the pages that state them."""
    evidence = evidence_of(domain.env)
    heads = ("Rule", "What it says", *(["Evidence"] if evidence else []))
    areas: dict[str, list[Stated]] = {}
    for stated in domain.rules().values():
        areas.setdefault(stated.rule.area, []).append(stated)
    folds: list[nodes.Node] = []
    for area, rules in areas.items():
        rows = [_row(stated, docname) for stated in rules]
        if evidence:
            rows = [[*row, _evidence(evidence, stated, domain.env, docname)]
                    for row, stated in zip(rows, rules, strict=True)]
        pages = dict.fromkeys(domain.env.titles[stated.docname].astext() for stated in rules)
        count = "1 rule" if len(rules) == 1 else f"{len(rules)} rules"
        inside = scrolling(f"Table of the rules: {area}", table(heads, rows, "spec-rules"))
        folds.append(disclosure("", inside, summary=f"{area} · {count} · {', '.join(pages)}", classes=["spec-area"]))
    return folds or [nodes.paragraph("", "No rule.")]


def _evidence(evidence: Evidence, stated: Stated, env: BuildEnvironment, docname: str) -> list[nodes.Node]:
    shown = evidence.shown[stated.rule.id]
    figures = nodes.inline("", mutant_figures(shown), classes=["spec-more"])
    return [*joined(labels(shown, env, docname), " "), figures]


def _row(stated: Stated, docname: str) -> list[list[nodes.Node]]:
    rule = stated.rule
    status: nodes.inline = badge(rule.status, "status")
    if rule.defect:
        status = nodes.inline("", "", status, nodes.Text(f" {rule.defect}"), classes=["spec-more"])
    code = [reference("code", name, docname, ".".join(name.split(".")[-2:])) for name in stated.code]
    foot = nodes.inline("", "", nodes.Text(f"{rule.source} · "), *joined(code), classes=["spec-more"])
    return [
        [reference("rule", rule.id, docname), nodes.Text(" "), status],
        [*sentence(rule.text, docname), nodes.Text(" "), foot],
    ]


def stale_pages(app: Sphinx, env: BuildEnvironment) -> Iterable[str]:
    """Name the pages that must be written again because a rule or a listing of another page changed."""
    domain = spec_domain(env)
    known = (domain.rules(), domain.shown(), domain.mentioned(), evidence_of(env), sorted(env.titles))
    seen = hashlib.sha256(repr(known).encode()).hexdigest()
    if seen == getattr(env, "spec_crosslinks", None):
        return []
    env.spec_crosslinks = seen  # type: ignore[attr-defined]  # Sphinx keeps what extensions put there
    return sorted(env.found_docs)


def leave_type_variable(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, contnode: nodes.TextElement
) -> nodes.TextElement | None:
    """Let a type variable in a signature stand without a link: it is no class, and has no entry."""
    if node.get("refdomain") == "py" and "." in node.get("reftarget", ""):
        with suppress(LookupError, ImportError):
            if isinstance(resolve(node["reftarget"]), TypeVar | ParamSpec):
                return contnode
    return None
