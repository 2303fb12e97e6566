"""The directive ``licences``: what the site ships that was made elsewhere, and on what terms.

``spec/licences.toml`` names it, file by file.
A build warns of a file that it does not name, and of a part that is gone.
"""

import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import ClassVar

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective
from sphinx.util.osutil import relative_uri

from specctrl.site.nodes import code

logger = logging.getLogger(__name__)

FILE = "spec/licences.toml"
TEXTS = "LICENSES"
"""The folder of the licences' texts; the site has them in ``licences/``."""


@dataclass(frozen=True, slots=True)
class Part:
    """Something that was made elsewhere: its licence, whose it is, and the files that are it or hold it."""

    name: str
    licence: str
    holder: str
    files: tuple[str, ...]
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Shipped:
    """All that a site may ship: the parts from elsewhere, and its own files by pattern."""

    parts: tuple[Part, ...]
    own: tuple[str, ...]

    def unnamed(self, files: Sequence[str]) -> list[str]:
        """The files that nothing names.

        >>> Shipped((Part("A", "MIT", "B", ("a/*.js",)),), ("*.html",)).unnamed(["a/x.js", "index.html", "b.js"])
        ['b.js']
        """
        named = [*self.own, *(pattern for part in self.parts for pattern in part.files)]
        return [file for file in files if not any(fnmatchcase(file, pattern) for pattern in named)]

    def gone(self, files: Sequence[str]) -> Iterator[tuple[Part, str]]:
        """Each part with a pattern that no file has, unless the part is optional."""
        for part in self.parts:
            for pattern in () if part.optional else part.files:
                if not any(fnmatchcase(file, pattern) for file in files):
                    yield part, pattern


def read(file: Path) -> Shipped:
    """Read the list."""
    given = tomllib.loads(file.read_text("utf-8"))
    parts = (Part(**{**row, "files": tuple(row["files"])}) for row in given["part"])
    return Shipped(tuple(parts), tuple(given["own"]))


def text_of(root: Path, licence: str) -> Path | None:
    """The file with a licence's text, if it is one that has a text."""
    file = root / TEXTS / f"{licence}.txt"
    return file if file.is_file() else None


class LicencesDirective(SphinxDirective):
    """Makes a table of the parts."""

    HEADINGS: ClassVar = ("What", "Licence", "Copyright", "Files")

    def run(self) -> list[nodes.Node]:
        """Render the list."""
        root = Path(self.env.srcdir)
        self.env.note_dependency(str(root / FILE))
        rows = [nodes.row("", *(nodes.entry("", nodes.paragraph("", text)) for text in self.HEADINGS))]
        for part in read(root / FILE).parts:
            files = nodes.paragraph()
            for number, pattern in enumerate(part.files):
                files += [*([nodes.Text(", ")] if number else []), code(pattern.removeprefix("_static/"))]
            cells = (nodes.paragraph("", part.name), nodes.paragraph("", "", self._licence(root, part.licence)),
                     nodes.paragraph("", part.holder), files)
            rows.append(nodes.row("", *(nodes.entry("", cell) for cell in cells)))
        group = nodes.tgroup("", *(nodes.colspec(colwidth=1) for _ in self.HEADINGS), cols=len(self.HEADINGS))
        group += [nodes.thead("", rows[0]), nodes.tbody("", *rows[1:])]
        return [nodes.table("", group)]

    def _licence(self, root: Path, licence: str) -> nodes.Node:
        if text_of(root, licence) is None:
            return nodes.Text(licence)
        there = relative_uri(f"{self.env.docname}.html", f"licences/{licence}.txt")
        return nodes.reference("", licence, refuri=there)


def finish(app: Sphinx, exception: Exception | None) -> None:
    """Put the licences' texts beside the pages, and look at all that the site ships."""
    root, out = Path(app.srcdir), Path(app.outdir)
    if exception is not None or app.builder.name != "html" or not (root / FILE).is_file():
        return
    shipped = read(root / FILE)
    for licence in {part.licence for part in shipped.parts}:
        if (text := text_of(root, licence)) is not None:
            target = out / "licences" / text.name
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(text.read_bytes())
    ours = {f"_static/{file.name}" for file in (root / "spec" / "_static").glob("*")}
    files = sorted({path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()} - ours)
    for name in shipped.unnamed(files):
        logger.warning("%s does not say whose %s is", FILE, name, type="spec", subtype="licences")
    for part, pattern in shipped.gone(files):
        logger.warning("%s: %s: there is no %s", FILE, part.name, pattern, type="spec", subtype="licences")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive and the check, which runs when all files are there."""
    app.add_directive("licences", LicencesDirective)
    app.connect("build-finished", finish, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
