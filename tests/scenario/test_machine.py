"""The operations of the scenario format: arguments, observations, misuse."""


import pytest

from helpers import (
    AC,
    ALL_BITS,
    BIT_63,
    EXITS,
    FORCE,
    GP,
    ICE_LAKE,
    MC,
    ME,
    SC,
    SPR,
    SPR_WITHOUT_CONTROL,
    VE,
    WITHOUT_MSR,
    machine,
    seen,
)
from specctrl.model.outcomes import Fault, HostFault, Misuse, Outcome
from specctrl.scenario.format import ASSUMPTIONS
from specctrl.scenario.machine import Machine
from specctrl.scenario.observation import Hex, describe

DENY_WRITE = [{"base": SC, "count": 1, "write": True, "allow": [False]}]


def misuse(operation, **arguments) -> str:
    """What is wrong with the step."""
    with pytest.raises(Misuse) as caught:
        operation(**arguments)
    return str(caught.value)


class TestMachine:
    """Making one."""

    def test_the_host_may_be_a_name_an_object_or_a_host(self):
        assert SPR == Machine().host == Machine(SPR).host == Machine({"part": "sapphire-rapids"}).host

    def test_an_unknown_assumption_or_variant_is_refused(self):
        with pytest.raises(ValueError, match="no assumption is named 'magic'"):
            Machine(assume={"magic": True})
        with pytest.raises(ValueError, match="no variant is named 'rfc-v9'"):
            Machine(variant="rfc-v9")

    def test_the_switches_are_these(self):
        assert {"init-withdraws-report": True, "vm-entry-loads-shadow": False, "bhi-no-suffices": True} == ASSUMPTIONS

    def test_the_guest_cannot_tell_whether_entry_loads_the_shadow(self):
        for loads in (False, True):
            made = machine(mask=0x404, value=0x400, offer=True, assume={"vm-entry-loads-shadow": loads})
            made.wrmsr(msr=SC, value=7)
            made.wrmsr(msr=MC, value=2)
            assert {"host_spec_ctrl": 0x401} == made.exit()
            assert {"effective": 0x443, "guest_view": 7} == seen(made, "effective", "guest_view")
            assert {"value": 7} == made.rdmsr(msr=SC)
            assert {"effective": 0x443, "guest_view": 7} == seen(made, "effective", "guest_view")


class TestPerform:
    """A step of a scenario."""

    def test_it_takes_the_arguments_and_leaves_the_expectation(self):
        made = machine()
        assert {} == made.perform({"op": "wrmsr", "msr": SC, "value": 5, "expect": {"fault": "#GP"}})
        assert {"value": 5} == made.perform({"op": "rdmsr", "msr": 0x48})

    def test_an_unknown_operation_is_misuse(self):
        with pytest.raises(Misuse, match="there is no operation 'cpuid'"):
            machine().perform({"op": "cpuid"})


class TestDescribe:
    """Outcomes as the format writes them."""

    def test_a_host_fault_is_not_a_fault_of_the_guest(self):
        assert ({"fault": "#UD"}, {"host_fault": "#GP"}) == (describe(Fault(6)), describe(HostFault(13)))

    def test_an_outcome_without_a_description_is_a_bug(self):
        with pytest.raises(TypeError, match="no description"):
            describe(Outcome())

    def test_a_quantity_is_shown_in_hexadecimal(self):
        assert "{'value': 0x8000000000000000}" == repr({"value": Hex(BIT_63)})

    def test_a_host_fault_is_observed(self):
        made = machine()
        made.vcpus[0].saved = BIT_63
        assert {"host_fault": "#GP"} == made.exit()


