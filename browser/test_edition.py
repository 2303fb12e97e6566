"""The book: one HTML file that needs nothing else, and the PDF of it. The tests of the file need no browser."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from built import HTML, NARROW, ROOT, WIDE
from edition.chapters import API, FRONT, NO_CHAPTERS, contents, read

BOOK = ROOT / "_build" / "edition" / "specctrl.html"
PDF = BOOK.with_suffix(".pdf")
HEAVIEST = 6_000_000
"""Bytes, of each of the two."""
FEWEST_PAGES = 250
PAPER = 657
"""Pixels, of 96 an inch, that A4 has between the margins of ``edition.css``."""
LOADS = ("src", "srcset", "poster", "data")
ACTIVE = ("script", "iframe", "object", "embed", "form", "base")
"""Attributes and elements by which a file asks for another, or does something."""

if not BOOK.is_file():
    pytest.fail("the edition was not made: make edition", pytrace=False)


class Book(HTMLParser):
    """What the file has: addresses, links, headings, and all that could make a browser ask for something."""

    def __init__(self) -> None:
        super().__init__()
        self.text = BOOK.read_text("utf-8")
        self.ids: list[str] = []
        self.links: list[str] = []
        self.asks: list[str] = []
        self.chapters: list[str] = []
        self.contents: list[str] = []
        self._in_contents = False
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what this element has."""
        given = {name: value or "" for name, value in attrs}
        self.ids += [given["id"]] if "id" in given else []
        if tag == "article":
            self.chapters.append(given["id"])
        if tag == "nav":
            self._in_contents = True
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
            self.contents += [given["href"]] if self._in_contents else []
        elif tag == "use":
            self.links.append(given["href"])
        elif "href" in given and given["href"] != "data:,":
            self.asks.append(f"{tag}: {given['href']}")
        self.asks += [f"{tag}: {name}" for name in given if name in LOADS or name.startswith("on")]
        self.asks += [tag] if tag in ACTIVE else []

    def handle_endtag(self, tag: str) -> None:
        """Note the end of the contents."""
        if tag == "nav":
            self._in_contents = False


@pytest.fixture(scope="module")
def book() -> Book:
    return Book()


def test_each_link_inside_leads_somewhere(book: Book) -> None:
    places = set(book.ids)
    inside = [link for link in book.links if not re.match(r"(https?|mailto):", link)]
    assert len(inside) > 3000
    assert [link for link in inside if not link.startswith("#") or link[1:] not in places] == []


def test_no_two_places_have_one_address(book: Book) -> None:
    assert sorted({id for id in book.ids if book.ids.count(id) > 1}) == []


def test_each_rule_has_the_address_that_it_has_on_the_site(book: Book) -> None:
    rules = json.loads((HTML / "rules.json").read_text("utf-8"))["rules"]
    places = set(book.ids)
    assert len(rules) > 100
    assert [rule["id"] for rule in rules if rule["url"].partition("#")[2] not in places] == []


def test_each_page_of_the_site_is_a_chapter_or_named_as_left_out(book: Book) -> None:
    pages = {page["url"] for page in json.loads((HTML / "index.json").read_text("utf-8"))["pages"]}
    listed = [path for _, path in contents(read(HTML, FRONT)) if path not in NO_CHAPTERS]
    assert book.chapters == [Path(path).stem for path in (FRONT, *listed)]
    assert [link for link in book.contents if link[1:] in book.chapters] == [f"#{name}" for name in book.chapters]
    assert {page for page in pages - {FRONT, *listed} if not page.startswith(API)} == set(NO_CHAPTERS)
    for path in NO_CHAPTERS:
        assert f"<code>{path.removesuffix('.html')}</code>" in book.text


def test_the_file_needs_nothing_else(book: Book) -> None:
    assert book.asks == []
    assert re.findall(r"@import[^;]*|url\((?!#|[\"']?data:)[^)]*\)|sourceMappingURL", book.text) == []
    assert "default-src 'none'" in book.text
    assert BOOK.stat().st_size < HEAVIEST


def test_two_runs_give_the_same_bytes(tmp_path: Path) -> None:
    """For the PDF too, by one Chromium with the same fonts."""
    subprocess.run([sys.executable, "-m", "edition", str(HTML), str(tmp_path)], cwd=ROOT, check=True, timeout=600)
    for made in (BOOK, PDF):
        assert (tmp_path / made.name).is_file() == made.is_file()
        assert not made.is_file() or (tmp_path / made.name).read_bytes() == made.read_bytes(), made.name


@pytest.fixture(scope="module")
def opened(browser: Any) -> Any:
    """The file, opened from its folder, with all that the browser asked for and said."""
    context = browser.new_context(viewport={"width": WIDE, "height": 900})
    page = context.new_page()
    page.heard = []
    page.on("request", lambda request: page.heard.append(request.url))
    page.on("console", lambda message: page.heard.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: page.heard.append(f"error: {error}"))
    page.goto(BOOK.as_uri(), wait_until="networkidle")
    yield page
    context.close()


def test_it_asks_nobody_and_says_nothing(opened: Any) -> None:
    assert [said for said in opened.heard if said not in (BOOK.as_uri(), "data:,")] == []


