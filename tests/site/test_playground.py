"""A history performed step by step: what a page shows of it, and what it saves."""

import json
from typing import Any

import pytest

from specctrl.rules import data_folder, load_rules
from specctrl.scenario import EmulatorTarget, load, read, run_one
from specctrl.site.in_browser import call
from specctrl.site.playground import EXPLAINED, Play, Refused, begun, choices, open_scenario, perform, save, start, undo

VECTORS = [json.loads(path.read_text("utf-8")) for path in sorted(data_folder("vectors").glob("*/*.json"))]
FORCE = {"op": "enable_cap", "cap": "KVM_CAP_FORCE_SPEC_CTRL", "args": ["0x400", "0x400"]}


def test_each_published_scenario_can_be_opened_and_what_is_saved_of_it_passes() -> None:
    assert len(VECTORS) > 200
    assert {vector["id"] for vector in VECTORS} == {scenario.id for scenario in read([data_folder("vectors")])}
    for vector in VECTORS[::5]:  # each takes a while, and any of them would do
        opened = open_scenario(vector)
        assert "problem" not in opened, vector["id"]
        assert [row["step"]["op"] for row in opened["rows"]] == [step["op"] for step in vector["steps"]]
        saved = load(save(vector["id"]))
        assert run_one(saved, EmulatorTarget(saved.profile)).status == "pass", vector["id"]


def test_a_saved_scenario_expects_all_that_was_seen() -> None:
    play = Play("sapphire-rapids")
    for step in (FORCE, {"op": "create_vcpu"}, {"op": "observe"}, {"op": "exit"}):
        play.perform(step)
    saved = play.scenario("toy.forced", "Forced")
    assert saved["title"] == "Forced"
    assert saved["steps"][2]["expect"]["effective"] == "0x400"
    assert saved["steps"][0] == FORCE | {"expect": {"ret": 0}}
    saved["steps"][2]["expect"]["effective"] = "0x0"
    assert run_one(load(saved), EmulatorTarget("spec")).status == "fail"


def test_a_row_has_the_registers_after_the_step_and_the_rules_whose_code_ran() -> None:
    play = Play("sapphire-rapids")
    assert play.perform(FORCE)["vcpus"] == {}
    created = play.perform({"op": "create_vcpu"})
    assert created["vcpus"]["0"]["mask"] == "0x400"
    assert "cap.enable.before-vcpus" not in created["rules"]
    assert "cap.enable.before-vcpus" in play.rows[0]["rules"]
    assert set(created["rules"]) <= set(load_rules())


def test_each_register_of_a_row_is_explained() -> None:
    play = Play("sapphire-rapids")
    row = play.perform({"op": "create_vcpu"})
    assert set(row["vcpus"]["0"]) == set(EXPLAINED) | {"in_guest"}  # which stands in the heading
    assert choices()["registers"]["saved"] == {"text": EXPLAINED["saved"][0], "page": EXPLAINED["saved"][1]}


def test_what_changed_something_is_named_with_its_rules() -> None:
    play = Play("sapphire-rapids")
    play.perform(FORCE)
    (changed,) = play.rows[0]["changed"]
    assert (changed["code"], changed["fields"]) == ("Vm.force_spec_ctrl", ["user_mask", "user_value"])
    assert "cap.enable.replaces" in changed["rules"]
    assert set(changed["rules"]) < set(play.rows[0]["rules"])
    assert play.perform({"op": "check_extension", "cap": 236})["changed"] == []


def test_looking_at_a_vcpu_after_a_step_is_no_part_of_the_step() -> None:
    play = Play("sapphire-rapids")
    play.perform({"op": "create_vcpu"})
    assert "exposure.bhi" in play.perform({"op": "observe"})["rules"]
    assert "exposure.bhi" not in play.perform({"op": "check_extension", "cap": 236})["rules"]


@pytest.mark.parametrize(
    ("step", "why"),
    [
        ({"op": "fly"}, 'op: "fly" is not an operation'),
        ({"op": "wrmsr", "msr": "IA32_SPEC_CTRL"}, 'wrmsr needs "value"'),
        ({"op": "rdmsr", "vcpu": 3, "msr": 72}, "vcpu: no earlier step creates vCPU 3"),
        ({"op": "rsm"}, "RSM outside SMM"),
    ],
)
def test_a_step_that_is_none_says_why_and_leaves_the_history_as_it_was(step: dict[str, Any], why: str) -> None:
    start("sapphire-rapids", steps=[{"op": "create_vcpu"}])
    assert why in perform(step)["problem"]
    assert len(begun().rows) == 1


