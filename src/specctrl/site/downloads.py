"""What the site gives away whole, at stable addresses: texts for other trees, scenarios, the C reference, the command.

The directive ``upstream`` shows a generated text for another tree, with its file; scenarios and reference are archives,
and the command is the wheel that ``make dist`` builds.
"""

import gzip
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.errors import ExtensionError
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import OptionSpec

import specctrl.rules
from specctrl.site.nodes import code
from specctrl.vectors.archive import ROOT, archive, files_of, pack
from specctrl.vectors.upstream.shapes import SHAPES

FOLDER = "upstream"
PACKAGE = Path(specctrl.rules.__file__).parent
REFERENCE = "specctrl-c"
"""The folder that everything of the C reference is in."""
logger = logging.getLogger(__name__)


def give(env: BuildEnvironment, path: str, text: str) -> None:
    """Let the page that is being read bring a file, which is written beside the pages."""
    env.metadata[env.docname].setdefault("spec_files", {})[path] = text


def write_files(app: Sphinx, exception: Exception | None) -> None:
    """Write the files that the pages bring."""
    if exception is None and app.builder.format == "html":
        for about in app.env.metadata.values():
            for path, text in about.get("spec_files", {}).items():
                target = Path(app.outdir) / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(text, "utf-8")


def depends_on(env: BuildEnvironment, *folders: str) -> None:
    """Have the page that is being read read again when the package changes, or a source in one of the folders."""
    files = [*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.json")]
    for folder in folders:
        files += [path for path in (Path(env.srcdir) / folder).rglob("*") if path.suffix in (".md", ".json")]
    for file in files:
        env.note_dependency(str(file))


@cache
def text_of(name: str) -> str:
    """The text of a shape, made once in a build."""
    return SHAPES[name].text()


class UpstreamDirective(SphinxDirective):
    """Shows a shape with a link to its file; with ``:from:`` only so much, from the first line that has this text on.

    The excerpt ends before the first line, behind its first, that has the text of ``:before:``.
    """

    required_arguments = 1
    option_spec: ClassVar[OptionSpec] = {"from": directives.unchanged, "before": directives.unchanged}

    def run(self) -> list[nodes.Node]:
        """Render the shape."""
        name = self.arguments[0]
        depends_on(self.env, "spec", "vectors")
        try:
            lines = text_of(name).splitlines()
            first, last = self._excerpt(lines)
        except (KeyError, LookupError) as error:
            logger.warning("upstream %s: %s", name, error, type="spec", subtype="upstream",
                           location=(self.env.docname, self.lineno))
            return []
        for other, shape in SHAPES.items():
            give(self.env, f"{FOLDER}/{shape.file}", text_of(other))
        up = "../" * self.env.docname.count("/")
        file = SHAPES[name].file
        link = nodes.reference("", "", code(file), refuri=f"{up}{FOLDER}/{file}", internal=True)
        link["classes"] = ["spec-download"]
        shown = "" if (first, last) == (0, len(lines)) else f", of which lines {first + 1} to {last} are shown"
        said = f"{len(lines)} lines{shown}"
        caption = nodes.paragraph("", "", link, nodes.inline("", said), classes=["spec-source-caption"])
        text = "\n".join(lines[first:last])
        block = nodes.literal_block(text, text, language=SHAPES[name].language)
        frame = nodes.container("", caption, block, classes=["spec-source", "spec-upstream"], ids=[f"file-{name}"])
        self.set_source_info(frame)
        return [frame]

    def _excerpt(self, lines: list[str]) -> tuple[int, int]:
        first, last = 0, len(lines)
        if "from" in self.options:
            first = _line(lines, self.options["from"], 0)
        if "before" in self.options:
            last = _line(lines, self.options["before"], first + 1)
        while last > first and not lines[last - 1].strip():
            last -= 1
        return first, last


def _line(lines: list[str], text: str, start: int) -> int:
    for number in range(start, len(lines)):
        if text in lines[number]:
            return number
    raise LookupError(f"no line has {text!r}")


def reference(root: Path) -> bytes:
    """The C reference of a project as a tar archive: sources, Makefile, README, proofs, licence."""
    files = {"LICENSE": (root / "LICENSE").read_bytes()} | dict(files_of(root / "reference" / "c"))
    return pack(REFERENCE, sorted(files.items()))


def write_archives(app: Sphinx, exception: Exception | None) -> None:
    """Write archives and wheel beside the pages; a site without their sources has none."""
    if exception is not None or app.builder.format != "html":
        return
    root, target = Path(app.srcdir), Path(app.outdir) / "downloads"
    archives = {}
    if (root / "vectors" / "README.md").is_file():
        archives[ROOT] = archive(root / "vectors")
    if (root / "reference" / "c").is_dir() and (root / "LICENSE").is_file():
        archives[REFERENCE] = reference(root)
    for name, data in archives.items():
        target.mkdir(exist_ok=True)
        (target / f"{name}.tar.gz").write_bytes(gzip.compress(data, mtime=0))
    if (root / "pyproject.toml").is_file():
        done = subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(target)],
                              cwd=root, check=False, capture_output=True, text=True)
        if done.returncode:
            raise ExtensionError(f"the wheel could not be built: {done.stdout}{done.stderr}")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive and the files."""
    app.add_directive("upstream", UpstreamDirective)
    app.connect("build-finished", write_files)
    app.connect("build-finished", write_archives)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
