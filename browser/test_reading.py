"""How the pages read: not too long, prose that leads, light; and old addresses that lead on."""

from typing import Any

import pytest

from built import WIDE
from measure import HEAD, book, line, measure

WORDS, PROSE, BYTES = 4_000, 40, 300_000
"""At most so many words seen with folds closed; at least so much of the height prose, in per cent; fewer bytes."""

FONTS = 1
"""Per cent of a page's height that are left to the fonts of the machine."""


def breaks(found: dict[str, Any]) -> set[str]:
    """Which limits the figures of a page exceed."""
    kept = {"words": found["words"] <= WORDS, "prose": found["prose"] >= PROSE - FONTS, "bytes": found["bytes"] < BYTES}
    return {limit for limit, is_kept in kept.items() if not is_kept}


def test_pages_are_short_and_prose_leads(browser: Any, site: str, capsys: pytest.CaptureFixture[str]) -> None:
    page = browser.new_page(viewport={"width": WIDE, "height": 900})
    figures = {}
    for path in book():
        page.goto(f"{site}/{path}")
        figures[path] = measure(page, path)
    page.close()
    with capsys.disabled():
        print("", HEAD, *(line(path, found) for path, found in figures.items()), sep="\n")
    assert len(figures) > 20
    assert {path: over for path, found in figures.items() if (over := breaks(found))} == {}


def test_an_old_address_leads_to_the_new_place(browser: Any, site: str, moved: list[tuple[str, str]]) -> None:
    page = browser.new_page()
    for old, new in moved:
        page.goto(f"{site}/{old}")
        page.wait_for_url(f"{site}/{new}", timeout=5000)
        assert page.locator("article h1").count() == 1
        fragment = new.partition("#")[2]
        assert not fragment or page.evaluate("id => document.getElementById(id) !== null", fragment), new
    page.close()


def test_without_scripts_an_old_page_leads_on_too(browser: Any, site: str, moved: list[tuple[str, str]]) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    for old, new in moved:
        if "#" not in old:
            page.goto(f"{site}/{old}")
            page.wait_for_url(f"{site}/{new}", timeout=5000)
    context.close()


@pytest.fixture
def moved() -> list[tuple[str, str]]:
    """Each old address of the list, and where it went."""
    from built import ROOT
    from specctrl.site.redirects import read_redirects

    listed = read_redirects(ROOT / "spec" / "redirects.toml")
    assert listed
    return [(address(old.page, old.fragment), address(new.page, new.fragment)) for old, new in listed.items()]


def address(page: str, fragment: str) -> str:
    """The address of a place on the site."""
    return f"{page}.html#{fragment}" if fragment else f"{page}.html"
