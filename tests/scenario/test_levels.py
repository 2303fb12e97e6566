"""The level of a scenario."""

import pytest

from published_files import ROOT
from specctrl.scenario import load, read
from specctrl.scenario.format import LEVELS, OPERATIONS
from specctrl.scenario.levels import level

CAP = {"op": "enable_cap", "cap": "KVM_CAP_FORCE_SPEC_CTRL", "args": ["0x400", "0x400"]}
VCPU = {"op": "create_vcpu"}
VIEW = "IA32_SPEC_CTRL"
REPORT = "MSR_VIRTUAL_MITIGATION_CTRL"


def level_of(*steps, host="sapphire-rapids"):
    return level(load({"schema": "specctrl/scenario/1", "id": "a", "host": host, "steps": [*steps]}))


def test_no_level_is_without_operations():
    assert set(LEVELS) == {operation.level for operation in OPERATIONS.values()}


@pytest.mark.parametrize(("steps", "expected"), [
    ([CAP, VCPU, {"op": "wrmsr", "msr": VIEW, "value": 1}, {"op": "exit"}], "processor"),
    ([CAP, VCPU, {"op": "observe", "expect": {"mask": "0x400", "shadow": "0x0", "level": 1}}], "processor"),
    ([{**CAP, "expect": {"ret": 0}}, VCPU, {"op": "rdmsr", "msr": VIEW, "expect": {"fault": "#GP"}}], "processor"),
    ([CAP, CAP, VCPU], "force"),
    ([VCPU, {**CAP, "fd": "vcpu"}], "force"),
    ([VCPU, {"op": "create_vcpu", "vcpu": 1}], "force"),
    ([{**VCPU, "features": []}], "force"),
    ([VCPU, {"op": "observe", "expect": {"saved": "0x0"}}], "force"),
    ([VCPU, {"op": "wrmsr", "msr": REPORT, "value": 1}], "force"),
    ([VCPU, {"op": "set_msrs", "msrs": [[VIEW, 1]], "expect": {"ret": 1}}], "force"),
    ([VCPU, {"op": "migrate", "to": "ice-lake-server"}], "force"),
    ([VCPU, {"op": "migrate", "to": "ice-lake-server", "order": "msrs-first"}], "nested"),
    ([VCPU, {"op": "smi"}], "nested"),
    ([VCPU, {"op": "nested_enter"}], "nested"),
    ([VCPU, {"op": "set_msrs", "msrs": [[VIEW, 1]], "expect": {"ret": 0}}], "kvm-abi"),
    ([VCPU, {"op": "migrate", "to": "ice-lake-server", "expect": {"refused": [VIEW]}}], "kvm-abi"),
    ([VCPU, {**CAP, "expect": {"errno": "EINVAL"}}], "kvm-abi"),
    ([{**CAP, "cap": "KVM_CAP_X86_USER_SPACE_MSR", "args": ["0x4"]}], "kvm-abi"),
    ([{"op": "check_extension", "cap": 236}], "kvm-abi"),
])
def test_the_highest_level_of_a_step_counts(steps, expected):
    assert expected == level_of(*steps)


@pytest.mark.parametrize("host", [
    "ice-lake-server", {"part": "sapphire-rapids", "spec_ctrl_shadow": False}])
def test_without_the_control_it_takes_a_hypervisor(host):
    assert "force" == level_of(VCPU, host=host)


def test_every_level_has_scenarios_of_both_kinds():
    found = {(level(each), each.id.startswith("gen.")) for each in read([ROOT / "vectors"])}
    assert {(name, kind) for name in LEVELS for kind in (False, True)} == found
