"""The note below each page's title: what the specification was written against, and when."""

import json
import subprocess
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config

from specctrl.site.domain import spec_domain

AGAINST = (
    "Written against RFC v3 of 10 April 2024 (base <code>2c71fdf02a95</code>, after v6.9-rc3) and Linux 7.3.4. "
    "Not merged: 236 is <code>KVM_CAP_PRE_FAULT_MEMORY</code> in mainline, so "
    "<code>KVM_CHECK_EXTENSION(236)</code> cannot detect this interface."
)


def commit(root: Path) -> str:
    """Say which commit ``root`` is at and of which day, or ``unknown`` where git cannot tell."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()

    try:
        said = git("log", "-1", "--abbrev=12", "--format=%h of %cs")
        changed = git("status", "--porcelain")
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return f"{said}, with local changes" if changed else said


def set_commit(app: Sphinx, config: Config) -> None:
    """Note the commit, so that a new one writes the pages again."""
    if not config.spec_commit:
        config.spec_commit = commit(Path(app.confdir))


NO_SCENARIOS = (".schema.json", "RELEASED.json")
"""JSON files of ``vectors`` that are about scenarios."""


def count_evidence(app: Sphinx, config: Config) -> None:
    """Count what is published beside the rules: the scenarios, and the claims that are proven."""
    root = Path(app.confdir)
    scenarios = [path for path in (root / "vectors").rglob("*.json") if not path.name.endswith(NO_SCENARIOS)]
    proofs = root / "src" / "specctrl" / "proof" / "proofs.json"
    claims = len(json.loads(proofs.read_text("utf-8"))["claims"]) if proofs.is_file() else 0
    config.spec_counts = {"scenarios": len(scenarios), "claims": claims}


def add_facts(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Hand the page's foot what it says: the commit, and the counts."""
    context["spec_commit"] = app.config.spec_commit
    context["spec_counts"] = {"rules": len(spec_domain(app.env).rules()), **app.config.spec_counts}


def add_banner(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Put the note below the page's title."""
    if doctree is None or "</h1>" not in context.get("body", ""):
        return
    note = (
        f'\n<div class="status-banner" role="note"><p>{AGAINST} '
        f'<span class="status-commit">Commit {escape(app.config.spec_commit)}.</span></p></div>\n'
    )
    context["body"] = context["body"].replace("</h1>", f"</h1>{note}", 1)
