"""Makes the locks: each package that an extra needs by its version, which constraints.txt has, and its files' digests.

Run by a Python that has pip-tools, the oldest that this package supports: ``python locks/make.py [NAME...]``.
It asks the index that pip asks here, and writes no address of it.
"""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from tempfile import TemporaryDirectory

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent

LOCKS = {
    "site": (["docs", "prove"], [], "builds the site, and proves"),
    "test": (["test"], ["site"], "tests it"),
    "browser": (["browser"], ["site", "test"], "tests the pages in a browser"),
    "bochs": (["bochs"], ["site", "test"], "runs on Bochs' processor"),
    "serve": (["serve"], ["site"], "serves the site while it is written"),
    "proofs-c": (["proofs-c"], ["site", "test"], "proves claims about the reference in C"),
    "cluster": (["cluster"], ["site", "test"], "hands work to other machines"),
    "bench": (["bench"], ["site", "test"], "draws what was measured"),
}
"""The extras that a lock is of, the locks that are installed before it, and what its packages do."""
BUILD = ["editables"]
"""What hatchling needs to install this checkout itself, beside what it says."""


def blocks(lock: str) -> dict[str, str]:
    """The lines of each package, by its name.

    >>> blocks("a==1 \\\\\\n    --hash=sha256:0\\nb[c]==2 \\\\\\n    --hash=sha256:1\\n")["b"]
    'b[c]==2 \\\\\\n    --hash=sha256:1\\n'
    """
    parts = re.split(r"^(?=[a-z0-9])", lock, flags=re.M | re.I)
    return {re.split(r"[\[=]", part)[0]: part for part in parts if re.match(r"[a-z0-9]", part, re.I)}


def compiled(names: list[str]) -> dict[str, str]:
    """Everything that these need, themselves included."""
    with TemporaryDirectory() as scratch:
        wanted, lock = Path(scratch, "wanted.in"), Path(scratch, "lock.txt")
        wanted.write_text("\n".join(names), "utf-8")
        options = ["--generate-hashes", "--allow-unsafe", "--no-annotate", "--no-header", "--no-strip-extras",
                   "--no-emit-index-url", "--no-emit-find-links", "--no-emit-trusted-host"]
        subprocess.run([sys.executable, "-m", "piptools", "compile", "-q", *options,
                        "-c", str(ROOT / "constraints.txt"), "-o", str(lock), str(wanted)], check=True)
        return blocks(lock.read_text("utf-8"))


def main(wanted: list[str]) -> None:
    """Make the locks of these names, or all of them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    for name in wanted or LOCKS:
        extras, before, does = LOCKS[name]
        names = [package for extra in extras for package in project["project"]["optional-dependencies"][extra]]
        if not before:
            names += project["build-system"]["requires"] + BUILD
        there = {package for lock in before for package in blocks((HERE / f"{lock}.txt").read_text("utf-8"))}
        found = compiled(names)
        beside = f", beside those of {' and '.join(before)}" if before else ""
        head = f"# Every package that {does}{beside}: its version, and the digests of its files.\n"
        text = "".join(block for package, block in sorted(found.items()) if package not in there)
        (HERE / f"{name}.txt").write_text(f"{head}# Made by locks/make.py.\n{text}", "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
