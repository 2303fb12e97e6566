"""What `make bench` keeps: runs are added, and the plots are those of the history."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def figures() -> ModuleType:
    """bench/figures.py, whose folder is no package."""
    spec = importlib.util.spec_from_file_location("bench_figures", ROOT / "bench" / "figures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_run_is_added_to_those_before(figures: ModuleType, tmp_path: Path) -> None:
    kept = tmp_path / "history.json"
    first = figures.Figure("site", "cold", 90.0, "seconds")
    second = figures.Figure("site", "unchanged", 3.0, "seconds", "cold", 3.0 / 90.0)
    growth = figures.Growth("site", "no evidence", "pages", [(5, 20.0), (10, 30.0)])
    figures.keep([first], kept)
    figures.keep([first, second, growth], kept)
    runs = figures.history(kept)
    assert [len(run["figures"]) for run in runs] == [1, 2]
    assert runs[1]["figures"][1]["ratio"] == pytest.approx(1 / 30)
    assert runs[1]["growth"][0]["points"] == [[5, 20.0], [10, 30.0]]
    assert [path.name for path in tmp_path.iterdir()] == ["history.json"]
    assert str(second).split() == ["site", "unchanged", "3", "seconds", "(0.0333", "of", "cold)"]


def test_the_plots_are_of_the_history_that_is_kept() -> None:
    runs = json.loads((ROOT / "bench" / "history.json").read_text("utf-8"))
    drawn = {path.stem.removeprefix("bench-"): path.read_text("utf-8")
             for path in (ROOT / "spec" / "_static").glob("bench-*.svg")}
    assert all(run["commit"][:7] in drawn["ratios"] for run in runs)
    assert [each["what"] for each in runs[-1]["figures"] if each["ratio"] is not None
            and each["what"] not in drawn["ratios"]] == []
    assert [each["what"] for each in runs[-1]["growth"] if each["what"] not in drawn[each["by"]]] == []
