"""Pictures as inline SVG: the bit layout of a register, and the registers over the steps of a history.

Lines and text are in ``currentColor``, so that they follow the page's light or dark theme; who runs is shown by
a word and, where the page defines the variables ``--guest``, ``--l1``, ``--l2``, ``--kvm``, ``--host`` and
``--hardware``, by a colour too; a lane has the colour of whose it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from specctrl.model.registers import Field, Register, msr_number
from specctrl.scenario.machine import Machine

STRIP_WIDTH = 704
STRIP_TOP = 18
STRIP_HEIGHT = 24
LABEL = 19
LEFT_ROOM = 200


def layout_svg(register: Register) -> str:
    """The bit layout of one register: a strip of all its bits, and a line from each field to its name.

    >>> from specctrl.model.registers import REGISTERS
    >>> picture = layout_svg(REGISTERS["IA32_SPEC_CTRL"])
    >>> "BHI_DIS_S" in picture, picture.count("<svg")
    (True, 1)
    """
    cell = STRIP_WIDTH / register.width
    parts = _strip(register, cell)
    # Names stand left of their line, near the left edge right of it; in this order no line crosses a name.
    rightward = [field for field in register if _line_x(field, register) <= LEFT_ROOM]
    leftward = [field for field in register if field not in rightward]
    fields = sorted(rightward, key=lambda field: field.low) + sorted(leftward, key=lambda field: -field.low)
    parts += [_callout(field, register, row) for row, field in enumerate(fields)]
    height = STRIP_TOP + STRIP_HEIGHT + LABEL * len(fields) + 10
    return _svg(STRIP_WIDTH + 2, height, f"Bit layout of {register.name}", _spoken(register), parts)


def _strip(register: Register, cell: float) -> list[str]:
    """The strip of all bits: dark where a field has the bit, and numbers where a byte or the register ends."""
    bits = range(register.width - 1, -1, -1)
    left = {bit: (register.width - 1 - bit) * cell + 1 for bit in bits}
    dark = "".join(
        f"M{left[bit]:g} {STRIP_TOP}h{cell:g}v{STRIP_HEIGHT}h-{cell:g}z" for bit in bits if register.defined >> bit & 1
    )
    lines = "".join(f"M{left[bit]:g} {STRIP_TOP}v{STRIP_HEIGHT}" for bit in bits[1:])
    numbered = [bit for bit in bits if bit % 8 == 0 or bit == register.width - 1]
    return [
        f'<path d="{dark}" fill-opacity=".42"/>',
        f'<path d="M1 {STRIP_TOP}h{STRIP_WIDTH}v{STRIP_HEIGHT}h-{STRIP_WIDTH}z{lines}" fill-opacity=".05" '
        f'stroke="currentColor" stroke-opacity=".5" stroke-width=".8"/>',
        _group([_text(left[bit] + cell / 2, STRIP_TOP - 5, str(bit)) for bit in numbered], 'font-size="11"'),
    ]


def _line_x(field: Field, register: Register) -> float:
    """Where the line of a field starts: the middle of its bits."""
    cell = STRIP_WIDTH / register.width
    return (register.width - field.low - field.width / 2) * cell + 1


def _callout(field: Field, register: Register, row: int) -> str:
    """A line from the field's bits down and sideways to its name."""
    high = field.low + field.width - 1
    x = _line_x(field, register)
    y = STRIP_TOP + STRIP_HEIGHT + LABEL * row + 14
    bits = str(field.low) if field.width == 1 else f"{high}:{field.low}"
    side = -1 if x > LEFT_ROOM else 1
    line = (
        f'<path d="M{x:g} {STRIP_TOP + STRIP_HEIGHT}V{y:g}h{10 * side}" fill="none" stroke="currentColor" '
        f'stroke-opacity=".6"/>'
    )
    name = _text(x + 15 * side, y + 4.5, f"{field.name} [{bits}]")
    return line + _group([name], f'text-anchor="{"end" if side < 0 else "start"}"')


def _spoken(register: Register) -> str:
    """The picture in words, for screen readers."""
    return "; ".join(f"bit {field.low}: {field.name}" for field in register)


# ---- registers over time

LANES = (  # what a lane is called, where its values are, and whose it is
    ("guest view", "guest_view", "--guest"),
    ("force mask (VMCS)", "mask", "--hardware"),
    ("SHADOW (VMCS)", "shadow", "--hardware"),
    ("processor", "register", "--hardware"),
    ("saved by KVM", "saved", "--kvm"),
)
STEP = 108
LEFT = 142
LANE = 34
HEAD = 58


@dataclass(frozen=True, slots=True)
class Timeline:
    """A drawn history; notebooks show the picture, terminals the title."""

    title: str
    html: str

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
    states = [row["vcpus"][vcpu] for row in rows]
    shown = [lane for lane in LANES if states[-1][lane[1]] is not None]

    parts = [*_heads(rows), *_runs(states), *_lanes(states, shown)]
    width, height = LEFT + len(rows) * STEP + 8, HEAD + (len(shown) + 1) * LANE + 4
    picture = _svg(width, height, title, _told(rows, states, shown), parts)
    label = escape(f"Timeline: {title}", quote=True)
    html = (
        f'<figure class="spec-timeline"><figcaption>{escape(title)}</figcaption>'
        f'<div class="spec-scroll" tabindex="0" role="group" aria-label="{label}" style="overflow-x:auto">'
        f'<div style="min-width:{0.88 * width:.0f}px;max-width:{width}px">{picture}</div></div></figure>'
    )
    return Timeline(title, html)


