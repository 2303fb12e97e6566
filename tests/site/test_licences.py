"""Whose each file is: the headers in ``reference``, and what the site ships that was made elsewhere."""

from pathlib import Path

import pytest

from site_builder import Site
from specctrl.site.licences import FILE, TEXTS, read, text_of

PROJECT = Path(__file__).parents[2]
EITHER, KERNEL = "(GPL-2.0 OR MIT)", "GPL-2.0-only"
SOURCES = sorted(
    path for path in (PROJECT / "reference").rglob("*")
    if path.suffix in (".c", ".h", ".rs", ".py", ".diff") or path.name in ("Makefile", "run"))


def of(path: Path) -> str:
    """The licence that stands in the first two lines of a file."""
    first = " ".join(path.read_text("utf-8").splitlines()[:2])
    return first.partition("SPDX-License-Identifier: ")[2].removesuffix("*/").split(" #")[0].strip()


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(PROJECT).as_posix())
def test_each_source_of_the_references_says_its_licence(path):
    said = of(path)
    assert said.startswith(KERNEL if "linux" in path.parts else EITHER)


LIST = """\
own = ["*.html", "spec/*.html", "vectors/*", "searchindex.js", "objects.inv", ".buildinfo*", "rules.json", "licences/*",
       "_static/sentences.js", "_static/registers.json", "upstream/*", "downloads/*", "_sources/*"]

[[part]]
name = "Sphinx and its stemmers"
licence = "BSD-2-Clause"
holder = "2007 the Sphinx team"
files = ["_static/*"]
"""


class TestWhatTheSiteShips:
    """The build's own check, on a small site."""

    @pytest.fixture
    def site(self, tmp_path):
        site = Site(tmp_path, {"spec/licences": "# Licences\n\nSome.\n\n```{licences}\n```\n"})
        site.write(FILE, LIST)
        site.write(f"{TEXTS}/BSD-2-Clause.txt", "the terms\n")
        return site

    def test_every_part_is_a_row_that_leads_to_its_terms(self, site):
        assert site.build() == []
        page = site.page("spec/licences")
        assert 'href="../licences/BSD-2-Clause.txt"' in page
        assert "2007 the Sphinx team" in page
        assert (site.html / "licences" / "BSD-2-Clause.txt").read_text() == "the terms\n"

    def test_a_file_that_nothing_names_ends_in_a_warning(self, site):
        site.html.mkdir(parents=True)
        (site.html / "lib").mkdir()
        (site.html / "lib" / "jquery.js").write_text("somebody else's")
        (said,) = site.build()
        assert "spec/licences.toml does not say whose lib/jquery.js is" in said

    def test_a_part_that_is_shipped_no_more_ends_in_a_warning(self, site):
        site.write(FILE, LIST.replace('["_static/*"]', '["_static/*", "_static/old.js"]'))
        (said,) = site.build()
        assert "Sphinx and its stemmers: there is no _static/old.js" in said

    def test_what_is_optional_may_be_missing(self, site):
        site.write(FILE, LIST.replace('["_static/*"]', '["_static/*", "_static/old.js"]\noptional = true'))
        assert site.build() == []


class TestTheList:
    """The list of this project."""

    def test_each_licence_has_its_text(self):
        for part in read(PROJECT / FILE).parts:
            assert text_of(PROJECT, part.licence) is not None or part.licence.startswith("none: "), part.name

    def test_a_library_that_nobody_named_would_be_noticed(self):
        shipped = read(PROJECT / FILE)
        assert shipped.unnamed(["_static/jquery.js", "_static/fonts/inter.woff2", "spec/mathjax.js"]) == [
            "_static/jquery.js", "_static/fonts/inter.woff2", "spec/mathjax.js"]
