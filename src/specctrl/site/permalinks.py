"""Gives every example and every row of a table of errors an address of its own, and a link that shows it.

Rules have theirs from the directive ``rule``, register fields from ``layout``.
An address is made of what it names, not of its place: it stays when something else is put before it.
"""

import hashlib
import re

from docutils import nodes
from sphinx.application import Sphinx

_ERRNO = re.compile(r"-?(E[A-Z0-9]{2,})\b")
_PROMPT = re.compile(r"\s*>>> ")
_WORDS_IN_ID = 10


def permalink(anchor: str, what: str) -> nodes.reference:
    """Make the link that a reader copies: shown when the pointer or the focus is on it."""
    title = f"Link to this {what}"
    return nodes.reference("", "¶", refid=anchor, internal=True, reftitle=title, classes=["headerlink"])


def example_anchor(code: str) -> str:
    """Return the address of an example on its page, made of its code.

    >>> example_anchor("assert True") == example_anchor("assert True  ")
    True
    """
    text = "\n".join(line.rstrip() for line in code.strip("\n").splitlines())
    return f"example-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def error_anchor(section: str, errno: str, when: str) -> str:
    """Return the address of one cause of an error, made of the section, the errno and the first words.

    >>> error_anchor("cap-enable", "EINVAL", "`flags` is not 0: cap.enable.flags-zero")
    'error-cap-enable-einval-flags-is-not-0'
    """
    words = re.findall(r"[a-z0-9_]+", when.partition(":")[0].lower())
    return "-".join(["error", section, errno.lower(), *words[:_WORDS_IN_ID]])


def add_permalinks(app: Sphinx, document: nodes.document) -> None:
    """Mark the examples and the errors of one page as it was read."""
    if app.builder.format != "html":
        return
    for cell in document.findall(nodes.container):
        code = next(iter(cell.findall(nodes.literal_block)), None)
        if "cell" in cell["classes"] and code is not None:
            _mark(document, cell, example_anchor(code.astext()), "example")
    for prompts in list(document.findall(nodes.literal_block)):
        if not _PROMPT.match(prompts.astext()):
            continue
        frame = nodes.container("", classes=["spec-example"])
        prompts.replace_self(frame)
        frame += prompts
        _mark(document, frame, example_anchor(prompts.astext()), "example")
    for row in document.findall(nodes.row):
        cells = [cell.astext().strip() for cell in row.findall(nodes.entry)]
        errno = _ERRNO.match(cells[0])
        if errno and len(cells) > 1:
            _mark_row(document, row, error_anchor(_section(row), errno[1], cells[1]), "error")


def _section(node: nodes.Node) -> str:
    while node.parent is not None and not isinstance(node, nodes.section):
        node = node.parent
    ids: list[str] = node["ids"] if isinstance(node, nodes.section) else []
    return ids[-1] if ids else "page"


def _mark(document: nodes.document, frame: nodes.Element, anchor: str, what: str) -> None:
    anchor = _claim(document, frame, anchor)
    frame += nodes.paragraph("", "", permalink(anchor, what), classes=["spec-permalink"])


def _mark_row(document: nodes.document, row: nodes.row, anchor: str, what: str) -> None:
    anchor = _claim(document, row, anchor)
    first = next(iter(row.findall(nodes.paragraph)))
    first += permalink(anchor, what)


def _claim(document: nodes.document, node: nodes.Element, anchor: str) -> str:
    """Take an address that nothing else on the page has."""
    free, number = anchor, 1
    while free in document.ids:
        number += 1
        free = f"{anchor}-{number}"
    node["ids"].append(free)
    document.note_explicit_target(node)
    return free
