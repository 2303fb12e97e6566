"""What a page shows was printed by this build: cells are run, prompts are true, nothing fails in silence."""

import re
import sys
from pathlib import Path

import pytest

from site_builder import API, NOTEBOOK, RULE, TOY, Site
from specctrl.digest import digest
from specctrl.evidence.page_runs import in_copies
from specctrl.evidence.run_pages import failures, modules_of, run_docstrings, run_page
from specctrl.site.html import commit

CELL = "```{code-cell} ipython3\nfrom toy import merge\nprint('six times seven is', 6 * 7)\n```\n"
PROMPT = "```python\n>>> merge(3, 1)\n2\n```\n"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "toy.py").write_text(TOY)
    monkeypatch.syspath_prepend(tmp_path / "lib")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "lib"))  # for the kernel
    monkeypatch.delitem(sys.modules, "toy", raising=False)
    return Site(tmp_path / "site", {"spec/api": API}, {"source_modules": ["toy"]})


def test_a_whole_page_shows_rule_source_layout_scenario_and_what_its_cells_print(site: Site) -> None:
    shown = "```{source} toy.merge\n```\n\n```{source} toy.Record\n```\n"
    others = "```{layout} IA32_SPEC_CTRL\n```\n\n```{scenario} toy.enable-late\n```\n"
    site.pages["spec/toy"] = f"{NOTEBOOK}# Toy\n\n{RULE}\n{shown}\n{others}\n{CELL}\n{PROMPT}"
    assert site.build() == []
    page = site.page("spec/toy")
    assert "six times seven is 42" in page
    for part in (
        "rule-toy.merge.keeps",
        "source-toy.merge",
        "Fields of IA32_SPEC_CTRL",
        "Steps of toy.enable-late",
    ):
        assert part in page


@pytest.mark.parametrize(
    ("page", "warning"),
    [
        (CELL.replace("6 * 7", "6 / 0"), "ZeroDivisionError"),
        (CELL + PROMPT.replace("\n2\n", "\n3\n"), "spec/toy.md:12: WARNING: >>> merge(3, 1)"),
        (CELL + PROMPT.replace("3, 1", "3"), "spec/toy.md:12: WARNING: >>> merge(3)"),
    ],
    ids=["failing cell", "untrue answer", "prompt that raises"],
)
def test_an_example_that_fails_is_a_warning(site: Site, page: str, warning: str) -> None:
    site.pages["spec/toy"], site.settings = f"{NOTEBOOK}# Toy\n\n{page}", {}
    assert any(warning in said for said in site.build())


def test_what_stands_behind_a_failing_cell_is_not_run_and_shows_nothing(site: Site) -> None:
    site.pages["spec/toy"], site.settings = f"{NOTEBOOK}# Toy\n\n{CELL.replace('6 * 7', '6 / 0')}\n{CELL}", {}
    (said,) = site.build()
    assert "spec/toy.md:9: WARNING: the cell raises ZeroDivisionError" in said
    assert "six times seven" not in re.sub("<code.*?</pre>|<pre>.*?</pre>", "", site.page("spec/toy"), flags=re.DOTALL)


def test_a_cell_that_was_not_run_is_a_warning(site: Site) -> None:
    site.pages |= {"spec/api": f"{API}\n{CELL}", "spec/inner/toy": f"# Toy\n\n{CELL}"}
    site.settings = {}
    (said,) = [line for line in site.build() if "spec/inner/toy" in line]
    assert "spec/inner/toy.md:3: WARNING: this cell was not run [spec.executed]" in said


def test_a_failing_example_is_said_again_until_it_passes(site: Site) -> None:
    site.pages["index"], site.settings = "\n```python\n>>> 1 + 1\n3\n```\n", {}
    assert len(site.build()) == len(site.build()) == 1
    site.pages["index"] = "\n```python\n>>> 1 + 1\n2\n```\n"
    assert site.build() == []


