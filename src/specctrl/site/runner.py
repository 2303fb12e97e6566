"""Makes the pages' code runnable where it is read: serves Python and this package beside the pages.

Pyodide's core comes from npm, Z3 for WebAssembly from PyPI.  Both are pinned here and nowhere else, with the digest of
the very file; nothing is fetched when a page is read.  Without npm, or without a network to fetch with, the pages have
no Run buttons, and the build says so.
"""

import ast
import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from tempfile import TemporaryDirectory
from typing import Any

from docutils import nodes
from sphinx.addnodes import desc_signature
from sphinx.application import Sphinx
from sphinx.util import logging

from specctrl.rules import Block, blocks
from specctrl.site.definitions import module_path

logger = logging.getLogger(__name__)

FOLDER = "_static/python"
PACKAGE = "specctrl.zip"
DATA = ("spec", "vectors", "reference/c", "reference/upstream")
"""What the package reads besides itself; the pages and their code do."""
NEEDS_SPHINX = re.compile(rb"^from (?:sphinx|docutils)\b", re.MULTILINE)
PLAYGROUND = 'id="playground-here"'
LACKS_Z3 = "Z3 for WebAssembly could not be fetched when this site was built"


@dataclass(slots=True)
class Runner:
    """What one build serves: the folder of Pyodide's core, Z3's wheel and the package, each if it is there."""

    core: Path | None = None
    z3: Path | None = None
    package: Path | None = None

    def gather(self, app: Sphinx) -> None:
        """Fetch what is not in the cache, say in one line each what there is not, and pack the package."""
        if not app.config.page_runner or app.builder.format != "html":
            return
        cache = Path(app.confdir) / "_build" / "cache"
        without = "no page has Run buttons"
        try:
            self.core = core_of(cache)
            without = "pages that use Z3 have no Run buttons"
            self.z3 = z3_wheel(cache)
        except NotHere as why:
            logger.info("left out: %s: %s", without, why)
        except Tampered as why:
            logger.warning("%s", why, type="spec", subtype="runner")
        if self.core is not None:
            self.package = cache / PACKAGE
            pack(app.config.source_root, Path(app.confdir), self.package)

    def add_script(
        self, app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document | None
    ) -> None:
        """Give a page with code the script that puts a Run button beside each block."""
        if doctree is None or self.core is None or self.package is None:
            return
        source = Path(app.env.doc2path(pagename))
        found = list(blocks(source.read_text("utf-8"))) if source.suffix == ".md" else []
        code = [*map(python, found), *(f"import {module}" for module in documented(doctree))]
        if code:
            app.add_css_file("runner.css")
            app.add_js_file("runner.mjs", type="module", **self.attributes(imports(code, "z3")))
        if PLAYGROUND in context.get("body", ""):
            app.add_css_file("playground.css")
            app.add_js_file("playground.mjs", type="module")

    def attributes(self, needs_z3: bool) -> dict[str, Any]:
        """What a page's script is told: what to load, and how much that is; or what the page lacks."""
        assert self.core is not None
        assert self.package is not None
        if needs_z3 and self.z3 is None:
            return {"data-lacks": LACKS_Z3}
        wheels = [self.z3] if needs_z3 and self.z3 is not None else []
        size = sum(file.stat().st_size for file in [*self.core.iterdir(), self.package, *wheels])
        digest = hashlib.sha256(self.package.read_bytes()).hexdigest()[:8]
        archives = [f"{PACKAGE}?{digest}", *(wheel.name for wheel in wheels)]
        return {"data-megabytes": f"{size / 1e6:.1f}", "data-archives": " ".join(archives)}

    def copy(self, app: Sphinx, exception: Exception | None) -> None:
        """Put what the scripts load beside the pages."""
        target = Path(app.outdir) / FOLDER
        if exception is not None or app.builder.format != "html":
            return
        shutil.rmtree(target, ignore_errors=True)
        if self.core is None or self.package is None:
            return
        shutil.copytree(self.core, target)
        for file in (self.package, self.z3):
            if file is not None:
                shutil.copyfile(file, target / file.name)


def documented(doctree: nodes.document) -> list[str]:
    """The modules whose docstrings a page shows, if any has prompts; each runs among its module's names."""
    if not any(True for _ in doctree.findall(nodes.doctest_block)):
        return []
    return sorted({name for place in doctree.findall(desc_signature) if (name := place.get("module"))})


def pack(package: Path, root: Path, target: Path) -> None:
    """Write the package, with the pages and vectors that it reads, as a zip; the same sources give the same bytes."""
    files = {path.relative_to(package): path for path in package.rglob("*") if path.suffix in (".py", ".json")}
    for folder in DATA:
        files |= {Path("_data", path.relative_to(root)): path for path in (root / folder).rglob("*") if path.is_file()}
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(target, "w") as archive:
        for name, file in sorted(files.items()):
            content = file.read_bytes()
            hidden = any(part.startswith(("_static", "_templates", "__pycache__")) for part in name.parts)
            if not hidden and not (name.suffix == ".py" and NEEDS_SPHINX.search(content)):
                entry = zipfile.ZipInfo(f"{package.name}/{name.as_posix()}")  # dated 1980, whenever it is built
                archive.writestr(entry, content, zipfile.ZIP_DEFLATED, 9)


def python(block: Block) -> str:
    """The Python of a block; of prompts, without their marks.

    >>> python(Block("prompts", "  >>> x = [\\n  ... 1]\\n  >>> x\\n  [1]\\n", 1))
    'x = [\\n1]\\nx'
    """
    if block.kind == "cell":
        return block.code
    lines = [line.lstrip() for line in block.code.splitlines()]
    return "\n".join(line[4:] for line in lines if line.startswith((">>> ", "... ", "...")))


