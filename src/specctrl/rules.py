"""The rules: normative sentences, stated in the pages of ``spec/`` and read here without Sphinx.

A rule is a colon fence in a page::

    :::{rule} cap.enable.before-vcpus
    :status: posted
    :source: v3 p1, kvm_vm_ioctl_enable_cap
    :layer: mechanism
    :code: specctrl.model.kvm.vm.Vm.enable_cap

    KVM MUST refuse the capability once a vCPU exists.
    :::
"""

import importlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from types import MappingProxyType

STATUSES: Mapping[str, str] = MappingProxyType(
    {
        "hardware": "the processor's manual says so",
        "posted": "the RFC says so and does so, or the Linux that the source names",
        "repaired": "the RFC means it, its code does not do it",
        "proposed": "this specification's own",
        "assumed": "no source could be read; listed among the unknowns",
    }
)
LAYERS: Mapping[str, str] = MappingProxyType(
    {
        "contract": "binds any hypervisor",
        "mechanism": "how KVM does it",
        "userspace": "binds the VMM",
        "guest": "binds the guest kernel",
    }
)
KEYWORDS = ("MUST NOT", "MUST", "SHOULD NOT", "SHOULD", "MAY")

_OPTIONS = ("status", "source", "defect", "layer", "code")
_WORD = r"[a-z0-9]+(?:-[a-z0-9]+)*"
_ID = re.compile(rf"{_WORD}(?:\.{_WORD})+(?:\+[2-9])?")
_DEFECT = re.compile(r"[DG]\d+(?:, [DG]\d+)*")
_KEYWORD = re.compile(rf"\b(?:{'|'.join(KEYWORDS)})\b")
_FENCE = re.compile(r"\s*(?P<marks>`{3,}|~{3,}|:{3,})\s*(?P<info>.*?)\s*$")
_OPTION = re.compile(r"\s*:(?P<name>[a-z-]+):\s*(?P<value>.*?)\s*$")


class RuleError(ValueError):
    """A rule cannot be accepted; the message names the page, the line and the reason."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One normative sentence, with where it comes from and the code that carries it out."""

    id: str
    status: str
    source: str
    defect: str
    layer: str
    code: tuple[str, ...]
    text: str
    page: str
    line: int

    @property
    def area(self) -> str:
        """The first word of the id, by which rules are grouped."""
        return self.id.partition(".")[0]

    @property
    def strength(self) -> str:
        """The first keyword of the sentence: MUST, MUST NOT, SHOULD, SHOULD NOT or MAY."""
        found = _KEYWORD.search(self.text)
        return found.group() if found else ""


@dataclass(frozen=True, slots=True)
class RawRule:
    """A rule fence as it stands in the page: found, not yet checked."""

    id: str
    options: tuple[tuple[str, str], ...]
    text: str
    page: str
    line: int
    closed: bool = True

    def error(self, reason: str) -> RuleError:
        """Make the exception that says where this rule stands and what is wrong with it."""
        return RuleError(f"{self.page}:{self.line}: rule {self.id!r}: {reason}")


@dataclass(frozen=True, slots=True)
class Fence:
    """A fence of a page: its marks, what stands behind them, its lines; ``line`` is the number of its first line."""

    marks: str
    info: str
    body: list[str]
    line: int
    closed: bool


def fences(text: str) -> Iterator[Fence]:
    """Find the fences of a page, in order, those inside a colon fence too.

    A fence inside a code fence is only a picture of one.

    >>> [fence.info for fence in fences(":::{note}\\n```py\\n```\\n:::\\n```text\\n:::{rule} a.b\\n:::\\n```")]
    ['{note}', 'py', 'text']
    """
    lines = text.splitlines()
    at = 0
    while at < len(lines):
        opening = _FENCE.match(lines[at])
        at += 1
        if opening is None or (opening["marks"].startswith(":") and not opening["info"]):
            continue
        marks = opening["marks"]
        end = next((n for n in range(at, len(lines)) if _closes(lines[n], marks)), len(lines))
        yield Fence(marks, opening["info"], lines[at:end], at, closed=end < len(lines))
        if not marks.startswith(":"):
            at = end + 1


def _closes(line: str, marks: str) -> bool:
    fence = _FENCE.match(line)
    return fence is not None and fence["marks"].startswith(marks) and not fence["info"]


def scan(text: str, page: str) -> Iterator[RawRule]:
    """Find the rule fences of a page.

    >>> [raw.id for raw in scan(":::{rule} a.b\\n:::\\n```\\n:::{rule} c.d\\n:::\\n```", "p.md")]
    ['a.b']
    """
    for fence in fences(text):
        if fence.marks.startswith(":") and fence.info.startswith("{rule}"):
            id = fence.info.removeprefix("{rule}").strip()
            yield _raw(id, fence.body, page, fence.line, closed=fence.closed)


def _raw(id: str, body: list[str], page: str, line: int, *, closed: bool) -> RawRule:
    options = []
    while body and (option := _OPTION.match(body[0])):
        options.append((option["name"], option["value"]))
        body = body[1:]
    text = "\n".join(part.strip() for part in body).strip()
    return RawRule(id, tuple(options), text, page, line, closed)


