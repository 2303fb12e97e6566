"""What ran on Bochs' processors, as it is committed and shown.

``python -m specctrl.targets.bochs.recorded vectors`` runs it here and prints the record.  The seed is fixed and
nothing in it depends on the machine, so a test asks for the same record wherever Bochs runs.
"""

import json
import sys
from collections.abc import Sequence
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from specctrl.scenario.reading import read
from specctrl.scenario.running import FAIL, UNSUPPORTED, Result, run
from specctrl.targets.bochs.deviations import WRITABLE
from specctrl.targets.bochs.models import MODELS
from specctrl.targets.bochs.processes import Processes
from specctrl.targets.bochs.processor import BochsProcessor, BochsVmcs, bound
from specctrl.targets.bochs.target import BochsTarget

PACKAGE = "bochscpu-python"
SEED, SEQUENCES = 0, 100


def compared(processes: Processes) -> dict[str, Any]:
    """What the comparison of each model finds."""
    return {model: processes.compare(model, SEED, SEQUENCES).as_json() for model in MODELS}


def offered(processes: Processes) -> dict[str, dict[str, str | None]]:
    """What each model says of the two controls "load IA32_SPEC_CTRL": the MSRs that list the controls that may be 1.

    Of MSR 0x490 the high half, which lists them; null where there is no MSR 0x493 to read.
    """
    found: dict[str, dict[str, str | None]] = {}
    for model in MODELS:
        answers = processes.of(model).ask(["describe"])[0]
        second = answers["secondary_exit_controls"]
        found[model] = {"0x490": f"{answers['entry_controls']:#x}", "0x493": None if second is None else f"{second:#x}"}
    return found


def write_and_read(processes: Processes) -> dict[str, str]:
    """The deviation of SHADOW on its own, where a guest reads the MSR right after it has written it."""
    here = bound(BochsProcessor, processes)
    processor = here(writable=WRITABLE, has_spec_ctrl=True, has_control=True, spec_ctrl=0x400)
    vmcs = BochsVmcs(virtualize_spec_ctrl=True, intercept_read=False, intercept_write=False)
    processor.write_mask(vmcs, 0x400)
    processor.write_shadow(vmcs, 0x2)
    _, read_back = processor.enter(vmcs, "wrmsr, rdmsr", 0x5)
    return {"guest reads": f"{read_back:#x}", "MSR": f"{processor.rdmsr():#x}",
            "SHADOW": f"{processor.read_shadow(vmcs):#x}"}


def results(paths: Sequence[str | Path]) -> list[Result]:
    """The scenarios of these files, performed by the emulator's KVM on Bochs' processors."""
    target = BochsTarget()
    try:
        return list(run(read(paths), lambda _: target))
    finally:
        target.close()


def record(processes: Processes, performed: Sequence[Result]) -> dict[str, Any]:
    """The record: the comparison, the deviation, and the scenarios that do not pass."""
    unsupported: dict[str, list[str]] = {}
    for result in performed:
        if result.status == UNSUPPORTED:
            unsupported.setdefault(result.why, []).append(result.scenario.id)
    return {
        "package": f"{PACKAGE} {version(PACKAGE)}",
        "seed": SEED,
        "offered": offered(processes),
        "models": compared(processes),
        "write and read": write_and_read(processes),
        "failed": [result.scenario.id for result in performed if result.status == FAIL],
        "unsupported": dict(sorted(unsupported.items())),
    }


def recorded() -> dict[str, Any]:
    """The committed record."""
    document: dict[str, Any] = json.loads(files(__package__).joinpath("recorded.json").read_text("utf-8"))
    return document


def main(paths: list[str]) -> None:
    """Run everything, and print the record."""
    processes = Processes()
    try:
        found = record(processes, results(paths))
    finally:
        processes.close()
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
