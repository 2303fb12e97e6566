"""The comparison of the policies as pictures: one move at a glance, and every cell.

A result is shown by its glyph; its colour, a variable of the site's style sheet, only repeats it.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html import escape

from specctrl.exploration.policies import HOSTS, Cell, Result
from specctrl.model.vmm.policies import GUESTS, NOT_COMPUTED, POLICIES

GLYPHS: dict[Result, str] = {
    Result.PROTECTED: "·",
    Result.PAYS_MORE: "+",
    Result.PAYS_TWICE: "2",
    Result.CANNOT_OPT_OUT: "!",
    Result.BY_CHOICE: "o",
    Result.EXPOSED: "×",  # noqa: RUF001 - the sign is meant
    Result.REFUSED: "-",
}
"""The sign of each result."""

HOST_LETTERS = {
    "cascade-lake": "C",
    "ice-lake-server": "I",
    "sapphire-rapids": "S",
    "sapphire-rapids-no-control": "N",
    "sierra-forest": "F",
    "diamond-rapids": "D",
}
"""The letter of each host, in the picture of every cell."""

TILE = 14
SIDE = len(HOSTS)
BLOCK = SIDE + 1  # tiles, with the gap to the next block
LEFT = 2  # tiles, for the letters of the sources
TOP = 2  # tiles, for the names of the policies
HEAD = 2  # tiles above a row of blocks, for the guest's name and the letters of the destinations


@dataclass(frozen=True, slots=True)
class Drawn:
    """A picture or a table; notebooks show it, terminals its title."""

    title: str
    html: str

    def __repr__(self) -> str:
        return f"<drawn: {self.title}>"

    def _repr_html_(self) -> str:
        return self.html


def name_of(result: Result) -> str:
    """The result as a name for the style sheet.

    >>> name_of(Result.PAYS_MORE)
    'pays-more'
    """
    return result.name.lower().replace("_", "-")


def at_a_glance(cells: Iterable[Cell], source: str, destination: str) -> Drawn:
    """A table of one move: a row for each policy, a column for each guest; and a row for what cannot be computed.

    ``cells`` are those of :func:`specctrl.exploration.policies.compare`, or some of them; KeyError if one of
    the table is missing.

    >>> from specctrl.exploration.policies import compare
    >>> table = at_a_glance(compare(), "ice-lake-server", "sapphire-rapids")
    >>> table, table.html.count("<td")
    (<drawn: ice-lake-server to sapphire-rapids>, 49)
    """
    chosen = {(cell.policy, cell.guest): cell for cell in cells if (cell.source, cell.destination) ==
              (source, destination)}
    title = f"{source} to {destination}"
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in GUESTS)
    rows = "".join(
        f'<tr><th scope="row">{escape(policy)}</th>'
        + "".join(_entry(chosen[policy, guest]) for guest in GUESTS) + "</tr>"
        for policy in POLICIES
    )
    for policy, why in NOT_COMPUTED.items():
        rows += f'<tr><th scope="row">{escape(policy)}</th><td colspan="{len(GUESTS)}">{escape(why)}</td></tr>'
    return Drawn(title, _framed(title, (
        f'<table class="spec-results"><caption>{escape(title)}</caption>'
        f'<thead><tr><th scope="col">policy</th>{head}</tr></thead><tbody>{rows}</tbody></table>'
    )))


def _entry(cell: Cell) -> str:
    """The result, as a link to the cell's history in the playground beside the page."""
    return (
        f'<td class="spec-result spec-result-{name_of(cell.result)}">'
        f'<a href="playground.html?cell={cell.id}&amp;policy={cell.policy}">'
        f'<span aria-hidden="true">{GLYPHS[cell.result]}</span> {cell.result.value}</a></td>'
    )


def _framed(label: str, content: str) -> str:
    """In a frame that scrolls sideways, by keyboard too."""
    return (
        f'<div class="spec-scroll spec-results-frame" tabindex="0" role="group" '
        f'aria-label="{escape(label, quote=True)}">{content}</div>'
    )


def legend(results: Iterable[Result] = Result) -> str:
    """What the signs mean, as HTML."""
    return '<ul class="spec-results-legend">' + "".join(
        f'<li><span class="spec-result spec-result-{name_of(result)}" aria-hidden="true">{GLYPHS[result]}</span> '
        f'{result.value}</li>' for result in results
    ) + "</ul>"


