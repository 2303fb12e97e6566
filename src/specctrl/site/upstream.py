"""The directive ``upstream``: a generated text for another tree, to copy, and its file, to download."""

from functools import cache
from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import OptionSpec

from specctrl.site.nodes import code
from specctrl.vectors.upstream.shapes import SHAPES

FOLDER, PAGE = "upstream", "spec/upstream.md"
logger = logging.getLogger(__name__)


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
        self.env.note_reread()  # the rules, tables and scenarios that it is made of may have changed
        try:
            lines = text_of(name).splitlines()
            first, last = self._excerpt(lines)
        except (KeyError, LookupError) as error:
            logger.warning("upstream %s: %s", name, error, type="spec", subtype="upstream",
                           location=(self.env.docname, self.lineno))
            return []
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


def gather(app: Sphinx) -> None:
    """Make the texts before the pages are read, once for all processes that read them."""
    if (app.srcdir / PAGE).is_file():
        for name in SHAPES:
            text_of(name)


def write_files(app: Sphinx, exception: Exception | None) -> None:
    """Put each shape beside the pages, at the stable address ``upstream/FILE``."""
    if exception is not None or app.builder.format != "html" or not (app.srcdir / PAGE).is_file():
        return
    target = app.outdir / FOLDER
    target.mkdir(exist_ok=True)
    for name, shape in SHAPES.items():
        (target / shape.file).write_text(text_of(name), "utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive and the files."""
    app.add_directive("upstream", UpstreamDirective)
    app.connect("builder-inited", gather)
    app.connect("build-finished", write_files)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
