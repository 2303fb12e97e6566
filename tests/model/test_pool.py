"""What a VMM shows to a guest that must run on every host of a pool."""

from itertools import product

from helpers import BIT_63, ICE_LAKE, SPR
from specctrl.model.parts import PARTS, guest_features, resolve_host
from specctrl.model.vmm.pool import advertise


class TestPool:
    """What a guest is shown in a pool."""

    def test_a_feature_is_shown_only_if_every_host_has_it(self) -> None:
        hosts = [resolve_host(name) for name in PARTS]
        for left, right in product(hosts, repeat=2):
            shown = set(advertise([left, right], virtual_msrs=True).cpuid.names())
            assert shown == set(guest_features(left.features).names()) & set(guest_features(right.features).names())

    def test_a_pool_of_one_shows_what_the_host_has(self) -> None:
        assert advertise([SPR], virtual_msrs=False).cpuid == guest_features(SPR.features)

    def test_rrsba_is_a_warning(self) -> None:
        pool = [ICE_LAKE, SPR]
        assert advertise(pool, virtual_msrs=True).arch_capabilities == BIT_63
        assert advertise(pool, virtual_msrs=True, tell_rrsba=True).arch_capabilities == BIT_63 | 1 << 19
        assert advertise([ICE_LAKE], virtual_msrs=True, tell_rrsba=True).arch_capabilities == BIT_63

    def test_bhi_no_is_shown_only_if_all_have_it(self) -> None:
        diamond = resolve_host("diamond-rapids")
        assert advertise([diamond], virtual_msrs=False).arch_capabilities & 1 << 20
        assert not advertise([diamond, SPR], virtual_msrs=False).arch_capabilities & 1 << 20

    def test_the_report_is_offered_whole_or_not_at_all(self) -> None:
        offered = advertise([ICE_LAKE], virtual_msrs=True)
        assert (offered.virtual_enumeration, offered.mitigation_enum) == (1, 3)
        silent = advertise([ICE_LAKE], virtual_msrs=False)
        assert (silent.arch_capabilities, silent.virtual_enumeration, silent.mitigation_enum) == (0, 0, 0)