class TestIoctls:
    """What userspace does."""

    def test_check_extension_answers_alike_on_both_fds(self):
        made = Machine()
        assert {"ret": 1} == made.check_extension(cap=FORCE) == made.check_extension(cap=236, fd="vm")
        assert {"ret": 0} == Machine(ICE_LAKE).check_extension(cap=FORCE, fd="kvm")
        assert "fd is 'vcpu'" in misuse(made.check_extension, cap=FORCE, fd="vcpu")

    def test_the_supported_set_is_answered_on_dev_kvm(self):
        made = Machine()
        assert {"ret": 0, "value": 0x447} == made.get_supported_force_spec_ctrl(fd="kvm")
        assert {"ret": 0, "value": 0} == Machine(ICE_LAKE).get_supported_force_spec_ctrl()
        assert {"errno": "ENOTTY"} == made.get_supported_force_spec_ctrl(fd="vm")
        assert {"errno": "ENOTTY"} == made.get_supported_force_spec_ctrl(fd="vm", bad_pointer=True)
        assert {"errno": "EFAULT"} == made.get_supported_force_spec_ctrl(bad_pointer=True)
        assert "fd is 'x'" in misuse(made.get_supported_force_spec_ctrl, fd="x")

    def test_missing_arguments_of_enable_cap_are_0_and_more_than_two_do_not_count(self):
        made = Machine()
        assert {"ret": 0} == made.enable_cap(cap=FORCE, args=[4])
        assert (4, 0) == (made.vm.user_mask, made.vm.user_value)
        assert {"ret": 0} == made.enable_cap(cap=FORCE, args=[0x400, 0x400, 9, 9])
        assert (0x400, 0x400) == (made.vm.user_mask, made.vm.user_value)
        assert {"ret": 0} == made.enable_cap(cap=FORCE)
        assert (0, 0) == (made.vm.user_mask, made.vm.user_value)
        assert "fd is 'kvm'" in misuse(made.enable_cap, cap=FORCE, fd="kvm")
        with pytest.raises(ValueError, match="args\\[1\\]"):
            made.enable_cap(cap=FORCE, args=[0, ALL_BITS + 1])
        with pytest.raises(ValueError, match="args\\[0\\]"):
            made.enable_cap(cap=FORCE, args=[-1])

    def test_a_vcpu_is_created_once(self):
        made = Machine()
        assert {"ret": 0} == made.create_vcpu(vcpu=2)
        assert {"errno": "EEXIST"} == made.create_vcpu(vcpu=2)
        assert {"errno": "EINVAL"} == made.create_vcpu(vcpu=4096)
        assert [2] == list(made.vcpus)

    def test_rrsba_bhi_no_and_tsx_are_no_cpuid_bits(self):
        for name in ("RRSBA", "BHI_NO", "TSX"):
            assert f"{name} is no CPUID bit here" == misuse(Machine().create_vcpu, features=["SPEC_CTRL", name])

    def test_the_default_cpuid_is_the_hosts(self):
        made = machine()
        assert set(SPR.features.names()) - {"RRSBA"} == set(made.vcpus[0].cpuid.names())

    def test_feature_msrs_stop_at_the_first_that_is_none(self):
        assert {"ret": 1, "values": [BIT_63]} == Machine(ICE_LAKE).get_feature_msrs(msrs=[AC, SC, VE])

    def test_the_index_lists_say_what_they_contain_and_lack(self):
        assert {"contains": [0x10A, 0x50000000, 0x50000001, 0x50000002], "lacks": [0x48]} == Machine(
            WITHOUT_MSR).get_msr_index_list()
        assert {"contains": [0x10A, 0x50000000, 0x50000001], "lacks": [0x48, 0x50000002]} == Machine(
        ).get_msr_feature_index_list()

    def test_a_filter_kicks_every_vcpu_and_a_refused_one_none(self):
        made = machine()
        made.wrmsr(msr=SC, value=1)
        assert {"errno": "EINVAL"} == made.set_msr_filter(default="deny")
        assert made.vcpus[0].in_guest
        assert {"ret": 0} == made.set_msr_filter(ranges=DENY_WRITE)
        assert (False, GP) == (made.vcpus[0].in_guest, made.wrmsr(msr=SC, value=4))
        assert "default is 'maybe'" in misuse(made.set_msr_filter, default="maybe")

    def test_msrs_are_numbers_or_names(self):
        made = machine()
        assert {"ret": 2} == made.set_msrs(msrs=[(0x48, 1), (MC, 1)])
        assert {"ret": 2, "values": [1, 1]} == made.get_msrs(msrs=[SC, 0x50000002])
        with pytest.raises(ValueError, match="64-bit word"):
            made.set_msrs(msrs=[(SC, ALL_BITS + 1)])


class TestNestedStateLabels:
    """Saved states live under the scenario's own labels."""

    def test_a_label_survives_a_move(self):
        made = machine()
        made.get_nested_state(state="a")
        made.migrate(to="granite-rapids")
        assert {"ret": 0} == made.set_nested_state(state="a")
        assert "no nested state was saved as 'b'" == misuse(made.set_nested_state, state="b")

    @pytest.mark.parametrize(("flag", "expected"), [(None, False), (True, True), (False, False)])
    def test_run_pending_replaces_the_saved_flag(self, flag, expected):
        made = machine()
        made.nested_enter()
        made.get_nested_state(state="a")
        made.set_nested_state(state="a", run_pending=flag)
        assert expected is made.vcpus[0].nested_run_pending


