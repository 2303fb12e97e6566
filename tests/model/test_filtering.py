"""IA32_SPEC_CTRL kept in userspace, behind an MSR filter."""

from specctrl.model.outcomes import ExitKind
from specctrl.model.vmm.filtering import FilteredSpecCtrl


class TestFiltering:
    """The MSR behind a filter: what the guest reads, and what KVM is given."""

    def test_kvm_gets_the_forced_bits_and_the_guest_reads_what_it_wrote(self) -> None:
        given: list[int] = []
        kept = FilteredSpecCtrl(0x404, 0x400, set_msr=lambda value: not given.append(value))
        for value in (0x1, 0x5, 0x401, 0x0):
            assert kept.answer(ExitKind.WRMSR, value) == {"error": False}
            assert kept.answer(ExitKind.RDMSR, 0) == {"value": value}
        assert given == [0x401, 0x401, 0x401, 0x400]

    def test_what_kvm_refuses_is_a_fault_and_changes_nothing(self) -> None:
        kept = FilteredSpecCtrl(0x400, 0x400, set_msr=lambda value: value == 0x401)
        assert kept.answer(ExitKind.WRMSR, 0x1) == {"error": False}
        assert kept.answer(ExitKind.WRMSR, 0x800) == {"error": True}
        assert kept.answer(ExitKind.RDMSR, 0) == {"value": 0x1}
