"""The directive ``layout``: a register's bits as a picture and as a table; and the data of the page's bit explorer."""

import json
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from specctrl.model.contract import supported_force_spec_ctrl
from specctrl.model.parts import PARTS, resolve_host
from specctrl.model.registers import REGISTERS, Field, Register
from specctrl.site.domain import Laid, spec_domain, spellings
from specctrl.site.nodes import code, scrolling, table
from specctrl.site.permalinks import permalink

logger = logging.getLogger(__name__)


class LayoutDirective(SphinxDirective):
    """Draws the register whose name is the argument, and lists its fields."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Render the register."""
        register = REGISTERS.get(self.arguments[0])
        if register is None:
            logger.warning(
                "no register %r; known: %s",
                self.arguments[0],
                ", ".join(REGISTERS),
                location=(self.env.docname, self.lineno),
                type="spec",
                subtype="layout",
            )
            return []
        for name in ("model/registers", "site/layout"):
            self.env.note_dependency(str(self.config.source_root / f"{name}.py"))
        picture = nodes.raw("", strip(register), format="html")
        laid = Laid(register.name, self.env.docname)
        rows = _fields(register)
        fields = scrolling(f"Fields of {register.name}", rows)
        head = nodes.paragraph(
            "", "", code(register.name), nodes.Text(_summary(register)), classes=["spec-layout-head"]
        )
        frame = nodes.container("", head, picture, fields, classes=["spec-layout"])
        if laid.anchor not in self.state.document.ids:  # else it stands on this page already
            spec_domain(self.env).add_layout(laid)
            self._claim(frame, head, laid.anchor)
            in_body = (row for row in rows.findall(nodes.row) if isinstance(row.parent, nodes.tbody))
            for field, row in zip(_by_bits(register), in_body, strict=True):
                self._claim(row, next(iter(row.findall(nodes.paragraph))), laid.field_anchor(field.name))
        return [frame]

    def _claim(self, node: nodes.Element, shows: nodes.Element, anchor: str) -> None:
        """Give a node its address, and show the link to it."""
        node["ids"].append(anchor)
        self.state.document.note_explicit_target(node)
        shows += permalink(anchor, "field" if isinstance(node, nodes.row) else "register")


def _summary(register: Register) -> str:
    number = f"{register.kind} {register.number:#x}, {register.width} bits"
    said = f" · {register.title} · {number} · access: {register.access} · reset: {register.reset}"
    return f"{said} · source: {register.source}"


def strip(register: Register) -> str:
    """Draw the bits, the highest first: each field by its name, each run of bits that no field has as one cell.

    >>> strip(REGISTERS["IA32_SPEC_CTRL"])[:107]
    '<div class="spec-strip" role="img" aria-label="Bits of IA32_SPEC_CTRL"><div class="rest"><span>63:11</span>'
    """
    cells = []
    above = register.width
    for field in [*reversed(_by_bits(register)), None]:
        high = field.low + field.width - 1 if field else -1
        if high + 1 < above:
            cells.append(f'<div class="rest"><span>{_range(high + 1, above - 1)}</span>reserved</div>')
        if field:
            name = escape(field.name).replace("_", "_<wbr>")
            bit = f' data-bit="{field.low}"' if field.width == 1 else ""
            cells.append(f"<div{bit}><span>{_bits(field)}</span>{name}</div>")
            above = field.low
    label = escape(f"Bits of {register.name}", quote=True)
    return f'<div class="spec-strip" role="img" aria-label="{label}">{"".join(cells)}</div>'


def _by_bits(register: Register) -> list[Field]:
    return sorted(register, key=lambda field: field.low)


def _fields(register: Register) -> nodes.table:
    """List the fields, low bits first; a column only where it says something of some field."""
    columns: list[tuple[str, Callable[[Field], str]]] = [("Meaning", lambda field: field.meaning)]
    if any(field.exists_when for field in register):
        columns.append(("Exists when", lambda field: field.exists_when or "always"))
    if any(field.forceable_when for field in register):
        columns.append(("Can be forced to 1", lambda field: field.forceable_when or "never"))
    if any(field.source != register.source for field in register):
        columns.append(("Source", lambda field: field.source))
    rows: list[list[list[nodes.Node]]] = []
    for field in _by_bits(register):
        said: list[list[nodes.Node]] = [[nodes.Text(text(field))] for _, text in columns]
        rows.append([[code(_bits(field))], [code(field.name)], *said])
    return table(("Bits", "Name", *(heading for heading, _ in columns)), rows, "spec-fields")


def _bits(field: Field) -> str:
    return _range(field.low, field.low + field.width - 1)


def _range(low: int, high: int) -> str:
    return f"{low}" if low == high else f"{high}:{low}"


# ---- the bit explorer


def explorer_data() -> dict[str, object]:
    """What ``bits.mjs`` needs; words as hexadecimal text, since JSON numbers lose bits above 2**53.

    >>> explorer_data()["parts"]["ice-lake-server"]
    '0x7'
    """
    return {
        "registers": {
            name: {
                "name": name,
                "width": register.width,
                "spellings": spellings(register.number),
                "fields": [
                    {"name": field.name, "low": field.low, "width": field.width}
                    for field in sorted(register, key=lambda field: field.low)
                ],
            }
            for name, register in REGISTERS.items()
        },
        "parts": {name: f"{resolve_host(name).writable:#x}" for name in PARTS},
        "supported": {name: f"{supported_force_spec_ctrl(resolve_host(name)):#x}" for name in PARTS},
    }


def add_assets(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: object) -> None:
    """The script and the style sheet on the pages that show a register."""
    if "spec-layout" in context.get("body", ""):
        app.add_js_file("bits.mjs", type="module")
        app.add_css_file("bits.css")


def write_data(app: Sphinx, exception: Exception | None) -> None:
    """Put the data beside the script."""
    if exception is None and app.builder.format == "html":
        text = json.dumps(explorer_data(), indent=1, sort_keys=True) + "\n"
        (Path(app.outdir) / "_static" / "registers.json").write_text(text, "utf-8")
