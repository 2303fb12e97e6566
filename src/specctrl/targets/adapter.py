"""``cmd:PROGRAM``: any program that speaks the adapter protocol performs the scenarios.

One JSON object a line goes to the program's standard input, one line comes back for each, in order::

    {"op": "begin", "host": {"part": …, "features": […], "spec_ctrl_shadow": true, "host_spec_ctrl": "0x401",
     "nested": true, "legacy_ibrs": false}, "profile": "spec", "assume": {"init-withdraws-report": true}}
    {"op": "create_vcpu", "vcpu": 0}
    {"op": "wrmsr", "vcpu": 0, "msr": "0x48", "value": "0x400"}

``begin`` starts each scenario and everything anew; ``{}``, ``{"unsupported": "why"}`` or
``{"profiles": […], "observes": […]}`` answers it.
A step comes with all defaults filled in, MSRs and values as hex strings, everything else as in the scenario;
the observation answers it, or ``{"unsupported": "why"}``, or ``{"misuse": "why"}``.
Each line is answered within 10 s.
After the last scenario standard input closes, and the program ends with status 0.
Standard error is the user's.  :mod:`specctrl.targets.plain` describes the form without JSON.
"""

import json
import os
import select
import shlex
import signal
import subprocess
import time
from collections.abc import Mapping
from typing import Any

from specctrl.model.outcomes import Misuse, Unsupported
from specctrl.scenario.format import ASSUMPTIONS, HOST, PROFILES, SHOWS
from specctrl.scenario.kinds import At, Json, Listing, Text, one_of, quoted
from specctrl.scenario.reading import Step, parse
from specctrl.scenario.running import TargetFailed
from specctrl.targets.plain import decode, encode

SECONDS_A_LINE = 10.0
LONGEST_ANSWER = 1 << 20
DEFAULT_PROFILES = frozenset([PROFILES[0]])


class AdapterTarget:
    """A program that performs scenarios; it is started with the first one and serves all of them."""

    max_unsupported: int | None = None

    def __init__(self, command: str, plain: bool = False, seconds: float = SECONDS_A_LINE) -> None:
        self.name = f"cmd:{command}"
        self.profiles = DEFAULT_PROFILES
        self.observes: frozenset[str] | None = None
        self._command = command
        self._plain = plain
        self._seconds = seconds
        self._program: Program | None = None

    def begin(self, host: str | dict[str, Any], profile: str, assume: dict[str, bool]) -> None:
        """Tell the program of the scenario's host; its answer says what it implements and sees."""
        if self._program is None:
            self._program = Program(self._command, self._seconds)
        self.profiles, self.observes = DEFAULT_PROFILES, None
        answer = self._ask({
            "op": "begin", "host": HOST.write(host), "profile": profile, "assume": {**ASSUMPTIONS, **assume},
        })
        for key in answer:
            if key not in ("profiles", "observes", "unsupported") and not key.startswith("x-"):
                raise self._nonsense(f"begin cannot be answered with {quoted(key)}", answer)
        if "profiles" in answer:
            self.profiles = self._names("profiles", answer)
        if "observes" in answer:
            self.observes = self._names("observes", answer)
            for key in sorted(self.observes):
                if key not in SHOWS and not key.startswith("x-"):
                    why = f"observes: {quoted(key)} is no key that can be observed; {one_of(SHOWS, key)}"
                    raise self._nonsense(why, answer)
        self._stop_if_unsupported(answer)

    def step(self, step: Step) -> Mapping[str, Json]:
        """Have the program perform a step."""
        answer = self._ask(step.message())
        self._stop_if_unsupported(answer)
        if "misuse" in answer:
            raise Misuse(str(answer["misuse"]))
        return answer

    def end(self) -> None:
        """Nothing is sent: the next ``begin`` starts anew."""

    def close(self) -> None:
        """Close the program's input and wait for its end; TargetFailed unless that is a good one."""
        if self._program is not None:
            self._program.finish()
            self._program = None

    def _ask(self, message: Mapping[str, Json]) -> dict[str, Json]:
        assert self._program is not None
        line = encode(message) if self._plain else json.dumps(message)
        text = self._program.exchange(line)
        if self._plain:
            try:
                return decode(text)
            except ValueError as error:
                raise self._nonsense(str(error), text) from None
        at = At(self.name)
        answer = parse(text, at)
        if at.problems:
            raise self._nonsense(at.problems[0].reason, text)
        if not isinstance(answer, dict):
            raise self._nonsense("an answer is one JSON object", text)
        return answer

    def _stop_if_unsupported(self, answer: Mapping[str, Json]) -> None:
        if "unsupported" in answer:
            raise Unsupported(str(answer["unsupported"]))

    def _names(self, key: str, answer: Mapping[str, Json]) -> frozenset[str]:
        at = At(self.name)
        names = Listing(Text("a name")).read(answer[key], at / key)
        if at.problems:
            raise self._nonsense(f"{key}: {at.problems[0].reason}", answer)
        return frozenset(names)

    def _nonsense(self, reason: str, answer: Json) -> TargetFailed:
        assert self._program is not None
        self._program.kill()
        return TargetFailed(f"{self.name} answered nonsense: {reason}; the answer was {quoted(answer, 200)}")