class TestMigrateArguments:
    """Order, MSRs, force."""

    def test_only_the_known_words_are_taken(self):
        made = machine()
        assert "order is 'random'" in misuse(made.migrate, to="granite-rapids", order="random")
        assert "force is 'maybe'" in misuse(made.migrate, to="granite-rapids", force="maybe")


class TestMisuse:
    """What cannot happen."""

    def test_a_vcpu_that_does_not_exist(self):
        for name in ("rdmsr", "observe", "exit", "init", "get_msrs"):
            arguments = {"msr": SC} if name == "rdmsr" else {"msrs": []} if name == "get_msrs" else {}
            assert "there is no vCPU 0" == misuse(getattr(Machine(), name), **arguments)

    def test_nested_operations_at_the_wrong_level(self):
        made = machine()
        assert "L2 does not run" == misuse(made.nested_exit)
        assert "L1 is not in VMX operation" == misuse(made.vmxoff)
        assert "RSM outside SMM" == misuse(made.rsm)
        made.nested_enter()
        assert "L2 runs already" == misuse(made.nested_enter)
        assert "VMXOFF is L1's; L2 runs" == misuse(made.vmxoff)
        made.nested_exit()
        made.smi()
        assert "SMM cannot enter L2" == misuse(made.nested_enter)
        assert "SMM blocks a second SMI" == misuse(made.smi)
        assert "L1 is not in VMX operation" == misuse(made.vmxoff)
        flat = machine(ICE_LAKE.__class__(ICE_LAKE.features, 7, False, 1, False, False))
        assert "this host offers no VMX to guests" == misuse(flat.nested_enter)

    def test_a_guest_that_waits_for_userspace_does_nothing_else(self):
        made = machine()
        assert "has no exit pending" in misuse(made.reply_msr_exit)
        made.enable_cap(cap=EXITS, args=[2])
        made.rdmsr(msr=0x1234)
        for name, arguments in (
            ("rdmsr", {"msr": SC}), ("exit", {}), ("init", {}), ("reset_vcpu", {}),
            ("migrate", {"to": "granite-rapids"})):
            assert "has an MSR exit pending" in misuse(getattr(made, name), **arguments)
        assert {"ret": 1, "values": [0]} == made.get_msrs(msrs=[SC])
        assert "a pending RDMSR needs a value or an error" == misuse(made.reply_msr_exit)
        assert {"value": 3} == made.reply_msr_exit(value=3)
        made.wrmsr(msr=0x1234, value=1)
        assert "a pending WRMSR takes no value" == misuse(made.reply_msr_exit, value=3)
        assert {} == made.reply_msr_exit()

    def test_a_vcpu_that_shut_down_does_not_run(self):
        made = machine()
        made.nested_enter()
        made.nested_exit(msr_load=[(0x1234, 0)])
        assert "vCPU 0 has shut down" == misuse(made.rdmsr, msr=SC)



class TestNestedArguments:
    """What L1's bitmap intercepts."""

    def test_an_entry_may_name_directions(self):
        made = machine()
        made.wrmsr(msr=SC, value=1)
        made.nested_enter(intercept=[{"msr": SC, "write": True}])
        assert ({"value": 1}, {"reflected": True}) == (made.rdmsr(msr=SC), made.wrmsr(msr=SC, value=5))
        made.nested_enter(intercept=[{"msr": SC, "read": True}])
        assert ({}, {"reflected": True}) == (made.wrmsr(msr=SC, value=4), made.rdmsr(msr=SC))

    def test_values_are_checked(self):
        with pytest.raises(ValueError, match="64-bit"):
            machine().nested_enter(msr_load=[(SC, -1)])


