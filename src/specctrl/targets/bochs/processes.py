"""The processors of Bochs as processes: one for each model that is asked for, started with the first question."""

import json
import shlex
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from specctrl.scenario.running import TargetFailed
from specctrl.targets.bochs.findings import Findings
from specctrl.targets.bochs.models import WITH_CONTROL, WITHOUT_CONTROL, WITHOUT_MSR
from specctrl.targets.c import CannotBuild, compiled
from specctrl.targets.program import Program

SECONDS = 60.0
"""The longest that a process may take for an answer."""
SHIM_FLAGS = ("-std=c99", "-O1", "-shared", "-fPIC")  # C99: see shim.c


class BochsMissing(Exception):
    """Bochs' processor cannot run here; the message says why."""


def shim() -> Path:
    """The compiled shim; BochsMissing without the wheel or without a C compiler."""
    if find_spec("bochscpu") is None:
        raise BochsMissing("Bochs' processor is not installed: pip install '.[bochs]'")
    try:
        return compiled("bochs-shim.so", Path(__file__).with_name("shim.c"), SHIM_FLAGS)
    except CannotBuild as why:
        raise BochsMissing(str(why)) from None


class Asked(Protocol):
    """Whoever has a processor of Bochs and can be asked for operations."""

    model: str

    def ask(self, *operations: list[Any]) -> list[Any]:
        """The results of these operations, in order."""


class Process:
    """A process with one processor; TargetFailed if it dies, hangs, or meets what it does not understand."""

    def __init__(self, model: str, library: Path, seconds: float = SECONDS) -> None:
        self.model = model
        command = [sys.executable, "-m", "specctrl.targets.bochs.serve", model, str(library)]
        self.program = Program(shlex.join(command), seconds, f"Bochs' {model}")

    def ask(self, *operations: list[Any]) -> list[Any]:
        """The results of these operations, in order."""
        answer = json.loads(self.program.exchange(json.dumps(operations))[0])
        if isinstance(answer, dict):
            self.program.kill()
            raise TargetFailed(f"Bochs' {self.model}: {answer['broken']}")
        results: list[Any] = answer
        return results

    def close(self) -> None:
        """End the process; TargetFailed unless it ends well."""
        self.program.finish()


class Processes:
    """The processes that run; ``seen`` counts where a declared deviation showed."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self.library = shim()
        self.seconds = seconds
        self.running: dict[str, Process] = {}
        self.seen: Counter[str] = Counter()

    def of(self, model: str) -> Process:
        """The process with this model; another one if it broke."""
        if model not in self.running or self.running[model].program.killed:
            self.running[model] = Process(model, self.library, self.seconds)
        return self.running[model]

    def with_these(self, has_spec_ctrl: bool, has_control: bool) -> Process:
        """A processor that has the control, or only the MSR, or neither."""
        return self.of(WITH_CONTROL if has_control else WITHOUT_CONTROL if has_spec_ctrl else WITHOUT_MSR)

    def compare(self, model: str, seed: int, sequences: int) -> Findings:
        """Compare a model with this specification's processor, in the model's process; TargetFailed if that breaks."""
        return Findings.from_json(self.of(model).ask(["compare", seed, sequences])[0])

    def forget(self) -> None:
        """Every processor forgets what ran on it."""
        for process in self.running.values():
            if not process.program.killed:
                process.ask(["forget"])

    def close(self) -> None:
        """End all of them; TargetFailed names the first that did not end well."""
        running, self.running = list(self.running.values()), {}
        failures = []
        for process in running:
            try:
                process.close()
            except TargetFailed as failure:
                failures.append(failure)
        if failures:
            raise failures[0]
