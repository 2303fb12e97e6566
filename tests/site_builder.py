"""Builds throw-away sites with the extension, for the tests of the pages."""

import io
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace, patch_docutils

CONF = """\
extensions = ["myst_parser", "sphinx.ext.autodoc", "specctrl.site.extension"]
include_patterns = ["index.md", "spec/**"]
source_suffix = {".md": "markdown"}
myst_enable_extensions = ["colon_fence"]
nitpicky = True
html_theme = "basic"
docstring_prompts = False
"""

NOTEBOOK = """\
---
file_format: mystnb
kernelspec: {name: python3, display_name: Python 3, language: python}
---
"""

TOY = '''\
"""A toy to show."""

from dataclasses import dataclass
from typing import TypeVar

Kind = TypeVar("Kind")

#: As wide as a word.
WIDTH = 64


def _hidden() -> None:
    pass


def merge(guest: int, mask: int) -> int:
    """Keep what the mask leaves.

    >>> merge(3, 1)
    2
    """
    return guest & ~mask


@dataclass
class Record:
    """A record."""

    mask: int = 0

    @property
    def wide(self) -> bool:
        """Whether it is wide."""
        return self.mask >= 1 << WIDTH

    def clear(self) -> None:
        """Empty it."""
        self.mask = 0
'''

API = "# API\n\n```{eval-rst}\n.. automodule:: toy\n   :members:\n   :undoc-members:\n```\n"

RULE = """\
:::{rule} toy.merge.keeps
:status: posted
:source: v3 p1, #GP
:layer: mechanism
:code: toy.merge

A write MUST keep the `mask`.
:::
"""

SCENARIO: dict[str, Any] = {
    "schema": "specctrl/scenario/1",
    "id": "toy.enable-late",
    "title": "It cannot be enabled late",
    "why": "a vCPU would keep the old mask",
    "rules": ["toy.merge.keeps"],
    "host": {"part": "sapphire-rapids", "nested": False},
    "steps": [
        {"op": "create_vcpu", "vcpu": 0},
        {"op": "enable_cap", "args": ["0x400", "0x400"], "expect": {"errno": "EINVAL"}},
    ],
}


@dataclass
class Site:
    """A site under construction: its pages by name, written when it is built."""

    root: Path
    pages: dict[str, str]
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def html(self) -> Path:
        """Where the built pages are."""
        return self.root / "_build" / "html"

    def write(self, path: str, text: str) -> None:
        """Write one source file."""
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text, "utf-8")

    def page(self, name: str) -> str:
        """Return a built page."""
        return (self.html / f"{name}.html").read_text("utf-8")

    def build(self, jobs: int = 0) -> list[str]:
        """Build the site; return its warnings, paths relative to the site."""
        self.write("conf.py", CONF)
        for name, text in self.pages.items():
            self.write(f"{name}.md", text)
        names = "\n".join(name for name in self.pages if name != "index")
        self.write("index.md", f"# Index\n\n```{{toctree}}\n{names}\n```\n{self.pages.get('index', '')}")
        self.write("vectors/cap/toy.enable-late.json", json.dumps(SCENARIO))
        said = io.StringIO()
        with patch_docutils(self.root), docutils_namespace():
            app = Sphinx(
                srcdir=self.root,
                confdir=self.root,
                outdir=self.html,
                doctreedir=self.root / "_build" / "doctrees",
                buildername="html",
                confoverrides=self.settings,
                status=None,
                warning=said,
                parallel=jobs,
            )
            app.build()
        plain = re.sub(r"\x1b\[[0-9;]*m", "", said.getvalue()).replace(f"{self.root}/", "")
        return [line for line in plain.splitlines() if "WARNING" in line or "ERROR" in line]
