"""Takes out of pages and style sheets what nobody sees.

Marks on code that looks plain, a style sheet of which little is used, comments in what is sent with every page.
"""

import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

_PLAIN = re.compile(r'<span class="[nopw]">([^<]*)</span>')
"""Names, punctuation and blanks, which have the colour of all code; and operators, which need no other."""

_FOLDED = re.compile(r'<summary>\s*<p class="collapsed[^>]*>Show code cell source</p>.*?</summary>', re.DOTALL)

_WORD = re.compile(r'<span class="pre">([^<]*)</span>')
"""A word of code in running text; where it may break, the style sheet and the site's script say."""

_LITERAL = re.compile(r'<code class="docutils literal notranslate">')

_TITLE = re.compile(r'(<a class="reference internal"[^>]*?) title="[^"]*"')
"""What a link says when it is pointed at: the name of what it leads to, which mostly is its text."""

_UNUSED = re.compile(r"mystnb\.[0-9a-f]+\.css")
"""Forty kilobytes, mostly for coloured terminals; ``spec.css`` says what cells look like."""


def slim(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Slim one page."""
    if isinstance(context.get("body"), str):
        context["body"] = _FOLDED.sub("<summary>Code</summary>", plain_text(plain_code(context["body"])))
    context["css_files"] = [
        sheet for sheet in context.get("css_files", ()) if not _UNUSED.search(str(getattr(sheet, "filename", sheet)))
    ]


def plain_code(html: str) -> str:
    """Take the marks off code that looks like plain code.

    >>> plain_code('<span class="k">if</span><span class="w"> </span><span class="n">mask</span>')
    '<span class="k">if</span> mask'
    """
    return _PLAIN.sub(r"\1", html)


def plain_text(html: str) -> str:
    """Take the frames off words of code in running text, and the names that links repeat.

    >>> plain_text('<code class="docutils literal notranslate"><span class="pre">0x48</span></code>')
    '<code class="literal">0x48</code>'
    """
    return _TITLE.sub(r"\1", _LITERAL.sub('<code class="literal">', _WORD.sub(r"\1", html)))


def slim_styles(app: Sphinx, exception: Exception | None) -> None:
    """Take the comments out of the colours of code, which are generated."""
    colours = Path(app.outdir) / "_static" / "pygments.css"
    if exception is None and colours.is_file():
        colours.write_text(without_comments(colours.read_text("utf-8")), "utf-8")


def without_comments(style: str) -> str:
    """Take the comments, and the blanks before them, out of a style sheet.

    >>> without_comments(".k { color: #163 } /* Keyword */")
    '.k { color: #163 }'
    """
    return re.sub(r"\s*/\*.*?\*/", "", style, flags=re.DOTALL)
