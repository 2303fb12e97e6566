"""The MSR accesses that KVM performs."""

import pytest

from helpers import AC, ALL_BITS, BIT_63, MC, ME, SPR, SPR_WITHOUT_CONTROL, VE, WITHOUT_MSR, machine
from specctrl.model.kvm.filters import FilterRange, MsrFilter
from specctrl.model.kvm.vcpu import Vcpu
from specctrl.model.outcomes import ExitReason, MsrRefused
from specctrl.model.parts import Features, Host
from specctrl.model.registers import MSR_NUMBERS

NUMBER = MSR_NUMBERS


def vcpu(host: Host = SPR, **options: object) -> Vcpu:
    return machine(host, **options).vcpus[0]


def refusal(operation, *args, **kwargs) -> ExitReason:
    """Why KVM does not perform the access."""
    with pytest.raises(MsrRefused) as caught:
        operation(*args, **kwargs)
    return caught.value.reason


class TestEmulatedAccess:
    """The guest's accesses pass the filter first."""

    def test_a_denied_access_is_refused_whatever_the_msr(self):
        target = vcpu()
        target.vm.msr_filter = MsrFilter(ranges=(FilterRange(0, 0x100, True, True, (False,) * 0x100),))
        for msr in (0x48, 0x10):
            assert ExitReason.FILTER is refusal(target.emulate_rdmsr, msr)
            assert ExitReason.FILTER is refusal(target.emulate_wrmsr, msr, 0)

    def test_an_allowed_one_is_the_guests(self):
        target = vcpu()
        target.emulate_wrmsr(0x48, 5)
        assert 5 == target.emulate_rdmsr(0x48)
        assert ExitReason.INVAL is refusal(target.emulate_wrmsr, NUMBER[AC], 0)

    def test_an_x2apic_msr_is_refused_as_invalid(self):
        for msr, reason in ((0x7FF, "UNKNOWN"), (0x800, "INVAL"), (0x8FF, "INVAL"), (0x900, "UNKNOWN")):
            for host_initiated in (False, True):
                assert reason == refusal(vcpu().read_msr, msr, host_initiated).name
                assert reason == refusal(vcpu().write_msr, msr, 0, host_initiated).name

    def test_an_msr_that_kvm_does_not_have_is_unknown(self):
        for host_initiated in (False, True):
            assert ExitReason.UNKNOWN is refusal(vcpu().read_msr, 0x1234, host_initiated)
            assert ExitReason.UNKNOWN is refusal(vcpu().write_msr, 0x1234, 0, host_initiated)


class TestHostWriteMsr:
    """KVM_SET_MSRS and the frozen feature MSRs."""

    @pytest.mark.parametrize(("msr", "own", "other"), [(AC, BIT_63 | 0x80000, 0), (VE, 1, 0), (ME, 3, 1)])
    def test_after_the_first_run_only_the_own_value_passes(self, msr, own, other):
        target = vcpu(offer=True)
        target.host_write_msr(NUMBER[msr], own)
        target.enter_guest()
        target.exit_guest()
        target.host_write_msr(NUMBER[msr], own)
        assert ExitReason.INVAL is refusal(target.host_write_msr, NUMBER[msr], other)
        assert own == target.read_msr(NUMBER[msr], host_initiated=True)

    def test_the_report_and_the_view_are_never_frozen(self):
        target = vcpu()
        target.has_run = True
        target.host_write_msr(NUMBER[MC], 1)
        target.host_write_msr(0x48, 5)
        assert (1, 5) == (target.mitigation_ctrl, target.guest_view)


class TestReadMsr:
    """What is read, and who may."""

    def test_userspace_reads_everything(self):
        target = vcpu()
        target.cpuid = Features()
        target.arch_capabilities = 0
        values = [target.read_msr(number, host_initiated=True) for number in NUMBER.values()]
        assert [0, 0, 0, 0, 0] == values

    @pytest.mark.parametrize("host", [SPR, SPR_WITHOUT_CONTROL])
    def test_the_view_is_read_on_every_host(self, host):
        target = vcpu(host)
        target.guest_view, target.saved = 5, 0x405
        assert 5 == target.read_msr(0x48, host_initiated=False)


