"""Pictures as inline SVG: the bit layout of a register, and the registers over the steps of a history.

Lines and text are in ``currentColor``, so that they follow the page's light or dark theme; who runs is shown by
a word and, where the page defines the variables ``--host``, ``--l1``, ``--l2``, by a colour too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from specctrl.machine import Machine
from specctrl.registers import Field, Register, msr_number

STRIP_WIDTH = 704
STRIP_TOP = 18
STRIP_HEIGHT = 24
LABEL = 19
LEFT_ROOM = 200


def layout_svg(register: Register) -> str:
    """The bit layout of one register: a strip of all its bits, and a line from each field to its name.

    >>> from specctrl.registers import REGISTERS
    >>> picture = layout_svg(REGISTERS["IA32_SPEC_CTRL"])
    >>> "BHI_DIS_S" in picture, picture.count("<svg")
    (True, 1)
    """
    cell = STRIP_WIDTH / register.width
    parts = [_strip_cell(register, bit, cell) for bit in range(register.width - 1, -1, -1)]
    # Names stand left of their line, near the left edge right of it; in this order no line crosses a name.
    rightward = [field for field in register if _line_x(field, register) <= LEFT_ROOM]
    leftward = [field for field in register if field not in rightward]
    fields = sorted(rightward, key=lambda field: field.low) + sorted(leftward, key=lambda field: -field.low)
    parts += [_callout(field, register, row) for row, field in enumerate(fields)]
    height = STRIP_TOP + STRIP_HEIGHT + LABEL * len(fields) + 10
    return _svg(STRIP_WIDTH + 2, height, f"Bit layout of {register.name}", _spoken(register), parts)


def _strip_cell(register: Register, bit: int, cell: float) -> str:
    """One bit of the strip: dark if a field has it; its number above where a byte or the register ends."""
    x = (register.width - 1 - bit) * cell + 1
    shade = 0.42 if register.defined >> bit & 1 else 0.05
    box = (
        f'<rect x="{x:g}" y="{STRIP_TOP}" width="{cell:g}" height="{STRIP_HEIGHT}" fill="currentColor" '
        f'fill-opacity="{shade}" stroke="currentColor" stroke-opacity="0.5" stroke-width="0.8"/>'
    )
    if bit % 8 == 0 or bit == register.width - 1:
        return box + _text(x + cell / 2, STRIP_TOP - 5, str(bit), "middle", size=11)
    return box


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
    leftward = x > LEFT_ROOM
    end, anchor = (x - 10, "end") if leftward else (x + 10, "start")
    line = (
        f'<path d="M{x:g} {STRIP_TOP + STRIP_HEIGHT}V{y:g}H{end:g}" fill="none" stroke="currentColor" '
        f'stroke-opacity="0.6" stroke-width="1"/>'
    )
    return line + _text(end - 5 if leftward else end + 5, y + 4.5, f"{field.name} [{bits}]", anchor, size=13)


def _spoken(register: Register) -> str:
    """The picture in words, for screen readers."""
    return "; ".join(f"bit {field.low}: {field.name}" for field in register)


# ---- registers over time

LANES = (
    ("guest view", "guest_view"),
    ("force mask (VMCS)", "mask"),
    ("SHADOW (VMCS)", "shadow"),
    ("processor", "register"),
    ("saved by KVM", "saved"),
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
    lanes = [(label, [state[key] for state in states]) for label, key in LANES if states[-1][key] is not None]

    parts = [_step_head(index, row) for index, row in enumerate(rows)]
    parts.append(_text(LEFT - 10, HEAD + 21, "runs", "end", size=13))
    parts += [_runs(index, state) for index, state in enumerate(states)]
    for number, (label, values) in enumerate(lanes, start=1):
        y = HEAD + number * LANE
        parts.append(_text(LEFT - 10, y + 21, label, "end", size=13))
        parts += _bus(y, values)
    width, height = LEFT + len(rows) * STEP + 8, HEAD + (len(lanes) + 1) * LANE + 4
    picture = _svg(width, height, title, _told(rows, states, lanes), parts)
    label = escape(f"Timeline: {title}", quote=True)
    html = (
        f'<figure class="spec-timeline"><figcaption>{escape(title)}</figcaption>'
        f'<div class="spec-scroll" tabindex="0" role="group" aria-label="{label}" style="overflow-x:auto">'
        f'<div style="min-width:{0.88 * width:.0f}px;max-width:{width}px">{picture}</div></div></figure>'
    )
    return Timeline(title, html)


def _step_head(index: int, row: dict[str, Any]) -> str:
    x = LEFT + index * STEP + STEP / 2
    operand, outcome = _operand(row["arguments"]), _outcome(row["seen"])
    return (
        _text(
            x,
            14,
            row["op"].replace("nested_", "L1→ ").replace("L1→ exit", "L2→ exit"),
            "middle",
            size=12,
            bold=True,
        )
        + _text(x, 31, operand, "middle", size=11)
        + _text(x, 47, outcome, "middle", size=11)
    )


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


def _runs(index: int, state: dict[str, Any]) -> str:
    who, colour = _runner(state)
    x, y = LEFT + index * STEP, HEAD + 5
    return (
        f'<rect x="{x + 1}" y="{y}" width="{STEP - 2}" height="{LANE - 10}" rx="3" '
        f'style="fill:var({colour}, currentColor);fill-opacity:.16;stroke:var({colour}, currentColor)"/>'
        + _text(x + STEP / 2, HEAD + 21, who, "middle", size=12.5, bold=True)
    )


def _bus(y: float, values: Sequence[Any]) -> list[str]:
    """One lane: a segment for each run of equal values, with its value in it, as a logic analyser draws a bus."""
    parts: list[str] = []
    start = 0
    for index in range(1, len(values) + 1):
        if index < len(values) and values[index] == values[start]:
            continue
        left, right = LEFT + start * STEP, LEFT + index * STEP
        top, middle, bottom = y + 4, y + LANE / 2, y + LANE - 4
        begin = (
            f"M{left + 5} {top:g}L{left} {middle:g}L{left + 5} {bottom:g}"
            if start
            else f"M{left} {top}L{left} {bottom}"
        )
        end = f"L{right - 5} {bottom}L{right} {middle}L{right - 5} {top}Z"
        parts.append(f'<path d="{begin}{end}" fill="none" stroke="currentColor" stroke-width="1.2"/>')
        shown = "none" if values[start] is None else repr(values[start])
        parts.append(_text((left + right) / 2, middle + 4.5, shown, "middle", size=12.5, bold=bool(start), mono=True))
        start = index
    return parts


def _told(
    rows: Sequence[dict[str, Any]], states: Sequence[dict[str, Any]], lanes: Sequence[tuple[str, list[Any]]]
) -> str:
    """The picture in words, for screen readers."""
    sentences = []
    for index, (row, state) in enumerate(zip(rows, states, strict=True)):
        values = ", ".join(f"{label} {lane[index]!r}" for label, lane in lanes)
        step = " ".join(word for word in (row["op"], _operand(row["arguments"]), _outcome(row["seen"])) if word)
        sentences.append(f"Step {index + 1}, {step}: {_runner(state)[0]} runs; {values}.")
    return " ".join(sentences)


# ---- SVG


def _text(x: float, y: float, text: str, anchor: str, size: float, bold: bool = False, mono: bool = False) -> str:
    weight = ' font-weight="600"' if bold else ""
    family = ' font-family="ui-monospace, monospace"' if mono else ""
    return (
        f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" font-size="{size:g}"{weight}{family} '
        f'fill="currentColor">{escape(text)}</text>'
    )


def _svg(width: float, height: float, title: str, description: str, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {width:g} {height:g}" '
        f'style="width:100%;height:auto;font-family:system-ui, sans-serif">'
        f"<title>{escape(title)}</title><desc>{escape(description)}</desc>{''.join(parts)}</svg>"
    )
