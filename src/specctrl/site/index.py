"""The file ``index.json``: what the site has and where it stands, for programs.

Its address and its keys are stable; every ``url`` is relative to it.
"""

import json
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

from specctrl.model.registers import REGISTERS, Register
from specctrl.site.banner import NO_SCENARIOS
from specctrl.site.domain import Laid, spec_domain


def write(app: Sphinx, exception: Exception | None) -> None:
    """Write the index beside the pages."""
    if exception is not None or app.builder.format != "html":
        return
    domain = spec_domain(app.env)
    index = {
        "schema": "specctrl/index/1",
        "release": app.config.release,
        "commit": app.config.spec_commit,
        "pages": [
            {"url": app.builder.get_target_uri(page), "title": app.env.titles[page].astext()}
            for page in sorted(app.env.found_docs)
        ],
        "rules": [
            {"id": id, "status": stated.rule.status, "url": _url(app, stated.docname, stated.anchor)}
            for id, stated in domain.rules().items()
        ],
        "registers": [_register(app, REGISTERS[name], laid) for name, laid in domain.layouts().items()],
        "vectors": [
            {"id": path.stem, "url": f"vectors/{path.name}"}
            for path in sorted((Path(app.outdir) / "vectors").glob("*.json"))
            if not path.name.endswith(NO_SCENARIOS)
        ],
    }
    text = json.dumps(index, indent=1, ensure_ascii=False)
    (Path(app.outdir) / "index.json").write_text(text + "\n", "utf-8")


def _register(app: Sphinx, register: Register, laid: Laid) -> dict[str, Any]:
    return {
        "name": register.name,
        "kind": register.kind,
        "number": f"{register.number:#x}",
        "width": register.width,
        "url": _url(app, laid.docname, laid.anchor),
        "fields": [
            {
                "name": field.name,
                "low": field.low,
                "width": field.width,
                "url": _url(app, laid.docname, laid.field_anchor(field.name)),
            }
            for field in sorted(register, key=lambda field: field.low)
        ],
    }


def _url(app: Sphinx, docname: str, anchor: str) -> str:
    return f"{app.builder.get_target_uri(docname)}#{anchor}"
