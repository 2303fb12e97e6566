"""What is installed is locked: each package by its version and the digests of its files."""

import importlib.util
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from hashlib import sha256
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LOCKS = sorted((ROOT / "locks").glob("*.txt"))
BESIDE = {"site": [], "serve": ["site"]}
"""The locks that are installed before one; before any other the two of ``make test``."""


def locked(lock):
    """Each package of a lock with its version and how many digests it has."""
    text = "\n".join(line for line in lock.read_text().splitlines() if not line.startswith("#"))
    blocks = [block for block in re.split(r"\n(?=\S)", text.replace("\\\n", " ")) if block.strip()]
    found = {}
    for block in blocks:
        wanted, *digests = block.split()
        assert all(re.fullmatch("--hash=sha256:[0-9a-f]{64}", digest) for digest in digests), block
        found[re.sub(r"\[.*\]", "", wanted)] = len(digests)  # pip wants the extras of a package named
    return found


def plain(lines):
    """Versions by the names that all spellings of a package share."""
    return {re.sub("[-_.]+", "-", name).lower(): version for name, _, version in
            (line.partition("==") for line in lines)}


class TestLocks:
    """What the targets of the Makefile install."""

    @pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
    def test_each_package_has_one_version_and_its_digests_and_no_registry(self, lock):
        assert locked(lock)
        for wanted, digests in locked(lock).items():
            assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", wanted)
            assert digests >= 1, wanted
        assert not re.search(r"https?:|file:|index-url|find-links", lock.read_text())

    @pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
    def test_a_package_is_in_no_two_that_are_installed_together(self, lock):
        before = BESIDE.get(lock.stem, ["site", "test"] if lock.stem != "test" else ["site"])
        for other in before:
            assert plain(locked(lock)).keys() & plain(locked(lock.with_stem(other))).keys() == set()

    def test_versions_are_those_of_the_constraints(self):
        constraints = plain((ROOT / "constraints.txt").read_text().split())
        for lock in LOCKS:
            assert plain(locked(lock)) == {name: constraints.get(name) for name in plain(locked(lock))}

    def test_every_extra_is_locked_with_what_installs_this_checkout(self):
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())
        extras = project["project"]["optional-dependencies"]
        wanted = {*chain(*extras.values(), project["build-system"]["requires"]), "editables"}
        names = {re.split("[<>=]", package)[0] for package in wanted}
        assert names <= {name for lock in LOCKS for name in plain(locked(lock))}

    def test_the_script_that_makes_them_knows_each(self):
        spec = importlib.util.spec_from_file_location("make_locks", ROOT / "locks" / "make.py")
        make = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(make)
        assert set(make.LOCKS) == {lock.stem for lock in LOCKS}
        for lock in LOCKS:
            found = {name: block.count("--hash") for name, block in make.blocks(lock.read_text()).items()}
            assert found == {wanted.partition("==")[0]: count for wanted, count in locked(lock).items()}


class TestInstalling:
    """``locks/install``, with a package of our own and pip told to ask nobody."""

    @pytest.fixture
    def wheel(self, tmp_path):
        file = tmp_path / "specctrl_probe-1-py3-none-any.whl"
        with zipfile.ZipFile(file, "w") as archive:
            info = "specctrl_probe-1.dist-info"
            archive.writestr("specctrl_probe.py", "")
            archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: specctrl-probe\nVersion: 1\n")
            archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            archive.writestr(f"{info}/RECORD", "")
        return file

    def install(self, wheel, digest):
        """What ``locks/install`` says, of a folder of locks with one package in it."""
        locks = wheel.parent / "locks"
        locks.mkdir()
        (locks / "install").write_text((ROOT / "locks" / "install").read_text())
        (locks / "one.txt").write_text(f"specctrl-probe==1 --hash=sha256:{digest}\n")
        environ = {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheel.parent),
                   "PIP_CONFIG_FILE": os.devnull, "PIP_TARGET": str(wheel.parent / "there")}
        return subprocess.run(["bash", locks / "install", sys.executable, "one"], env=environ, timeout=120,
                              capture_output=True, text=True, check=False)

    def test_the_locked_file_is_installed(self, wheel):
        done = self.install(wheel, sha256(wheel.read_bytes()).hexdigest())
        assert done.returncode == 0, done.stderr
        assert (wheel.parent / "there" / "specctrl_probe.py").is_file()

    def test_another_file_of_that_name_and_version_is_refused(self, wheel):
        done = self.install(wheel, sha256(b"another file").hexdigest())
        assert done.returncode == 3
        assert "this is not the file that is locked" in done.stderr
        assert not (wheel.parent / "there").exists()

    def test_what_has_no_wheel_here_is_not_built_unasked_and_how_to_ask_is_said(self, wheel):
        wheel.rename(wheel.with_name("specctrl_probe-1-cp311-cp311-win32.whl"))
        done = self.install(wheel.parent / wheel.name, sha256(b"").hexdigest())
        assert done.returncode == 1
        assert "FROM_SOURCE=yes" in done.stderr
