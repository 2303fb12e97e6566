"""The directives: what they show, and what each mistake says."""

import json
import re
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from site_builder import API, NOTEBOOK, RULE, SCENARIO, TOY, Site
from specctrl.evidence.collect import EvidenceError, Example, Shown
from specctrl.evidence.records import Evidence
from specctrl.rules import load_rules
from specctrl.targets.c_reference import register_header, text_hash


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "toy.py").write_text(TOY)
    monkeypatch.syspath_prepend(tmp_path / "lib")
    monkeypatch.delitem(sys.modules, "toy", raising=False)
    return Site(tmp_path / "site", {"spec/api": API})


def source(name: str, *flags: str) -> str:
    return "\n".join([f"```{{source}} {name}", *(f":{flag}:" for flag in flags), "```", ""])


ALL_SHOWN = "# Toy\n\n" + source("toy.merge") + source("toy.Record")


class TestRule:
    def test_it_shows_id_status_sentence_source_and_code(self, site: Site) -> None:
        site.pages |= {"spec/toy": "# Toy\n\n" + RULE + source("toy.merge")}
        assert site.build() == []
        page = site.page("spec/toy")
        assert 'id="rule-toy.merge.keeps"' in page
        assert 'href="#rule-toy.merge.keeps"' in page
        assert '<span class="spec-badge spec-status-posted">posted</span>' in page
        assert "A write MUST keep the <code" in page
        assert "Source: v3 p1, #GP · mechanism · Code: <a" in page
        assert 'href="#source-toy.merge"' in page

    def test_its_code_links_to_the_api_entry_when_no_page_shows_it(self, site: Site) -> None:
        site.pages |= {"spec/toy": "# Toy\n\n" + RULE}
        assert site.build() == []
        assert 'href="api.html#toy.merge"' in site.page("spec/toy")

    def test_it_is_written_to_rules_json(self, site: Site) -> None:
        site.pages |= {"spec/toy": "# Toy\n\n" + RULE + source("toy.merge")}
        site.build()
        assert json.loads((site.html / "rules.json").read_text()) == {
            "schema": "specctrl/rules/1",
            "rules": [
                {
                    "id": "toy.merge.keeps",
                    "status": "posted",
                    "source": "v3 p1, #GP",
                    "defect": "",
                    "layer": "mechanism",
                    "code": ["toy.merge"],
                    "text": "A write MUST keep the `mask`.",
                    "evidence": asdict(Shown()),
                    "url": "spec/toy.html#rule-toy.merge.keeps",
                }
            ],
        }

    def test_the_search_index_and_the_role_know_it(self, site: Site) -> None:
        site.pages |= {
            "spec/toy": "# Toy\n\n" + RULE + source("toy.merge"),
            "spec/other": "# Other\n\nSee {rule}`toy.merge.keeps` and {rule}`that one <toy.merge.keeps>`.\n",
        }
        assert site.build() == []
        assert site.page("spec/other").count('href="toy.html#rule-toy.merge.keeps"') == 2
        assert '"keeps"' in (site.html / "searchindex.js").read_text()

    def test_the_rules_stand_by_area(self, site: Site) -> None:
        other = RULE.replace("toy.merge.keeps", "area.two.here").replace(":status: posted", ":status: hardware")
        site.pages |= {
            "spec/a": "# A\n\n```{rules}\n```\n",
            "spec/toy": "# Toy\n\n" + RULE + other + source("toy.merge"),
        }
        assert site.build() == []
        page = site.page("spec/a")
        first, second = re.findall(r"<summary>(.*?)</summary>(.*?)</details>", page, re.DOTALL)
        assert (first[0], second[0]) == ("area · 1 rule · Toy", "toy · 1 rule · Toy")
        assert "#rule-area.two.here" in first[1]
        assert "#rule-toy.merge.keeps" in second[1]
        frame = tag_of(page, "spec-scroll")
        for part in ('role="group"', 'tabindex="0"', 'aria-label="Table of the rules: area"'):
            assert part in frame

    @pytest.mark.parametrize(
        ("page", "warning"),
        [
            (
                RULE.replace("posted", "made-up"),
                "spec/toy.md:3: rule 'toy.merge.keeps': unknown status 'made-up'",
            ),
            (RULE.replace("toy.merge\n", "toy.gone\n"), "code 'toy.gone': toy has no 'gone'"),
            (
                RULE + RULE,
                "spec/toy.md:11: WARNING: rule 'toy.merge.keeps' was stated before, at spec/toy.md:3",
            ),
            ("{rule}`toy.no.such`\n", "no rule has the id 'toy.no.such'"),
            (
                RULE.replace("toy.merge\n", "toy._hidden\n"),
                "neither a listing nor an API entry shows 'toy._hidden'",
            ),
        ],
        ids=["bad option", "unknown code", "stated twice", "unknown reference", "code shown nowhere"],
    )
    def test_a_mistake_is_a_warning(self, site: Site, page: str, warning: str) -> None:
        site.pages |= {"spec/toy": "# Toy\n\n" + page}
        (said,) = site.build()
        assert warning in said

    def test_it_belongs_in_a_chapter(self, site: Site) -> None:
        site.pages |= {"index": RULE}
        assert "rules are stated in spec/*.md, not in index.md" in site.build()[0]

    def test_two_pages_cannot_state_one_rule_even_when_read_in_parallel(self, site: Site) -> None:
        fillers = {f"spec/page{number}": f"# Page {number}\n" for number in range(8)}
        site.pages |= {
            "spec/a": "# A\n\n" + RULE + source("toy.merge"),
            **fillers,
            "spec/z": "# Z\n\n" + RULE,
        }
        (warning,) = site.build(jobs=2)
        assert "spec/z.md:3: WARNING: rule 'toy.merge.keeps' was stated before, at spec/a.md:3" in warning

    def test_a_rule_that_went_leaves_the_table_and_the_file(self, site: Site) -> None:
        site.pages |= {
            "spec/toy": "# Toy\n\n" + RULE + source("toy.merge"),
            "spec/all": "# All\n\n```{rules}\n```\n",
        }
        site.build()
        site.pages["spec/toy"] = "# Toy\n\n" + source("toy.merge")
        assert site.build() == []
        assert "No rule." in site.page("spec/all")
        assert json.loads((site.html / "rules.json").read_text())["rules"] == []


