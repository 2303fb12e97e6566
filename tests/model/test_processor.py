"""The logical processor: RDMSR, WRMSR, VM entry and VM exit, as the manual has them."""

import pytest

from helpers import ALL_BITS, BIT_63, outcome
from specctrl.model.outcomes import Fault, Misuse, VmEntryFailed, VmExit, VmxAbort, VmxInstructionError
from specctrl.model.processor import LogicalProcessor, Vmcs


def processor(spec_ctrl: int = 0, control: bool = True, exists: bool = True, **options: bool) -> LogicalProcessor:
    return LogicalProcessor(writable=0x447, has_spec_ctrl=exists, has_control=control, spec_ctrl=spec_ctrl, **options)


def vmcs(mask: int = 0, shadow: int = 0, control: bool = True, **fields: int) -> Vmcs:
    """A VMCS that intercepts nothing."""
    return Vmcs(control, mask, shadow, **{"intercept_read": False, "intercept_write": False, **fields})


class TestAccepts:
    """Reserved bits and the missing MSR."""

    @pytest.mark.parametrize(("value", "expected"), [(0, True), (0x447, True), (0x8, False), (BIT_63, False)])
    def test_a_reserved_bit_is_refused(self, value, expected):
        assert expected is processor().accepts(value)

    def test_without_the_msr_even_0_is_refused(self):
        assert False is processor(exists=False).accepts(0)


class TestRootOperation:
    """RDMSR and WRMSR of the host."""

    def test_they_act_on_the_register(self):
        cpu = processor(0x401)
        assert 0x401 == cpu.rdmsr()
        cpu.wrmsr(0x5)
        assert 0x5 == cpu.rdmsr()

    def test_a_refused_value_faults_and_stays_out(self):
        cpu = processor(0x1)
        assert isinstance(outcome(cpu.wrmsr, 0x8), Fault)
        assert 0x1 == cpu.spec_ctrl

    def test_without_the_msr_both_fault(self):
        cpu = processor(exists=False)
        assert 13 == outcome(cpu.rdmsr).vector
        assert 13 == outcome(cpu.wrmsr, 0).vector


class TestRdmsrInGuest:
    """RDMSR in non-root operation."""

    def test_with_the_control_it_reads_the_shadow(self):
        assert 0x1 == processor(0x401).rdmsr_in_guest(vmcs(mask=0x400, shadow=0x1))

    def test_without_the_control_it_reads_the_register(self):
        assert 0x401 == processor(0x401).rdmsr_in_guest(vmcs(shadow=0x1, control=False))

    @pytest.mark.parametrize("fields", [{"intercept_read": True}, {"use_msr_bitmap": False}])
    def test_an_intercepted_access_exits(self, fields):
        with pytest.raises(VmExit):
            processor().rdmsr_in_guest(vmcs(**fields))

    def test_the_interception_of_writes_does_not_touch_reads(self):
        assert 0x1 == processor().rdmsr_in_guest(vmcs(shadow=0x1, intercept_write=True))

    def test_without_msr_and_control_it_faults(self):
        assert isinstance(outcome(processor(exists=False).rdmsr_in_guest, vmcs(control=False)), Fault)


class TestWrmsrInGuest:
    """WRMSR in non-root operation."""

    @pytest.mark.parametrize(
        ("register", "mask", "source", "expected"),
        [
            (0x400, 0x400, 0x0, 0x400), (0x0, 0x400, 0x400, 0x0),
            (0x401, 0x404, 0x6, 0x402), (0x3, ALL_BITS, BIT_63, 0x3),
        ],
    )
    def test_masked_bits_stay_as_they_are_in_the_register(self, register, mask, source, expected):
        cpu, fields = processor(register), vmcs(mask)
        cpu.wrmsr_in_guest(fields, source)
        assert (expected, source) == (cpu.spec_ctrl, fields.spec_ctrl_shadow)

    def test_the_merged_value_decides_the_fault(self):
        cpu, fields = processor(0x1), vmcs(mask=BIT_63, shadow=0x1)
        assert isinstance(outcome(cpu.wrmsr_in_guest, fields, 0x8), Fault)
        assert (0x1, 0x1) == (cpu.spec_ctrl, fields.spec_ctrl_shadow)

    def test_without_the_control_it_writes_the_register_and_no_shadow(self):
        cpu, fields = processor(0x1), vmcs(mask=0x400, control=False)
        cpu.wrmsr_in_guest(fields, 0x404)
        assert (0x404, 0) == (cpu.spec_ctrl, fields.spec_ctrl_shadow)

    def test_without_the_control_a_reserved_bit_faults_whatever_the_mask_field_says(self):
        assert isinstance(outcome(processor().wrmsr_in_guest, vmcs(mask=ALL_BITS, control=False), 0x8), Fault)

    @pytest.mark.parametrize("fields", [{"intercept_write": True}, {"use_msr_bitmap": False}])
    def test_an_intercepted_access_exits_before_it_could_fault(self, fields):
        with pytest.raises(VmExit):
            processor().wrmsr_in_guest(vmcs(**fields), 0x8)


