"""What a built page depends on, as one short name: a digest of the sources."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

SOURCES = ("src", "spec", "vectors", "reference/c", "index.md", "conf.py")


def digest(root: Path, sources: tuple[str, ...] = SOURCES) -> str:
    """Return 16 hex digits that change when any source file under ``root`` changes, comes or goes.

    Style sheets and hidden files are no source: nothing that a page says depends on them.
    """
    state = hashlib.sha256()
    for path in _files(root, sources):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        state.update(f"{path.relative_to(root).as_posix()}\0{content}\n".encode())
    return state.hexdigest()[:16]


def _files(root: Path, sources: tuple[str, ...]) -> Iterator[Path]:
    for source in sources:
        path = root / source
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            parts = file.relative_to(root).parts
            if file.is_file() and not any(part.startswith((".", "__pycache__", "_static")) for part in parts):
                yield file
