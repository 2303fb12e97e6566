"""What a result depends on, as one short name: a digest of the sources, or of some rooms of the package."""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

SOURCES = ("src", "spec", "vectors", "reference/c", "index.md", "conf.py")
PACKAGE = Path(__file__).resolve().parent
CORE = ("__init__.py", "digest.py", "processes.py", "rules.py", "shards.py", "model", "scenario")
"""What every room above may import; proof imports nothing else, exploration that and, where it is compiled, proof."""


def digest(root: Path, sources: Iterable[str] = SOURCES) -> str:
    """Return 16 hex digits that change when any source file under ``root`` changes, comes or goes.

    Style sheets and hidden files are no source: nothing that a page says depends on them.
    """
    return digest_of(f"{file.relative_to(root).as_posix()}\0{hashlib.sha256(file.read_bytes()).hexdigest()}"
                     for file in _files(root, sources))


def digest_of(words: Iterable[str]) -> str:
    """The same of words: other digests, a version, a parameter."""
    return hashlib.sha256("".join(f"{word}\n" for word in words).encode()).hexdigest()[:16]


def _files(root: Path, sources: Iterable[str]) -> Iterator[Path]:
    for source in sources:
        path = root / source
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            parts = file.relative_to(root).parts
            if file.is_file() and not any(part.startswith((".", "__pycache__", "_static")) for part in parts):
                yield file
