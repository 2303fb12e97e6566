"""What is installed is locked: each package by its version and the digests of its files."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LOCKS = (ROOT / "locks" / "site.txt", ROOT / "locks" / "test.txt")


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


class TestLocks:
    """What the two commands of the README need."""

    @pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
    def test_each_package_has_one_version_and_its_digests_and_no_registry(self, lock):
        assert len(locked(lock)) > 20
        for wanted, digests in locked(lock).items():
            assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", wanted)
            assert digests >= 1, wanted
        assert not re.search(r"https?:|file:|index-url|find-links", lock.read_text())

    def test_no_package_is_in_both_and_versions_are_those_of_the_constraints(self):
        def plain(lines):
            return {re.sub("[-_.]+", "-", name).lower(): version for name, _, version in
                    (line.partition("==") for line in lines)}

        site, test = (plain(locked(lock)) for lock in LOCKS)
        assert site.keys() & test.keys() == set()
        constraints = plain((ROOT / "constraints.txt").read_text().split())
        assert {**site, **test} == {name: constraints.get(name) for name in {**site, **test}}
