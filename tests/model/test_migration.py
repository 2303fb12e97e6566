"""A move of a whole VM."""

import pytest

from helpers import AC, BIT_63, EXITS, FORCE, ICE_LAKE, MC, ME, SC, SPR, SPR_WITHOUT_CONTROL, VE, machine, outcome, seen
from specctrl.model.kvm.variant import SPEC, Assumptions
from specctrl.model.parts import resolve_host
from specctrl.model.vmm.migration import MsrsRefused, Plan, migrate
from specctrl.model.vmm.vmms import STATE_MSRS
from specctrl.scenario.machine import Machine

GNR = resolve_host("granite-rapids")
ORDERS = [(order, msrs) for order in ("nested-first", "msrs-first") for msrs in ([SC, MC], [MC, SC])]


class TestMigrate:
    """What arrives at the destination."""

    @pytest.mark.parametrize(("order", "msrs"), ORDERS)
    @pytest.mark.parametrize("destination", [GNR, SPR, SPR_WITHOUT_CONTROL])
    @pytest.mark.parametrize("where", ["l1", "l2", "smm"])
    def test_every_order_gives_the_same(self, order, msrs, destination, where):
        made = machine(offer=True)
        made.wrmsr(msr=SC, value=1)
        made.wrmsr(msr=MC, value=3)
        if where != "l1":
            made.nested_enter()
        if where == "smm":
            made.smi()
        made.wrmsr(msr=SC, value=6)
        assert {} == made.migrate(to=destination, order=order, msrs=msrs)
        expected = {"effective": 0x446, "guest_view": 6, "level": 2 if where == "l2" else 1, "smm": where == "smm"}
        assert expected == seen(made, *expected)
        assert {"value": 6} == made.rdmsr(msr=SC)
        assert {"intercepted": not destination.spec_ctrl_shadow} == seen(made, "intercepted")
        made.wrmsr(msr=SC, value=4)
        assert {"effective": 0x444, "guest_view": 4} == seen(made, "effective", "guest_view")
        assert {"host_spec_ctrl": 0x401} == made.exit()
        assert {"ret": 4, "values": [BIT_63 | 0x80000, 1, 3, 3]} == made.get_msrs(msrs=[AC, VE, ME, MC])

    def test_the_vms_settings_move(self):
        made = machine(mask=0x404, value=0x400)
        made.enable_cap(cap=EXITS, args=[7])
        made.set_msr_filter(ranges=[{"base": 0x10, "count": 1, "read": True, "allow": [False]}])
        before = made.vm
        assert {} == made.migrate(to=GNR)
        assert GNR is made.host
        assert (0x404, 0x400, 7, before.msr_filter, 1) == (
            made.vm.user_mask, made.vm.user_value, made.vm.exit_reasons, made.vm.msr_filter, made.vm.created_vcpus)

    def test_each_vcpu_keeps_its_number_cpuid_and_pair(self):
        made = Machine(SPR)
        made.enable_cap(cap=FORCE, args=[0x400, 0x400])
        made.create_vcpu(vcpu=7, features=["SPEC_CTRL"])
        made.create_vcpu(vcpu=3)
        made.enable_cap(fd="vcpu", vcpu=3, cap=FORCE, args=[0, 0])
        assert {} == made.migrate(to=GNR)
        assert [7, 3] == list(made.vcpus)
        assert ({"mask": 0x400}, {"mask": 0}) == (seen(made, "mask", vcpu=7), seen(made, "mask", vcpu=3))
        assert ("SPEC_CTRL",) == made.vcpus[7].cpuid.names()

    def test_a_pair_that_is_the_vms_needs_no_capability_on_the_vcpu(self):
        made = machine(ICE_LAKE)
        assert {} == made.migrate(to=ICE_LAKE)

    @pytest.mark.parametrize("own", [False, True])
    def test_dropping_the_force_drops_both_pairs(self, own):
        made = machine(mask=0x400, value=0x400)
        if own:
            made.enable_cap(fd="vcpu", cap=FORCE, args=[4, 4])
        assert {} == made.migrate(to=ICE_LAKE, force="drop")
        assert (0, 0) == (made.vm.user_mask, made.vcpus[0].user_mask)

    def test_the_guest_may_be_running_when_it_moves(self):
        made = machine()
        made.wrmsr(msr=SC, value=1)
        made.wrmsr(msr=SC, value=5)
        made.migrate(to=GNR)
        assert {"value": 5} == made.rdmsr(msr=SC)

    def test_an_assumption_moves_with_the_machine(self):
        made = machine(offer=True, assume={"init-withdraws-report": False})
        made.wrmsr(msr=MC, value=1)
        made.migrate(to=GNR)
        made.init()
        assert {"value": 1} == made.rdmsr(msr=MC)

    def test_the_source_is_only_read(self):
        made = machine(mask=4, value=4)
        made.wrmsr(msr=SC, value=1)
        made.exit()
        vcpu = made.vcpus[0]
        new_vm, new_vcpus = migrate(SPEC, Assumptions(), made.vm, made.vcpus, Plan(GNR, True, True))
        assert (made.vm, vcpu) != (new_vm, new_vcpus[0])
        assert (made.vm, {0: vcpu}, SPR) == (made.vcpus[0].vm, made.vcpus, made.host)


