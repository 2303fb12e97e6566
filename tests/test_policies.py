"""What userspace shows in a pool, keeps for a guest, and forces; and the comparison of the policies."""

import csv
import io
from itertools import product

import pytest

from helpers import BIT_63, ICE_LAKE, SPR, SPR_WITHOUT_CONTROL
from specctrl.comparison import COLUMNS, HOSTS, Cell, Result, as_csv, cell, compare, row
from specctrl.contract import ReportKeptBy
from specctrl.guest import BhbSequence, Kernel
from specctrl.outcomes import ExitKind
from specctrl.parts import PARTS, Features, guest_features, resolve_host
from specctrl.scenario import EmulatorTarget, run_one
from specctrl.scenario.reading import load
from specctrl.vmm.filtering import FilteredSpecCtrl
from specctrl.vmm.keeper import keep_report
from specctrl.vmm.policies import GUESTS, LONG_NEEDED, POLICIES, Policy, on_old_hypervisor
from specctrl.vmm.pool import advertise

MC, ME, VE = 0x50000002, 0x50000001, 0x50000000


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


class TestKeeper:
    """The virtual MSRs in userspace."""

    def test_it_answers_as_the_kernel_would(self) -> None:
        keeper = keep_report(SPR, guest_features(SPR.features), offered=1)
        assert keeper.reply(ExitKind.RDMSR, VE, 0) == {"value": 1}
        assert keeper.reply(ExitKind.RDMSR, ME, 0) == {"value": 1}
        assert keeper.reply(ExitKind.RDMSR, MC, 0) == {"value": 0}
        assert keeper.reply(ExitKind.WRMSR, MC, 1) == {"error": False}
        assert keeper.reply(ExitKind.RDMSR, MC, 0) == {"value": 1}
        for msr, value in ((VE, 1), (ME, 1), (MC, 2), (MC, 4)):
            assert keeper.reply(ExitKind.WRMSR, msr, value) == {"error": True}
        assert keeper.reply(ExitKind.RDMSR, MC, 0) == {"value": 1}

    def test_it_forces_what_the_host_can_force(self) -> None:
        keeper = keep_report(ICE_LAKE, guest_features(ICE_LAKE.features), offered=3)
        keeper.reply(ExitKind.WRMSR, MC, 3)
        assert keeper.pair() == (0, 0)
        keeper.arrive(SPR)
        assert keeper.pair() == (0x440, 0x440)
        keeper.arrive(SPR_WITHOUT_CONTROL)
        assert keeper.pair() == (0, 0)


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
        tsx = Kernel(sequence=BhbSequence.TSX)
        assert POLICIES["P6"].kernel(GUESTS["linux-off"], Features(), []).sequence is BhbSequence.LONG
        assert tsx.sequence is BhbSequence.TSX


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


@pytest.fixture(scope="module")
def cells() -> list[Cell]:
    return list(compare())


class TestComparison:
    """Every cell."""

    def test_there_is_one_for_each_combination(self, cells: list[Cell]) -> None:
        assert len(cells) == len({item.id for item in cells}) == len(POLICIES) * len(GUESTS) * len(HOSTS) ** 2
        assert len(POLICIES) >= 7
        assert len(GUESTS) >= 6
        assert len(HOSTS) >= 6

    def test_each_cell_is_a_scenario_that_shows_what_the_table_says(self, cells: list[Cell]) -> None:
        target = EmulatorTarget("spec")
        for item in cells:
            result = run_one(load(item.scenario(), item.id), target)
            assert result.status == "pass", (item.id, result.why)
            last = item.scenario()["steps"][-1]["expect"]
            assert last["effective"] == f"{item.effective:#x}"
            if "exposed" in last:
                assert tuple(last["exposed"]) == item.verdict.exposed

    def test_a_cell_alone_is_the_cell_of_the_table(self, cells: list[Cell]) -> None:
        for item in cells[:: len(cells) // 50]:
            assert cell(item.policy, item.guest, item.source, item.destination) == item

    def test_every_result_but_a_refusal_occurs(self, cells: list[Cell]) -> None:
        """A pool shows only what every host has, so no move is refused."""
        assert {item.result for item in cells} == set(Result) - {Result.REFUSED}

    def test_as_csv_every_cell_is_a_line(self, cells: list[Cell]) -> None:
        lines = list(csv.DictReader(io.StringIO(as_csv(cells))))
        assert lines == [row(item) for item in cells]
        assert set(lines[0]) == set(COLUMNS)
