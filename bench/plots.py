"""Draws the history of measurements for the page of them; ``make bench`` calls it, and it can be called alone.

The colours stand on a light page and on a dark one.
"""

import sys
from pathlib import Path
from typing import Any

from figures import history

FOLDER = Path(__file__).resolve().parent.parent / "spec" / "_static"
INK = "#808080"
LINES = ("#2f7ed8", "#d8842f", "#3f9e4d", "#a45fd1", "#c94f4f", "#7a7a2e", "#2e8f8f")


def chart(plt: Any, width: float, height: float) -> tuple[Any, Any]:
    """A figure of this size in inches, without a background."""
    plt.rcParams.update({
        "font.size": 9, "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK, "xtick.color": INK,
        "ytick.color": INK, "svg.hashsalt": "specctrl", "svg.fonttype": "none",
        "axes.prop_cycle": plt.cycler(color=LINES)})
    figure, axis = plt.subplots(figsize=(width, height), layout="constrained")
    axis.patch.set_alpha(0)
    axis.spines[["top", "right"]].set_visible(False)
    return figure, axis


def save(figure: Any, name: str) -> None:
    """Write it; the same figures give the same bytes."""
    figure.savefig(FOLDER / name, transparent=True, metadata={"Date": None})


def growth(plt: Any, run: dict[str, Any]) -> None:
    """How times of the last run grow, one plot for each thing that they grow by."""
    for by in dict.fromkeys(each["by"] for each in run["growth"]):
        figure, axis = chart(plt, 3.1, 2.8)
        for each in run["growth"]:
            points = [(count, seconds) for count, seconds in each["points"] if seconds > 0]
            if each["by"] == by:
                axis.plot(*zip(*points, strict=True), marker="o", markersize=3, label=each["what"])
        axis.set(xlabel=by, ylabel="seconds", yscale="log" if by == "bits" else "linear")
        axis.set_ylim(bottom=None if by == "bits" else 0)
        axis.legend(frameon=False)
        save(figure, f"bench-{by}.svg")


def ratios(plt: Any, runs: list[dict[str, Any]]) -> None:
    """What each figure was of its reference, run by run."""
    figure, axis = chart(plt, 4.6, 6)
    whats = [each["what"] for each in runs[-1]["figures"] if each["ratio"] is not None]
    for number, what in enumerate(whats):
        points = [(at, each["ratio"]) for at, run in enumerate(runs) for each in run["figures"] if each["what"] == what]
        axis.plot(*zip(*points, strict=True), marker="os^Dv"[number % 5], markersize=4, label=what)
    axis.set(yscale="log", ylabel="of what it is compared with", xticks=range(len(runs)),
             xticklabels=[f"{run['date']}\n{run['commit'][:7]}" for run in runs])
    axis.margins(x=0.1)
    figure.legend(loc="outside lower left", frameon=False)
    save(figure, "bench-ratios.svg")


def main() -> None:
    """Draw both."""
    try:
        import matplotlib
    except ImportError:
        print("left out, the plots: need matplotlib (make .venv/bench)", file=sys.stderr)
        return
    matplotlib.use("svg")
    from matplotlib import pyplot as plt

    runs = history()
    growth(plt, runs[-1])
    ratios(plt, runs)


if __name__ == "__main__":
    main()
