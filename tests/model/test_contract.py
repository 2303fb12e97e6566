"""What may be observed, whoever implements it."""

import pytest

from helpers import ALL_BITS, BIT_63, ICE_LAKE, SPR, SPR_WITHOUT_CONTROL, WITHOUT_MSR, outcome
from specctrl.model.contract import (
    MODE,
    Contract,
    Intercept,
    L1Controls,
    ReportKeptBy,
    can_force,
    l1_asks,
    requested_bits,
    supported_force_spec_ctrl,
)
from specctrl.model.kvm.nested import l1_intercepts
from specctrl.model.kvm.state import VcpuState
from specctrl.model.outcomes import Blocked, Fault, NestedEntryFailed, Reflected, VmxAbort
from specctrl.model.parts import Features, Host, guest_features, resolve_host


def contract(host: Host = SPR, kept_by: ReportKeptBy = ReportKeptBy.KVM, **state: int) -> Contract:
    return Contract(host, guest_features(SPR.features), kept_by, offered=3, **state)


def without(*features: str) -> Host:
    return resolve_host({"part": "sapphire-rapids", "without": list(features)})


class TestSupportedForceSpecCtrl:
    """The bits that can be forced to 1."""

    @pytest.mark.parametrize(
        ("host", "expected"),
        [
            (SPR, 0x447),
            (ICE_LAKE, 0),
            (SPR_WITHOUT_CONTROL, 0),
            (without("STIBP"), 0x445), (without("SSBD"), 0x443),
            (without("RRSBA_CTRL"), 0x407),
            (without("RRSBA"), 0x407),
            (without("BHI_CTRL"), 0x047),
            (without("STIBP", "SSBD", "RRSBA", "BHI_CTRL"), 0x001),
            (resolve_host("diamond-rapids"), 0x447),
            (resolve_host("clearwater-forest"), 0x407),
        ],
    )
    def test_the_set_follows_the_control_and_the_features(self, host, expected):
        assert expected == supported_force_spec_ctrl(host)


class TestCanForce:
    """Which pairs userspace may set."""

    @pytest.mark.parametrize(
        ("host", "mask", "value", "expected"),
        [
            (SPR, 0x400, 0x400, True),
            (SPR, 0, 0, True),
            (SPR, ALL_BITS, 0x447, True),
            (SPR, ALL_BITS, 0, True),
            (SPR, 0x4, 0x400, False),
            (SPR, 0, 1, False),
            (SPR, 0x80, 0x80, False),
            (SPR, 0x80, 0, True),
            (ICE_LAKE, 0x4, 0, False),
            (ICE_LAKE, 0, 0, False),
            (without("STIBP", "SSBD", "RRSBA", "BHI_CTRL"), 0x7, 0x1, True),
        ],
    )
    def test_value_in_mask_and_supported_and_something_supported(self, host, mask, value, expected):
        assert expected is can_force(host, mask, value)


class TestRequestedBits:
    """What a report asks for and this host can deliver."""

    @pytest.mark.parametrize(
        ("host", "report", "expected"),
        [
            (SPR, 0, 0),
            (SPR, 1, 0x400),
            (SPR, 2, 0x40),
            (SPR, 3, 0x440),
            (SPR_WITHOUT_CONTROL, 3, 0x440),
            (without("BHI_CTRL"), 3, 0x40),
            (without("RRSBA_CTRL"), 3, 0x400),
            (without("RRSBA"), 3, 0x400),
            (resolve_host("diamond-rapids"), 3, 0x40),
            (resolve_host("clearwater-forest"), 3, 0),
            (ICE_LAKE, 3, 0),
        ],
    )
    def test_each_bit_needs_its_feature_and_its_reason(self, host, report, expected):
        assert expected == requested_bits(host, report)


