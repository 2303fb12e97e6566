"""Document nodes that several directives share: a scrolling frame, a plain table, a badge."""

import re
from collections.abc import Iterable, Sequence

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.writers.html5 import HTML5Translator


class scroller(nodes.container):  # noqa: N801 - docutils names node classes so
    """A frame that scrolls sideways by keyboard too, and says what it holds (``label``)."""


def visit_scroller(self: HTML5Translator, node: scroller) -> None:
    """Open the frame."""
    attributes = {"role": "group", "aria-label": node["label"], "tabindex": "0"}
    self.body.append(self.starttag(node, "div", CLASS="spec-scroll", **attributes))


def depart_scroller(self: HTML5Translator, node: scroller) -> None:
    """Close the frame."""
    self.body.append("</div>\n")


def scrolling(label: str, *content: nodes.Node) -> scroller:
    """Put ``content`` into a frame that scrolls."""
    frame = scroller("", *content)
    frame["label"] = label
    return frame


class disclosure(nodes.container):  # noqa: N801 - docutils names node classes so
    """Text that is folded away under a line of its own: ``summary``, perhaps after the badge of a ``status``."""


def visit_disclosure(self: HTML5Translator, node: disclosure) -> None:
    """Open the fold."""
    status = self.encode(node.get("status", ""))
    mark = f'<span class="spec-badge spec-status-{status}">{status}</span>' if status else ""
    self.body.append(self.starttag(node, "details") + f"<summary>{mark}{self.encode(node['summary'])}</summary>\n")


def depart_disclosure(self: HTML5Translator, node: disclosure) -> None:
    """Close the fold."""
    self.body.append("</details>\n")


def visit_children_only(self: object, node: nodes.Node) -> None:
    """Write only the children: what other builders do with the frame."""


def table(headings: Sequence[str], rows: Iterable[Sequence[Iterable[nodes.Node]]], *classes: str) -> nodes.table:
    """Make a table; each cell is a run of inline nodes."""
    group = nodes.tgroup(cols=len(headings))
    group += [nodes.colspec(colwidth=1) for _ in headings]
    head = nodes.row("", *(_entry([nodes.Text(heading)]) for heading in headings))
    group += nodes.thead("", head)
    group += nodes.tbody("", *(nodes.row("", *(_entry(cell) for cell in row)) for row in rows))
    return nodes.table("", group, classes=["spec-table", *classes])


def _entry(content: Iterable[nodes.Node]) -> nodes.entry:
    return nodes.entry("", nodes.paragraph("", "", *content))


def code(text: str) -> nodes.literal:
    """Make a code span."""
    return nodes.literal(text, text)


def badge(text: str, kind: str) -> nodes.inline:
    """Make a small label, told apart by its text and its border, not by colour alone."""
    return nodes.inline(text, text, classes=["spec-badge", f"spec-{kind}-{text}"])


def joined(items: Iterable[nodes.Node], separator: str = ", ") -> list[nodes.Node]:
    """Put a separator between nodes."""
    out: list[nodes.Node] = []
    for item in items:
        out += [nodes.Text(separator), item] if out else [item]
    return out


def reference(kind: str, target: str, docname: str, text: str | None = None, *, plain: bool = False) -> pending_xref:
    """Make a reference to a rule or to code, resolved by the ``spec`` domain when every page was read."""
    shown = nodes.inline(text or target, text or target) if plain else code(text or target)
    return pending_xref(
        "",
        shown,
        refdomain="spec",
        reftype=kind,
        reftarget=target,
        refexplicit=True,
        refwarn=True,
        refdoc=docname,
    )


_SPAN = re.compile(r"\{rule\}`([^`]+)`|`([^`]+)`|\[([^\]]+)\]\([^)]*\)|\*+([^*]+)\*+")


def sentence(text: str, docname: str) -> list[nodes.Node]:
    """Turn a rule's sentence into inline nodes: code spans and rule references kept, other marks dropped."""
    out: list[nodes.Node] = []
    at = 0
    for span in _SPAN.finditer(text):
        rule, span_code, link, strong = span.groups()
        out.append(nodes.Text(text[at : span.start()]))
        if rule:
            out.append(reference("rule", rule, docname))
        else:
            out.append(code(span_code) if span_code else nodes.Text(link or strong))
        at = span.end()
    return [*out, nodes.Text(text[at:])]
