"""Fetches what runs Python in the reader's browser: Pyodide's core from npm, Z3 for WebAssembly from PyPI.

Both are pinned here and nowhere else, with the digest of the very file.  Nothing is fetched when a page is read.
"""

import base64
import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from shutil import which
from tempfile import TemporaryDirectory

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


def core(cache: Path) -> Path:
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
    specctrl.site.pyodide.Tampered: pyodide.py is not the pinned file: sha512-...
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
    """Move what is complete into its place, at once."""
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(made, place)
