"""Short histories that tell changed rule code from the code as it is: random ones, compared and shortened.

A published scenario for a mutant that no scenario notices begins as such a history.  What guest kernels do is not
among the random steps (``boot``), nor are the ways of other VMMs.
"""

import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

from specctrl.evidence.mutants import Mutant
from specctrl.evidence.planted import plant
from specctrl.scenario.format import SHOWS
from specctrl.scenario.kinds import Json
from specctrl.targets.adapter import AdapterTarget
from specctrl.targets.lockstep import ABOVE, Finding, Lockstep, shortened
from specctrl.targets.plain import encode
from specctrl.targets.program import Broken

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

INSIDE = ("mask", "shadow", "saved", "intercepted", "reads_intercepted", "in_guest", *ABOVE)
"""What nobody sees from outside a hypervisor."""
SECONDS = 2
"""So much processor time may the answers to one history take; a mutant that takes more does not end."""
EVENTS = 20_000
"""Random events that are compared, if none differs before."""


class Changed(AdapterTarget):
    """The emulator in a copy of this process where mutants are planted, as a target; seen from outside, or whole."""

    def __init__(self, mutants: Sequence[Mutant], outside: bool) -> None:
        super().__init__(" + ".join(mutant.key for mutant in mutants), plain=True)
        self.mutants = mutants
        self.begun = f"observes={','.join(key for key in SHOWS if key not in INSIDE)}" if outside else "ok"
        self._copy: Any = None
        self._here: Connection | None = None

    def exchange(self, messages: Sequence[Mapping[str, Json]]) -> list[str]:
        """What the copy answers; Broken if it does not survive the messages."""
        if self._here is None:
            self._here, there = get_context("fork").Pipe()
            self._copy = get_context("fork").Process(target=_serve, args=(there, self.begun, self.mutants))
            self._copy.start()
            there.close()
        self._here.send(messages)
        answers: list[str] = []
        try:
            while len(answers) < len(messages):
                answers.append(self._here.recv())
        except EOFError:
            self.kill()
            raise Broken("ends", answers) from None
        return answers

    def kill(self) -> None:
        """End the copy."""
        if self._here is not None:
            self._here.close()
            self._copy.kill()
            self._copy.join()
            self._here = None

    close = kill


def _serve(there: "Connection", begun: str, mutants: Sequence[Mutant]) -> None:
    """Answer messages until none comes; what a mutant breaks ends the process, which says nothing then."""
    os.close(2)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, 10 * SECONDS)
    for mutant in mutants:
        plant(mutant)
    machines, misuse = import_module("specctrl.scenario.machine"), import_module("specctrl.model.outcomes").Misuse
    machine: Any = None
    while True:
        try:
            messages = there.recv()
        except EOFError:
            return
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        for message in messages:
            if message["op"] == "begin":
                machine = machines.Machine(_numbers(message["host"]), assume=message["assume"], record=False)
                there.send(begun)
                continue
            try:
                seen = machine.perform(_numbers(message))
                there.send(encode({key: value for key, value in seen.items() if key not in ABOVE}) or "ok")
            except misuse as why:
                there.send(f"misuse={why}")


def _numbers(value: Any) -> Any:
    """What was sent, with its quantities as numbers."""
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _numbers(item) for key, item in value.items() if key != "legacy_ibrs"}  # follows from the part
    return int(value, 16) if isinstance(value, str) and value.startswith("0x") else value


def draw(mutants: Sequence[Mutant], outside: bool = True, events: int = EVENTS, seed: int = 0) -> Finding | None:
    """The shortest history found that these mutants, all planted, answer otherwise; None if no random one is."""
    target = Changed(mutants, outside)
    lockstep = Lockstep(target)
    try:
        compared: Iterator[int | Finding] = lockstep.compare(events, seed)
        found = next((each for each in compared if isinstance(each, Finding)), None)
        return None if found is None else shortened(lockstep, found)
    finally:
        target.kill()