class TestObserve:
    """What can be looked at."""

    def test_it_changes_nothing(self):
        made = machine(mask=0x400, value=0x400)
        made.wrmsr(msr=SC, value=1)
        before = repr(made.vcpus[0])
        made.observe()
        assert before == repr(made.vcpus[0])

    def test_effective_is_what_the_next_entry_would_load(self):
        made = machine(mask=0x400, value=0x400)
        assert {"effective": 0x400} == seen(made, "effective")
        made.wrmsr(msr=SC, value=1)
        made.exit()
        assert {"effective": 0x401, "saved": 0x401} == seen(made, "effective", "saved")

    @pytest.mark.parametrize(("variant", "expected"), [("spec", 0x401), ("rfc-v3", 1)])
    def test_where_the_host_s_register_drifted_the_next_entry_mends_it_or_does_not(self, variant, expected):
        made = machine(variant=variant)
        made.wrmsr(msr=SC, value=0x401)
        made.exit()
        made.vcpus[0].cpu.spec_ctrl = 1
        assert {"effective": expected} == seen(made, "effective")
        made.rdmsr(msr=SC)
        assert expected == made.vcpus[0].cpu.spec_ctrl

    def test_while_the_guest_runs_the_view_is_what_it_would_read(self):
        for host in (SPR, SPR_WITHOUT_CONTROL):
            made = machine(host)
            made.wrmsr(msr=SC, value=1)
            made.wrmsr(msr=SC, value=5)
            assert {"guest_view": 5, "saved": 1, "effective": 5} == seen(made, "guest_view", "saved", "effective")

    def test_without_the_control_mask_and_shadow_are_none(self):
        assert {"mask": None, "shadow": None} == seen(machine(ICE_LAKE), "mask", "shadow")

    def test_without_the_msr_the_register_is_0(self):
        assert {"effective": 0, "saved": 0, "intercepted": True} == seen(
            machine(WITHOUT_MSR), "effective", "saved", "intercepted")


class TestHistory:
    """A row for each operation."""

    def test_rows_say_what_was_done_and_seen(self):
        made = machine()
        made.wrmsr(msr=SC, value=0x800)
        row = made.history[-1]
        assert ("wrmsr", {"msr": SC, "value": 0x800}, GP) == (row["op"], row["arguments"], row["seen"])
        assert {"register": 0, "in_guest": True, "guest_view": 0}.items() <= row["vcpus"][0].items()

    def test_nothing_is_kept_unless_wanted(self):
        assert [] == machine(record=False).history

    def test_a_refused_announcement_is_a_row_too(self):
        made = machine(offer=True)
        made.wrmsr(msr=ME, value=1)
        assert ["create_vcpu", "set_msrs", "wrmsr"] == [row["op"] for row in made.history]
        assert GP == made.history[-1]["seen"]


class TestArguments:
    """What is no argument is refused, before anything has changed."""

    @pytest.mark.parametrize(("name", "given"), [
        ("rdmsr", {"msr": -1}), ("rdmsr", {"msr": 1 << 64}), ("wrmsr", {"msr": -1, "value": 0}),
        ("wrmsr", {"msr": 0x48, "value": -1}), ("wrmsr", {"msr": 0x48, "value": 1 << 64}),
        ("wrmsr", {"msr": 0x48, "value": 1.5}), ("create_vcpu", {"vcpu": -1}), ("create_vcpu", {"vcpu": 1 << 32}),
        ("set_msr_filter", {"ranges": [{"base": 0x48, "count": 2, "write": True, "allow": [True]}]}),
        ("migrate", {"to": "typo"}), ("migrate", {"to": "sapphire-rapids", "msrs": ["typo"]}),
        ("migrate", {"to": "sapphire-rapids", "features": ["typo"]}), ("get_nested_state", {"state": []}),
        ("exit", {"nmi_leaves": 1 << 64}), ("host_write", {"value": -1}),
    ])
    def test_it_is_refused(self, name, given):
        made = Machine(record=False)
        made.create_vcpu()
        made.wrmsr(msr=0x48, value=1)
        before = made.registers()
        with pytest.raises(ValueError, match=r"\S"):
            getattr(made, name)(**given)
        assert before == made.registers()
        assert [0] == list(made.vcpus)


class TestLongRuns:
    """What a machine remembers does not grow without bound."""

    def test_the_history_has_a_bound(self, monkeypatch):
        monkeypatch.setattr("specctrl.scenario.machine.MOST_ROWS", 5)
        made = Machine()
        made.create_vcpu()
        for value in range(10):
            made.wrmsr(msr=0x48, value=value & 1)
        assert [{"msr": 0x48, "value": value & 1} for value in range(5, 10)] == [
            row["arguments"] for row in made.history]
