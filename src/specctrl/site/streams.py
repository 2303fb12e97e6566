"""What a cell prints as one text, however the kernel cut it up on its way here.

A kernel sends what is printed a few times a second.  MyST-NB, asked to merge these pieces, ends each with a new line: a
piece that ends within a line is then two lines, and two builds of one commit differ.
"""

from typing import Any

from myst_nb.core import render

Output = Any
"""A NotebookNode of nbformat: a dictionary of which items are attributes too."""


def joined(outputs: list[Output] | None) -> list[Output]:
    r"""A cell's outputs, all pieces of one stream joined as they came; the text ends with one new line.

    >>> pieces = [{"output_type": "stream", "name": "stdout", "text": text} for text in ("one", "\ntwo\n", "three")]
    >>> [output["text"] for output in joined(pieces)]
    ['one\ntwo\nthree\n']
    """
    kept: list[Output] = []
    streams: dict[str, Output] = {}
    for output in outputs or ():
        if output["output_type"] != "stream":
            kept.append(output)
        elif output["name"] in streams:
            streams[output["name"]]["text"] += output["text"]
        else:
            streams[output["name"]] = output.copy()
            kept.append(streams[output["name"]])
    for stream in streams.values():
        stream["text"] = stream["text"].rstrip() + "\n"
    return kept


def install() -> None:
    """Have MyST-NB join in this way."""
    render.coalesce_streams = joined
