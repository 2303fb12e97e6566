"""A failure names the rules whose code, changed a little, does what the implementation did."""

import pytest

import planted
from in_process import InProcess
from published_files import ROOT
from scenario_samples import scenario, see, write
from specctrl.evidence.suspects import suspects
from specctrl.model.kvm.entry import VcpuEntry
from specctrl.scenario import FAIL, EmulatorTarget, as_text, load, read, run_one

EVERY = {each.id: each for each in read([ROOT / "vectors"])}


def failed(id, fault, begin="ok"):
    result = run_one(EVERY[id], InProcess(fault, begin=begin))
    assert result.status == FAIL
    return result


@pytest.mark.parametrize(("id", "fault", "rule"), [
    ("cap.vcpu.any-time", planted.of_fault("restore-by-view"), "exit.host-restored"),
    ("init.userspace-reset.smm", planted.of_fault("init-survives-reset"), "reset.userspace"),
    ("virt.gate.bit-63", planted.of_fault("no-gate"), "virt.enumeration.gate"),
    ("nested.bitmap.l1-intercepts", planted.of_fault("reads-for-writes"), "nested.bitmap.merged"),
])
def test_the_rule_that_broke_stands_first(id, fault, rule):
    assert suspects(failed(id, fault))[0] == rule


def test_it_need_not_be_one_that_the_scenario_names():
    assert "exit.host-restored" not in EVERY["cap.vcpu.any-time"].rules


def test_keys_that_nobody_sees_do_not_matter():
    sees = "observes=effective,host_spec_ctrl"
    assert suspects(failed("cap.vcpu.any-time", planted.of_fault("restore-by-view"), sees)) == ("exit.host-restored",)


def test_nothing_is_said_of_a_scenario_that_is_wrong_itself():
    result = run_one(load(scenario(write("0x1"), see(effective="0x2"))), EmulatorTarget("spec"))
    assert (result.status, suspects(result)) == (FAIL, ())


def test_the_code_is_afterwards_as_it_was():
    before = VcpuEntry.restore_host_spec_ctrl.__code__
    suspects(failed("cap.vcpu.any-time", planted.of_fault("restore-by-view")))
    assert VcpuEntry.restore_host_spec_ctrl.__code__ is before
    assert run_one(EVERY["cap.vcpu.any-time"], EmulatorTarget("spec")).status == "pass"


def test_they_are_printed_above_the_rules_of_the_file(capsys, monkeypatch):
    from specctrl.cli.main import main

    fault = planted.of_fault("restore-by-view")
    monkeypatch.setattr("specctrl.cli.run.open_target", lambda name, plain: InProcess(fault))
    assert main(["run", EVERY["cap.vcpu.any-time"].file, "--target", "cmd:x"]) == 1
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    at = lines.index("  suspect  exit.host-restored")
    assert lines[at + 1].startswith("  rules    cap.vcpu.any-time")
    assert "suspect" not in as_text(failed("cap.vcpu.any-time", fault))
    assert printed.err == "looking for the rules that the first 5 failures point at: seconds for each\n"
