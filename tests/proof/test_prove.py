"""The proofs: every claim for the specification, refutations for what is broken, and no proof about nothing."""

import json

import pytest

from planted import D1, D2, D3, D4, D5, D7, D8, D9, D10, D18, D21, D10Offered, D18WithDrift, planted
from published_files import ROOT
from specctrl.cli.main import main
from specctrl.evidence.records import evidence_folder, obtain
from specctrl.model.kvm import vcpu
from specctrl.model.kvm.state import Loaded
from specctrl.model.kvm.variant import SPEC
from specctrl.model.outcomes import ExitReason, MsrRefused
from specctrl.model.posted import RFC_V3
from specctrl.model.vmm.migration import migrate
from specctrl.proof.claims import CLAIMS
from specctrl.proof.counterexamples import replays
from specctrl.proof.induction import hunt, prove_once, prove_step, replay
from specctrl.proof.prove import manifest, place, proofs, prove, prove_migration
from specctrl.proof.steps import HUNTS, STEPS
from specctrl.proof.symbolic import SymbolicError

L1, L2 = Loaded.VMCS01, Loaded.VMCS02
GUEST, KVM = True, False
HOST_SETS_REPORT = "KVM_SET_MSRS of MSR_VIRTUAL_MITIGATION_CTRL"

CAUGHT = {
    # defect: step, where it begins, the claims that fail there
    D1: (HOST_SETS_REPORT, L1, KVM, {"invariant_holds_again"}),
    D2: ("guest writes IA32_SPEC_CTRL", L1, GUEST, {
        "invariant_holds_again", "masked_bits_never_change", "zero_forced_bits_never_set", "userspace_wins"}),
    D3: ("an entry of L1's load lists: IA32_SPEC_CTRL", L1, KVM, {"invariant_holds_again"}),
    D4: ("KVM_SET_NESTED_STATE, in L2", L1, KVM, {"invariant_holds_again"}),
    D5: ("L1's VM entry fails", L2, KVM, {"invariant_holds_again"}),
    D7: ("L1's VM entry, before its list", L1, KVM, {"invariant_holds_again"}),
    D8: ("an entry of L1's load lists: IA32_SPEC_CTRL", L1, KVM, {"mechanism_refines_contract"}),
    D9: ("INIT", L1, KVM, {"mechanism_refines_contract", "reset_leaves_userspace"}),
    D10: ("guest reads MSR_VIRTUAL_MITIGATION_ENUM", L1, GUEST, {
        "mechanism_refines_contract", "virtual_msrs_are_gated"}),
    D10Offered: ("guest writes MSR_VIRTUAL_MITIGATION_CTRL", L1, GUEST, {
        "mechanism_refines_contract", "virtual_msrs_are_gated"}),
    D21: ("guest writes MSR_VIRTUAL_MITIGATION_CTRL", L1, GUEST, {"host_never_faults", "invariant_holds_again"}),
}


class TestPlantedDefects:
    @pytest.mark.parametrize("defect", CAUGHT, ids=lambda defect: defect.__name__)
    def test_a_planted_defect_is_refuted_and_the_refutation_replays_on_numbers(self, defect):
        name, loaded, place, claims = CAUGHT[defect]
        variant = planted(defect)
        result = prove_step(variant, STEPS[name], loaded, place)
        assert claims <= result.refuted()
        assert result.refuted() == set(replays(variant, result.refutations))

    def test_d18_alone_is_no_difference(self):
        for step, loaded in (("VM exit to KVM", L1), ("VM exit to KVM", L2), ("L2 exits to L1", L2)):
            assert set() == prove_step(planted(D18), STEPS[step], loaded, GUEST).refuted()

    def test_d18_with_a_mask_that_drifts_is_refuted_by_the_saved_value_and_by_the_hosts(self):
        for claim in ("saved_is_hardware", "host_value_after_exit"):
            found = hunt(planted(D18WithDrift), claim)
            assert found is not None
            assert {claim} == set(replays(planted(D18WithDrift), [found]))

    def test_the_drift_alone_does_not_reach_the_host(self):
        assert hunt(planted(D1), "host_value_after_exit") is None


