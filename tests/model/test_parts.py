"""The catalogue of parts, and the host that one becomes."""

import pytest

from helpers import BIT_63, ICE_LAKE, SPR, WITHOUT_MSR
from specctrl.model.parts import (
    FEATURES,
    PARTS,
    Features,
    arch_capabilities,
    features_from_names,
    guest_features,
    resolve_host,
    writable_bits,
)


class TestFeatures:
    """Feature names and records."""

    def test_the_twelve_names_of_the_format_exist(self):
        names = "SPEC_CTRL STIBP SSBD RRSBA_CTRL BHI_CTRL IPRED_CTRL PSFD DDPD_U ARCH_CAPABILITIES RRSBA BHI_NO TSX"
        assert set(names.split()) == set(FEATURES)

    def test_names_and_record_are_two_ways_to_say_the_same(self):
        assert ("SSBD", "BHI_CTRL") == features_from_names(["BHI_CTRL", "SSBD"]).names()

    def test_an_unknown_name_is_refused(self):
        with pytest.raises(ValueError, match="no feature is named 'IBRS'"):
            features_from_names(["IBRS"])


class TestGuestFeatures:
    """What a guest's CPUID shows by default."""

    def test_everything_but_what_cpuid_cannot_show(self):
        everything = features_from_names(list(FEATURES))
        assert set(FEATURES) - {"RRSBA", "BHI_NO", "TSX"} == set(guest_features(everything).names())


class TestWritableBits:
    """Each field exists when its feature does."""

    @pytest.mark.parametrize(
        ("names", "expected"),
        [
            ([], 0),
            (["SPEC_CTRL"], 0x1),
            (["STIBP"], 0x2),
            (["SSBD"], 0x4),
            (["IPRED_CTRL"], 0x18),
            (["RRSBA_CTRL"], 0x60),
            (["PSFD"], 0x80),
            (["DDPD_U"], 0x100),
            (["BHI_CTRL"], 0x400),
            (["RRSBA", "BHI_NO", "TSX", "ARCH_CAPABILITIES"], 0),
        ],
    )
    def test_a_feature_brings_its_bits(self, names, expected):
        assert expected == writable_bits(features_from_names(names))


class TestPart:
    """The catalogue."""

    def test_every_part_can_be_a_host_as_it_is(self):
        for name, part in PARTS.items():
            host = resolve_host(name)
            assert host.spec_ctrl == part.spec_ctrl, name
            assert part.source, name

    def test_a_part_shows_its_name_and_features(self):
        assert "<Part ice-lake-server: SPEC_CTRL STIBP SSBD ARCH_CAPABILITIES>" == repr(PARTS["ice-lake-server"])

    def test_parts_before_alder_lake_have_neither_the_control_nor_the_new_bits(self):
        for name in ("skylake-server", "cascade-lake", "ice-lake-server"):
            host = resolve_host(name)
            assert (False, 0x7) == (host.spec_ctrl_shadow, host.writable), name

    def test_only_skylake_runs_with_legacy_ibrs(self):
        assert ["skylake-server"] == [name for name in PARTS if resolve_host(name).legacy_ibrs]

    def test_only_clearwater_forest_and_diamond_rapids_report_bhi_no(self):
        assert ["clearwater-forest", "diamond-rapids"] == [name for name in PARTS if PARTS[name].features.bhi_no]

    def test_ice_lake_does_not_report_rrsba(self):
        assert (False, True) == (PARTS["ice-lake-server"].features.rrsba, PARTS["cascade-lake"].features.rrsba)


class TestArchCapabilities:
    """IA32_ARCH_CAPABILITIES as KVM offers it."""

    @pytest.mark.parametrize(
        ("host", "expected"),
        [
            ("ice-lake-server", BIT_63),
            ("sapphire-rapids", BIT_63 | 0x80000),
            ("clearwater-forest", BIT_63 | 0x100000),
            ("diamond-rapids", BIT_63 | 0x180000),
            ({"part": "diamond-rapids", "without": ["ARCH_CAPABILITIES"]}, BIT_63),
        ],
    )
    def test_bit_63_always_the_others_from_the_host(self, host, expected):
        assert expected == arch_capabilities(resolve_host(host))


class TestResolveHost:
    """A part with its options chosen."""

    def test_a_host_is_itself(self):
        assert SPR is resolve_host(SPR)

    def test_a_name_and_an_object_with_that_part_are_the_same(self):
        assert SPR == resolve_host({"part": "sapphire-rapids"})

    def test_features_replace_the_parts_own_and_without_takes_away(self):
        host = resolve_host({"part": "ice-lake-server", "features": ["SPEC_CTRL", "SSBD"], "without": ["SSBD"]})
        assert (Features(spec_ctrl=True), 0x1) == (host.features, host.writable)

    def test_the_default_value_loses_bits_that_the_host_lacks(self):
        assert 0x1 == resolve_host({"part": "sapphire-rapids", "without": ["BHI_CTRL"]}).spec_ctrl

    def test_options_are_taken(self):
        host = resolve_host(
            {"part": "sapphire-rapids", "spec_ctrl_shadow": False, "host_spec_ctrl": 0x81, "nested": False})
        assert (False, 0x81, False) == (host.spec_ctrl_shadow, host.spec_ctrl, host.nested)

    def test_without_spec_ctrl_a_part_loses_the_control(self):
        without = resolve_host({"part": "sapphire-rapids", "features": []})
        assert (True, False) == (SPR.spec_ctrl_shadow, without.spec_ctrl_shadow)

    def test_the_msr_exists_where_some_field_does(self):
        assert (True, False) == (ICE_LAKE.has_spec_ctrl, WITHOUT_MSR.has_spec_ctrl)

    @pytest.mark.parametrize(
        ("spec", "complaint"),
        [
            ("pentium", "no part is named 'pentium'"),
            ({}, "no part is named None"),
            ({"part": "sapphire-rapids", "cores": 2}, "a host has no key 'cores'"),
            ({"part": "sapphire-rapids", "features": "SSBD"}, "not a list of feature names"),
            ({"part": "sapphire-rapids", "features": [1]}, "not a list of feature names"),
            ({"part": "sapphire-rapids", "features": ["IBRS"]}, "no feature is named"),
            ({"part": "sapphire-rapids", "without": ["IBRS"]}, "no feature is named"),
            ({"part": "ice-lake-server", "features": [], "spec_ctrl_shadow": True}, "there is no MSR to virtualize"),
            ({"part": "sapphire-rapids", "nested": 1}, "nested is 1: not true or false"),
            ({"part": "sapphire-rapids", "host_spec_ctrl": "1"}, "host_spec_ctrl is '1': not a number"),
            ({"part": "sapphire-rapids", "host_spec_ctrl": True}, "host_spec_ctrl is True: not a number"),
            ({"part": "sapphire-rapids", "host_spec_ctrl": -1}, "not a 64-bit word"),
            ({"part": "sapphire-rapids", "host_spec_ctrl": 0x200}, "bits that this host refuses: 0x200"),
        ],
    )
    def test_what_makes_no_sense_is_refused_with_a_sentence(self, spec, complaint):
        with pytest.raises(ValueError, match=complaint):
            resolve_host(spec)
