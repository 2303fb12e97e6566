"""The content security policy that stands in every page: whatever a page loads or runs comes from this site."""

import base64
import hashlib
import re
from functools import cache
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.builders.html import StandaloneHTMLBuilder

_INLINE = re.compile(r"<script>([^{}<>]*)</script>")


def policy(scripts: list[str]) -> str:
    """Return the policy under which only ``scripts`` may stand in the page itself.

    >>> policy(["let a = 1"]).split("; ")[1]
    "script-src 'self' 'wasm-unsafe-eval' 'sha256-LAfYd7pbFUgwfQu8b4q135PeTG2z+/coPEUYCd74eCQ='"
    """
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    return "; ".join(
        [
            "default-src 'self'",
            # Python in the page is WebAssembly; the word allows that, and no eval of JavaScript.
            " ".join(["script-src 'self' 'wasm-unsafe-eval'", *(f"'sha256-{digest}'" for digest in hashes)]),
            # Drawings, column widths and the theme's variables are styles in the page.
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data:",  # the icon
            "object-src 'none'",
            "base-uri 'none'",
            "form-action 'self'",  # the search field
        ]
    )


@cache
def inline_scripts(theme: Path) -> list[str]:
    """Return the scripts that stand in the templates of a theme, the same in every page."""
    texts = [template.read_text("utf-8") for template in sorted(theme.rglob("*.html"))]
    return sorted({script for text in texts for script in _INLINE.findall(text) if script.strip()})


def add_policy(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Put the policy at the head of one page, before anything that it governs."""
    assert isinstance(app.builder, StandaloneHTMLBuilder)
    scripts = inline_scripts(Path(app.builder.theme.get_theme_dirs()[0]))
    tag = f'\n<meta http-equiv="Content-Security-Policy" content="{policy(scripts)}">'
    context["metatags"] = tag + context.get("metatags", "")
