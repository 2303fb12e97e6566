"""What a page shows was printed by this build: cells are run, prompts are true, nothing fails in silence."""

import sys
from pathlib import Path

import pytest

from site_builder import API, NOTEBOOK, RULE, TOY, Site
from specctrl.evidence.digest import digest
from specctrl.site.banner import commit
from specctrl.site.prompts import run_docstrings, run_page

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


def test_a_failing_cell_leaves_its_page_unexecuted(site: Site) -> None:
    site.pages["spec/toy"], site.settings = f"{NOTEBOOK}# Toy\n\n{CELL.replace('6 * 7', '6 / 0')}", {}
    assert any("1 code cells of this page stopped at CellExecutionError" in said for said in site.build())


@pytest.mark.parametrize(
    ("page", "settings"),
    [(f"{NOTEBOOK}# Toy\n\n{CELL}", {"nb_execution_mode": "off"}), (f"# Toy\n\n{CELL}", {})],
    ids=["execution switched off", "no notebook header"],
)
def test_a_page_whose_cells_were_not_run_is_a_warning(site: Site, page: str, settings: dict[str, str]) -> None:
    site.pages["spec/toy"], site.settings = page, settings
    said = site.build()
    assert "spec/toy.md: WARNING: 1 code cells of this page were not run [spec.executed]" in said


def test_a_failing_example_is_said_again_until_it_passes(site: Site) -> None:
    site.pages["index"], site.settings = "\n```python\n>>> 1 + 1\n3\n```\n", {}
    assert len(site.build()) == len(site.build()) == 1
    site.pages["index"] = "\n```python\n>>> 1 + 1\n2\n```\n"
    assert site.build() == []


def test_what_passed_is_not_run_again_until_a_source_changes(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[str] = []
    monkeypatch.setattr("specctrl.site.prompts.run_page", lambda path: runs.append(path.name) or [])
    site.pages, site.settings = {}, {}
    site.build()
    site.build()
    assert runs == ["index.md"]
    site.write("vectors/new.json", "{}")
    site.build()
    assert runs == ["index.md"] * 2


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
    assert run_page(page) == []


def test_a_failing_cell_names_its_line(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Page\n\n```{code-cell} ipython3\n:tags: [hide-input]\nx = 1\nassert x == 2, 'two'\n```\n")
    assert run_page(page) == [(str(page), 6, "cell raises AssertionError('two')")]


def test_a_cell_that_is_no_python_names_its_line(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```{code-cell} ipython3\nx = = 1\n```\n")
    ((file, line, what),) = run_page(page)
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
    ((file, line, what),) = run_docstrings("toypackage")
    assert (Path(file), line) == (package / "inner" / "__init__.py", 4)
    assert what == ">>> one()\nExpected:\n    2\nGot:\n    1"


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