BEYOND = """room => [...document.querySelectorAll("body *")].filter(e => {
    const box = e.getBoundingClientRect();
    return box.width > 1 && box.right > room + 1 && !e.closest(FRAMES);
  }).map(e => `${Math.round(e.getBoundingClientRect().right)} ${e.outerHTML.slice(0, 120)}`).slice(0, 10)"""
CUT_OFF = """[...document.querySelectorAll("pre")].filter(e => e.scrollWidth > e.clientWidth + 1)
  .map(e => e.textContent.slice(0, 80))"""
FOLDS = "[...document.querySelectorAll('details')].map(e => e.lastElementChild.getBoundingClientRect().height)"
SCROLLS = ".spec-scroll, .table-wrapper, pre, .text_html"


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_it_fits_the_window(opened: Any, width: int) -> None:
    opened.emulate_media(media="screen")
    opened.set_viewport_size({"width": width, "height": 900})
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    assert opened.evaluate(BEYOND.replace("FRAMES", json.dumps(SCROLLS)), width) == []


def test_nothing_is_wider_than_the_paper(opened: Any) -> None:
    """On paper nothing scrolls, so nothing at all may reach beyond the margin."""
    opened.set_viewport_size({"width": PAPER, "height": 900})
    opened.emulate_media(media="print")
    assert opened.evaluate(BEYOND.replace("FRAMES", json.dumps("br, desc, title")), PAPER) == []
    assert opened.evaluate(CUT_OFF) == []


def test_what_is_folded_is_open_on_paper(opened: Any) -> None:
    opened.emulate_media(media="print")
    folds = opened.evaluate(FOLDS)
    assert len(folds) > 100
    assert min(folds) > 5


@pytest.fixture(scope="module")
def printed() -> Any:
    """The PDF."""
    pikepdf = pytest.importorskip("pikepdf", reason="needs the package pikepdf")
    if not PDF.is_file():
        pytest.skip("no PDF was made: make edition says why")
    with pikepdf.open(PDF) as pdf:
        yield pdf


def outline(printed: Any) -> list[tuple[int, str, int]]:
    """Each line of the PDF's outline: its level, its text, the page that it leads to, from 1."""
    numbers = {page.objgen: number for number, page in enumerate(printed.pages, 1)}

    def lines(items: Any, level: int) -> Any:
        for item in items:
            yield level, item.title, numbers[item.destination[0].objgen]
            yield from lines(item.children, level + 1)

    with printed.open_outline() as found:
        return list(lines(found.root, 1))


def test_the_pdf_is_a_book(printed: Any, book: Book) -> None:
    assert len(printed.pages) > FEWEST_PAGES
    assert {tuple(round(float(side)) for side in page.mediabox) for page in printed.pages} == {(0, 0, 595, 842)}  # A4
    assert printed.Root.MarkInfo.Marked  # tagged, so that it can be read aloud
    assert "specification" in str(printed.docinfo.Title)
    assert json.loads((HTML / "index.json").read_text("utf-8"))["commit"] in str(printed.docinfo.Subject)
    assert PDF.stat().st_size < HEAVIEST


def test_the_outline_has_each_chapter_on_a_page_of_its_own(printed: Any, book: Book) -> None:
    lines = outline(printed)
    numbered = [(text, page) for level, text, page in lines if level == 2 and text[0].isdigit()]
    chapters = [(text, page) for _, text, page in lines if text == "Introduction"] + numbered
    titles = [re.sub(r"^\d+ ", "", text) for text, _ in chapters]
    index = {page["url"]: page["title"] for page in json.loads((HTML / "index.json").read_text("utf-8"))["pages"]}
    listed = [path for _, path in contents(read(HTML, FRONT)) if path not in NO_CHAPTERS]
    assert titles == ["Introduction", *(index[path] for path in listed)]
    assert [text.partition(" ")[0] for text, _ in chapters[1:]] == [str(number) for number in range(1, len(chapters))]
    assert len({page for _, page in chapters}) == len(chapters)
    assert [page for _, _, page in lines] == sorted(page for _, _, page in lines)


def test_the_links_of_the_pdf_lead_somewhere_and_none_was_lost(printed: Any, book: Book) -> None:
    places = {str(name)[1:] for name in printed.Root.Dests}
    inside, outside = set(), set()
    for page in printed.pages:
        for link in page.obj.get("/Annots", ()):
            if "/Dest" in link:
                inside.add(str(link.Dest)[1:])
            else:
                outside.add(str(link.A.URI))
    assert inside <= places
    assert outside == {link for link in book.links if not link.startswith("#")}
    assert {link[1:] for link in book.contents} <= inside


def test_no_page_was_made_smaller(printed: Any) -> None:
    """Chromium prints all in a smaller size if something is too wide for a page."""
    drawn = printed.pages[7].obj.Contents.read_bytes()
    width = re.search(rb"\n0 0 (\d+) \d+ re", drawn)  # the white that Chromium puts beneath a page, in its pixels
    assert width
    assert int(width[1]) <= PAPER + 1  # which is not whole
