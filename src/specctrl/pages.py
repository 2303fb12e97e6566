"""Reads the code of a page: its notebook cells and its prompts. No Sphinx here."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from textwrap import dedent

_FENCE = re.compile(r"(?P<indent>\s*)(?P<marks>`{3,}|~{3,})\s*(?P<info>.*?)\s*$")
_OPTION = re.compile(r"\s*:(?P<name>[a-z-]+):(?P<value>.*)$")
_PROMPTS = frozenset({"python", "py", "pycon", "{doctest}", "{code-block} python", "{code-block} pycon"})


@dataclass(frozen=True, slots=True)
class Block:
    """Code in a page; ``line`` is the number of its first line."""

    kind: str
    code: str
    line: int
    tags: str = ""


def blocks(text: str) -> Iterator[Block]:
    """Yield the cells (``kind`` is "cell") and the prompts of a page, in order.

    >>> [(b.kind, b.line) for b in blocks("```{code-cell} ipython3\\nx = 1\\n```\\n```py\\n>>> x\\n```")]
    [('cell', 2), ('prompts', 5)]
    """
    lines = text.splitlines()
    at = 0
    while at < len(lines):
        fence = _FENCE.match(lines[at])
        at += 1
        if fence is None:
            continue
        end = next((n for n in range(at, len(lines)) if _closes(lines[n], fence["marks"])), len(lines))
        block = _block(fence["info"], lines[at:end], at + 1)
        if block is not None:
            yield block
        at = end + 1


def _closes(line: str, marks: str) -> bool:
    return line.strip().startswith(marks) and not line.strip().strip(marks[0])


def _block(info: str, body: list[str], line: int) -> Block | None:
    tags = ""
    if info.startswith("{"):
        while body and (option := _OPTION.match(body[0])):
            tags = option["value"] if option["name"] == "tags" else tags
            body, line = body[1:], line + 1
    code = dedent("\n".join(body)) + "\n"
    if info.startswith("{code-cell}"):
        return Block("cell", code, line, tags)
    if info in _PROMPTS and re.search(r"^\s*>>> ", code, re.MULTILINE):
        return Block("prompts", code, line)
    return None
