"""Scenarios: reading and checking, the published schema, running and comparing, reporting."""

import copy
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest

from scenario_samples import CTRL, EXAMPLE, FORCED, SAMPLES, SPEC_CTRL, scenario, see, write
from specctrl.model.outcomes import Misuse, Unsupported
from specctrl.scenario import (
    EmulatorTarget,
    Invalid,
    Report,
    Result,
    Step,
    TargetFailed,
    as_json,
    as_junit,
    as_text,
    differences,
    json_schema,
    load,
    loads,
    read,
    run,
    run_one,
    summary,
)
from specctrl.scenario.format import OPERATIONS, OUTCOMES, SHOWS
from specctrl.scenario.running import normalised

VECTORS = Path(__file__).parents[2] / "vectors"
SCHEMA = jsonschema.Draft202012Validator(json_schema())
KERNEL = {"os": "linux", "reports": True, "sequence": "short", "retpoline": True, "bhi_dis_s": "auto",
          "spectre_bhi": "vmexit"}
SECOND = "/steps/1"


def problems_of(document: Any) -> list[tuple[str, str]]:
    """Pointer and reason of everything that is wrong."""
    with pytest.raises(Invalid) as caught:
        loads(document if isinstance(document, (str, bytes)) else json.dumps(document), "file.json")
    assert {problem.file for problem in caught.value.problems} == {"file.json"}
    return [(problem.pointer, problem.reason) for problem in caught.value.problems]


def step(**keys: Any) -> dict[str, Any]:
    """A scenario whose second step is this."""
    return scenario(keys)


def ranges(**keys: Any) -> dict[str, Any]:
    """A scenario that sets a filter with this range."""
    entry = {"base": "0x48", "count": 1, "read": True, "write": False, "allow": [True], **keys}
    entry = {key: value for key, value in entry.items() if value is not None}
    return step(op="set_msr_filter", default="allow", ranges=[entry])


class TestValid:
    """What the format allows is accepted, and normalised."""

    def test_the_example_of_the_format_is_valid(self) -> None:
        example = load(EXAMPLE)
        assert (example.id, example.profile, example.host) == ("cap.enable-after-vcpu", "spec", "sapphire-rapids")
        assert example.rules == ("cap.enable.before-vcpus",)
        assert example.steps[1].call() == {
            "op": "enable_cap", "fd": "vm", "cap": 236, "args": [0x400, 0x400], "flags": 0}

    def test_names_and_hex_strings_become_numbers_and_defaults_are_filled_in(self) -> None:
        calls = [item.call() for item in load(FORCED).steps]
        assert calls[0] == {"op": "check_extension", "cap": 236, "fd": "vm"}
        assert calls[1] == {"op": "get_supported_force_spec_ctrl", "fd": "kvm", "bad_pointer": False}
        assert calls[6] == {"op": "wrmsr", "vcpu": 0, "msr": 0x48, "value": 1}

    def test_the_vcpu_of_a_capability_is_0_on_a_vcpu_fd_and_absent_on_a_vm_fd(self) -> None:
        per_vcpu = step(op="enable_cap", fd="vcpu", cap=236)
        assert load(per_vcpu).steps[1].args == {"fd": "vcpu", "vcpu": 0, "cap": 236, "args": [], "flags": 0}
        assert "vcpu" not in load(step(op="enable_cap", cap=236)).steps[1].args

    def test_an_access_that_is_not_named_is_not_meant(self) -> None:
        [entry] = load(ranges(read=None, write=True)).steps[1].args["ranges"]
        assert (entry["read"], entry["write"]) == (False, True)

    def test_a_number_may_be_plain_or_hex_of_any_case_with_leading_zeros(self) -> None:
        for value in (1024, "0x400", "0x0400", "0x00000000000000000000400"):
            assert load(scenario(write(value))).steps[1].args["value"] == 0x400
        assert load(scenario(write("0xFFFFFFFFFFFFFFFF"))).steps[1].args["value"] == (1 << 64) - 1
        assert load(scenario(write((1 << 64) - 1))).steps[1].args["value"] == (1 << 64) - 1

    def test_every_operation_of_the_format_is_known(self) -> None:
        assert {key for operation in OPERATIONS.values() for key in operation.expectable()} == set(SHOWS)

    def test_an_error_reply_of_false_may_carry_a_value(self) -> None:
        load(step(op="reply_msr_exit", value=1, error=False))
        load(step(op="reply_msr_exit", error=False))
        load(step(op="reply_msr_exit", error=True))

    def test_a_second_creation_of_a_vcpu_is_for_the_run_to_judge(self) -> None:
        load(step(op="create_vcpu", vcpu=0))


