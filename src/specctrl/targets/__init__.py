"""Implementations that scenarios run on, by the names of ``specctrl run --target``."""

import shlex

from specctrl.model.variants import VARIANTS
from specctrl.scenario import EmulatorTarget, Target


class UnknownTarget(ValueError):
    """The name is not that of a target."""


class TargetMissing(Exception):
    """The name is that of a target which this version does not have, or this machine cannot offer."""


def open_target(name: str, plain: bool = False) -> Target:
    """The target of that name; ``plain``: an adapter speaks words, and need not be asked which protocol it speaks."""
    if name in VARIANTS:
        return EmulatorTarget(name)
    if name == "c":
        from specctrl.targets.c import CannotBuild, CTarget
        from specctrl.targets.guest_kernels import GuestsAbove

        try:
            return GuestsAbove(CTarget())
        except CannotBuild as why:
            raise TargetMissing(f"target 'c' cannot run here: {why}") from None
    if name == "kvm":
        from specctrl.targets.kvm.minivmm import KvmMissing  # needs fcntl and mmap
        from specctrl.targets.kvm.target import KvmGuests, KvmTarget

        try:
            return KvmGuests(KvmTarget())
        except KvmMissing as missing:
            raise TargetMissing(f"target 'kvm': {missing}") from None
    if name == "bochs":
        from specctrl.targets.bochs.processes import BochsMissing
        from specctrl.targets.bochs.target import BochsTarget

        try:
            return BochsTarget()
        except BochsMissing as missing:
            raise TargetMissing(f"target 'bochs' cannot run here: {missing}") from None
    if name.startswith("cmd:"):
        from specctrl.targets.adapter import AdapterTarget  # needs subprocess, which a browser has not
        from specctrl.targets.guest_kernels import GuestsAbove

        return GuestsAbove(AdapterTarget(name.removeprefix("cmd:"), plain))
    known = ", ".join((*VARIANTS, "c", "kvm", "bochs", "cmd:PROGRAM"))
    yours = shlex.quote(f"cmd:{name}")
    raise UnknownTarget(f"no target is named {name!r}; known: {known}; for a program of yours: --target {yours}")
