"""The data of the bit explorer: every register's fields, and the bits that each part accepts and can force."""

import json
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

from specctrl.model.contract import supported_force_spec_ctrl
from specctrl.model.parts import PARTS, resolve_host
from specctrl.model.registers import REGISTERS


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
