"""One HTML file that holds the whole book: it needs no script, and asks nobody for anything."""

import json
import re
from dataclasses import dataclass
from html import escape
from itertools import groupby
from pathlib import Path

from bs4 import Tag

from edition.chapters import FRONT, NO_CHAPTERS, Chapter, Entry, make_book, one, read, read_chapters

STYLES = ("_static/styles/furo.css", "_static/pygments.css", "_static/spec.css", "_static/policies.css")
"""The style sheets of the site that its text needs, in the order of its pages."""
OWN_STYLE = Path(__file__).with_name("edition.css")
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


@dataclass(slots=True)
class Facts:
    """What the title page says: the project's name, its release, the commit, the counts, and the note of each page."""

    title: str
    release: str
    commit: str
    counts: str
    against: Tag

    @property
    def day(self) -> str:
        """The day of the commit, YYYY-MM-DD; empty if the site does not know it."""
        found = re.search(r"\d{4}-\d\d-\d\d", self.commit)
        return found[0] if found else ""


def read_facts(html: Path, front: Tag) -> Facts:
    """Read from the built site what the title page says."""
    index = json.loads((html / "index.json").read_text("utf-8"))
    title = one(front, "h1", FRONT)
    name = next(iter(title.stripped_strings))
    counts = " · ".join(part for part in map(str.strip, one(front, ".spec-facts", FRONT).get_text().split("·"))
                        if part[:1].isdigit())
    against = one(front, ".status-banner p", FRONT).extract()
    one(against, ".status-commit", FRONT).decompose()
    return Facts(name, index["release"], index["commit"], counts, against)


def make_html(html: Path) -> tuple[str, Facts, list[Entry]]:
    """Make the book of the site in the folder ``html``: its text, what its title page says, and its contents."""
    front = read(html, FRONT)
    facts = read_facts(html, front)
    book = read_chapters(html, front)
    elsewhere = make_book(book)
    lines = headings(book)
    styles = "\n".join(_style((html / sheet).read_text("utf-8")) for sheet in STYLES)
    text = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>{escape(facts.title)}: an executable specification</title>
<link rel="icon" href="data:,">
<style>
{styles}
{_style(OWN_STYLE.read_text("utf-8"))}
{_running_heads(book)}
</style>
</head>
<body data-theme="auto">
<a class="edition-skip" href="#index">Skip to the text</a>
<header class="edition-title">
<p class="edition-name">{escape(facts.title)}</p>
<p class="edition-what">An executable specification</p>
<p>Release {escape(facts.release)}<br>Commit {escape(facts.commit)}</p>
<p>{escape(facts.counts)}</p>
<p class="edition-against">{facts.against.decode_contents().strip()}</p>
{_about(book, elsewhere)}
</header>
<nav class="edition-contents" aria-label="Contents">
<p class="edition-contents-head">Contents</p>
{_contents(book)}
</nav>
<main role="main" class="edition-text">
{_text(book)}
</main>
</body>
</html>
"""
    return text, facts, lines


def headings(book: list[Chapter]) -> list[Entry]:
    """Every heading of the book; a part stands where its first chapter does."""
    found: list[Entry] = []
    for part, chapters in groupby(book, key=lambda chapter: chapter.part):
        inside = list(chapters)
        found += [Entry(1, inside[0].name, part)] if part else []
        found += [entry for chapter in inside for entry in chapter.entries()]
    return found


def _style(text: str) -> str:
    """A style sheet without its comments: the reference to its source map is one, and would be asked for."""
    return re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL).strip()


def _running_heads(book: list[Chapter]) -> str:
    """On paper, the chapter's title stands at the head of each of its pages."""
    rules = []
    for chapter in book:
        title = next(chapter.entries()).text.replace("\\", "\\\\").replace('"', '\\"')
        page = f"chapter-{chapter.number}"
        rules.append(f'@page {page} {{ @top-left {{ content: "{title}" }} }}\n#{chapter.name} {{ page: {page} }}')
    return "\n".join(rules)


def _about(book: list[Chapter], elsewhere: set[str]) -> str:
    """What this edition is, and what it leaves out."""
    pages = " and ".join(f"<code>{path.removesuffix('.html')}</code> ({why})" for path, why in NO_CHAPTERS.items())
    files = {path for path in elsewhere if not path.endswith(".html")}
    scenarios = sum(path.startswith("vectors/") and path.endswith(".json") for path in files)
    return f"""<section class="edition-about" aria-label="About this edition">
<p>This is the site in one file: its front page and {len(book) - 1} chapters, in the order of the site.
It is made from the built pages, so every output is the one that the build checked.</p>
<p>Left out, and in the site, which <code>make html</code> builds from the repository at this commit:
the pages {pages};
the bit explorer, the buttons that run code, and the search;
and {len(files)} files that the text names without a link, {scenarios} of them scenarios, of <code>vectors/</code>.
A name of code leads to its listing, if a chapter shows it.</p>
</section>"""


def _contents(book: list[Chapter]) -> str:
    lines = []
    for part, chapters in groupby(book, key=lambda chapter: chapter.part):
        if part:
            lines.append(f'<p class="edition-contents-part">{escape(part)}</p>')
        lines.append("<ol>")
        for chapter in chapters:
            title, *sections = (_line(entry) for entry in chapter.entries() if entry.level < 4)
            inside = "".join(f"<li>{section}</li>\n" for section in sections)
            lines.append(f"<li>{title}" + (f"\n<ol>\n{inside}</ol>" if inside else "") + "</li>")
        lines.append("</ol>")
    return "\n".join(lines)


def _line(entry: Entry) -> str:
    return f'<a href="#{escape(entry.address)}"><span>{escape(entry.text)}</span></a>'


def _text(book: list[Chapter]) -> str:
    """The chapters; the first of a part has the part's name above its title."""
    parts = []
    for part, chapters in groupby(book, key=lambda chapter: chapter.part):
        head = f"<h1>{escape(part)}</h1>\n" if part else ""
        for chapter in chapters:
            body = chapter.body.decode_contents().strip()
            parts.append(f'<article class="edition-chapter" id="{chapter.name}">\n{head}{body}\n</article>')
            head = ""
    return "\n".join(parts)
