"""The pages of the built site as chapters of one book, whose links lead from chapter to chapter.

They are the pages that ``make html`` wrote: nothing is run again, so nothing can come out otherwise.
"""

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bs4 import BeautifulSoup, Tag
from bs4.element import NavigableString

FRONT = "index.html"
NO_CHAPTERS = {
    "spec/playground.html": "it needs a script",
    "spec/api.html": "it repeats the docstrings of the code",
}
"""Pages in the site's contents that are no chapters, and why."""
API = "spec/api/"
AS_ON_THE_SITE = "rule-"
"""Addresses that begin so are those of the site; all others have the name of their page before them."""


class EditionError(Exception):
    """The site lacks something that the edition needs; the message names the page and the place."""


@dataclass(slots=True, frozen=True)
class Entry:
    """One heading: its level (1 is a part, 2 a chapter, 3 and 4 its sections), its address, its text."""

    level: int
    address: str
    text: str


@dataclass(slots=True)
class Chapter:
    """One page of the site: its path, the part it stands in, its number (0 has none), and its text."""

    path: str
    part: str
    number: int
    body: Tag

    @property
    def name(self) -> str:
        """The name of the page, which is the address of the chapter."""
        return posixpath.basename(self.path).removesuffix(".html")

    def address(self, id: str) -> str:
        """Where something of the page stands in the book.

        >>> nested = Chapter("spec/nested.html", "The interface", 8, Tag(name="article"))
        >>> nested.address("limits"), nested.address("rule-nested.pair-of-l1"), nested.address("")
        ('nested/limits', 'rule-nested.pair-of-l1', 'nested')
        """
        if id.startswith(AS_ON_THE_SITE):
            return id
        return f"{self.name}/{id}" if id else self.name

    def entries(self) -> Iterator[Entry]:
        """The headings of the chapter, as they are in the book."""
        for heading in self.body.find_all(["h2", "h3", "h4"]):
            words = "".join(text for text in heading.find_all(string=True) if text != "¶").strip()
            section = heading.find_parent("section")
            level = int(heading.name[1])
            yield Entry(level, self.name if level == 2 or section is None else str(section["id"]), words)


def read(html: Path, path: str) -> BeautifulSoup:
    """Read one page of the site in the folder ``html``."""
    try:
        return BeautifulSoup((html / path).read_text("utf-8"), "html.parser")
    except FileNotFoundError:
        raise EditionError(f"{html / path} is not there: make html builds the site") from None


def one(page: Tag, selector: str, path: str) -> Tag:
    """The element of a page that ``selector`` finds."""
    found = page.select_one(selector)
    if found is None:
        raise EditionError(f"{path}: nothing is {selector}")
    return found


def contents(front: Tag) -> Iterator[tuple[str, str]]:
    """The part and the path of every page in the contents of the site, in their order."""
    part = ""
    for line in one(front, ".sidebar-tree", FRONT).select("p.caption, li.toctree-l1 > a"):
        if line.name == "p":
            part = line.get_text(strip=True)
        else:
            yield part, str(line["href"])


def read_chapters(html: Path, front: Tag) -> list[Chapter]:
    """Every chapter as the site has it: the front page, then the pages of the contents."""
    pages = [(part, path) for part, path in contents(front) if path not in NO_CHAPTERS]
    book = [Chapter(FRONT, "", 0, one(front, "article[role=main]", FRONT))]
    for number, (part, path) in enumerate(pages, 1):
        book.append(Chapter(path, part, number, one(read(html, path), "article[role=main]", path)))
    return book


def make_book(book: list[Chapter]) -> set[str]:
    """Make a book of the site's pages, in place; return the files of the site that it names and does not have."""
    for chapter in book:
        trim(chapter.body)
        unroll(chapter.body)
    links = Links(book)
    for chapter in book:
        links.mend(chapter)
        set_headings(chapter)
    return links.elsewhere


def trim(body: Tag) -> None:
    """Take out what the book says once, and what neither paper nor a file without scripts can use."""
    for part in body.select(".status-banner, .spec-permalink, script, button"):
        part.decompose()
    for link in body.select('a[href*="playground.html?"]'):  # "perform it", after a dot
        dot = link.previous_sibling
        if isinstance(dot, NavigableString):
            dot.replace_with(dot.removesuffix(" · "))
        link.decompose()
    for mark in body.select("a.headerlink[title]"):
        del mark["title"]


def unroll(body: Tag) -> None:
    """Draw what is filled with a pattern cell by cell: Chromium prints a pattern as a bitmap, large and coarse."""
    for path in body.select('path[fill^="url(#"]'):
        name = str(path["fill"])[len("url(#") : -1]
        pattern = one(body, f'[id="{name}"]', name)
        side = int(str(pattern["width"]))
        for x, y, width in re.findall(r"M(\d+) (\d+)h(\d+)v", str(path["d"])):
            for left in range(int(x), int(x) + int(width), side):
                path.append(Tag(name="use", attrs={"href": f"#{name}", "x": str(left), "y": y}))
        path.name, path.attrs = "g", {}
    for pattern in body.find_all("pattern"):
        pattern.name, pattern.attrs = "g", {"id": pattern["id"]}


def set_headings(chapter: Chapter) -> None:
    """Put the headings one level down, since the parts have the first, and the number before the title."""
    for heading in chapter.body.find_all(["h1", "h2", "h3", "h4", "h5"]):
        heading.name = f"h{int(heading.name[1]) + 1}"
    title = one(chapter.body, "h2", chapter.path)
    if chapter.number:
        title.insert(0, f"{chapter.number} ")
    else:
        title.string = "Introduction"  # the page has the name of the whole


class Links:
    """Leads the links between the pages to their places in the book; what leads out of it becomes plain text."""

    def __init__(self, book: list[Chapter]) -> None:
        self.pages = {chapter.path: chapter for chapter in book}
        self.ids = {chapter.path: {str(tag["id"]) for tag in chapter.body.find_all(id=True)} for chapter in book}
        listings = [(id, chapter) for chapter in reversed(book) for id in self.ids[chapter.path]]
        self.listings = {id: chapter for id, chapter in listings if id.startswith("source-")}
        self.elsewhere: set[str] = set()

    def mend(self, chapter: Chapter) -> None:
        """Mend the links, then the addresses, of one chapter."""
        for link in chapter.body.find_all(["a", "use"], href=True):
            leads_to = self.target(chapter, link)
            if leads_to is None:
                link.name = "span"
                del link["href"]
            else:
                link["href"] = leads_to
        for tag in chapter.body.find_all(id=True):
            tag["id"] = chapter.address(str(tag["id"]))

    def target(self, chapter: Chapter, link: Tag) -> str | None:
        """Where a link of a page leads in the book; None if the book does not have it."""
        to = urlsplit(str(link["href"]))
        if to.scheme:
            return str(link["href"])
        id = unquote(to.fragment)
        path = posixpath.normpath(posixpath.join(posixpath.dirname(chapter.path), to.path)) if to.path else chapter.path
        if path in self.pages:
            if id and id not in self.ids[path]:
                raise EditionError(f"{chapter.path}: the link {link['href']!r} leads nowhere")
            return f"#{self.pages[path].address(id)}"
        listing = f"source-{id}"
        if path.startswith(API) and listing in self.listings and link.find_parent(id=listing) is None:
            return f"#{self.listings[listing].address(listing)}"
        self.elsewhere.add(path)
        return None
