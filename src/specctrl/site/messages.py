"""Links each Message-Id of a page to the list's archive, where a browser goes by a click and no page loads anything."""

import re
from collections.abc import Iterator

from docutils import nodes
from sphinx.application import Sphinx

ARCHIVE = "https://lore.kernel.org/all/"
_MESSAGE = re.compile(r"(?<![\w/@.+-])(?=[\w.+=-]*\d)[\w.+=-]{12,}@[A-Za-z0-9][A-Za-z0-9.-]*[A-Za-z0-9]")
"""A Message-Id as this site's pages write it: longer than a name, with a digit before the @."""


def linked(text: str) -> Iterator[nodes.Node]:
    """A text with its Message-Ids linked.

    >>> [part.astext() for part in linked("by a@b.org (Zmh8NSzd5xK-6urr@google.com).")]
    ['by a@b.org (', 'Zmh8NSzd5xK-6urr@google.com', ').']
    """
    at = 0
    for found in _MESSAGE.finditer(text):
        yield nodes.Text(text[at : found.start()])
        yield nodes.reference("", found[0], refuri=f"{ARCHIVE}{found[0]}/", classes=["spec-message"])
        at = found.end()
    yield nodes.Text(text[at:])


def link_messages(app: Sphinx, document: nodes.document) -> None:
    """Link the Message-Ids of one page as it was read; code and what is linked already stay as they are."""
    for text in list(document.findall(nodes.Text)):
        if "@" not in text or _inside(text, (nodes.reference, nodes.literal_block, nodes.raw, nodes.title)):
            continue
        parts = [part for part in linked(text.astext()) if part.astext()]
        if len(parts) == 1 and isinstance(parts[0], nodes.Text):
            continue
        if isinstance(text.parent, nodes.literal) and len(parts) == 1:
            literal = text.parent
            link = nodes.reference("", "", refuri=parts[0]["refuri"], classes=["spec-message"])  # type: ignore[index]  # a reference has attributes
            literal.replace_self(link)
            link += literal
        else:
            text.parent.replace(text, parts)


def _inside(node: nodes.Node, kinds: tuple[type[nodes.Node], ...]) -> bool:
    parent = node.parent
    while parent is not None:
        if isinstance(parent, kinds):
            return True
        parent = parent.parent
    return False
