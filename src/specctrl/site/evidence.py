"""Brings the evidence of each rule into the site before the pages are read; what is missing or red is a warning."""

from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

from specctrl.evidence.collect import EvidenceError, anchor_of, tagged_rules
from specctrl.evidence.records import Evidence, RecordError, gather
from specctrl.rules import RuleError

logger = logging.getLogger(__name__)


def bring(app: Sphinx) -> None:
    """Take the records of the present sources, and run what has none; the pages find it in the environment."""
    evidence: Evidence | None = None
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
    app.env.spec_evidence = evidence  # type: ignore[attr-defined]  # Sphinx keeps what extensions put there


def evidence_of(env: BuildEnvironment) -> Evidence | None:
    """What :func:`bring` left in the environment; None if the site shows no evidence."""
    found: Evidence | None = getattr(env, "spec_evidence", None)
    return found


def name_cells(app: Sphinx, document: nodes.document) -> None:
    """Give each tagged cell the fragments by which the rules that it shows link to it."""
    numbers: dict[str, int] = {}
    for cell in document.findall(nodes.container):
        if cell.get("nb_element") != "cell_code":
            continue
        source = next((part for part in cell.findall(nodes.literal_block)), None)
        for id in tagged_rules(source.astext()) if source is not None else ():
            numbers[id] = numbers.get(id, 0) + 1
            cell["ids"].append(anchor_of(id, numbers[id]))

