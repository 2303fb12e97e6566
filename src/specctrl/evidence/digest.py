"""What a result depends on, as one short name: a digest of the sources, or of those that one module needs."""

import ast
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

SOURCES = ("src", "spec", "vectors", "reference/c", "index.md", "conf.py")
PACKAGE = Path(__file__).resolve().parents[1]


def digest(root: Path, sources: tuple[str, ...] = SOURCES) -> str:
    """Return 16 hex digits that change when any source file under ``root`` changes, comes or goes.

    Style sheets and hidden files are no source: nothing that a page says depends on them.
    """
    return digest_of((path.relative_to(root).as_posix(), path) for path in _files(root, sources))


def digest_of(files: Iterable[tuple[str, Path]], *words: str) -> str:
    """The same of named files, and of words: a version, a parameter."""
    state = hashlib.sha256()
    for name, path in files:
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        state.update(f"{name}\0{content}\n".encode())
    for word in words:
        state.update(f"{word}\0".encode())
    return state.hexdigest()[:16]


def _files(root: Path, sources: tuple[str, ...]) -> Iterator[Path]:
    for source in sources:
        path = root / source
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            parts = file.relative_to(root).parts
            if file.is_file() and not any(part.startswith((".", "__pycache__", "_static")) for part in parts):
                yield file


def imported(*modules: str, package: Path = PACKAGE) -> list[tuple[str, Path]]:
    """The names and files of modules of the package, and of all of it that they import, however indirectly.

    Imports inside functions count.  What is read or imported by a name made at run time does not: who needs such
    a file names it.

    >>> dict(imported("specctrl.model.words"))["specctrl.model.words"].name
    'words.py'
    """
    found: dict[str, Path] = {}
    wanted = list(modules)
    while wanted:
        name = wanted.pop()
        file = _file_of(name, package)
        if file is None or name in found:
            continue  # a function or class of a module that is wanted too
        found[name] = file
        wanted += [name.rpartition(".")[0], *_imports(file, package.name)]
    return sorted(found.items())


def _file_of(module: str, package: Path) -> Path | None:
    first, *rest = module.split(".")
    path = package.joinpath(*rest)
    for file in (path / "__init__.py", path.with_suffix(".py")):
        if first == package.name and file.is_file():
            return file
    return None


def _imports(file: Path, package: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            raise ValueError(f"{file}:{node.lineno}: a relative import; name the package {package}")