ERRORS: list[tuple[Any, str, str]] = [
    # top level
    ([], "", "[] is not an object: a scenario is wanted"),
    ({**EXAMPLE, "schema": "specctrl/scenario/2"}, "/schema", '"specctrl/scenario/2" is not the schema of a scenario'),
    ({**EXAMPLE, "colour": 1}, "/colour", 'a scenario has no "colour"'),
    ({**EXAMPLE, "step": []}, "/step", 'did you mean "steps"?'),
    ({**EXAMPLE, "id": "Cap.enable"}, "/id", "is not an id"),
    ({**EXAMPLE, "id": "cap..enable"}, "/id", "is not an id"),
    ({**EXAMPLE, "id": "cap.enable-"}, "/id", "is not an id"),
    ({**EXAMPLE, "id": "cap_enable\n"}, "/id", "is not an id"),
    ({**EXAMPLE, "id": 7}, "/id", "7 is not a string"),
    ({**EXAMPLE, "title": 7}, "/title", "7 is not a string"),
    ({**EXAMPLE, "rules": "cap"}, "/rules", '"cap" is not a list'),
    ({**EXAMPLE, "rules": [""]}, "/rules/0", "is not the id of a rule"),
    ({**EXAMPLE, "profile": "rfc-v4"}, "/profile", '"rfc-v4" is not a profile; did you mean "rfc-v3"?'),
    ({**EXAMPLE, "assume": {"init-withdraws": True}}, "/assume/init-withdraws", "a table of assumptions has no"),
    ({**EXAMPLE, "assume": {"init-withdraws-report": 1}}, "/assume/init-withdraws-report", "1 is neither true"),
    ({**EXAMPLE, "steps": []}, "/steps", "at least one step"),
    ({**EXAMPLE, "steps": {}}, "/steps", "at least one step"),
    ({**EXAMPLE, "steps": ["exit"]}, "/steps/0", '"exit" is not a step'),
    # host
    ({**EXAMPLE, "host": "sapphire"}, "/host", 'part of the catalogue; did you mean "sapphire-rapids"?'),
    ({**EXAMPLE, "host": 1}, "/host", "1 is not a host"),
    ({**EXAMPLE, "host": {}}, "/host", 'a host needs "part"'),
    ({**EXAMPLE, "host": {"part": "granite"}}, "/host/part", "is not a part"),
    ({**EXAMPLE, "host": {"part": "ice-lake-server", "host_spec_ctrl": "0x400"}}, "/host/host_spec_ctrl", "0x400"),
    ({**EXAMPLE, "host": {"part": "ice-lake-server", "nested": "yes"}}, "/host/nested", "neither true nor false"),
    ({**EXAMPLE, "host": {"part": "ice-lake-server", "spec_ctrl_shadow": 0}}, "/host/spec_ctrl_shadow", "neither true"),
    ({**EXAMPLE, "host": {"part": "ice-lake-server", "features": ["BHI"]}}, "/host/features/0", "is not a feature"),
    ({**EXAMPLE, "host": {"part": "ice-lake-server", "without": "TSX"}}, "/host/without", "is not a list"),
    ({**EXAMPLE, "host": {"part": "ice-lake-server", "color": 1}}, "/host/color", "a host has no"),
    # steps
    (scenario({"vcpu": 0}), SECOND, 'a step needs "op"'),
    (step(op="wrmsrs"), f"{SECOND}/op", '"wrmsrs" is not an operation; did you mean "wrmsr"?'),
    (step(op=["wrmsr"]), f"{SECOND}/op", "is not an operation"),
    (step(op="wrmsr", msr=0x48), SECOND, 'wrmsr needs "value"'),
    (step(op="rdmsr", msr=0x48, value=1), f"{SECOND}/value", 'rdmsr has no "value"'),
    (step(op="rdmsr", msr="IA32_SPEC_CTL"), f"{SECOND}/msr",
     '"IA32_SPEC_CTL" is not the name of an MSR; did you mean "IA32_SPEC_CTRL"?'),
    (step(op="rdmsr", msr="0x100000000"), f"{SECOND}/msr", "has more than 32 bits"),
    (step(op="check_extension", cap="KVM_CAP_FORCE"), f"{SECOND}/cap", "is not the name of a capability; did you mean"),
    (step(op="check_extension", cap=236, fd="vcpu"), f"{SECOND}/fd", "is not a file descriptor of this ioctl"),
    (step(op="get_supported_force_spec_ctrl", bad_pointer=1), f"{SECOND}/bad_pointer", "1 is neither true nor false"),
    (step(op="create_vcpu", vcpu="0x1"), f"{SECOND}/vcpu", '"0x1" is not a vCPU\'s number: an integer is wanted'),
    (step(op="create_vcpu", vcpu=-1), f"{SECOND}/vcpu", "-1 is negative"),
    (step(op="create_vcpu", vcpu=True), f"{SECOND}/vcpu", "true is not a vCPU's number"),
    (step(op="create_vcpu", vcpu=1, features=["RRSBA"]), f"{SECOND}/features/0", '"RRSBA" is not a CPUID bit'),
    (step(op="create_vcpu", vcpu=1, features=["BHI_NO"]), f"{SECOND}/features/0", "is not a CPUID bit of a guest"),
    (step(op="create_vcpu", vcpu=1, features=["TSX"]), f"{SECOND}/features/0", "is not a CPUID bit of a guest"),
    (step(op="enable_cap", cap=236, args=[1, 2, 3, 4, 5]), f"{SECOND}/args", "5 entries, where there is room for 4"),
    (step(op="enable_cap", cap=236, vcpu=0), f"{SECOND}/vcpu", '"vcpu" goes with "fd": "vcpu" only'),
    (step(op="get_msrs", msrs=0x48), f"{SECOND}/msrs", "72 is not a list"),
    (step(op="set_msrs", msrs=[0x48]), f"{SECOND}/msrs/0", "72 is not a pair"),
    (step(op="set_msrs", msrs=[[0x48, 1, 2]]), f"{SECOND}/msrs/0", "is not a pair"),
    (step(op="migrate", to="mars"), f"{SECOND}/to", "is not a part of the catalogue"),
    (step(op="migrate", to="sapphire-rapids", order="both"), f"{SECOND}/order", "is not an order"),
    (step(op="migrate", to="sapphire-rapids", force=True), f"{SECOND}/force", "true is not"),
    (step(op="nested_enter", intercept="none"), f"{SECOND}/intercept", '"none" is not an interception'),
    (step(op="nested_enter", intercept=[{"msr": 1}]), f"{SECOND}/intercept/0", 'neither "read" nor "write" is given'),
    (step(op="nested_enter", intercept=[None]), f"{SECOND}/intercept/0", "null is not an MSR or an interception"),
    (step(op="nested_enter", intercept=0x48), f"{SECOND}/intercept", "72 is not a list of interceptions"),
    (step(op="boot", kernel={**KERNEL, "os": "plan9"}), f"{SECOND}/kernel/os", "is not an operating system"),
    (step(op="boot", kernel={"reports": True}), f"{SECOND}/kernel", 'a kernel needs "os"'),
    (step(op="boot", kernel={**KERNEL, "retpoline": True, "spectre_v2": "ibrs"}), f"{SECOND}/kernel", "contradict"),
    (step(op="boot", kernel={**KERNEL, "bhi": 1}), f"{SECOND}/kernel/bhi", "a kernel has no"),
    (ranges(count=2), f"{SECOND}/ranges/0/allow", "1 entries for 2 MSRs"),
    (ranges(read=None, write=None), f"{SECOND}/ranges/0", 'neither "read" nor "write" is given'),
    (ranges(allow=[1]), f"{SECOND}/ranges/0/allow/0", "1 is neither true nor false"),
    (ranges(base=None), f"{SECOND}/ranges/0", 'needs "base"'),
    (step(op="set_msr_filter", default="maybe"), f"{SECOND}/default", "not a default"),
    (step(op="reply_msr_exit"), SECOND, 'neither "value" (to answer an RDMSR) nor "error" is given'),
    (step(op="reply_msr_exit", value=1, error=True), SECOND, '"value" is given, and "error" is true'),
    # numbers
    (scenario(write("0x1ffffffffffffffff")), f"{SECOND}/value", "has more than 64 bits"),
    (scenario(write(1 << 64)), f"{SECOND}/value", "has more than 64 bits"),
    (scenario(write(-1)), f"{SECOND}/value", "-1 is negative"),
    (scenario(write("400")), f"{SECOND}/value", '"400" is not a 64-bit value: a hex string such as "0x400"'),
    (scenario(write("0x")), f"{SECOND}/value", "is not a 64-bit value"),
    (scenario(write("0x4_00")), f"{SECOND}/value", "is not a 64-bit value"),
    (scenario(write("0x1\n")), f"{SECOND}/value", "is not a 64-bit value"),
    (scenario({"op": "wrmsr", "msr": 1, "value": 1.5}), f"{SECOND}/value", "1.5 is not a 64-bit value"),
    (scenario({"op": "wrmsr", "msr": 1, "value": True}), f"{SECOND}/value", "true is not a 64-bit value"),
    (scenario({"op": "wrmsr", "msr": 1, "value": None}), f"{SECOND}/value", "null is not a 64-bit value"),
    # references
    (scenario({"op": "exit", "vcpu": 1}), f"{SECOND}/vcpu", "no earlier step creates vCPU 1"),
    ({**EXAMPLE, "steps": [{"op": "exit"}, {"op": "create_vcpu"}]}, "/steps/0", "no earlier step creates vCPU 0"),
    (step(op="enable_cap", fd="vcpu", vcpu=3, cap=236), f"{SECOND}/vcpu", "no earlier step creates vCPU 3"),
    (step(op="set_nested_state", state="a"), f"{SECOND}/state", 'no earlier get_nested_state saves "a"'),
    (step(op="get_nested_state", state=""), f"{SECOND}/state", "is not a label"),
    # expectations
    (scenario(write(1, value=1)), f"{SECOND}/expect/value", 'wrmsr cannot show "value"; it can show abort'),
    (step(op="reset_vcpu", expect={"errno": "EIO"}), f"{SECOND}/expect/errno", "reset_vcpu cannot show"),
    (step(op="exit", expect=[]), f"{SECOND}/expect", "[] is not an object"),
    (scenario(write(1, fault="GP")), f"{SECOND}/expect/fault", '"GP" is not a fault, such as #GP'),
    (scenario(write(1, fault=True)), f"{SECOND}/expect/fault", "true does not say which"),
    (scenario(write(1, exit={"why": 1})), f"{SECOND}/expect/exit/why", "an exit to userspace has no"),
    (scenario(write(1, exit={"reason": "FILTERED"})), f"{SECOND}/expect/exit/reason", "is not a reason"),
    (scenario(write(1, reflected="yes")), f"{SECOND}/expect/reflected", "is not an outcome"),
    (step(op="create_vcpu", vcpu=1, expect={"errno": 22}), f"{SECOND}/expect/errno", "22 is not an outcome"),
    (step(op="nested_enter", expect={"fail": {"entry": 0}}), f"{SECOND}/expect/fail/entry", "0 is less than 1"),
    (scenario(see(level=4)), f"{SECOND}/expect/level", "has more than 2 bits"),
    (scenario(see(exposed=["BHB"])), f"{SECOND}/expect/exposed/0", "is not an exposure"),
    (scenario(see(effective=None)), f"{SECOND}/expect/effective", "null is not a 64-bit value"),
    # JSON taken strictly
    ('{"id": NaN}', "/id", "NaN is not JSON"),
    ('{"x-a": {"b": [1, -Infinity]}}', "/x-a/b/1", "-Infinity is not JSON"),
    ('{"id": "a", "id": "b"}', "", 'the key "id" stands here twice'),
    ('{"x-a": [{"b/c": {"d": 1, "d": 1}}]}', "/x-a/0/b~1c", 'the key "d" stands here twice'),
    ('{"id": "\\ud800"}', "/id", "half of a surrogate pair"),
    ('{"id": }', "", "not JSON: line 1, column 8: expecting value"),
    ("", "", "not JSON: line 1, column 1"),
    ("[" * 100_000, "", "nested too deeply"),
    (b'{"id": "\xff"}', "", "byte 8 is not UTF-8"),
    (b"\xef\xbb\xbf{}", "", "UTF-8 BOM"),
]

