"""Keeps in the index for searching what a build that writes only some pages would lose of the others.

Sphinx reads the old index again for the pages that it does not write, but not their entries of the general index.
"""

import json
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

Entries = dict[str, list[tuple[str, str, str]]]
"""For each page its entries: what is looked up, its place in the page, and "main" for a definition."""


def entries_of(script: str) -> Entries:
    """The entries of the general index in a ``searchindex.js``, by page.

    >>> entries_of('Search.setIndex({"docnames":["a","b"],"indexentries":{"mask":[[1,"term-mask",true]]}})')
    {'b': [('mask', 'term-mask', 'main')]}
    """
    index: dict[str, Any] = json.loads(script[script.index("(") + 1 : script.rindex(")")])
    found: Entries = {}
    for entry, places in index["indexentries"].items():
        for page, place, main in places:
            found.setdefault(index["docnames"][page], []).append((entry, place, "main" if main else ""))
    return found


class Kept:
    """The entries that the last build had."""

    def __init__(self) -> None:
        self.entries: Entries = {}

    def read(self, app: Sphinx) -> None:
        """Read them before the index is written anew."""
        file = Path(app.outdir) / "searchindex.js"
        if app.builder.format == "html" and file.is_file():
            self.entries = entries_of(file.read_text("utf-8"))

    def give_back(self, app: Sphinx) -> list[Any]:
        """Add those of pages that this build did not write; no page of its own."""
        now: Entries = app.env._search_index_index_entries
        for page, entries in self.entries.items():
            if page in app.env.found_docs:
                now.setdefault(page, entries)
        return []
