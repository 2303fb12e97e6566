"""The site: built from a clean clone, built again, unchanged; and how a build grows with pages."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from figures import Figure, Growth

ROOT = Path(__file__).resolve().parent.parent
AREA = "site"
WITHOUT_CODE = ("-D", "rule_evidence=0", "-D", "docstring_prompts=0", "-D", "page_runner=0")
"""No evidence, no prompts of docstrings, nothing that runs in the page."""


def build(source: Path, out: Path, *options: str) -> float:
    """Seconds that one build takes."""
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-q", "-j", "auto", "-d", str(out / "doctrees"), *options]
    start = time.perf_counter()
    done = subprocess.run([*command, str(source), str(out / "html")], cwd=source, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return time.perf_counter() - start


def grown(source: Path, out: Path) -> Iterator[tuple[int, float]]:
    """Numbers of pages, and the seconds that a build of so many takes; links to the others lead nowhere."""
    pages = sorted(path.relative_to(source).as_posix() for path in (source / "spec").glob("*.md"))
    for count in (5, 10, 20, len(pages)):
        chosen = ",".join(["index.md", *pages[:: max(1, len(pages) // count)][:count]])
        yield count, build(source, out / str(count), *WITHOUT_CODE, "-D", f"include_patterns={chosen}")


def measure() -> Iterator[Figure | Growth]:
    """Builds of a clone of the last commit, which keeps nothing from before."""
    with tempfile.TemporaryDirectory() as folder:
        clone, out = Path(folder, "clone"), Path(folder, "out")
        subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
        cold = build(clone, out)
        yield Figure(AREA, "cold, all evidence made", cold, "seconds")
        kept = build(clone, Path(folder, "again"))
        yield Figure(AREA, "anew, what code showed is kept", kept, "seconds", "cold", kept / cold)
        unchanged = build(clone, out)
        yield Figure(AREA, "unchanged", unchanged, "seconds", "cold", unchanged / cold)
        yield Growth(AREA, "no evidence", "pages", list(grown(clone, Path(folder, "grown"))))
