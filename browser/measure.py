"""How pages read: words that are seen, how much of their height is prose, and their bytes.

``python browser/measure.py`` prints every page of the book; with ``nested`` that page alone, and its parts.
"""

import sys
from typing import Any

from built import CHROMIUM, HTML, QUIET, WIDE, pages, serving

MEASURE = """() => {
  const article = document.querySelector("article");
  const text = article.cloneNode(false);
  const classOf = (e) => {
    if (e.matches("h1, h2, h3, h4, h5")) return "heading";
    if (e.matches(".spec-statement")) return "rule";
    if (e.matches("details, .status-banner, .spec-moved, .spec-permalink")) return "fold";
    if (e.matches("p, ul, ol, dl, blockquote, .admonition, .spec-sentence")) return "prose";
    if (e.matches(".spec-source, .spec-example, .cell, [class*='highlight-']")) return "code";
    if (e.matches("table, .table-wrapper, .spec-scroll, .spec-scenario")) return "table";
    if (e.matches("figure, .spec-layout, svg, .text_html")) return "figure";
    return "";
  };
  // A cell whose code is folded is what it shows.
  const finer = (e, what) => what === "code" && e.matches(".cell") && e.querySelector(":scope > details.hide")
    ? (e.querySelector("figure, svg") ? "figure" : e.querySelector("table") ? "table" : "code") : what;
  const heights = {};
  const add = (what, height) => { heights[what] = (heights[what] ?? 0) + height; };
  const walk = (box) => {
    for (const e of box.children) {
      const rect = e.getBoundingClientRect();
      if (!rect.height || getComputedStyle(e).position === "absolute") continue;
      const what = classOf(e);
      if (what === "rule") {
        // Of a rule only its own sentences are prose.
        const tops = [...e.children].filter(one => one.matches("p, ul, ol, dl, .math, .spec-statement-text")
          && !one.matches(".spec-statement-head, .spec-statement-foot, .spec-kinds"));
        const told = tops.reduce((sum, one) => sum + one.getBoundingClientRect().height, 0);
        add("prose", told);
        add("rule", rect.height - told);
      } else if (what) add(finer(e, what), rect.height);
      else walk(e);
    }
  };
  walk(article);
  const total = Object.values(heights).reduce((sum, one) => sum + one, 0);
  return {
    words: article.innerText.split(/\\s+/).filter(Boolean).length,
    height: Math.round(article.getBoundingClientRect().height),
    parts: Object.fromEntries(Object.entries(heights).map(([what, height]) =>
      [what, Math.round(1000 * height / total) / 10])),
  };
}"""


def is_book(path: str) -> bool:
    """Whether a page is one to read: not an index, not the reference of the package."""
    return path == "index.html" or (path.startswith("spec/") and path.count("/") == 1)


def book() -> list[str]:
    """The pages that are read; a page that only leads on is none, nor is the table of licences."""
    return [path for path in pages() if is_book(path) and path != "spec/licences.html"
            and "<article" in (HTML / path).read_text("utf-8")]


def measure(page: Any, path: str) -> dict[str, Any]:
    """The figures of a page that is open: words, prose in per cent of the height of all that stands there, bytes."""
    found: dict[str, Any] = page.evaluate(MEASURE)
    found["prose"] = found["parts"].get("prose", 0.0)
    found["bytes"] = (HTML / path).stat().st_size
    return found


def line(path: str, found: dict[str, Any]) -> str:
    """One row of the table."""
    return f"{path:32}{found['words']:7}{found['prose']:8.1f} %{found['bytes']:9}{found['height']:8}"


HEAD = f"{'page':32}{'words':>7}{'prose':>10}{'bytes':>9}{'height':>8}"


def main(asked: list[str]) -> None:
    """Print the table for some pages, or for all."""
    from playwright.sync_api import sync_playwright

    wanted = [path for path in book() if not asked or path.rpartition("/")[2].removesuffix(".html") in asked]
    with sync_playwright() as running, serving() as site:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        page = browser.new_page(viewport={"width": WIDE, "height": 900})
        print(HEAD)
        for path in wanted:
            page.goto(f"{site}/{path}")
            found = measure(page, path)
            print(line(path, found))
            if asked:
                for what, share in sorted(found["parts"].items(), key=lambda part: -part[1]):
                    print(f"    {what:10}{share:5.1f} %")
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1:])