class TestForce:
    """Mask and value in force."""

    def test_the_report_is_laid_over_userspaces_pair(self):
        assert (0x444, 0x440) == contract(user_mask=4, report=3).force()

    def test_userspace_wins(self):
        assert (0x400, 0) == contract(user_mask=0x400, report=1).force()

    def test_without_virtual_msrs_only_the_pair_counts(self):
        assert (4, 4) == contract(kept_by=ReportKeptBy.NOBODY, user_mask=4, user_value=4, report=3).force()

    def test_userspace_can_only_keep_a_report_with_the_capability(self):
        assert (0, 0) == contract(SPR_WITHOUT_CONTROL, ReportKeptBy.USERSPACE, report=3).force()
        assert (0x440, 0x440) == contract(SPR_WITHOUT_CONTROL, ReportKeptBy.KVM, report=3).force()
        assert (0x440, 0x440) == contract(SPR, ReportKeptBy.USERSPACE, report=3).force()


class TestEffective:
    """What the processor holds."""

    def test_forced_bits_and_the_view_elsewhere(self):
        assert 0x401 == contract(guest_view=5, user_mask=4, report=1).effective()


class TestAcceptable:
    """Which views may be held."""

    def test_the_merged_value_decides(self):
        vcpu = contract(user_mask=BIT_63)
        assert (True, False, True) == tuple(vcpu.acceptable(view) for view in (BIT_63, 0x200, BIT_63 | 0x400))

    def test_nothing_is_acceptable_without_the_msr(self):
        assert False is contract(WITHOUT_MSR).acceptable(0)


class TestReadWriteView:
    """The guest's own accesses."""

    def test_the_guest_reads_what_it_wrote(self):
        vcpu = contract(user_mask=0x404, user_value=0x400)
        vcpu.write_view(0x7)
        assert (0x7, 0x403) == (vcpu.read_view(), vcpu.effective())

    def test_a_refused_write_changes_nothing(self):
        vcpu = contract(guest_view=5)
        assert isinstance(outcome(vcpu.write_view, 0x200), Fault)
        assert 5 == vcpu.guest_view

    def test_a_guest_that_cannot_see_the_msr_faults(self):
        vcpu = Contract(SPR, Features(), ReportKeptBy.KVM, offered=3)
        assert isinstance(outcome(vcpu.read_view), Fault)
        assert isinstance(outcome(vcpu.write_view, 0), Fault)


class TestWriteReport:
    """The guest reports."""

    def test_an_offered_bit_is_taken(self):
        vcpu = contract()
        vcpu.write_report(3)
        assert 3 == vcpu.report

    @pytest.mark.parametrize("value", [4, BIT_63 | 1])
    def test_a_reserved_bit_faults(self, value):
        assert isinstance(outcome(contract().write_report, value), Fault)

    def test_a_new_bit_must_be_offered_an_old_one_may_be_kept(self):
        vcpu = contract(report=2)
        vcpu.offered = 1
        vcpu.write_report(3)
        vcpu.write_report(1)
        assert isinstance(outcome(vcpu.write_report, 3), Fault)
        assert 1 == vcpu.report

    def test_where_nothing_is_offered_0_can_still_be_written(self):
        nothing = contract()
        nothing.offered = 0
        nothing.write_report(0)
        assert isinstance(outcome(nothing.write_report, 1), Fault)

    @pytest.mark.parametrize("kept_by", [ReportKeptBy.KVM, ReportKeptBy.USERSPACE])
    def test_a_report_is_read_back(self, kept_by):
        assert 3 == contract(kept_by=kept_by, report=3).read_report()

    def test_without_an_announcement_or_virtual_msrs_it_is_not_there(self):
        hidden = contract()
        hidden.announced = False
        for vcpu in (hidden, contract(kept_by=ReportKeptBy.NOBODY)):
            assert isinstance(outcome(vcpu.write_report, 0), Fault)
            assert isinstance(outcome(vcpu.read_report), Fault)