NOT_IN_SCHEMA = ("entries for", "no earlier", "stands here twice", "refuses", "allow")
"""Reasons that no JSON Schema can give."""


class TestInvalid:
    """What is wrong with a file is said with pointer and reason."""

    @pytest.mark.parametrize(("document", "pointer", "reason"), ERRORS, ids=range(len(ERRORS)))
    def test_a_wrong_file_is_refused_where_it_is_wrong(self, document: Any, pointer: str, reason: str) -> None:
        problems = problems_of(document)
        assert any(place == pointer and reason in why for place, why in problems), problems

    @pytest.mark.parametrize("key", ["schema", "id", "host", "steps"])
    def test_a_key_that_is_missing_is_named(self, key: str) -> None:
        document = {name: value for name, value in EXAMPLE.items() if name != key}
        assert problems_of(document) == [("", f'a scenario needs "{key}"')]

    def test_all_problems_of_a_file_are_said_at_once(self) -> None:
        document = {**scenario(write(-1), {"op": "exit", "vcpu": 2}), "id": "A", "colour": 1}
        assert [pointer for pointer, _ in problems_of(document)] == [
            "/id", "/colour", "/steps/1/value", "/steps/2/vcpu"]

    def test_a_problem_reads_as_file_pointer_reason(self) -> None:
        with pytest.raises(Invalid, match=r"^scenario: #/steps/1/vcpu: no earlier step creates vCPU 1$"):
            load(scenario({"op": "exit", "vcpu": 1}))

    def test_a_unit_that_failed_still_counts_as_created(self) -> None:
        load(scenario({"op": "create_vcpu", "vcpu": 9, "expect": {"errno": "EINVAL"}}, {"op": "exit", "vcpu": 9}))


