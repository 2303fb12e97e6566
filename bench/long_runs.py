"""Runs long histories and many machines, and says what they cost: ``python bench/long_runs.py [EVENTS]``.

Memory must not grow with either; tests/test_long_runs.py fails if it does.
"""

import gc
import resource
import sys
import time
from collections.abc import Iterator
from random import Random

from specctrl.scenario.machine import Machine
from specctrl.scenario.random_steps import Chooser

EACH = 10_000
"""So many events has a history, before another host follows."""


def events(count: int, seed: int = 1) -> Iterator[int]:
    """Perform random events, one machine after another; yields how many were performed, after each history."""
    random = Random(seed)
    done = 0
    while done < count:
        done += sum(1 for _ in Chooser(random).history(min(EACH, count - done)))
        yield done


def memory() -> float:
    """What this process holds now, in MB."""
    gc.collect()
    with open("/proc/self/statm") as said:
        return int(said.read().split()[1]) * resource.getpagesize() / 1e6


def machines(count: int) -> int:
    """Create and drop VMs with two vCPUs that ran; returns how many objects of Python are left of them."""
    def one() -> None:
        machine = Machine("sapphire-rapids")
        for vcpu in (0, 1):
            machine.create_vcpu(vcpu=vcpu)
            machine.wrmsr(vcpu=vcpu, msr=0x48, value=1)
        machine.exit()

    one()
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(count):
        one()
    gc.collect()
    return len(gc.get_objects()) - before


def main(count: int) -> None:
    """Print the figures."""
    started, tenth = time.perf_counter(), 0
    print(f"{0:>10,} events {memory():6.1f} MB")
    for done in events(count):
        if done * 10 // count > tenth:
            tenth = done * 10 // count
            print(f"{done:>10,} events {memory():6.1f} MB {time.perf_counter() - started:6.0f} s", flush=True)
    print(f"1,000 machines leave {machines(1_000)} objects, {memory():.1f} MB")


if __name__ == "__main__":
    main(int(sys.argv[1].replace("_", "")) if len(sys.argv) > 1 else 1_000_000)
