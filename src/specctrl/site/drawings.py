"""Histories as pictures: who runs and what each register holds after every step, in tables that fit any page.

A step is a column, a register a lane; a value lasts as long as its box.  Who runs, and whose a lane is, is told by a
word and by the page's colour for it.  What is wrong has a cross too.  A long history goes on in a table below.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from specctrl.model.registers import msr_number
from specctrl.scenario.machine import Machine

LANES = (  # what a lane is called, where its values are, and whose it is
    ("guest view", "guest_view", "guest"),
    ("force mask (VMCS)", "mask", "hardware"),
    ("SHADOW (VMCS)", "shadow", "hardware"),
    ("processor", "register", "hardware"),
    ("saved by KVM", "saved", "kvm"),
)
COLUMNS = 5
"""At most so many steps stand beside each other: as many as a telephone shows, and spec.css has a class for."""
SETUP = frozenset({
    "create_vcpu", "set_msrs", "get_msrs", "enable_cap", "check_extension", "get_supported_force_spec_ctrl",
    "get_feature_msrs", "get_msr_index_list", "get_msr_feature_index_list", "set_msr_filter"})
"""Operations of userspace; those before the first other step are named above the picture, and not drawn."""
Row = dict[str, Any]
Cells = list[tuple[str, int, str]]
"""What stands in a lane: text, how many steps it lasts, and its classes."""


@dataclass(frozen=True, slots=True)
class Timeline:
    """A drawn history; notebooks show the picture, terminals the title."""

    title: str
    html: str
    rows: Sequence[Row] = field(default=(), repr=False)
    vcpu: int = 0

    def __repr__(self) -> str:
        return f"<timeline: {self.title}>"

    def _repr_html_(self) -> str:
        return self.html


def timeline(machine: Machine, title: str, vcpu: int = 0) -> Timeline:
    """Draw a machine's history: who runs and what each register holds after every step.

    ``processor`` is the real IA32_SPEC_CTRL of the logical processor, the host's value while KVM runs.
    ValueError if the history has no step of this vCPU.

    >>> machine = Machine()
    >>> _ = machine.create_vcpu(), machine.wrmsr(msr=0x48, value=0x1), machine.exit()
    >>> timeline(machine, "A write and an exit")
    <timeline: A write and an exit>
    """
    rows = [row for row in machine.history if vcpu in row["vcpus"]]
    if not rows:
        raise ValueError(f"the history has no step of vCPU {vcpu}")
    before, drawn = _without_setup(rows)
    states = [row["vcpus"][vcpu] for row in drawn]
    lanes = [(label, whose, [state[key] for state in states], [False] * len(states))
             for label, key, whose in LANES if states[-1][key] is not None]
    return Timeline(title, _figure(title, before, drawn, states, lanes), rows, vcpu)


def both(posted: Timeline, specified: Timeline) -> Timeline:
    """Draw one history as posted and as specified: what differs is a lane twice, and there the posted one is wrong.

    A cross marks each wrong value of the processor's register; if that is the same, of the first lane that differs.
    ValueError if the two are not the same steps.

    >>> def write(variant):
    ...     machine = Machine(variant=variant)
    ...     _ = machine.create_vcpu(), machine.wrmsr(msr=0x48, value=0x1)
    ...     return timeline(machine, variant)
    >>> both(write("rfc-v3"), write("spec"))
    <timeline: rfc-v3>
    """
    before, drawn = _without_setup(posted.rows)
    other = _without_setup(specified.rows)[1]
    if [(row["op"], row["arguments"]) for row in drawn] != [(row["op"], row["arguments"]) for row in other]:
        raise ValueError(f"{posted.title!r} and {specified.title!r} are not the same steps")
    states = [row["vcpus"][posted.vcpu] for row in drawn]
    right = [row["vcpus"][specified.vcpu] for row in other]
    differ = [key for _, key, _ in LANES if [one[key] for one in states] != [one[key] for one in right]]
    wrong = "register" if "register" in differ else next(iter(differ), "")
    lanes = []
    for label, key, whose in LANES:
        now, then = [one[key] for one in states], [one[key] for one in right]
        if now == then:
            if now[-1] is not None:
                lanes.append((label, whose, now, [False] * len(now)))
            continue
        bad = [key == wrong and one != two for one, two in zip(now, then, strict=True)]
        lanes += [(f"{label}, as posted", whose, now, bad), (f"{label}, as specified", whose, then, [False] * len(now))]
    return Timeline(posted.title, _figure(posted.title, before, drawn, states, lanes), posted.rows, posted.vcpu)


def _without_setup(rows: Sequence[Row]) -> tuple[Sequence[Row], Sequence[Row]]:
    """Part a history into its set-up and the rest; one that is nothing but set-up is drawn whole."""
    first = next((at for at, row in enumerate(rows) if row["op"] not in SETUP), 0)
    return rows[:first], rows[first:]


Lane = tuple[str, str, list[Any], list[bool]]
"""What it is called, whose it is, its value after each step, and which of them are wrong."""


def _figure(
    title: str, before: Sequence[Row], drawn: Sequence[Row], states: Sequence[Row], lanes: Sequence[Lane]
) -> str:
    setup = f' <span class="spec-setup">Before: {escape(", ".join(map(_said, before)))}.</span>' if before else ""
    tables = "".join(_table(drawn, states, lanes, first, last) for first, last in _groups(len(drawn)))
    return f'<figure class="spec-timeline"><figcaption>{escape(title)}{setup}</figcaption>{tables}</figure>'


def _said(row: Row) -> str:
    return " ".join(word for word in (row["op"], _operand(row["arguments"]), _outcome(row["seen"])) if word)


def _groups(steps: int) -> Iterator[tuple[int, int]]:
    """Which steps stand beside each other, about as many in each table.

    >>> list(_groups(7))
    [(0, 4), (4, 7)]
    """
    tables = -(-steps // COLUMNS)
    first = 0
    for number in range(tables):
        last = first + -(-(steps - first) // (tables - number))
        yield first, last
        first = last


def _table(drawn: Sequence[Row], states: Sequence[Row], lanes: Sequence[Lane], first: int, last: int) -> str:
    heads = "".join(f'<th scope="col">{_head(row)}</th>' for row in drawn[first:last])
    runs = [(who, 1, f"who {colour}") for who, colour in map(_runner, states[first:last])]
    body = _lane("runs", "", runs)
    for label, whose, values, bad in lanes:
        body += _lane(label, whose, _cells(values, bad, first, last))
    twice = " twice" if any(label.endswith("as specified") for label, *_ in lanes) else ""
    return (f'<table class="spec-history steps-{last - first}{twice}">'
            f"<thead><tr><td></td>{heads}</tr></thead><tbody>{body}</tbody></table>")


def _head(row: Row) -> str:
    """What was done, with what, and what came of it."""
    op = row["op"].replace("nested_", "L1→ ").replace("L1→ exit", "L2→ exit")
    rest = " ".join(word for word in (_operand(row["arguments"]), _outcome(row["seen"])) if word)
    return f"<b>{escape(op)}</b> {escape(rest)}".rstrip()


def _cells(values: list[Any], bad: list[bool], first: int, last: int) -> Cells:
    """The values of a lane in one table, each as long as it lasts; ``new`` where it was another before."""
    cells = []
    marked = list(zip(values, bad, strict=True))
    for start, end in _spans(marked[first:last]):
        value, is_bad = marked[first + start]
        at = first + start
        is_new = at > 0 and values[at] != values[at - 1]
        text = "none" if value is None else repr(value)
        cells.append((f"✗ {text}" if is_bad else text, end - start, " ".join(["new"] * is_new + ["bad"] * is_bad)))
    return cells


def _lane(label: str, whose: str, cells: Cells) -> str:
    shown = ""
    for text, lasts, classes in cells:
        span = f' colspan="{lasts}"' if lasts > 1 else ""
        shown += f"<td{span}{_classes(classes)}>{escape(text)}</td>"
    return f'<tr{_classes(whose)}><th scope="row">{escape(label)}</th>{shown}</tr>'


def _classes(names: str) -> str:
    return f' class="{names}"' if names else ""


def _operand(arguments: dict[str, Any]) -> str:
    """What a step is about, in a few words: an MSR and its value, the first entry of a list, a destination."""
    if "msr" in arguments:
        return _written(arguments["msr"], arguments["value"]) if "value" in arguments else _written(arguments["msr"])
    for key in ("msrs", "msr_load"):
        pairs = [pair for pair in arguments.get(key, ()) if isinstance(pair, list | tuple)]
        if pairs:
            return _written(*pairs[0]) + (" …" if len(pairs) > 1 else "")
    if "to" in arguments:
        target = arguments["to"]
        return str(target if isinstance(target, str) else target.get("part", ""))[:15]
    return ""


def _written(msr: int | str, value: int | None = None) -> str:
    number = msr_number(msr)
    return f"{number:#x}" if value is None else f"{number:#x} ← {value:#x}"


def _outcome(seen: dict[str, Any]) -> str:
    for key in ("fault", "errno", "host_fault"):
        if key in seen:
            return str(seen[key])
    if "value" in seen:
        return f"→ {seen['value']!r}"
    for key in ("reflected", "blocked", "abort", "fail", "exit", "refused"):
        if key in seen:
            return key
    return ""


def _runner(state: dict[str, Any]) -> tuple[str, str]:
    """Who runs, and in whose colour that is said."""
    if not state["in_guest"]:
        return "host", "host"
    if state["smm"]:
        return "SMM", "hardware"
    return f"L{state['level']}", f"l{state['level']}"


def _spans(values: Sequence[Any]) -> list[tuple[int, int]]:
    """Where each run of equal values begins and ends.

    >>> _spans([1, 1, 2])
    [(0, 2), (2, 3)]
    """
    starts = [index for index in range(len(values)) if index == 0 or values[index] != values[index - 1]]
    return list(zip(starts, [*starts[1:], len(values)], strict=True))
