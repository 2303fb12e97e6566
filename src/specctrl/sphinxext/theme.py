"""Mends what the theme leaves out for screen readers, without JavaScript."""

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

MENDED = (
    # A caption of the contents says that it is a heading, and not of which level.
    ('<p class="caption" role="heading">', '<p class="caption" role="heading" aria-level="2">'),
    # The corner of a table is no heading.
    ('<th class="head"><p></p></th>', '<td class="head"></td>'),
)


def mend(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Mend one page, after the theme has made its parts."""
    for part in ("body", "furo_navigation_tree"):
        for old, new in MENDED:
            if isinstance(context.get(part), str):
                context[part] = context[part].replace(old, new)
