"""The directive ``fold``: what is exhaustive stands folded away, under a line that says what it is.

Cells and prompts in it run, and count, as everywhere.  A link to a place in it opens it.
"""

from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import OptionSpec

from specctrl.site.nodes import disclosure


class FoldDirective(SphinxDirective):
    """Folds its content; the argument is the line that stays, ``:name:`` an anchor of its own."""

    required_arguments = 1
    final_argument_whitespace = True
    has_content = True
    option_spec: ClassVar[OptionSpec] = {"name": directives.unchanged}

    def run(self) -> list[nodes.Node]:
        """Render the fold."""
        self.assert_has_content()
        fold = disclosure("", summary=self.arguments[0], classes=["spec-section-fold"])
        fold += self.parse_content_to_nodes(allow_section_headings=False)
        self.set_source_info(fold)
        self.add_name(fold)
        return [fold]
