"""Finds a definition in the source by its dotted name: its file, its lines, its docstring. No Sphinx here."""

import ast
import importlib.util
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from specctrl.rules import resolve

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@dataclass(frozen=True, slots=True)
class Listing:
    """The lines of one definition, each with its number in the file."""

    name: str
    path: Path
    lines: tuple[tuple[int, str], ...]

    @property
    def first(self) -> int:
        """The number of its first line."""
        return self.lines[0][0]

    @property
    def text(self) -> str:
        """The lines alone, without the indentation they share."""
        return textwrap.dedent("\n".join(line for _, line in self.lines)) + "\n"


def module_path(module: str) -> Path:
    """Return a module's file; a ``LookupError`` says that there is none."""
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        spec = None
    if spec is None or spec.origin is None:
        raise LookupError(f"there is no module {module!r} to show")
    return Path(spec.origin)


@cache
def _parsed(path: Path, modified: int) -> tuple[ast.Module, tuple[str, ...]]:
    text = path.read_text("utf-8")
    return ast.parse(text), tuple(text.splitlines())


def _module(path: Path) -> tuple[ast.Module, tuple[str, ...]]:
    return _parsed(path, path.stat().st_mtime_ns)


def _names(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, _DEFINITIONS):
        yield node.name
    elif isinstance(node, ast.Assign):
        yield from (target.id for target in node.targets if isinstance(target, ast.Name))
    elif isinstance(node, ast.AnnAssign | ast.AugAssign) and isinstance(node.target, ast.Name):
        yield node.target.id


def _find(module: str, qualname: str) -> ast.stmt | None:
    body = _module(module_path(module))[0].body
    found: ast.stmt | None = None
    for part in qualname.split("."):
        found = next((node for node in body if part in _names(node)), None)
        if found is None:
            return None
        body = found.body if isinstance(found, ast.ClassDef) else []
    return found


def canonical(name: str) -> str:
    """Return the name under which the source defines what ``name`` says, whichever module re-exports it.

    >>> canonical("specctrl.site.definitions.resolve")
    'specctrl.rules.resolve'
    """
    module, qualname = _split(name)
    if _find(module, qualname) is None:
        found = resolve(name)
        found = found.fget if isinstance(found, property) else found
        home, inner = getattr(found, "__module__", None), getattr(found, "__qualname__", None)
        if not isinstance(home, str) or not isinstance(inner, str) or _find(home, inner) is None:
            raise LookupError(f"no source file defines {name!r}")
        return f"{home}.{inner}"
    return f"{module}.{qualname}"


def _split(name: str) -> tuple[str, str]:
    parts = name.split(".")
    for length in range(len(parts) - 1, 0, -1):
        module = ".".join(parts[:length])
        try:
            module_path(module)
        except LookupError:
            continue
        return module, ".".join(parts[length:])
    raise LookupError(f"there is no module for {name!r}")


def find(name: str, *, docstring: bool = False, head: bool = False) -> Listing:
    """Find a definition, without its docstring unless asked; ``head``: a class up to its first method."""
    name = canonical(name)
    module, qualname = _split(name)
    node = _find(module, qualname)
    assert node is not None, "canonical() found it"
    path = module_path(module)
    source = _module(path)[1]
    decorators = node.decorator_list if isinstance(node, _DEFINITIONS) else []
    first = min([node.lineno, *(decorator.lineno for decorator in decorators)])
    while first > 1 and source[first - 2].lstrip().startswith("#:"):
        first -= 1
    last = node.end_lineno or node.lineno
    if head and isinstance(node, ast.ClassDef):
        methods = [inner for inner in node.body if isinstance(inner, _DEFINITIONS)]
        if methods:
            last = min([methods[0].lineno, *(found.lineno for found in methods[0].decorator_list)]) - 1
    hidden = set() if docstring else _docstring_lines(node, source)
    shown = [(number, source[number - 1]) for number in range(first, last + 1) if number not in hidden]
    while not shown[-1][1].strip():
        shown.pop()
    return Listing(name, path, tuple(shown))


def _docstring_lines(node: ast.stmt, source: tuple[str, ...]) -> set[int]:
    if not isinstance(node, _DEFINITIONS) or ast.get_docstring(node) is None or len(node.body) == 1:
        return set()  # without its docstring an otherwise empty class would be no Python
    last = node.body[0].end_lineno or node.body[0].lineno
    if last < len(source) and not source[last].strip():
        last += 1  # the blank line after it
    return set(range(node.body[0].lineno, last + 1))


def public(module: str) -> Iterator[tuple[str, bool]]:
    """Yield each public function, class and method that a module defines, and whether it is a class.

    >>> sorted(name.rpartition(".")[2] for name, is_class in public("specctrl.site.definitions") if is_class)
    ['Listing']
    """
    for node in _module(module_path(module))[0].body:
        if isinstance(node, _DEFINITIONS) and not node.name.startswith("_"):
            name = f"{module}.{node.name}"
            yield name, isinstance(node, ast.ClassDef)
            if isinstance(node, ast.ClassDef):
                for inner in node.body:
                    if isinstance(inner, _DEFINITIONS) and not inner.name.startswith("_"):
                        yield f"{name}.{inner.name}", False


def unshown(module: str, shown: dict[str, bool]) -> list[str]:
    """List what ``module`` defines in public and no page shows.

    ``shown`` says of each name that has a listing whether that listing is whole. A class shown whole stands
    for its methods; a class of which every method is shown needs no listing of its own.
    """
    missing: list[str] = []
    names = list(public(module))
    for name, is_class in names:
        owner = name.rpartition(".")[0]
        if name in shown or shown.get(owner):
            continue
        methods = [inner for inner, _ in names if inner.startswith(name + ".")] if is_class else []
        if not methods or any(inner not in shown for inner in methods):
            missing.append(name)
    return missing
