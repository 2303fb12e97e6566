"""The directive ``posting``: one patch of a posting as a table of its hunks, with rules, verdict and defects."""

from pathlib import Path
from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.addnodes import pending_xref
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import OptionSpec

from specctrl.site.nodes import joined, reference, scrolling, table
from specctrl.site.review import Hunk, Patch, ReviewError, read_posting

logger = logging.getLogger(__name__)

WITH_A_SECTION = {"D1", "D2", "D3", "D4", "D5", "D7", "D8", "D9", "D10", "D18", "D21"}
"""The defects that have a section of their own on the page of defects."""


class PostingDirective(SphinxDirective):
    """Shows one patch of ``spec/postings/NAME.toml``."""

    required_arguments = 1
    option_spec: ClassVar[OptionSpec] = {"patch": directives.positive_int}

    def run(self) -> list[nodes.Node]:
        """Render the patch."""
        file = Path(self.env.srcdir) / "spec" / "postings" / f"{self.arguments[0]}.toml"
        self.env.note_dependency(str(file))
        try:
            posting = read_posting(file)
        except (OSError, ReviewError) as error:
            return self._refuse(str(error))
        for patch in posting.patches:
            if patch.number == self.options["patch"]:
                return [self._render(patch)]
        return self._refuse(f"{file.name} has no patch {self.options['patch']}")

    def _refuse(self, why: str) -> list[nodes.Node]:
        place = (self.env.docname, self.lineno)
        logger.warning("posting: %s", why, location=place, type="spec", subtype="posting")
        return []

    def _render(self, patch: Patch) -> nodes.Element:
        by = f"{patch.author}, Message-Id {patch.message}"
        head = nodes.paragraph("", "", nodes.strong("", patch.title), nodes.Text(f" · {by}"))
        rows = [self._row(hunk) for hunk in patch.hunks]
        block = nodes.container("", head, classes=["spec-posting"])
        block += scrolling(f"Patch {patch.number}, hunk by hunk", table(("Hunk and verdict", "Rules"), rows))
        self.set_source_info(block)
        return block

    def _row(self, hunk: Hunk) -> list[list[nodes.Node]]:
        rules = joined(reference("rule", rule, self.env.docname) for rule in hunk.rules)
        said: list[nodes.Node] = [nodes.strong("", hunk.place), nodes.Text(f". {hunk.does} ")]
        said.append(nodes.inline(hunk.verdict, hunk.verdict, classes=["spec-badge"]))
        if hunk.defects:
            said += [nodes.Text(" "), *joined(self._defect(defect) for defect in hunk.defects)]
        return [said, rules]

    def _defect(self, defect: str) -> nodes.Node:
        """Refer to where a defect is explained."""
        label = "guest-defects" if defect.startswith("G") else "defects-others"
        if defect in WITH_A_SECTION:
            label = f"found-{defect.lower()}"
        return pending_xref(
            "", nodes.inline(defect, defect), refdomain="std", reftype="ref", reftarget=label,
            refexplicit=True, refwarn=True, refdoc=self.env.docname,
        )
