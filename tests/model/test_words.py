"""The word formulas, on values that tell the bits apart, and on random ones."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specctrl.model.words import WORD, is_subset, merge, newly_set, overlay

words = st.integers(0, WORD)


class TestMerge:
    """What takes effect: the value under the mask, the guest's bits elsewhere."""

    @pytest.mark.parametrize(
        ("guest", "mask", "value", "expected"),
        [
            (0x001, 0x000, 0x000, 0x001),
            (0x001, 0x400, 0x400, 0x401),
            (0x405, 0x400, 0x000, 0x005),
            (0x405, 0x004, 0x000, 0x401),
            (0x3, 0x5, 0x4, 0x6),
            (WORD, WORD, 0, 0),
            (0, WORD, WORD, WORD),
            (1 << 63, 1 << 63, 0, 0),
        ],
    )
    def test_each_bit_comes_from_the_side_that_the_mask_names(self, guest, mask, value, expected):
        assert expected == merge(guest, mask, value)

    def test_bits_of_the_value_outside_the_mask_do_not_count(self):
        assert 0x401 == merge(guest=0x001, mask=0x400, value=0xFFFF)

    def test_with_the_register_as_value_it_is_what_the_processor_writes(self):
        assert 0x404 == merge(guest=0x004, mask=0x401, value=0x400)


class TestIsSubset:
    """Whether one set of bits lies in another."""

    @pytest.mark.parametrize(
        ("bits", "of", "expected"),
        [(0, 0, True), (1, 1, True), (1, 3, True), (3, 1, False), (0x402, 0x401, False), (WORD, WORD, True)],
    )
    def test_every_1_must_be_a_1_of_the_other(self, bits, of, expected):
        assert expected is is_subset(bits, of)


class TestOverlay:
    """A report on top of userspace's pair."""

    @pytest.mark.parametrize(
        ("user_mask", "user_value", "requested", "expected"),
        [
            (0, 0, 0, (0, 0)),
            (0, 0, 0x440, (0x440, 0x440)),
            (0x004, 0x000, 0x400, (0x404, 0x400)),
            (0x404, 0x404, 0x040, (0x444, 0x444)),
        ],
    )
    def test_a_requested_bit_is_forced_to_1(self, user_mask, user_value, requested, expected):
        assert expected == overlay(user_mask, user_value, requested)

    def test_userspace_wins_where_both_name_a_bit(self):
        assert (0x440, 0x040) == overlay(user_mask=0x400, user_value=0x000, requested=0x440)
        assert (0x400, 0x400) == overlay(user_mask=0x400, user_value=0x400, requested=0x400)


class TestNewlySet:
    """The bits that a write turns on."""

    @pytest.mark.parametrize(("new", "old", "expected"), [(3, 1, 2), (1, 3, 0), (3, 3, 0), (2, 1, 2)])
    def test_only_bits_that_were_0_count(self, new, old, expected):
        assert expected == newly_set(new, old)


class TestEveryWord:
    """The word formulas, over all 64-bit values."""

    @given(guest=words, mask=words, value=words)
    def test_masked_bits_come_from_the_value_all_others_from_the_guest(self, guest, mask, value):
        merged = merge(guest, mask, value)
        assert (value & mask, guest & ~mask) == (merged & mask, merged & ~mask)
        assert merged == merge(merged, mask, value) == merge(guest, mask, merged)

    @given(guest=words, later=words, mask=words, value=words)
    def test_the_processors_write_keeps_what_the_hypervisors_merge_forced(self, guest, later, mask, value):
        in_force = merge(guest, mask, value)
        assert merge(later, mask, in_force) == merge(later, mask, value)

    @given(mask=words, value=words, requested=words)
    def test_a_report_adds_bits_and_never_changes_userspaces(self, mask, value, requested):
        value &= mask
        new_mask, new_value = overlay(mask, value, requested)
        assert (mask | requested, value) == (new_mask, new_value & mask)
        assert requested & ~mask == new_value & ~mask
        assert is_subset(new_value, new_mask)
        assert (new_mask, new_value) == overlay(new_mask, new_value, requested)

    @given(new=words, old=words)
    def test_nothing_is_newly_set_exactly_if_it_was_all_set(self, new, old):
        assert is_subset(new, old) is (newly_set(new, old) == 0)
        assert new | old == old | newly_set(new, old)
