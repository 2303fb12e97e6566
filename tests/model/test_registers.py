"""Layouts and numbers: as the sources give them, and as the decoder uses them."""

import pytest

from specctrl.model.registers import (
    BHI_DIS_S,
    CAP_NUMBERS,
    IBRS,
    KVM_GET_SUPPORTED_FORCE_SPEC_CTRL,
    MSR_NUMBERS,
    REGISTERS,
    RRSBA_DIS_S,
    SSBD,
    STIBP,
    VALID_ENUMERATION,
    VALID_MITIGATION_CTRL,
    VALID_MITIGATION_ENUM,
    VMCS_ENCODINGS,
    cap_number,
    check_word,
    msr_number,
)

SPEC_CTRL = REGISTERS["IA32_SPEC_CTRL"]


class TestNumbers:
    """The numbers of the interface."""

    def test_msrs_have_their_numbers(self):
        assert {
            "IA32_SPEC_CTRL": 0x48,
            "IA32_ARCH_CAPABILITIES": 0x10A,
            "MSR_VIRTUAL_ENUMERATION": 0x50000000,
            "MSR_VIRTUAL_MITIGATION_ENUM": 0x50000001,
            "MSR_VIRTUAL_MITIGATION_CTRL": 0x50000002,
        } == MSR_NUMBERS

    def test_capabilities_have_their_numbers(self):
        expected = {"KVM_CAP_FORCE_SPEC_CTRL": 236, "KVM_CAP_X86_USER_SPACE_MSR": 188, "KVM_CAP_X86_MSR_FILTER": 189}
        assert expected == CAP_NUMBERS

    def test_the_ioctl_has_its_number(self):
        assert KVM_GET_SUPPORTED_FORCE_SPEC_CTRL.number == 0x8008AEE4

    def test_the_vmcs_fields_have_their_encodings(self):
        assert [0x204A, 0x204B, 0x204C, 0x204D] == list(VMCS_ENCODINGS.values())

    def test_the_tertiary_control_is_bit_7_of_msr_0x492(self):
        tertiary = REGISTERS["IA32_VMX_PROCBASED_CTLS3"]
        assert (0x492, 7, 4) == (
            tertiary.number, tertiary.field("VIRTUALIZE_IA32_SPEC_CTRL").low, tertiary.field("IPI_VIRTUALIZATION").low)

    def test_cpuid_bits_are_where_the_manual_has_them(self):
        leaf0 = {field.name: field.low for field in REGISTERS["CPUID.(7,0):EDX"]}
        leaf2 = {field.name: field.low for field in REGISTERS["CPUID.(7,2):EDX"]}
        assert {"SPEC_CTRL": 26, "STIBP": 27, "ARCH_CAPABILITIES": 29, "SSBD": 31} == leaf0
        assert {"PSFD": 0, "IPRED_CTRL": 1, "RRSBA_CTRL": 2, "DDPD_U": 3, "BHI_CTRL": 4} == leaf2


class TestLayouts:
    """The bits of each register."""

    def test_spec_ctrl_has_its_ten_fields(self):
        expected = {
            "IBRS": 0, "STIBP": 1, "SSBD": 2, "IPRED_DIS_U": 3, "IPRED_DIS_S": 4, "RRSBA_DIS_U": 5, "RRSBA_DIS_S": 6,
            "PSFD": 7, "DDPD_U": 8, "BHI_DIS_S": 10,
        }
        assert expected == {field.name: field.low for field in SPEC_CTRL}

    def test_bit_9_and_all_above_10_are_reserved(self):
        assert SPEC_CTRL.defined == 0x5FF

    def test_the_constants_are_the_fields(self):
        assert (0x1, 0x2, 0x4, 0x40, 0x400) == (IBRS, STIBP, SSBD, RRSBA_DIS_S, BHI_DIS_S)

    def test_the_valid_sets_are_1_3_3(self):
        assert (1, 3, 3) == (VALID_ENUMERATION, VALID_MITIGATION_ENUM, VALID_MITIGATION_CTRL)

    def test_arch_capabilities_has_the_four_bits_that_matter(self):
        fields = {field.name: field.low for field in REGISTERS["IA32_ARCH_CAPABILITIES"]}
        assert {"RRSBA": 19, "BHI_NO": 20, "ITS_NO": 62, "VIRTUAL_ENUM": 63} == fields

    def test_fields_do_not_overlap_and_fit_the_register(self):
        for register in REGISTERS.values():
            masks = [field.mask for field in register]
            assert sum(masks) == register.defined
            assert register.defined < 1 << register.width


