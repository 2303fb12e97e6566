"""A PDF of the book: headless Chromium prints it, and then it is told its title, date and page numbers."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from edition.book import Facts
from edition.chapters import EditionError, Entry

SECONDS = 300
OPTIONS = (
    "--headless",
    "--no-sandbox",  # a container's root cannot have one; the file comes from here
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-pdf-header-footer",  # the style sheet has its own
)
DRAFT = "--disable-pdf-tagging"  # a draft is only asked for its pages
LEVEL_OPEN = 1
"""The parts show their chapters when the PDF is opened; chapters keep their sections folded."""


class NoPaper(Exception):
    """The PDF cannot be made here; the message says what is missing."""


def find_chromium() -> str:
    """Return the browser that prints: ``CHROMIUM``, or the one that is installed."""
    found = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        raise NoPaper("needs Chromium: apt-get install chromium, or CHROMIUM=/path/to/it")
    return found


def print_pdf(html: str, facts: Facts, lines: list[Entry], target: Path) -> int:
    """Print the book into ``target``; return the number of its pages.

    It is printed twice: only a printed book knows the page of each line of its contents.
    """
    try:
        import pikepdf
    except ImportError:
        raise NoPaper("needs the package pikepdf: pip install -e '.[edition]'") from None
    chromium = find_chromium()
    with tempfile.TemporaryDirectory() as folder:
        printed = Path(folder, "printed.pdf")
        run_chromium(chromium, html, printed, DRAFT)
        with pikepdf.open(printed) as draft:
            numbers = page_numbers(draft, lines)
        run_chromium(chromium, with_numbers(html, numbers), printed)
        with pikepdf.open(printed) as book:
            if page_numbers(book, lines) != numbers:
                raise EditionError("the page numbers in the contents are not those of the book: they took room")
            finish(book, facts, lines)
            pikepdf.settings.set_flate_compression_level(9)
            book.save(
                target,
                object_stream_mode=pikepdf.ObjectStreamMode.generate,
                recompress_flate=True,
                deterministic_id=True,
            )
            return len(book.pages)


def run_chromium(chromium: str, html: str, target: Path, *more: str) -> None:
    """Print one file, without a network, with a profile of its own."""
    source = target.with_suffix(".html")
    source.write_text(html, "utf-8")
    profile = target.with_suffix(".profile")
    target.unlink(missing_ok=True)
    command = [chromium, *OPTIONS, *more, f"--user-data-dir={profile}", f"--print-to-pdf={target}", source.as_uri()]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EditionError(f"{chromium} did not print: {error}") from None
    if not target.is_file():
        raise EditionError(f"{chromium} did not print: status {done.returncode}: {done.stderr[-300:].strip()}")


def page_numbers(book: Any, lines: list[Entry]) -> dict[str, int]:
    """The page, from 1, of each line of the contents."""
    pages = {page.objgen: number for number, page in enumerate(book.pages, 1)}
    places = {str(name).removeprefix("/"): place for name, place in book.Root.Dests.items()}
    for line in lines:
        if line.address not in places:
            raise EditionError(f"the heading {line.text!r} has no place in the PDF")
    return {line.address: pages[places[line.address][0].objgen] for line in lines}


def with_numbers(html: str, numbers: dict[str, int]) -> str:
    """The book whose contents say the page of each line, as a style sheet adds it."""
    rules = [f'.edition-contents a[href="#{place}"]::after {{ content: "{page}" }}' for place, page in numbers.items()]
    style = "@media print {\n" + "\n".join(rules) + "\n}"
    return html.replace("</head>", f"<style>\n{style}\n</style>\n</head>", 1)


def finish(book: Any, facts: Facts, lines: list[Entry]) -> None:
    """Give the PDF an outline, a title and the commit's date; nothing in it is of the hour when it was made."""
    from pikepdf import Dictionary, Name, OutlineItem

    with book.open_outline() as outline:
        outline.root.clear()
        above = [outline.root]  # where a line goes: the last list; the introduction stands in no part
        for line in lines:
            item = OutlineItem(line.text, book.Root.Dests[f"/{line.address}"])
            item.is_closed = line.level > LEVEL_OPEN
            del above[line.level :]
            above[-1].append(item)
            above.append(item.children)
    stamp = f"D:{facts.day.replace('-', '') or '19700101'}000000Z"
    book.docinfo = book.make_indirect(
        Dictionary(
            Title=f"{facts.title}: an executable specification",
            Subject=f"Release {facts.release}, commit {facts.commit}",
            Creator="Chromium",
            Producer=str(book.docinfo.get("/Producer", "")),
            CreationDate=stamp,
            ModDate=stamp,
        )
    )
    book.Root.PageMode = Name.UseOutlines
