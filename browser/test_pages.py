"""Every page, as a reader's browser has it."""

from typing import Any

import pytest

from built import NARROW, WIDE

HEAVIEST, WITH_ALL = 300_000, 450_000
"""Bytes, not compressed, of a page, and of it with all that it loads; Python is loaded by a click, and not counted."""

SHIFTS = """window.shifted = 0;
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.shifted += entry.value;
}).observe({type: "layout-shift", buffered: true});"""
MOST_SHIFT = 0.02
"""Of a window, while a page loads."""

axe = pytest.importorskip("axe_playwright_python.base", reason="needs the package axe-playwright-python")


@pytest.fixture
def loaded(browser: Any, site: str, path: str) -> Any:
    """The page, opened in a window that has nothing in its cache, with all that happened meanwhile."""
    context = browser.new_context(viewport={"width": WIDE, "height": 900})
    page = context.new_page()
    page.add_init_script(SHIFTS)
    seen: dict[str, Any] = {"said": [], "responses": [], "failed": [], "asked": []}
    page.on("console", lambda message: seen["said"].append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: seen["said"].append(f"error: {error}"))
    page.on("request", lambda request: seen["asked"].append(request.url))
    page.on("response", lambda response: seen["responses"].append(response))
    page.on("requestfailed", lambda request: seen["failed"].append(request.url))
    page.goto(f"{site}/{path}", wait_until="networkidle")
    seen["shifted"] = page.evaluate("() => window.shifted")
    seen["weights"] = [(len(response.body()), response.url) for response in seen["responses"]]
    yield seen
    context.close()


def test_it_asks_nobody_else_says_nothing_is_light_and_does_not_move(loaded: dict[str, Any], site: str) -> None:
    assert [url for url in loaded["asked"] if not url.startswith((f"{site}/", "data:"))] == []
    assert [response.url for response in loaded["responses"] if response.status != 200] == []
    assert loaded["failed"] == []
    assert loaded["said"] == []  # a breach of the content security policy is said here, too
    heaviest = sorted(loaded["weights"], reverse=True)[:3]
    assert heaviest[0][0] < HEAVIEST, heaviest
    assert sum(size for size, _ in loaded["weights"]) < WITH_ALL, heaviest
    assert loaded["shifted"] < MOST_SHIFT


def test_in_a_narrow_window_it_does_not_move_either(browser: Any, site: str, path: str) -> None:
    page = browser.new_page(viewport={"width": NARROW, "height": 900})
    page.add_init_script(SHIFTS)
    page.goto(f"{site}/{path}", wait_until="load")
    page.wait_for_timeout(300)
    assert page.evaluate("() => window.shifted") < MOST_SHIFT
    page.close()


COLOURS = {"runOnly": ["color-contrast", "link-in-text-block"]}
"""What is asked in the dark, too, in a wide window: what is not about colours is the same in both schemes."""


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_axe_finds_nothing(view: Any, path: str, width: int) -> None:
    page = view(path, width=width)
    page.evaluate(axe.AXE_SCRIPT)
    for scheme, only in (("light", {}), ("dark", COLOURS))[:2 if width == WIDE else 1]:
        page.emulate_media(color_scheme=scheme)
        found = page.evaluate("options => axe.run({...options, resultTypes: ['violations']})", only)
        assert len(found["passes"]) > 0
        assert [
            f"{scheme}: {violation['id']}: {node['html'][:160]}"
            for violation in found["violations"] for node in violation["nodes"]
        ] == []


WIDER_THAN_THE_WINDOW = """() => {
  const room = document.documentElement.clientWidth;  // the theme lets the column of text scroll for itself, too
  const column = [document.documentElement, document.querySelector(".content")];
  return column.every(e => e.scrollWidth <= e.clientWidth) ? [] :
    [...document.querySelectorAll("body *")].filter(e => e.getBoundingClientRect().right > room + 1)
      .slice(0, 5).map(e => e.outerHTML.slice(0, 120));
}"""

SCROLLS_BUT_NOT_BY_KEYBOARD = """() => [...document.querySelectorAll("body *")].filter(e =>
    e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0
    && ["auto", "scroll"].includes(getComputedStyle(e).overflowX)
    && e.tabIndex < 0 && !e.querySelector("a[href], button, input, [tabindex='0']"))
  .map(e => e.outerHTML.slice(0, 120))"""

SCROLLS = """[...document.querySelectorAll("[role=main] *")].filter(e => e.scrollWidth > e.clientWidth + 1
    && e.clientWidth > 0 && ["auto", "scroll"].includes(getComputedStyle(e).overflowX))"""
SCROLLS_WITHOUT_A_NAME = f"""() => {SCROLLS}.filter(e => e.tabIndex >= 0
    && !(e.getAttribute("role") && e.getAttribute("aria-label"))).map(e => e.outerHTML.slice(0, 120))"""
# A line of code that is cut off says so by itself; a column that is not seen does not.
SCROLLS_WITHOUT_A_SHADOW = f"""() => {SCROLLS}.filter(e => !e.matches("pre, textarea")
    && !getComputedStyle(e).backgroundImage.includes("linear-gradient")).map(e => e.outerHTML.slice(0, 120))"""


def test_it_fits_a_narrow_window_and_what_scrolls_can_be_focused(view: Any, path: str) -> None:
    page = view(path, width=NARROW)
    assert page.evaluate("() => document.documentElement.clientWidth") == NARROW
    assert page.evaluate(WIDER_THAN_THE_WINDOW) == []
    assert page.evaluate(SCROLLS_BUT_NOT_BY_KEYBOARD) == []
    assert page.evaluate(SCROLLS_WITHOUT_A_NAME) == []
    assert page.evaluate(SCROLLS_WITHOUT_A_SHADOW) == []
