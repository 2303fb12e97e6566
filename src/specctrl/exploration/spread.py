"""An exploration of several worlds, each explored by a process of this machine or of a cluster."""

from collections.abc import Sequence
from pathlib import Path

from specctrl.exploration.events import World
from specctrl.exploration.histories import Exploration
from specctrl.exploration.search import Progress, Work, explore, search
from specctrl.model.kvm.variant import Variant
from specctrl.shards import Workers, carry_out


def explore_spread(
    variant: Variant,
    tasks: Sequence[World],
    bits: int,
    depth: int | None,
    workers: Workers,
    progress: Progress | None = None,
    work: Work = search,
    kept: Path | None = None,
) -> Exploration:
    """What :func:`~specctrl.exploration.search.explore` finds, each world a shard; one process needs no other.

    What is done stays in the folder ``kept`` until all is.  ShardError as :func:`~specctrl.shards.carry_out`.
    """
    if not workers.scheduler and workers.processes(len(tasks)) == 1:
        return explore(variant, tasks, bits, depth, progress, work)
    total = Exploration()
    for found in carry_out(_explored, [(work, variant, world, bits, depth) for world in tasks], workers, kept):
        total.add(found)
        if progress is not None:
            progress(total.states, total.transitions)
    return total


def _explored(shard: tuple[Work, Variant, World, int, int | None]) -> Exploration:
    work, variant, world, bits, depth = shard
    return work(variant, world, bits, depth, None)
