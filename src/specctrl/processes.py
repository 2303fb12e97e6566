"""Processes that work for this one: no more than the machine can bear, and none that outlives it.

What starts one is imported where that happens: in a browser there are none, and the rest of a module still works.
"""

import ctypes
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from concurrent.futures import Future, ProcessPoolExecutor

MOST = max(8, 2 * (os.cpu_count() or 1))
"""So many may be asked for."""

_PR_SET_PDEATHSIG = 1


def end_with(parent: int) -> None:
    """Let this process end as soon as its parent does, however that ends (Linux's PR_SET_PDEATHSIG).

    ^C is the parent's affair: it ends this one.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # it had ended before


def _pool(jobs: int, how: str) -> "ProcessPoolExecutor":
    """Its processes are born with SIGINT blocked: ^C finds none of them that cannot take it yet."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    class Pool(ProcessPoolExecutor):
        def submit(self, fn: Callable[..., Any], /, *args: Any, **named: Any) -> "Future[Any]":
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                return super().submit(fn, *args, **named)  # where processes are started
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)

    return Pool(jobs, get_context(how), end_with, (os.getpid(),))


@contextmanager
def workers(jobs: int, how: str) -> Iterator["ProcessPoolExecutor"]:
    """So many processes, as copies of this one or anew; if the block does not end well, they end at once.

    >>> with workers(1, "fork") as pool:
    ...     pool.submit(len, "abc").result()
    3
    """
    from multiprocessing import active_children, resource_tracker

    before = active_children()
    if how == "spawn":
        resource_tracker.ensure_running()  # it unblocks SIGINT when it starts, so it starts now
    pool = _pool(jobs, how)
    try:
        yield pool
    except BaseException:
        for worker in active_children():
            if worker not in before:
                worker.kill()
        pool.shutdown(wait=True, cancel_futures=True)
        raise
    pool.shutdown()