def _heads(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Above each step: what was done, with what, and what came of it."""
    names, details = [], []
    for index, row in enumerate(rows):
        x = LEFT + index * STEP + STEP / 2
        names.append(_text(x, 14, row["op"].replace("nested_", "L1→ ").replace("L1→ exit", "L2→ exit")))
        details += [_text(x, 31, _operand(row["arguments"])), _text(x, 47, _outcome(row["seen"]))]
    return [_group(names, f'font-size="12" {BOLD}'), _group(details, 'font-size="11"')]


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
    return f"{number:x}H" if value is None else f"{number:x}H ← {value:#x}"


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
    if not state["in_guest"]:
        return "host", "--host"
    if state["smm"]:
        return "SMM", "--hardware"
    return (f"L{state['level']}", f"--l{state['level']}")


def _runs(states: Sequence[dict[str, Any]]) -> list[str]:
    """Who runs after each step: a box in their colour, with their name in it."""
    boxes: dict[str, str] = {}
    names = []
    for index, state in enumerate(states):
        who, colour = _runner(state)
        x = LEFT + index * STEP
        box = f"M{x + 1} {HEAD + 5}h{STEP - 2}v{LANE - 10}h-{STEP - 2}z"
        boxes[colour] = boxes.get(colour, "") + box
        names.append(_text(x + STEP / 2, HEAD + 21, who))
    paths = [f'<path d="{box}" style="color:var({colour})"/>' for colour, box in boxes.items()]
    return [_group(paths, 'stroke="currentColor" fill-opacity=".16"'), _group(names, BOLD)]


def _lanes(states: Sequence[dict[str, Any]], lanes: Sequence[tuple[str, str, str]]) -> list[str]:
    """The registers: for each a lane with its values, bold where they changed."""
    labels = [_text(LEFT - 10, HEAD + 21, "runs")]
    outlines: list[str] = []
    first_values: list[str] = []
    changed: list[str] = []
    for number, (label, key, colour) in enumerate(lanes, start=1):
        y = HEAD + number * LANE
        lane = [state[key] for state in states]
        labels.append(_text(LEFT - 10, y + 21, label, colour))
        for first, last in _spans(lane):
            outlines.append(_bus(y, first, last))
            shown = "none" if lane[first] is None else repr(lane[first])
            value = _text(LEFT + (first + last) * STEP / 2, y + LANE / 2 + 4.5, shown)
            (changed if first else first_values).append(value)
    return [
        _group(labels, 'text-anchor="end"'),
        f'<path d="{"".join(outlines)}" fill="none" stroke="currentColor" stroke-width="1.2"/>',
        _group([*first_values, _group(changed, BOLD)], 'font-family="ui-monospace, monospace"'),
    ]


def _spans(values: Sequence[Any]) -> list[tuple[int, int]]:
    """Where each run of equal values begins and ends.

    >>> _spans([1, 1, 2])
    [(0, 2), (2, 3)]
    """
    starts = [index for index in range(len(values)) if index == 0 or values[index] != values[index - 1]]
    return list(zip(starts, [*starts[1:], len(values)], strict=True))


def _bus(y: int, first: int, last: int) -> str:
    """The outline of one run of equal values, as a logic analyser draws a bus: pointed where it changes."""
    half = LANE // 2 - 4
    flat = (last - first) * STEP - (10 if first else 5)
    left = f"M{LEFT + first * STEP + 5} {y + 4}l-5 {half} 5 {half}" if first else f"M{LEFT} {y + 4}v{2 * half}"
    return f"{left}h{flat}l5-{half}-5-{half}z"


def _told(
    rows: Sequence[dict[str, Any]], states: Sequence[dict[str, Any]], lanes: Sequence[tuple[str, str, str]]
) -> str:
    """The picture in words, for screen readers: every lane at first, then what changed."""
    sentences = []
    before: dict[str, Any] = {}
    for index, (row, state) in enumerate(zip(rows, states, strict=True)):
        changed = [f"{label} {state[key]!r}" for label, key, _ in lanes if not before or before[key] != state[key]]
        step = " ".join(word for word in (row["op"], _operand(row["arguments"]), _outcome(row["seen"])) if word)
        sentences.append(f"Step {index + 1}, {step}: {_runner(state)[0]} runs; {', '.join(changed) or 'no change'}.")
        before = state
    return " ".join(sentences)


# ---- SVG: what most elements share stands at the picture or at a group

BOLD = 'font-weight="600"'


def _text(x: float, y: float, text: str, colour: str = "") -> str:
    """One text, in the colour of a variable of the page if one is named."""
    style = f' style="color:var({colour})"' if colour else ""
    return f'<text x="{x:g}" y="{y:g}"{style}>{escape(text)}</text>' if text else ""


def _group(parts: Sequence[str], shared: str) -> str:
    content = "".join(parts)
    return f"<g {shared}>{content}</g>" if content else ""


def _svg(width: float, height: float, title: str, description: str, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {width:g} {height:g}" '
        f'fill="currentColor" font-family="system-ui, sans-serif" font-size="12.5" text-anchor="middle" '
        f'style="width:100%;height:auto">'
        f'<title class="nohighlight">{escape(title)}</title><desc class="nohighlight">{escape(description)}</desc>'
        f"{''.join(parts)}</svg>"
    )
