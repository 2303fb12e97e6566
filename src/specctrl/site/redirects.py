"""Keeps old addresses alive: a page at the address of each page that is gone, and a line for each passage that moved.

Both are listed in ``spec/redirects.toml``.  An old address keeps its fragment where the new page has it.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.osutil import relative_uri

from specctrl.site.content_policy import policy

logger = logging.getLogger(__name__)

FILE = "spec/redirects.toml"
FOLLOW = (
    "const to = document.getElementById(decodeURIComponent(location.hash.slice(1)));"
    'const first = document.querySelector("a");'
    'location.replace(to ? to.href : location.hash ? first.href.split("#")[0] + location.hash : first.href)'
)
"""The script of a page that only leads on: to where the passage went, else to the same fragment, else to the page."""
PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<meta name="color-scheme" content="light dark">
<title>Moved: {title}</title>
<link rel="canonical" href="{canonical}">
<link rel="icon" href="data:,">
<noscript><meta http-equiv="refresh" content="0; url={target}"></noscript>
</head>
<body>
<main>
<h1>Moved</h1>
<p>What stood here is now in <a href="{target}">{title}</a>.</p>
{passages}</main>
<script>{script}</script>
</body>
</html>
"""


_ID = re.compile(r'\bid="([^"]+)"')


class RedirectError(ValueError):
    """The list of redirects cannot be read; the message names file, entry and reason."""


@dataclass(frozen=True, slots=True)
class Place:
    """A page and a fragment in it, which may be empty: the page as a whole."""

    page: str
    fragment: str = ""

    def uri(self, start: str) -> str:
        """The link to it from the page at ``start``.

        >>> Place("spec/problem", "story").uri("spec/story")
        'problem.html#story'
        """
        to: str = relative_uri(f"{start}.html", f"{self.page}.html")
        return f"{to}#{self.fragment}" if self.fragment else to


def place(text: str) -> Place:
    """Read ``page`` or ``page#fragment``.

    >>> place("spec/problem#story")
    Place(page='spec/problem', fragment='story')
    """
    page, _, fragment = text.partition("#")
    return Place(page, fragment)


def read_redirects(file: Path) -> dict[Place, Place]:
    """Read the list: where each old place went; RedirectError if it cannot be read."""
    try:
        table: Mapping[str, Any] = tomllib.loads(file.read_text("utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise RedirectError(f"{file.name}: {error}") from error
    for old, new in table.items():
        if not isinstance(new, str) or not new or old == new:
            raise RedirectError(f"{file.name}, {old!r}: {new!r} is no other place")
    return {place(old): place(new) for old, new in table.items()}


def problems(moved: Mapping[Place, Place], anchors: Mapping[str, frozenset[str]]) -> Iterator[str]:
    """What is wrong with a list, given the anchors of every page.

    >>> list(problems({Place("old"): Place("new", "x")}, {"new": frozenset()}))
    ['old went to new#x, which is not there']
    """
    for old, new in moved.items():
        said = f"{old.page}#{old.fragment}" if old.fragment else old.page
        if not old.fragment and old.page in anchors:
            yield f"{said} went to {new.page}, and is there still"
        if old.fragment in anchors.get(old.page, ()):
            yield f"{said} went to {new.page}, and is there still"
        if old.fragment and old.page not in anchors and Place(old.page) not in moved:
            yield f"{said} stood on a page that is not there, and went nowhere as a whole"
        if new.page not in anchors or (new.fragment and new.fragment not in anchors[new.page]):
            yield f"{said} went to {new.page}{'#' if new.fragment else ''}{new.fragment}, which is not there"


def load(app: Sphinx) -> None:
    """Read the list before the pages are read; a site without one has none."""
    file = Path(app.confdir) / FILE
    moved: dict[Place, Place] = {}
    if file.is_file():
        try:
            moved = read_redirects(file)
        except RedirectError as error:
            logger.warning("%s", error, type="spec", subtype="redirects")
    app.env.spec_moved = moved  # type: ignore[attr-defined]  # Sphinx keeps what is put there


def _moved(env: BuildEnvironment) -> dict[Place, Place]:
    found: dict[Place, Place] = getattr(env, "spec_moved", {})
    return found


def note_anchors(app: Sphinx, document: nodes.document) -> None:
    """Note the anchors of a page that was read."""
    ids: list[str] = []
    for node in document.findall(nodes.Element):
        ids += node.get("ids", ())
    ids += [id for raw in document.findall(nodes.raw) for id in _ID.findall(raw.astext())]
    app.env.metadata[app.env.docname]["spec_anchors"] = frozenset(ids)


def page_of(env: BuildEnvironment, anchor: str, otherwise: str) -> str:
    """The page that has an anchor."""
    pages = (page for page, about in env.metadata.items() if anchor in about.get("spec_anchors", ()))
    return next(pages, otherwise)


def check(app: Sphinx, env: BuildEnvironment) -> None:
    """Compare the list with the pages; each mistake is a warning."""
    anchors = {page: env.metadata[page].get("spec_anchors", frozenset()) for page in env.found_docs}
    for wrong in problems(_moved(env), anchors):
        logger.warning("%s: %s", FILE, wrong, type="spec", subtype="redirects")


def add_moved(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Put the passages that left a page at its end, each under its old address."""
    gone = {old: new for old, new in _moved(app.env).items() if old.page == pagename and old.fragment}
    body = context.get("body", "")
    if gone and doctree is not None and isinstance(body, str):
        links = ", ".join(_link(app.env, old, new) for old, new in gone.items())
        context["body"] = f'{body}\n<p class="spec-moved">Moved from this page: {links}.</p>\n'


def _title(env: BuildEnvironment, page: str) -> str:
    title = env.titles.get(page)
    return title.astext() if title is not None else page


def _link(env: BuildEnvironment, old: Place, new: Place) -> str:
    text = f"{old.fragment} ({_title(env, new.page)})"
    return f'<a id="{escape(old.fragment)}" href="{escape(new.uri(old.page))}">{escape(text)}</a>'


def write(app: Sphinx, exception: Exception | None) -> None:
    """Write a page at the address of each page that is gone."""
    if exception is not None or app.builder.name != "html":
        return
    moved = _moved(app.env)
    for old, new in moved.items():
        if old.fragment:
            continue
        passages = [_link(app.env, each, to) for each, to in moved.items() if each.page == old.page and each.fragment]
        text = PAGE.format(
            policy=policy(f"<script>{FOLLOW}</script>"),
            title=escape(_title(app.env, new.page)),
            target=escape(new.uri(old.page)),
            canonical=escape(Place(new.page).uri(old.page)),
            passages="".join(f"<p>{passage}</p>\n" for passage in passages),
            script=FOLLOW,
        )
        file = Path(app.outdir) / f"{old.page}.html"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the list with the build."""
    app.connect("builder-inited", load)
    app.connect("doctree-read", note_anchors, priority=900)  # after all that names a place
    app.connect("env-check-consistency", check)
    app.connect("html-page-context", add_moved)
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
