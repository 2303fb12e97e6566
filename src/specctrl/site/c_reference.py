"""The directive ``creference``: functions of the C reference as they stand in it, with their true line numbers.

A reference that is stale, because a rule's text or a register table has changed since, is a warning.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from specctrl.rules import RuleError, load_rules
from specctrl.site.nodes import code, joined, reference
from specctrl.site.source import listing_block
from specctrl.targets.c_reference import FOLDER, HEADER, HEADERS, annotations, complaints

logger = logging.getLogger(__name__)

SAMPLE = "reference/rust"
"""The sample in Rust, which is published like the C reference."""


@dataclass(frozen=True, slots=True)
class CFunction:
    """A definition of a header: its text with the comment before it, and the number of the first line."""

    name: str
    text: str
    first: int


def find_function(text: str, name: str) -> CFunction:
    """The function of that name, or the struct, with its comment; LookupError if there is not exactly one.

    >>> find_function("int a;\\n/* Twice @x. */\\nstatic inline int b(int x)\\n{\\n\\treturn 2 * x;\\n}\\n", "b").first
    2
    """
    head = rf"static inline [^;{{}}()/]*?\b{re.escape(name)}\([^;{{}}]*?\)|struct {re.escape(name)}(?= \{{)"
    pattern = re.compile(rf"^(?:/\*(?:(?!\*/).)*\*/\n)?(?:{head})\s*\{{.*?^\}};?$", re.MULTILINE | re.DOTALL)
    found = list(pattern.finditer(text))
    if len(found) != 1:
        raise LookupError(f"{len(found)} definitions")
    return CFunction(name, found[0].group(), text.count("\n", 0, found[0].start()) + 1)


class CReferenceDirective(SphinxDirective):
    """Shows a function or struct of the C reference's headers, captioned with file and line, and its rules."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Render the function."""
        why: Exception = LookupError("0 definitions")
        for name in HEADERS:
            path = Path(self.env.srcdir) / FOLDER / name
            self.env.note_dependency(str(path))
            try:
                return [self._render(find_function(path.read_text("utf-8"), self.arguments[0]), path)]
            except (OSError, LookupError) as error:
                why = error if name == HEADERS[0] else why
        logger.warning("creference %s: %s", self.arguments[0], why, type="spec", subtype="creference",
                       location=(self.env.docname, self.lineno))
        return []

    def _render(self, found: CFunction, path: Path) -> nodes.Element:
        where = f"{FOLDER}/{path.name}:{found.first}"
        up = "../" * self.env.docname.count("/")
        link = nodes.reference("", "", code(where), refuri=f"{up}{FOLDER}/{path.name}", internal=True)
        link["classes"] = ["spec-download"]
        caption = nodes.paragraph("", "", link, nodes.inline("", found.name, classes=["spec-source-name"]))
        caption["classes"] = ["spec-source-caption"]
        lines = found.text.count("\n") + 1
        shown = found.text.expandtabs(8)  # a tab behind a line number would end elsewhere
        block = listing_block(shown, shown, language="c",
                              numbers=list(range(found.first, found.first + lines)))
        block["label"] = f"{found.name}, {where}"
        foot = nodes.paragraph("", "", classes=["spec-source-foot"])
        rules = sorted({named.rule for named in annotations(path, path.name) if named.function == found.name})
        if rules:
            foot += [nodes.Text("Rules: "), *joined(reference("rule", rule, self.env.docname) for rule in rules)]
        frame = nodes.container("", caption, block, foot, classes=["spec-source"],
                                ids=[f"c-{found.name.replace('_', '-')}"])
        self.set_source_info(frame)
        return frame


def check(app: Sphinx) -> None:
    """One warning for each complaint, which fails the build; nothing for a site of other pages."""
    folder = app.srcdir / FOLDER
    if not (folder / HEADER).is_file():
        return
    try:
        found = complaints(folder, load_rules(app.srcdir / "spec"))
    except RuleError:
        return  # the pages themselves say so
    except ValueError as error:
        found = [str(error)]
    for complaint in found:
        logger.warning(complaint, type="spec", subtype="reference")


def copy_reference(app: Sphinx, exception: Exception | None) -> None:
    """Put the C reference and the sample in Rust beside the pages, at the stable addresses ``reference/c/FILE``."""
    if exception is not None or app.builder.format != "html":
        return
    places = ((FOLDER, "*"), (FOLDER, "rust/*"), (SAMPLE, "*"), (SAMPLE, "src/*"),
              (SAMPLE, "adapter/*"))
    for path in sorted(path for folder, pattern in places for path in (app.srcdir / folder).glob(pattern)):
        if path.suffix in (".c", ".h", ".md", ".rs", ".toml", ".txt") or path.name == "Makefile":
            target = app.outdir / path.relative_to(app.srcdir)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive and the files."""
    app.add_directive("creference", CReferenceDirective)
    app.connect("builder-inited", check)
    app.connect("build-finished", copy_reference)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