class TestFields:
    """VMREAD and VMWRITE of MASK and SHADOW."""

    def test_with_the_control_they_hold_any_word(self):
        cpu, fields = processor(), vmcs()
        cpu.write_mask(fields, ALL_BITS)
        cpu.write_shadow(fields, BIT_63)
        assert (ALL_BITS, BIT_63) == (fields.spec_ctrl_mask, cpu.read_shadow(fields))

    @pytest.mark.parametrize("access", ["write_mask", "write_shadow", "read_shadow"])
    def test_without_the_control_they_do_not_exist(self, access):
        cpu = processor(control=False)
        arguments = () if access == "read_shadow" else (1,)
        fields = Vmcs()
        with pytest.raises(VmxInstructionError) as error:
            getattr(cpu, access)(fields, *arguments)
        assert (12, Vmcs()) == (error.value.number, fields)


    @pytest.mark.parametrize(("access", "control", "field"), [
        ("write_guest_field", "has_entry_load", "guest_spec_ctrl"),
        ("write_host_field", "has_exit_load", "host_spec_ctrl"),
    ])
    def test_guest_and_host_field_exist_with_the_control_that_loads_them(self, access, control, field):
        fields = Vmcs()
        with pytest.raises(VmxInstructionError) as error:
            getattr(processor(), access)(fields, 0x1)
        assert (12, Vmcs()) == (error.value.number, fields)
        getattr(processor(**{control: True}), access)(fields, ALL_BITS)
        assert ALL_BITS == getattr(fields, field)


class TestVmEntry:
    """VM entry."""

    def test_it_leaves_the_register_alone(self):
        cpu = processor(0x1)
        cpu.vm_entry(vmcs(mask=0x400, shadow=0x4))
        assert (0x1, True) == (cpu.spec_ctrl, cpu.non_root)

    def test_if_it_loads_from_the_shadow_masked_bits_stay(self):
        cpu = processor(0x401, entry_loads_shadow=True)
        cpu.vm_entry(vmcs(mask=0x400, shadow=0x4))
        assert 0x404 == cpu.spec_ctrl

    def test_without_the_control_nothing_is_loaded_from_the_shadow(self):
        cpu = processor(0x1, entry_loads_shadow=True)
        cpu.vm_entry(vmcs(shadow=0x4, control=False))
        assert 0x1 == cpu.spec_ctrl

    def test_a_control_that_the_processor_lacks_is_error_7(self):
        cpu = processor(control=False)
        with pytest.raises(VmxInstructionError) as error:
            cpu.vm_entry(vmcs())
        assert (7, False) == (error.value.number, cpu.non_root)

    def test_the_load_area_writes_the_register_where_the_control_is_0(self):
        cpu, fields = processor(0x1), vmcs(control=False, entry_load=True, entry_load_value=0x404)
        cpu.vm_entry(fields)
        assert (0x404, True) == (cpu.spec_ctrl, cpu.non_root)

    def test_what_the_load_area_loads_under_the_control_has_no_value_here(self):
        with pytest.raises(Misuse, match="undefined"):
            processor(0x1).vm_entry(vmcs(mask=0x400, entry_load=True, entry_load_value=0x404))

    def test_a_refused_value_in_the_load_area_fails_the_entry(self):
        cpu = processor(0x1)
        with pytest.raises(VmEntryFailed):
            cpu.vm_entry(vmcs(mask=ALL_BITS, entry_load=True, entry_load_value=0x8))
        assert (0x1, False) == (cpu.spec_ctrl, cpu.non_root)

    def test_the_guest_state_field_is_loaded_whatever_mask_and_shadow_hold(self):
        cpu = processor(0x1, has_entry_load=True)
        cpu.vm_entry(vmcs(mask=0x400, shadow=0x2, load_on_entry=True, guest_spec_ctrl=0x404))
        assert (0x404, True) == (cpu.spec_ctrl, cpu.non_root)

    def test_the_guest_state_field_is_left_alone_while_its_control_is_0(self):
        cpu = processor(0x1, has_entry_load=True)
        cpu.vm_entry(vmcs(guest_spec_ctrl=0x404))
        assert 0x1 == cpu.spec_ctrl

    def test_the_load_area_comes_after_the_guest_state_field(self):
        cpu = processor(0x1, has_entry_load=True)
        area = {"entry_load": True, "entry_load_value": 0x2}
        cpu.vm_entry(vmcs(control=False, load_on_entry=True, guest_spec_ctrl=0x4, **area))
        assert 0x2 == cpu.spec_ctrl

    @pytest.mark.parametrize("fields", [
        {"load_on_entry": True, "guest_spec_ctrl": 0x8},
        {"entry_load": True, "entry_load_value": 0x8},
        {"load_on_entry": True, "guest_spec_ctrl": 0x4, "entry_load": True, "entry_load_value": 0x8},
    ])
    def test_an_entry_that_fails_late_loads_the_host_s_state(self, fields):
        cpu = processor(0x1, has_entry_load=True, has_exit_load=True)
        with pytest.raises(VmEntryFailed):
            cpu.vm_entry(vmcs(**fields, load_on_exit=True, host_spec_ctrl=0x401))
        assert (0x401, False) == (cpu.spec_ctrl, cpu.non_root)

    def test_an_entry_that_fails_late_without_a_host_value_keeps_what_was_loaded(self):
        cpu = processor(0x1, has_entry_load=True)
        with pytest.raises(VmEntryFailed):
            cpu.vm_entry(vmcs(load_on_entry=True, guest_spec_ctrl=0x4, entry_load=True, entry_load_value=0x8))
        assert (0x4, False) == (cpu.spec_ctrl, cpu.non_root)

    @pytest.mark.parametrize(("fields", "number"), [
        ({"load_on_entry": True}, 7), ({"load_on_exit": True}, 7),
    ])
    def test_a_load_control_that_the_processor_lacks_is_error_7(self, fields, number):
        cpu = processor(0x1)
        with pytest.raises(VmxInstructionError) as error:
            cpu.vm_entry(vmcs(**fields))
        assert (number, 0x1, False) == (error.value.number, cpu.spec_ctrl, cpu.non_root)

    def test_a_host_state_field_with_a_reserved_bit_is_error_8(self):
        cpu = processor(0x1, has_exit_load=True)
        with pytest.raises(VmxInstructionError) as error:
            cpu.vm_entry(vmcs(load_on_exit=True, host_spec_ctrl=0x8))
        assert (8, 0x1, False) == (error.value.number, cpu.spec_ctrl, cpu.non_root)


