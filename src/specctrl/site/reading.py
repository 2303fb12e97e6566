"""Checks that a page reads as a book: sentence, rule, code, example; and each block of the site stands once.

* After a heading comes a sentence.
* Between two blocks stands a sentence.  A block is a listing, an example, a table, a figure, a register, a scenario.
  A rule is a sentence for what follows it, so its code may follow at once, and another rule;
  but a rule comes after a sentence or a rule, never straight after a block.
* A fold is as good as not there, and so is a folded cell that shows nothing; what is in a fold is not looked at.
* No listing, register, scenario, figure or table stands twice, on whatever pages: elsewhere is a link to it.

Each breach is a warning, but on the pages of ``reading_unconverted`` in ``conf.py``; one of those without any is too.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

from specctrl.site.nodes import disclosure

logger = logging.getLogger(__name__)

Breach = tuple[int, str]
"""The line, and what is wrong there."""

NOTHING = (nodes.Invisible, nodes.system_message, nodes.transition, addnodes.index, disclosure)
SENTENCES = (
    nodes.paragraph, nodes.bullet_list, nodes.enumerated_list, nodes.definition_list, nodes.block_quote,
    nodes.Admonition, nodes.field_list, nodes.line_block, nodes.math_block, addnodes.glossary)


def kind(node: nodes.Node) -> str:
    """What a node is to a reader: heading, sentence, rule, block, section, or nothing.

    >>> kind(nodes.paragraph("", "Text.")), kind(nodes.literal_block("x", "x"))
    ('sentence', 'block')
    """
    if isinstance(node, nodes.title):
        return "heading"
    if isinstance(node, nodes.section):
        return "section"
    if not isinstance(node, nodes.Element) or isinstance(node, NOTHING) or "toctree-wrapper" in node.get("classes", ()):
        return "nothing"
    if isinstance(node, SENTENCES):
        return "sentence"
    classes = node.get("classes", ())
    if "spec-statement" in classes:
        return "rule"
    if "cell" in classes:
        return "block" if shown(node) else "nothing"
    if isinstance(node, nodes.container) and all(kind(part) == "sentence" for part in node.children):
        return "sentence"
    return "block"


def shown(cell: nodes.Element) -> bool:
    """Whether a cell shows anything while it is folded."""
    return any(not isinstance(part, disclosure) and "spec-permalink" not in part.get("classes", ())
               for part in cell.children if isinstance(part, nodes.Element))


ALLOWED = {
    "heading": ("sentence",),
    "sentence": ("sentence", "rule", "block"),
    "rule": ("sentence", "rule", "block"),
    "block": ("sentence",),
}
"""What may follow what, before the next heading."""


def order(section: nodes.Element) -> Iterator[Breach]:
    """What breaks the order in a section and in those in it."""
    before = "heading" if isinstance(section, nodes.section) else "sentence"
    for node in section.children:
        what = kind(node)
        if what in ("nothing", "heading"):
            continue
        if what == "section":
            assert isinstance(node, nodes.Element)
            yield from order(node)
            before = "sentence"
            continue
        if what not in ALLOWED[before]:
            yield line_of(node), f"a {what} comes straight after a {before}: a sentence between them says what it shows"
        before = what


def line_of(node: nodes.Node) -> int:
    """The line of a node, or of what is in it."""
    lines = (part.line for part in node.findall(nodes.Node) if part.line)
    return next(lines, 0)


def placed(document: nodes.document) -> Iterator[tuple[str, int]]:
    """Each block by a name that is the same for the same block, and its line."""
    for node in document.findall(nodes.Element):
        classes = node.get("classes", ())
        if "spec-source" in classes and "name" in node:
            yield f"the source of {node['name']}{'' if node.get('whole', True) else ', its fields'}", line_of(node)
        elif "spec-layout" in classes or "spec-scenario" in classes:
            yield f"the block {node['ids'][0] if node['ids'] else digest(node.astext())}", line_of(node)
        elif isinstance(node, nodes.raw) and "<figure" in node.astext():
            yield f"a figure ({digest(node.astext())})", line_of(node.parent)
        elif isinstance(node, nodes.table) and not inside(node, ("spec-layout", "spec-scenario")):
            yield f"a table ({digest(node.astext())})", line_of(node)


def inside(node: nodes.Node, classes: Sequence[str]) -> bool:
    """Whether a node stands in a frame of one of these classes."""
    parent = node.parent
    while isinstance(parent, nodes.Element):
        if set(classes) & set(parent.get("classes", ())):
            return True
        parent = parent.parent
    return False


def digest(text: str) -> str:
    """A short name for a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def twice(pages: Mapping[str, Sequence[tuple[str, int]]]) -> Iterator[tuple[str, int, str, str]]:
    """Each block that stands a second time: page, line, what it is, and the page on which it stands first.

    >>> list(twice({"a": [("x", 1)], "b": [("x", 2)]}))
    [('b', 2, 'x', 'a')]
    """
    first: dict[str, str] = {}
    for page in sorted(pages):
        for name, line in pages[page]:
            if name in first:
                yield page, line, name, first[name]
            first.setdefault(name, page)


# ---- in the build


def is_read(page: str) -> bool:
    """Whether a page is one of the book's: the reference of the package is looked up, not read.

    >>> [is_read(page) for page in ("index", "spec/nested", "spec/api/vcpu")]
    [True, True, False]
    """
    return page == "index" or (page.startswith("spec/") and page.count("/") == 1)


def note(app: Sphinx, document: nodes.document) -> None:
    """Keep what is wrong with a page that was read, and what is placed on it."""
    page = app.env.docname
    if is_read(page):
        app.env.metadata[page]["spec_order"] = list(order(document))
        app.env.metadata[page]["spec_placed"] = list(placed(document))


def check(app: Sphinx, env: BuildEnvironment) -> None:
    """Warn of each breach, and of a page that is listed as not converted and has none."""
    if app.config.reading_unconverted is None:
        return
    waiting = set(app.config.reading_unconverted)
    wrong: set[str] = set()
    pages = sorted(page for page in env.found_docs if is_read(page))
    for page in pages:
        for line, what in env.metadata[page].get("spec_order", ()):
            wrong.add(page)
            if page not in waiting:
                logger.warning("%s", what, location=(page, line), type="spec", subtype="reading")
    for page, line, name, first in twice({page: env.metadata[page].get("spec_placed", []) for page in pages}):
        wrong |= {page, first}
        if not {page, first} & waiting:
            logger.warning("%s stands on %s too: link to it", name, first, location=(page, line),
                           type="spec", subtype="reading")
    for page in sorted(waiting - wrong):
        logger.warning("%s reads in order: take it from reading_unconverted in conf.py", page,
                       type="spec", subtype="reading")


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the check with the build."""
    app.add_config_value("reading_unconverted", None, "env")
    app.connect("doctree-read", note, priority=400)  # before anything is put around the blocks
    app.connect("env-check-consistency", check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