class TestGates:
    """What a guest needs to see a virtual MSR."""

    @pytest.mark.parametrize(
        ("cpuid", "arch_capabilities", "enumeration", "expected"),
        [
            (True, BIT_63, 1, (True, True)),
            (True, BIT_63, 0, (True, False)),
            (True, 0x80000, 1, (False, False)),
            (False, BIT_63, 1, (False, False)),
        ],
    )
    def test_cpuid_bit_63_and_the_enumeration(self, cpuid, arch_capabilities, enumeration, expected):
        target = vcpu()
        target.cpuid = Features(arch_capabilities=cpuid)
        target.arch_capabilities = arch_capabilities
        target.virtual_enumeration = enumeration
        assert expected == (target.shows_enumeration(), target.shows_mitigation_ctrl())
        for msr, readable in ((VE, expected[0]), (ME, expected[1]), (MC, expected[1])):
            if readable:
                target.read_msr(NUMBER[msr], host_initiated=False)
            else:
                assert ExitReason.INVAL is refusal(target.read_msr, NUMBER[msr], host_initiated=False)

    def test_arch_capabilities_needs_its_cpuid_bit_alone(self):
        target = vcpu()
        assert BIT_63 | 0x80000 == target.read_msr(0x10A, host_initiated=False)
        target.cpuid = Features(spec_ctrl=True)
        assert ExitReason.INVAL is refusal(target.read_msr, 0x10A, host_initiated=False)

    def test_spec_ctrl_needs_its_cpuid_bit_alone(self):
        target = vcpu()
        target.cpuid = Features(stibp=True, ssbd=True, bhi_ctrl=True, psfd=True)
        assert ExitReason.INVAL is refusal(target.read_msr, 0x48, host_initiated=False)
        assert ExitReason.INVAL is refusal(target.write_msr, 0x48, 0, host_initiated=False)
        target.write_msr(0x48, 1, host_initiated=True)
        assert (1, True) == (target.guest_view, target.vmcs01.intercept_write)


class TestWriteMsr:
    """The MSRs that announce."""

    @pytest.mark.parametrize("msr", [AC, VE, ME])
    def test_the_guest_may_not_write_them(self, msr):
        target = vcpu(offer=True)
        own = target.read_msr(NUMBER[msr], host_initiated=True)
        assert ExitReason.INVAL is refusal(target.write_msr, NUMBER[msr], own, host_initiated=False)

    @pytest.mark.parametrize(("msr", "value"), [(VE, 2), (VE, BIT_63), (ME, 4), (MC, 4), (MC, ALL_BITS)])
    def test_userspace_cannot_leave_the_valid_sets(self, msr, value):
        assert ExitReason.INVAL is refusal(vcpu().write_msr, NUMBER[msr], value, host_initiated=True)

    def test_userspace_may_write_any_arch_capabilities(self):
        target = vcpu()
        target.write_msr(0x10A, ALL_BITS, host_initiated=True)
        assert ALL_BITS == target.arch_capabilities


class TestWriteSpecCtrl:
    """An emulated write of the view."""

    def test_view_shadow_and_saved_value(self):
        target = vcpu(mask=0x404, value=0x400)
        target.write_spec_ctrl(0x87)
        assert (0x87, 0x87, 0x483) == (target.guest_view, target.vmcs01.spec_ctrl_shadow, target.saved)

    def test_the_merge_decides(self):
        target = vcpu(mask=BIT_63)
        target.write_spec_ctrl(BIT_63)
        assert ExitReason.INVAL is refusal(target.write_spec_ctrl, 0x200)
        assert (BIT_63, 0) == (target.guest_view, target.saved)

    def test_without_the_msr_every_value_is_refused(self):
        assert ExitReason.INVAL is refusal(vcpu(WITHOUT_MSR).write_spec_ctrl, 0)

    @pytest.mark.parametrize(("value", "expected"), [(0, True), (1, False)])
    def test_only_a_non_zero_value_ends_the_interception(self, value, expected):
        target = vcpu(mask=0x400, value=0x400)
        target.write_spec_ctrl(value)
        assert (expected, expected) == (target.vmcs01.intercept_read, target.vmcs01.intercept_write)


class TestWriteMitigationCtrl:
    """A report."""

    def test_what_is_not_offered_cannot_be_set_but_kept_or_cleared(self):
        target = vcpu()
        target.write_mitigation_ctrl(3, host_initiated=True)
        target.mitigation_enum = 1
        target.write_mitigation_ctrl(3, host_initiated=False)
        target.write_mitigation_ctrl(1, host_initiated=False)
        assert ExitReason.INVAL is refusal(target.write_mitigation_ctrl, 3, host_initiated=False)
        assert (1, 0x400) == (target.mitigation_ctrl, target.force_mask)

    def test_it_is_in_force_at_once(self):
        target = vcpu()
        target.write_mitigation_ctrl(3, host_initiated=True)
        assert (0x440, 0x440, 0x440) == (target.force_mask, target.saved, target.vmcs01.spec_ctrl_mask)
        target.write_mitigation_ctrl(0, host_initiated=True)
        assert (0, 0, 0) == (target.force_mask, target.saved, target.vmcs01.spec_ctrl_mask)
