"""The adapters that others start from: they run, and pass the levels that they say."""

import shutil
import subprocess
import sys

import pytest

from published_files import ROOT
from specctrl.scenario import PASS, UNSUPPORTED, read, run
from specctrl.scenario.selection import Selection
from specctrl.targets import open_target

ADAPTERS = ROOT / "vectors" / "adapters"
COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


def results(target, **wanted):
    scenarios = [each for each in Selection(**wanted).of(read([ROOT / "vectors"])) if each.profile == "spec"]
    found = list(run(scenarios, lambda _: target))
    target.close()
    return found


class TestPython:
    def test_it_passes_what_can_be_seen_from_outside(self):
        target = open_target(f"cmd:{sys.executable} {ADAPTERS / 'adapter.py'}")
        found = results(target, levels=["processor", "force"])
        assert {PASS, UNSUPPORTED} == {result.status for result in found}
        assert all("cannot observe" in result.why for result in found if result.status == UNSUPPORTED)
        generated = [result.status for result in found if result.scenario.id.startswith("gen.")]
        assert generated.count(PASS) > 0.9 * len(generated)

    def test_what_it_has_not_is_unsupported_and_nothing_fails(self):
        found = results(open_target(f"cmd:{sys.executable} {ADAPTERS / 'adapter.py'}"), levels=["nested"])
        assert {UNSUPPORTED} == {result.status for result in found}

    def test_ioctls_that_it_has_only_half_do_not_break_it(self):
        found = results(open_target(f"cmd:{sys.executable} {ADAPTERS / 'adapter.py'}"), levels=["kvm-abi"])
        assert PASS in {result.status for result in found}


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The adapter in C, compiled."""
    target = tmp_path_factory.mktemp("adapter") / "adapter"
    source = str(ADAPTERS / "adapter.c")
    subprocess.run([COMPILER, "-std=c99", "-Wall", "-Wextra", "-Werror", "-o", str(target), source], check=True)
    return target


@pytest.mark.skipif(COMPILER is None, reason="no C compiler: the adapter in C is not tried")
class TestC:
    def test_it_passes_the_whole_level_of_the_processor(self, program):
        found = results(open_target(f"cmd:{program}", plain=True), levels=["processor"])
        assert [] == [(result.scenario.id, result.why) for result in found if result.status != PASS]

    def test_of_the_other_levels_it_fails_nothing(self, program):
        found = results(open_target(f"cmd:{program}", plain=True), levels=["force", "nested", "kvm-abi"])
        assert UNSUPPORTED in {result.status for result in found}
        assert [] == [(each.scenario.id, each.why) for each in found if each.status not in (PASS, UNSUPPORTED)]


@pytest.mark.parametrize("name", ["adapter.py", "adapter.c"])
def test_it_can_be_read_at_one_sitting(name):
    assert len((ADAPTERS / name).read_text().splitlines()) < 150