class TestRestore:
    """Userspace sets view and report, as KVM_SET_MSRS does."""

    def test_a_view_must_be_acceptable_and_need_not_be_visible(self):
        vcpu = Contract(SPR, Features(), ReportKeptBy.KVM, offered=0, user_mask=BIT_63)
        assert (True, False) == (vcpu.restore_view(BIT_63 | 1), vcpu.restore_view(0x200))
        assert BIT_63 | 1 == vcpu.guest_view

    def test_a_report_need_not_be_offered_but_has_no_reserved_bit(self):
        vcpu = Contract(SPR, Features(), ReportKeptBy.KVM, offered=0, announced=False)
        assert (True, False, 3) == (vcpu.restore_report(3), vcpu.restore_report(4), vcpu.report)

    @pytest.mark.parametrize("kept_by", [ReportKeptBy.USERSPACE, ReportKeptBy.NOBODY])
    def test_only_kvms_own_report_can_be_restored(self, kept_by):
        vcpu = contract(kept_by=kept_by)
        assert (False, 0) == (vcpu.restore_report(1), vcpu.report)


class TestInit:
    """INIT outside VMX operation and SMM."""

    @pytest.mark.parametrize(("kept_by", "withdraws", "expected"), [
        (ReportKeptBy.KVM, True, 0), (ReportKeptBy.KVM, False, 3), (ReportKeptBy.USERSPACE, True, 3)])
    def test_the_view_is_0_and_the_report_goes_where_init_reaches_it(self, kept_by, withdraws, expected):
        vcpu = contract(kept_by=kept_by, guest_view=5, report=3, user_mask=4, user_value=4)
        vcpu.init_withdraws_report = withdraws
        vcpu.init()
        assert (0, expected, 4, 4) == (vcpu.guest_view, vcpu.report, vcpu.user_mask, vcpu.user_value)


class TestUserspaceForce:
    """The per-vCPU pair."""

    def test_a_valid_pair_replaces_the_old_one(self):
        vcpu = contract(user_mask=4)
        assert True is vcpu.userspace_force(0x400, 0x400)
        assert (0x400, 0x400) == vcpu.force()

    def test_an_invalid_pair_is_refused(self):
        vcpu = contract(user_mask=4)
        assert False is vcpu.userspace_force(4, 0x400)
        assert (4, 0) == vcpu.force()

    def test_a_pair_that_uncovers_a_refused_bit_of_the_view_is_refused(self):
        vcpu = contract(user_mask=BIT_63, guest_view=BIT_63)
        assert False is vcpu.userspace_force(0x400, 0x400)
        assert (BIT_63, 0) == (vcpu.user_mask, vcpu.user_value)


class TestMove:
    """Migration as one step."""

    def test_view_report_and_pair_stay(self):
        vcpu = contract(guest_view=5, user_mask=4, user_value=4, report=1)
        assert True is vcpu.move(resolve_host("granite-rapids"))
        assert (5, 4, 4, 1, 0x405) == (
            vcpu.guest_view, vcpu.user_mask, vcpu.user_value, vcpu.report, vcpu.effective())

    def test_a_pair_that_cannot_be_forced_there_keeps_the_guest_here(self):
        vcpu = contract(user_mask=4)
        assert False is vcpu.move(ICE_LAKE)
        assert SPR is vcpu.host

    def test_a_force_value_alone_counts_too(self):
        vcpu = contract(user_mask=4, user_value=4)
        assert False is vcpu.move(SPR_WITHOUT_CONTROL)

    def test_a_view_that_is_refused_there_keeps_the_guest_here(self):
        vcpu = contract(guest_view=0x80)
        assert False is vcpu.move(ICE_LAKE)
        assert SPR is vcpu.host

    def test_an_undeliverable_report_moves_all_the_same(self):
        vcpu = contract(guest_view=1, report=3)
        assert True is vcpu.move(ICE_LAKE)
        assert (3, 1) == (vcpu.report, vcpu.effective())

    def test_a_mask_without_value_may_have_any_bit_there_too(self):
        vcpu = contract(user_mask=BIT_63)
        assert True is vcpu.move(resolve_host("granite-rapids"))
        assert (BIT_63, 0) == (vcpu.user_mask, vcpu.user_value)