class TestFiles:
    """Files, and directories of files."""

    def put(self, folder: Path, name: str, document: Any) -> Path:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document))
        return path

    def test_a_directory_is_read_recursively_in_order_without_schemas_and_hidden_files(self, tmp_path: Path) -> None:
        for name in ("b.json", "a/z.json", "a.json"):
            self.put(tmp_path, name, {**EXAMPLE, "id": name.replace(".json", "").replace("/", ".")})
        for name in ("scenario.schema.json", ".hidden.json", ".git/x.json", "readme.md"):
            self.put(tmp_path, name, [])
        assert [item.id for item in read([tmp_path])] == ["a.z", "a", "b"]

    def test_a_file_given_twice_is_read_once(self, tmp_path: Path) -> None:
        path = self.put(tmp_path, "a.json", EXAMPLE)
        assert len(read([path, tmp_path, tmp_path / "." / "a.json"])) == 1

    def test_an_id_used_twice_is_refused(self, tmp_path: Path) -> None:
        first = self.put(tmp_path, "a.json", EXAMPLE)
        second = self.put(tmp_path, "b.json", EXAMPLE)
        with pytest.raises(Invalid) as caught:
            read([tmp_path])
        [problem] = caught.value.problems
        assert (problem.file, problem.pointer) == (str(second), "/id")
        assert problem.reason == f'the id "cap.enable-after-vcpu" is also that of {first}'

    def test_a_file_that_cannot_be_read_is_a_problem_like_others(self, tmp_path: Path) -> None:
        with pytest.raises(Invalid, match=r"missing\.json: #: cannot be read: No such file or directory"):
            read([tmp_path / "missing.json"])

    def test_a_directory_without_scenarios_is_no_scenario(self, tmp_path: Path) -> None:
        assert read([tmp_path]) == []


