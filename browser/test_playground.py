"""The playground, as a reader uses it."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from built import HTML as SITE
from built import NARROW

FORCED = ["Force BHI_DIS_S", "Create vCPU 0", "Guest writes IBRS"]


@pytest.fixture
def play(browser: Any, site: str) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": NARROW, "height": 900}, accept_downloads=True)
    context.set_default_timeout(60_000)
    page = context.new_page()
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    context.on("request", lambda request: asked.append(request.url))
    yield page
    context.close()
    assert said == []
    assert [url for url in asked if not url.startswith((f"{site}/", "data:", "blob:"))] == []


def begin(page: Any, address: str) -> None:
    page.goto(address)
    page.get_by_role("button", name="Load and begin").click()
    page.locator(".play-form").wait_for()


def newest(page: Any, register: str) -> str:
    row = page.locator(".play-history > li").first.locator("tbody tr", has_text=register).first
    text: str = row.locator("td").inner_text()
    return text


def test_a_history_is_performed_shared_taken_back_and_saved(play: Any, site: str) -> None:
    begin(play, f"{site}/spec/playground.html")
    for number, step in enumerate(FORCED, 1):
        play.get_by_role("button", name=step, exact=True).click()
        play.locator(".play-history > li").nth(number - 1).wait_for()
    assert play.locator(".play-history > li").evaluate_all("all => all.map(one => one.value)") == [3, 2, 1]
    assert newest(play, "effective") == "0x401 was 0x400"
    assert newest(play, "guest view") == "0x1 was 0x0"
    play.locator(".play-history > li").first.locator("summary").click()
    link = play.locator(".play-history > li").first.locator(".play-rules a").first
    page, _, fragment = link.get_attribute("href").removeprefix(f"{site}/").partition("#")
    assert f'id="{fragment}"' in (SITE / page).read_text("utf-8")

    # The address, opened anew, performs the same history.
    shared = play.url
    play.goto("about:blank")
    begin(play, shared)
    assert play.locator(".play-history > li").count() == len(FORCED)
    assert newest(play, "effective") == "0x401 was 0x400"

    play.get_by_role("button", name="Undo").click()
    play.locator(".play-history > li").nth(len(FORCED) - 1).wait_for(state="detached")
    assert newest(play, "effective") == "0x400"

    with play.expect_download() as download:
        play.get_by_role("button", name="Save as a scenario").click()
    saved = json.loads(download.value.path().read_text("utf-8"))
    assert [step["op"] for step in saved["steps"]] == ["enable_cap", "create_vcpu"]
    assert saved["steps"][0]["expect"] == {"ret": 0}


def test_any_step_can_be_written_and_a_wrong_one_is_refused_with_a_reason(play: Any, site: str) -> None:
    begin(play, f"{site}/spec/playground.html")
    play.get_by_role("button", name="Perform").click()  # create_vcpu, with nothing more
    play.locator(".play-history > li").first.wait_for()
    play.get_by_label("operation", exact=True).select_option("wrmsr")
    play.get_by_label("msr", exact=True).fill("IA32_SPEC")
    play.get_by_label("value", exact=True).fill("0x1")
    play.get_by_role("button", name="Perform").click()
    play.locator(".play-state", has_text="Refused").wait_for()
    assert 'did you mean "IA32_SPEC_CTRL"' in play.locator(".play-state").inner_text()
    play.get_by_label("msr", exact=True).fill("IA32_SPEC_CTRL")
    play.get_by_label("value", exact=True).press("Enter")
    play.locator(".play-history > li").nth(1).wait_for()
    assert newest(play, "register").startswith("0x1")


def test_a_published_scenario_is_opened_from_where_it_is_shown(play: Any, site: str) -> None:
    play.goto(f"{site}/spec/scenarios.html")
    link = play.locator("a.spec-play").first
    address = link.get_attribute("href")
    id = address.partition("scenario=")[2]
    link.click()
    play.wait_for_url("**/spec/playground.html*")
    play.get_by_role("button", name="Load and begin").click()
    play.locator(".play-form").wait_for()
    steps = json.loads((SITE / "vectors" / f"{id}.json").read_text("utf-8"))["steps"]
    assert play.locator(".play-history > li").count() == len(steps)
    assert play.locator(".play-state").inner_text() == ""


def test_it_fits_a_narrow_window_and_axe_finds_nothing(play: Any, site: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.base", reason="needs the package axe-playwright-python")
    begin(play, f"{site}/spec/playground.html")
    for number, step in enumerate(FORCED, 1):
        play.get_by_role("button", name=step, exact=True).click()
        play.locator(".play-history > li").nth(number - 1).wait_for()
    assert play.evaluate("document.documentElement.scrollWidth <= innerWidth")
    play.evaluate(axe.AXE_SCRIPT)
    found = play.evaluate("() => axe.run({resultTypes: ['violations']})")
    assert [node["html"][:160] for violation in found["violations"] for node in violation["nodes"]] == []
