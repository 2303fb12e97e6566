"""The directive ``layout``: a register's bits as a picture and as a table."""

from docutils import nodes
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from specctrl.draw import layout_svg
from specctrl.registers import REGISTERS, Field, Register
from specctrl.sphinxext.nodes import code, scrolling, table

logger = logging.getLogger(__name__)

HEADINGS = ("Bits", "Name", "Meaning", "Exists when", "Forceable when")


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
        for name in ("registers", "draw"):
            self.env.note_dependency(str(self.config.source_root / f"{name}.py"))
        picture = scrolling(f"Bits of {register.name}", nodes.raw("", layout_svg(register), format="html"))
        picture["classes"] = ["spec-layout-picture"]
        fields = scrolling(f"Fields of {register.name}", _fields(register))
        head = nodes.paragraph(
            "", "", code(register.name), nodes.Text(_summary(register)), classes=["spec-layout-head"]
        )
        return [nodes.container("", head, picture, fields, classes=["spec-layout"])]


def _summary(register: Register) -> str:
    number = f"{register.kind} {register.number:#x}, {register.width} bits"
    said = f" · {register.title} · {number} · access: {register.access} · reset: {register.reset}"
    return f"{said} · source: {register.source}"


def _fields(register: Register) -> nodes.table:
    """List the fields, low bits first; their source only where it is not the register's own for all of them."""
    sourced = any(field.source != register.source for field in register)
    headings = (*HEADINGS, "Source") if sourced else HEADINGS
    rows = [_row(field)[: len(headings)] for field in sorted(register, key=lambda field: field.low)]
    return table(headings, rows, "spec-fields")


def _row(field: Field) -> list[list[nodes.Node]]:
    high = field.low + field.width - 1
    bits = f"{field.low}" if field.width == 1 else f"{high}:{field.low}"
    exists = field.exists_when or "always"
    forceable = field.forceable_when or "never"
    said = (field.meaning, exists, forceable, field.source)
    row: list[list[nodes.Node]] = [[code(bits)], [code(field.name)]]
    return row + [[nodes.Text(text)] for text in said]
