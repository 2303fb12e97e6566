"""Measures the emulator and the site build; `make bench` prints the figures, no test depends on them."""

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from specctrl.model.processor import LogicalProcessor, Vmcs
from specctrl.scenario.machine import Machine
from specctrl.scenario.reading import read
from specctrl.scenario.running import EmulatorTarget, run_one

ROOT = Path(__file__).resolve().parent.parent
WRITES = 200_000


def rate(work: Callable[[], int]) -> float:
    """Operations per second, the median of three runs; ``work`` returns how many it did."""
    rates = []
    for _ in range(3):
        start = time.perf_counter()
        count = work()
        rates.append(count / (time.perf_counter() - start))
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


def build(out: Path) -> float:
    """Seconds that one build of the site takes; what the pages' code showed is kept, as in every build."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-W", "-n", "-q", "-j", "auto"]
    options = ["-d", str(out / "doctrees")]
    with (out / "log").open("w") as log:
        done = subprocess.run([*command, *options, str(ROOT), str(out / "html")], cwd=ROOT, stdout=log, stderr=log)
    if done.returncode:
        raise SystemExit((out / "log").read_text()[-2000:])
    return time.perf_counter() - start


def main() -> None:
    """Print every figure, rates as ratios to the processor's rule too."""
    base = rate(processor_alone)
    print(f"processor's WRMSR rule alone        {base:12,.0f} per second")
    for label, work in (
        ("guest WRMSR, passed through", passed_through),
        ("guest WRMSR, intercepted", intercepted),
    ):
        found = rate(work)
        print(f"{label:35} {found:12,.0f} per second  ({found / base:.2f} of the rule alone)")
    print(f"{'scenarios, read, checked and run':35} {rate(scenarios):12,.0f} per second")
    out = Path(tempfile.mkdtemp(prefix="specctrl-bench-"))
    try:
        cold, warm = build(out), build(out)
        print(f"{'site build, cold':35} {cold:12.1f} seconds")
        print(f"{'site build, warm':35} {warm:12.1f} seconds  ({warm / cold:.2f} of cold)")
    finally:
        shutil.rmtree(out)


if __name__ == "__main__":
    main()
