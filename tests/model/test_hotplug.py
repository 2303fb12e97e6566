"""One pair for all vCPUs of a VM, also for those that are created later."""

import errno

import pytest

from specctrl.model.outcomes import Errno
from specctrl.model.vmm.hotplug import SharedPair


class TestSharedPair:
    """What a VMM sets on which vCPU."""

    def test_a_new_vcpu_is_left_with_the_vms_pair_until_it_was_changed(self) -> None:
        given: list[tuple[int, int, int]] = []
        shared = SharedPair(lambda *pair: given.append(pair), (0x400, 0x400))
        shared.created(0)
        shared.created(1)
        assert given == []

    @pytest.mark.parametrize("pair", [(0, 0), (0x404, 0x400)])
    def test_after_a_change_every_vcpu_gets_it_the_new_ones_too(self, pair: tuple[int, int]) -> None:
        given: list[tuple[int, int, int]] = []
        shared = SharedPair(lambda *pair: given.append(pair), (0x400, 0x400))
        shared.created(0)
        shared.change(*pair)
        shared.created(1)
        shared.change(0x4, 0x4)
        assert given == [(0, *pair), (1, *pair), (0, 0x4, 0x4), (1, 0x4, 0x4)]

    def test_a_pair_that_is_refused_is_not_kept(self) -> None:
        given: list[tuple[int, int, int]] = []

        def force(vcpu: int, mask: int, value: int) -> None:
            if value == 0x800:
                raise Errno(errno.EINVAL)
            given.append((vcpu, mask, value))

        shared = SharedPair(force, (0, 0))
        shared.created(0)
        with pytest.raises(Errno):
            shared.change(0x800, 0x800)
        shared.created(1)
        shared.change(0x4, 0x4)
        with pytest.raises(Errno):
            shared.change(0x800, 0x800)
        shared.created(2)
        assert given == [(0, 0x4, 0x4), (1, 0x4, 0x4), (2, 0x4, 0x4)]

    def test_what_one_vcpu_refuses_none_keeps(self) -> None:
        has: dict[int, tuple[int, int]] = dict.fromkeys((0, 1, 2), (0x400, 0x400))

        def force(vcpu: int, mask: int, value: int) -> None:
            if (vcpu, mask) == (1, 0x4):
                raise Errno(errno.EINVAL)
            has[vcpu] = (mask, value)

        shared = SharedPair(force, (0x400, 0x400))
        for vcpu in has:
            shared.created(vcpu)
        with pytest.raises(Errno):
            shared.change(0x4, 0x4)
        assert set(has.values()) == {(0x400, 0x400)}
