"""Lockstep: any program is compared as far as it goes, and what differs becomes a short scenario."""

import argparse
import json
import shlex
import sys
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path

import pytest

import planted
from in_process import InProcess
from specctrl.cli.lockstep import Reached, parts, rules_of
from specctrl.cli.main import main
from specctrl.scenario import EmulatorTarget, TargetFailed, load, run_one
from specctrl.scenario.format import KVM_ABI, LEVELS, OPERATIONS
from specctrl.scenario.levels import ORDER, level
from specctrl.targets.lockstep import Finding, Lockstep, history, shortened, simpler

ROOT = Path(__file__).parents[2]
EMULATOR = shlex.join([sys.executable, str(ROOT / "tests" / "adapters" / "emulator.py")])


def found_by(target, events=100_000, top=KVM_ABI, seed=2):
    lockstep = Lockstep(target, top)
    *_, last = lockstep.compare(events, seed)
    return lockstep, last


class TestFaults:
    """What an implementer may get wrong is found in fewer events than are performed by default."""

    @pytest.mark.parametrize("fault", planted.KIT)
    def test_a_fault_is_found_and_shown_in_at_most_eight_steps(self, fault):
        target = InProcess(planted.of_fault(fault))
        lockstep, found = found_by(target)
        assert isinstance(found, Finding), "not found"
        short = shortened(lockstep, found)
        assert len(short.run.calls) <= 8
        scenario = load(short.document())
        assert run_one(scenario, EmulatorTarget("spec")).status == "pass"
        result = run_one(scenario, target)
        assert (result.status, result.step) == ("fail", len(scenario.steps) - 1)

    def test_without_a_fault_nothing_is_found(self):
        lockstep, last = found_by(InProcess(), 3_000)
        assert (last, lockstep.left_out) == (3_000, {})


class TestLevels:
    @pytest.mark.parametrize("top", LEVELS)
    def test_no_step_needs_more_than_the_level(self, top):
        runs = [history(f"3.{number}", 30, top) for number in range(40)]
        begun = [run for run in runs if run.calls]  # a level may have no vCPU with the CPUID that was chosen
        assert len(begun) > 20
        for run in begun:
            document = Finding(run, "").document()
            for step in document["steps"]:
                if step["op"] == "observe":  # it looks inside, at any level
                    del step["expect"]
            assert ORDER.index(level(load(document))) <= ORDER.index(top)

    def test_the_highest_levels_have_what_the_lower_ones_have_not(self):
        ops = {top: {call["op"] for number in range(90) for call in history(f"3.{number}", 50, top).calls}
               for top in LEVELS}
        for low, high in pairwise(ORDER):
            assert ops[low] < ops[high]
        assert ops[KVM_ABI] == {name for name, each in OPERATIONS.items() if each.often} | {"observe"}

    @pytest.mark.parametrize("top", LEVELS)
    def test_every_rule_of_the_level_is_reached(self, top):
        reached = Reached(top)
        for number in range(0, 2000, 10):  # those that are watched of 100,000 events
            with reached.watch(number):
                history(f"0.{number}", 50, top)
        assert [] == [id for id in rules_of(top) if not reached.counts[id]]
        assert reached.lines()[-1] == f"{len(rules_of(top))} rules, 0 of them never reached in 200 histories"
        assert len(rules_of("processor")) > 10


class TestWhatIsMissing:
    """A program is compared in what it does and sees."""

    def test_keys_that_it_does_not_observe_are_not_compared(self):
        sees = "observes=values,effective,guest_view,level,fault,exit"
        fault = planted.of_fault("set-msrs-counts-nothing")
        assert found_by(InProcess(fault, begin=sees), 3_000)[1] == 3_000
        assert isinstance(found_by(InProcess(fault, begin=f"{sees},ret"), 3_000)[1], Finding)

    def test_operations_that_it_lacks_are_left_out_and_counted(self):
        target = InProcess(lacks=lambda message: message["op"] in ("migrate", "smi"))
        lockstep, last = found_by(target, 3_000)
        assert last == 3_000
        assert {"migrate", "smi"} == lockstep.never == set(lockstep.left_out)
        assert all(3 <= count <= 5 for count in lockstep.left_out.values())

    def test_a_form_of_an_operation_that_it_lacks_is_left_out_and_the_others_are_compared(self):
        def listed(message):
            return message["op"] == "nested_enter" and bool(message.get("msr_load"))

        target = InProcess(lacks=listed)
        lockstep, last = found_by(target, 3_000)
        assert (last, set(lockstep.left_out), lockstep.never) == (3_000, {"nested_enter"}, set())
        assert isinstance(found_by(InProcess(planted.of_fault("reads-for-writes"), lacks=listed), 3_000)[1], Finding)

    def test_what_it_has_is_compared_all_the_same(self):
        """Only four operations, as a model of a processor has them."""
        has = ("enable_cap", "create_vcpu", "rdmsr", "wrmsr", "exit", "observe")
        target = InProcess(planted.of_fault("edx-dropped"), lacks=lambda message: message["op"] not in has)
        assert isinstance(found_by(target, 10_000, "processor")[1], Finding)

    def test_a_host_that_it_cannot_have_is_counted(self):
        class NoOldHosts(InProcess):
            def answered(self, message):
                if message["op"] == "begin" and not message["host"]["spec_ctrl_shadow"]:
                    return "unsupported=no such host"
                return super().answered(message)

        target = NoOldHosts()
        lockstep, last = found_by(target, 1_000)
        assert last == 1_000
        begun = [message["host"]["spec_ctrl_shadow"] for message in target.sent if message["op"] == "begin"]
        assert 0 < begun.count(False) == lockstep.left_out["begin: no such host"]
        for before, message in pairwise(target.sent):
            if before["op"] == "begin" and not before["host"]["spec_ctrl_shadow"]:
                assert message["op"] == "begin"  # nothing follows a refusal
        assert set(lockstep.left_out) == {"begin: no such host"}

    def test_where_nothing_can_be_compared_that_is_said(self):
        with pytest.raises(TargetFailed, match=r"nothing to compare; unsupported: begin: not here \(100\)"):
            found_by(InProcess(begin="unsupported=not here"))
        with pytest.raises(TargetFailed, match="nothing to compare; unsupported: create_vcpu"):
            found_by(InProcess(lacks=lambda message: True))


