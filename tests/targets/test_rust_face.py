"""The C reference from Rust: bindgen makes its face, and a toy VMM in Rust does what the one in C does."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from published_files import ROOT

C = ROOT / "reference" / "c"
TOOLS = ("make", "cc", "ar", "rustc", "bindgen")
MISSING = [tool for tool in TOOLS if shutil.which(tool) is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"no {', '.join(MISSING)} here: the face for Rust was not made")


def make(folder: Path, *arguments: object) -> str:
    """What make prints, where the project is not."""
    done = subprocess.run(["make", "-s", *map(str, arguments)], cwd=folder, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(C, tmp_path_factory.mktemp("face") / "c"))


def test_the_sample_in_rust_prints_what_the_one_in_c_prints(copy: Path) -> None:
    in_c = make(copy, "check").splitlines()[-2:]
    assert make(copy / "rust", "check").splitlines() == in_c
    assert in_c == ["guest reads 0x5, runs with 0x1, host has 0x1", "guest reads 0x4, runs with 0x400, host has 0x1"]


def test_the_face_of_all_parts_has_every_function(copy: Path) -> None:
    make(copy / "rust", "face", "PART=", "OUT=whole")
    face = (copy / "rust" / "whole" / "specctrl.rs").read_text()
    written = (copy / "specctrl.h").read_text()
    functions = re.findall(r"^(?:static inline|SPECCTRL_ACCESSOR) [^=;{]*?\b(specctrl_\w+)\(", written, re.MULTILINE)
    assert set(re.findall(r"pub fn (\w+)\(", face)) == {*functions}
    assert len(functions) > 70


def test_an_accessor_that_is_wrong_is_seen(copy: Path, tmp_path: Path) -> None:
    there = Path(shutil.copytree(copy, tmp_path / "c", ignore=shutil.ignore_patterns("build")))
    sample = there / "rust" / "sample.rs"
    text = sample.read_text()
    assert text.count(").shadow\n") == 1
    sample.write_text(text.replace(").shadow\n", ").shadow | 1\n"))
    assert make(there / "rust", "check").splitlines()[1] == "guest reads 0x5, runs with 0x401, host has 0x1"
