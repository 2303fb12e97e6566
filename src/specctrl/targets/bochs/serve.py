"""The process that has the processor: a line asks for operations, a line answers them.

``python -m specctrl.targets.bochs.serve MODEL SHIM``.  Both lines are JSON.  Asked is a list of operations, each the
name of a method of :class:`~specctrl.targets.bochs.hypervisor.Hypervisor` and its arguments, or ``compare`` with a
seed and a number of sequences; answered a list of their results, or ``{"broken": "why"}``.
"""

import json
import os
import signal
import sys
from typing import Any, TextIO

from specctrl.targets.bochs.compare import Comparison
from specctrl.targets.bochs.cpu import Cpu, leave
from specctrl.targets.bochs.hypervisor import Hypervisor

SECONDS = 120
"""The longest that a line may take; the process ends then, should nobody be there any more to end it."""
OPERATIONS = ("describe", "forget", "rdmsr", "wrmsr", "vmread", "vmwrite", "enter")


class Here:
    """The processor of this process, for whoever asks in this process."""

    def __init__(self, model: str, shim: str) -> None:
        self.model = model
        self.hypervisor = Hypervisor(Cpu(model, shim))

    def ask(self, *operations: list[Any]) -> list[Any]:
        """The results of these operations, in order."""
        return [self.perform(*operation) for operation in operations]

    def perform(self, name: str, *arguments: Any) -> Any:
        """One operation."""
        if name == "compare":
            return Comparison(self).findings(*arguments).as_json()
        if name not in OPERATIONS:
            raise ValueError(f"there is no operation {name!r}")
        return getattr(self.hypervisor, name)(*arguments)


def main(model: str, shim: str) -> None:
    """Serve until the input ends; the process ends here."""
    answers = own_output()
    status = 0
    try:
        here: Here | None = None
        for line in sys.stdin:
            signal.alarm(SECONDS)
            here = here or Here(model, shim)
            print(json.dumps(here.ask(*json.loads(line))), file=answers, flush=True)
            signal.alarm(0)
    except Exception as error:
        print(json.dumps({"broken": f"{type(error).__name__}: {error}"}), file=answers, flush=True)
        status = 1
    leave(status)


def own_output() -> TextIO:
    """The pipe for answers; what Bochs prints goes to standard error instead."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers


if __name__ == "__main__":
    main(*sys.argv[1:])
