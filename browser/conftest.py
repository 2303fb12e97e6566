"""The site in Debian's Chromium, every page of it; without Chromium or Playwright the tests say so and stand aside."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from built import CHROMIUM, HTML, NARROW, QUIET, WIDE, pages, serving


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that asks for ``path`` on every page of the site."""
    if "path" in metafunc.fixturenames:
        metafunc.parametrize("path", pages())


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Say something at the end of the run, whichever process the test runs in."""
    return lambda said: request.node.user_properties.append(("told", said))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests told, and what the pages' code did in the page, whichever process ran them."""
    told = [said for report in terminalreporter.getreports("") if report.when == "teardown"
            for said in report.user_properties]
    for name, said in told:
        if name == "told":
            terminalreporter.write_line(said)
    if ran := [said for name, said in told if name == "ran"]:
        blocks, same, chosen, barred = (sum(one[key] for one in ran) for key in ("blocks", "same", "chosen", "barred"))
        first, later = (sorted(one[key] for one in ran) for key in ("first", "later"))
        terminalreporter.write_line(
            f"in the page: {same} of {blocks} blocks on {len(ran)} pages as built, {chosen} as Z3 chose, "
            f"{barred} cannot be run there; first result after {first[0]:.1f} to {first[-1]:.1f} s, "
            f"each later block {later[len(later) // 2] * 1000:.0f} ms (median of pages), "
            f"{later[-1] * 1000:.0f} ms at most"
        )


@pytest.fixture(scope="session")
def site() -> Iterator[str]:
    """The address of the site."""
    assert (HTML / "index.html").is_file(), "the site was not built: make html"
    with serving() as address:
        yield address


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium, started once."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt-get install chromium, or CHROMIUM=/path/to/it")
    with playwright.sync_playwright() as running:
        started = running.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield started
        started.close()


@pytest.fixture(scope="session")
def contexts(browser: Any) -> Iterator[dict[tuple[str, int], Any]]:
    """A window for each scheme of colours and each width; what one page loaded stays in its cache."""
    opened = {
        (scheme, width): browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900})
        for scheme in ("light", "dark")
        for width in (WIDE, NARROW)
    }
    yield opened
    for context in opened.values():
        context.close()


@pytest.fixture
def view(contexts: dict[tuple[str, int], Any], site: str) -> Iterator[Callable[..., Any]]:
    """Open a page of the site: ``view(path, scheme, width)``."""
    opened = []

    def open_page(path: str, scheme: str = "light", width: int = WIDE) -> Any:
        page = contexts[scheme, width].new_page()
        opened.append(page)
        page.goto(f"{site}/{path}")
        return page

    yield open_page
    for page in opened:
        page.close()
