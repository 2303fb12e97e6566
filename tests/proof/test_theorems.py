"""The theorems: how they are stated, that what is broken is refuted, and that the refutation replays on numbers."""

from dataclasses import replace

import pytest

from planted import D2, D4, D9, D10, D21, planted
from specctrl.model.contract import Contract
from specctrl.model.kvm.nested import l1_intercepts
from specctrl.model.kvm.state import PendingExit
from specctrl.model.kvm.variant import SPEC
from specctrl.model.outcomes import GP, Errno, ExitKind, ExitReason, HostFault
from specctrl.model.posted import RFC_V3
from specctrl.model.processor import LogicalProcessor
from specctrl.model.registers import MSR_VIRTUAL_MITIGATION_CTRL
from specctrl.proof.answers import Questions
from specctrl.proof.any_vcpu import Numbers, Symbols
from specctrl.proof.counterexamples import replays
from specctrl.proof.prove import prove, prove_theorem, stated
from specctrl.proof.symbolic import paths, word
from specctrl.proof.terms import FALSE, TRUE
from specctrl.proof.theorems import THEOREMS, Of, Theorem
from specctrl.proof.theorems.statement import any_bit, choose, equal, has, merged_outside, taken_from, unchanged
from specctrl.rules import load_rules


class StoresShadow(LogicalProcessor):
    """The VM-exit MSR-store area receives SHADOW, as on Bochs."""

    def vm_exit(self, vmcs):
        LogicalProcessor.vm_exit(self, vmcs)
        if vmcs.exit_store:
            vmcs.exit_store_value = vmcs.spec_ctrl_shadow


class SavesNothing(LogicalProcessor):
    """VM exit leaves the guest's field as it was."""

    def vm_exit(self, vmcs):
        before = vmcs.guest_spec_ctrl
        LogicalProcessor.vm_exit(self, vmcs)
        vmcs.guest_spec_ctrl = before


class LoadsUnasked(LogicalProcessor):
    """VM exit loads the host's field wherever it exists."""

    def load_host_state(self, vmcs):
        LogicalProcessor.load_host_state(self, vmcs)
        if self.has_exit_load:
            self.spec_ctrl = vmcs.host_spec_ctrl


class FailsEarly(LogicalProcessor):
    """A VM entry that fails late loads nothing of the host."""

    def load_host_state(self, vmcs):
        self.non_root = False


class TrustsTheVariable(SPEC.vcpu):
    """The entry compares with the host's variable alone, as Linux does."""

    def register_is_saved(self):
        return bool(self.saved == self.host.spec_ctrl)


class TakesWhatIsHeld(SPEC.vcpu):
    """What an NMI left in the register becomes the saved value."""

    def save_spec_ctrl(self, held):
        SPEC.vcpu.save_spec_ctrl(self, held)
        if not self.vmcs.write_intercepted:
            self.saved = held


class EntryLoads(LogicalProcessor):
    """VM entry loads the MSR from SHADOW."""

    def vm_entry(self, vmcs):
        LogicalProcessor.vm_entry(self, vmcs)
        self.spec_ctrl = vmcs.spec_ctrl_shadow


class NoCheck(LogicalProcessor):
    """Neither the fields nor VM entry need the control."""

    def write_mask(self, vmcs, value):
        vmcs.spec_ctrl_mask = value

    def vm_entry(self, vmcs):
        self.non_root = True


class Forgetful(SPEC.vcpu):
    """A reply lets KVM write the MSR after all."""

    def reply(self, value, error):
        pending = self.pending_exit
        if pending.kind is ExitKind.WRMSR:
            self.guest_view = pending.value
        return SPEC.vcpu.reply(self, value, error)


class Hesitant(SPEC.vcpu):
    """A filter waits for the reply."""

    def msr_filter_changed(self):
        if self.pending_exit is None:
            SPEC.vcpu.msr_filter_changed(self)


class Deaf(SPEC.vcpu):
    """KVM_ENABLE_CAP fails after an abort."""

    def enable_cap(self, capability, flags, mask, value):
        if self.shut_down:
            raise Errno(22)
        SPEC.vcpu.enable_cap(self, capability, flags, mask, value)


class Listless(SPEC.vcpu):
    """KVM_SET_NESTED_STATE loses L1's lists."""

    def set_nested_state(self, state):
        SPEC.vcpu.set_nested_state(self, replace(state, controls=replace(state.controls, exit_msr_load=())))


class Unblocked(SPEC.vcpu):
    """KVM_SET_NESTED_STATE loses the INIT that SMM blocks."""

    def set_nested_state(self, state):
        SPEC.vcpu.set_nested_state(self, replace(state, init_pending=False))


class Unmerged(SPEC.vcpu):
    """KVM_SET_NESTED_STATE leaves no merge of L2's bitmap."""

    def set_nested_state(self, state):
        SPEC.vcpu.set_nested_state(self, state)
        self.bitmap_merge_pending = False


class Selective(SPEC.vcpu):
    """L2's report goes to L1 only if L1 intercepts IA32_SPEC_CTRL as well."""

    def wrmsr(self, msr, value):
        unasked = self.level == 2 and not l1_intercepts(self.controls, 0x48, write=True)
        if msr == MSR_VIRTUAL_MITIGATION_CTRL and unasked:
            self.exit_guest()
            self.emulate_wrmsr(msr, value)
            self.run()
        else:
            SPEC.vcpu.wrmsr(self, msr, value)


