"""What a reader does: by keyboard, by searching, on paper, from a folder."""

import json
from typing import Any

import pytest

from built import HTML, NARROW, WIDE

RULES = json.loads((HTML / "rules.json").read_text("utf-8"))["rules"] if HTML.is_dir() else []
REGISTERS = json.loads((HTML / "_static" / "registers.json").read_text("utf-8")) if HTML.is_dir() else {}

SEARCH = """words => words.map(word => Search._performSearch(...Search._parseQuery(word))
    .map(([page, title, anchor]) => page + ".html" + anchor).reverse())"""


def found_by(view: Any, words: list[str]) -> list[list[str]]:
    """What the search page finds for each of these, best first."""
    page = view("search.html")
    page.wait_for_function("() => typeof Search === 'object' && Search.hasIndex()")
    answers: list[list[str]] = page.evaluate(SEARCH, words)
    return answers


def test_the_search_finds_each_rule_first(view: Any) -> None:
    assert len(RULES) > 100
    answers = found_by(view, [rule["id"] for rule in RULES])
    assert {rule["id"]: answer[:1] for rule, answer in zip(RULES, answers, strict=True)} == {
        rule["id"]: [rule["url"]] for rule in RULES
    }


def test_the_search_finds_each_field_of_a_register(view: Any) -> None:
    fields = [(name, field["name"]) for name, one in REGISTERS["registers"].items() for field in one["fields"]]
    assert len(fields) > 20
    answers = found_by(view, [field for _, field in fields])
    assert [
        field for field, answer in zip(fields, answers, strict=True)
        if not any(url.endswith("#field-{}-{}".format(*field)) for url in answer)
    ] == []


def test_the_search_finds_each_rule_by_its_sentence(view: Any) -> None:
    answers = found_by(view, [" ".join(rule["text"].split()) for rule in RULES])
    assert [rule["id"] for rule, answer in zip(RULES, answers, strict=True) if rule["url"] not in answer[:3]] == []


def test_some_words_of_a_sentence_are_enough(view: Any) -> None:
    (answer,) = found_by(view, ["merge mask refuses"])
    assert "spec/capability.html#rule-cap.vcpu.tried-on-host" in answer[:5]


def test_the_search_finds_each_register_by_its_number_in_either_spelling(view: Any) -> None:
    asked = [(name, spelling) for name, one in REGISTERS["registers"].items() for spelling in one["spellings"]]
    assert {("IA32_SPEC_CTRL", "0x48"), ("IA32_SPEC_CTRL", "48H")} <= set(asked)
    answers = found_by(view, [spelling for _, spelling in asked])
    assert [
        one for one, answer in zip(asked, answers, strict=True)
        if not any(url.endswith(f"#register-{one[0]}") for url in answer[:5])
    ] == []


def test_a_slash_and_a_word_lead_to_a_rule(view: Any) -> None:
    page = view("spec/problem.html")
    page.keyboard.press("/")
    assert page.evaluate("() => document.activeElement.name") == "q"
    page.keyboard.type("force.mask-follows")
    page.keyboard.press("Enter")
    first = page.locator("#search-results ul.search a").first
    first.focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/spec/entry-exit.html*#rule-force.mask-follows")
    page.wait_for_function("() => document.getElementById('rule-force.mask-follows').getBoundingClientRect().y < 900")


@pytest.mark.parametrize(
    ("asked", "first", "says"),
    [
        ("errno", "spec/capability.html#index-0", "has the same errno, so userspace cannot tell them apart"),
        ("EINVAL", "spec/capability.html#index-0", "EINVAL · flags is not 0"),
        ("BHI_DIS_S", "spec/glossary.html#term-BHI_DIS_S", "Bit 10 of IA32_SPEC_CTRL"),
        ("nested write 0", "spec/nested.html#nested-write-zero", "it stays 1 while L2 runs"),
        ("write nested 0", "spec/nested.html#nested-write-zero", "it stays 1 while L2 runs"),
        ("playground", "spec/playground.html", "Here a history is performed step by step"),
    ],
)
def test_the_search_leads_to_the_passage_and_shows_it(view: Any, asked: str, first: str, says: str) -> None:
    page = view(f"search.html?q={asked}")
    page.wait_for_function("() => document.querySelector('.search-summary')?.textContent")
    found = page.locator("#search-results li", has=page.locator(f"a[href='{first}']")).first
    found.locator("p.context").wait_for()
    assert says in found.locator("p.context").inner_text()
    assert page.locator("#search-results li > a:first-child").first.get_attribute("href") == first


@pytest.mark.parametrize("asked", ["KVM", "mainline", "interface", "processor", "RFC", "report", "D18"])
def test_an_excerpt_has_what_was_searched_for_and_nothing_that_stands_on_each_page(view: Any, asked: str) -> None:
    page = view(f"search.html?q={asked}")
    page.wait_for_function("""() => document.querySelector('.search-summary')?.textContent && [...document
        .querySelectorAll('#search-results li.kind-text')].every(one => one.querySelector('p.context'))""")
    told = page.locator("#search-results li.kind-text p.context").all_inner_texts()
    assert len(told) > 3
    assert [text for text in told if "Written against RFC" in text or "cannot detect this interface" in text] == []
    assert [text for text in told if len(text) > 400] == []
    words = [text for text in told if asked.lower() in text.lower()]
    assert len(words) > len(told) / 2, "a word may be found in another form, or in code that is left out"


def test_an_excerpt_names_its_section_and_leads_there(view: Any, site: str) -> None:
    page = view("search.html?q=restorable")
    link = page.locator("#search-results li.kind-text .spec-found-in").first
    link.wait_for()
    name = link.inner_text()
    link.click()
    page.wait_for_url("**/spec/*.html*#*")
    heading = page.evaluate("() => document.querySelector(':target').querySelector('h2, h3, h4').textContent")
    assert heading.startswith(name)


