"""``c``: the C reference, compiled with the system's compiler and driven through the adapter protocol."""

import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from specctrl.targets.adapter import AdapterTarget
from specctrl.targets.c_reference import ADAPTER, HEADERS, REGISTER_HEADER, ReferenceMissing, folder

COMPILERS = ("cc", "gcc", "clang")
FLAGS = ("-std=c99", "-O2")


class CannotBuild(Exception):
    """The C reference cannot be compiled here; the message says why."""


def compiler() -> list[str]:
    """The C compiler: the environment's CC with its arguments, else the first of cc, gcc, clang on PATH."""
    chosen = shlex.split(os.environ.get("CC", ""))
    if chosen:
        if shutil.which(chosen[0]) is None:
            raise CannotBuild(f"a C compiler is needed: CC is {chosen[0]!r}, which is not there")
        return chosen
    for name in COMPILERS:
        if found := shutil.which(name):
            return [found]
    raise CannotBuild(f"a C compiler is needed: none of {', '.join(COMPILERS)} is on PATH, and CC is not set")


def cache_folder() -> Path:
    """Where programs are kept: ``_build/c`` of a checkout, else the user's cache."""
    root = Path(__file__).resolve().parents[3]
    if (root / "pyproject.toml").is_file():
        return root / "_build" / "c"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "specctrl" / "c"


def build(source: Path, flags: Sequence[str] = FLAGS, cache: Path | None = None) -> Path:
    """The adapter compiled from the folder ``source``.

    CannotBuild without a compiler, and with the compiler's first words if it refuses.
    """
    return compiled("adapter", source / ADAPTER, flags, [source / name for name in (*HEADERS, REGISTER_HEADER)], cache)


def compiled(
    name: str, source: Path, flags: Sequence[str], includes: Sequence[Path] = (), cache: Path | None = None
) -> Path:
    """One C file compiled, unless the same text was compiled the same way before; ``includes`` belong to the text.

    CannotBuild without a compiler, and with the compiler's first words if it refuses.
    """
    command = [*compiler(), *flags]
    key = hashlib.sha256("\0".join(command).encode())
    try:
        for file in (*includes, source):
            key.update(hashlib.sha256(file.read_bytes()).digest())
        kept = cache_folder() if cache is None else cache
        kept.mkdir(parents=True, exist_ok=True)
        program = kept / f"{name}-{key.hexdigest()[:16]}"
        if not program.exists():
            with tempfile.TemporaryDirectory(dir=kept) as fresh:
                _compile([*command, "-o", f"{fresh}/{name}", str(source)])
                os.replace(f"{fresh}/{name}", program)
    except OSError as error:
        raise CannotBuild(f"{error.filename or command[0]}: {error.strerror}") from None
    return program


def _compile(command: list[str]) -> None:
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
        errors = [line for line in said if "error" in line]
        raise CannotBuild(f"{command[0]} does not compile it: {(errors or said)[0]}")


class CTarget(AdapterTarget):
    """The C reference of the profile ``spec``; guest kernels stand above it, see ``targets.guests``."""

    max_unsupported: int | None = 0

    def __init__(self) -> None:
        try:
            program = build(folder())
        except ReferenceMissing as missing:
            raise CannotBuild(str(missing)) from None
        super().__init__(shlex.quote(str(program)), plain=True)
        self.name = "c"
