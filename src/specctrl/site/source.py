"""The directive ``source``: a definition as it stands in the source, with its true line numbers."""

import re
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective
from sphinx.writers.html5 import HTML5Translator

from specctrl.site.definitions import Listing, find
from specctrl.site.domain import Shown, spec_domain
from specctrl.site.nodes import code, reference

logger = logging.getLogger(__name__)

_NUMBER = re.compile(r'(<span class="linenos">)[^<]*(</span>)')


class listing_block(nodes.literal_block):  # noqa: N801 - docutils names node classes so
    """A literal block that knows each line's number in its file."""


class SourceDirective(SphinxDirective):
    """Shows live source, captioned ``file:line`` and linked to its API entry.

    Its docstring is left out, since prose stands beside it; ``:docstring:`` shows it.
    ``:head:`` shows a class up to its first method.
    """

    required_arguments = 1
    option_spec: ClassVar = {
        "docstring": directives.flag,
        "strip-docstring": directives.flag,
        "head": directives.flag,
    }

    def run(self) -> list[nodes.Node]:
        """Render the listing and note it in the domain."""
        asked = self.arguments[0]
        head = "head" in self.options
        try:
            found = find(asked, docstring="docstring" in self.options, head=head)
        except LookupError as error:
            logger.warning(
                "source %r: %s",
                asked,
                error,
                location=(self.env.docname, self.lineno),
                type="spec",
                subtype="source",
            )
            return []
        self.env.note_dependency(str(found.path))
        shown = Shown(found.name, self.env.docname, whole=not head)
        spec_domain(self.env).add_source(shown)
        return [self._render(found, shown)]

    def _render(self, found: Listing, shown: Shown) -> nodes.Element:
        file = _relative(found.path, Path(self.env.srcdir))
        where = f"{file}:{found.first}"
        private = any(part.startswith("_") for part in found.name.split("."))
        api = code(where) if private else reference("api", found.name, shown.docname, where)
        label = ".".join(found.name.split(".")[-2:]) if shown.whole else f"{found.name.rpartition('.')[2]}, its fields"
        caption = nodes.paragraph("", "", api, nodes.inline("", label, classes=["spec-source-name"]))
        caption["classes"] = ["spec-source-caption"]
        block = listing_block(found.text, found.text, language="python", numbers=[number for number, _ in found.lines])
        block["label"] = f"{label}, {where}"
        foot = nodes.paragraph("", "", classes=["spec-source-foot"])
        frame = nodes.container("", caption, block, foot, classes=["spec-source"], name=found.name, whole=shown.whole)
        if shown.anchor not in self.state.document.ids:
            frame["ids"] = [shown.anchor]
            self.state.document.note_explicit_target(frame)
        self.set_source_info(frame)
        return frame


def _relative(path: Path, root: Path) -> str:
    for base in (root, *path.parents[1:2]):
        if path.is_relative_to(base):
            return path.relative_to(base).as_posix()
    return path.name


def visit_listing(self: HTML5Translator, node: listing_block) -> None:
    """Write highlighted code with the true line numbers, reachable by keyboard."""
    numbers = node["numbers"]
    width = len(str(numbers[-1]))
    options: dict[str, Any] = {"linenos": "inline", "location": node}
    language = node["language"]
    html = self.highlighter.highlight_block(node.astext(), language, **options)
    following = iter(numbers)
    html = _NUMBER.sub(lambda mark: f"{mark[1]}{next(following):>{width}}{mark[2]}", html)
    label = self.attval(node["label"])
    html = html.replace("<pre>", f'<pre tabindex="0" role="group" aria-label="{label}">', 1)
    self.body.append(f'<div class="highlight-{language} notranslate">{html}</div>\n')
    raise nodes.SkipNode
