"""Directives that show what is not Python: functions in C, texts for upstream trees, the command line."""

import re
from html import unescape

import pytest

from site_builder import NOTEBOOK, Site
from specctrl.cli.main import make_parser
from specctrl.site import downloads
from specctrl.site.commands import parsers
from specctrl.vectors.upstream.shapes import SHAPES, Shape

HEADER = """\
#define X 1

/* Twice @x. */
static inline int twice(int x)
{
\treturn 2 * x;
}

static inline int other(int x) { return x; }
"""


@pytest.fixture
def site(tmp_path) -> Site:
    return Site(tmp_path / "site", {})


class TestCReference:
    @pytest.fixture(autouse=True)
    def header(self, site, monkeypatch):
        site.write("reference/c/specctrl.h", HEADER)
        monkeypatch.setattr("specctrl.site.c_reference.complaints", lambda folder, rules: [])

    def test_a_function_stands_with_its_comment_and_its_true_line_numbers_and_its_file_is_there(self, site):
        site.pages |= {"spec/c": "# C\n\n```{creference} twice\n```\n"}
        assert site.build() == []
        page = site.page("spec/c")
        assert ["3", "4", "5", "6", "7"] == re.findall(r'class="linenos">\s*(\d+)<', page)
        assert 'href="../reference/c/specctrl.h"' in page
        assert "        " in page
        assert "\t" not in page.partition('class="linenos"')[2].partition("</pre>")[0]
        assert HEADER == (site.html / "reference" / "c" / "specctrl.h").read_text()

    def test_an_unknown_function_is_a_warning(self, site):
        site.pages |= {"spec/c": "# C\n\n```{creference} thrice\n```\n"}
        assert ["spec/c.md:3: WARNING: creference thrice: 0 definitions [spec.creference]"] == site.build()


class TestUpstream:
    @pytest.fixture(autouse=True)
    def shape(self, monkeypatch):
        downloads.text_of.cache_clear()
        monkeypatch.setattr(downloads, "SHAPES", {"toy": Shape("toy.h", "c", lambda: "one\ntwo\n\nthree\n")})
        yield
        downloads.text_of.cache_clear()

    def test_a_text_is_shown_and_its_file_is_written(self, site):
        site.pages |= {"spec/upstream": "# Upstream\n\n```{upstream} toy\n```\n"}
        assert site.build() == []
        assert "4 lines" in site.page("spec/upstream")
        assert 'href="../upstream/toy.h"' in site.page("spec/upstream")
        assert "one\ntwo\n\nthree\n" == (site.html / "upstream" / "toy.h").read_text()

    def test_an_excerpt_says_which_lines_it_is(self, site):
        site.pages |= {"spec/upstream": "# Upstream\n\n```{upstream} toy\n:from: two\n:before: three\n```\n"}
        assert site.build() == []
        assert "4 lines, of which lines 2 to 2 are shown" in site.page("spec/upstream")

    def test_an_unknown_text_or_line_is_a_warning(self, site):
        site.pages |= {"spec/upstream": "# Upstream\n\n```{upstream} no\n```\n\n```{upstream} toy\n:from: four\n```\n"}
        said = site.build()
        assert 2 == len(said)
        assert "no line has 'four'" in said[1]


def test_every_command_is_on_the_page_with_each_of_its_options_whatever_the_terminal(site, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    site.pages |= {"spec/cli": "# Commands\n\n```{commands}\n```\n"}
    assert site.build() == []
    page = site.page("spec/cli")
    text = unescape(re.sub("<[^>]*>", "", page))
    commands = [command for command, _ in parsers(make_parser())]
    assert len(commands) > 14
    for command in commands:
        assert f'id="{command.prog.replace(" ", "-")}"' in page
        section = text.partition(f"usage: {command.prog} ")[2].partition("\nusage: ")[0]
        options = {name for action in command._actions if action.dest != "help" for name in action.option_strings}
        assert section.startswith("[-h]")
        assert [] == [name for name in options if name not in section], command.prog
    assert max(map(len, text.splitlines())) > 80


def test_every_option_says_what_it_does():
    assert [] == [
        (command.prog, action.dest) for command, _ in parsers(make_parser()) for action in command._actions
        if action.option_strings and not action.help]


def test_the_shapes_have_names_of_files_of_their_own():
    assert len(SHAPES) == len({shape.file for shape in SHAPES.values()})


def test_what_a_cell_prints_in_pieces_is_one_text(site):
    cell = 'print("one", end="", flush=True)\nprint("\\ntwo", flush=True)\nprint("three")'
    site.pages = {"spec/cell": f"{NOTEBOOK}# Cell\n\n```{{code-cell}} ipython3\n{cell}\n```\n"}
    assert site.build() == []
    printed = re.search(r'<div class="output.*?</pre>', site.page("spec/cell"), re.DOTALL)[0]
    assert re.sub("<.*?>", "", printed).strip() == "one\ntwo\nthree"
