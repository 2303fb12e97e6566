"""Which steps a host can show: decided from the scenario and the probe, tried with probes that are made up."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from helpers import AC, EXITS, FORCE, MC, ME, SC, VE
from specctrl.model.outcomes import Misuse
from specctrl.model.registers import IA32_SPEC_CTRL
from specctrl.scenario import load, read
from specctrl.scenario.reading import Scenario
from specctrl.targets.kvm.facts import CAP_NESTED_STATE, KernelFacts, SpecCtrl
from specctrl.targets.kvm.showable import HIDDEN, decide

VECTORS = Path(__file__).resolve().parents[2] / "vectors"
UNKNOWN = "0x12345"
OFFER = {"op": "set_msrs", "msrs": [[VE, "0x1"], [ME, "0x3"]]}


def refusal(known: dict[int, str]) -> Callable[[int, bool], str]:
    """A kernel that refuses every MSR as UNKNOWN, except as said."""
    return lambda msr, _write: known.get(msr, "UNKNOWN")


FACTS = KernelFacts(
    capabilities={188: 1, 189: 1, 236: 0, CAP_NESTED_STATE: 0}, index_list=(0x10A,), feature_index_list=(0x10A,),
    feature_arch_capabilities=0x69, spec_ctrl=SpecCtrl.IGNORED, spec_ctrl_bits=0, takes_zero=(0x48, 0x10A),
    cpuid_offered={"7.0": 0, "7.2": 0}, cpuid_kept={"7.0": 0, "7.2": 0}, series_ioctl="EINVAL",
    max_vcpu_id=4096, apic=True, refusal=refusal({0x48: "", **dict.fromkeys(range(0x800, 0x900), "INVAL")}))
"""A kernel like the one of the recorded run."""
STORES = replace(FACTS, spec_ctrl=SpecCtrl.STORED, spec_ctrl_bits=0x7)
"""One that stores IA32_SPEC_CTRL, on a part with the bits of Ice Lake."""


def steps(*wanted: dict[str, Any], host: Any = "ice-lake-server", vcpu: bool = True, **more: Any) -> Scenario:
    first = [{"op": "create_vcpu"}] if vcpu else []
    return load({
        "schema": "specctrl/scenario/1", "id": "test.decided", "host": host, "steps": [*first, *wanted], **more})


def why(*wanted: dict[str, Any], facts: KernelFacts = FACTS, **more: Any) -> str:
    """Why the steps cannot be shown; empty if they can."""
    scenario = steps(*wanted, **more)
    decided = decide(scenario, facts)
    assert decided is None or decided[0] == len(scenario.steps) - 1, "the last step is meant"
    return "" if decided is None else decided[1]


def rdmsr(msr: str, **more: Any) -> dict[str, Any]:
    return {"op": "rdmsr", "msr": msr, **more}


def wrmsr(msr: str, value: str = "0x1", **more: Any) -> dict[str, Any]:
    return {"op": "wrmsr", "msr": msr, "value": value, **more}


def exits(reasons: str) -> dict[str, Any]:
    return {"op": "enable_cap", "cap": EXITS, "args": [reasons]}


def deny(msr: str) -> dict[str, Any]:
    entry = {"base": msr, "count": 1, "read": True, "write": True, "allow": [False]}
    return {"op": "set_msr_filter", "ranges": [entry]}


class TestPublished:
    """All published scenarios."""

    def test_every_one_of_them_is_decided_and_each_operation_has_a_decision(self) -> None:
        decided = [decide(scenario, FACTS) for scenario in read([VECTORS]) if scenario.profile == "spec"]
        assert sum(each is None for each in decided) >= 40
        assert sum(each is not None for each in decided) >= 200
        assert all(each[1] for each in decided if each is not None)

    def test_no_decision_looks_at_the_name_of_a_scenario(self) -> None:
        for scenario in read([VECTORS / "kvm-abi", VECTORS / "filter"]):
            renamed = replace(scenario, id="other.name", title="", why="", rules=(), file="")
            assert decide(renamed, FACTS) == decide(scenario, FACTS)

    def test_every_vector_of_the_folder_can_be_shown(self) -> None:
        assert {} == {scenario.id: found for scenario in read([VECTORS / "kvm-abi"])
                      if (found := decide(scenario, FACTS)) is not None}



class TestTheSeries:
    """What only a kernel with the series has."""

    @pytest.mark.parametrize("step", [
        {"op": "check_extension", "cap": FORCE},
        {"op": "check_extension", "cap": 236, "fd": "kvm", "expect": {"ret": 0}},
        {"op": "enable_cap", "cap": FORCE, "args": ["0x400", "0x400"], "expect": {"errno": "EINVAL"}},
        {"op": "enable_cap", "fd": "vcpu", "cap": FORCE, "args": ["0x400", "0x400"]},
        {"op": "get_supported_force_spec_ctrl", "expect": {"errno": "EINVAL"}},
    ])
    def test_capability_236_is_never_taken_for_the_series_not_even_where_the_answer_would_fit(
        self, step: dict[str, Any]
    ) -> None:
        assert "capability 236 is not the series'" in why(step)
        tdp = replace(FACTS, capabilities={**FACTS.capabilities, 236: 1})
        assert "KVM_CAP_PRE_FAULT_MEMORY" in why(step, facts=tdp)

    @pytest.mark.parametrize("msr", [VE, ME, MC])
    def test_kvms_own_copies_of_the_virtual_msrs_are_not_there(self, msr: str) -> None:
        assert f"does not know {msr}" in why({"op": "get_msrs", "msrs": [msr]})
        assert f"does not know {msr}" in why({"op": "set_msrs", "msrs": [[msr, "0x0"]], "expect": {"ret": 1}})
        assert f"does not know {msr}" in why({"op": "set_msrs", "msrs": [[msr, "0xf0"]], "expect": {"ret": 0}})
        assert f"does not know {msr}" in why({"op": "get_feature_msrs", "msrs": [msr]})
        for op in ("get_msr_index_list", "get_msr_feature_index_list"):
            for key in ("contains", "lacks"):
                assert f"does not know {msr}" in why({"op": op, "expect": {key: [msr]}})


class TestSpecCtrl:
    """IA32_SPEC_CTRL itself."""

    def test_a_kernel_that_ignores_or_refuses_it_shows_nothing_of_it(self) -> None:
        assert why(rdmsr(SC)) == why(wrmsr(SC, "0x0")) != ""
        assert "ignores IA32_SPEC_CTRL" in why(wrmsr(SC))
        assert "no IA32_SPEC_CTRL" in why(wrmsr(SC), facts=replace(FACTS, spec_ctrl=SpecCtrl.REFUSED))

    def test_a_kernel_that_stores_it_shows_it_where_the_bits_are_those_of_the_scenarios_host(self) -> None:
        assert why(wrmsr(SC), rdmsr(SC), facts=STORES) == ""
        assert why({"op": "set_msrs", "msrs": [[SC, "0x5"]]}, {"op": "get_msrs", "msrs": [SC]}, facts=STORES) == ""
        assert "accepts the bits 0x7" in why(wrmsr(SC), facts=STORES, host="sapphire-rapids")

    def test_a_cpuid_of_the_scenarios_own_cannot_be_shown(self) -> None:
        own = [{"op": "create_vcpu", "features": ["SPEC_CTRL"]}]
        assert "this host's CPUID" in why(*own, wrmsr(SC), facts=STORES, vcpu=False)
        assert "this host's CPUID" in why(*own, rdmsr(VE), vcpu=False)
        assert why(*own, deny(VE), rdmsr(VE), vcpu=False) == ""

    def test_behind_the_scenarios_filter_it_is_like_any_other_msr(self) -> None:
        assert why(deny(SC), wrmsr(SC, "0x800"), rdmsr(SC)) == ""

    def test_without_storage_userspace_can_set_it_to_0_alone(self) -> None:
        assert why({"op": "set_msrs", "msrs": [[SC, "0x0"]]}, {"op": "get_msrs", "msrs": [SC]}) == ""
        assert "ignores" in why({"op": "set_msrs", "msrs": [[SC, "0x1"]]})
        assert "ignores" in why({"op": "set_msrs", "msrs": [[SC, "0x0"]]}, facts=replace(FACTS, takes_zero=()))

    def test_the_index_list_is_compared_where_both_hosts_have_it_or_neither(self) -> None:
        listed = {"op": "get_msr_index_list", "expect": {"contains": [SC]}}
        assert "ignores" in why(listed)
        assert why(listed, facts=STORES) == ""

    @pytest.mark.parametrize("key", list(HIDDEN))
    def test_nothing_that_is_observed_from_outside_is_shown(self, key: str) -> None:
        shown: dict[str, Any] = {
            "intercepted": False, "reads_intercepted": False, "in_guest": False, "smm": False,
            "shut_down": False, "level": 1, "exposed": [], "overhead": []}
        step = {"op": "observe", "expect": {key: shown.get(key, "0x0")}}
        assert f"no ioctl shows {key}" in why(step, facts=STORES)

    def test_the_hosts_register_after_an_exit_is_not_shown(self) -> None:
        assert "no ioctl shows" in why({"op": "exit", "expect": {"host_spec_ctrl": "0x1"}}, facts=STORES)
        assert why({"op": "exit"}) == ""


class TestOtherMsrs:
    """MSRs that the specification does not have."""

    def test_one_that_the_kernel_has_not_either_can_be_shown(self) -> None:
        assert why(rdmsr(UNKNOWN)) == ""
        assert why(exits("0x2"), rdmsr(UNKNOWN), {"op": "reply_msr_exit", "value": "0x1"}) == ""

    @pytest.mark.parametrize(("how", "said"), [("INVAL", "refuses it as INVAL"), ("", "performs the access")])
    def test_one_that_the_kernel_has_cannot(self, how: str, said: str) -> None:
        facts = replace(FACTS, refusal=refusal({0x1B: how}))
        assert said in why(exits("0x7"), rdmsr("0x1b"), facts=facts)
        assert said in why({"op": "get_msrs", "msrs": ["0x1b"]}, facts=facts)
        assert said in why({"op": "get_msr_index_list", "expect": {"lacks": ["0x1b"]}}, facts=facts)

    def test_where_no_reason_but_filter_is_enabled_every_refusal_is_alike(self) -> None:
        facts = replace(FACTS, refusal=refusal({0x1B: "INVAL"}))
        assert why(exits("0x4"), rdmsr("0x1b"), facts=facts) == ""
        assert "refuses it as INVAL" in why(exits("0x6"), rdmsr("0x1b"), facts=facts)

    @pytest.mark.parametrize("reasons", ["0x1", "0x2", "0x7"])
    def test_the_x2apic_msrs_can_be_shown_where_the_kernel_refuses_them_as_the_specification_does(
        self, reasons: str
    ) -> None:
        reply = {"op": "reply_msr_exit", "value": "0x1"}
        asked = [exits(reasons), rdmsr("0x800"), *([] if reasons == "0x2" else [reply])]
        assert why(*asked) == ""
        for how in ("UNKNOWN", ""):
            assert "as INVAL by the spec" in why(*asked[:2], facts=replace(FACTS, refusal=refusal({0x800: how})))

    def test_a_list_is_looked_at_up_to_where_it_stops(self) -> None:
        assert why({"op": "get_msrs", "msrs": [SC, UNKNOWN, VE]}) == ""
        unlisted = replace(FACTS, index_list=tuple(msr for msr in FACTS.index_list if msr != IA32_SPEC_CTRL))
        assert why({"op": "get_feature_msrs", "msrs": [SC, VE]}, facts=unlisted) == ""

    def test_an_msr_that_is_listed_and_no_feature_msr_is_read_as_0_by_new_kernels(self) -> None:
        listed = replace(FACTS, index_list=(*FACTS.index_list, IA32_SPEC_CTRL))
        assert "for any MSR that it lists" in why({"op": "get_feature_msrs", "msrs": [SC]}, facts=listed)

    def test_the_kernels_own_arch_capabilities_are_no_scenarios(self) -> None:
        zero = {"op": "set_msrs", "msrs": [[AC, "0x0"]], "expect": {"ret": 1}}
        get = {"op": "get_msrs", "msrs": [AC]}
        assert "of a new vCPU" in why(get)
        assert why(zero, get) == ""
        assert "of a new vCPU" in why(rdmsr(UNKNOWN), zero)
        assert "but 0" in why({"op": "set_msrs", "msrs": [[AC, "0x1"]], "expect": {"ret": 1}})
        feature = {"op": "get_feature_msrs", "msrs": [AC]}
        assert "another IA32_ARCH_CAPABILITIES" in why(feature)
        assert why(feature, facts=replace(FACTS, feature_arch_capabilities=1 << 63)) == ""


class TestWhoKeeps:
    """The virtual MSRs in userspace."""

    def test_userspace_keeps_them_where_the_scenario_has_no_filter(self) -> None:
        assert why(OFFER, wrmsr(MC), rdmsr(MC), rdmsr(AC)) == ""

    def test_a_set_msrs_whose_ret_is_named_is_the_ioctl_which_does_not_reach_them(self) -> None:
        assert "do not reach" in why({**OFFER, "expect": {"ret": 2}})

    def test_beside_the_scenarios_own_filter_or_reasons_nothing_keeps_them(self) -> None:
        for own in (deny(UNKNOWN), exits("0x4")):
            assert "does not hand them over" in why(own, rdmsr(VE))
            assert "replace it" in why(rdmsr(VE), own)
            assert "do not reach" in why(own, OFFER)

    def test_init_would_have_to_withdraw_the_report(self) -> None:
        init = {"op": "init"}
        assert "INIT does not reach" in why(OFFER, wrmsr(MC), init)
        assert why(OFFER, wrmsr(MC), init, assume={"init-withdraws-report": False}) == ""
        assert why(deny(MC), wrmsr(MC), init) == ""
        assert "local APIC" in why(init, facts=replace(FACTS, apic=False))

    def test_a_reset_is_userspaces_own_where_it_keeps_the_report(self) -> None:
        assert why(OFFER, {"op": "reset_vcpu"}) == ""
        assert "does not know" in why(OFFER, {"op": "reset_vcpu", "expect": {"ret": 0}})
        assert "does not know" in why({"op": "reset_vcpu"})


class TestTheRest:
    """What these guests do not do, and limits."""

    @pytest.mark.parametrize("step", [
        {"op": "nested_enter"}, {"op": "nested_exit"}, {"op": "vmxoff"}, {"op": "get_nested_state", "state": "a"},
    ])
    def test_nesting_names_what_the_probe_saw(self, step: dict[str, Any]) -> None:
        assert "no nested virtualization" in why(step)
        nested = replace(FACTS, capabilities={**FACTS.capabilities, CAP_NESTED_STATE: 0x1080})
        assert "no VMX instructions" in why(step, facts=nested)

    def test_smm_is_left_out(self) -> None:
        assert "no SMM" in why({"op": "smi"})

    def test_a_kernel_boots_where_each_of_its_accesses_can_be_shown(self) -> None:
        boot = {"op": "boot", "kernel": {"os": "linux", "version": "6.15", "reports": True, "retpoline": True}}
        assert "ignores IA32_SPEC_CTRL" in why(boot)
        assert why(boot, facts=STORES) == ""
        bare = {"part": "ice-lake-server", "features": ["ARCH_CAPABILITIES"]}
        assert why(OFFER, boot, host=bare) == ""
        assert "own filter" in why(deny(UNKNOWN), boot, host=bare)
        chosen = {"op": "create_vcpu", "features": []}
        assert "host's CPUID" in why(chosen, boot, host=bare, vcpu=False)

    def test_an_msr_that_the_kernel_lists_is_read_as_a_feature_msr_there(self) -> None:
        step = {"op": "get_feature_msrs", "msrs": [SC]}
        assert why(step) == ""
        assert "for any MSR that it lists" in why(step, facts=replace(FACTS, index_list=(*FACTS.index_list, 0x48)))

    def test_a_refused_move_needs_another_host(self) -> None:
        assert why({"op": "migrate", "to": "granite-rapids"}) == ""
        for outcome in ({"errno": "EINVAL"}, {"refused": [SC]}):
            assert "another host" in why({"op": "migrate", "to": "ice-lake-server", "expect": outcome})

    def test_capabilities_that_linux_has_given_out_are_not_the_specifications(self) -> None:
        assert "Linux's own" in why({"op": "check_extension", "cap": 3})
        assert why({"op": "check_extension", "cap": 999999}) == ""
        assert why({"op": "check_extension", "cap": EXITS}) == ""

    def test_limits_of_structure_and_kernel(self) -> None:
        entry = {"base": "0x0", "count": 1, "read": True, "allow": [True]}
        assert "room for 16" in why({"op": "set_msr_filter", "ranges": [entry] * 17})
        assert why({"op": "set_msr_filter", "ranges": [entry] * 16}) == ""
        big = {"op": "create_vcpu", "vcpu": 4096, "expect": {"errno": "EINVAL"}}
        assert why(big) == ""
        assert "below 32768" in why(big, facts=replace(FACTS, max_vcpu_id=32768))

    def test_a_filter_that_is_refused_leaves_the_old_one_in_force(self) -> None:
        bad = {"op": "set_msr_filter", "default": "deny", "expect": {"errno": "EINVAL"}}
        assert why(deny(SC), bad, rdmsr(SC)) == ""

    @pytest.mark.parametrize(("wanted", "said"), [
        ([{"op": "reply_msr_exit", "error": True}], "no exit pending"),
        ([exits("0x2"), rdmsr(UNKNOWN), rdmsr(UNKNOWN)], "exit pending; reply first"),
        ([exits("0x2"), rdmsr(UNKNOWN), {"op": "init"}], "exit pending; reply first"),
        ([exits("0x2"), rdmsr(UNKNOWN), {"op": "migrate", "to": "ice-lake-server"}], "exit is pending"),
        ([{"op": "create_vcpu", "vcpu": 5000}, rdmsr(UNKNOWN, vcpu=5000)], "no vCPU 5000"),
    ])
    def test_what_cannot_be_asked_is_misuse(self, wanted: list[dict[str, Any]], said: str) -> None:
        with pytest.raises(Misuse, match=said):
            decide(steps(*wanted), FACTS)