class TestSchema:
    """The published schema says the same as the checker, as far as a schema can."""

    def test_it_is_a_schema(self) -> None:
        jsonschema.Draft202012Validator.check_schema(json_schema())
        assert json_schema()["$id"] == "urn:specctrl:scenario:1"

    def test_it_has_every_name(self) -> None:
        text = json.dumps(json_schema())
        names = (SPEC_CTRL, CTRL, "KVM_CAP_X86_USER_SPACE_MSR", "RRSBA_CTRL", "sapphire-rapids")
        for name in (*names, *SHOWS, *OPERATIONS):
            assert f'"{name}"' in text

    def test_it_accepts_every_published_vector(self) -> None:
        for vector in read([VECTORS]):
            SCHEMA.validate(json.loads(Path(vector.file).read_text()))

    @pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample["id"])
    def test_it_accepts_every_sample(self, sample: dict[str, Any]) -> None:
        SCHEMA.validate(sample)

    @pytest.mark.parametrize(("document", "reason"), [
        (document, reason) for document, _, reason in ERRORS if isinstance(document, (dict, list))])
    def test_it_refuses_what_the_checker_refuses(self, document: Any, reason: str) -> None:
        beyond = any(part in reason for part in NOT_IN_SCHEMA) or reason == "0x400"
        assert SCHEMA.is_valid(document) == (beyond or (reason == "is not a 64-bit value" and not _plain(document)))


def _plain(document: Any) -> bool:
    r"""Whether a regular expression in a schema sees what is wrong: its $ matches before a final \n in Python."""
    return "\\n" not in json.dumps(document)


def perform(document: dict[str, Any], profile: str = "spec", any_profile: bool = False) -> Result:
    return run_one(load(document), EmulatorTarget(profile), any_profile)


def wrong(expect: dict[str, Any], answer: dict[str, Any], op: Any = "rdmsr", **args: Any) -> list[str]:
    """What is wrong with an answer to a step that expects this."""
    steps = [{"op": "get_nested_state", "state": "s"}, {"op": op, **args, "expect": expect}]
    return differences(load(scenario(*steps)).steps[2], normalised(answer))


RDMSR: dict[str, Any] = {"msr": 0x48}