def every_cell(cells: Iterable[Cell], title: str = "Every cell of the comparison") -> Drawn:
    """A picture of all cells: a column of blocks for each policy, a row for each guest.

    A block has a row for each host where the guest boots and a column for each to which it moves.
    """
    found = list(cells)
    width = TILE * (LEFT + BLOCK * len(POLICIES))
    height = TILE * (TOP + (BLOCK + HEAD) * len(GUESTS))
    parts = [f"<defs>{''.join(_pattern(result) for result in Result)}</defs>"]
    parts += _headings()
    for result in Result:
        outline = "".join(_runs(found, result))
        if outline:
            parts.append(f'<path fill="url(#spec-{name_of(result)})" d="{outline}"/>')
    picture = (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}"><title class="nohighlight">{escape(title)}</title>'
        f'<desc class="nohighlight">{escape(" ".join(_told(found)))}</desc>'
        f'{"".join(parts)}</svg>'
    )
    letters = "".join(f"<li><b>{HOST_LETTERS[host]}</b> {host}</li>" for host in HOSTS)
    shown = [result for result in Result if any(cell.result is result for cell in found)]
    return Drawn(title, (
        f'<figure class="spec-results-picture"><figcaption>{escape(title)}</figcaption>{legend(shown)}'
        f'<ul class="spec-results-legend">{letters}</ul>{_framed(title, picture)}</figure>'
    ))


def _origin(policy: str, guest: str) -> tuple[int, int]:
    """The upper left corner of a block, in tiles."""
    return (LEFT + BLOCK * list(POLICIES).index(policy), TOP + HEAD + (BLOCK + HEAD) * list(GUESTS).index(guest))


def _pattern(result: Result) -> str:
    """One tile of a result, repeated over the cells that have it."""
    name = name_of(result)
    return (
        f'<pattern id="spec-{name}" width="{TILE}" height="{TILE}" patternUnits="userSpaceOnUse">'
        f'<rect class="spec-fill-{name}" x=".5" y=".5" width="{TILE - 1}" height="{TILE - 1}"/>'
        f'<text class="spec-ink-{name}" x="{TILE / 2:g}" y="{TILE - 3.5:g}">{GLYPHS[result]}</text></pattern>'
    )


def _headings() -> Iterator[str]:
    """The names of policies and guests, and the letters of the hosts."""
    for policy in POLICIES:
        first = _origin(policy, next(iter(GUESTS)))[0]
        yield _text(TILE * (first + SIDE / 2), TILE, policy, "spec-results-name")
    for guest, about in GUESTS.items():
        row = _origin(next(iter(POLICIES)), guest)[1]
        yield _text(0, TILE * (row - 1) - 3, f"{guest}: {about.title}", "spec-results-guest")
        for number, host in enumerate(HOSTS):
            yield _text(TILE * 1.4, TILE * (row + number + 1) - 3, HOST_LETTERS[host], "spec-results-letter")
            for policy in POLICIES:
                column = _origin(policy, guest)[0] + number
                yield _text(TILE * (column + 0.5), TILE * row - 2, HOST_LETTERS[host], "spec-results-letter")


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:g}" y="{y:g}">{escape(text)}</text>'


def _runs(cells: Iterable[Cell], result: Result) -> Iterator[str]:
    """The outline of the cells with this result; neighbours in a row are drawn as one."""
    hosts = list(HOSTS)
    at = set()
    for cell in cells:
        if cell.result is result:
            x, y = _origin(cell.policy, cell.guest)
            at.add((y + hosts.index(cell.source), x + hosts.index(cell.destination)))
    for y, x in sorted(at):
        if (y, x - 1) in at:
            continue
        length = 1
        while (y, x + length) in at:
            length += 1
        yield f"M{TILE * x} {TILE * y}h{TILE * length}v{TILE}h-{TILE * length}z"


def _told(cells: Iterable[Cell]) -> Iterator[str]:
    """The picture in words, for screen readers: how many cells of each block have which result."""
    blocks: dict[tuple[str, str], Counter[Result]] = {}
    for cell in cells:
        blocks.setdefault((cell.policy, cell.guest), Counter())[cell.result] += 1
    for (policy, guest), counts in blocks.items():
        yield f"{policy}, {guest}: " + ", ".join(f"{counts[item]} {item.value}" for item in counts) + "."
