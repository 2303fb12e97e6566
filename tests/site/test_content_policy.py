"""The content security policy as the build writes it; browser/test_policy.py tries what it forbids."""

import re
from html import unescape
from pathlib import Path

import pytest

from site_builder import Site
from specctrl.site.content_policy import digest, policy, without_styles
from specctrl.site.drawings import COLUMNS

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path, {"spec/toy": "# Toy\n\n```{index} ! keepsake\n```\n\nA text.\n"})


def policies(page: str) -> dict[str, list[str]]:
    """What a page's policy allows, by kind."""
    (content,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    return {kind: allowed for kind, *allowed in (part.split() for part in unescape(content).split("; "))}


class TestThePages:
    def test_each_has_one_before_what_it_governs(self, site: Site) -> None:
        site.build()
        for name in ("index", "spec/toy", "search", "genindex"):
            page = site.page(name)
            assert page.index("Content-Security-Policy") < page.index('<link rel="stylesheet"')

    def test_none_has_a_style_in_an_attribute(self, site: Site) -> None:
        site.settings["html_theme"] = "furo"
        assert site.build() == []
        pages = [path.read_text("utf-8") for path in site.html.rglob("*.html")]
        assert len(pages) >= 4
        for page in pages:
            assert re.findall(r"<[a-z][^<>]* style=", page) == []

    def test_what_a_template_puts_in_is_named_by_its_digest_and_nothing_else_is(self, site: Site) -> None:
        site.settings["html_theme"] = "furo"
        site.build()
        page = site.page("spec/toy")
        allowed = policies(page)
        (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
        assert allowed["style-src"] == ["'self'", digest(style)]
        for script in re.findall(r"<script>(.*?)</script>", page, re.DOTALL):
            assert digest(script) in allowed["script-src"]
        assert not {"'unsafe-inline'", "'unsafe-eval'"} & {word for words in allowed.values() for word in words}

    def test_a_site_that_reloads_itself_has_none(self, site: Site) -> None:
        site.settings["page_policy"] = False
        site.build()
        assert "Content-Security-Policy" not in site.page("spec/toy")


class TestTheParts:
    def test_a_worker_is_started_from_nothing_but_a_blob_and_asks_nobody_else(self) -> None:
        said = policy("").split("; ")
        assert "worker-src blob:" in said
        assert "connect-src 'self'" in said

    def test_an_icon_stays_as_it_was(self) -> None:
        icon = '<svg xmlns="x" style="display: none;"><line style="opacity: 50%" x1="1"></line></svg>'
        assert without_styles(icon) == '<svg xmlns="x" display="none"><line opacity="0.5" x1="1"></line></svg>'

    def test_the_style_sheet_has_a_class_for_each_number_of_steps(self) -> None:
        css = (PROJECT / "spec" / "_static" / "spec.css").read_text("utf-8")
        assert re.findall(r"\.steps-(\d+) \{ --steps: (\d+); \}", css) == [
            (str(count), str(count)) for count in range(1, COLUMNS + 1)]

    def test_no_script_of_the_site_takes_text_for_html(self) -> None:
        for script in (PROJECT / "spec" / "_static").glob("*.*js"):
            text = script.read_text("utf-8")
            assert not re.search(r"(inner|outer)HTML\s*\+?=|insertAdjacentHTML|document\.write|\.cssText", text), script
