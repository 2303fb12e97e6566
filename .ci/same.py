"""Says which files of two builds differ; leaves with 1 if any do."""

import sys
from pathlib import Path

LEFT_OUT = {".buildinfo", ".buildinfo.bak"}


def files(root: Path) -> dict[str, Path]:
    """Every file that is compared, by its path."""
    found = (path for path in root.rglob("*") if path.is_file() and path.name not in LEFT_OUT)
    return {path.relative_to(root).as_posix(): path for path in found}


def first_difference(one: bytes, other: bytes) -> str:
    """What stands in both where they begin to differ."""
    at = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return " | ".join(repr(text[max(0, at - 60) : at + 60]) for text in (one, other))


def main(one: str, other: str) -> int:
    """Compare, and say what was found."""
    here, there = files(Path(one)), files(Path(other))
    differ = [f"only in one: {name}" for name in sorted(here.keys() ^ there.keys())]
    for name in sorted(here.keys() & there.keys()):
        mine, theirs = here[name].read_bytes(), there[name].read_bytes()
        if mine != theirs:
            differ.append(f"differs: {name}: {first_difference(mine, theirs)}")
    for line in differ:
        print(line)
    same = len(here.keys() & there.keys()) - sum(line.startswith("differs") for line in differ)
    print(f"two builds of one commit: {same} files the same, {len(differ)} not")
    return 1 if differ or not here else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
