"""Random histories performed by the emulator and by another implementation, compared after every step.

The other implementation is a program that speaks the adapter protocol; the C reference is one.
A history is made step by step from a seed, each step one that can happen in the emulator's present state.
After each step every vCPU is looked at.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from random import Random
from typing import Any

from specctrl.model.outcomes import Unsupported
from specctrl.scenario.format import KVM_ABI, OPERATIONS, SCHEMA
from specctrl.scenario.kinds import Json
from specctrl.scenario.machine import Machine
from specctrl.scenario.observation import Observation
from specctrl.scenario.random_steps import Call, Chooser
from specctrl.scenario.reading import Step
from specctrl.scenario.running import TargetFailed, TargetUnusable, differences, normalised
from specctrl.targets.adapter import AdapterTarget, beginning
from specctrl.targets.plain import decode, encode
from specctrl.targets.program import Broken

EVENTS = 50
"""Events in a history, besides the creation of its vCPUs and what they are offered."""
ABOVE = ("exposed", "overhead")
"""What guest kernels decide; the implementations that are compared stand below them."""
STRIKES = 3
"""So often must an operation be unsupported, and never supported, until it is left out of the histories."""


# ---- histories, and what the emulator shows

@dataclass(slots=True)
class Run:
    """One history: its steps, and what the emulator showed of each, as words."""

    seed: str
    host: Any
    assume: dict[str, bool]
    calls: list[Call] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)
    events: int = 0

    def add(self, call: Call, seen: Observation) -> None:
        """A step, and what the emulator showed."""
        self.calls.append(call)
        self.shown.append(encode({key: value for key, value in seen.items() if key not in ABOVE}))

    def look(self, machine: Machine) -> None:
        """Look at every vCPU: as :meth:`add` would, written out because two lines of three are of this kind."""
        for number in machine.vcpus:
            self.calls.append({"op": "observe", "vcpu": number})
            self.shown.append(_LOOK.format_map(machine.observe(vcpu=number)).lower().replace("none", "null"))

    def messages(self) -> list[dict[str, Json]]:
        """The history as an adapter is sent it."""
        return [beginning(self.host, "spec", self.assume), *map(message, self.calls)]

    def cut(self, count: int) -> "Run":
        """The first steps of the history."""
        return Run(self.seed, self.host, self.assume, self.calls[:count], self.shown[:count])


_LOOK = " ".join(f"{key}={{{key}!r}}" for key in OPERATIONS["observe"].shows if key not in ABOVE)


def step_of(call: Call) -> Step:
    """A call as a step that expects nothing."""
    return Step(call["op"], {key: value for key, value in call.items() if key != "op"}, {}, {})


def message(call: Call) -> dict[str, Any]:
    """A step as an adapter is sent it."""
    return step_of(call).message()


def history(seed: str, events: int = EVENTS, top: str = KVM_ABI, without: Sequence[str] = ()) -> Run:
    """The random history of that seed; ``top``: of this level at the most; ``without`` these operations.

    >>> run = history("0.0", 3)
    >>> run.events, history("0.0", 3).shown == run.shown
    (3, True)
    """
    chooser = Chooser(Random(seed), top, without)
    run = Run(seed, chooser.host, chooser.assume)
    for call, seen, is_event in chooser.history(events):
        run.add(call, seen)
        if "observe" not in without:
            run.look(chooser.machine)
        run.events += is_event
    return run


def replay(run: Run, calls: Sequence[Call], top: str = KVM_ABI) -> Run:
    """The same host with other steps; those that cannot happen, or need more than the level, are left out."""
    chooser = Chooser(Random(run.seed), top)
    chooser.host, chooser.assume = run.host, run.assume
    chooser.begin()
    again = Run(run.seed, run.host, run.assume)
    for call in calls:
        seen = chooser.take(call)
        if seen is not None:
            again.add(call, seen)
    again.events = sum(call["op"] != "observe" for call in again.calls)
    return again


# ---- what another implementation shows

@dataclass(frozen=True, slots=True)
class Finding:
    """What the other implementation does otherwise after the last step of ``run``, or instead of performing it."""

    run: Run
    observed: str

    def document(self) -> dict[str, Any]:
        """The history as a scenario: each step expects what the emulator shows; the last shows the difference."""
        steps = []
        for call, shown in zip(self.run.calls, self.run.shown, strict=True):
            step = message(call)
            if "to" in call:
                step["to"] = _spelt(call["to"])
            if shown:
                step["expect"] = decode(shown)
            steps.append(step)
        return {"schema": SCHEMA, "id": f"lockstep.seed-{self.run.seed.replace('.', '-')}",
                "host": _spelt(self.run.host), "assume": self.run.assume, "steps": steps}

    def __str__(self) -> str:
        expected = self.run.shown[-1] or "ok"
        return f"after {encode(message(self.run.calls[-1]))} the emulator shows {expected}, the target {self.observed}"


def _spelt(host: Any) -> Any:
    if isinstance(host, str) or "host_spec_ctrl" not in host:
        return host
    return {**host, "host_spec_ctrl": f"{host['host_spec_ctrl']:#x}"}


Watch = Callable[[int], AbstractContextManager[Any]]
"""What surrounds the making of each history, by its number."""


class Lockstep:
    """One comparison with a program.

    ``supported``: the operations that the program performed.
    ``left_out``: how often each was not compared, because the program answered ``unsupported``.
    """

    def __init__(self, target: AdapterTarget, top: str = KVM_ABI) -> None:
        self.target = target
        self.top = top
        self.left_out: Counter[str] = Counter()
        self.supported: set[str] = set()
        self.never: set[str] = set()
        """Operations that are chosen no more."""

    def compare(
        self, events: int, seed: int = 0, watch: Watch = lambda _: nullcontext(), first: int = 0,
    ) -> Iterator[int | Finding]:
        """Compare random histories, from the ``first`` on, until so many events were performed.

        Yields after each history how many events were compared so far; a finding ends it.
        TargetUnusable if nobody can speak to the program, or nothing of it can be compared.
        """
        done, number, idle = 0, first, 0
        while done < events:
            with watch(number):
                run = history(f"{seed}.{number}", min(EVENTS, events - done), self.top, sorted(self.never))
            number += 1
            compared, found = self.performed(run)
            if found is not None:
                yield found
                return
            done += compared.events
            idle = 0 if compared.events else idle + 1
            if idle == 100:
                most = ", ".join(f"{what} ({count})" for what, count in self.left_out.most_common(3))
                raise TargetUnusable(f"{self.target.name}: nothing to compare; unsupported: {most or 'nothing'}")
            yield done

    def performed(self, run: Run) -> tuple[Run, Finding | None]:
        """What could be compared of a history, and the first difference.

        A step that the program does not support is left out, and with it what cannot happen then.
        """
        while run.calls:
            answers, broke = self._answers(run)
            try:
                self.target.began(answers[0])
            except Unsupported as unsupported:
                self.left_out[f"begin: {unsupported}"] += 1
                return run.cut(0), None
            missing = None
            for index, text in enumerate(answers[1:]):
                if text == (run.shown[index] or "ok"):
                    continue
                try:
                    answer = self.target.answer(text)
                    if "unsupported" in answer:
                        missing = index
                        break
                    wrong = self._wrong(run, index, answer)
                except TargetFailed as failure:
                    wrong = str(failure).removeprefix(f"{self.target.name} ")
                if wrong:
                    return run, Finding(run.cut(index + 1), wrong)
            ops = [call["op"] for call in run.calls]
            self.supported.update(ops[:len(answers) - 1 if missing is None else missing])
            if missing is None:
                return run, None if not broke else Finding(run.cut(len(answers)), broke)
            run = self._without(run, missing)
        return run, None

    def _answers(self, run: Run) -> tuple[list[str], str]:
        """The answers to ``begin`` and to as many steps as were answered, and how the program broke, if it did.

        Lines are sent many at a time, up to one that may not be supported: after such an answer nothing follows.
        """
        messages, answers = run.messages(), list[str]()
        while len(answers) < len(messages):
            end = len(answers) + 1
            while end < len(messages) and messages[end - 1]["op"] in self.supported - self.left_out.keys():
                end += 1
            try:
                answers += self.target.exchange(messages[len(answers):end])
            except Broken as broken:
                answers += broken.answers
                if not answers:
                    raise TargetUnusable(str(broken)) from None
                return answers, str(broken).removeprefix(f"{self.target.name} ")
            if self._is_unsupported(answers[-1]):
                break
        return answers, ""

    def _is_unsupported(self, text: str) -> bool:
        try:
            return "unsupported" in self.target.answer(text)
        except TargetFailed:
            return False

    def _wrong(self, run: Run, index: int, answer: dict[str, Json]) -> str:
        """How an answer differs from what the emulator shows, as far as the program can observe it."""
        if "misuse" in answer:
            return f"misuse: {answer['misuse']}"
        expect = normalised(decode(run.shown[index]))
        hidden = set() if self.target.observes is None else expect.keys() - self.target.observes
        call = run.calls[index]
        step = Step(call["op"], step_of(call).args, expect, {})
        return "; ".join(differences(step, normalised(answer, self.target.name), hidden))

    def _without(self, run: Run, missing: int) -> Run:
        """The history without a step, or without any of an operation that the program does not have at all."""
        op = run.calls[missing]["op"]
        self.left_out[op] += 1
        if op in self.supported:
            calls = [*run.calls[:missing], *run.calls[missing + 1:]]
        else:
            if self.left_out[op] >= STRIKES:
                self.never.add(op)
            calls = [call for call in run.calls if call["op"] != op]
        return replay(run, calls, self.top)


# ---- the shortest history that still shows it

def shortened(lockstep: Lockstep, found: Finding, seconds: float = 60) -> Finding:
    """A shorter and simpler history with a difference.

    As long as one remains: steps are left out, many at a time and then one; then parts of lists and arguments that
    may be absent; then numbers, the host and the assumptions become simpler.
    """
    deadline = time.monotonic() + seconds
    patience = lockstep.target.patience
    lockstep.target.patience = min(patience, 1.0)  # one that hangs hangs each time

    def try_(calls: Sequence[Call], **changes: Any) -> bool:
        nonlocal found
        if time.monotonic() > deadline:
            return False
        run = found.run
        start = Run(run.seed, changes.get("host", run.host), changes.get("assume", run.assume))
        try:
            _, smaller = lockstep.performed(replay(start, calls, lockstep.top))
        except TargetUnusable:
            return False  # it does not even begin: whatever that is, it is something else
        if smaller is None:
            return False
        found = smaller
        return True

    before = None
    while before != repr(found.run):
        before = repr(found.run)
        _fewer_steps(lambda: found.run.calls, try_)
        for host in _simpler_hosts(found.run.host):
            if try_(found.run.calls, host=host):
                break
        for name in list(found.run.assume):
            try_(found.run.calls, assume={key: on for key, on in found.run.assume.items() if key != name})
        at = 0
        while at < len(found.run.calls):
            for call in simpler(found.run.calls[at]):
                if try_([*found.run.calls[:at], call, *found.run.calls[at + 1:]]):
                    break
            else:
                at += 1
    lockstep.target.patience = patience
    return found


def _fewer_steps(calls: Callable[[], list[Call]], try_: Callable[[Sequence[Call]], bool]) -> None:
    chunk = len(calls()) // 2
    while chunk:
        at = len(calls()) - chunk
        while at >= 0:
            now = calls()
            try_([*now[:at], *now[at + chunk:]])
            at = min(at, len(calls())) - chunk
        chunk //= 2


def _simpler_hosts(host: Any) -> Iterator[Any]:
    """A host with fewer overrides, the simplest first."""
    if isinstance(host, dict):
        yield host["part"]
        yield from ({key: value for key, value in host.items() if key != name} for name in host if name != "part")


def simpler(call: Call) -> Iterator[Call]:
    """The same step with one argument simpler, each in its ways.

    >>> [step["value"] for step in simpler({"op": "wrmsr", "vcpu": 0, "msr": 0x48, "value": 6})]
    [0, 1, 4, 2]
    """
    operation = OPERATIONS[call["op"]]
    for key, value in call.items():
        if key in operation.optional:
            yield {name: item for name, item in call.items() if name != key}
        if key in operation.defaults and value != operation.defaults[key] and key != "vcpu":
            yield {**call, key: operation.defaults[key]}
        if key == "to":
            yield from ({**call, key: host} for host in _simpler_hosts(value))
        elif key not in ("op", "vcpu", "msr", "cap"):
            yield from ({**call, key: item} for item in _simpler_values(value, key))


def _simpler_values(value: Any, key: str) -> Iterator[Any]:
    """Simpler values of an argument: lists with an entry less, numbers with fewer or lower bits."""
    if isinstance(value, bool):
        return
    if isinstance(value, int):
        for number in (0, 1, *(value & ~(1 << bit) for bit in range(64) if value >> bit & 1)):
            if (number.bit_count(), number) < (value.bit_count(), value):
                yield number
    elif isinstance(value, list):
        if key != "args":  # mask and value: which is which depends on the place
            yield from ([*value[:at], *value[at + 1:]] for at in range(len(value)))
        for at, item in enumerate(value):
            if isinstance(item, list):
                yield from ([*value[:at], [item[0], number], *value[at + 1:]]
                            for number in _simpler_values(item[1], "value"))
            elif key == "args":
                yield from ([*value[:at], number, *value[at + 1:]] for number in _simpler_values(item, key))
