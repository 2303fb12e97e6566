"""Gathers the evidence of each rule before the pages are read, and warns where a MUST has none."""

import json
from dataclasses import asdict
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util import logging

from specctrl.content import digest
from specctrl.evidence import EvidenceError, Example, Shown, collect, missing
from specctrl.rules import RuleError, load_rules

logger = logging.getLogger(__name__)


def gather(app: Sphinx) -> None:
    """Run the evidence, or take the record of the same sources; the pages find it in the environment."""
    found: dict[str, Shown] = {}
    if app.config.rule_evidence:
        try:
            found = _recorded(app)
        except (EvidenceError, RuleError) as error:
            logger.warning("%s", error, type="spec", subtype="evidence")
    app.env.spec_evidence = found  # type: ignore[attr-defined]  # Sphinx keeps what extensions put there


def _recorded(app: Sphinx) -> dict[str, Shown]:
    root = Path(app.confdir)
    record = Path(app.doctreedir) / f"evidence-{digest(root)}.json"
    if record.is_file():
        return {id: _shown(row) for id, row in json.loads(record.read_text("utf-8")).items()}
    rules = load_rules(root / "spec")
    found = collect(rules, root / "spec", root / "vectors")
    unshown = missing(rules, found)
    for id in unshown:
        rule = rules[id]
        location = f"{root / rule.page}:{rule.line}"
        logger.warning("nothing shows the rule %r", id, location=location, type="spec", subtype="evidence")
    if not unshown:
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text(json.dumps({id: asdict(shown) for id, shown in found.items()}), "utf-8")
    return found


def _shown(row: dict[str, list[dict[str, str | int]] | list[str]]) -> Shown:
    examples = [Example(str(one["page"]), int(one["line"])) for one in row["examples"] if isinstance(one, dict)]
    return Shown(examples, [str(id) for id in row["scenarios"]], [str(where) for where in row["idle"]])