class TestVmExit:
    """VM exit."""

    def test_it_leaves_the_register_alone(self):
        cpu = processor(0x401, non_root=True)
        cpu.vm_exit(vmcs(mask=0x400, shadow=0x1))
        assert (0x401, False) == (cpu.spec_ctrl, cpu.non_root)

    def test_the_store_area_receives_the_register_before_the_load_area_writes_it(self):
        cpu = processor(0x401, non_root=True)
        fields = vmcs(control=False, exit_store=True, exit_load=True, exit_load_value=0x2)
        cpu.vm_exit(fields)
        assert (0x401, 0x2) == (fields.exit_store_value, cpu.spec_ctrl)

    def test_what_the_store_area_receives_under_the_control_has_no_value_here(self):
        with pytest.raises(Misuse, match="undefined"):
            processor(0x401, non_root=True).vm_exit(vmcs(mask=0x400, shadow=0x1, exit_store=True))

    def test_a_store_area_aborts_where_there_is_no_msr(self):
        cpu = LogicalProcessor(0, has_spec_ctrl=False, has_control=False, non_root=True)
        assert isinstance(outcome(cpu.vm_exit, Vmcs(exit_store=True)), VmxAbort)
        assert not cpu.non_root

    def test_the_load_area_writes_the_register_under_the_control_too(self):
        cpu, fields = processor(0x401, non_root=True), vmcs(mask=0x400, shadow=0x1, exit_load=True, exit_load_value=0x2)
        cpu.vm_exit(fields)
        assert (0x2, 0x1) == (cpu.spec_ctrl, fields.spec_ctrl_shadow)

    def test_the_register_is_saved_wherever_it_could_be_loaded_from_there(self):
        for loads in (False, True):
            cpu, fields = processor(0x401, non_root=True, has_entry_load=True), vmcs(shadow=0x1, load_on_entry=loads)
            cpu.vm_exit(fields)
            assert (0x401, 0x401, 0x1) == (fields.guest_spec_ctrl, cpu.spec_ctrl, fields.spec_ctrl_shadow)

    def test_without_that_control_the_guest_state_field_is_not_written(self):
        cpu, fields = processor(0x401, non_root=True), vmcs()
        cpu.vm_exit(fields)
        assert 0 == fields.guest_spec_ctrl

    def test_the_host_state_field_is_loaded_and_then_the_load_area(self):
        for area, after in ((False, 0x401), (True, 0x2)):
            cpu = processor(0x404, non_root=True, has_exit_load=True)
            cpu.vm_exit(vmcs(load_on_exit=True, host_spec_ctrl=0x401, exit_load=area, exit_load_value=0x2))
            assert after == cpu.spec_ctrl

    def test_a_refused_value_in_the_load_area_aborts(self):
        cpu = processor(0x1, non_root=True)
        assert isinstance(outcome(cpu.vm_exit, vmcs(exit_load=True, exit_load_value=0x8)), VmxAbort)
        assert (0x1, False) == (cpu.spec_ctrl, cpu.non_root)

    def test_without_a_store_area_nothing_is_stored(self):
        cpu, fields = processor(0x401, non_root=True), Vmcs()
        cpu.vm_exit(fields)
        assert 0 == fields.exit_store_value
