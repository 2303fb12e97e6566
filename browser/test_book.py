"""What makes a long page easy to read: its contents are seen, rules are quiet."""

from typing import Any

import pytest

from built import NARROW, WIDE

FINGER = 32
"""Pixels: as much as a finger needs, in height."""
SMALL = f"""() => [...document.querySelectorAll("button, summary, input, select")].filter((e) => {{
  const box = e.getBoundingClientRect();
  return box.width > 1 && box.height > 0 && box.height < {FINGER} && getComputedStyle(e).visibility === "visible"
    && parseFloat(getComputedStyle(e).opacity) > 0;
}}).map((e) => e.outerHTML.slice(0, 100))"""


@pytest.mark.parametrize("width", [WIDE, 1400])
def test_the_contents_of_the_page_stand_beside_it(browser: Any, site: str, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.goto(f"{site}/spec/nested.html")
    contents = page.locator(".toc-tree a").nth(1).bounding_box()
    text = page.locator("article").bounding_box()
    assert contents["x"] >= text["x"] + text["width"]
    assert contents["x"] + contents["width"] <= width
    page.close()


def test_a_rule_is_its_sentence_and_one_quiet_line(view: Any) -> None:
    page = view("spec/entry-exit.html")
    heights = page.evaluate("""() => [...document.querySelectorAll(".spec-statement")].map((rule) => {
      const told = [...rule.children].filter((e) => !e.matches(".spec-statement-head, details"));
      return [rule.id, rule.getBoundingClientRect().height, told.reduce((sum, e) => sum + e.offsetHeight, 0)];
    })""")
    assert len(heights) > 10
    assert [(id, high, told) for id, high, told in heights if high > told + 40] == []


def test_a_link_to_what_is_folded_opens_it(view: Any) -> None:
    page = view("spec/entry-exit.html")
    rule = page.locator(".spec-statement").first
    assert not rule.locator("details p").first.is_visible()
    rule.locator("summary").click()
    assert "Source: " in rule.locator("details p").first.inner_text()
    link = rule.locator("details a[href*='?scenario=']").first.get_attribute("href")
    assert (link or "").startswith("playground.html?scenario=")


@pytest.mark.parametrize("chapter", ["index.html", "spec/entry-exit.html", "spec/rules.html"])
def test_what_is_touched_is_as_high_as_a_finger(view: Any, chapter: str) -> None:
    page = view(chapter, width=NARROW)
    assert page.evaluate(SMALL) == []
