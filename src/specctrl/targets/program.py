"""A program that answers lines with lines: the one place that starts, bounds and ends it.

It runs in a process group of its own, which is killed as a whole, whatever became of the program.  Time is bounded
for each line, and so is the length of an answer; nothing that it does hangs or fills whoever asks.
"""

import os
import select
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from specctrl.scenario.kinds import quoted
from specctrl.scenario.running import TargetFailed, TargetUnusable

SECONDS_A_LINE = 10.0
LONGEST_ANSWER = 1 << 20
_GLANCE = 0.05
"""Seconds between two looks at whether a program that says nothing still runs."""


class Broken(TargetFailed):
    """The program did not answer a line; ``answers`` are those to the lines before it."""

    def __init__(self, why: str, answers: Sequence[str] = ()) -> None:
        super().__init__(why)
        self.answers = answers


@contextmanager
def _undisturbed() -> Iterator[None]:
    """A signal that ends the command waits: in the midst of it a process would be started that nobody knows."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {which: signal.signal(which, lambda number, _: came.append(number)) or signal.SIG_DFL
              for which in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for which, handler in before.items():
            signal.signal(which, handler)
        for number in came:
            signal.raise_signal(number)


class Program:
    """A child process that answers each line with one line; it is killed if it does not."""

    def __init__(self, command: str, seconds: float = SECONDS_A_LINE, name: str | None = None) -> None:
        self._name = f"cmd:{command}" if name is None else name
        self._seconds = seconds
        self._received = b""
        try:
            words = shlex.split(command)
            if not words:
                raise ValueError("no program is named")
            with _undisturbed():
                self._process = subprocess.Popen(
                    words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, process_group=0)
                assert self._process.stdin is not None
                assert self._process.stdout is not None
                self._input, self._output = self._process.stdin, self._process.stdout
        except (OSError, ValueError) as error:
            raise TargetUnusable(f"{self._name} cannot be started: {error}") from None
        os.set_blocking(self._input.fileno(), False)
        os.set_blocking(self._output.fileno(), False)

    def __del__(self) -> None:
        if hasattr(self, "_output"):
            self.kill()  # a signal came before anybody could remember it

    @property
    def pid(self) -> int:
        """The process' number."""
        return self._process.pid

    @property
    def killed(self) -> bool:
        """Whether it was ended."""
        return self._input.closed

    def exchange(self, *lines: str, seconds: float | None = None) -> list[str]:
        """Send lines, return the answer to each without its newline; Broken if one does not come in time.

        The lines are sent without waiting for the answers between them; ``seconds`` are for each, if not the usual.
        """
        answers: list[str] = []
        try:
            self._exchange(lines, answers, self._seconds if seconds is None else seconds)
        except BaseException:
            self.kill()
            raise
        return answers

    def _exchange(self, lines: Sequence[str], answers: list[str], seconds: float) -> None:
        self._receive(0)
        if self._received:
            raise Broken(f"{self._name} said {self._said()} without being asked")
        unsent = "".join(f"{line}\n" for line in lines).encode()
        deadline = time.monotonic() + seconds
        while len(answers) < len(lines):
            line = lines[len(answers)]
            shown = line if len(line) <= 200 else line[:197] + "..."
            unsent = self._send(unsent)
            left = deadline - time.monotonic()
            if left <= 0:
                raise Broken(f"{self._name} did not answer {shown} within {seconds:g} s", answers)
            if not self._receive(min(left, _GLANCE), unsent):
                raise Broken(f"{self._name} {self._how_it_ended()} instead of answering {shown}{self._half()}", answers)
            if self._take(answers, len(lines)):
                deadline = time.monotonic() + seconds
            if len(self._received) > LONGEST_ANSWER:
                raise Broken(f"{self._name} answered nonsense: a line of over {LONGEST_ANSWER} bytes", answers)

    def _take(self, answers: list[str], wanted: int) -> bool:
        """Move whole lines from what was received to the answers; whether there were any."""
        lines = self._received.split(b"\n", wanted - len(answers))
        self._received = lines.pop()
        for line in lines:
            try:
                answers.append(line.decode("utf-8"))
            except UnicodeDecodeError:
                raise Broken(f"{self._name} answered nonsense: {line[:200]!r} is not UTF-8", answers) from None
        return bool(lines)

    def _send(self, unsent: bytes) -> bytes:
        """What is left after sending as much as the pipe takes; nothing if nobody reads any more."""
        try:
            return unsent[os.write(self._input.fileno(), unsent):] if unsent else b""
        except BlockingIOError:
            return unsent
        except BrokenPipeError:
            return b""

    def _receive(self, seconds: float, unsent: bytes = b"") -> bool:
        """Take what has come within ``seconds``; False if nothing can come any more.

        That is at the end of the output; and where the program has ended, though a child of it holds the output open.
        """
        ended = self._has_ended()
        if not select.select([self._output], [self._input] if unsent else [], [], 0 if ended else seconds)[0]:
            return not ended
        piece = os.read(self._output.fileno(), 1 << 16)
        self._received += piece
        return bool(piece)

    def finish(self) -> None:
        """Close the input and wait for a good end: status 0, nothing more said; nothing if it was killed."""
        if self.killed:
            return
        try:
            self._input.close()
            deadline = time.monotonic() + self._seconds
            while (left := deadline - time.monotonic()) > 0 and self._receive(min(left, _GLANCE)):
                if len(self._received) > LONGEST_ANSWER:
                    break
            if self._received:
                raise TargetFailed(f"{self._name} said {self._said()} after its last answer")
            while not self._has_ended():
                if time.monotonic() > deadline:
                    raise TargetFailed(f"{self._name} did not end when its input was closed")
                time.sleep(_GLANCE / 5)
            if (how := self._how_it_ended()) != "ended with status 0":
                raise TargetFailed(f"{self._name} {how} after its last answer")
        finally:
            self.kill()

    def kill(self) -> None:
        """End the program, and whatever it started and left in its process group; let go of its pipes."""
        if self._process.returncode is None:  # so its number, which is the group's, is not anybody else's yet
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._input.close()
        self._output.close()

    def _has_ended(self) -> bool:
        """Whether the program itself has ended; it is not reaped, so that its group can still be killed."""
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None

    def _how_it_ended(self) -> str:
        for _ in range(20):
            if self._has_ended():
                break
            time.sleep(_GLANCE)
        found = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        if found is None:
            return "closed its output"
        if found.si_code == os.CLD_EXITED:
            return f"ended with status {found.si_status}"
        return f"was ended by signal {found.si_status}"

    def _said(self) -> str:
        return quoted(self._received.decode("utf-8", "replace"), 200)

    def _half(self) -> str:
        return f", after the half line {self._said()}" if self._received else ""
