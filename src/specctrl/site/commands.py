"""The directive ``commands``: every command of the command line, from its parser."""

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from specctrl.cli.main import make_parser
from specctrl.cli.manual import Page, man_page, pages
from specctrl.site.nodes import code

FILE = "specctrl.1"


class CommandsDirective(SphinxDirective):
    """Makes a section of each command: synopsis, options, notes."""

    def run(self) -> list[nodes.Node]:
        """Render the commands."""
        self.env.note_reread()  # the parsers are spread over many modules
        up = "../" * self.env.docname.count("/")
        link = nodes.reference("", "", code(FILE), refuri=f"{up}{FILE}", internal=True, classes=["spec-download"])
        manual = nodes.paragraph("", "", nodes.Text("The manual page: "), link)
        return [manual, *(self._section(page) for page in pages(make_parser()))]

    def _section(self, page: Page) -> nodes.section:
        section = nodes.section("", nodes.title("", "", code(page.name)), ids=[page.name.replace(" ", "-")])
        section["names"] = [page.name]
        section += nodes.paragraph("", page.summary)
        section += nodes.literal_block(page.synopsis, page.synopsis, language="text")
        if page.options:
            terms = nodes.definition_list("")
            for option in page.options:
                meaning = nodes.definition("", nodes.paragraph("", option.help))
                terms += nodes.definition_list_item("", nodes.term("", "", code(option.written)), meaning)
            section += terms
        if page.notes:
            notes = page.notes.rstrip()
            section += nodes.literal_block(notes, notes, language="text")
        self.set_source_info(section)
        return section


def write_manual(app: Sphinx, exception: Exception | None) -> None:
    """Put the manual page beside the pages."""
    if exception is None and app.builder.format == "html" and (app.srcdir / "spec" / "cli.md").is_file():
        (app.outdir / FILE).write_text(man_page(make_parser()), "utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive and the file."""
    app.add_directive("commands", CommandsDirective)
    app.connect("build-finished", write_manual)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