ALSO_CAUGHT = (
    ("bitmaps_are_merged_when_they_must_be", Unmerged), ("what_l1_intercepts_becomes_an_exit", Selective),
    ("a_waiting_exit_is_not_moved", Hesitant), ("a_vcpu_that_shut_down_runs_no_guest", Deaf),
    ("nested_state_holds_no_word", Listless),
    ("nested_state_holds_no_word", Unblocked),
)
CAUGHT = {
    "areas_act_where_the_control_is_0": replace(SPEC, processor=StoresShadow),
    "nothing_rests_on_what_an_area_loads_or_stores": replace(SPEC, processor=StoresShadow),
    "exit_saves_and_loads": replace(SPEC, processor=SavesNothing),
    "merge_in_the_guest_field_keeps_what_is_forced": replace(SPEC, processor=SavesNothing),
    "load_controls_at_0_save_and_load_nothing": replace(SPEC, processor=LoadsUnasked),
    "entry_that_fails_late_loads_the_host": replace(SPEC, processor=FailsEarly),
    "entry_loads_no_shadow": replace(SPEC, processor=EntryLoads),
    "fields_need_the_control": replace(SPEC, processor=NoCheck),
    "entry_checks_the_controls": replace(SPEC, processor=NoCheck),
    "entry_loads_the_saved_value": planted(TrustsTheVariable),
    "exit_takes_and_gives_back": planted(TakesWhatIsHeld),
    "kvm_writes_view_and_merge": planted(D2),
    "no_list_for_smm_or_saved_state": planted(D4),
    "init_keeps_interception": planted(D9),
    "guest_accesses_of_virtual_msrs": planted(D10),
    "what_is_forced_goes_bit_by_bit": planted(D21),
    "reply_completes_without_kvm": planted(Forgetful),
}


class TestTheorems:
    def test_each_is_a_sentence_and_says_of_which_vcpus_it_speaks(self):
        for theorem in THEOREMS.values():
            assert theorem.text.endswith("."), theorem.name
            assert (theorem.of is Of.NONE) == (not theorem.starts), theorem.name

    @pytest.mark.parametrize("name", CAUGHT)
    def test_a_planted_error_is_refuted_and_replays_on_numbers(self, name):
        machine = replace(CAUGHT[name], name=f"{CAUGHT[name].name}, {name}")
        result = prove_theorem(machine, THEOREMS[name])
        assert {name} == result.refuted()
        assert {name} == set(replays(machine, result.refutations))

    @pytest.mark.parametrize(("name", "error"), ALSO_CAUGHT)
    def test_an_error_where_a_theorem_did_not_look_is_refuted(self, name, error):
        assert {name} == prove_theorem(planted(error), THEOREMS[name]).refuted()

    def test_a_host_that_faults_where_the_theorem_knows_of_no_fault_is_a_refutation(self):
        def faults(machine, values):
            raise HostFault(GP)

        (owed,) = stated(SPEC, Theorem("t", "T.", (), Of.NONE, (), faults), None, Symbols())
        assert ("HostFault", True) == (owed.part, owed.term is FALSE)

    def test_the_posted_patches_break_some_and_the_refutation_replays(self):
        for name in ("kvm_writes_view_and_merge", "userspace_reads_what_is_kept"):
            result = prove(RFC_V3, name)
            assert {name} == set(replays(RFC_V3, result.refutations))

    def test_the_rules_that_no_scenario_reaches_are_proven(self):
        for rule, name in (
            ("processor.fields.need-control", "fields_need_the_control"),
            ("processor.entry.control-checked", "entry_checks_the_controls"),
            ("processor.entry.no-load", "entry_loads_no_shadow"),
            ("processor.areas.real-msr+2", "exit_saves_and_loads"),
            ("processor.load.checked", "entry_that_fails_late_loads_the_host"),
            ("migration.pending-exit", "a_waiting_exit_is_not_moved"),
        ):
            assert rule in load_rules()
            result = prove(SPEC, name)
            assert result.obligations[name]
            assert [] == result.refutations


class TestWords:
    """What theorems are made of, on numbers and on words."""

    def test_any_bit_is_one_bit(self):
        for path, bit in paths(lambda: any_bit(Symbols())):
            assert Questions().assignment([*path.conditions, bit.term == 3]) is None
            assert Questions().assignment([*path.conditions, bit.term == 1 << 63]) is not None

    def test_each_option_is_chosen_once(self):
        assert {"a", "b", "c"} == {one for _, one in paths(lambda: choose(Symbols(), "x", ("a", "b", "c")))}
        assert "b" == choose(Numbers({"x.1": True}), "x", ("a", "b", "c"))

    def test_bits_are_looked_at_one_by_one(self):
        assert TRUE is has(0x5, 0x4)
        assert TRUE is taken_from(0x4, 0x4, view=0, mask=0x4, value=0x4)
        assert FALSE is taken_from(0x4, 0x4, view=0, mask=0, value=0x4)
        assert TRUE is merged_outside(0x8, 0x4, 0, 0x4)
        assert FALSE is merged_outside(0x8, 0x8, 0, 0x4)

    def test_records_are_compared_field_by_field(self):
        one = Contract(None, None, None, word("x"))
        assert TRUE is unchanged(one, replace(one))
        assert FALSE is unchanged(replace(one, level=2), one)
        assert TRUE is unchanged(replace(one, level=2), one, "level")
        assert TRUE is not equal((word("x"),), (word("y"),))
        pending = PendingExit(ExitKind.RDMSR, ExitReason.FILTER, 1, 2)
        assert FALSE is equal(pending, replace(pending, value=3))