class TestComparing:
    """Values are checked if named; outcomes must be named if they happen."""

    def test_a_value_that_is_not_named_is_not_checked(self) -> None:
        assert wrong({}, {"value": 7}, **RDMSR) == []

    def test_a_quantity_is_compared_as_a_number(self) -> None:
        assert wrong({"value": "0x007"}, {"value": 7}, **RDMSR) == []
        assert wrong({"value": 7}, {"value": "0x7"}, **RDMSR) == []
        assert wrong({"value": 7}, {"value": "0x8"}, **RDMSR) == ["value: expected 0x7, observed 0x8"]

    def test_a_named_value_must_be_shown(self) -> None:
        assert wrong({"value": 0}, {}, **RDMSR) == ["value: expected 0x0, nothing was shown"]
        assert wrong({"mask": None}, {}, "observe") == ["mask: expected null, nothing was shown"]
        assert wrong({"mask": None}, {"mask": None}, "observe") == []
        assert wrong({"mask": 0}, {"mask": None}, "observe") == ["mask: expected 0x0, observed null"]

    @pytest.mark.parametrize(("outcome", "how"), [
        ({"errno": "EINVAL"}, "errno EINVAL"), ({"fault": "#GP"}, "fault #GP"),
        ({"exit": {"kind": "rdmsr", "msr": 0x48}}, "exit {kind rdmsr, msr 0x48}"),
        ({"fail": {"entry": 2}}, "fail {entry 2}"), ({"abort": True}, "abort true"),
        ({"reflected": True}, "reflected true"), ({"blocked": True}, "blocked true"),
        ({"host_fault": "#GP"}, "host_fault #GP"),
    ])
    def test_an_outcome_that_is_not_named_fails_whatever_else_is_expected(
        self, outcome: dict[str, Any], how: str
    ) -> None:
        assert set(outcome) <= set(OUTCOMES)
        for expect in ({}, {"value": 7}):
            assert wrong(expect, {"value": 7, **outcome}, **RDMSR) == [f"{how} happened, which is not expected"]

    def test_an_outcome_that_is_named_must_happen(self) -> None:
        assert wrong({"fault": "#GP"}, {"fault": "#GP"}, **RDMSR) == []
        assert wrong({"fault": "#GP"}, {"fault": "#UD"}, **RDMSR) == ["fault: expected #GP, observed #UD"]
        assert wrong({"fault": "#GP"}, {}, **RDMSR) == ["fault #GP is expected and did not happen"]
        assert wrong({"reflected": True}, {"reflected": False}, **RDMSR) == [
            "reflected true is expected and did not happen"]

    def test_false_and_null_say_that_an_outcome_must_not_happen(self) -> None:
        for expect in ({"reflected": False}, {"reflected": None}, {"fault": False}, {"exit": None}):
            assert wrong(expect, {}, **RDMSR) == []
            assert wrong(expect, {"reflected": False, "fault": None}, **RDMSR) == []
        assert wrong({"reflected": False}, {"reflected": True}, **RDMSR) == [
            "reflected true happened, which is not expected"]

    def test_of_an_object_only_the_named_keys_are_compared(self) -> None:
        seen = {"exit": {"kind": "rdmsr", "reason": "FILTER", "msr": CTRL}}
        assert wrong({"exit": {}}, seen, **RDMSR) == []
        assert wrong({"exit": {"msr": "0x50000002"}}, seen, **RDMSR) == []
        assert wrong({"exit": {"reason": "UNKNOWN"}}, seen, **RDMSR) == [
            "exit: expected {reason UNKNOWN}, observed {kind rdmsr, reason FILTER, msr 0x50000002}"]
        assert wrong({"exit": {}}, {}, **RDMSR) == ["exit {} is expected and did not happen"]

    def test_fewer_msrs_than_asked_is_an_outcome_that_ret_names(self) -> None:
        asked: dict[str, Any] = {"op": "get_msrs", "msrs": [0x48, 0x49]}
        assert wrong({}, {"ret": 2, "values": [0, 0]}, **asked) == []
        assert wrong({}, {}, **asked) == []
        assert wrong({"ret": 1}, {"ret": 1, "values": [0]}, **asked) == []
        for answer in ({"ret": 1}, {"values": [0]}):
            assert wrong({"values": [0]}, answer, **asked) == ["1 of 2 MSRs were processed, which is not expected"]
        assert wrong({}, {"ret": 0}, "set_msrs", msrs=[[1, 1]]) == ["0 of 1 MSRs were processed, which is not expected"]
        assert wrong({}, {"ret": 0}, "get_feature_msrs", msrs=[1]) == [
            "0 of 1 MSRs were processed, which is not expected"]

    def test_msrs_that_a_migration_refused_are_an_outcome_that_refused_names(self) -> None:
        moved: dict[str, Any] = {"op": "migrate", "to": "ice-lake-server"}
        assert wrong({}, {"refused": []}, **moved) == []
        assert wrong({}, {"refused": ["0x48"]}, **moved) == ["KVM_SET_MSRS refused [0x48], which is not expected"]
        assert wrong({"refused": [SPEC_CTRL, 1]}, {"refused": [1, 0x48]}, **moved) == []
        assert wrong({"refused": [1]}, {"refused": [0x48]}, **moved) == ["refused: expected [0x1], observed [0x48]"]

    def test_sets_are_unordered_and_lists_are_not(self) -> None:
        assert wrong({"exposed": ["BHI", "RRSBA"]}, {"exposed": ["RRSBA", "BHI"]}, "observe") == []
        assert wrong({"exposed": ["BHI"]}, {"exposed": []}, "observe") == ["exposed: expected [BHI], observed []"]
        assert wrong({"stored": [1, 2]}, {"stored": [2, 1]}, "nested_exit") == [
            "stored: expected [0x1, 0x2], observed [0x2, 0x1]"]
        boot: dict[str, Any] = {"op": "boot", "kernel": KERNEL}
        assert wrong({"wrote": [[CTRL, 1]]}, {"wrote": [["0x50000002", "0x1"]]}, **boot) == []
        assert wrong({"wrote": []}, {"wrote": [[CTRL, 1]]}, **boot) == [
            "wrote: expected [], observed [0x50000002:0x1]"]

    def test_contains_and_lacks_are_membership_in_the_list_that_was_seen(self) -> None:
        seen = {"contains": [0x48, 0x10A]}
        assert wrong({"contains": [SPEC_CTRL], "lacks": [CTRL]}, seen, "get_msr_index_list") == []
        assert wrong({"contains": [SPEC_CTRL, CTRL]}, seen, "get_msr_index_list") == ["the list lacks [0x50000002]"]
        assert wrong({"lacks": [0x49, 0x10A]}, seen, "get_msr_index_list") == ["the list contains [0x10a]"]
        assert wrong({"lacks": [0x49]}, {}, "get_msr_index_list") == ["lacks: expected [0x49], no list was shown"]

    def test_an_answer_that_no_step_can_give_is_nonsense(self) -> None:
        for answer in ({"faults": "#GP"}, {"value": -1}, {"fault": "GP"}, {"level": "1"}, {"ret": True}):
            with pytest.raises(TargetFailed, match="the target answered nonsense"):
                normalised(answer)


class Stub:
    """A target that answers as it is told; an exception is raised."""

    name = "stub"
    profiles = frozenset(["spec"])
    observes: frozenset[str] | None = None
    max_unsupported: int | None = None

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.said: list[str] = []

    def begin(self, *_: Any) -> None:
        self.said.append("begin")

    def step(self, step: Step) -> dict[str, Any]:
        self.said.append(step.op)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, dict)
        return answer

    def end(self) -> None:
        self.said.append("end")

    def close(self) -> None:
        self.said.append("close")