def make_rule(raw: RawRule) -> Rule:
    """Check a fence and turn it into a rule.

    >>> make_rule(RawRule("no dots", (), "It MUST be.", "spec/page.md", 3))
    Traceback (most recent call last):
    specctrl.rules.RuleError: spec/page.md:3: rule 'no dots': not an id: ...
    """
    if not raw.closed:
        raise raw.error("the fence is never closed")
    if not _ID.fullmatch(raw.id):
        raise raw.error("not an id: lower case, dots, hyphens inside a word")
    given = dict(raw.options)
    if len(given) < len(raw.options):
        raise raw.error("an option is given twice")
    if unknown := given.keys() - set(_OPTIONS):
        raise raw.error(f"unknown option {min(unknown)!r}; known: {', '.join(_OPTIONS)}")
    for name in _OPTIONS:
        if not given.get(name) and (name != "defect" or name in given):
            raise raw.error(f"option {name!r} is missing")
    status, layer, defect = given["status"], given["layer"], given.get("defect", "")
    if status not in STATUSES:
        raise raw.error(f"unknown status {status!r}; known: {', '.join(STATUSES)}")
    if layer not in LAYERS:
        raise raw.error(f"unknown layer {layer!r}; known: {', '.join(LAYERS)}")
    if status == "repaired" and not defect:
        raise raw.error("a repaired rule names its defect")
    if defect and not _DEFECT.fullmatch(defect):
        raise raw.error(f"not a defect: {defect!r}; write D2, or D1, D18")
    if "\n\n" in raw.text:
        raise raw.error("more than one paragraph; what is not the rule itself stands beside it")
    if not _KEYWORD.search(raw.text):
        raise raw.error(f"no {', '.join(KEYWORDS)} in its sentence")
    code = tuple(name.strip() for name in given["code"].split(","))
    text = " ".join(raw.text.split())
    return Rule(raw.id, status, given["source"], defect, layer, code, text, raw.page, raw.line)


def resolve(name: str) -> object:
    """Import what a dotted name says; a ``LookupError`` says what does not exist.

    >>> resolve("specctrl.rules.Rule.area").__doc__[:14]
    'The first word'
    >>> resolve("specctrl.rules.Rule.missing")
    Traceback (most recent call last):
    LookupError: specctrl.rules.Rule has no 'missing'
    """
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        module = ".".join(parts[:length])
        try:
            found: object = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is not None and (module + ".").startswith(error.name + "."):
                continue
            raise
        for done, part in enumerate(parts[length:], length):
            if not hasattr(found, part):
                owner = ".".join(parts[:done])
                if part in getattr(found, "__annotations__", {}):
                    return None  # a field without a default has a name, and no object yet
                raise LookupError(f"{owner} has no {part!r}")
            found = getattr(found, part)
        return found
    raise LookupError(f"there is no module {parts[0]!r}")


def check_code(rule: Rule) -> None:
    """Raise a :class:`RuleError` when a name that the rule binds does not exist."""
    for name in rule.code:
        try:
            resolve(name)
        except LookupError as error:
            raise RuleError(f"{rule.page}:{rule.line}: rule {rule.id!r}: code {name!r}: {error}") from None


def data_folder(name: str) -> Path:
    """Return ``spec``, ``vectors`` or ``reference/c``: the repository's own, else the installed package's copy."""
    package = Path(__file__).resolve().parent
    root = package.parents[1]
    if (root / "pyproject.toml").is_file() and (root / name).is_dir():
        return root / name
    return package / "_data" / name


def load_rules(folder: Path | None = None) -> dict[str, Rule]:
    """Read every rule of the pages in ``folder`` (default: the specification's own), in page order."""
    folder = data_folder("spec") if folder is None else folder
    rules: dict[str, Rule] = {}
    for page in sorted(folder.glob("*.md")):
        for raw in scan(page.read_text("utf-8"), f"{folder.name}/{page.name}"):
            rule = make_rule(raw)
            if earlier := rules.get(rule.id):
                raise raw.error(f"stated before, at {earlier.page}:{earlier.line}")
            rules[rule.id] = rule
    return rules


# ---- the code of a page: its notebook cells and its prompts

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
    for fence in fences(text):
        block = None if fence.marks.startswith(":") else _block(fence)
        if block is not None:
            yield block


def _block(fence: Fence) -> Block | None:
    body, line, tags = fence.body, fence.line + 1, ""
    if fence.info.startswith("{"):
        while body and (option := _OPTION.match(body[0])):
            tags = option["value"] if option["name"] == "tags" else tags
            body, line = body[1:], line + 1
    code = dedent("\n".join(body)) + "\n"
    if fence.info.startswith("{code-cell}"):
        return Block("cell", code, line, tags)
    if fence.info in _PROMPTS and re.search(r"^\s*>>> ", code, re.MULTILINE):
        return Block("prompts", code, line)
    return None
