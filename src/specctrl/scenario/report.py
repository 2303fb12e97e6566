"""Reporting a run: text for people, JSON and JUnit for programs, counts by rule and level; and the exit status."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from xml.etree import ElementTree

from specctrl.scenario.format import LEVELS, OUTCOMES
from specctrl.scenario.kinds import Json, quoted
from specctrl.scenario.levels import ORDER, level
from specctrl.scenario.published import is_generated
from specctrl.scenario.reading import Scenario
from specctrl.scenario.running import FAIL, OTHER_PROFILE, PARTLY, PASS, STATUSES, UNSEEN, UNSUPPORTED, Result

ALL_PASSED, MISMATCH, INVALID, NOTHING_RAN = 0, 1, 2, 3
"""Exit statuses of ``specctrl run``."""

REASONS = 20
"""How many reasons for unsupported scenarios the text names, the most frequent ones."""

SHORTEST = 3
"""How many failures of each level the last lines name."""


@dataclass(slots=True)
class Report:
    """The results of a run so far; ``broken`` says how the target broke, if it did."""

    total: int
    max_unsupported: int | None
    results: list[Result] = field(default_factory=list)
    broken: str = ""

    def counts(self) -> dict[str, int]:
        """How many scenarios had each result; ``partly`` only if there are any.

        Those that an unusable target left over are ``not-run``.
        """
        counted = Counter(result.status for result in self.results)
        counts = {status: counted[status] for status in STATUSES if counted[status] or status != PARTLY}
        if self.total > len(self.results):
            counts["not-run"] = self.total - len(self.results)
        return counts

    def confirms(self) -> dict[str, dict[str, int]]:
        """Of the passes: for each kind of observation, in how many scenarios it was made, and how often."""
        scenarios: Counter[str] = Counter()
        observations: Counter[str] = Counter()
        for result in self.results:
            scenarios.update(result.confirms.keys())
            observations.update(result.confirms)
        return {kind: {"scenarios": scenarios[kind], "observations": observations[kind]} for kind in scenarios}

    def unsupported(self) -> dict[str, int]:
        """Why scenarios were unsupported, and how many for each reason, the most frequent first."""
        reasons = Counter(_reason(result) for result in self.results if result.status == UNSUPPORTED)
        return dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0])))

    def unseen(self) -> dict[str, int]:
        """The keys that partly passed scenarios expect and nobody saw, and in how many, the most frequent first."""
        keys = Counter(key for result in self.results for key in result.unseen)
        return dict(sorted(keys.items(), key=lambda item: (-item[1], item[0])))

    def failed(self) -> dict[str, list[str]]:
        """The scenarios that failed, by level, the shortest first."""
        failures: dict[str, list[str]] = {}
        for scenario in sorted((each.scenario for each in self.results if each.status == FAIL), key=in_order):
            failures.setdefault(level(scenario), []).append(scenario.id)
        return failures

    def too_many_unsupported(self) -> bool:
        """Whether more scenarios were unsupported than allowed."""
        return self.max_unsupported is not None and self.counts()[UNSUPPORTED] > self.max_unsupported

    def exit_status(self) -> int:
        """The status of the command."""
        counts = self.counts()
        if self.broken or counts[FAIL] or self.too_many_unsupported():
            return MISMATCH
        return ALL_PASSED if counts[PASS] or counts.get(PARTLY) else NOTHING_RAN


def in_order(scenario: Scenario) -> tuple[int, int, str]:
    """The order in which scenarios are run: by level, and within a level the shortest first."""
    return ORDER.index(level(scenario)), len(scenario.steps), scenario.id


def printable(text: str) -> str:
    r"""A text of others on one line: what moves the cursor or ends the line is written out.

    >>> print(printable("a\x1b[2K\npass"))
    a\x1b[2K\npass
    """
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def as_text(result: Result) -> str:
    """One result as lines of text: of a failure also what the scenario shows, and which rules to look at."""
    return "\n".join(map(printable, _lines(result)))


def _lines(result: Result) -> list[str]:
    lines = [f"{result.status:<13} {result.scenario.id}"]
    if result.status == OTHER_PROFILE:
        lines[0] += f": {result.why}"
    elif result.status == UNSUPPORTED:
        lines[0] += f": {_place(result)}{result.why}"
    elif result.status == FAIL:
        lines[0] += f" ({result.scenario.file})" if result.scenario.file else ""
        lines += [f"  {result.scenario.title}"] if result.scenario.title else []
        lines.append(f"  {_place(result)}{result.why}")
        if result.observed is not None:
            lines.append(f"  expected {quoted_whole(result.expected)}{_but_not(result.expected, result.observed)}")
            lines.append(f"  observed {quoted_whole(result.observed)}{_but_not(result.observed, result.expected)}")
        lines += [f"  suspect  {', '.join(result.suspects)}"] if result.suspects else []
        lines += _rules(result.scenario)
    elif result.unseen:
        lines[0] += f": not seen: {', '.join(result.unseen)}"
    elif result.confirms:
        lines[0] += ": " + ", ".join(f"{kind} {count}" for kind, count in result.confirms.items())
    return lines


def _rules(scenario: Scenario) -> list[str]:
    """What it was written to show; one that was generated shows no rule, and names those near its last step."""
    names = ", ".join(scenario.rules)
    if not names:
        return []
    return [f"  nearby   {names}: not what it shows"] if is_generated(scenario.id) else [f"  rules    {names}"]


def quoted_whole(value: Json) -> str:
    """A JSON value on one line, cut only when it is far too long for a screen."""
    return quoted(value, 600)


def _place(result: Result) -> str:
    """The step, counted from 1, and its place in the file, where entries count from 0."""
    return "" if result.step is None else f"step {result.step + 1} (/steps/{result.step}) {result.op}: "


def _but_not(one: Mapping[str, Json] | None, other: Mapping[str, Json] | None) -> str:
    """The outcomes that happen in the other one only: what an empty object says without a word."""
    happened = [key for key in OUTCOMES if (other or {}).get(key) not in (None, False)]
    missing = [key for key in happened if (one or {}).get(key) in (None, False)]
    return f": no {', no '.join(missing)}" if missing else ""


def _reason(result: Result) -> str:
    """Why a scenario is unsupported, without its place: the same for all that lack the same."""
    unseen = result.why.startswith(UNSEEN)
    return result.why if unseen or result.op is None else f"{result.op}: {result.why}"


def summary(report: Report) -> str:
    """The last lines: all counts, and why the status is not 0."""
    counted = ", ".join(f"{number} {status}" for status, number in report.counts().items())
    lines = [
        f"confirmed: {kind:6} {found['observations']} observations in {found['scenarios']} scenarios"
        for kind, found in report.confirms().items()
    ]
    reasons = report.unsupported()
    lines += [f"not seen: {key}, in {number} that passed partly" for key, number in report.unseen().items()]
    lines += [f"unsupported: {number:4}  {reason}" for reason, number in list(reasons.items())[:REASONS]]
    if len(reasons) > REASONS:
        rest = sum(list(reasons.values())[REASONS:])
        lines.append(f"unsupported: {rest:4}  for {len(reasons) - REASONS} other reasons (--json has them all)")
    for name, ids in report.failed().items():
        more = f", and {len(ids) - SHORTEST} more" if len(ids) > SHORTEST else ""
        lines.append(f"failed, level {name}, shortest first: {', '.join(ids[:SHORTEST])}{more}")
    lines.append(f"{report.total} scenario{'s' if report.total != 1 else ''}: {counted}")
    if report.broken:
        lines.append(f"the run is broken: {report.broken}")
    elif report.too_many_unsupported():
        lines.append(f"more unsupported than the {report.max_unsupported} allowed (--max-unsupported)")
    elif report.exit_status() == NOTHING_RAN:
        lines.append("nothing could run")
    return "\n".join(map(printable, lines))


def as_json(report: Report) -> dict[str, Json]:
    """The whole run as one JSON object."""
    return {
        "status": report.exit_status(),
        "counts": report.counts(),
        **({"confirms": report.confirms()} if report.confirms() else {}),
        **({"unsupported": report.unsupported()} if report.unsupported() else {}),
        **({"unseen": report.unseen()} if report.unseen() else {}),
        **({"broken": report.broken} if report.broken else {}),
        "results": [_result_json(result) for result in report.results],
    }


def _result_json(result: Result) -> dict[str, Json]:
    document: dict[str, Json] = {
        "id": result.scenario.id,
        "file": result.scenario.file,
        "profile": result.scenario.profile,
        "target": result.target,
        "result": result.status,
    }
    if result.step is not None:
        document |= {"step": result.step, "op": result.op}
    if result.why:
        document["why"] = result.why
    if result.status == FAIL:
        document |= {"title": result.scenario.title, "rules": list(result.scenario.rules)}
    if result.confirms:
        document["confirms"] = dict(result.confirms)
    if result.suspects:
        document["suspects"] = list(result.suspects)
    if result.unseen:
        document["unseen"] = list(result.unseen)
    if result.status == FAIL:
        document |= {"expected": result.expected, "observed": result.observed}
    return document


def as_junit(report: Report) -> str:
    """The whole run as a JUnit file; unsupported and other-profile are skipped there, with the reason.

    What partly passed passes there, with a property for each key that was not seen.
    """
    counts = report.counts()
    suite = ElementTree.Element("testsuite", {
        "name": "specctrl run",
        "tests": str(len(report.results) + (1 if report.broken else 0)),
        "failures": str(counts[FAIL]),
        "errors": "1" if report.broken else "0",
        "skipped": str(counts[UNSUPPORTED] + counts[OTHER_PROFILE]),
    })
    for result in report.results:
        case = _case(suite, result.scenario.id, f"specctrl.{result.target}")
        named = [*(("rule", rule) for rule in result.scenario.rules), *(("unseen", key) for key in result.unseen)]
        if named:
            properties = ElementTree.SubElement(case, "properties")
            for name, value in named:
                ElementTree.SubElement(properties, "property", {"name": name, "value": _clean(value)})
        if result.status == FAIL:
            message = _place(result) + result.why
            failure = ElementTree.SubElement(case, "failure", {"message": _clean(message)})
            failure.text = _clean(as_text(result))
        elif result.status not in (PASS, PARTLY):
            message = f"{result.status}: {_place(result)}{result.why}"
            ElementTree.SubElement(case, "skipped", {"message": _clean(message)})
    if report.broken:
        case = _case(suite, "the target works", "specctrl")
        ElementTree.SubElement(case, "error", {"message": _clean(report.broken)})
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _case(suite: ElementTree.Element, name: str, owner: str) -> ElementTree.Element:
    return ElementTree.SubElement(suite, "testcase", {"classname": _clean(owner), "name": _clean(name)})


def _clean(text: str) -> str:
    """Characters that XML cannot hold, replaced."""
    return re.sub("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text)


# ---- counted by rule or by level

TALLIED = (PASS, PARTLY, FAIL, UNSUPPORTED)
"""What is counted; a scenario of another profile says nothing of a rule."""

BY: dict[str, Callable[[Scenario], Sequence[str]]] = {
    "rule": lambda scenario: scenario.rules,
    "level": lambda scenario: (level(scenario),),
}
"""What a scenario can be counted under."""


def tally(report: Report, by: str) -> dict[str, dict[str, int]]:
    """How many scenarios of each rule, or of each level, passed, failed and were unsupported; ``partly`` if any was."""
    counts: dict[str, dict[str, int]] = {}
    counted = [status for status in TALLIED if status != PARTLY or report.counts().get(PARTLY)]
    for result in report.results:
        if result.status in TALLIED:
            for name in BY[by](result.scenario):
                counts.setdefault(name, dict.fromkeys(counted, 0))[result.status] += 1
    order = [name for name in LEVELS if name in counts] if by == "level" else sorted(counts)
    return {name: counts[name] for name in order}


def as_table(counts: dict[str, dict[str, int]], by: str) -> str:
    """The counts as lines of text, one a rule or level."""
    width = max(map(len, [by, *counts]))
    counted = [status for status in TALLIED if status != PARTLY or any(status in row for row in counts.values())]
    heads = "  ".join(counted)
    rows = [
        f"{name:<{width}}  " + "  ".join(f"{row[status]:>{len(status)}}" for status in counted)
        for name, row in counts.items()
    ]
    return "\n".join([f"{by:<{width}}  {heads}", *rows])