VIEW, REPORT, CAPABILITIES = 0x48, 0x5000_0002, 0x10A
REFUSED = ((VIEW, 0x200),)


class TestWhatL1Sees:
    """Which accesses of L2 go to L1."""

    @pytest.mark.parametrize("write", [False, True])
    @pytest.mark.parametrize("msr", [VIEW, CAPABILITIES, REPORT, 0x5000_0000, 0x5000_0003])
    @pytest.mark.parametrize("controls", [
        L1Controls(), L1Controls(use_msr_bitmap=False), L1Controls(intercepts=(Intercept(VIEW),)),
        L1Controls(intercepts=(Intercept(CAPABILITIES), Intercept(VIEW, read=False))),
        L1Controls(intercepts=(Intercept(VIEW, write=False), Intercept(REPORT, False, False)))])
    def test_kvm_finds_out_the_same(self, controls, msr, write):
        assert l1_intercepts(controls, msr, write) is l1_asks(controls, msr, write)

    def test_l1_itself_is_never_seen(self):
        vcpu = contract(controls=L1Controls(use_msr_bitmap=False))
        assert 0 == vcpu.rdmsr(VIEW)
        vcpu.wrmsr(REPORT, 1)
        assert 1 == vcpu.rdmsr(REPORT)

    def test_what_it_sees_has_no_effect_but_that_of_its_own_list(self):
        vcpu = contract(guest_view=1)
        vcpu.vmlaunch(L1Controls(use_msr_bitmap=False, exit_msr_load=((REPORT, 1),)))
        assert isinstance(outcome(vcpu.wrmsr, VIEW, 4), Reflected)
        assert (1, 1, 1, True) == (vcpu.level, vcpu.guest_view, vcpu.report, vcpu.vmx_operation)

    def test_each_direction_is_asked_for_by_itself(self):
        vcpu = contract(guest_view=5)
        vcpu.vmlaunch(L1Controls(intercepts=(Intercept(VIEW, read=False),)))
        assert 5 == vcpu.rdmsr(VIEW)
        assert isinstance(outcome(vcpu.wrmsr, VIEW, 1), Reflected)
        vcpu.vmlaunch(L1Controls(intercepts=(Intercept(VIEW, write=False),)))
        vcpu.wrmsr(VIEW, 1)
        assert isinstance(outcome(vcpu.rdmsr, VIEW), Reflected)

    def test_another_msr_faults(self):
        assert isinstance(outcome(contract().wrmsr, 0x5000_0000, 0), Fault)
        assert isinstance(outcome(contract().rdmsr, 0x5000_0000), Fault)


class TestLists:
    """L1's MSR lists."""

    def test_an_entry_fails_with_its_number_and_what_was_done_stays(self):
        vcpu = contract()
        failed = outcome(vcpu.vmlaunch, L1Controls(exit_msr_load=((REPORT, 2),)), ((VIEW, 4), (REPORT, 4)))
        assert (NestedEntryFailed, 2) == (type(failed), failed.entry)
        assert (1, 4, 2, False) == (vcpu.level, vcpu.guest_view, vcpu.report, vcpu.shut_down)

    def test_an_exit_list_that_is_refused_aborts(self):
        for refused in (lambda vcpu: vcpu.leave_l2(REFUSED), lambda vcpu: vcpu.rdmsr(VIEW)):
            vcpu = contract(guest_view=1)
            vcpu.vmlaunch(L1Controls(False, exit_msr_load=REFUSED))
            assert isinstance(outcome(refused, vcpu), VmxAbort)
            assert (1, 1, True) == (vcpu.level, vcpu.guest_view, vcpu.shut_down)
        assert isinstance(outcome(contract().vmlaunch, L1Controls(exit_msr_load=REFUSED), REFUSED), VmxAbort)


