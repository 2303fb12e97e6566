"""The directive ``policy-cells``: every cell of the comparison, to filter in the page and to take away as files."""

from html import escape
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata

from specctrl.exploration.policies import compare
from specctrl.exploration.policy_files import files
from specctrl.site.downloads import depends_on, give

PLAYGROUND = "spec/playground"


class PolicyCellsDirective(SphinxDirective):
    """Links to the files, and the place where the script puts its table."""

    def run(self) -> list[nodes.Node]:
        """Render both."""
        self.env.metadata[self.env.docname]["policy-cells"] = True
        depends_on(self.env)
        up = "../" * self.env.docname.count("/")
        made = files(compare())
        for path, text in made.items():
            give(self.env, path, text)
        play = ""
        if PLAYGROUND in self.env.found_docs:
            play = f' data-playground="{up}{PLAYGROUND}.html"'
        links = ", ".join(
            f'<a class="spec-download" href="{up}{path}">{escape(path)}</a> ({size(made[path])})' for path in made)
        html = (
            f'<div class="spec-cells" id="spec-cells" data-table="{up}policies.json" '
            f'data-size="{size(made["policies.json"])}"{play}><p>Files: {links}.</p></div>'
        )
        return [nodes.raw("", html, format="html")]


def size(text: str) -> str:
    """How many KiB a file has.

    >>> size("x" * 3000)
    '3 KiB'
    """
    return f"{round(len(text.encode()) / 1024)} KiB"


def add_assets(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: object) -> None:
    """The style sheet on the pages that show results, the script on the one that has the table."""
    has_cells = app.env.metadata[pagename].get("policy-cells")
    if has_cells or 'class="spec-results' in context.get("body", ""):
        app.add_css_file("policies.css")
    if has_cells:
        app.add_js_file("policies.js", defer="defer")


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the directive and its files with Sphinx."""
    app.add_directive("policy-cells", PolicyCellsDirective)
    app.connect("html-page-context", add_assets)
    return {"version": "1", "env_version": 1, "parallel_read_safe": True, "parallel_write_safe": True}
