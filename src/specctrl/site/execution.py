"""The code of the pages: run once, before the pages are read; a cell shows what it showed in that run."""

from pathlib import Path
from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import OptionSpec

from specctrl.evidence.page_runs import code_pages, read_runs
from specctrl.evidence.records import obtain
from specctrl.evidence.run_pages import Output, Ran
from specctrl.site.nodes import disclosure

logger = logging.getLogger(__name__)


def run(app: Sphinx) -> None:
    """Take the runs of the present sources, or make them; each failure is a warning."""
    root = Path(app.confdir)
    runs: dict[str, list[Ran]] = {}
    failures = []
    kept = root / "_build" / "evidence"
    try:
        if code_pages(root):
            runs = read_runs(obtain("pages", root, kept, logger.info))
        if app.config.docstring_prompts:
            failures += obtain("docstrings", root, kept, logger.info)["failures"]
    except RuntimeError as error:
        logger.warning("%s", error, type="spec", subtype="executed")
    failures += [failure for done in runs.values() for ran in done for failure in ran.failures]
    for file, line, what in failures:
        logger.warning("%s", what, location=f"{file}:{line}", type="spec", subtype="executed")
    app.env.spec_before = getattr(app.env, "spec_cells", {})  # type: ignore[attr-defined]  # Sphinx keeps what is put there
    app.env.spec_cells = {  # type: ignore[attr-defined]
        page.removesuffix(".md"): [ran for ran in done if ran.kind == "cell"] for page, done in runs.items()}


def changed(app: Sphinx, env: BuildEnvironment, *_: object) -> list[str]:
    """The pages to read again: their cells showed something else in the build before."""
    now, before = env.spec_cells, env.spec_before  # type: ignore[attr-defined]  # run() put them there
    return [page for page, cells in now.items() if cells != before.get(page) and page in env.found_docs]


class CellDirective(SphinxDirective):
    """Shows a cell, and what it showed when it ran; ``:tags:`` may fold either: ``hide-input``, ``hide-output``."""

    optional_arguments = 1
    has_content = True
    option_spec: ClassVar[OptionSpec] = {"tags": directives.unchanged}

    def run(self) -> list[nodes.Node]:
        """Render the cell."""
        source = "\n".join(self.content)
        ran = self._taken(source)
        tags = self.options.get("tags", "").strip("[]").replace(",", " ").split()
        listing = nodes.literal_block(source, source, language="python")
        content: nodes.Element = nodes.container("", listing, classes=["cell_input"])
        if "hide-input" in tags:
            content = disclosure("", content, classes=["hide"], summary="Code")
        cell = nodes.container("", content, classes=["cell", *(f"tag_{tag}" for tag in tags)])
        if ran is not None and ran.outputs:
            shown: nodes.Element = nodes.container("", *map(_shown, ran.outputs), classes=["cell_output"])
            cell += disclosure("", shown, classes=["hide"], summary="Output") if "hide-output" in tags else shown
        self.set_source_info(listing)
        self.set_source_info(cell)
        return [cell]

    def _taken(self, source: str) -> Ran | None:
        """The next cell of the page that ran; a warning if it is another, or none did."""
        data = self.env.current_document
        number = int(data.get("spec_cells") or 0)
        data["spec_cells"] = number + 1
        done: list[Ran] = self.env.spec_cells.get(self.env.docname, [])  # type: ignore[attr-defined]  # run() put it there
        if number < len(done) and done[number].code.strip() == source.strip():
            return done[number]
        if not any(ran.failures for ran in done):
            logger.warning("this cell was not run", location=(self.env.docname, self.lineno),
                           type="spec", subtype="executed")
        return None


def _shown(output: Output) -> nodes.Element:
    if output["kind"] == "html":
        raw = nodes.raw("", output["data"], format="html")
        return nodes.container("", raw, classes=["output", "text_html"])
    text = output["data"].rstrip()
    return nodes.literal_block(text, text, language="text", classes=["output", "text_plain"])
