"""The package as it is given away: it works where nothing else is, and its bytes follow from the commit."""

import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from shutil import which

import pytest

from specctrl.rules import load_rules

ROOT = Path(__file__).parents[1]
SLOW = pytest.mark.skipif(
    not os.environ.get("SPECCTRL_SLOW"), reason="environments of their own take long: SPECCTRL_SLOW=1")


def run(*command: object, cwd: Path = ROOT, **environment: str) -> str:
    """What a command prints; it sees nothing of this checkout."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COV", "PYTEST"))}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=kept | environment, timeout=600,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def version(python: str) -> str:
    """Its version, as 3.11; nothing if it does not start, is too old, or can make no environment."""
    ask = "import ensurepip, sys, venv; print(*sys.version_info[:2], sep='.'); sys.exit(sys.version_info < (3, 11))"
    done = subprocess.run([python, "-c", ask], capture_output=True, text=True, timeout=60, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def pythons() -> dict[str, str]:
    """Each Python that is here, by its version: those on the path, and those of pyenv."""
    names = [found for minor in range(11, 20) if (found := which(f"python3.{minor}"))]
    kept = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = [*names, *map(str, sorted(kept.glob("3.1[1-9].*/bin/python3"))), sys.executable]
    return {said: python for python in reversed(found) if (said := version(python))}


PYTHONS = pythons() if os.environ.get("SPECCTRL_SLOW") else {version(sys.executable): sys.executable}


def build(source: Path, into: Path, *kinds: str, **environment: str) -> dict[str, bytes]:
    """The archives that are built there, by name."""
    options = [option for kind in kinds for option in ("-t", kind)]
    run(sys.executable, "-m", "hatchling", "build", *options, "-d", into, cwd=source, **environment)
    return {path.name: path.read_bytes() for path in into.iterdir()}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built once."""
    into = tmp_path_factory.mktemp("wheel")
    (name,) = build(ROOT, into, "wheel")
    return into / name


@SLOW
@pytest.mark.parametrize("python", PYTHONS.values(), ids=PYTHONS)
def test_the_wheel_alone_has_all_that_the_commands_need(python: str, wheel: Path, tmp_path: Path) -> None:
    run(python, "-m", "venv", tmp_path / "venv")
    there, empty = tmp_path / "venv" / "bin", tmp_path / "empty"
    empty.mkdir()
    run(there / "python", "-m", "pip", "install", "-q", "--no-index", "-c", ROOT / "constraints.txt", wheel)
    assert run(there / "python", "-c", "import specctrl; print(specctrl.__file__)", cwd=empty).startswith(str(tmp_path))

    def specctrl(*arguments: str) -> str:
        return run(there / "specctrl", *arguments, cwd=empty)

    released = json.loads((ROOT / "vectors" / "RELEASED.json").read_text("utf-8"))["released"]
    count, passed = re.findall(r"^(\d+) scenarios: (\d+) pass, 0 fail", specctrl("run"), re.MULTILINE)[0]
    assert count == passed
    assert 0 < int(count) <= len(released)
    assert "BHI_DIS_S" in specctrl("decode", "IA32_SPEC_CTRL", "0x401")
    assert {line.split()[0] for line in specctrl("rules", "list").splitlines()[1:]} == set(load_rules())
    assert "MUST" in specctrl("rules", "show", "cap.check.boolean")
    explored = specctrl("explore", "--bits", "BHI_DIS_S", "--pairs", "none", "--depth", "3", "--jobs", "1")
    assert re.search(r"0 of \d+ properties violated", explored)
    specctrl("export", "vectors", "vectors.tar")
    with tarfile.open(empty / "vectors.tar") as archive:
        assert len(archive.getnames()) > len(released)
    specctrl("export", "selftest", "test.c")
    assert "SPDX-License-Identifier" in (empty / "test.c").read_text()


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, bytes]]:
    """Built from two clones, with other paths, zones, file modes and places in a run."""
    if which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs a git checkout: two clones of the commit are built")
    made = []
    for name, zone, mask in (("one", "UTC", 0o022), ("another one", "Asia/Kathmandu", 0o077)):
        place = tmp_path_factory.mktemp(name)
        before = os.umask(mask)
        try:
            run("git", "clone", "-q", ROOT, place / name)
            made.append(build(place / name, place / "dist", TZ=zone))
        finally:
            os.umask(before)
    return made


class TestReleases:
    """The archives of a commit."""

    def test_two_clones_of_a_commit_give_the_same_bytes(self, twice: list[dict[str, bytes]]) -> None:
        one, other = twice
        assert sorted(name.rpartition(".")[2] for name in one) == ["gz", "whl"]
        assert one == other

    def test_what_is_under_gpl_alone_is_in_neither(self, twice: list[dict[str, bytes]], tmp_path: Path) -> None:
        for name, content in twice[0].items():
            (tmp_path / name).write_bytes(content)
            if name.endswith(".whl"):
                with zipfile.ZipFile(tmp_path / name) as archive:
                    names = archive.namelist()
            else:
                with tarfile.open(tmp_path / name) as opened:
                    names = opened.getnames()
            assert any(path.endswith("specctrl/__init__.py") for path in names)
            assert not [path for path in names if "reference/linux" in path]