class TestBroken:
    """A program that does not survive a history, or answers nonsense, has a history to show for it."""

    def test_a_crash_is_a_finding(self):
        target = InProcess(breaks=lambda message: message["op"] == "rsm")
        lockstep, found = found_by(target)
        short = shortened(lockstep, found)
        assert [call["op"] for call in short.run.calls] == ["create_vcpu", "smi", "rsm"]
        assert str(short) == ("after op=rsm vcpu=0 the emulator shows ok, "
                              "the target ended with status 7 instead of answering")

    def test_nonsense_is_a_finding(self):
        class Decimal(InProcess):
            def answered(self, message):
                return super().answered(message).replace("host_spec_ctrl=0x", "host_spec_ctrl=")

        _, found = found_by(Decimal())
        assert "host_spec_ctrl" in str(found)
        assert "is written in hex, with 0x" in str(found)

    @pytest.mark.parametrize(("how", "said"), [("sys.exit(7)", "ended with status 7 instead of answering"),
                                               ("time.sleep(60)", "did not answer")])
    def test_a_program_that_crashes_or_hangs_leaves_a_scenario(self, tmp_path, capsys, monkeypatch, how, said):
        monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
        adapter = (ROOT / "tests" / "adapters" / "emulator.py").read_text()
        adapter = adapter.replace("import sys\n", "import sys\nimport time\n", 1)
        breaks = f'            elif message["op"] == "rsm":\n                {how}\n'
        assert adapter.count("            else:\n") == 1
        adapter = adapter.replace("            else:\n", f"{breaks}            else:\n")
        program = tmp_path / "adapter.py"
        program.write_text(adapter)
        target = f"cmd:{sys.executable} {program}"
        assert main(["lockstep", "--target", target, "--events", "2000"]) == 1
        printed = capsys.readouterr()
        assert said in printed.err
        document = json.loads(printed.out)
        assert [step["op"] for step in document["steps"]] == ["create_vcpu", "smi", "rsm"]
        (tmp_path / "found.json").write_text(printed.out)
        assert main(["run", str(tmp_path / "found.json"), "--target", target]) == 1
        assert said in capsys.readouterr().out
        assert main(["run", str(tmp_path / "found.json")]) == 0


class TestCommand:
    @pytest.mark.parametrize("protocol", ["", "--plain"], ids=["json", "words"])
    def test_a_program_may_speak_either_protocol(self, protocol, monkeypatch, capsys):
        monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
        arguments = ["lockstep", "--target", f"cmd:{EMULATOR} {protocol}", "--events", "300", "--level", "force"]
        assert main(arguments) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[-1].startswith("300 events, seed 0, level force: no difference (")
        counts = [int(line.split()[1]) for line in lines if line.startswith("reached:")]
        assert counts == sorted(counts)
        assert len(counts) == len(rules_of("force"))

    def test_two_processes_say_what_one_says(self, monkeypatch, capsys):
        monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
        said = []
        for in_part, jobs in ((300, "1"), (100, "2")):
            monkeypatch.setattr("specctrl.cli.lockstep.IN_PART", in_part)
            assert main(["lockstep", "--target", f"cmd:{EMULATOR}", "--events", "300", "--jobs", jobs]) == 0
            said.append(capsys.readouterr().out.rpartition(" (")[0])
        assert said[0] == said[1]
        assert said[0].endswith("300 events, seed 0, level kvm-abi: no difference")

    def test_the_parts_have_the_histories_of_one_long_comparison(self, monkeypatch):
        monkeypatch.setattr("specctrl.cli.lockstep.IN_PART", 100)
        options = argparse.Namespace(target="c", plain=False, level=KVM_ABI, seed=2, events=250)
        numbers = []
        for part in parts(options):
            made = Lockstep(InProcess(), part.level).compare(
                part.events, part.seed, lambda number: nullcontext(numbers.append(number)), part.first)
            assert part.events == list(made)[-1]
        assert [0, 1, 2, 3, 4] == numbers

    def test_how_far_it_is_is_said_now_and_then(self, capsys, monkeypatch):
        clock = iter(range(0, 10_000, 4))
        monkeypatch.setattr("specctrl.cli.lockstep.time.monotonic", lambda: next(clock))
        monkeypatch.setattr("specctrl.targets.adapter.AdapterTarget.exchange", InProcess().exchange)
        monkeypatch.setattr("specctrl.targets.c.CTarget", lambda: InProcess())
        assert main(["lockstep", "--events", "300"]) == 0
        said = capsys.readouterr().err.splitlines()
        assert [line.split(" events")[0] for line in said] == ["150 of 300", "300 of 300"]


def test_a_step_becomes_simpler_and_never_more_complicated():
    call = {"op": "set_msrs", "vcpu": 0, "msrs": [[0x48, 5], [0x10A, 0]]}
    assert [step["msrs"] for step in simpler(call)] == [
        [[0x10A, 0]], [[0x48, 5]], [[0x48, 0], [0x10A, 0]], [[0x48, 1], [0x10A, 0]], [[0x48, 4], [0x10A, 0]],
        [[0x48, 1], [0x10A, 0]]]
    assert [*simpler({"op": "exit", "vcpu": 1})] == []
