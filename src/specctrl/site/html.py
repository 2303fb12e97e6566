"""What every page carries besides its text: a note of what it was written against, what the theme lacks."""

import json
import pickle
import re
import subprocess
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.addnodes import desc_annotation, desc_signature
from sphinx.application import ENV_PICKLE_FILENAME, Sphinx
from sphinx.builders import Builder
from sphinx.builders.html import StandaloneHTMLBuilder
from sphinx.config import Config
from sphinx.environment.adapters.toctree import global_toctree_for_doc
from sphinx.util.osutil import relative_uri

from specctrl.site.domain import spec_domain

STATUS = "RFC v3 of April 2024 · not merged as of Linux 7.3.4"


def commit(root: Path) -> str:
    """Say which commit ``root`` is at and of which day, or ``unknown`` where git cannot tell."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()

    try:
        said = git("log", "-1", "--abbrev=12", "--format=%h of %cs")
        changed = git("status", "--porcelain")
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return f"{said}, with local changes" if changed else said


def set_commit(app: Sphinx, config: Config) -> None:
    """Note the commit, so that a new one writes the pages again."""
    if not config.spec_commit:
        config.spec_commit = commit(Path(app.confdir))


NO_SCENARIOS = (".schema.json", "RELEASED.json")
"""JSON files of ``vectors`` that are about scenarios."""


def count_evidence(app: Sphinx, config: Config) -> None:
    """Count what is published beside the rules: the scenarios, and the claims that are proven."""
    root = Path(app.confdir)
    scenarios = [path for path in (root / "vectors").rglob("*.json") if not path.name.endswith(NO_SCENARIOS)]
    proofs = root / "src" / "specctrl" / "proof" / "proofs.json"
    claims = len(json.loads(proofs.read_text("utf-8"))["claims"]) if proofs.is_file() else 0
    config.spec_counts = {"scenarios": len(scenarios), "claims": claims}


def add_facts(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Hand the page's foot what it says: the commit, and the counts."""
    context["spec_commit"] = app.config.spec_commit
    context["spec_counts"] = {"rules": len(spec_domain(app.env).rules()), **app.config.spec_counts}


