"""What a dask cluster costs beside the pool of this machine: from which size of work it pays."""

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

from figures import Figure, Missing

from specctrl.shards import Workers, carry_out

AREA = "cluster"
MANY = 400
"""So many shards that do nothing."""


def seconds(workers: Workers, shards: Sequence[int]) -> float:
    """How long these shards take, to the last result."""
    begin = time.perf_counter()
    assert list(carry_out(abs, shards, workers)) == list(shards)
    return time.perf_counter() - begin


def measure() -> Iterator[Figure]:
    """One process of each kind; a cluster's runs already when a command begins, and the pool's does not."""
    try:
        from distributed import LocalCluster
    except ModuleNotFoundError:
        raise Missing("dask.distributed") from None
    first, rest = {}, {}
    here = Workers(jobs=1)
    with LocalCluster(n_workers=1, threads_per_worker=1, host="127.0.0.1", dashboard_address=None) as running:
        seconds(here, [1])  # imports what both need
        for name, workers in (("pool", here), ("cluster", Workers(scheduler=running.scheduler_address))):
            first[name] = seconds(workers, [1])
            rest[name] = (seconds(workers, range(MANY)) - seconds(workers, [1])) / (MANY - 1)
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import distributed"], check=True)
    yield Figure(AREA, "dask.distributed, imported", time.perf_counter() - began, "seconds")
    for what, each, scale, unit in (
            ("to the first result", first, 1, "seconds"), ("each further shard", rest, 1000, "ms")):
        yield Figure(AREA, f"pool, {what}", scale * each["pool"], unit)
        ratio = each["cluster"] / each["pool"]
        yield Figure(AREA, f"cluster, {what}", scale * each["cluster"], unit, "the pool", ratio)


if __name__ == "__main__":
    print(*measure(), sep="\n")
