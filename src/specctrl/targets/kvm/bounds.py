"""What keeps a guest from running for ever: a time limit on KVM_RUN."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

REPEAT = 0.02
"""Seconds between two signals once the time is over: one that comes just before KVM_RUN does not interrupt it."""


class TimeLimit:
    """While it lasts, KVM_RUN may be used; once ``seconds`` are over, a signal interrupts it.

    Limits do not nest.  The main thread's only, as Python's signal handlers are.
    """

    active: "TimeLimit | None" = None

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.over = False
        self._handler: Any = None
        self._timer = (0.0, 0.0)

    def __enter__(self) -> "TimeLimit":
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("guests run in the main thread alone: a time limit needs its signals")
        if TimeLimit.active is not None:
            raise RuntimeError("a time limit is in force already")
        self._handler = signal.signal(signal.SIGALRM, self._ring)
        self._timer = signal.setitimer(signal.ITIMER_REAL, self.seconds, REPEAT)
        TimeLimit.active = self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        TimeLimit.active = None
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._handler)
        signal.setitimer(signal.ITIMER_REAL, *self._timer)  # whoever had it before goes on

    def _ring(self, _number: int, _frame: FrameType | None) -> None:
        self.over = True