def add_banner(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Put the note below the page's title."""
    if doctree is None or "</h1>" not in context.get("body", ""):
        return
    note = f'\n<p class="status-banner" role="note">{STATUS} · version {escape(app.config.release)}</p>\n'
    context["body"] = context["body"].replace("</h1>", f"</h1>{note}", 1)


# ---- the contents of the site beside each page: resolved once, and led from there to each page


def resolve_contents(app: Sphinx, builder: Builder) -> None:
    """Resolve the contents as the front page has them; Sphinx would do it for each page, in a third of its time."""
    if isinstance(builder, StandaloneHTMLBuilder) and builder.name == "html":
        app.env.spec_contents = global_toctree_for_doc(  # type: ignore[attr-defined]
            app.env, app.config.root_doc, builder, tags=builder.tags, titles_only=True, maxdepth=-1)


def add_contents(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Give the theme the contents in place of the function that resolves them."""
    contents: nodes.Element | None = getattr(app.env, "spec_contents", None)
    if contents is None:
        return
    assert isinstance(app.builder, StandaloneHTMLBuilder)
    here = contents.deepcopy()
    front = app.builder.get_target_uri(app.config.root_doc)
    page = app.builder.get_target_uri(pagename)
    for link in here.findall(nodes.reference):
        if not link.get("internal"):
            continue
        place = link["refuri"] or front
        if place == page:
            _mark_current(link)
        link["refuri"] = "#" if place == page else relative_uri(page, place)
    html = app.builder.render_partial(here)["fragment"]
    context["toctree"] = lambda **options: html


def _mark_current(link: nodes.Element) -> None:
    """As Sphinx marks the page's own line, and the lines above it."""
    link["classes"].append("current")
    node: nodes.Node | None = link
    while isinstance(node, nodes.Element):
        if isinstance(node, nodes.list_item | nodes.bullet_list):
            node["classes"].append("current")
        node = node.parent


# ---- what the theme and other extensions leave out, or put in and help nobody

MENDED = (
    # A caption of the contents says that it is a heading, and not of which level.
    ('<p class="caption" role="heading">', '<p class="caption" role="heading" aria-level="2">'),
    # A label that says something else than the text that is seen.
    ('<summary aria-label="Toggle hidden content">', "<summary>"),
    # The corner of a table is no heading.
    ('<th class="head"><p></p></th>', '<td class="head"></td>'),
)
PLAIN = re.compile(r'<span class="[nopw]">([^<]*)</span>')
"""Marks on what has the colour of plain code: names, operators, punctuation, blanks.  They are a quarter of a page."""
PRE = re.compile(r'<span class="pre">([^<]*)</span>')
LITERAL = re.compile(r'<code class="[^"]*\bliteral notranslate">')
LINK = re.compile(r'<a class="reference internal" href="([^"]*)"(?: title="[\w.]*")?')
"""Around each word of code in a sentence; classes that no style asks for; and the name of what is linked, once more."""
LONG, BREAK = re.compile(r"[\w.]{16}"), re.compile(r"(?<=\w[_.])(?=\w)")
_MARKUP = re.compile(r"(<[^>]+>)")
_WHOLE = ("pre", "svg", "script", "style", "title")


def with_breaks(html: str) -> str:
    """Let long names break after an underscore or a dot, but in listings and drawings.

    >>> with_breaks("<p>MSR_VIRTUAL_ENUMERATION</p><pre>MSR_VIRTUAL_ENUMERATION</pre>")
    '<p>MSR_<wbr>VIRTUAL_<wbr>ENUMERATION</p><pre>MSR_VIRTUAL_ENUMERATION</pre>'
    """
    parts = _MARKUP.split(html)
    within = 0
    for at, part in enumerate(parts):
        if at % 2:
            name = part.strip("</>").split(maxsplit=1)[0].lower()
            if name in _WHOLE and not part.endswith("/>"):
                within += -1 if part.startswith("</") else 1
        elif not within and LONG.search(part):
            parts[at] = BREAK.sub("<wbr>", part)
    return "".join(parts)


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
    if isinstance(context.get("body"), str):
        body = LITERAL.sub('<code class="literal">', PRE.sub(r"\1", PLAIN.sub(r"\1", context["body"])))
        context["body"] = with_breaks(LINK.sub(r'<a href="\1"', body))


LONGEST_VALUE = 80


def drop_noise(app: Sphinx, document: nodes.document) -> None:
    """Clean one page as it was read.

    >>> from docutils.utils import new_document
    >>> document = new_document("page")
    >>> document += desc_signature("", "", desc_annotation("", " = (" + "1, " * 40 + ")"))
    >>> drop_noise(None, document)
    >>> document.astext()
    ''
    """
    for signature in document.findall(desc_signature):
        for part in list(signature.findall(desc_annotation)):
            text = part.astext().lstrip()
            if text.startswith("=") and (len(text) > LONGEST_VALUE or "Path(" in text):
                part.parent.remove(part)
    for link in list(document.findall(nodes.reference)):
        if link.get("refuri", "").startswith("mailto:"):
            link.replace_self(nodes.inline("", link.astext()))


def keep_search_entries(app: Sphinx, exception: Exception | None) -> None:
    """Store what the search knows of each page with the pages.

    Sphinx stores its environment before it writes, and the search's index entries are made in writing: without this,
    the next build would find only those of the pages that it writes again.
    """
    if exception is None and app.builder.format == "html":
        stored = Path(app.doctreedir) / ENV_PICKLE_FILENAME
        beside = stored.with_suffix(".new")
        beside.write_bytes(pickle.dumps(app.env, pickle.HIGHEST_PROTOCOL))
        beside.replace(stored)
