"""Code that runs in the page: every block of every page gives there what it gave in the build.

Needs a built site (``make html``) with the runner in it, the package ``playwright``, and Chromium.
"""

import re
import time
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Locator, Page, Request

from built import HTML as SITE
from built import ROOT
from specctrl.rules import blocks

PAGES = {
    path: len(list(blocks((ROOT / f"{path}.md").read_text("utf-8"))))
    for path in ["index", *sorted(f"spec/{file.stem}" for file in (ROOT / "spec").glob("*.md"))]
}
PAGES = {path: count for path, count in PAGES.items() if count}
API = {
    path.stem: count
    for path in sorted((SITE / "spec" / "api").glob("*.html"))
    if (count := path.read_text("utf-8").count('<div class="doctest '))
}
"""How many runs of prompts the docstrings on each page of the reference have."""
CHOSEN = {"spec/claims": 1}
"""How many blocks of a page print what Z3 chose; its build for browsers chooses otherwise."""
BARRED = {
    "Cannot be run in the page: it starts another program": "starts-a-program",
    "Cannot be run in the page: it reads files that only the repository has": "reads-the-repository",
}
"""What a block says that cannot be run, and the tag of a cell that says so."""

SECONDS = 1000.0


@pytest.fixture(scope="module")
def address(site: str) -> str:
    """The site as it is served anywhere: the pages bring their own policy, and the worker has it from them."""
    return f"{site}/"


@pytest.fixture(scope="module")
def window(browser: Browser) -> Iterator[BrowserContext]:
    """One window for all readers: what it loaded and compiled for one of them it has for the next."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(180 * SECONDS)  # two share a loaded machine
    yield context
    context.close()


ENDED = """state => !/^($|Loading|Running|Edited, not run|Python runs)/.test(state.textContent)"""
"""Whether a row of buttons says how a run ended."""
RUN_EACH = f"""async () => {{
  const ended = {ENDED};
  for (const bar of document.querySelectorAll(".run-bar")) {{
    const state = bar.querySelector(".run-state");
    if (!ended(state)) bar.querySelector("button").click();
    while (!ended(state)) await new Promise(done => setTimeout(done, 5));
  }}
}}"""


class Reader:
    """A reader of one page in a tab of its own, who notes what the browser complains of and whom it asks."""

    def __init__(self, window: BrowserContext, address: str, width: int = 1280) -> None:
        self.window = window
        self.page: Page = window.new_page()
        self.page.set_viewport_size({"width": width, "height": 900})
        self.address = address
        self.asked: list[str] = []
        self.complaints: list[str] = []
        window.on("request", self._asks)
        self.page.on("console", self._note)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _asks(self, request: Request) -> None:
        self.asked.append(request.url)

    def _note(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def open(self, path: str) -> None:
        """Open a page, with nothing folded."""
        self.page.goto(f"{self.address}{path}.html", wait_until="load")
        self.page.evaluate("document.querySelectorAll('details').forEach((fold) => (fold.open = true))")

    def bars(self) -> Locator:
        """The rows of buttons, one a block."""
        return self.page.locator(".run-bar")

    def run(self, number: int, agree: bool = False) -> str:
        """Run a block (from 0) and return what its bar says then."""
        bar = self.bars().nth(number)
        bar.get_by_role("button", name="Run", exact=False).first.click()
        if agree:
            bar.get_by_role("button", name="Load and run").click()
        return self.result(number)

    def result(self, number: int) -> str:
        """Wait for the end of a run."""
        state = self.bars().nth(number).locator(".run-state")
        self.page.wait_for_function(ENDED, arg=state.element_handle(), polling=20, timeout=180 * SECONDS)
        return state.inner_text()

    def edit(self, number: int, code: str) -> Locator:
        """Open a block's editor and put other code in."""
        self.bars().nth(number).get_by_role("button", name="Edit").click()
        editor = self.page.locator("textarea.run-editor").last
        editor.fill(code)
        return editor

    def close(self) -> None:
        """Leave; nobody else was asked, and the browser had nothing to complain of."""
        self.page.close()
        self.window.remove_listener("request", self._asks)
        assert [url for url in self.asked if not url.startswith((self.address, "data:", "blob:"))] == []
        assert self.complaints == []