@pytest.mark.parametrize("host", ["no-such-part", {"part": "sapphire-rapids", "host_spec_ctrl": "0x8000"}, {}])
def test_a_host_that_is_none_is_refused(host: Any) -> None:
    with pytest.raises(Refused):
        Play(host)
    assert start(host)["problem"]


def test_a_host_s_value_may_be_a_hex_string() -> None:
    host = {"part": "sapphire-rapids", "host_spec_ctrl": "0x0"}
    assert Play(host).along.machine.host.spec_ctrl == 0
    assert "problem" not in start(host, steps=[{"op": "create_vcpu"}])


@pytest.mark.parametrize(("before", "step", "why"), [
    ([{"op": "enable_cap", "cap": "KVM_CAP_X86_USER_SPACE_MSR", "args": [7]},
      {"op": "set_msr_filter", "ranges": [{"base": 0x48, "count": 1, "write": True, "allow": [False]}]},
      {"op": "create_vcpu"}], {"op": "boot", "kernel": {"os": "linux"}}, "boot cannot go on over an exit"),
    ([{"op": "enable_cap", "cap": "KVM_CAP_X86_USER_SPACE_MSR", "args": [7]}, {"op": "create_vcpu"},
      {"op": "create_vcpu", "vcpu": 1},
      {"op": "set_msr_filter", "ranges": [{"base": 0x48, "count": 1, "write": True, "allow": [False]}]},
      {"op": "wrmsr", "vcpu": 1, "msr": 0x48, "value": 1}], {"op": "migrate", "to": "sapphire-rapids"},
     "vCPU 1 has an MSR exit pending"),
])
def test_a_step_that_is_refused_changes_nothing(before: list[dict[str, Any]], step: dict[str, Any], why: str) -> None:
    play = Play("sapphire-rapids")
    for each in before:
        play.perform(each)
    machine = play.along.machine
    registers, pending = machine.registers(), [vcpu.pending_exit for vcpu in machine.vcpus.values()]
    with pytest.raises(Refused, match=why):
        play.perform(step)
    assert machine.registers() == registers
    assert [vcpu.pending_exit for vcpu in machine.vcpus.values()] == pending
    saved = load(play.scenario())
    assert run_one(saved, EmulatorTarget("spec")).status == "pass"


def test_undo_takes_the_last_step_back() -> None:
    start("sapphire-rapids", steps=[{"op": "create_vcpu"}])
    before = begun().rows[-1]["vcpus"]
    perform({"op": "wrmsr", "msr": "IA32_SPEC_CTRL", "value": "0x1"})
    assert begun().rows[-1]["vcpus"] != before
    assert undo()["rows"][-1]["vcpus"] == before
    assert len(begun().rows) == 1


def test_a_history_that_goes_wrong_half_way_keeps_what_was_done() -> None:
    answer = start("sapphire-rapids", steps=[{"op": "create_vcpu"}, {"op": "rsm"}, {"op": "exit"}])
    assert answer["problem"] == "step 2: RSM outside SMM"
    assert len(answer["rows"]) == 1


def test_nothing_is_saved_of_an_empty_history_or_under_no_id() -> None:
    start("sapphire-rapids")
    assert "at least one step" in save()["problem"]
    start("sapphire-rapids", steps=[{"op": "create_vcpu"}])
    assert "an id" in save("No Id")["problem"]


def test_a_variant_and_assumptions_are_kept() -> None:
    start("sapphire-rapids", "rfc-v3", {"init-withdraws-report": False}, [{"op": "create_vcpu"}])
    saved = save()
    assert (saved["profile"], saved["assume"]) == ("rfc-v3", {"init-withdraws-report": False})


def test_a_scenario_that_is_none_is_not_opened() -> None:
    assert "problem" in open_scenario({"id": "x"})


def test_all_that_a_page_asks_is_json() -> None:
    answer = json.loads(call("specctrl.site.playground", "choices", "{}"))
    assert answer == choices()
    assert {"rdmsr", "boot", "migrate"} <= set(answer["operations"])
    assert set(answer["rules"]) == set(load_rules())
