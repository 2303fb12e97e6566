"""Takes out of a page what helps nobody: long values, paths of this machine, a mail link made of a Message-Id."""

from docutils import nodes
from sphinx.addnodes import desc_annotation, desc_signature
from sphinx.application import Sphinx

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
