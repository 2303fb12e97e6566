"""A measurement: a figure beside what it is compared with in the same run, or how something grows; and the history."""

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

HISTORY = Path(__file__).with_name("history.json")


class Missing(Exception):
    """What a measurement needs is not here; the message says what."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A value, and what it is of the reference that was measured beside it."""

    area: str
    what: str
    value: float
    unit: str
    of: str = ""
    ratio: float | None = None

    def __str__(self) -> str:
        beside = "" if self.ratio is None else f"  ({self.ratio:.3g} of {self.of})"
        value = f"{self.value:,.0f}" if self.value >= 1000 else f"{self.value:.3g}"
        return f"{self.area:10} {self.what:34} {value:>14} {self.unit}{beside}"


@dataclass(frozen=True, slots=True)
class Growth:
    """How a time grows; ``points`` are pairs of what it grows by, and seconds."""

    area: str
    what: str
    by: str
    points: Sequence[tuple[float, float]]

    def __str__(self) -> str:
        seconds = ", ".join(f"{count:,g}: {time:.3g}" for count, time in self.points)
        return f"{self.area:10} {self.what}, seconds by {self.by}: {seconds}"


def keep(measured: Sequence[Figure | Growth], path: Path = HISTORY) -> None:
    """Add a run to the history, which is written beside and renamed."""
    commit = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], cwd=path.parent, capture_output=True, text=True)
    run = {
        "date": date.today().isoformat(), "commit": commit.stdout.strip(), "cores": os.cpu_count(),
        "figures": [asdict(each) for each in measured if isinstance(each, Figure)],
        "growth": [asdict(each) for each in measured if isinstance(each, Growth)],
    }
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps([*history(path), run], indent=1) + "\n", "utf-8")
    fresh.replace(path)


def history(path: Path = HISTORY) -> list[dict[str, Any]]:
    """Every run that is kept, the oldest first."""
    found: list[dict[str, Any]] = json.loads(path.read_text("utf-8")) if path.exists() else []
    return found
