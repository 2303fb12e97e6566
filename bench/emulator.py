"""The emulator: guest writes beside the processor's rule alone and a loop in C, scenarios, and random histories."""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from figures import Figure, Growth, Missing

from specctrl.model.processor import LogicalProcessor, Vmcs
from specctrl.scenario.machine import Machine
from specctrl.scenario.reading import read
from specctrl.scenario.running import EmulatorTarget, run_one
from specctrl.targets.lockstep import history

ROOT = Path(__file__).resolve().parent.parent
AREA = "emulator"
WRITES = 200_000


def rate(work: Callable[[], int]) -> float:
    """Operations per second of processor time, the median of three runs; ``work`` returns how many it did."""
    rates = []
    for _ in range(3):
        start = time.process_time()
        count = work()
        rates.append(count / (time.process_time() - start))
    return sorted(rates)[1]


def passed_through() -> int:
    """Guest WRMSR of IA32_SPEC_CTRL without an exit, through the machine."""
    machine = Machine(record=False)
    machine.create_vcpu()
    machine.wrmsr(msr=0x48, value=0x1)
    for _ in range(WRITES):
        machine.wrmsr(msr=0x48, value=0x1)
    return WRITES


def intercepted() -> int:
    """The same where every write exits to KVM: the value written is 0, so the interception stays."""
    machine = Machine(record=False)
    machine.create_vcpu()
    for _ in range(WRITES // 4):
        machine.wrmsr(msr=0x48, value=0x0)
    return WRITES // 4


def processor_alone() -> int:
    """The processor's rule itself, without KVM: what the machine adds is the difference."""
    processor = LogicalProcessor(0x5FF, True, True)
    vmcs = Vmcs(virtualize_spec_ctrl=True, spec_ctrl_mask=0x400, intercept_write=False)
    for _ in range(WRITES):
        processor.wrmsr_in_guest(vmcs, 0x1)
    return WRITES


def scenarios() -> int:
    """Published scenarios, read, checked and run in this process."""
    found = read([ROOT / "vectors"])
    for scenario in found:
        run_one(scenario, EmulatorTarget(scenario.profile))
    return len(found)


def in_c() -> float:
    """Writes a second on the C reference."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise Missing("a C compiler, for the loop in C and what follows")
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "writes")
        source = Path(__file__).with_name("writes.c")
        subprocess.run([compiler, "-O2", "-I", ROOT / "reference" / "c", "-o", program, source], check=True)
        return float(subprocess.run([program, "50000000"], check=True, capture_output=True, text=True).stdout)


def random_events(count: int) -> float:
    """Seconds for this many random events, in histories of thirty."""
    begin = time.process_time()
    for number in range(count // 30):
        history(f"bench.{number}", 30, "kvm-abi")
    return time.process_time() - begin


def measure() -> Iterator[Figure | Growth]:
    """Everything of this area."""
    base = rate(processor_alone)
    yield Figure(AREA, "processor's WRMSR rule alone", base, "a second")
    through = rate(passed_through)
    yield Figure(AREA, "guest WRMSR, passed through", through, "a second", "the rule alone", through / base)
    exits = rate(intercepted)
    yield Figure(AREA, "guest WRMSR, intercepted", exits, "a second", "the rule alone", exits / base)
    yield Figure(AREA, "scenarios, read, checked and run", rate(scenarios), "a second")
    counts = (3_000, 30_000, 90_000)
    yield Growth(AREA, "random histories", "events", [(count, random_events(count)) for count in counts])
    loop = in_c()
    yield Figure(AREA, "the same passed through, in C", loop, "a second", "that in Python", loop / through)
