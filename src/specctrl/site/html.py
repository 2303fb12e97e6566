"""Mends what the theme and other extensions leave out, without JavaScript."""

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

MENDED = (
    # A caption of the contents says that it is a heading, and not of which level.
    ('<p class="caption" role="heading">', '<p class="caption" role="heading" aria-level="2">'),
    # A label that says something else than the text that is seen.
    ('<summary aria-label="Toggle hidden content">', "<summary>"),
    # The corner of a table is no heading.
    ('<th class="head"><p></p></th>', '<td class="head"></td>'),
)
# A strip of bits of which one is forced, as text: a browser that finds no icon asks the server for one.
ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E"
    "%3Crect width='16' height='16' rx='3' fill='%231d5bb5'/%3E"
    "%3Cpath d='M2 5h3v6H2zM11 5h3v6h-3z' fill='%23fff' fill-opacity='.45'/%3E"
    "%3Cpath d='M6.5 5h3v6h-3z' fill='%23fff'/%3E%3C/svg%3E"
)


def mend(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Mend one page, after the theme has made its parts."""
    context["favicon_url"] = ICON
    context["docstitle"] = app.config.project  # what stands over the contents, and after a page's title
    for part in ("body", "furo_navigation_tree"):
        for old, new in MENDED:
            if isinstance(context.get(part), str):
                context[part] = context[part].replace(old, new)