@pytest.fixture
def reader(window: BrowserContext, address: str) -> Iterator[Reader]:
    reader = Reader(window, address)
    yield reader
    reader.close()


@pytest.mark.parametrize("chapter", PAGES)
def test_every_block_gives_in_the_page_what_it_gave_in_the_build(
    reader: Reader, chapter: str, record_property: Callable[[str, object], None]
) -> None:
    reader.open(chapter)
    bars = reader.bars()
    assert bars.count() == PAGES[chapter], "each cell and each run of prompts has one bar"
    can_run = bars.filter(has=reader.page.get_by_role("button", name="Run"))
    if can_run.count():
        started = time.monotonic()
        reader.run(0, agree=True)
        first = time.monotonic() - started
        started = time.monotonic()
        # the last runs all that stand above it
        reader.run(bars.evaluate_all("(bars, last) => bars.indexOf(last)", can_run.last.element_handle()))
        later = (time.monotonic() - started) / max(PAGES[chapter] - 1, 1)
    said = bars.locator(".run-state").all_inner_texts()
    same = said.count("Same as built")
    chosen = said.count("Z3 chose another example than in the build")
    barred = sum(map(said.count, BARRED))
    if can_run.count():
        record_property("ran", {"blocks": len(said), "same": same, "chosen": chosen, "barred": barred,
                                "first": first, "later": later})
    assert same + chosen + barred == PAGES[chapter], list(enumerate(said))
    page = (ROOT / f"{chapter}.md").read_text("utf-8")
    assert {why: said.count(why) for why in BARRED} == {
        why: sum(tag in tags for tags in re.findall(r"^:?tags: \[(.*)\]$", page, re.M)) for why, tag in BARRED.items()
    }
    assert chosen <= CHOSEN.get(chapter, 0)


@pytest.mark.parametrize("page", API)
def test_each_docstring_gives_in_the_page_what_stands_beneath_its_prompts(reader: Reader, page: str) -> None:
    reader.open(f"spec/api/{page}")
    assert reader.bars().count() == API[page]
    reader.run(0, agree=True)
    reader.page.evaluate(RUN_EACH)
    said = reader.bars().locator(".run-state").all_inner_texts()
    assert len(said) == API[page]
    barred = [number for number, text in enumerate(said) if text in BARRED]
    assert barred == [number for number, text in enumerate(prompts_of(page)) if "# starts a process" in text]
    assert [(number, text) for number, text in enumerate(said)
            if number not in barred and text != "Same as built"] == []


def prompts_of(page: str) -> list[str]:
    return (SITE / "spec" / "api" / f"{page}.html").read_text("utf-8").split('<div class="doctest ')[1:]


def test_a_docstring_is_run_by_itself_among_the_names_of_its_module(reader: Reader) -> None:
    assert API["words"] > 1
    reader.open("spec/api/words")
    reader.edit(0, ">>> left_over = merge(1, 2, 2)\n>>> left_over\n3")
    assert reader.run(0, agree=True) == "Your code ran"
    reader.edit(1, ">>> 'left_over' in globals(), 'is_subset' in globals(), __name__\n")
    assert reader.run(1) == "Your code ran"
    assert "(False, True, 'specctrl.model.words')" in reader.page.locator(".run-output:visible").last.inner_text()


def test_a_page_view_loads_no_python_and_says_how_much_a_click_will(reader: Reader) -> None:
    reader.open("spec/entry-exit")
    reader.bars().first.get_by_role("button", name="Run").click()
    said = reader.bars().first.locator(".run-state").inner_text()
    served = sum(
        file.stat().st_size
        for file in (SITE / "_static" / "python").iterdir()
        if file.suffix != ".whl"
    )
    assert f"{served / 1e6:.1f} MB" in said
    assert not [url for url in reader.asked if "/python/" in url]
    reader.bars().first.get_by_role("button", name="Not now").click()
    assert reader.bars().first.locator(".run-state").inner_text() == ""


