"""What is done often costs no more the last time than the first: memory, machines, steps of the playground."""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest

from specctrl.site.playground import Play

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))

from long_runs import events, machines, memory


@pytest.mark.skipif(not os.environ.get("SPECCTRL_SLOW"), reason="half a minute of random events: SPECCTRL_SLOW=1")
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc, which says what a process holds")
def test_random_events_leave_memory_as_it_was() -> None:
    performed: Iterator[int] = events(200_000)
    for done in performed:
        if done > 50_000:  # until then caches fill
            break
    before = memory()
    *_, done = performed
    assert done >= 200_000
    assert memory() - before < 5, "MB"


def test_a_machine_that_is_dropped_leaves_nothing() -> None:
    assert machines(1_000) < 50


CALM = [{"op": "wrmsr", "msr": "IA32_SPEC_CTRL", "value": "0x1"}, {"op": "exit"}]
REPORTING = [
    {"op": "set_msrs", "msrs": [["MSR_VIRTUAL_ENUMERATION", "0x1"], ["MSR_VIRTUAL_MITIGATION_ENUM", "0x3"]]},
    {"op": "wrmsr", "msr": "IA32_SPEC_CTRL", "value": "0x1"},
    {"op": "wrmsr", "msr": "MSR_VIRTUAL_MITIGATION_CTRL", "value": "0x1"},
]


@pytest.mark.parametrize(("variant", "setup", "steps", "violated"), [
    ("spec", [], CALM, False),
    ("rfc-v3", REPORTING, CALM[:1], True),  # and what each violation comes from is asked each time
])
def test_a_step_of_the_playground_costs_the_same_after_500(
    variant: str, setup: list[dict[str, object]], steps: list[dict[str, object]], violated: bool
) -> None:
    play = Play("sapphire-rapids", variant)
    for step in ({"op": "create_vcpu"}, *setup, *steps):
        play.perform(step)
    took = []
    for number in range(500):
        began = time.process_time()
        row = play.perform(steps[number % len(steps)])
        took.append(time.process_time() - began)
        assert bool(row["violated"]) == violated
    assert median(took[-50:]) < 3 * median(took[:50])