class TestPosted:
    def test_the_host_leak_is_found_in_three_steps_and_replays(self):
        found = hunt(RFC_V3, "host_value_after_exit")
        assert found is not None
        again = replay(RFC_V3, found)
        assert again.in_invariant
        assert again.after.cpu.spec_ctrl != again.after.host.spec_ctrl

    def test_a_guest_makes_the_hosts_own_write_fault(self):
        result = prove_step(RFC_V3, STEPS["guest writes MSR_VIRTUAL_MITIGATION_CTRL"], L1, GUEST)
        (found, *_) = [one for one in result.refutations if one.claim == "host_never_faults"]
        assert ("host_never_faults", "HostFault") in replay(RFC_V3, found).failed

    def test_a_migration_that_goes_wrong_replays(self):
        result = prove(RFC_V3, "migration, nested state first, L1, KVM runs")
        assert {"migration_is_identity"} == set(replays(RFC_V3, result.refutations))

    def test_posted_steps_that_need_no_repair_are_proven(self):
        for step in ("VM entry", "KVM_GET_MSRS of MSR_VIRTUAL_MITIGATION_CTRL"):
            assert set() == prove_step(RFC_V3, STEPS[step], L1, KVM).refuted()


class TestEverything:
    def test_every_claim_is_proven_and_every_count_is_the_manifests(self):
        proof = obtain("proof", ROOT, evidence_folder(ROOT))  # as the site has it: made once of the same code
        claims = proof["claims"]
        assert [] == [claim for claim, entry in claims.items() if entry["refuted"]]
        counts = {claim: {key: entry[key] for key in ("paths", "obligations")} for claim, entry in claims.items()}
        assert manifest() == {"paths": proof["paths"], "claims": counts}

    def test_no_claim_is_proven_of_nothing(self):
        stored = manifest()["claims"]
        assert list(CLAIMS) == list(stored)
        assert all(entry["paths"] and entry["obligations"] for entry in stored.values())

    def test_the_invariant_has_states_in_every_mode(self):
        assert set() == prove(SPEC, "not empty").refuted()

    def test_every_step_is_proven_from_each_place(self):
        for step in STEPS.values():
            for loaded in step.levels:
                begins_elsewhere = {f"{step.name}, {place(loaded, not step.places[0])}: how it begins"}
                places = {f"{step.name}, {place(loaded, in_guest)}" for in_guest in step.places}
                assert (places | begins_elsewhere if step.begins else places) <= set(proofs())
                assert bool(step.begins) == (len(step.places) == 1 and begins_elsewhere <= set(proofs()))

    def test_a_proof_that_does_not_exist_is_an_error(self):
        with pytest.raises(ValueError, match="nothing"):
            prove(SPEC, "nothing")


@pytest.fixture
def few(monkeypatch):
    """Only the proofs of one step."""
    chosen = {name: proof for name, proof in proofs().items() if name.startswith("KVM_GET_MSRS of IA32_SPEC_CTRL,")}
    monkeypatch.setattr("specctrl.proof.prove.proofs", lambda: chosen)
    monkeypatch.setattr("specctrl.proof.prove.HUNTS", dict(list(HUNTS.items())[:1]))


@pytest.mark.usefixtures("few")
class TestCommand:
    def test_what_is_proven_is_listed_with_its_counts(self, capsys):
        assert 0 == main(["prove", "--jobs", "1"])
        assert "proven   get_msrs_is_the_view  (6 paths, 6 obligations)" in capsys.readouterr().out

    def test_what_is_refuted_comes_with_a_counterexample(self, capsys):
        assert 1 == main(["prove", "--jobs", "1", "--variant", "rfc-v3"])
        out = capsys.readouterr().out
        assert "REFUTED  get_msrs_is_the_view" in out
        assert "step: KVM_GET_MSRS of IA32_SPEC_CTRL" in out

    def test_one_claim_as_json(self, capsys):
        assert 1 == main(["prove", "--jobs", "1", "--variant", "rfc-v3", "--claim", "get_msrs_is_the_view", "--json"])
        (entry,) = json.loads(capsys.readouterr().out)["claims"].values()
        assert (False, "value") == (entry["proven"], entry["counterexample"]["part"])

    def test_a_claim_that_does_not_exist_is_a_usage_error(self, capsys):
        assert 2 == main(["prove", "--claim", "nothing"])
        assert "no claim is named" in capsys.readouterr().err


