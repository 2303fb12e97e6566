"""The command line in processes of its own, bounded, and what becomes of them."""

import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SECONDS = 120.0
LIMIT = 2 << 30
"""Bytes of memory that a command may map."""


def started(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    """The command in a process of its own."""
    def bounded() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))

    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), **options.pop("env", {})}
    environment = {name: value for name, value in environment.items() if value is not None}
    given = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    flags = given.pop("flags", ())
    return subprocess.Popen([sys.executable, *flags, "-m", "specctrl.cli", *arguments], text=True, env=environment,
                            preexec_fn=bounded, start_new_session=True, **given)


def ended(*arguments: str, **options: Any) -> tuple[int, str, str]:
    """The command's status and what it said; no traceback."""
    process = started(*arguments, **options)
    try:
        out, err = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in err, err
    return process.returncode, out, err


def of_session(session: int) -> dict[int, str]:
    """The processes of a session that run, with their command lines."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] != "Z":
                found[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def dies(process: int) -> bool:
    """Whether a process is gone soon."""
    deadline = time.monotonic() + 5
    while alive(process) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not alive(process)


def noted(path: Path) -> int:
    """The number that a program writes into a file."""
    deadline = time.monotonic() + 30
    while not (path.exists() and path.read_text().endswith("\n")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return int(path.read_text())
