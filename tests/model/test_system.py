"""The /dev/kvm fd."""

import errno

import pytest

from helpers import BIT_63, ICE_LAKE, SPR, SPR_WITHOUT_CONTROL, WITHOUT_MSR
from specctrl.model.kvm.system import check_extension, feature_msr, get_supported_force_spec_ctrl, msr_index_list
from specctrl.model.outcomes import Errno


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


class TestSupported:
    """The bits that can be forced to 1."""

    @pytest.mark.parametrize(("host", "bits"), [(SPR, 0x447), (ICE_LAKE, 0), (SPR_WITHOUT_CONTROL, 0)])
    def test_every_host_answers(self, host, bits):
        assert bits == get_supported_force_spec_ctrl(host, "kvm", bad_pointer=False)

    @pytest.mark.parametrize(("fd", "bad_pointer", "number"), [
        ("vm", False, errno.ENOTTY), ("vm", True, errno.ENOTTY), ("kvm", True, errno.EFAULT)])
    def test_a_wrong_fd_is_looked_at_before_the_pointer(self, fd, bad_pointer, number):
        with pytest.raises(Errno) as raised:
            get_supported_force_spec_ctrl(SPR, fd, bad_pointer)
        assert number == raised.value.args[0]


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