def tag_of(html: str, css_class: str) -> str:
    start = html.index(f'class="{css_class}')
    return html[html.rindex("<", 0, start) : html.index(">", start)]


def listing(html: str) -> list[tuple[int, str]]:
    """Read the first listing of a page back: line numbers and text."""
    from html import unescape

    block = html[html.index("<pre tabindex") : html.index("</pre>")]
    lines = unescape(re.sub(r"<(?!span class=\"linenos\")[^>]*>", "", block)).splitlines()
    found = [re.fullmatch(r'<span class="linenos"> *(\d+)(.*)', line) for line in lines]
    return [(int(line[1]), line[2]) for line in found if line]


class TestReference:
    """The build warns of a C reference that is stale."""

    def test_a_function_that_was_reviewed_against_another_text_is_a_warning(self, site: Site) -> None:
        site.pages["spec/toy"] = "# Toy\n\n" + RULE + source("toy.merge")
        site.write("reference/c/specctrl_regs.h", register_header())
        site.write("reference/c/adapter.c", "")
        site.write("reference/c/README.md", "")
        header = "/* rule: toy.merge.keeps */\nstatic int keep(int value)\n"
        site.write("reference/c/specctrl.h", header)
        site.write("reference/c/reviewed.txt", "toy.merge.keeps 00000000\n")
        (warning,) = site.build()
        assert "reference/c/specctrl.h:1: keep: the text of toy.merge.keeps has changed since the review" in warning
        rules = load_rules(site.root / "spec")
        site.write("reference/c/reviewed.txt", f"toy.merge.keeps {text_hash(rules['toy.merge.keeps'])}\n")
        assert site.build() == []
        site.write("reference/c/specctrl.h", header + "/* rule: toy.merge.keeps */\n")
        (warning,) = site.build()
        assert "reference/c/specctrl.h:3: rule toy.merge.keeps stands before no function" in warning


