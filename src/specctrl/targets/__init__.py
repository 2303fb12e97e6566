"""Implementations that scenarios run on, by the names of ``specctrl run --target``."""

from specctrl.machine import VARIANTS
from specctrl.scenario import EmulatorTarget, Target
from specctrl.scenario.table import PROFILES

LATER = ("c", "kvm")
"""Targets that the format names and this version does not have."""


class UnknownTarget(ValueError):
    """The name is not that of a target."""


class TargetMissing(Exception):
    """The name is that of a target which is not part of this version."""


def open_target(name: str, plain: bool = False) -> Target:
    """The target of that name; ``plain``: an adapter is spoken to in words instead of JSON."""
    if name in VARIANTS:
        return EmulatorTarget(name)
    if name in (*PROFILES, *LATER):
        raise TargetMissing(f"target {name!r} is not part of this version")
    if name.startswith("cmd:"):
        from specctrl.targets.adapter import AdapterTarget  # needs subprocess, which a browser has not

        return AdapterTarget(name.removeprefix("cmd:"), plain)
    known = ", ".join((*PROFILES, *LATER, "cmd:PROGRAM"))
    raise UnknownTarget(f"no target is named {name!r}; known: {known}")
