"""The directive ``policy-cells``: what it puts into the page, and beside the pages."""

from pathlib import Path

import pytest

from site_builder import API, TOY, Site
from specctrl.exploration.policies import compare
from specctrl.exploration.policy_files import files

CELLS = "# Policies\n\n```{policy-cells}\n```\n"
SHOWN = '# Results\n\n```{raw} html\n<table class="spec-results"></table>\n```\n'


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "toy.py").write_text(TOY)
    monkeypatch.syspath_prepend(tmp_path / "lib")
    return Site(tmp_path / "site", {"spec/api": API})


def test_the_files_stand_beside_the_pages_and_the_page_leads_to_each(site: Site) -> None:
    site.pages["spec/policies"] = CELLS
    assert site.build() == []
    page = site.page("spec/policies")
    for path, text in files(compare()).items():
        assert (site.html / path).read_text("utf-8") == text
        assert f'href="../{path}"' in page
    assert 'data-table="../policies.json"' in page


def test_script_and_style_are_where_they_are_needed_and_nowhere_else(site: Site) -> None:
    site.pages |= {"spec/policies": CELLS, "spec/results": SHOWN}
    assert site.build() == []
    assert "policies.js" in site.page("spec/policies")
    assert "policies.css" in site.page("spec/policies")
    assert "policies.css" in site.page("spec/results")
    assert "policies.js" not in site.page("spec/results")
    assert "policies.css" not in site.page("spec/api")


def test_without_the_directive_nothing_is_written(site: Site) -> None:
    site.pages["spec/results"] = SHOWN
    assert site.build() == []
    assert not (site.html / "policies.json").exists()


@pytest.mark.parametrize("there", [True, False])
def test_it_leads_to_the_playground_if_there_is_one(site: Site, there: bool) -> None:
    site.pages["spec/policies"] = CELLS
    if there:
        site.pages["spec/playground"] = "# Playground\n"
    assert site.build() == []
    assert ('data-playground="../spec/playground.html"' in site.page("spec/policies")) is there
