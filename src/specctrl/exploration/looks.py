"""What an exploration looks at: each VM exit, each new state, and where a reset or a migration leads.

On plain values, and on symbolic ones, from which compiled explorations are made.
"""

from collections.abc import Iterator
from operator import attrgetter
from typing import Any

from specctrl.model.contract import MODE, Contract
from specctrl.model.kvm.vcpu import Vcpu

NOTES: list[str] = []
"""Properties that were violated at a VM exit of the step that runs now."""

of_contract = attrgetter("report", "user_mask", "user_value", *MODE)
of_vcpu = attrgetter("mitigation_ctrl", "user_mask", "user_value", *MODE)
"""What both have as fields: the words that nobody can change without an exit, and the mode."""


def watched(vcpu: type[Vcpu]) -> type[Vcpu]:
    """The same vCPU, which notes at each VM exit what KVM believes and what the host gets."""

    class Watched(vcpu):  # type: ignore[valid-type,misc]  # the class is the variant's own
        __slots__ = ()

        def restore_host_spec_ctrl(self, held: int) -> None:
            if self.saved != self.cpu.spec_ctrl:
                NOTES.append("saved_is_hardware")
            vcpu.restore_host_spec_ctrl(self, held)
            if self.cpu.spec_ctrl != self.vm.host.spec_ctrl:
                NOTES.append("host_value_after_exit")

    return Watched


Forced = tuple[int, int, int, int, int]


def forced_by(at: Contract) -> Forced:
    """What a state of the contract asks of the register.

    Userspace's pair, the report's bits that this leaves alone, the bits that nobody forces, and the guest's own there.
    """
    mask, value = at.force()
    return at.user_mask, at.user_value, value & ~at.user_mask, ~mask, at.guest_view & ~mask


def broken_by_register(vcpu: Vcpu, forced: Forced) -> Iterator[str]:
    """The properties that a state violates while the guest runs."""
    if not vcpu.cpu.non_root:
        return
    register = vcpu.cpu.spec_ctrl
    user_mask, user_value, report_asks, free, own = forced
    if register & user_mask != user_value:
        yield "userspace_wins"
        if register & user_mask & ~user_value:
            yield "zero_forced_bits_never_set"
    if report_asks & ~register:
        yield "report_is_in_force"
    if register & free != own:
        yield "nothing_else_is_forced"
    if ~free and not vcpu.cpu.has_control and not vcpu.vmcs.write_intercepted:
        yield "forced_is_intercepted"


def broken_by_reset(vcpu: Vcpu, at: Contract) -> bool:
    """Whether a reset left something other than view 0 and userspace's pair."""
    left: tuple[Any, ...] = (vcpu.force_mask, vcpu.force_value, vcpu.read_spec_ctrl())
    return bool(left != (at.user_mask, at.user_value, 0))


def broken_by_move(vcpu: Vcpu, at: Contract) -> bool:
    """Whether a migration that was done changed view, report or level."""
    arrived: tuple[Any, ...] = (vcpu.read_spec_ctrl(), vcpu.mitigation_ctrl, vcpu.level)
    return bool(arrived != (at.guest_view, at.report, at.level))