class TestRunning:
    """A scenario ends with its last step, its first failing one or the first unsupported one."""

    @pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample["id"])
    def test_every_sample_passes_on_the_emulator(self, sample: dict[str, Any]) -> None:
        result = perform(sample)
        assert (result.status, result.why, result.observed) == ("pass", "", None)

    @pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample["id"])
    def test_every_expectation_of_the_samples_can_fail(self, sample: dict[str, Any]) -> None:
        for index, item in enumerate(sample["steps"]):
            for key in item.get("expect", {}):
                if key == "abort":  # says that it does not happen
                    continue
                planted = copy.deepcopy(sample)
                planted["steps"][index]["expect"][key] = _other(key, item["expect"][key])
                result = perform(planted)
                assert (result.status, result.step) == ("fail", index), (index, key)

    def test_a_failing_step_ends_the_scenario_and_shows_expected_and_observed(self) -> None:
        target = Stub({}, {"value": 7})
        document = scenario({"op": "rdmsr", "msr": 0x48, "expect": {"value": "0x08"}}, {"op": "exit"})
        result = run_one(load(document), target)
        assert target.said == ["begin", "create_vcpu", "rdmsr", "end"]
        assert (result.status, result.step, result.op) == ("fail", 1, "rdmsr")
        assert (result.expected, result.observed) == ({"value": "0x08"}, {"value": "0x7"})

    def test_misuse_fails_the_step_and_ends_the_scenario(self) -> None:
        result = perform(scenario({"op": "nested_exit"}, {"op": "exit"}))
        assert (result.status, result.step, result.observed) == ("fail", 1, {"misuse": "L2 does not run"})

    def test_an_unsupported_step_ends_the_scenario(self) -> None:
        target = Stub({}, Unsupported("no VMX"))
        result = run_one(load(scenario({"op": "nested_enter"}, {"op": "exit"})), target)
        assert (result.status, result.step, result.why) == ("unsupported", 1, "no VMX")
        assert target.said == ["begin", "create_vcpu", "nested_enter", "end"]

    def test_a_scenario_of_another_profile_is_not_run_unless_any_is_asked_for(self) -> None:
        document = {**EXAMPLE, "profile": "rfc-v3"}
        assert perform(document).status == "other-profile"
        assert perform(document, any_profile=True).status == "pass"

    def test_a_bug_of_the_target_is_no_result_and_names_the_step(self) -> None:
        with pytest.raises(ZeroDivisionError) as caught:
            run_one(load(EXAMPLE), Stub({}, ZeroDivisionError()))
        assert caught.value.__notes__ == ["in scenario, /steps/1, enable_cap"]

    def test_each_scenario_gets_a_fresh_machine(self) -> None:
        target = EmulatorTarget("spec")
        results = list(run([load(EXAMPLE), load(FORCED), load(EXAMPLE)], lambda _: target))
        assert [result.status for result in results] == ["pass"] * 3

    def test_an_emulator_keeps_the_history_if_asked(self) -> None:
        target = EmulatorTarget("spec", record=True)
        run_one(load(EXAMPLE), target)
        assert target.machine is not None
        assert [row["op"] for row in target.machine.history] == ["create_vcpu", "enable_cap"]

    def test_an_assumption_reaches_the_machine(self) -> None:
        target = EmulatorTarget("spec")
        run_one(load({**EXAMPLE, "assume": {"init-withdraws-report": False}}), target)
        assert target.machine is not None
        assert target.machine.assume.init_withdraws_report is False


def _other(key: str, expected: Any) -> Any:
    """Another expectation of the same key, which must fail."""
    others: dict[str, Any] = {"errno": "EPERM", "fault": "#UD", "contains": [0x999], "lacks": [0x48, 0x10A],
                              "level": 3 - expected if key == "level" else 0}
    if key in others:
        return others[key]
    if isinstance(expected, bool):
        return not expected
    if isinstance(expected, dict):
        return {"reason": "UNKNOWN"} if key == "exit" else {**expected, "entry": 9}
    if isinstance(expected, list):
        return [*expected, 7]
    return "0x7777"


PASSED = Result(load(EXAMPLE), "pass", "spec")
FAILED = Result(load(scenario(write(1, fault="#GP"))), "fail", "spec", 1, "no \x07fault", {"value": "0x1"})
LACKING = Result(load(scenario(see(level=1), id="test.lacking")), "unsupported", "cmd:x", 1, "no observe")
OTHER = Result(load(scenario(id="test.other", profile="rfc-v3")), "other-profile", "spec", why="holds for rfc-v3")