def test_what_passed_is_not_run_again_until_a_source_changes(site: Site) -> None:
    site.pages, site.settings = {"index": "\n```python\n>>> 1 + 1\n2\n```\n"}, {}
    records = site.root / "_build" / "evidence"
    site.build()
    site.build()
    (first,) = records.glob("pages-*.json")
    site.write("vectors/new.json", "{}")
    site.build()
    assert len({first, *records.glob("pages-*.json")}) == 2


def test_cells_and_prompts_share_one_namespace_in_the_order_of_the_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```{code-cell} ipython3\n:tags: [hide-input]\nx = 1\n```\n"
        "```python\n>>> x = x + 1\n>>> x\n2\n```\n"
        "~~~{code-cell} ipython3\nassert x == 2\nx = 5\n~~~\n"
        "- in a list\n\n  ```python\n  >>> print('a\\nb')\n  a\n  b\n  ```\n"
        "```{code-cell} ipython3\n:tags: [raises-exception]\n1 / 0\n```\n"
        "```{code-cell} ipython3\n:tags: [skip-execution]\n1 / 0\n```\n"
        "````md\n```{code-cell} ipython3\n1 / 0\n```\n````\n"
        "```python\n>>> 1 / 0\nTraceback (most recent call last):\nZeroDivisionError: division by zero\n```\n"
    )
    assert failures(page) == []


def test_a_failing_cell_names_its_line(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Page\n\n```{code-cell} ipython3\n:tags: [hide-input]\nx = 1\nassert x == 2, 'two'\n```\n")
    assert failures(page) == [(str(page), 6, "the cell raises AssertionError('two')")]


def test_a_cell_that_is_no_python_names_its_line(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```{code-cell} ipython3\nx = = 1\n```\n")
    ((file, line, what),) = failures(page)
    assert (file, line, "SyntaxError" in what) == (str(page), 2, True)


def test_the_prompts_of_docstrings_run_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "toypackage"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text("raise SystemExit")
    (package / "inner" / "__init__.py").write_text(
        'def one():\n    """One.\n\n    >>> one()\n    2\n    """\n    return 1\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    modules = modules_of("toypackage")
    assert modules == ["toypackage", "toypackage.inner"]
    ((file, line, what),) = [failure for module in modules for failure in run_docstrings(module)]
    assert (Path(file), line) == (package / "inner" / "__init__.py", 4)
    assert what == ">>> one()\nExpected:\n    2\nGot:\n    1"


def test_a_tagged_cell_says_what_it_called_and_no_other_does(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    cell = "```{code-cell} ipython3\nfrom specctrl.model.words import merge\nmerge(1, 2, 2)\n%s\n```\n"
    page.write_text(cell % "# rule: a.b" + cell % "")
    tagged, other = run_page(page)
    assert [name.split(":")[1] for name in tagged.called if name.startswith("/model/words.py:merge:")] == ["merge"]
    assert other.called == []
    assert tagged.outputs == other.outputs == [{"kind": "text", "data": "3"}]


def test_answers_of_copies_come_in_the_order_of_the_questions() -> None:
    assert in_copies(len, ["a", "bc", "def"]) == [1, 2, 3]


def test_a_page_that_does_not_end_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("specctrl.evidence.page_runs.SECONDS", 1)

    def never(name: str) -> None:
        while name == "page":
            pass

    with pytest.raises(RuntimeError, match="page: its process ended with -"):
        in_copies(never, ["other", "page"])


def test_the_digest_follows_what_pages_depend_on(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.py").write_text("1")
    first = digest(tmp_path)
    (tmp_path / "src" / "__pycache__").mkdir()
    (tmp_path / "src" / "__pycache__" / "a.pyc").write_text("2")
    (tmp_path / "README.md").write_text("3")
    assert digest(tmp_path) == first
    (tmp_path / "src" / "a.py").rename(tmp_path / "src" / "b.py")
    assert digest(tmp_path) != first


def test_the_banner_says_unknown_where_there_is_no_git(tmp_path: Path) -> None:
    assert commit(tmp_path) == "unknown"
