"""The pictures of the comparison."""

import re
from xml.etree import ElementTree

import pytest

from specctrl.exploration.policies import HOSTS, Cell, Result, compare
from specctrl.model.vmm.policies import GUESTS, POLICIES
from specctrl.site.policy_drawings import (
    BLOCK,
    GLYPHS,
    HEAD,
    HOST_LETTERS,
    LEFT,
    SIDE,
    TILE,
    TOP,
    at_a_glance,
    every_cell,
    name_of,
)

RUN = re.compile(r"M(\d+) (\d+)h(\d+)v(\d+)h-(\d+)z")


@pytest.fixture(scope="module")
def cells() -> list[Cell]:
    return list(compare())


@pytest.fixture(scope="module")
def picture(cells: list[Cell]) -> str:
    return every_cell(cells).html


def drawn(picture: str) -> dict[tuple[int, int], str]:
    """The result's name at each tile of the picture, read back from its outlines."""
    found: dict[tuple[int, int], str] = {}
    for name, outline in re.findall(r'<path fill="url\(#spec-([a-z-]+)\)" d="([^"]*)"/>', picture):
        for x, y, width, height, back in RUN.findall(outline):
            assert (width, int(height)) == (back, TILE)
            assert int(x) % TILE == int(y) % TILE == int(width) % TILE == 0, "a tile's sign would be cut"
            for column in range(int(width) // TILE):
                at = (int(x) // TILE + column, int(y) // TILE)
                assert at not in found
                found[at] = name
        assert RUN.sub("", outline) == ""
    return found


class TestSigns:
    """A result is told by its sign; no two share one."""

    def test_each_result_has_a_sign_and_each_host_a_letter_of_its_own(self) -> None:
        assert len(set(GLYPHS.values())) == len(GLYPHS) == len(Result)
        assert list(HOST_LETTERS) == list(HOSTS)
        assert len(set(HOST_LETTERS.values())) == len(HOSTS)

    def test_the_style_sheet_has_a_colour_for_each_result_in_light_and_dark(self, pytestconfig: pytest.Config) -> None:
        style = (pytestconfig.rootpath / "spec/_static/policies.css").read_text("utf-8")
        for result in Result:
            name = name_of(result)
            assert style.count(f"--result-{name}: ") == style.count(f"--ink-{name}: ") == 3
            assert f".spec-result-{name} " in style
            assert f".spec-fill-{name} " in style
            assert f".spec-ink-{name} " in style


class TestEveryCell:
    """The picture of all cells."""

    def test_each_cell_is_drawn_where_its_row_and_column_are(self, cells: list[Cell], picture: str) -> None:
        hosts, guests, policies = list(HOSTS), list(GUESTS), list(POLICIES)
        expected = {
            (LEFT + BLOCK * policies.index(cell.policy) + hosts.index(cell.destination),
             TOP + HEAD + (BLOCK + HEAD) * guests.index(cell.guest) + hosts.index(cell.source)): name_of(cell.result)
            for cell in cells
        }
        assert len(expected) == len(cells) == SIDE**2 * len(GUESTS) * len(POLICIES)
        assert drawn(picture) == expected

    def test_it_is_well_formed_and_says_what_it_shows(self, cells: list[Cell], picture: str) -> None:
        svg = ElementTree.fromstring(re.search("<svg.*</svg>", picture, re.DOTALL)[0])  # type: ignore[index]
        space = "{http://www.w3.org/2000/svg}"
        assert svg.get("role") == "img"
        assert svg.findtext(f"{space}title") == "Every cell of the comparison"
        told = svg.findtext(f"{space}desc") or ""
        assert told.count(".") == len(GUESTS) * len(POLICIES)
        assert sum(int(number) for number in re.findall(r"(?<=[ ,])(\d+) [a-z]", told)) == len(cells)

    def test_the_legend_has_the_results_that_occur(self, picture: str) -> None:
        assert all((f"> {result.value}</li>" in picture) is (result is not Result.REFUSED) for result in Result)

    def test_it_scrolls_in_a_frame_that_the_keyboard_reaches(self, picture: str) -> None:
        assert 'class="spec-scroll spec-results-frame" tabindex="0" role="group" aria-label="' in picture


class TestAtAGlance:
    """The table of one move."""

    def test_each_entry_has_sign_and_word_of_its_cell(self, cells: list[Cell]) -> None:
        html = at_a_glance(cells, "cascade-lake", "sierra-forest").html
        entry = (r'<td class="spec-result spec-result-([a-z-]+)">'
                 r'<a href="playground.html\?cell=([^"&]+)&amp;policy=(\w+)">'
                 r'<span[^>]*>(.)</span> ([a-z ]+)</a></td>')
        entries = re.findall(entry, html)
        expected = [
            (name_of(cell.result), cell.id, cell.policy, GLYPHS[cell.result], cell.result.value) for cell in cells
            if (cell.source, cell.destination) == ("cascade-lake", "sierra-forest")
        ]
        assert entries == expected

    def test_a_missing_cell_is_an_error(self) -> None:
        with pytest.raises(KeyError):
            at_a_glance([], "cascade-lake", "sierra-forest")