class Program:
    """A child process that answers one line with one line; it is killed if it does not."""

    def __init__(self, command: str, seconds: float, name: str | None = None) -> None:
        self._name = f"cmd:{command}" if name is None else name
        self._seconds = seconds
        self._received = b""
        try:
            self._process = subprocess.Popen(
                shlex.split(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0,
                process_group=0)  # a group of its own, so that its children can be ended with it
        except (OSError, ValueError, IndexError) as error:
            raise TargetFailed(f"{self._name} cannot be started: {error}") from None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input, self._output = self._process.stdin, self._process.stdout
        os.set_blocking(self._input.fileno(), False)
        os.set_blocking(self._output.fileno(), False)

    @property
    def pid(self) -> int:
        """The process' number."""
        return self._process.pid

    def exchange(self, line: str) -> str:
        """Send a line, return the answer without its newline; TargetFailed if there is none in time."""
        try:
            return self._exchange(line)
        except BaseException:
            self.kill()
            raise

    def _exchange(self, line: str) -> str:
        deadline = time.monotonic() + self._seconds
        self._receive(0)
        if self._received:
            raise TargetFailed(f"{self._name} said {self._said()} without being asked")
        unsent = f"{line}\n".encode()
        shown = line if len(line) <= 200 else line[:197] + "..."
        while b"\n" not in self._received:
            unsent = self._send(unsent)
            left = deadline - time.monotonic()
            if left <= 0:
                raise TargetFailed(f"{self._name} did not answer {shown} within {self._seconds:g} s")
            select.select([self._output], [self._input] if unsent else [], [], left)
            if not self._receive(0):
                ended = self._how_it_ended()
                raise TargetFailed(f"{self._name} {ended} instead of answering {shown}{self._half()}")
            if len(self._received) > LONGEST_ANSWER:
                raise TargetFailed(f"{self._name} answered nonsense: a line of over {LONGEST_ANSWER} bytes")
        answer, _, self._received = self._received.partition(b"\n")
        try:
            return answer.decode("utf-8")
        except UnicodeDecodeError:
            raise TargetFailed(f"{self._name} answered nonsense: {answer!r} is not UTF-8") from None

    def _send(self, unsent: bytes) -> bytes:
        """What is left after sending as much as the pipe takes; nothing if nobody reads any more."""
        try:
            return unsent[os.write(self._input.fileno(), unsent):] if unsent else b""
        except BlockingIOError:
            return unsent
        except BrokenPipeError:
            return b""

    def _receive(self, seconds: float) -> bool:
        """Take what has come within ``seconds``; False at the end of the output."""
        if not select.select([self._output], [], [], seconds)[0]:
            return True
        piece = os.read(self._output.fileno(), 1 << 16)
        self._received += piece
        return bool(piece)

    def finish(self) -> None:
        """Close the input and wait for a good end: status 0, nothing more said; nothing if it was killed."""
        if self._input.closed:
            return
        try:
            self._input.close()
            deadline = time.monotonic() + self._seconds
            while (left := deadline - time.monotonic()) > 0 and self._receive(left):
                if len(self._received) > LONGEST_ANSWER:
                    break
            if self._received:
                raise TargetFailed(f"{self._name} said {self._said()} after its last answer")
            try:
                status = self._process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                raise TargetFailed(f"{self._name} did not end when its input was closed") from None
            if status != 0:
                raise TargetFailed(f"{self._name} {self._how_it_ended()} after its last answer")
        finally:
            self.kill()

    def kill(self) -> None:
        """End the process, if it has not ended, and let go of its pipes."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._input.close()
        self._output.close()

    def _said(self) -> str:
        return quoted(self._received.decode("utf-8", "replace"), 200)

    def _half(self) -> str:
        return f", after the half line {self._said()}" if self._received else ""

    def _how_it_ended(self) -> str:
        try:
            status = self._process.wait(1)
        except subprocess.TimeoutExpired:
            return "closed its output"
        return f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
