"""The built site in Chromium."""

import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "browser"))

from figures import Figure, Missing  # noqa: E402 - the path had to be set first

from built import CHROMIUM, HTML, QUIET, pages, serving  # noqa: E402 - the path had to be set first

ROUNDS = 3
RUN = ["spec/entry-exit.html", "spec/contract.html", "spec/guests.html"]
"""Pages on which code is run."""
AREA = "browser"
PAINTED = "performance.getEntriesByName('first-contentful-paint').map((entry) => entry.startTime)[0] / 1000"


def first_paint(browser: Any, address: str) -> float:
    """Seconds from asking for a page to its first content, with nothing in the browser's cache; the median."""
    found = []
    for _ in range(ROUNDS):
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        page = context.new_page()
        page.goto(address, wait_until="load")
        for _ in range(2_000):  # the page's policy does not let Playwright wait for an expression
            painted = page.evaluate(PAINTED)
            if painted > 0:
                break
            time.sleep(0.005)
        else:
            raise SystemExit(f"{address} was not painted within ten seconds")
        found.append(painted)
        context.close()
    return statistics.median(found)


def finished(state: Any) -> None:
    """Wait until a block says how its run ended."""
    while state.inner_text().startswith(("Loading", "Running")) or not state.inner_text():
        time.sleep(0.005)


def in_page(browser: Any, address: str) -> tuple[float, float]:
    """Seconds from the click that loads Python to the first result, and for each later block of the page."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.goto(address, wait_until="load")
    page.evaluate("document.querySelectorAll('details').forEach((fold) => (fold.open = true))")
    bars = page.locator(".run-bar")
    bars.first.get_by_role("button", name="Run").first.click()
    start = time.perf_counter()
    bars.first.get_by_role("button", name="Load and run").click()
    finished(bars.first.locator(".run-state"))
    first = time.perf_counter() - start
    start = time.perf_counter()
    bars.last.get_by_role("button", name="Run").first.click()
    finished(bars.last.locator(".run-state"))
    later = (time.perf_counter() - start) / (bars.count() - 1)
    context.close()
    return first, later


def measure() -> Iterator[Figure]:
    """First paint of every page, and what code in the page takes."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise Missing("the package playwright (make browser-test installs it)") from None
    if CHROMIUM is None or not (HTML / "_static" / "python").is_dir():
        raise Missing("Chromium" if CHROMIUM is None else "a site that was built where npm is: make html")
    with serving() as address, sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        paints = sorted(first_paint(browser, f"{address}/{path}") for path in pages())
        yield Figure(AREA, "first paint, median of pages", statistics.median(paints), "seconds")
        yield Figure(AREA, "first paint, slowest page", paints[-1], "seconds", "the median page",
                     paints[-1] / statistics.median(paints))
        times = [in_page(browser, f"{address}/{path}") for path in RUN]
        firsts, laters = zip(*times, strict=True)
        yield Figure(AREA, "code in the page, first result", statistics.median(firsts), "seconds")
        yield Figure(AREA, "code in the page, later blocks", max(laters), "seconds each", "the first result",
                     max(laters) / statistics.median(firsts))
        browser.close()
