"""The policies: what a host forces of its own accord, and which kernel a guest that follows runs."""

import pytest

from helpers import ICE_LAKE, SPR, SPR_WITHOUT_CONTROL
from specctrl.exploration.policies import Result, cell
from specctrl.model.contract import ReportKeptBy
from specctrl.model.guest import BhbSequence, Kernel
from specctrl.model.parts import PARTS, Features, resolve_host
from specctrl.model.vmm.policies import GUESTS, LONG_NEEDED, POLICIES, Policy, on_old_hypervisor, with_long


class TestPolicies:
    """The pairs of what a host and what a guest does."""

    def test_who_keeps_a_report(self) -> None:
        kept = {name: policy.kept_by for name, policy in POLICIES.items() if policy.kept_by is not ReportKeptBy.NOBODY}
        assert kept == {"P2": ReportKeptBy.KVM, "P3": ReportKeptBy.USERSPACE}

    def test_p1_and_xen_differ_on_atom_only_parts(self) -> None:
        for name in PARTS:
            host = resolve_host(name)
            pairs = {policy: POLICIES[policy].pair(host, Features(spec_ctrl=True)) for policy in ("P1", "Xen")}
            assert (pairs["P1"] != pairs["Xen"]) is (PARTS[name].atom_only and not host.features.bhi_no)
            assert POLICIES["P1"].pair(host, Features(bhi_ctrl=True)) == (0, 0)
            assert POLICIES["Xen"].pair(host, Features(bhi_ctrl=True)) == (0, 0)

    def test_nothing_is_forced_that_cannot_be(self) -> None:
        for policy in POLICIES.values():
            assert policy.pair(SPR_WITHOUT_CONTROL, Features()) == (0, 0)

    @pytest.mark.parametrize("policy", ["P4", "P5", "P6"])
    def test_a_guest_that_does_not_follow_keeps_its_kernel(self, policy: str) -> None:
        for name in ("linux-old", "other-os"):
            assert POLICIES[policy].kernel(GUESTS[name], Features(), [ICE_LAKE, SPR]) is GUESTS[name].kernel

    def test_p4_lets_a_pool_of_old_parts_use_the_short_sequence(self) -> None:
        guest = GUESTS["linux-current"]
        assert POLICIES["P4"].kernel(guest, Features(), [ICE_LAKE]).sequence is BhbSequence.SHORT
        assert POLICIES["P5"].kernel(guest, Features(), [ICE_LAKE]).sequence is BhbSequence.LONG
        assert POLICIES["P4"].kernel(guest, Features(), [ICE_LAKE, SPR]).sequence is BhbSequence.LONG
        assert POLICIES["P6"].kernel(GUESTS["linux-off"], Features(), []).sequence is BhbSequence.LONG

    @pytest.mark.parametrize("sequence", [BhbSequence.TSX, BhbSequence.NONE, BhbSequence.LONG])
    def test_only_the_short_sequence_is_replaced_by_the_long_one(self, sequence: BhbSequence) -> None:
        assert with_long(Kernel(sequence=sequence)).sequence is sequence


class TestOldHypervisor:
    """A guest that follows a policy, on a host that does not know it."""

    @pytest.mark.parametrize(("policy", "protected"), [
        (POLICIES["P1"], False), (POLICIES["P2"], False), (POLICIES["P3"], False), (POLICIES["P4"], True),
        (LONG_NEEDED, False), (POLICIES["P5"], True), (POLICIES["P6"], True)])
    def test_who_is_protected_all_the_same(self, policy: Policy, protected: bool) -> None:
        found = cell(on_old_hypervisor(policy), "linux-current", "ice-lake-server", "sapphire-rapids")
        assert (found.result is Result.PROTECTED) is protected
        assert found.policy == f"{policy.name}-unknown"

    def test_a_guest_that_sees_bhi_ctrl_or_does_not_follow_is_as_ever(self) -> None:
        for policy in (*POLICIES.values(), LONG_NEEDED):
            for guest, cpuid in (("linux-old", Features()), ("linux-current", Features(bhi_ctrl=True))):
                if policy.name != "P6":
                    assert policy.kernel_alone(GUESTS[guest], cpuid) is GUESTS[guest].kernel
