"""Random sequences of operations for a processor."""

from collections.abc import Iterator
from random import Random

from specctrl.targets.bochs.checks import Kind
from specctrl.targets.bochs.operations import Step

STEPS = 100
"""Steps in a sequence."""
CHOICES = ("rdmsr", "wrmsr", "wrmsr", "write mask", "write shadow", "read shadow", "controls", "guest runs",
           "guest rdmsr", "guest rdmsr", "guest wrmsr", "guest wrmsr", "guest wrmsr", "write host")
REMARKABLE = (0, 0x1, 0x400, 0x7, 0x5FF, 0x200, 1 << 31, 1 << 63, (1 << 64) - 1)


def sequence(random: Random, kind: Kind, steps: int = STEPS) -> Iterator[Step]:
    """Steps that can be performed one after the other."""
    for _ in range(steps):
        does = random.choice(CHOICES)
        if does == "controls":
            yield controls(random, kind)
        else:
            yield Step(does, word(random) if "w" in does else 0)


def word(random: Random) -> int:
    """A word: a remarkable one, one with low bits, one with a single bit, or any."""
    return random.choice((
        random.choice(REMARKABLE), random.getrandbits(11), 1 << random.randrange(64), random.getrandbits(64)))


def controls(random: Random, kind: Kind) -> Step:
    """Fields of the VMCS; no area that the SDM leaves undefined under the control, none that ends in a VMX abort."""
    virtualize = random.random() < (0.75 if kind.has_control else 0.1)
    load = word(random)
    entry_load = not virtualize and random.random() < 0.3
    entry_fails = bool(entry_load and (load & ~kind.takes or not kind.has_msr))
    return Step("controls", fields={
        "virtualize_spec_ctrl": virtualize,
        "tertiary_inactive": kind.has_control and not virtualize and random.random() < 0.5,
        "use_msr_bitmap": random.random() < 0.85,
        "intercept_read": random.random() < 0.25,
        "intercept_write": random.random() < 0.25,
        "entry_load": entry_load,
        "entry_load_value": load,
        "exit_store": kind.has_msr and not virtualize and random.random() < 0.3,
        "exit_load": kind.has_msr and not entry_fails and random.random() < 0.3,
        "exit_load_value": word(random) & kind.takes,
        "load_on_exit": kind.has_exit_load and random.random() < 0.2,
    })