class TestSource:
    def test_it_shows_the_code_without_its_docstring_at_its_true_lines(self, site: Site) -> None:
        site.pages |= {"spec/toy": "# Toy\n\n" + source("toy.merge")}
        assert site.build() == []
        assert listing(site.page("spec/toy")) == [
            (16, "def merge(guest: int, mask: int) -> int:"),
            (22, "    return guest & ~mask"),
        ]

    def test_it_shows_the_docstring_when_asked(self, site: Site) -> None:
        site.pages |= {"spec/toy": "# Toy\n\n" + source("toy.merge", "docstring")}
        site.build()
        assert listing(site.page("spec/toy"))[1] == (17, '    """Keep what the mask leaves.')

    def test_a_head_ends_before_the_first_method(self, site: Site) -> None:
        site.pages |= {"spec/toy": "# Toy\n\n" + source("toy.Record", "head")}
        site.build()
        assert listing(site.page("spec/toy")) == [
            (25, "@dataclass"),
            (26, "class Record:"),
            (29, "    mask: int = 0"),
        ]

    def test_a_property_has_its_decorator_and_loses_its_indentation(self, site: Site) -> None:
        site.pages |= {"spec/toy": "# Toy\n\n" + source("toy.Record.wide")}
        site.build()
        assert listing(site.page("spec/toy"))[:2] == [(31, "@property"), (32, "def wide(self) -> bool:")]

    def test_a_value_has_its_comment(self, site: Site) -> None:
        site.pages |= {"spec/toy": "# Toy\n\n" + source("toy.WIDTH")}
        site.build()
        assert listing(site.page("spec/toy")) == [(8, "#: As wide as a word."), (9, "WIDTH = 64")]

    def test_listing_api_entry_and_rule_link_to_each_other(self, site: Site) -> None:
        site.pages |= {"spec/toy": "# The toy\n\n" + RULE + source("toy.merge")}
        assert site.build() == []
        page, api = site.page("spec/toy"), site.page("spec/api")
        assert 'href="api.html#toy.merge"><code' in page
        assert "lib/toy.py:16" in page
        assert "Carries out <a" in page
        link = '<a href="toy.html#source-toy.merge"><span>The toy</span></a>'
        assert f"Explained in: {link}" in api
        assert 'Rules: <a href="toy.html#rule-toy.merge.keeps"' in api

    def test_a_type_variable_is_no_missing_class(self, site: Site) -> None:
        site.pages |= {"spec/toy": "# Toy\n\n{py:class}`toy.Kind` and {py:class}`toy.Gone`\n"}
        (warning,) = site.build()
        assert "toy.Gone" in warning

    def test_a_class_stands_for_its_methods(self, site: Site) -> None:
        site.pages["spec/toy"], site.settings = ALL_SHOWN, {"source_modules": ["toy"]}
        assert site.build() == []

    def test_all_methods_stand_for_their_class(self, site: Site) -> None:
        shown = source("toy.merge") + source("toy.Record.wide") + source("toy.Record.clear")
        site.pages["spec/toy"], site.settings = "# Toy\n\n" + shown, {"source_modules": ["toy"]}
        assert site.build() == []

    @pytest.mark.parametrize(
        ("shown", "missing"),
        [
            ("", ["toy.merge", "toy.Record", "toy.Record.wide", "toy.Record.clear"]),
            (source("toy.Record"), ["toy.merge"]),
            (source("toy.merge") + source("toy.Record", "head"), ["toy.Record.wide", "toy.Record.clear"]),
            (source("toy.merge") + source("toy.Record.wide"), ["toy.Record", "toy.Record.clear"]),
        ],
    )
    def test_public_code_that_no_page_shows_is_a_warning(self, site: Site, shown: str, missing: list[str]) -> None:
        site.pages["spec/toy"], site.settings = "# Toy\n\n" + shown, {"source_modules": ["toy"]}
        assert [warning.split()[4].rstrip(":") for warning in site.build()] == missing

    @pytest.mark.parametrize(
        ("name", "why"),
        [
            ("toy.gone", "toy has no 'gone'"),
            ("gone.away", "there is no module"),
            ("toy.Record.gone", "toy.Record has no 'gone'"),
        ],
    )
    def test_what_does_not_exist_is_a_warning(self, site: Site, name: str, why: str) -> None:
        site.pages |= {"spec/toy": "# Toy\n\n" + source(name)}
        (warning,) = site.build()
        assert f"spec/toy.md:3: WARNING: source '{name}': {why}" in warning

    def test_a_private_function_may_be_shown(self, site: Site) -> None:
        site.pages |= {"spec/toy": "# Toy\n\n" + source("toy._hidden")}
        assert site.build() == []

    def test_public_code_without_an_api_entry_is_a_warning(self, site: Site) -> None:
        site.pages = {"spec/toy": "# Toy\n\n" + source("toy.merge")}
        (warning,) = site.build()
        assert "'toy.merge' is public, and has no API entry" in warning

    def test_a_module_that_is_not_there_is_a_warning(self, site: Site) -> None:
        site.settings = {"source_modules": ["toy_gone"]}
        (warning,) = site.build()
        assert "source_modules: there is no module 'toy_gone' to show" in warning


