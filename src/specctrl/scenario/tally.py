"""The results of a run counted by rule or by level: which sentences an implementation fails, and how far it got."""

from collections.abc import Callable, Sequence

from specctrl.scenario import FAIL, PASS, UNSUPPORTED, Report, Scenario
from specctrl.scenario.levels import LEVELS, level

COUNTED = (PASS, FAIL, UNSUPPORTED)
"""What is counted; a scenario of another profile says nothing of a rule."""

BY: dict[str, Callable[[Scenario], Sequence[str]]] = {
    "rule": lambda scenario: scenario.rules,
    "level": lambda scenario: (level(scenario),),
}
"""What a scenario can be counted under."""


def tally(report: Report, by: str) -> dict[str, dict[str, int]]:
    """How many scenarios of each rule, or of each level, passed, failed and were unsupported."""
    counts: dict[str, dict[str, int]] = {}
    for result in report.results:
        if result.status in COUNTED:
            for name in BY[by](result.scenario):
                counts.setdefault(name, dict.fromkeys(COUNTED, 0))[result.status] += 1
    order = [name for name in LEVELS if name in counts] if by == "level" else sorted(counts)
    return {name: counts[name] for name in order}


def as_table(counts: dict[str, dict[str, int]], by: str) -> str:
    """The counts as lines of text, one a rule or level."""
    width = max(map(len, [by, *counts]))
    heads = "  ".join(f"{status:>{len(status)}}" for status in COUNTED)
    rows = [
        f"{name:<{width}}  " + "  ".join(f"{row[status]:>{len(status)}}" for status in COUNTED)
        for name, row in counts.items()
    ]
    return "\n".join([f"{by:<{width}}  {heads}", *rows])
