"""MSR filters: which range decides, and which filters are refused."""

import errno

import pytest

from helpers import outcome
from specctrl.model.kvm.filters import ALLOW_ALL, MAX_RANGE_MSRS, FilterRange, MsrFilter, check_filter


def covering(base: int, *allow: bool, read: bool = True, write: bool = True) -> FilterRange:
    return FilterRange(base, len(allow), read, write, allow)


class TestAllows:
    """The first range that has the MSR and the direction decides, else the default."""

    def test_a_new_vm_allows_everything(self):
        assert ALLOW_ALL.allows(0x48, write=True)
        assert ALLOW_ALL.allows(0xFFFFFFFF, write=False)

    def test_the_first_range_wins(self):
        both = (covering(0x48, True), covering(0x40, *[False] * 16))
        assert MsrFilter(False, both).allows(0x48, write=True)
        assert not MsrFilter(True, both[::-1]).allows(0x48, write=True)

    @pytest.mark.parametrize(("read", "write"), [(True, False), (False, True)])
    def test_a_range_binds_only_its_directions(self, read, write):
        msr_filter = MsrFilter(ranges=(covering(0x48, False, read=read, write=write),))
        assert (not read, not write) == (msr_filter.allows(0x48, write=False), msr_filter.allows(0x48, write=True))

    @pytest.mark.parametrize(
        ("msr", "expected"), [(0x47, True), (0x48, False), (0x49, True), (0x4A, False), (0x4B, True)])
    def test_each_msr_of_a_range_has_its_bit(self, msr, expected):
        assert expected is MsrFilter(ranges=(covering(0x48, False, True, False),)).allows(msr, write=False)

    @pytest.mark.parametrize(("msr", "expected"), [(0x7FF, False), (0x800, True), (0x8FF, True), (0x900, False)])
    def test_the_x2apic_msrs_are_never_filtered(self, msr, expected):
        msr_filter = MsrFilter(False, (covering(0x700, *[False] * 0x400),))
        assert expected is msr_filter.allows(msr, write=True)


class TestCheckFilter:
    """What KVM_X86_SET_MSR_FILTER refuses."""

    @pytest.mark.parametrize(
        "candidate",
        [
            ALLOW_ALL,
            MsrFilter(False, (covering(0x48, True),)),
            MsrFilter(True, tuple(covering(n, True) for n in range(16))),
            MsrFilter(True, (FilterRange(0, MAX_RANGE_MSRS, True, False, (True,) * MAX_RANGE_MSRS),)),
            MsrFilter(False, (FilterRange(0x48, 0, True, True, ()), covering(0x48, True))),
            MsrFilter(True, (FilterRange(0x48, 0, False, False, ()),)),
        ],
    )
    def test_these_are_taken(self, candidate):
        check_filter(candidate)

    @pytest.mark.parametrize(
        "candidate",
        [
            MsrFilter(False),
            MsrFilter(False, (FilterRange(0x48, 0, True, True, ()),)),
            MsrFilter(True, tuple(covering(n, True) for n in range(17))),
            MsrFilter(True, (covering(0x48, True, read=False, write=False),)),
            MsrFilter(True, (FilterRange(0, MAX_RANGE_MSRS + 1, True, False, (True,) * (MAX_RANGE_MSRS + 1)),)),
        ],
    )
    def test_these_are_einval(self, candidate):
        assert errno.EINVAL == outcome(check_filter, candidate).number

    def test_a_bitmap_has_0x600_bytes_at_the_most(self):
        assert 0x3000 == MAX_RANGE_MSRS