class TestLayout:
    def test_it_shows_the_picture_and_every_field(self, site: Site) -> None:
        site.pages |= {"spec/toy": "# Toy\n\n```{layout} IA32_SPEC_CTRL\n```\n"}
        assert site.build() == []
        page = site.page("spec/toy")
        assert '<div class="spec-strip" role="img" aria-label="Bits of IA32_SPEC_CTRL">' in page
        assert 'aria-label="Fields of IA32_SPEC_CTRL"' in page
        assert "BHI_DIS_S" in page

    def test_the_explorer_comes_with_pages_that_show_a_register_only(self, site: Site) -> None:
        site.pages |= {"spec/toy": "# Toy\n\n```{layout} IA32_SPEC_CTRL\n```\n"}
        site.build()
        for page, shows in (("spec/toy", True), ("index", False)):
            html = site.page(page)
            assert ("bits.mjs" in html, "bits.css" in html) == (shows, shows)

    def test_an_unknown_register_is_a_warning(self, site: Site) -> None:
        site.pages |= {"spec/toy": "# Toy\n\n```{layout} CR3\n```\n"}
        (warning,) = site.build()
        assert "spec/toy.md:3: WARNING: no register 'CR3'; known: IA32_SPEC_CTRL" in warning


class TestScenario:
    def test_it_shows_the_steps_and_publishes_the_file(self, site: Site) -> None:
        site.pages |= {"spec/toy": "# Toy\n\n" + RULE + source("toy.merge") + "```{scenario} toy.enable-late\n```\n"}
        assert site.build() == []
        page = site.page("spec/toy")
        assert "It cannot be enabled late" in page
        assert "a vCPU would keep the old mask" in page
        assert "errno=EINVAL" in page
        assert page.count('href="#rule-toy.merge.keeps"') == 3  # its own permalink, the listing's, the scenario's
        assert 'href="../vectors/toy.enable-late.json"' in page
        assert json.loads((site.html / "vectors" / "toy.enable-late.json").read_text()) == SCENARIO

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            (None, "0 files vectors/**/toy.other.json"),
            ("{", "toy.other.json is no scenario"),
            ('{"id": "toy.another"}', "toy.other.json says 'toy.another'"),
            ('{"id": "toy.other"}', "toy.other.json is no scenario: KeyError('host')"),
        ],
    )
    def test_a_file_that_is_not_it_is_a_warning(self, site: Site, text: str | None, why: str) -> None:
        if text is not None:
            site.write("vectors/toy.other.json", text)
        site.pages |= {"spec/toy": "# Toy\n\n```{scenario} toy.other\n```\n"}
        (warning,) = site.build()
        assert f"spec/toy.md:3: WARNING: scenario toy.other: {why}" in warning


