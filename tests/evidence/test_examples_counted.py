"""No prompt and no cell is passed over in silence."""

import re
import sys
from pathlib import Path

import pytest
from sybil import Sybil

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from conftest import DOCSTRINGS, PAGES  # noqa: E402 - the examples are counted by what collects them

PAGE_FILES = [
    path for path in [ROOT / "index.md", ROOT / "README.md", *sorted((ROOT / "spec").glob("*.md"))] if path.is_file()
]
MODULES = sorted((ROOT / "src").rglob("*.py"))


def prompts_and_others(sybil: Sybil, path: Path) -> tuple[int, int]:
    """Count the examples that answer a prompt, and the rest (cells, blocks)."""
    examples = list(sybil.parse(path).examples())
    prompts = sum(hasattr(example.parsed, "want") for example in examples)
    return prompts, len(examples) - prompts


def written(path: Path, pattern: str) -> int:
    return len(re.findall(pattern, path.read_text("utf-8"), re.MULTILINE))


@pytest.mark.parametrize("path", PAGE_FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_prompt_and_every_cell_of_a_page_is_a_test(path: Path) -> None:
    prompts, others = prompts_and_others(PAGES, path)
    assert prompts == written(path, r"^\s*>>> "), "a fence with prompts is ```python; sybil passes over the rest"
    assert others >= written(path, r"^\s*(?:```+|~~~+)\s*\{code-cell\}"), "a cell is ```{code-cell} ipython3"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT / "src").as_posix())
def test_every_prompt_of_a_docstring_is_a_test(path: Path) -> None:
    assert prompts_and_others(DOCSTRINGS, path)[0] == written(path, r"^\s*>>> ")


@pytest.mark.parametrize("fence", ["pycon", "text", "{code-block} pycon"])
def test_a_prompt_in_a_fence_that_is_passed_over_is_noticed(tmp_path: Path, fence: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"```{fence}\n>>> 1 + 1\n2\n```\n\n```python\n>>> 1\n1\n```\n")
    assert prompts_and_others(PAGES, page)[0] == 1
    assert written(page, r"^\s*>>> ") == 2
