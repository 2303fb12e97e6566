"""Random histories performed by the emulator and by another implementation, compared after every step.

The other implementation is a program that speaks the adapter protocol in words; the C reference is one.
A history is made step by step from a seed, each step one that can happen in the emulator's present state.
After each step every vCPU is looked at.
"""

import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from specctrl.model.outcomes import Misuse
from specctrl.scenario.format import HOST, OPERATIONS, SCHEMA
from specctrl.scenario.machine import Machine
from specctrl.scenario.observation import Observation
from specctrl.scenario.random_steps import Call, Chooser
from specctrl.scenario.reading import Step
from specctrl.scenario.running import TargetFailed, normalised
from specctrl.targets.plain import decode, encode

EVENTS = 50
"""Events in a history, besides the creation of its vCPUs and what they are offered."""
ABOVE = ("exposed", "overhead")
"""What guest kernels decide; the implementations that are compared stand below them."""

# ---- histories, and what the emulator shows

@dataclass(slots=True)
class Run:
    """One history as it is sent, and what the emulator showed; a line for ``begin`` and for each step."""

    seed: str
    host: Any
    assume: dict[str, bool]
    calls: list[Call] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)
    events: int = 0

    def add(self, call: Call, seen: Observation) -> None:
        """A step, and what the emulator showed."""
        self.calls.append(call)
        self.sent.append(encode(message(call)))
        self.shown.append(encode({key: value for key, value in seen.items() if key not in ABOVE}))

    def look(self, machine: Machine) -> None:
        """Look at every vCPU: as :meth:`add` would, written out because two lines of three are of this kind."""
        for number in machine.vcpus:
            seen = machine.observe(vcpu=number)
            self.calls.append({"op": "observe", "vcpu": number})
            self.sent.append(f"op=observe vcpu={number}")
            self.shown.append(_LOOK.format_map(seen).lower().replace("none", "null"))


_LOOK = " ".join(f"{key}={{{key}!r}}" for key in OPERATIONS["observe"].shows if key not in ABOVE)


def message(call: Call) -> dict[str, Any]:
    """A step as an adapter is sent it."""
    return Step(call["op"], {key: value for key, value in call.items() if key != "op"}, {}, {}).message()


def begun(seed: str, host: Any, assume: dict[str, bool]) -> Run:
    """A history with its first line."""
    run = Run(seed, host, assume)
    run.sent.append(encode({"op": "begin", "host": HOST.write(host), "profile": "spec", "assume": assume}))
    run.shown.append("")
    return run


def history(seed: str, events: int = EVENTS) -> Run:
    """The random history of that seed.

    >>> run = history("0.0", 3)
    >>> run.events, history("0.0", 3).shown == run.shown
    (3, True)
    """
    chooser = Chooser(Random(seed))
    run = begun(seed, chooser.host, chooser.assume)
    for call, seen, is_event in chooser.history(events):
        run.add(call, seen)
        run.look(chooser.machine)
        run.events += is_event
    return run


def replay(run: Run, calls: Sequence[Call]) -> Run:
    """The same host with other steps; Misuse if they cannot happen."""
    again = begun(run.seed, run.host, run.assume)
    machine = Machine(run.host, assume=run.assume, record=False)
    for call in calls:
        again.add(call, machine.perform(call))
    return again


# ---- what another implementation shows

class Broken(Exception):
    """The other implementation did not answer every line."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A step after which the two differ; ``run`` ends with it."""

    run: Run
    observed: str

    @property
    def expected(self) -> str:
        """What the emulator showed."""
        return self.run.shown[-1]

    def document(self) -> dict[str, Any]:
        """The history as a scenario: each step expects what the emulator shows; the last shows the difference."""
        steps = []
        for call, shown in zip(self.run.calls, self.run.shown[1:], strict=True):
            step = message(call)
            if "to" in call:
                step["to"] = _spelt(call["to"])
            if shown:
                step["expect"] = decode(shown)
            steps.append(step)
        return {"schema": SCHEMA, "id": f"lockstep.seed-{self.run.seed.replace('.', '-')}",
                "host": _spelt(self.run.host), "assume": self.run.assume, "steps": steps}


def _spelt(host: Any) -> Any:
    if isinstance(host, str) or "host_spec_ctrl" not in host:
        return host
    return {**host, "host_spec_ctrl": f"{host['host_spec_ctrl']:#x}"}


def answers(command: Sequence[str], runs: Sequence[Run], seconds: float = 120) -> list[str]:
    """What the program answers to all lines of these histories; Broken unless it is a line each, and status 0."""
    lines = [line for run in runs for line in run.sent]
    try:
        done = subprocess.run(command, input="\n".join(lines) + "\n", text=True, stdout=subprocess.PIPE,
                              timeout=seconds, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Broken(f"{command[0]}: {error}") from None
    said = done.stdout.splitlines()
    if len(said) != len(lines) or done.returncode:
        last = lines[min(len(said), len(lines) - 1)]
        raise Broken(f"{command[0]} answered {len(said)} of {len(lines)} lines and ended with status "
                     f"{done.returncode}; the next line was {last!r}")
    return said


def differ(expected: str, observed: str) -> bool:
    """Whether two answers say different things; what guest kernels decide is not looked at."""
    if observed == (expected or "ok"):
        return False
    try:
        seen = normalised(decode(observed))
    except (ValueError, TargetFailed):
        return True
    return normalised(decode(expected)) != {key: value for key, value in seen.items() if key not in ABOVE}


def first_difference(command: Sequence[str], runs: Sequence[Run]) -> Difference | None:
    """The first step of these histories after which the program shows something else, or None."""
    said = iter(answers(command, runs))
    for run in runs:
        for index, (expected, observed) in enumerate(zip(run.shown, [next(said) for _ in run.shown], strict=True)):
            if index and differ(expected, observed):
                return Difference(_cut(run, index), observed)
    return None


def _cut(run: Run, index: int) -> Run:
    return Run(run.seed, run.host, run.assume, run.calls[:index], run.sent[:index + 1], run.shown[:index + 1])


def shortened(command: Sequence[str], found: Difference) -> Difference:
    """A shorter history with a difference: steps are left out, one at a time, as long as one remains."""
    at = len(found.run.calls) - 1
    while at > 0:
        at -= 1
        calls = found.run.calls
        try:
            candidate = replay(found.run, [*calls[:at], *calls[at + 1:]])
            smaller = first_difference(command, [candidate])
        except Misuse:
            continue
        if smaller is not None:
            found = smaller
            at = min(at, len(found.run.calls) - 1)
    return found


def compare(
    command: Sequence[str], events: int, seed: int = 0, batch: int = 200
) -> Iterator[tuple[int, Difference | None]]:
    """Compare random histories until so many events were performed; yields after each batch.

    What is yielded is how many events were compared so far, and the first difference, which ends it.
    """
    done = number = 0
    while done < events:
        runs: list[Run] = []
        while len(runs) < batch and done < events:
            runs.append(history(f"{seed}.{number}", min(EVENTS, events - done)))
            number += 1
            done += runs[-1].events
        found = first_difference(command, runs)
        yield done, found
        if found is not None:
            return