class TestTheme:
    def test_captions_have_a_level_and_an_empty_corner_is_no_heading(self, site: Site) -> None:
        site.pages |= {
            "spec/toy": "# Toy\n\n|  | a |\n|--|--|\n| b | c |\n",
            "spec/list": "# List\n\n```{toctree}\n:caption: Inner\n\ntoy\n```\n",
        }
        site.build()
        assert 'role="heading" aria-level="2"><span class="caption-text">Inner' in site.page("spec/list")
        assert site.page("spec/toy").count("<th ") == 1


CELL = "```{code-cell} ipython3\nassert %s\n# rule: toy.merge.keeps\n```\n\n"


@pytest.fixture
def shown(site: Site, monkeypatch: pytest.MonkeyPatch) -> Shown:
    """What shows the rule of a site with evidence."""
    shown = Shown(
        [Example("spec/toy.md", 20, "shows-toy.merge.keeps"), Example("spec/toy.md", 24, "shows-toy.merge.keeps-2")],
        ["toy.enable-late"], ["a_claim"], ["a_property"], idle=["spec/other.md:3"],
        noticed={"mutants": 7, "vectors": 6, "pages": 5, "exploration": 4, "tests": 0})

    def gather(root: Path, *_: object) -> Evidence:
        rules = load_rules(root / "spec")
        return Evidence(rules, dict.fromkeys(rules, shown), {"paths": 3}, {"states": 9})

    monkeypatch.setattr("specctrl.site.evidence.gather", gather)
    monkeypatch.setattr(Evidence, "complaints", lambda _: [])
    site.settings = {"rule_evidence": True}
    return shown


