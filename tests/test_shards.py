"""The work of a long command in shards: in order, kept, on no more processes than shards, here or on a cluster."""

import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import shard_work
from specctrl import shards
from specctrl.proof.prove import figures, prove_all
from specctrl.shards import ShardError, Workers, carry_out

CORES = len(os.sched_getaffinity(0))
TESTS = Path(__file__).parent


class TestOrder:
    @pytest.mark.parametrize("jobs", [1, 2])
    def test_results_come_in_the_order_of_the_shards(self, jobs):
        assert [0, 2, 4] == list(carry_out(shard_work.twice_the_first_late, [0, 1, 2], Workers(jobs)))

    def test_each_shard_that_is_done_is_told(self):
        told = []
        list(carry_out(abs, [1, 2, 3], Workers(1), told=lambda *now: told.append(now)))
        assert [(0, 3), (1, 3), (2, 3), (3, 3)] == told

    def test_what_the_work_raises_is_raised(self, tmp_path):
        with pytest.raises(ValueError, match="three"):
            list(carry_out(shard_work.fail_on_three, [(str(tmp_path), 3)], Workers(1)))

    def test_no_shards_have_no_results(self):
        assert [] == list(carry_out(abs, [], Workers(1)))


class TestJobs:
    def test_there_are_no_more_processes_than_shards(self):
        assert 1 == Workers(jobs=1_000_000, oversubscribe=True).processes(1)

    def test_there_are_no_more_processes_than_cores(self):
        assert CORES == Workers(jobs=1_000_000).processes(5_000_000)

    def test_more_than_cores_have_to_be_asked_for(self):
        assert CORES + 5 == Workers(CORES + 5, oversubscribe=True).processes(5_000_000)

    def test_there_is_one_for_each_core_where_nobody_says(self):
        assert CORES == Workers().processes(5_000_000)


class TestKept:
    def test_a_run_that_broke_goes_on(self, tmp_path):
        kept, ran = tmp_path / "kept", tmp_path / "ran"
        ran.mkdir()
        work = [(str(ran), number) for number in (1, 2, 3, 4)]
        with pytest.raises(ValueError, match="three"):
            list(carry_out(shard_work.fail_on_three, work, Workers(1), kept))
        for file in ran.iterdir():
            file.unlink()
        assert [1, 2] == list(carry_out(shard_work.fail_on_three, work[:2], Workers(1), kept))
        assert [] == list(ran.iterdir())

    def test_a_whole_run_leaves_nothing(self, tmp_path):
        assert [1, 2] == list(carry_out(abs, [-1, -2], Workers(1), tmp_path))
        assert [] == list(tmp_path.iterdir())

    def test_other_sources_have_other_results(self, tmp_path, monkeypatch):
        before = shards._name(abs, -1)
        monkeypatch.setattr(shards, "sources", lambda: "others")
        assert before != shards._name(abs, -1)

    def test_a_damaged_one_is_named(self, tmp_path):
        (tmp_path / f"{shards._name(abs, -1)}.pickle").write_bytes(b"\x80\x04")
        with pytest.raises(ShardError, match=r"\.pickle cannot be read .* delete it"):
            list(carry_out(abs, [-1], Workers(1), tmp_path))

    def test_a_process_that_ends_is_said_and_the_next_run_goes_on(self, tmp_path):
        work = [(str(tmp_path), number) for number in (1, 2, 3)]
        with pytest.raises(ShardError, match="of 3 are done, and kept: run the same command again"):
            list(carry_out(shard_work.die_once, work, Workers(1), tmp_path / "kept"))
        assert 1 == len(list((tmp_path / "kept").iterdir()))
        assert [1, 2, 3] == list(carry_out(shard_work.die_once, work, Workers(1), tmp_path / "kept"))


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_workers_end_with_their_parent(tmp_path, method):
    named = tmp_path / "worker"
    code = ("import shard_work\nfrom specctrl.shards import Workers, carry_out\n"
            "if __name__ == '__main__':\n"
            f"    list(carry_out(shard_work.stay, [{str(named)!r}], Workers(1, method={method!r})))\n")
    script = tmp_path / "parent.py"
    script.write_text(code, "utf-8")
    parent = subprocess.Popen([sys.executable, str(script)], env={**os.environ, "PYTHONPATH": os.pathsep.join(
        [str(TESTS), str(TESTS.parent / "src")])})
    try:
        wait_for(lambda: named.is_file() and named.read_text("utf-8"))
        worker = int(named.read_text("utf-8"))
        assert alive(worker)
    finally:
        parent.kill()
        parent.wait()
    wait_for(lambda: not alive(worker))


def alive(process: int) -> bool:
    """Whether a process runs; one that ended and that nobody asked about does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text("utf-8").rsplit(")")[-1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(true) -> None:
    """Wait until something is so."""
    until = time.monotonic() + 60
    while not true():
        assert time.monotonic() < until
        time.sleep(0.01)


NEEDS_DASK = pytest.mark.skipif(
    importlib.util.find_spec("distributed") is None, reason="needs dask.distributed: pip install 'specctrl[cluster]'")


@pytest.fixture(scope="module")
def cluster():
    """Two worker processes of dask, here."""
    from distributed import LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None) as running:
        yield Workers(scheduler=running.scheduler_address)


@NEEDS_DASK
class TestCluster:
    def test_it_has_the_results_of_one_process(self, cluster):
        work = list(range(20))
        here = list(carry_out(shard_work.twice_the_first_late, work, Workers(1)))
        assert here == list(carry_out(shard_work.twice_the_first_late, work, cluster))

    def test_a_proof_comes_out_the_same(self, cluster):
        claim = "supported_set_is_what_the_host_has"
        assert figures(prove_all("spec", Workers(1), claim)) == figures(prove_all("spec", cluster, claim))

    def test_a_worker_that_is_killed_changes_nothing(self, cluster, tmp_path):
        work = [(str(tmp_path), number) for number in range(20)]
        assert list(range(20)) == list(carry_out(shard_work.die_once, work, cluster))
        assert (tmp_path / "died").exists()

    def test_a_worker_with_other_sources_is_refused(self, cluster, monkeypatch):
        monkeypatch.setattr(shards, "sources", lambda: "others")
        with pytest.raises(ShardError, match="has other sources than the command"):
            list(carry_out(abs, [-1], cluster))


@NEEDS_DASK
def test_a_scheduler_that_does_not_answer_is_named():
    with pytest.raises(ShardError, match=r"no dask scheduler answers at tcp://127\.0\.0\.1:1"):
        list(carry_out(abs, [-1], Workers(scheduler="tcp://127.0.0.1:1")))


def test_without_dask_a_scheduler_is_an_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ShardError, match=r"a scheduler needs distributed; install specctrl\[cluster\]"):
        list(carry_out(abs, [-1], Workers(scheduler="tcp://127.0.0.1:1")))