class TestMode:
    """VMX operation, SMM, INIT."""

    def test_a_vcpu_of_the_mechanism_has_the_same_fields(self):
        assert all(hasattr(VcpuState, name) for name in MODE)

    def test_it_begins_in_l1_with_nothing_asked_for(self):
        assert (1, False, L1Controls(True), False, False, False, False, False) == tuple(
            getattr(contract(), name) for name in MODE)
        assert Intercept(VIEW, read=True, write=True) == Intercept(VIEW)

    @pytest.mark.parametrize("vmx", [False, True])
    def test_rsm_goes_back_to_where_the_smi_came(self, vmx):
        vcpu = contract(vmx_operation=vmx)
        vcpu.smi()
        assert (True, False, False, vmx) == (vcpu.smm, vcpu.vmx_operation, vcpu.smm_left_level2, vcpu.smm_left_vmx)
        vcpu.rsm()
        assert (False, vmx, 1, False) == (vcpu.smm, vcpu.vmx_operation, vcpu.level, vcpu.smm_left_vmx)

    def test_and_to_l2(self):
        vcpu = contract()
        vcpu.vmlaunch(L1Controls())
        vcpu.smi()
        assert (1, True) == (vcpu.level, vcpu.smm_left_level2)
        vcpu.rsm()
        assert (2, True, False) == (vcpu.level, vcpu.vmx_operation, vcpu.smm_left_level2)

    @pytest.mark.parametrize("mode", [{"smm": True}, {"vmx_operation": True}, {"smm": True, "vmx_operation": True}])
    def test_init_waits(self, mode):
        vcpu = contract(guest_view=1, **mode)
        assert isinstance(outcome(vcpu.init), Blocked)
        assert (True, 1) == (vcpu.init_pending, vcpu.guest_view)

    def test_rsm_delivers_it_outside_vmx_operation_only(self):
        for vmx in (False, True):
            vcpu = contract(guest_view=1, smm=True, smm_left_vmx=vmx, init_pending=True)
            vcpu.rsm()
            assert (vmx, vmx) == (vcpu.init_pending, bool(vcpu.guest_view))

    def test_in_l2_it_goes_to_l1_and_nothing_is_reset(self):
        vcpu = contract(guest_view=1, vmx_operation=True, level=2)
        assert isinstance(outcome(vcpu.init), Reflected)
        assert (1, 1, False) == (vcpu.level, vcpu.guest_view, vcpu.init_pending)

    def test_one_that_waits_goes_to_l1_when_l2_is_entered(self):
        vcpu = contract(init_pending=True)
        assert isinstance(outcome(vcpu.vmlaunch, L1Controls()), Reflected)
        assert (1, True, False) == (vcpu.level, vcpu.vmx_operation, vcpu.init_pending)

    def test_a_platform_reset_leaves_every_mode_and_keeps_the_pair(self):
        controls = L1Controls(use_msr_bitmap=False)
        vcpu = contract(guest_view=1, report=1, user_mask=4, level=2, vmx_operation=True, controls=controls, smm=True,
                        smm_left_level2=True, smm_left_vmx=True, init_pending=True, shut_down=True)
        vcpu.platform_reset()
        assert (0, 0, 4) == (vcpu.guest_view, vcpu.report, vcpu.user_mask)
        assert (1, False, controls, False, False, False, False, False) == tuple(getattr(vcpu, name) for name in MODE)

    def test_what_a_vmm_keeps_of_the_report_is_gone_after_a_platform_reset_too(self):
        vcpu = contract(kept_by=ReportKeptBy.USERSPACE, report=1)
        vcpu.platform_reset()
        assert (0, (0, 0)) == (vcpu.report, vcpu.force())

    def test_a_mode_that_is_restored_brings_what_l1_asked_for(self):
        vcpu = contract(guest_view=1)
        vcpu.restore_mode(2, True, L1Controls(intercepts=(Intercept(VIEW),)), False, False, False, False)
        assert isinstance(outcome(vcpu.rdmsr, VIEW), Reflected)