class TestRefused:
    """A move that fails leaves the guest where it was."""

    @pytest.mark.parametrize(
        ("mask", "view", "destination", "force", "answer"),
        [
            (0x400, 1, ICE_LAKE, "keep", {"errno": "EINVAL"}),
            (0x400, 1, SPR_WITHOUT_CONTROL, "keep", {"errno": "EINVAL"}),
            (0, 0x80, ICE_LAKE, "keep", {"refused": [0x48]}),
            (BIT_63, BIT_63, GNR, "drop", {"refused": [0x48]}),
            (0x200, 0x201, SPR, "drop", {"refused": [0x48]}),
        ],
    )
    def test_the_source_goes_on(self, mask, view, destination, force, answer):
        made = machine(mask=mask)
        made.wrmsr(msr=SC, value=1)
        made.wrmsr(msr=SC, value=view)
        assert answer == made.migrate(to=destination, force=force)
        assert SPR is made.host
        assert {"value": view} == made.rdmsr(msr=SC)

    def test_an_msr_that_cannot_be_read_is_refused_too(self):
        assert {"refused": [0x1234]} == machine().migrate(to=GNR, msrs=[SC, 0x1234, MC])

    def test_the_refused_msr_is_the_one_that_set_msrs_stopped_at(self):
        made = machine(ICE_LAKE)
        made.set_msrs(msrs=[(SC, 5)])
        refused = outcome(
            migrate, SPEC, Assumptions(), made.vm, made.vcpus,
            Plan(resolve_host({"part": "ice-lake-server", "without": ["SSBD"]}), True, True, STATE_MSRS[::-1]))
        assert isinstance(refused, MsrsRefused)
        assert (0x48,) == refused.msrs

    def test_a_destination_without_nesting_is_einval(self):
        made = machine()
        made.nested_enter()
        assert {"errno": "EINVAL"} == made.migrate(to={"part": "sapphire-rapids", "nested": False})
        assert {"level": 2} == seen(made, "level")

    def test_between_hosts_without_nesting_no_nested_state_is_needed(self):
        flat = resolve_host({"part": "sapphire-rapids", "nested": False})
        made = machine(flat)
        made.wrmsr(msr=SC, value=5)
        assert {} == made.migrate(to=flat)
        assert {"value": 5} == made.rdmsr(msr=SC)


class TestPairs:
    """Userspace's pairs: the VM's for vCPUs to come, each vCPU's own."""

    def test_a_pair_of_zeros_is_the_vms_there_too(self):
        made = machine(mask=4)
        assert {} == made.migrate(to=GNR)
        assert {"ret": 0} == made.create_vcpu(vcpu=1)
        assert {"mask": 4} == seen(made, "mask", vcpu=1)

    def test_a_vcpu_that_differs_in_its_value_alone_keeps_it(self):
        made = machine(mask=0x400)
        assert {"ret": 0} == made.enable_cap(fd="vcpu", cap=FORCE, args=[0x400, 0x400])
        assert {} == made.migrate(to=GNR)
        assert {"effective": 0x400} == seen(made, "effective")

    def test_a_vcpu_that_differs_in_its_mask_alone_keeps_it(self):
        made = machine(mask=0x404, value=0x400)
        assert {"ret": 0} == made.enable_cap(fd="vcpu", cap=FORCE, args=[0x400, 0x400])
        assert {} == made.migrate(to=GNR)
        assert {"mask": 0x400} == seen(made, "mask")
