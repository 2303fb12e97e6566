"""A page reads as a book, an old address leads on, and what is folded still runs."""

from pathlib import Path

import pytest

from site_builder import API, NOTEBOOK, RULE, TOY, Site
from specctrl.site.redirects import Place, RedirectError, problems, read_redirects

ROOT = Path(__file__).resolve().parents[2]
CHECKED = {"reading_unconverted": []}
CELL = "```{code-cell} ipython3\nprint(1)\n```\n\n"
SETUP = "```{code-cell} ipython3\n:tags: [hide-input]\nx = 1\n```\n\n"


def source(name: str, *flags: str) -> str:
    return "\n".join([f"```{{source}} {name}", *(f":{flag}:" for flag in flags), "```", ""])


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "toy.py").write_text(TOY)
    monkeypatch.syspath_prepend(tmp_path / "lib")
    return Site(tmp_path / "site", {"spec/api": API}, dict(CHECKED))


def breaches(site: Site, text: str) -> list[str]:
    site.pages["spec/toy"] = f"{NOTEBOOK}# Toy\n\n{text}"
    return [said.partition("WARNING: ")[2] for said in site.build()]


class TestOrder:
    def test_sentence_rule_code_sentence_example_is_the_order(self, site: Site) -> None:
        text = "A sentence.\n\n" + RULE + source("toy.merge") + "\nSo it prints:\n\n" + CELL
        assert breaches(site, text) == []

    @pytest.mark.parametrize(
        ("text", "what", "before"),
        [
            ("A sentence.\n\n## More\n\n" + CELL, "block", "heading"),
            ("A sentence.\n\n## More\n\n" + SETUP + CELL, "block", "heading"),
            ("A sentence.\n\n## More\n\n" + RULE, "rule", "heading"),
            ("A sentence.\n\n" + CELL + CELL.replace("1", "2"), "block", "block"),
            ("A sentence.\n\n" + CELL + "```python\n>>> 1\n1\n```\n", "block", "block"),
            ("A sentence.\n\n" + CELL + RULE, "rule", "block"),
            ("A sentence.\n\n" + CELL + "::::{fold} More\n" + CELL + "::::\n\n" + CELL, "block", "block"),
            ("A sentence.\n\n| a |\n|---|\n| b |\n\n" + CELL, "block", "block"),
        ],
    )
    def test_each_breach_is_told(self, site: Site, text: str, what: str, before: str) -> None:
        (said,) = breaches(site, text)
        assert f"a {what} comes straight after a {before}" in said

    def test_what_is_folded_may_be_a_wall(self, site: Site) -> None:
        assert breaches(site, "A sentence.\n\n::::{fold} The other cases\n" + CELL + CELL + "::::\n") == []

    def test_a_page_that_waits_is_not_told_of(self, site: Site) -> None:
        site.settings["reading_unconverted"] = ["spec/toy"]
        assert breaches(site, CELL) == []

    def test_a_page_that_waits_for_nothing_is(self, site: Site) -> None:
        site.settings["reading_unconverted"] = ["spec/toy"]
        (said,) = breaches(site, "A sentence.\n")
        assert "spec/toy reads in order: take it from reading_unconverted" in said


class TestOnce:
    def test_a_listing_on_two_pages_is_told(self, site: Site) -> None:
        site.pages["spec/other"] = "# Other\n\nA sentence.\n\n" + source("toy.merge")
        (said,) = breaches(site, "A sentence.\n\n" + source("toy.merge"))
        assert "the source of toy.merge stands on spec/other too" in said

    def test_the_head_of_a_class_and_its_whole_are_two(self, site: Site) -> None:
        text = "A sentence.\n\n" + source("toy.Record", "head") + "\nAnother.\n\n" + source("toy.Record")
        assert breaches(site, text) == []

    def test_a_table_twice_on_a_page_is_told(self, site: Site) -> None:
        table = "A sentence.\n\n| a |\n|---|\n| b |\n\n"
        (said,) = breaches(site, table * 2)
        assert said.startswith("a table (")


class TestFold:
    def test_its_cell_runs_and_shows_what_it_printed(self, site: Site) -> None:
        assert breaches(site, "A sentence.\n\n::::{fold} The other case\n:name: other\n" + CELL + "::::\n") == []
        folded = site.page("spec/toy").partition("<details")[2].partition("</details>")[0]
        assert 'id="other"' in folded
        assert "<summary>The other case</summary>" in folded
        assert "output text_plain" in folded
        assert 'id="example-' in folded

    def test_its_failing_cell_is_told(self, site: Site) -> None:
        text = "A sentence.\n\n::::{fold} The other case\n" + CELL.replace("print(1)", "1 / 0") + "::::\n"
        (said,) = breaches(site, text)
        assert "the cell raises ZeroDivisionError" in said


class TestRedirects:
    def write(self, site: Site, *lines: str) -> None:
        site.write("spec/redirects.toml", "\n".join(lines))

    def test_an_old_page_leads_to_the_new_and_knows_where_its_passages_went(self, site: Site) -> None:
        self.write(site, '"spec/gone" = "spec/toy#part"', '"spec/gone#far" = "index"')
        assert breaches(site, "A sentence.\n\n(part)=\n## A part\n\nMore.\n") == []
        page = site.page("spec/gone")
        assert '<noscript><meta http-equiv="refresh" content="0; url=toy.html#part"></noscript>' in page
        assert '<a href="toy.html#part">Toy</a>' in page
        assert '<a id="far" href="../index.html">' in page

    def test_a_passage_that_left_keeps_its_address_where_it_stood(self, site: Site) -> None:
        self.write(site, '"spec/toy#part" = "spec/other#part"')
        site.pages["spec/other"] = "# Other\n\nA sentence.\n\n(part)=\n## A part\n\nMore.\n"
        assert breaches(site, "A sentence.\n") == []
        assert '<a id="part" href="other.html#part">' in site.page("spec/toy")

    @pytest.mark.parametrize(
        ("line", "said"),
        [
            ('"spec/gone" = "spec/nowhere"', "spec/gone went to spec/nowhere, which is not there"),
            ('"spec/gone" = "spec/toy#nowhere"', "spec/gone went to spec/toy#nowhere, which is not there"),
            ('"spec/toy" = "index"', "spec/toy went to index, and is there still"),
            ('"spec/toy#part" = "index"', "spec/toy#part went to index, and is there still"),
            ('"spec/gone#part" = "index"', "spec/gone#part stood on a page that is not there, and went nowhere"),
            ('"spec/gone" = 1', "1 is no other place"),
            ('"spec/gone" =', "redirects.toml: Invalid value"),
        ],
    )
    def test_each_mistake_in_the_list_is_told(self, site: Site, line: str, said: str) -> None:
        self.write(site, line)
        (told,) = breaches(site, "A sentence.\n\n(part)=\n## A part\n\nMore.\n")
        assert said in told

    def test_the_list_of_this_site_can_be_read(self) -> None:
        moved = read_redirects(ROOT / "spec" / "redirects.toml")
        assert all(isinstance(new, Place) for new in moved.values())
        pages = {path.relative_to(ROOT).with_suffix("").as_posix() for path in (ROOT / "spec").rglob("*.md")}
        assert [old for old in moved if not old.fragment and old.page in pages] == []
        assert [new for new in moved.values() if new.page not in pages | {"index"}] == []

    def test_a_list_that_is_not_there_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(RedirectError, match=r"redirects\.toml"):
            read_redirects(tmp_path / "redirects.toml")
        assert list(problems({}, {})) == []
