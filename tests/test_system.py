"""The /dev/kvm fd."""

import pytest

from helpers import BIT_63, ICE_LAKE, SPR, SPR_WITHOUT_CONTROL, WITHOUT_MSR
from specctrl.kvm.system import check_extension, feature_msr, msr_index_list


class TestCheckExtension:
    """1 or 0."""

    @pytest.mark.parametrize(
        ("host", "capability", "expected"),
        [
            (SPR, 236, 1), (ICE_LAKE, 236, 0), (SPR_WITHOUT_CONTROL, 236, 0),
            (ICE_LAKE, 188, 1), (ICE_LAKE, 189, 1), (SPR, 9999, 0),
        ],
    )
    def test_the_force_capability_needs_a_bit_that_can_be_forced(self, host, capability, expected):
        assert expected == check_extension(host, capability)


class TestMsrIndexList:
    """What is saved and restored."""

    def test_ia32_spec_ctrl_comes_first(self):
        assert (0x48, 0x10A, 0x50000000, 0x50000001, 0x50000002) == msr_index_list(ICE_LAKE)

    def test_without_the_msr_only_the_emulated_ones_are_listed(self):
        assert (0x10A, 0x50000000, 0x50000001, 0x50000002) == msr_index_list(WITHOUT_MSR)


class TestFeatureMsr:
    """What KVM can offer."""

    @pytest.mark.parametrize(
        ("msr", "expected"),
        [(0x10A, BIT_63), (0x50000000, 1), (0x50000001, 3), (0x50000002, None), (0x48, None)],
    )
    def test_bit_63_and_the_valid_sets_on_any_host(self, msr, expected):
        assert expected == feature_msr(WITHOUT_MSR, msr)
