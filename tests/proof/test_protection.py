"""Guests that report are protected: the proof, and what it must not prove; and guests that roam."""

import pytest

from specctrl.exploration.roaming import EVENTS, S3, roam
from specctrl.model import exposure
from specctrl.model.contract import Contract, ReportKeptBy
from specctrl.model.parts import Host
from specctrl.model.vmm.policies import POLICIES
from specctrl.proof import protection
from specctrl.proof.protection import PROTECTION, prove_protection

POOL = ["ice-lake-server", "sapphire-rapids", "sapphire-rapids-no-control"]
NEW, NO_CONTROL = "sapphire-rapids", "sapphire-rapids-no-control"


class TestProof:
    """For every host, pair, view and report."""

    def test_both_claims_hold(self) -> None:
        result = prove_protection()
        assert result.refutations == []
        assert set(result.obligations) == set(PROTECTION)

    def test_nobody_keeping_a_report_protects_nobody(self) -> None:
        refuted = prove_protection((ReportKeptBy.NOBODY,)).refutations
        assert {(each.claim, each.step) for each in refuted} == {
            ("reporting_guest_is_protected", "nobody: short sequence"),
            ("reporting_guest_is_protected", "nobody: retpoline"),
        }

    def test_a_contract_that_forgets_the_report_when_it_moves_is_refuted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        move = Contract.move

        def forgetful(self: Contract, destination: Host) -> bool:
            moved = move(self, destination)
            self.report = 0
            return moved

        monkeypatch.setattr(Contract, "move", forgetful)
        assert {each.claim for each in prove_protection().refutations} == {"only_the_guest_withdraws"}

    def test_an_exposure_that_credits_no_register_is_refuted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(exposure, "RRSBA_DIS_S", 0)
        assert {each.step.partition(": ")[2] for each in prove_protection().refutations} == {"retpoline"}

    def test_without_the_control_userspace_is_not_said_to_deliver(self, monkeypatch: pytest.MonkeyPatch) -> None:
        deliverable = protection.deliverable
        as_kvm = ReportKeptBy.KVM
        monkeypatch.setattr(protection, "deliverable", lambda host, _keeper, bit: deliverable(host, as_kvm, bit))
        steps = {each.step for each in prove_protection().refutations}
        assert steps == {"userspace: short sequence", "userspace: retpoline"}


class TestRoaming:
    """All histories of one guest among three hosts."""

    @pytest.mark.parametrize(("policy", "exposed"), [
        ("today", {NEW, NO_CONTROL}), ("P1", {NO_CONTROL}), ("P2", set()), ("P3", {NO_CONTROL}), ("P4", set())])
    def test_where_a_guest_is_exposed(self, policy: str, exposed: set[str]) -> None:
        found = roam(policy, "linux-current", POOL, without=[S3])
        assert set(found.exposed.get("BHI", {})) == exposed
        assert found.states > 100
        assert found.transitions == found.states * (len(EVENTS) - 1 + len(POOL))

    @pytest.mark.parametrize("policy", ["P2", "P3"])
    def test_s3_takes_the_report_of_the_boot_cpu(self, policy: str) -> None:
        assert roam(policy, "linux-current", POOL[:2]).exposed["BHI"] == {NEW: (f"boot on {NEW}", S3)}

    def test_a_policy_that_forgets_to_force_after_a_move_is_found(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("specctrl.model.vmm.keeper.ReportKeeper.arrive", lambda *_: None)
        found = roam(POLICIES["P3"], "linux-current", POOL[:2], without=[S3])
        assert found.exposed["BHI"] == {NEW: ("boot on ice-lake-server", f"move to {NEW}")}
