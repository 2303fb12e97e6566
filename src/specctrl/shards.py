"""The work of a long command in independent shards, each carried out by a process of this machine or of a cluster.

Results come in the order of the shards, whoever carries them out, so they are those of one process.  A result is kept
as soon as it is there: a run that broke goes on with what it lacks.
"""

import hashlib
import os
import pickle
import platform
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from specctrl.digest import PACKAGE, digest, digest_of
from specctrl.processes import workers
from specctrl.rules import data_folder
from specctrl.scenario.writing import write_whole

Shard = TypeVar("Shard")
Result = TypeVar("Result")
Told = Callable[[int, int], None]
"""Hears how many shards are done, and how many there are."""


def untold(done: int, of: int) -> None:
    """Nobody hears it."""


class ShardError(RuntimeError):
    """The shards cannot be carried out; the message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Workers:
    """Who carries out shards: ``jobs`` processes of this machine, or a dask cluster.

    ``jobs``: how many processes, 0 for one on each core; never more than there are shards, and never more than
    cores, unless ``oversubscribe``.
    ``scheduler``: the address of a dask scheduler, as ``tcp://host:8786``; its workers carry out everything.
    ``method``: how a process starts: ``spawn``, a new one, or ``fork``, a copy of this one.

    >>> Workers(jobs=1_000_000).processes(shards=1)
    1
    >>> Workers(jobs=7, oversubscribe=True).processes(shards=9)
    7
    """

    jobs: int = 0
    scheduler: str = ""
    oversubscribe: bool = False
    method: str = "spawn"

    def processes(self, shards: int) -> int:
        """How many processes so many shards get on this machine."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        most = max(cores, self.jobs) if self.oversubscribe else cores
        return max(1, min(self.jobs or cores, shards, most))

    @contextmanager
    def executor(self, shards: int) -> Iterator[Executor]:
        """Who carries out so many shards; ShardError if there is no such cluster."""
        if self.scheduler:
            with _cluster(self.scheduler) as executor:
                yield executor
            return
        with workers(self.processes(shards), self.method) as pool:
            yield pool


@contextmanager
def _cluster(address: str) -> Iterator[Executor]:
    try:
        from distributed import Client
    except ModuleNotFoundError as missing:
        raise ShardError(f"a scheduler needs {missing.name}; install specctrl[cluster]") from None
    try:
        client: Any = Client(address, timeout=10, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ShardError(f"no dask scheduler answers at {address}: {error}") from None
    with client:
        yield client.get_executor(pure=False)


def carry_out(
    work: Callable[[Shard], Result], shards: Sequence[Shard], workers: Workers | None = None,
    kept: Path | None = None, told: Told = untold, forget: bool = True,
) -> Iterator[Result]:
    """What ``work``, a function of a module, makes of each shard, in their order.

    Results are kept in the folder ``kept`` until all are made, or longer unless ``forget``; each is named by its work,
    its shard, the sources and the interpreter.  If the caller stops early, what has not begun is not done.

    ShardError if a process ends, if a worker of a cluster has other sources, or if a kept result cannot be read;
    what ``work`` raises is raised here.

    >>> list(carry_out(abs, [-1, 2, -3], Workers(jobs=1)))  # starts a process
    [1, 2, 3]
    """
    workers = workers or Workers()
    files = [None if kept is None else kept / f"{_name(work, shard)}.pickle" for shard in shards]
    done = {number: _read(file) for number, file in enumerate(files) if file is not None and file.is_file()}
    missing = [number for number in range(len(shards)) if number not in done]
    finished = len(done)
    told(finished, len(shards))
    with workers.executor(len(missing)) as executor:
        of_sources = sources()
        waiting: dict[Future[Result], int] = {}
        try:
            for number in missing:
                waiting[executor.submit(_carried_out, of_sources, work, shards[number])] = number
            ready = as_completed(waiting)
            for number in range(len(shards)):
                while number not in done:
                    future = next(ready)
                    which = waiting[future]
                    done[which] = future.result()
                    _write(files[which], done[which])
                    finished += 1
                    told(finished, len(shards))
                yield done.pop(number)
        except BrokenExecutor:
            raise ShardError(f"a process ended before its shard was done; {finished} of {len(shards)} are done"
                             + (", and kept: run the same command again" if kept is not None else "")) from None
        finally:
            for future in waiting:
                future.cancel()
    for file in files:
        if forget and file is not None:
            file.unlink(missing_ok=True)


def _carried_out(of_sources: str, work: Callable[[Shard], Result], shard: Shard) -> Result:
    if of_sources != sources():
        raise ShardError(f"{platform.node()} has other sources than the command: install the same version there")
    return work(shard)


@cache
def sources() -> str:
    """A digest of what a shard's result may depend on: the package, the pages, the vectors and the interpreter."""
    folders = (PACKAGE, data_folder("spec"), data_folder("vectors"))
    return digest_of([*(digest(folder, ["."]) for folder in folders), platform.python_version()])


@cache
def _beside() -> str:
    """A digest of what a checkout has besides; mutants are shown to tests, and the C reference is compared."""
    return digest(data_folder("spec").parent, ("tests", "reference"))


def _name(work: Callable[[Shard], Result], shard: Shard) -> str:
    return hashlib.sha256(f"{sources()} {_beside()} ".encode() + pickle.dumps((work, shard))).hexdigest()[:32]


def _read(file: Path) -> Any:
    try:
        return pickle.loads(file.read_bytes())
    except Exception as error:
        raise ShardError(f"{file} cannot be read ({error!r}); delete it") from None


def _write(file: Path | None, result: object) -> None:
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, pickle.dumps(result))