class TestDecode:
    """Taking a value apart."""

    def test_fields_and_reserved_bits_are_named(self):
        expected = "IA32_SPEC_CTRL 0x80000401 = IBRS | BHI_DIS_S | reserved 0x80000000"
        assert expected == repr(SPEC_CTRL.decode(0x80000401))

    def test_zero_is_zero(self):
        assert "IA32_SPEC_CTRL 0x0 = 0" == repr(SPEC_CTRL.decode(0))

    def test_a_wide_field_shows_its_value(self):
        assert "IA32_SPEC_CTRL_MASK 0x400 = MASK=0x400" == repr(REGISTERS["IA32_SPEC_CTRL_MASK"].decode(0x400))

    def test_bit_63_is_decoded(self):
        decoded = REGISTERS["IA32_ARCH_CAPABILITIES"].decode(1 << 63)
        assert (1, 0) == (decoded.fields["VIRTUAL_ENUM"], decoded.unknown)

    @pytest.mark.parametrize("value", [-1, 1 << 64])
    def test_a_value_that_does_not_fit_is_refused(self, value):
        with pytest.raises(ValueError, match="does not fit the 64 bits of IA32_SPEC_CTRL"):
            SPEC_CTRL.decode(value)

    def test_a_32_bit_register_refuses_bit_32(self):
        with pytest.raises(ValueError, match="32 bits"):
            REGISTERS["CPUID.(7,0):EDX"].decode(1 << 32)


class TestEncode:
    """Putting fields together."""

    def test_it_undoes_decode(self):
        assert 0x447 == SPEC_CTRL.encode(**SPEC_CTRL.decode(0x447).fields)

    def test_an_unknown_field_is_named_with_those_that_exist(self):
        with pytest.raises(KeyError, match="has no field 'IBSR'; it has IBRS, STIBP"):
            SPEC_CTRL.encode(IBSR=1)

    @pytest.mark.parametrize("value", [2, -1])
    def test_a_field_takes_only_what_fits(self, value):
        with pytest.raises(ValueError, match="does not fit"):
            SPEC_CTRL.encode(IBRS=value)


class TestMsrNumber:
    """An MSR by name or by number."""

    def test_a_name_is_looked_up_and_a_number_is_itself(self):
        assert (0x48, 0x48) == (msr_number("IA32_SPEC_CTRL"), msr_number(0x48))

    def test_an_unknown_name_is_refused(self):
        with pytest.raises(ValueError, match="no MSR is named 'SPEC_CTRL'"):
            msr_number("SPEC_CTRL")

    @pytest.mark.parametrize("number", [-1, 1 << 32])
    def test_a_number_must_fit_ecx(self, number):
        with pytest.raises(ValueError, match="ECX has 32 bits"):
            msr_number(number)


class TestCapNumber:
    """A capability by name or by number."""

    def test_a_name_is_looked_up_and_a_number_is_itself(self):
        assert (236, 999) == (cap_number("KVM_CAP_FORCE_SPEC_CTRL"), cap_number(999))

    def test_an_unknown_name_is_refused(self):
        with pytest.raises(ValueError, match="no capability is named 'FORCE'"):
            cap_number("FORCE")


class TestCheckWord:
    """Values are checked once, at the boundary."""

    def test_a_word_is_itself(self):
        assert (0, (1 << 64) - 1) == (check_word(0, "x"), check_word((1 << 64) - 1, "x"))

    @pytest.mark.parametrize("value", [-1, 1 << 64])
    def test_anything_else_is_refused_by_name(self, value):
        with pytest.raises(ValueError, match=r"the mask is .*: not a 64-bit word"):
            check_word(value, "the mask")
