"""The virtual MSRs kept in userspace."""

from dataclasses import replace

import pytest

from helpers import ICE_LAKE, SPR, SPR_WITHOUT_CONTROL
from specctrl.model.outcomes import ExitKind
from specctrl.model.parts import guest_features
from specctrl.model.vmm.keeper import keep_report

MC, ME, VE = 0x50000002, 0x50000001, 0x50000000


class TestKeeper:
    """The virtual MSRs in userspace."""

    def test_it_answers_as_the_kernel_would(self) -> None:
        keeper = keep_report(SPR, guest_features(SPR.features), offered=1)
        assert keeper.reply(ExitKind.RDMSR, VE, 0) == {"value": 1}
        assert keeper.reply(ExitKind.RDMSR, ME, 0) == {"value": 1}
        assert keeper.reply(ExitKind.RDMSR, MC, 0) == {"value": 0}
        assert keeper.reply(ExitKind.WRMSR, MC, 1) == {"error": False}
        assert keeper.reply(ExitKind.RDMSR, MC, 0) == {"value": 1}
        for msr, value in ((VE, 1), (ME, 1), (MC, 2), (MC, 4)):
            assert keeper.reply(ExitKind.WRMSR, msr, value) == {"error": True}
        assert keeper.reply(ExitKind.RDMSR, MC, 0) == {"value": 1}

    @pytest.mark.parametrize("msr", [VE, ME, MC])
    def test_it_refuses_a_guest_whose_cpuid_hides_the_enumeration(self, msr: int) -> None:
        """KVM asks CPUID before it looks at bit 63, for the guest's own accesses."""
        hidden = replace(guest_features(SPR.features), arch_capabilities=False)
        keeper = keep_report(SPR, hidden, offered=3)
        assert keeper.reply(ExitKind.RDMSR, msr, 0) == {"error": True}
        assert keeper.reply(ExitKind.WRMSR, msr, 1) == {"error": True}
        assert keeper.pair() == (0, 0)

    @pytest.mark.parametrize(("kind", "msr", "value", "pair"), [
        (ExitKind.WRMSR, MC, 1, (0x400, 0x400)), (ExitKind.WRMSR, MC, 4, (0, 0)), (ExitKind.RDMSR, ME, 0, (0, 0))])
    def test_what_is_asked_for_is_in_force_before_the_reply(
        self, kind: ExitKind, msr: int, value: int, pair: tuple[int, int]
    ) -> None:
        keeper = keep_report(SPR, guest_features(SPR.features), offered=3)
        done: list[object] = []
        reply = keeper.complete(kind, msr, value, lambda *forced: done.append((forced, keeper.contract.report)))
        assert done == [(pair, keeper.contract.report)], "after the report, and once"
        assert reply == keeper.reply(kind, msr, value)

    def test_a_reset_takes_the_report(self) -> None:
        keeper = keep_report(SPR, guest_features(SPR.features), offered=3)
        keeper.reply(ExitKind.WRMSR, MC, 3)
        keeper.reset()
        assert (keeper.contract.report, keeper.pair()) == (0, (0, 0))

    def test_it_forces_what_the_host_can_force(self) -> None:
        keeper = keep_report(ICE_LAKE, guest_features(ICE_LAKE.features), offered=3)
        keeper.reply(ExitKind.WRMSR, MC, 3)
        assert keeper.pair() == (0, 0)
        keeper.arrive(SPR)
        assert keeper.pair() == (0x440, 0x440)
        keeper.arrive(SPR_WITHOUT_CONTROL)
        assert keeper.pair() == (0, 0)