def test_an_edited_cell_gives_another_result_and_reset_brings_the_old_back(reader: Reader) -> None:
    reader.open("spec/problem")
    last = PAGES["spec/problem"] - 1
    reader.edit(last, "print(6 * 7)")
    assert reader.run(last, agree=True) == "Your code ran"
    assert reader.page.locator(".run-output:visible").last.inner_text().strip() == "42"
    reader.bars().nth(last).get_by_role("button", name="Reset").first.click()
    assert not reader.bars().nth(last).locator("xpath=following-sibling::*[1]").is_visible()
    assert reader.run(last) == "Same as built"


def test_an_exception_is_told_by_its_last_line_and_its_place(reader: Reader) -> None:
    reader.open("spec/entry-exit")
    reader.edit(1, "x = 1\nassert x == 2, 'two'")
    assert reader.run(1, agree=True) == "Raised an exception"
    shown = reader.page.locator(".run-error")
    assert shown.locator("p").all_inner_texts() == ["AssertionError: two", "line 2: assert x == 2, 'two'"]
    assert not shown.locator("pre").is_visible()
    shown.locator("summary").click()
    assert 'File "cell 2", line 2' in shown.locator("pre").inner_text()
    # A cell below is not run on top of it.
    assert reader.run(3) == "Not run: cell 2, above, raised AssertionError: two"


def test_an_edited_cell_changes_what_the_cells_below_it_see(reader: Reader) -> None:
    reader.open("spec/entry-exit")
    reader.edit(0, "seen = 1")
    reader.edit(1, "seen += 1\nseen")
    for first in (True, False):  # a page is always run from its top, so a second run is as the first
        assert reader.run(1, agree=first) == "Your code ran"
        assert reader.page.locator(".run-output:visible").inner_text().strip() == "2"
    reader.bars().nth(0).get_by_role("button", name="Reset page").click()
    assert reader.page.locator("textarea").count() == 0
    assert reader.run(1) == "Same as built"


def test_what_never_ends_can_be_stopped(reader: Reader) -> None:
    reader.open("spec/entry-exit")
    reader.edit(0, "while True: pass")
    bar = reader.bars().first
    bar.get_by_role("button", name="Run").click()
    bar.get_by_role("button", name="Load and run").click()
    bar.locator(".run-state", has_text="Running").wait_for()
    bar.get_by_role("button", name="Stop").click()
    assert reader.result(0) == "Stopped"
    bar.get_by_role("button", name="Reset").click()
    assert reader.run(0) == "Same as built"


def test_everything_can_be_done_by_keyboard(reader: Reader) -> None:
    reader.open("spec/entry-exit")
    page = reader.page
    reader.bars().first.get_by_role("button", name="Run").focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Edit"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.tagName") == "TEXTAREA"
    page.keyboard.press("Control+a")
    page.keyboard.type("print('a/b')")  # a slash opens the search elsewhere in the theme
    page.keyboard.press("Control+Enter")
    assert page.evaluate("document.activeElement.textContent") == "Load and run"
    page.keyboard.press("Enter")
    assert reader.result(0) == "Your code ran"
    page.locator("textarea").focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.tagName") == "BUTTON", "Tab leaves the editor"


@pytest.mark.parametrize("width", [1280, 360])
def test_an_open_editor_and_its_output_fit_the_page(window: BrowserContext, address: str, width: int) -> None:
    reader = Reader(window, address, width)
    reader.open("spec/entry-exit")
    reader.edit(0, "print('wide ' * 100)\n" + "x = 1  # " + "wide " * 60)
    assert reader.run(0, agree=True) == "Your code ran"
    assert reader.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    axe = pytest.importorskip("axe_playwright_python.base", reason="needs the package axe-playwright-python")
    reader.page.evaluate(axe.AXE_SCRIPT)
    found = reader.page.evaluate("() => axe.run('article', {resultTypes: ['violations']})")
    assert [node["html"][:160] for violation in found["violations"] for node in violation["nodes"]] == []
    reader.close()
