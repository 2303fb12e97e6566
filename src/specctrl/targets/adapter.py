"""``cmd:PROGRAM``: any program that speaks the adapter protocol performs the scenarios.

One line goes to the program's standard input, one line comes back for each, in order, as JSON or as words
(:mod:`specctrl.targets.plain`); which of the two the program speaks is found out::

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
Standard error is the user's.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from specctrl.model.outcomes import Misuse, Unsupported
from specctrl.scenario.format import ASSUMPTIONS, HOST, PROFILES, SHOWS
from specctrl.scenario.kinds import At, Json, Listing, Text, one_of, quoted
from specctrl.scenario.reading import Step, parse
from specctrl.scenario.running import TargetFailed, TargetUnusable
from specctrl.targets.plain import BEGIN_SHOWS, decode, encode
from specctrl.targets.program import SECONDS_A_LINE, Broken, Program

DEFAULT_PROFILES = frozenset([PROFILES[0]])


class AdapterTarget:
    """A program that performs scenarios; it is started with the first one and, if it breaks, again with the next.

    ``plain``: it speaks words; else that is found out with the first line, which is JSON: what answers with anything
    but an object, or not at all, is asked again in words.
    """

    max_unsupported: int | None = None

    def __init__(self, command: str, plain: bool = False, seconds: float = SECONDS_A_LINE) -> None:
        self.name = f"cmd:{command}"
        self.profiles = DEFAULT_PROFILES
        self.observes: frozenset[str] | None = None
        self._command = command
        self.seconds = seconds
        self.patience = seconds
        """Seconds for a line, but for the first one of a program that starts."""
        self._encode: Callable[[Mapping[str, Json]], str] | None = encode if plain else None
        self._program: Program | None = None

    def begin(self, host: str | dict[str, Any], profile: str, assume: dict[str, bool]) -> None:
        """Tell the program of the scenario's host; its answer says what it implements and sees."""
        self.began(*self.exchange([beginning(host, profile, assume)]))

    def began(self, text: str) -> None:
        """Take the answer to ``begin``."""
        self.profiles, self.observes = DEFAULT_PROFILES, None
        try:
            answer = self.answer(text)
        except TargetFailed as failure:
            raise TargetUnusable(failure) from None
        for key in answer:
            if key not in BEGIN_SHOWS and not key.startswith("x-"):
                raise TargetUnusable(self._nonsense(f"begin cannot be answered with {quoted(key)}", answer))
        if "profiles" in answer:
            self.profiles = self._names("profiles", answer)
        if "observes" in answer:
            self.observes = self._names("observes", answer)
            for key in sorted(self.observes):
                if key not in SHOWS and not key.startswith("x-"):
                    why = f"observes: {quoted(key)} is no key that can be observed; {one_of(SHOWS, key)}"
                    raise TargetUnusable(self._nonsense(why, answer))
        stop_if_unsupported(answer)

    def step(self, step: Step) -> Mapping[str, Json]:
        """Have the program perform a step."""
        answer = self.answer(*self.exchange([step.message()]))
        stop_if_unsupported(answer)
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

    def kill(self) -> None:
        """End the program without further words, and all that it started."""
        if self._program is not None:
            self._program.kill()
            self._program = None

    # ---- lines

    def exchange(self, messages: Sequence[Mapping[str, Json]]) -> list[str]:
        """What the program answers to messages; the first one of a program that does not run yet is ``begin``."""
        first = [] if self._program is not None and not self._program.killed else [self._start(messages[0])]
        assert self._encode is not None
        assert self._program is not None
        try:
            lines = map(self._encode, messages[len(first):])
            return [*first, *self._program.exchange(*lines, seconds=self.patience)]
        except Broken as broken:
            broken.answers = [*first, *broken.answers]
            raise

    def _start(self, message: Mapping[str, Json]) -> str:
        """Start the program, and its first answer."""
        if self._encode is None:
            return self._find_out(message)
        self._program = Program(self._command, self.seconds)
        return self._program.exchange(self._encode(message))[0]

    def _find_out(self, message: Mapping[str, Json]) -> str:
        """Whether the program speaks JSON or words, and its first answer."""
        self._program = Program(self._command, self.seconds)
        in_json = json.dumps(message)
        try:
            (answer,) = self._program.exchange(in_json)
            if answer.lstrip().startswith("{"):
                self._encode = json.dumps
                return answer
            said = f"answered {in_json} with {quoted(answer, 200)}"
        except Broken as broken:
            said = str(broken).removeprefix(f"{self.name} ")
            self._program = Program(self._command, self.seconds)
        try:
            (answer,) = self._program.exchange(encode(message))
            decode(answer)
        except (Broken, ValueError) as why:
            self.kill()
            words = str(why).removeprefix(f"{self.name} ")
            raise TargetUnusable(f"{self.name} speaks neither JSON nor words: it {said}; in words: {words}") from None
        self._encode = encode
        return answer

    def answer(self, text: str) -> dict[str, Json]:
        """A line as an answer; TargetFailed if it is none."""
        if self._encode is encode:
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

    def _names(self, key: str, answer: Mapping[str, Json]) -> frozenset[str]:
        at = At(self.name)
        names = Listing(Text("a name")).read(answer[key], at / key)
        if at.problems:
            raise TargetUnusable(self._nonsense(f"{key}: {at.problems[0].reason}", answer))
        return frozenset(names)

    def _nonsense(self, reason: str, answer: Json) -> TargetFailed:
        self.kill()
        return TargetFailed(f"{self.name} answered nonsense: {reason}; the answer was {quoted(answer, 200)}")


def beginning(host: str | dict[str, Any], profile: str, assume: Mapping[str, bool]) -> dict[str, Json]:
    """The message that begins a scenario, with every assumption.

    >>> beginning("skylake-server", "spec", {})["host"]["host_spec_ctrl"]
    '0x1'
    """
    return {"op": "begin", "host": HOST.write(host), "profile": profile, "assume": {**ASSUMPTIONS, **assume}}


def stop_if_unsupported(answer: Mapping[str, Json]) -> None:
    """Unsupported, if that is the answer."""
    if "unsupported" in answer:
        raise Unsupported(str(answer["unsupported"]))
