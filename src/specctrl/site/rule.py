"""The directives ``rule`` and ``rules`` (the table of them all), the role ``rule``, and the file ``rules.json``."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.nodes import Node, system_message
from sphinx.application import Sphinx
from sphinx.roles import XRefRole
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from specctrl.evidence.collect import Shown
from specctrl.rules import RawRule, RuleError, check_code, make_rule, scan
from specctrl.site.definitions import canonical
from specctrl.site.domain import Stated, spec_domain
from specctrl.site.evidence import evidence_of, rule_evidence
from specctrl.site.nodes import code

logger = logging.getLogger(__name__)


class RuleDirective(SphinxDirective):
    """States one rule: its fence is read, and checked, by :mod:`specctrl.rules`."""

    required_arguments = 1
    final_argument_whitespace = True
    has_content = True
    option_spec = None  # the fence's options are not YAML: "#GP" is no comment

    def run(self) -> list[nodes.Node]:
        """Render the rule and note it in the domain."""
        path = Path(self.env.doc2path(self.env.docname))
        page = path.relative_to(self.env.srcdir).as_posix()
        if path.parent != Path(self.env.srcdir) / "spec":
            return self._refuse(f"rules are stated in spec/*.md, not in {page}")
        raw = self._fence(path.read_text("utf-8"), page)
        if raw is None:
            return self._refuse(f"no rule fence {self.arguments[0]!r} was found here")
        try:
            rule = make_rule(raw)
            check_code(rule)
            names = tuple(_canonical(name) for name in rule.code)
        except (RuleError, LookupError) as error:
            return self._refuse(str(error))
        stated = Stated(rule, self.env.docname, names)
        spec_domain(self.env).add_rule(stated)
        return [self._render(stated)]

    def _fence(self, text: str, page: str) -> RawRule | None:
        same = [raw for raw in scan(text, page) if raw.id == self.arguments[0].strip()]
        return min(same, key=lambda raw: abs(raw.line - self.lineno), default=None)

    def _refuse(self, why: str) -> list[nodes.Node]:
        logger.warning("%s", why, location=(self.env.docname, self.lineno), type="spec", subtype="rule")
        return []

    def _render(self, stated: Stated) -> nodes.Element:
        rule = stated.rule
        permalink = nodes.reference(
            "", "", code(rule.id), refid=stated.anchor, internal=True, classes=["spec-statement-id"]
        )
        head = nodes.paragraph("", "", permalink, classes=["spec-statement-head"])
        body = self.parse_text_to_nodes(rule.text, offset=rule.line)
        block = nodes.container("", head, *body, rule_evidence(rule=rule.id), classes=["spec-statement"])
        self.set_source_info(block)
        if stated.anchor not in self.state.document.ids:  # else it was stated before, which the domain will say
            block["ids"] = [stated.anchor]
            self.state.document.note_explicit_target(block)
        return block


def _canonical(name: str) -> str:
    try:
        return canonical(name)
    except LookupError:
        return name  # a name that resolves, but not to a definition; the reference says so


class rules_table(nodes.General, nodes.Element):  # noqa: N801 - docutils names node classes so
    """Holds the place of the tables until every page was read."""


class RulesDirective(SphinxDirective):
    """Shows all rules, a fold with a table for each area."""

    def run(self) -> list[nodes.Node]:
        """Leave a place for them."""
        place = rules_table()
        self.set_source_info(place)
        return [place]


class RuleRole(XRefRole):
    """Refers to a rule without naming its domain."""

    def __init__(self) -> None:
        super().__init__(warn_dangling=True, innernodeclass=nodes.literal)

    def run(self) -> tuple[list[Node], list[system_message]]:
        """Make the reference."""
        self.name = "spec:rule"
        made = super().run()
        spec_domain(self.env).add_mention(self.env.docname, self.target)
        return made


def write_json(app: Sphinx, exception: Exception | None) -> None:
    """Write ``rules.json`` beside the pages: every rule, with all that shows it."""
    if exception is not None or app.builder.format != "html":
        return
    rows = []
    evidence = evidence_of(app.env)
    for stated in spec_domain(app.env).rules().values():
        fields = asdict(stated.rule)
        row = {key: fields[key] for key in ("id", "status", "source", "defect", "layer", "code", "text")}
        shown = evidence.shown[stated.rule.id] if evidence is not None else Shown()
        url = f"{app.builder.get_target_uri(stated.docname)}#{stated.anchor}"
        rows.append({**row, "evidence": asdict(shown), "url": url})
    document: dict[str, Any] = {"schema": "specctrl/rules/1", "rules": rows}
    if evidence is not None:
        document |= {"proof": evidence.proof, "explored": evidence.explored}
    text = json.dumps(document, indent=1, ensure_ascii=False)
    (Path(app.outdir) / "rules.json").write_text(text + "\n", "utf-8")


def write_sentences(app: Sphinx, exception: Exception | None) -> None:
    """Write what the search page needs to find a rule by its sentence: id, address, sentence."""
    if exception is None and app.builder.format == "html":
        rows = [
            [stated.rule.id, f"{app.builder.get_target_uri(stated.docname)}#{stated.anchor}", stated.rule.text]
            for stated in spec_domain(app.env).rules().values()
        ]
        target = Path(app.outdir) / "_static" / "sentences.js"
        target.write_text(f"const SENTENCES = {json.dumps(rows, ensure_ascii=False)};\n", "utf-8")