def keeps(operation, field):
    """A vCPU that forgets to change one field of the mode in one operation."""
    def perform(self, *arguments):
        before = getattr(self, field)
        getattr(SPEC.vcpu, operation)(self, *arguments)
        setattr(self, field, before)

    return type("Keeps", (SPEC.vcpu,), {"__slots__": (), operation: perform})


class TestMode:
    """The mode is compared with the contract's after every step."""

    @pytest.mark.parametrize(("operation", "field", "step"), [
        ("smi", "vmx_operation", "SMI"), ("rsm", "smm_left_vmx", "RSM"), ("vmxoff", "vmx_operation", "VMXOFF"),
        ("nested_enter", "controls", "L1's VM entry, before its list"),
        ("set_nested_state", "init_pending", "KVM_SET_NESTED_STATE, not in L2"),
        ("platform_reset", "smm", "platform reset")])
    def test_a_field_that_an_operation_forgets_is_refuted(self, operation, field, step):
        found = prove_step(planted(keeps(operation, field)), STEPS[step], L1, KVM)
        assert "mechanism_refines_contract" in found.refuted()


class TestWhatTheRefinementExcuses:
    """A reflected and a filtered access are excused from the contract only where L1 and the filter ask for it."""

    @pytest.mark.parametrize(("step", "loaded", "place"), [
        ("guest writes IA32_SPEC_CTRL", L2, GUEST), ("guest reads IA32_SPEC_CTRL", L2, GUEST)])
    def test_an_access_that_goes_to_l1_unasked_is_refuted(self, monkeypatch, step, loaded, place):
        class Reflects(SPEC.vcpu):
            pass

        monkeypatch.setattr(vcpu, "l1_intercepts", lambda controls, msr, write: True)
        assert "mechanism_refines_contract" in prove_step(planted(Reflects), STEPS[step], loaded, place).refuted()

    def test_a_report_of_l2_that_does_not_go_to_l1_is_refuted(self, monkeypatch):
        class Keeps(SPEC.vcpu):
            pass

        monkeypatch.setattr(vcpu, "l1_intercepts", lambda controls, msr, write: False)
        found = prove_step(planted(Keeps), STEPS["guest writes MSR_VIRTUAL_MITIGATION_CTRL"], L2, GUEST)
        assert "mechanism_refines_contract" in found.refuted()

    @pytest.mark.parametrize(("step", "place"), [
        ("guest writes IA32_SPEC_CTRL", GUEST), ("an entry of L1's load lists: IA32_SPEC_CTRL", KVM)])
    def test_an_access_that_is_denied_though_the_filter_allows_it_is_refuted(self, step, place):
        class Denies(SPEC.vcpu):
            def emulate_wrmsr(self, msr, value):
                raise MsrRefused(ExitReason.FILTER)

        assert "mechanism_refines_contract" in prove_step(planted(Denies), STEPS[step], L1, place).refuted()

    def test_an_exit_that_looks_at_the_new_filter_is_refuted(self):
        """What the guest wrote directly under the old one would be lost."""
        class Believes(SPEC.vcpu):
            def save_spec_ctrl(self, held):
                if self.level == 2 or self.vm.msr_filter.allows(0x48, write=True):
                    SPEC.vcpu.save_spec_ctrl(self, held)

        step = STEPS["KVM_X86_SET_MSR_FILTER"]
        assert (False, True) == step.places
        assert set() == prove_step(planted(Believes), STEPS["VM exit to KVM"], L1, GUEST).refuted()
        assert "mechanism_refines_contract" in prove_step(planted(Believes), step, L1, GUEST).refuted()


class TestModes:
    @pytest.mark.parametrize(("step", "method", "field"), [
        ("SMI", "smi", "smm_left_vmx"), ("RSM", "rsm", "vmx_operation")])
    def test_smm_that_forgets_vmx_operation_is_refuted(self, step, method, field):
        def forgets(self):
            getattr(SPEC.vcpu, method)(self)
            setattr(self, field, False)

        forgetful = type(f"Forgets{method}", (SPEC.vcpu,), {method: forgets})
        assert "mechanism_refines_contract" in prove_step(planted(forgetful), STEPS[step], L1, KVM).refuted()


