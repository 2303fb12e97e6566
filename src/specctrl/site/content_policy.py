"""The content security policy: whatever a page loads or runs comes from this site, and stands in no attribute of it.

The policy is in the page itself, so that it holds wherever the site is served from.  A worker has the policy of its
script's own answer, but one that is started from a blob has the page's: ``python.mjs`` starts it so.

No style stands in an attribute: those of Sphinx, Furo and docutils become classes, or attributes of a drawing.  The
scripts and styles that a template puts into a page are named by their digest.
"""

import base64
import hashlib
import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.jinja2glue import BuiltinTemplateLoader

SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)
STYLE = re.compile(r"<style>(.*?)</style>", re.DOTALL)
PLACE = "<!-- content security policy -->"
"""Where the page that was rendered gets its policy, before anything that it governs."""

STYLED = (
    # Furo's icons.
    (' style="opacity: 50%"', ' opacity="0.5"'),
    (' style="display: none;">', ' display="none">'),
    # The indexes.
    (' style="width: 33%; vertical-align: top;"', ' class="index-column"'),
    ('<table style="width: 100%" class="', '<table class="'),
    # The mark that folds an entry, which a script uncovers: where there is none it does nothing.
    (' style="display: none" src="', ' src="'),
    (' style="display: none"', ""),
)
"""Styles in attributes, and what says the same to a browser that refuses them."""


def digest(text: str) -> str:
    """A digest, as a policy names it.

    >>> digest("let a = 1")
    "'sha256-LAfYd7pbFUgwfQu8b4q135PeTG2z+/coPEUYCd74eCQ='"
    """
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def policy(page: str) -> str:
    """Return the policy of a page, under which only the scripts and styles that stand in it now may.

    >>> policy("<script>let a = 1</script>").split("; ")[1]
    "script-src 'self' 'wasm-unsafe-eval' 'sha256-LAfYd7pbFUgwfQu8b4q135PeTG2z+/coPEUYCd74eCQ='"
    """
    scripts, styles = (sorted({digest(text) for text in kind.findall(page)}) for kind in (SCRIPT, STYLE))
    return "; ".join(
        [
            "default-src 'self'",
            # Python in the page is WebAssembly; the word allows that, and no eval of JavaScript.
            " ".join(["script-src 'self' 'wasm-unsafe-eval'", *scripts]),
            " ".join(["style-src 'self'", *styles]),
            "connect-src 'self'",
            "worker-src blob:",  # from a file of the site it would have no policy
            "img-src 'self' data:",  # the icon
            "object-src 'none'",
            "base-uri 'none'",
            "form-action 'self'",  # the search field
        ]
    )


def without_styles(page: str) -> str:
    """The page without styles in attributes.

    >>> without_styles('<path style="opacity: 50%" d=""/>')
    '<path opacity="0.5" d=""/>'
    """
    for old, new in STYLED:
        page = page.replace(old, new)
    return page


class Templates(BuiltinTemplateLoader):
    """Sphinx's templates; what they render has its styles in no attribute, and its policy at its head."""

    def render(self, template: str, context: dict[str, Any]) -> str:  # type: ignore[override]  # Sphinx says None
        """Render one."""
        page = super().render(template, context)
        if PLACE not in page:
            return page
        page = without_styles(page)
        return page.replace(PLACE, f'<meta http-equiv="Content-Security-Policy" content="{policy(page)}">', 1)


def mark(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Mark where one page gets its policy; none, where a server adds a script to it."""
    if app.config.page_policy:
        context["metatags"] = f"\n{PLACE}{context.get('metatags', '')}"


def setup(app: Sphinx) -> dict[str, bool]:
    """Render by these templates."""
    app.config.template_bridge = "specctrl.site.content_policy.Templates"
    app.add_config_value("page_policy", True, "html", bool)
    app.connect("html-page-context", mark)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