def imports(sources: Iterable[str], wanted: str) -> bool:
    """Whether these sources import ``wanted``, by themselves or by a module of this package.

    Imports inside functions are not followed: they are there so that a browser need not load what they name.

    >>> imports(["from specctrl import Machine"], "z3"), imports(["from specctrl.proof.prove import prove"], "z3")
    (False, True)
    """
    waiting, seen = list(sources), set[str]()
    while waiting:
        for node in ast.parse(waiting.pop()).body:
            names = {name.name for name in node.names} if isinstance(node, ast.Import) else set()
            if isinstance(node, ast.ImportFrom) and node.module:
                names = {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
            for name in names - seen:
                seen.add(name)
                if name.partition(".")[0] == wanted:
                    return True
                if name.partition(".")[0] == "specctrl":
                    try:
                        waiting.append(module_path(name).read_text("utf-8"))
                    except LookupError:
                        continue  # a function or a class, no module
    return False


# ---- fetching what is pinned

PYODIDE = "314.0.7"
PYODIDE_INTEGRITY = "sha512-0YvXxEhfEdpLfb/XkM2BFAeMROq0iMUX2bzzH9pOttyMcWkwq+HbE5uyuGD82LN7y2q+SNvi/6V5JEsOlD2R1A=="
CORE = ("pyodide.mjs", "pyodide.asm.mjs", "pyodide.asm.wasm", "python_stdlib.zip")
LOCK = "pyodide-lock.json"

Z3 = "z3_solver-5.3.3.0-py3-none-pyemscripten_2026_0_wasm32.whl"
Z3_SHA256 = "9381d9516345f53b21a8f4df243c5d608e9625aac658c3fb3975457bad260f60"
TAGS = ("--platform=pyemscripten_2026_0_wasm32", "--python-version=3.14", "--implementation=cp", "--abi=none")
"""What this Pyodide can load."""


class NotHere(Exception):
    """It cannot be fetched on this machine; the message says why."""


class Tampered(Exception):
    """What was fetched is not what is pinned."""


def core_of(cache: Path) -> Path:
    """Return a folder with Pyodide's core, fetched unless it is there; NotHere says why it cannot be.

    The lock file in it lists no package: what Pyodide's own lists would be loaded from a third party.
    """
    folder = cache / f"pyodide-{PYODIDE}"
    if folder.is_dir():
        return folder
    if which("npm") is None:
        raise NotHere("npm is not installed")
    with TemporaryDirectory() as scratch:
        command = ["npm", "pack", f"pyodide@{PYODIDE}", "--ignore-scripts", "--silent", "--fetch-retries=1"]
        _fetch([*command, "--pack-destination", scratch], scratch)
        tarball = Path(scratch, f"pyodide-{PYODIDE}.tgz")
        check(tarball, PYODIDE_INTEGRITY)
        made = Path(scratch, "made")
        made.mkdir()
        with tarfile.open(tarball) as archive:
            for name in (*CORE, LOCK):
                source = archive.extractfile(f"package/{name}")
                assert source is not None, f"{name} is no file of the package"
                (made / name).write_bytes(source.read())
        lock = json.loads((made / LOCK).read_text("utf-8"))
        (made / LOCK).write_text(json.dumps({"info": lock["info"], "packages": {}}, sort_keys=True), "utf-8")
        _put(made, folder)
    return folder


def z3_wheel(cache: Path) -> Path:
    """Return the file of Z3 for WebAssembly, fetched unless it is there; NotHere says why it cannot be."""
    file = cache / Z3
    if file.is_file():
        return file
    with TemporaryDirectory() as scratch:
        name, version = Z3.split("-")[:2]
        pinned = Path(scratch, "pinned.txt")
        pinned.write_text(f"{name}=={version} --hash=sha256:{Z3_SHA256}\n", "ascii")
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "--retries=1"]
        _fetch([*command, *TAGS, "--require-hashes", "-r", str(pinned), "-d", scratch], scratch)
        check(Path(scratch, Z3), "sha256-" + base64.b64encode(bytes.fromhex(Z3_SHA256)).decode())
        _put(Path(scratch, Z3), file)
    return file


def check(file: Path, integrity: str) -> None:
    """Raise Tampered unless the file has this digest, written as ``sha512-BASE64``.

    >>> check(Path(__file__), "sha512-AAAA")
    Traceback (most recent call last):
    specctrl.site.runner.Tampered: runner.py is not the pinned file: sha512-...
    """
    algorithm = integrity.partition("-")[0]
    digest = hashlib.new(algorithm, file.read_bytes()).digest()
    found = f"{algorithm}-{base64.b64encode(digest).decode()}"
    if found != integrity:
        raise Tampered(f"{file.name} is not the pinned file: {found}")


def _fetch(command: list[str], folder: str) -> None:
    what = Path(command[0]).name if command[0] != sys.executable else "pip"
    try:
        subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=180, check=True)
    except subprocess.TimeoutExpired:
        raise NotHere(f"{what} had not fetched it after 180 seconds") from None
    except subprocess.CalledProcessError as failed:
        said = [line for line in (failed.stderr or "").splitlines() if not line.startswith("WARNING")]
        if any("do not match the hashes" in line.lower() for line in said):
            raise Tampered("\n".join(said)) from None
        raise NotHere(f"{what} cannot fetch it (exit status {failed.returncode})") from None


def _put(made: Path, place: Path) -> None:
    """Move what is complete into its place, at once; if another build has put it there meanwhile, that stays."""
    place.parent.mkdir(parents=True, exist_ok=True)
    beside = place.with_name(f"{place.name}.{os.getpid()}")
    shutil.move(made, beside)
    try:
        beside.rename(place)
    except OSError:
        if not place.is_dir():
            raise
        shutil.rmtree(beside)
