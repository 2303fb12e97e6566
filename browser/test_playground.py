"""The playground, as a reader uses it."""

import base64
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from built import HTML as SITE
from built import NARROW
from specctrl.model.vmm.policies import GUESTS, POLICIES
from specctrl.site.playground import start

QUICK = {
    "Force BHI_DIS_S": "ret=0",
    "Create vCPU 0": "ret=0",
    "Offer the virtual MSRs": "ret=2",
    "Guest writes IBRS": "success",
    "Guest reads it": "value=0x1",
    "Guest reports the short sequence": "success",
    "Enter L2": "success",
    "Leave L2": "stored=[]",
    "VM exit to the host": "host_spec_ctrl=0x401",
    "INIT": "blocked=true",  # L1 is in VMX operation
    "Move to Ice Lake": "errno=EINVAL",  # where BHI_DIS_S cannot be forced
    "Move to Sapphire Rapids": "success",
}
"""The quick buttons in their order, with what each shows when they are pressed so."""
CLICK = """name => new Promise(done => {
  const button = [...document.querySelectorAll(".play-form button")].find(one => one.textContent === name);
  const started = performance.now();
  new MutationObserver((_, observer) => { observer.disconnect(); done(performance.now() - started); })
    .observe(document.querySelector(".play-history"), {childList: true});
  button.click();
})"""
CELLS = len(GUESTS) * len(POLICIES)
"""The cells of one move, as the page of policies shows it."""
FORCED = ["Force BHI_DIS_S", "Create vCPU 0", "Guest writes IBRS"]


@pytest.fixture(scope="module")
def window(browser: Any) -> Iterator[Any]:
    """One window for all tests: what it loaded and compiled for one of them it has for the next."""
    context = browser.new_context(viewport={"width": NARROW, "height": 900}, accept_downloads=True)
    context.set_default_timeout(180_000)  # two share a loaded machine
    yield context
    context.close()


@pytest.fixture
def play(window: Any, site: str) -> Iterator[Any]:
    page = window.new_page()
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))

    def asks(request: Any) -> None:
        asked.append(request.url)

    window.on("request", asks)
    yield page
    page.close()
    window.remove_listener("request", asks)
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
    play.locator(".play-history > li").first.locator(".play-others summary").click()
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


