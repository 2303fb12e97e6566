"""Scenarios that tests of several modules run; each is right about the emulator of ``spec``."""

import json
from pathlib import Path
from typing import Any

CAP = "KVM_CAP_FORCE_SPEC_CTRL"
SPEC_CTRL = "IA32_SPEC_CTRL"
CTRL = "MSR_VIRTUAL_MITIGATION_CTRL"


def scenario(*steps: dict[str, Any], **keys: Any) -> dict[str, Any]:
    """A scenario document with these steps, after one that creates vCPU 0."""
    return {
        "schema": "specctrl/scenario/1", "id": "test.sample", "host": "sapphire-rapids",
        "steps": [{"op": "create_vcpu", "vcpu": 0}, *steps], **keys,
    }


def write(value: int | str, /, **expect: Any) -> dict[str, Any]:
    """The guest writes IA32_SPEC_CTRL."""
    return {"op": "wrmsr", "msr": SPEC_CTRL, "value": value, **({"expect": expect} if expect else {})}


def see(**expect: Any) -> dict[str, Any]:
    """What ``observe`` must show."""
    return {"op": "observe", "expect": expect}


EXAMPLE = {
    "schema": "specctrl/scenario/1",
    "id": "cap.enable-after-vcpu",
    "title": "The capability cannot be enabled once a vCPU exists",
    "why": "a vCPU created earlier would keep the old mask",
    "rules": ["cap.enable.before-vcpus"],
    "profile": "spec",
    "host": "sapphire-rapids",
    "steps": [
        {"op": "create_vcpu", "vcpu": 0},
        {"op": "enable_cap", "fd": "vm", "cap": CAP, "args": ["0x400", "0x400"], "expect": {"errno": "EINVAL"}},
    ],
}
"""The example of the format's description."""

FORCED = {
    "schema": "specctrl/scenario/1",
    "id": "test.forced",
    "host": {"part": "sapphire-rapids", "host_spec_ctrl": "0x401", "without": ["TSX"]},
    "assume": {"init-withdraws-report": True},
    "x-note": ["anything", {"may": "stand here"}],
    "steps": [
        {"op": "check_extension", "cap": CAP, "expect": {"ret": 1}},
        {"op": "get_supported_force_spec_ctrl", "expect": {"ret": 0, "value": "0x447"}},
        {"op": "get_supported_force_spec_ctrl", "fd": "vm", "expect": {"errno": "ENOTTY"}},
        {"op": "enable_cap", "cap": CAP, "args": [0x400, "0x400"]},
        {"op": "create_vcpu", "features": ["SPEC_CTRL", "SSBD"], "expect": {"ret": 0}},
        see(effective="0x400", guest_view=0, mask="0x400", shadow="0x0", intercepted=True, level=1, smm=False),
        write("0x1"),
        see(effective="0x401", guest_view="0x1", intercepted=False),
        {"op": "rdmsr", "msr": 0x48, "expect": {"value": "0x01"}},
        write("0x8000000000000000", fault="#GP"),
        {"op": "exit", "expect": {"host_spec_ctrl": "0x401"}},
        {"op": "get_msrs", "msrs": ["0x48"], "expect": {"ret": 1, "values": ["0x1"]}},
        {"op": "get_msrs", "msrs": ["0x48", "0x12345"], "expect": {"ret": 1, "values": ["0x1"]}},
        {"op": "get_msr_index_list", "expect": {"contains": [SPEC_CTRL, CTRL]}},
        {"op": "get_msr_feature_index_list",
         "expect": {"contains": ["MSR_VIRTUAL_MITIGATION_ENUM", "IA32_ARCH_CAPABILITIES"], "lacks": [CTRL]}},
    ],
}
"""The capability, the lists, plain guest accesses."""

NESTED = scenario(
    write("0x1"),
    {"op": "nested_enter", "msr_load": [[SPEC_CTRL, "0x5"]], "intercept": [{"msr": SPEC_CTRL, "write": True}]},
    {"op": "rdmsr", "msr": SPEC_CTRL, "expect": {"value": "0x5"}},
    write("0x1", reflected=True),
    see(level=1),
    {"op": "nested_enter"},
    see(level=2),
    {"op": "init", "expect": {"reflected": True}},
    {"op": "init", "expect": {"blocked": True}},
    {"op": "nested_enter", "msr_load": [["0x48", 1], ["0x12345", 0]],
     "expect": {"fail": {"reason": "MSR_LOAD_FAIL", "entry": 2}}},
    {"op": "nested_enter", "expect": {"reflected": True}},
    {"op": "nested_enter"},
    {"op": "nested_exit", "msr_store": [SPEC_CTRL], "expect": {"stored": ["0x1"], "abort": False}},
    {"op": "init", "expect": {"blocked": True}},
    {"op": "vmxoff"},
    see(guest_view="0x0"),
    id="test.nested",
)
"""L2, reflected and pending events, a failed entry."""

FILTERED = scenario(
    {"op": "enable_cap", "cap": "KVM_CAP_X86_USER_SPACE_MSR", "args": ["0x4"]},
    {"op": "set_msr_filter", "default": "allow", "ranges": [
        {"base": "0x50000000", "count": 3, "read": True, "write": True, "allow": [False, False, False]}]},
    {"op": "rdmsr", "msr": CTRL, "expect": {"exit": {"kind": "rdmsr", "reason": "FILTER", "msr": CTRL}}},
    {"op": "reply_msr_exit", "value": "0x1", "expect": {"value": "0x1"}},
    {"op": "wrmsr", "msr": CTRL, "value": 1, "expect": {"exit": {"kind": "wrmsr"}}},
    {"op": "reply_msr_exit", "error": True, "expect": {"fault": "#GP"}},
    {"op": "set_msr_filter", "default": "allow"},
    {"op": "set_msrs", "msrs": [[CTRL, 0], [CTRL, "0x80"]], "expect": {"ret": 1}},
    {"op": "get_nested_state", "state": "a label"},
    {"op": "migrate", "to": {"part": "ice-lake-server"}, "msrs": [SPEC_CTRL]},
    {"op": "set_nested_state", "state": "a label", "run_pending": False},
    {"op": "reset_vcpu"},
    {"op": "smi"},
    see(smm=True, mask=None),
    {"op": "rsm"},
    {"op": "get_feature_msrs", "msrs": ["MSR_VIRTUAL_ENUMERATION"], "expect": {"ret": 1, "values": [1]}},
    id="test.filtered",
)
"""Filters, replies, migration, SMM."""

SAMPLES = (EXAMPLE, FORCED, NESTED, FILTERED)


def put(path: Path, document: dict[str, Any]) -> str:
    """Write a scenario into a directory, under its id; the file's path."""
    file = path / f"{document['id']}.json"
    file.write_text(json.dumps(document))
    return str(file)