class TestReporting:
    """All results are counted and printed."""

    def report(self, *results: Result, total: int = 0, limit: int | None = 0, broken: str = "") -> Report:
        return Report(total or len(results), limit, list(results), broken)

    def test_the_exit_status_is_0_if_at_least_one_ran_and_all_that_ran_pass(self) -> None:
        assert self.report(PASSED).exit_status() == 0
        assert self.report(PASSED, OTHER).exit_status() == 0
        assert self.report(PASSED, LACKING, limit=1).exit_status() == 0

    def test_it_is_1_for_a_mismatch_too_many_unsupported_or_a_broken_target(self) -> None:
        assert self.report(PASSED, FAILED).exit_status() == 1
        assert self.report(PASSED, LACKING).exit_status() == 1
        assert self.report(LACKING).exit_status() == 1
        assert self.report(PASSED, broken="it died").exit_status() == 1

    def test_it_is_3_if_nothing_could_run(self) -> None:
        assert self.report(OTHER).exit_status() == 3
        assert self.report(LACKING, limit=None).exit_status() == 3
        assert self.report().exit_status() == 3

    def test_text_says_where_and_why(self) -> None:
        assert as_text(PASSED) == "pass          cap.enable-after-vcpu"
        assert as_text(OTHER) == "other-profile test.other: holds for rfc-v3"
        assert as_text(LACKING) == "unsupported   test.lacking: step 2 (/steps/1) observe: no observe"
        assert as_text(FAILED).splitlines()[1:] == [
            "  step 2 (/steps/1) wrmsr: no \\x07fault", '  expected {"fault": "#GP"}',
            '  observed {"value": "0x1"}: no fault']

    def test_a_failure_says_what_the_scenario_shows_and_where_to_look(self) -> None:
        document = scenario(write("0x1"), title="A title", rules=["exit.host-restored", "access.read.view"])
        failed = Result(load(document), "fail", "spec", 1, "why", {"fault": "#GP", "reflected": False})
        assert as_text(failed).splitlines()[1:] == [
            "  A title", "  step 2 (/steps/1) wrmsr: why", "  expected {}: no fault",
            '  observed {"fault": "#GP", "reflected": false}', "  rules    exit.host-restored, access.read.view"]

    def test_a_generated_scenario_names_rules_near_it_and_shows_none(self) -> None:
        document = scenario(write("0x1"), id="gen.wrmsr.0123abcd", rules=["access.read.view"])
        failed = Result(load(document), "fail", "spec", 1, "why", {"fault": "#GP"})
        assert as_text(failed).splitlines()[-1] == "  nearby   access.read.view: not what it shows"

    def test_an_outcome_on_both_sides_is_missing_on_neither(self) -> None:
        document = scenario(write("0x1", fault="#UD", reflected=False))
        failed = Result(load(document), "fail", "spec", 1, "why", {"fault": "#GP", "exit": {}, "abort": True})
        assert as_text(failed).splitlines()[2:] == [
            '  expected {"fault": "#UD", "reflected": false}: no exit, no abort',
            '  observed {"fault": "#GP", "exit": {}, "abort": true}']

    def test_the_summary_counts_every_kind_and_says_why_the_status_is_not_0(self) -> None:
        assert summary(self.report(PASSED)) == "1 scenario: 1 pass, 0 fail, 0 unsupported, 0 other-profile"
        assert summary(self.report(PASSED, LACKING)).splitlines() == [
            "unsupported:    1  observe: no observe",
            "2 scenarios: 1 pass, 0 fail, 1 unsupported, 0 other-profile",
            "more unsupported than the 0 allowed (--max-unsupported)"]
        assert summary(self.report(OTHER)).endswith("\nnothing could run")
        assert summary(self.report(PASSED, total=3, broken="it died")).splitlines() == [
            "3 scenarios: 1 pass, 0 fail, 0 unsupported, 0 other-profile, 2 not-run", "the run is broken: it died"]

    def test_unsupported_scenarios_are_counted_by_reason_and_the_rarest_are_left_to_json(self) -> None:
        def lacking(why: str, step: int | None = 1) -> Result:
            return Result(LACKING.scenario, "unsupported", "cmd:x", step, why)

        unseen = "the target cannot observe mask, saved"
        results = [lacking("not here", None), lacking(unseen), lacking(unseen), LACKING]
        counted = {unseen: 2, "not here": 1, "observe: no observe": 1}
        assert list(self.report(PASSED, *results).unsupported().items()) == list(counted.items())  # in this order
        assert as_json(self.report(*results))["unsupported"] == counted
        assert "unsupported" not in as_json(self.report(PASSED))
        many = self.report(*(lacking(f"reason {number:02}", None) for number in range(23)), limit=None)
        lines = summary(many).splitlines()
        assert lines[0] == "unsupported:    1  reason 00"
        assert lines[20:] == ["unsupported:    3  for 3 other reasons (--json has them all)",
                              "23 scenarios: 0 pass, 0 fail, 23 unsupported, 0 other-profile", "nothing could run"]

    def test_json_has_every_result(self) -> None:
        document = as_json(self.report(PASSED, FAILED, LACKING, OTHER, broken="it died"))
        assert json.loads(json.dumps(document)) == document
        assert document["counts"] == {"pass": 1, "fail": 1, "unsupported": 1, "other-profile": 1}
        assert (document["status"], document["broken"]) == (1, "it died")
        assert document["results"][1] == {
            "id": "test.sample", "file": "scenario", "profile": "spec", "target": "spec", "result": "fail",
            "step": 1, "op": "wrmsr", "why": "no \x07fault", "title": "", "rules": [],
            "expected": {"fault": "#GP"}, "observed": {"value": "0x1"}}

    def test_junit_is_xml_whatever_was_observed(self) -> None:
        suite = ElementTree.fromstring(as_junit(self.report(PASSED, FAILED, LACKING, OTHER, broken="it died")))
        assert suite.attrib == {
            "name": "specctrl run", "tests": "5", "failures": "1", "errors": "1", "skipped": "2"}
        assert [case.get("name") for case in suite] == [
            "cap.enable-after-vcpu", "test.sample", "test.lacking", "test.other", "the target works"]
        assert suite[1][0].get("message") == "step 2 (/steps/1) wrmsr: no \ufffdfault"
        assert suite[2][0].get("message") == "unsupported: step 2 (/steps/1) observe: no observe"


def test_misuse_raised_by_any_target_is_the_step_s_failure() -> None:
    result = run_one(load(EXAMPLE), Stub(Misuse("not now")))
    assert (result.status, result.step, result.why) == ("fail", 0, "misuse: not now")
