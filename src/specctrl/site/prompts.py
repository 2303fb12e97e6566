"""Runs every prompt of the pages and the docstrings in the build: no page shows an untrue answer."""

from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util import logging

from specctrl.evidence.digest import digest
from specctrl.evidence.run_pages import Failure, run_docstrings, run_page

logger = logging.getLogger(__name__)


def check(app: Sphinx) -> None:
    """Warn of each failing prompt; what passed is not run again until a source changes."""
    root = Path(app.confdir)
    key = digest(root)
    record = Path(app.doctreedir) / "prompts-passed"
    if record.is_file() and record.read_text("ascii") == key:
        return
    failures: list[Failure] = []
    for path in [root / "index.md", *sorted((root / "spec").glob("*.md"))]:
        if path.is_file():
            failures += run_page(path)
    for package in app.config.prompt_packages:
        failures += run_docstrings(package)
    for file, line, what in failures:
        logger.warning("%s", what, location=f"{file}:{line}", type="spec", subtype="prompt")
    if not failures:
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text(key, "ascii")