def test_each_quick_button_does_what_it_says(play: Any, site: str, tell: Callable[[str], None]) -> None:
    begin(play, f"{site}/spec/playground.html")
    buttons = play.get_by_role("group", name="Common steps").get_by_role("button")
    assert buttons.all_inner_texts() == list(QUICK)
    took = []
    for number, (name, shows) in enumerate(QUICK.items(), 1):
        took.append(play.evaluate(CLICK, name))
        newest_step = play.locator(".play-history > li").first
        assert newest_step.evaluate("one => one.value") == number, play.locator(".play-state").inner_text()
        assert newest_step.locator(".play-seen").first.inner_text() == f"⇒ {shows}", name
    # What the page shows is what the emulator does here.
    _, _, encoded = play.url.partition("#h=")
    history = json.loads(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
    native = start(**history)["rows"]
    assert len(native) == len(QUICK)
    assert newest(play, "effective").split()[0] == native[-1]["vcpus"]["0"]["effective"]
    assert newest(play, "saved").split()[0] == native[-1]["vcpus"]["0"]["saved"]
    tell(f"a step of the playground: {sorted(took)[len(took) // 2]:.0f} ms, {max(took):.0f} ms at most")


def test_each_register_is_explained_where_it_is_shown(play: Any, site: str) -> None:
    begin(play, f"{site}/spec/playground.html")
    play.get_by_role("button", name="Create vCPU 0").click()
    step = play.locator(".play-history > li").first
    step.wait_for()
    heads = step.locator("tbody th")
    told = heads.evaluate_all("all => all.map(one => [one.textContent, one.title])")
    assert {name for name, _ in told} > {"effective", "register", "guest view", "mask", "shadow", "saved"}
    assert [name for name, title in told if len(title) < 20] == []
    play.get_by_text("What each register is").click()
    links = play.locator(".play-legend a")
    assert set(links.all_inner_texts()) == {name for name, _ in told}
    for address in links.evaluate_all("all => all.map(one => one.href)"):
        page, _, fragment = address.removeprefix(f"{site}/").partition("#")
        assert f'id="{fragment}"' in (SITE / page).read_text("utf-8"), address


def test_the_code_that_changed_something_stands_before_the_rest(play: Any, site: str) -> None:
    begin(play, f"{site}/spec/playground.html")
    for number, name in enumerate(["Create vCPU 0", "Guest writes IBRS", "Guest reads it"], 1):
        play.get_by_role("button", name=name, exact=True).click()
        play.locator(".play-history > li").nth(number - 1).wait_for()
    read, wrote = play.locator(".play-history > li").nth(0), play.locator(".play-history > li").nth(1)
    assert not wrote.locator(".play-code").is_visible(), "only the newest step stands open"
    wrote.locator("summary").first.click()
    changed = wrote.locator(".play-code > li").all_inner_texts()
    (line,) = [text for text in changed if text.startswith("VcpuMsrs.write_spec_ctrl changed guest_view")]
    assert "access.emulated.view-and-saved" in line
    shown = set(wrote.locator(".play-code a").all_inner_texts())
    others = set(wrote.locator(".play-others a").all_text_contents())
    assert shown
    assert not shown & others
    assert not wrote.locator(".play-others a").first.is_visible(), "folded"
    assert f"{len(others)} more rules" in wrote.locator(".play-others summary").inner_text()
    assert read.locator(".play-code").count() == 0
    assert "no field of a vCPU or the VM changed" in read.locator(".play-others summary").inner_text()


def test_a_cell_of_the_comparison_opens_its_history(play: Any, site: str) -> None:
    play.goto(f"{site}/spec/policies.html")
    links = play.locator("td.spec-result a")
    assert links.count() == CELLS
    for address in links.evaluate_all("all => all.map(one => one.getAttribute('href'))"):
        page, _, query = address.partition("?")
        asked = dict(part.split("=") for part in query.split("&"))
        assert page == "playground.html"
        assert asked["cell"] in json.loads((SITE / "policies" / f"{asked['policy']}.json").read_text("utf-8"))
    chosen = links.filter(has_text="pays twice").first
    query = chosen.get_attribute("href").partition("?")[2]
    asked = dict(part.split("=") for part in query.split("&"))
    chosen.click()
    play.wait_for_url("**/spec/playground.html?*")
    play.get_by_role("button", name="Load and begin").click()
    play.locator(".play-form").wait_for()
    scenario = json.loads((SITE / "policies" / f"{asked['policy']}.json").read_text("utf-8"))[asked["cell"]]
    assert play.locator(".play-history > li").count() == len(scenario["steps"])
    steps = play.locator(".play-history > li .play-step").all_inner_texts()
    assert [text.split()[0] for text in reversed(steps)] == [step["op"] for step in scenario["steps"]]
    assert play.locator(".play-state").inner_text().startswith(f"Step {len(scenario['steps'])}: ")


D1 = {"host": "sapphire-rapids", "variant": "rfc-v3", "assume": {}, "steps": [
    {"op": "create_vcpu"},
    {"op": "set_msrs", "msrs": [["MSR_VIRTUAL_ENUMERATION", "0x1"], ["MSR_VIRTUAL_MITIGATION_ENUM", "0x3"]]},
    {"op": "wrmsr", "msr": "IA32_SPEC_CTRL", "value": "0x1"},
    {"op": "wrmsr", "msr": "MSR_VIRTUAL_MITIGATION_CTRL", "value": "0x1"},
    {"op": "wrmsr", "msr": "IA32_SPEC_CTRL", "value": "0x1"},
    {"op": "exit"},
]}


def shared(history: dict[str, Any]) -> str:
    """The part of an address that holds a history."""
    return "#h=" + base64.urlsafe_b64encode(json.dumps(history).encode()).decode().rstrip("=")


def test_a_defect_is_named_with_what_the_specification_shows(play: Any, site: str) -> None:
    play.goto(f"{site}/spec/playground.html{shared(D1)}")
    told = play.locator(".play-preview li").all_inner_texts()
    assert [text.split()[0] for text in told] == [step["op"] for step in D1["steps"]], "before anything is loaded"
    play.get_by_role("button", name="Load and begin").click()
    play.locator(".play-form").wait_for()
    last = play.locator(".play-history > li").first
    violated = last.locator(".play-violated").all_inner_texts()
    assert any(text.startswith("✗ violates host_value_after_exit: After every VM exit") for text in violated)
    assert last.locator(".play-violated a").first.get_attribute("href").startswith("defects.html#found-d")
    assert "under spec ⇒ host_spec_ctrl=0x401" in last.inner_text()
    assert "violates" in play.locator(".play-state").inner_text()
    wrong = play.locator(".play-history > li").nth(1).locator(".play-wrong")
    assert wrong.count() > 0
    # Under the specification nothing is violated.
    play.get_by_label("Interface").select_option("spec")
    play.locator(".play-violated").first.wait_for(state="detached")
    assert play.locator(".play-wrong").count() == 0


def test_steps_come_back_and_starting_over_asks(play: Any, site: str) -> None:
    begin(play, f"{site}/spec/playground.html")
    for number, step in enumerate(FORCED, 1):
        play.get_by_role("button", name=step, exact=True).click()
        play.locator(".play-history > li").nth(number - 1).wait_for()
        said = play.locator(".play-state")
        assert said.inner_text().startswith(f"Step {number}: ")
        box = said.bounding_box()
        assert 0 <= box["y"] < 900 - 10, "the newest step is in sight"
    address = play.url
    for left in (2, 1):
        play.get_by_role("button", name="Undo").click()
        play.locator(".play-history > li").nth(left).wait_for(state="detached")
    for number in (2, 3):
        play.get_by_role("button", name="Redo").click()
        play.locator(".play-history > li").nth(number - 1).wait_for()
    assert play.url == address
    assert play.get_by_role("button", name="Redo").is_disabled()
    play.get_by_role("button", name="Start over").click()
    play.get_by_role("button", name="Keep").click()
    assert play.locator(".play-history > li").count() == 3
    play.get_by_role("button", name="Start over").click()
    play.get_by_role("button", name="Erase").click()
    play.locator(".play-history > li").first.wait_for(state="detached")


def test_numbers_are_read_as_manuals_write_them(play: Any, site: str) -> None:
    begin(play, f"{site}/spec/playground.html")
    play.get_by_role("button", name="Create vCPU 0").click()
    play.get_by_label("operation", exact=True).select_option("wrmsr")
    for number, (msr, value, says) in enumerate([
        ("48H", "0b1", "wrmsr msr=0x48 value=0x1"), ("0x48", "401", "decimal 401, that is 0x191")], 2):
        play.get_by_label("msr", exact=True).fill(msr)
        play.get_by_label("value", exact=True).fill(value)
        play.get_by_role("button", name="Perform").click()
        play.locator(".play-history > li").nth(number - 1).wait_for()
        assert says in play.locator(".play-state").inner_text()


def test_an_address_of_no_cell_says_so(play: Any, site: str) -> None:
    play.goto(f"{site}/spec/playground.html?cell=no-such-cell&policy=P1")
    play.get_by_role("button", name="Load and begin").click()
    play.get_by_role("alert").wait_for()
    assert "there is no scenario no-such-cell" in play.get_by_role("alert").inner_text()
    play.get_by_role("button", name="Begin with an empty history").click()
    play.locator(".play-form").wait_for()


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
    assert play.locator(".play-state").inner_text().startswith(f"Step {len(steps)}: ")
    assert play.locator(".play-history .play-met").count() == sum("expect" in step for step in steps)


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