FOCUSED = """() => {
  const e = document.activeElement, box = e.getBoundingClientRect(), style = getComputedStyle(e);
  const marked = (style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0) || style.boxShadow !== 'none';
  const shown = box.width > 1 && box.height > 1 && box.right > 0 && box.left < innerWidth && box.bottom > 0
    && box.top < innerHeight && style.visibility === 'visible' && parseFloat(style.opacity) > 0.5;
  return {what: e.outerHTML.slice(0, 120), body: e === document.body, marked, shown};
}"""


def test_the_first_stop_skips_to_the_text(view: Any) -> None:
    page = view("spec/nested.html")
    page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.textContent.trim()") == "Skip to content"
    page.wait_for_timeout(400)  # it slides in
    assert page.evaluate(FOCUSED)["shown"]
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("() => !!document.activeElement.closest('article')")


@pytest.mark.parametrize("chapter", ["index.html", "spec/capability.html", "spec/rules.html", "spec/api/vcpu.html"])
def test_each_stop_of_the_tab_key_is_seen(view: Any, chapter: str) -> None:
    page = view(chapter)
    page.keyboard.press("Tab")
    for _ in range(60):
        page.keyboard.press("Tab")
        for _ in range(20):  # it may have to be scrolled to, or to fade in
            stop = page.evaluate(FOCUSED)
            if stop["shown"]:
                break
            page.wait_for_timeout(50)
        assert stop["body"] or (stop["marked"] and stop["shown"]), stop


def test_the_filter_of_the_rules_opens_the_areas_that_have_some(view: Any) -> None:
    page = view("spec/rules.html")
    areas, rows = page.locator("details.spec-area"), page.locator(".spec-area tbody tr:visible")
    everything = areas.count()
    assert (everything > 15, rows.count()) == (True, 0)
    page.get_by_label("Only rules with").fill("INIT pending smm")
    assert 0 < areas.filter(visible=True).count() < everything
    found = [row.lower() for row in rows.all_inner_texts()]
    assert found
    assert all(word in row for row in found for word in ("init", "pending", "smm"))
    assert page.locator("output").inner_text().startswith(f"{len(found)} of ")
    page.get_by_label("Only rules with").fill("")
    assert (areas.filter(visible=True).count(), rows.count()) == (everything, 0)
    page.get_by_role("button", name="Open all").click()
    assert page.locator("output").inner_text() == f"{rows.count()} of {rows.count()}"


@pytest.mark.parametrize("word", ["0x401", "processor"])
def test_what_was_searched_for_is_marked_on_a_page_with_pictures(browser: Any, site: str, word: str) -> None:
    page = browser.new_page()
    said: list[str] = []
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(f"{site}/spec/defects.html?highlight={word}")
    page.wait_for_function("() => document.querySelectorAll('.highlighted').length > 20")
    assert said == []
    page.close()


@pytest.mark.parametrize("width", [1400, WIDE, 700, NARROW])
def test_the_way_to_the_top_covers_no_text(browser: Any, site: str, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 400})  # lower than the contents
    page.goto(f"{site}/spec/nested.html")
    page.evaluate("scrollTo({top: 3000, behavior: 'instant'})")
    page.wait_for_timeout(100)
    page.evaluate("scrollTo({top: 2800, behavior: 'instant'})")  # it is shown on the way up
    page.wait_for_function("() => document.documentElement.classList.contains('show-back-to-top')")
    button = page.locator(".back-to-top")
    assert button.is_visible() is (width > 1312)
    if button.is_visible():
        left = button.bounding_box()["x"]
        assert left > page.evaluate("() => document.querySelector('article').getBoundingClientRect().right")
        page.evaluate("() => document.querySelector('.toc-scroll').scrollTo({top: 1e6, behavior: 'instant'})")
        last = page.locator(".toc-tree a").last.bounding_box()
        assert last["y"] + last["height"] <= button.bounding_box()["y"]
    page.close()


def test_a_listing_scrolls_by_keyboard(view: Any) -> None:
    page = view("spec/entry-exit.html", width=NARROW)
    code = page.locator(".spec-source pre[tabindex]:visible").first
    code.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => document.activeElement.scrollLeft > 0")


def test_on_paper_the_text_stands_alone(view: Any) -> None:
    page = view("spec/entry-exit.html")
    page.emulate_media(media="print")
    for part in (".sidebar-drawer", ".toc-drawer", ".related-pages", ".headerlink"):
        assert not page.locator(part).first.is_visible(), part
    assert page.locator(".spec-statement").first.is_visible()
    assert len(page.pdf()) > 10_000


def test_on_paper_folds_stay_closed_and_say_what_they_hold(view: Any) -> None:
    page = view("spec/entry-exit.html")
    page.emulate_media(media="print")
    fold = page.locator("details.spec-fold").first
    assert fold.locator("summary").is_visible()
    assert not fold.locator("p").first.is_visible()
    assert not page.locator("details.hide > summary").first.is_visible()


def test_a_folder_needs_no_server(browser: Any) -> None:
    context = browser.new_context()
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.goto((HTML / "spec" / "nested.html").as_uri())
    assert page.evaluate("() => getComputedStyle(document.querySelector('.spec-statement')).borderLeftWidth") == "3px"
    assert page.evaluate("() => document.body.dataset.theme") == "auto"
    # Chromium loads no module from a folder: there the page is read, and has no buttons.
    assert [text for text in said if ".mjs" not in text and "ERR_FAILED" not in text] == []
    context.close()