class TestEvidence:
    """What shows a rule stands beneath it, and on the page of rules."""

    def test_each_kind_has_a_label_with_a_link_to_its_place(self, site: Site, shown: Shown) -> None:
        site.pages |= {"spec/toy": NOTEBOOK + "# Toy\n\n" + RULE + source("toy.merge") + CELL % 1 + CELL % 2}
        assert site.build() == []
        page = site.page("spec/toy")
        line = 'posted</span> · proven · explored · 1 scenario · 2 examples</summary>'
        assert line in page
        fold = page.partition(line)[2].partition("</details>")[0]
        for text, place in (
            ("Toy", "#shows-toy.merge.keeps"),
            ("Toy (2)", "#shows-toy.merge.keeps-2"),
            ("It cannot be enabled late", "playground.html?scenario=toy.enable-late"),
            ("a_claim", "claims.html#claim-a_claim"),
            ("a_property", "claims.html#property-a_property"),
        ):
            assert f'<a href="{place}">{text}</a>' in fold
        for anchor in ("shows-toy.merge.keeps", "shows-toy.merge.keeps-2"):
            assert page.count(f'id="{anchor}"') == 1
        assert "7 mutants; vectors notice 6, pages 5, exploration 4." in page
        assert "1 more that name the rule do not, and are not counted." in page
        assert "specctrl evidence toy.merge.keeps" in re.sub("<[^>]*>", "", page)

    def test_a_kind_that_shows_nothing_has_no_label(self, site: Site, shown: Shown) -> None:
        shown.claims, shown.properties, shown.noticed = [], [], {"mutants": 0}
        site.pages |= {"spec/toy": "# Toy\n\n" + RULE + source("toy.merge")}
        assert site.build() == []
        page = site.page("spec/toy")
        assert "posted</span> · 1 scenario · 2 examples</summary>" in page
        assert "Its code: no mutants." in page

    def test_a_rule_names_the_pages_that_mention_it(self, site: Site, shown: Shown) -> None:
        fillers = {f"spec/page{number}": f"# Page {number}\n" for number in range(6)}
        site.pages |= {
            **fillers,
            "spec/toy": "# Toy\n\n" + RULE + source("toy.merge") + "\n{rule}`toy.merge.keeps`\n",
            "spec/zoo": "# The zoo\n\nSee {rule}`toy.merge.keeps`.\n",
        }
        assert site.build(jobs=2) == []
        assert '<strong>Mentioned on: </strong><a href="zoo.html' in site.page("spec/toy")
        site.pages["spec/zoo"] = "# The zoo\n"
        assert site.build() == []
        assert "Mentioned on" not in site.page("spec/toy")

    def test_the_table_of_rules_and_the_file_have_it(self, site: Site, shown: Shown) -> None:
        site.pages |= {
            "spec/toy": "# Toy\n\n" + RULE + source("toy.merge"),
            "spec/all": "# All\n\n```{rules}\n```\n\n```{coverage} areas\n```\n\n```{coverage} uncounted\n```\n",
        }
        assert site.build() == []
        page = site.page("spec/all")
        assert "7 mutants; vectors notice 6" in page
        assert '<a class="spec-kind spec-kind-vector reference internal" href="playground.html?scenario=' in page
        assert ["toy", "1", "1", "1", "1", "1", "1"] == cells_of_row(page, "<code")
        assert "executes none of its code: " in page
        written = json.loads((site.html / "rules.json").read_text())
        assert asdict(shown) == written["rules"][0]["evidence"]
        assert ({"paths": 3}, {"states": 9}) == (written["proof"], written["explored"])

    def test_a_table_without_rows_says_so(self, site: Site, shown: Shown) -> None:
        shown.idle.clear()
        site.pages |= {"spec/toy": "# Toy\n\n" + RULE + source("toy.merge") + "\n\n```{coverage} uncounted\n```\n"}
        assert site.build() == []
        assert "None." in site.page("spec/toy")

    def test_a_complaint_is_a_warning_where_the_rule_stands(
        self, site: Site, shown: Shown, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        complaints = [("toy.merge.keeps", "nothing shows the rule"), ("", "the claim c is refuted")]
        monkeypatch.setattr(Evidence, "complaints", lambda _: complaints)
        site.pages |= {"spec/toy": "# Toy\n\n" + RULE + source("toy.merge")}
        said = site.build()
        assert "spec/toy.md:3: WARNING: nothing shows the rule [spec.evidence]" in said[0]
        assert "WARNING: the claim c is refuted [spec.evidence]" in said[1]

    def test_evidence_that_fails_is_a_warning(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        def fails(*_: object) -> None:
            raise EvidenceError("spec/toy.md:9: the cell raises AssertionError()")

        monkeypatch.setattr("specctrl.site.evidence.gather", fails)
        site.settings = {"rule_evidence": True}
        site.pages |= {"spec/toy": "# Toy\n\n" + RULE + source("toy.merge")}
        assert "spec/toy.md:9: the cell raises" in site.build()[0]


def cells_of_row(html: str, first: str) -> list[str]:
    """The texts of the first table row whose first cell begins so."""
    table = html[html.index("spec-coverage") :]
    row = table[table.index("<tr", table.index("<tbody")) : table.index("</tr>", table.index("<tbody"))]
    assert first in row
    return [re.sub("<[^>]*>", "", cell).strip() for cell in re.findall(r"<td.*?</td>", row, re.DOTALL)]


class TestBanner:
    def test_every_page_says_against_what_it_was_written(self, site: Site) -> None:
        site.pages["spec/toy"], site.settings = "# Toy\n", {"release": "2.0"}
        assert site.build() == []
        for name in ("index", "spec/toy"):
            page = site.page(name)
            assert page.count('class="status-banner"') == 1
            line = page.partition("</h1>")[2].lstrip().partition("</p>")[0]
            assert line.startswith('<p class="status-banner" role="note">RFC v3 of April 2024 · not merged as of')
            assert line.endswith("· version 2.0")
