"""Measures the built site in Chromium; `make bench` prints the figures, no test depends on them."""

import statistics
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "browser"))

from built import CHROMIUM, HTML, QUIET, pages, serving  # noqa: E402 - the path had to be set first

ROUNDS = 3
RUN = ["spec/entry-exit.html", "spec/contract.html", "spec/guests.html"]
"""Pages on which code is run."""
PAINT_AIM, FIRST_AIM, LATER_AIM = 0.5, 6.0, 0.2
"""Seconds that are aimed at: to the first paint, from the click to the first result, for each later block."""
PAINTED = "performance.getEntriesByName('first-contentful-paint').map((entry) => entry.startTime)[0] / 1000"


def first_paint(browser: Any, address: str) -> float:
    """Seconds from asking for a page to its first content, with nothing in the browser's cache; the median."""
    found = []
    for _ in range(ROUNDS):
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        page = context.new_page()
        page.goto(address, wait_until="load")
        page.wait_for_function(f"{PAINTED} > 0")
        found.append(page.evaluate(PAINTED))
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


def main() -> None:
    """Print the figures, and leave with an error if an aim is missed."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        print("left out: the site in a browser: needs the package playwright (make browser-test installs it)")
        return
    if CHROMIUM is None or not (HTML / "index.html").is_file():
        print(f"left out: the site in a browser: {'no Chromium' if CHROMIUM is None else 'not built, make html'}")
        return
    missed = []
    with serving() as address, sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        paints = {path: first_paint(browser, f"{address}/{path}") for path in pages()}
        slowest = max(paints, key=paints.__getitem__)
        print(f"{'first paint, median of pages':35} {statistics.median(paints.values()):12.3f} seconds")
        print(f"{'first paint, slowest page':35} {paints[slowest]:12.3f} seconds  ({slowest})")
        missed += [f"first paint of {path}" for path, seconds in paints.items() if seconds > PAINT_AIM]
        if not (HTML / "_static" / "python").is_dir():
            print("left out: code in the page: the site was built without it, npm was missing")
        else:
            times = [in_page(browser, f"{address}/{path}") for path in RUN]
            firsts, laters = zip(*times, strict=True)
            print(f"{'code in the page, first result':35} {statistics.median(firsts):12.1f} seconds after the click")
            print(f"{'code in the page, later blocks':35} {max(laters):12.3f} seconds each")
            missed += ["the first result in the page"] * (max(firsts) > FIRST_AIM)
            missed += ["later blocks in the page"] * (max(laters) > LATER_AIM)
        browser.close()
    if missed:
        raise SystemExit(f"slower than aimed at: {', '.join(missed)}")


if __name__ == "__main__":
    main()