class TestTheBeginningOfAStep:
    def test_an_exit_that_does_something_though_kvm_runs_is_refuted(self):
        class Hasty(SPEC.vcpu):
            """Every ioctl forgets that L1's entry is pending."""

            def exit_guest(self):
                if not self.in_guest:
                    self.nested_run_pending = False
                SPEC.vcpu.exit_guest(self)

        assert {"invariant_holds_again"} == prove_once(planted(Hasty), L2, KVM).refuted()
        assert "run or exit again, L2, KVM runs" in proofs()


class TestMigration:
    @pytest.mark.parametrize(("part", "change"), [
        ("the mode", lambda vm, vcpu: setattr(vcpu, "init_pending", False)),
        ("the VM's filter and exit reasons", lambda vm, vcpu: setattr(vm, "exit_reasons", 0)),
        ("it has not run there", lambda vm, vcpu: setattr(vcpu, "has_run", True)),
    ])
    def test_what_a_move_loses_is_seen(self, monkeypatch, part, change):
        def loses(*arguments):
            vm, vcpus = migrate(*arguments)
            change(vm, vcpus[0])
            return vm, vcpus

        monkeypatch.setattr("specctrl.proof.prove.migrate", loses)
        (found, *_) = prove_migration(SPEC, "migration, nested state first", L1).refutations
        assert ("migration_is_identity", part) == (found.claim, found.part)


class TestSummarizedMethods:
    def test_one_that_looks_at_more_than_its_summary_covers_is_an_error(self):
        class Curious(SPEC.vcpu):
            def may_pass_through(self):
                return bool(self.guest_view)

        with pytest.raises(SymbolicError, match="outside its summary"):
            prove_step(planted(Curious), STEPS[HOST_SETS_REPORT], L1, KVM)

    def test_one_that_writes_more_than_bitmaps_is_an_error(self):
        class Busy(SPEC.vcpu):
            def update_interception(self):
                self.saved = 0

        with pytest.raises(SymbolicError, match="writes saved"):
            prove_step(planted(Busy), STEPS[HOST_SETS_REPORT], L1, KVM)

    @pytest.mark.parametrize(("step", "loaded"), [("VM entry", L2), (HOST_SETS_REPORT, L1)])
    @pytest.mark.parametrize("record", ["vmcs02", "cpu", "vm"])
    def test_one_that_writes_another_field_of_a_record_is_an_error(self, step, loaded, record):
        """The summary would lose the write, and the proof would follow code that does not write."""
        field = {"vmcs02": "spec_ctrl_shadow", "cpu": "spec_ctrl", "vm": "exit_reasons"}[record]

        class Busy(SPEC.vcpu):
            def merge_bitmap(self):
                SPEC.vcpu.merge_bitmap(self)
                setattr(getattr(self, record), field, 0)

            def update_interception(self):
                SPEC.vcpu.update_interception(self)
                setattr(getattr(self, record), field, 0)

        with pytest.raises(SymbolicError, match=f"writes {field}"):
            prove_step(planted(Busy), STEPS[step], loaded, KVM)

    def test_one_that_answers_and_writes_is_an_error(self):
        class Busy(SPEC.vcpu):
            def shows_enumeration(self):
                if not self.cpuid.arch_capabilities:
                    self.mitigation_ctrl = 0
                return SPEC.vcpu.shows_enumeration(self)

        with pytest.raises(SymbolicError, match="writes mitigation_ctrl"):
            prove_step(planted(Busy), STEPS["guest reads MSR_VIRTUAL_ENUMERATION"], L1, GUEST)

    @pytest.mark.parametrize("looks", [
        lambda vcpu: vcpu.vm.msr_filter.allows(0x48, write=True), lambda vcpu: vcpu.vmcs01.intercept_read])
    def test_an_answer_depends_on_nothing_that_its_key_does_not_have(self, looks):
        """Else the answer under one filter, or for one bitmap, would stand for every other."""
        class Curious(SPEC.vcpu):
            def may_pass_through(self):
                return SPEC.vcpu.may_pass_through(self) and bool(looks(self))

        with pytest.raises(SymbolicError, match="outside its summary"):
            prove_step(planted(Curious), STEPS[HOST_SETS_REPORT], L1, KVM)
