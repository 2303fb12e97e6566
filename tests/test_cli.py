"""The command line: what it prints and the status that it leaves with."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

import specctrl
from scenario_samples import EXAMPLE, SAMPLES, scenario, see, write
from specctrl.cli import main
from specctrl.evidence import EvidenceError, Example, Shown
from specctrl.parts import PARTS
from specctrl.records import Evidence
from specctrl.rules import Rule, RuleError, load_rules

ADAPTERS = Path(__file__).parent / "adapters"
SOURCES = Path(__file__).parents[1] / "src"
FAILING = scenario(write("0x1"), see(effective="0x2"), id="test.failing")
OTHER = scenario(id="test.other", profile="rfc-v3")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory with the samples."""
    for sample in SAMPLES:
        put(tmp_path, sample)
    return tmp_path


def put(path: Path, document: dict[str, Any]) -> str:
    file = path / f"{document['id']}.json"
    file.write_text(json.dumps(document))
    return str(file)


def adapter(name: str, *arguments: str) -> str:
    return "cmd:" + shlex.join([sys.executable, str(ADAPTERS / name), *arguments])


class TestRun:
    """specctrl run."""

    def test_passing_scenarios_leave_with_0_and_are_counted(
        self, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["run", str(folder)]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == "pass          cap.enable-after-vcpu"
        assert lines[-1] == "4 scenarios: 4 pass, 0 fail, 0 unsupported, 0 other-profile"

    def test_a_mismatch_leaves_with_1_and_shows_step_expected_and_observed(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        file = put(tmp_path, FAILING)
        assert main(["run", file]) == 1
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == f"fail          test.failing ({file})"
        assert lines[1] == "  step 3 (/steps/2) observe: effective: expected 0x2, observed 0x1"
        assert lines[2] == '  expected {"effective": "0x2"}'
        assert lines[3].startswith('  observed {"effective": "0x1"')

    def test_one_invalid_file_leaves_with_2_and_nothing_is_run(
        self, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        file = put(folder, scenario({"op": "exit", "vcpu": 1}, id="test.invalid"))
        put(folder, FAILING)
        assert main(["run", str(folder)]) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err == f"{file}: #/steps/1/vcpu: no earlier step creates vCPU 1\n"

    def test_an_invalid_file_is_said_in_json_too(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        file = put(tmp_path, {**EXAMPLE, "id": "A"})
        assert main(["run", file, "--json"]) == 2
        document = json.loads(capsys.readouterr().out)
        assert document["status"] == 2
        assert [(item["file"], item["pointer"]) for item in document["problems"]] == [(file, "/id")]

    def test_an_invalid_file_wins_over_a_target_that_does_not_exist_yet(self, tmp_path: Path) -> None:
        assert main(["run", str(tmp_path / "missing.json"), "--target", "c"]) == 2

    def test_a_directory_without_scenarios_leaves_with_3(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["run", str(tmp_path)]) == 3
        assert "nothing could run" in capsys.readouterr().out

    def test_scenarios_of_another_profile_only_leave_with_3_unless_any_is_asked_for(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        file = put(tmp_path, OTHER)
        assert main(["run", file, "--target", "spec"]) == 3
        assert "other-profile test.other: holds for rfc-v3, the target implements spec" in capsys.readouterr().out
        assert main(["run", file, "--target", "spec", "--profile", "any"]) == 0

    def test_more_unsupported_than_allowed_leave_with_1(
        self, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("specctrl.scenario.EmulatorTarget.observes", frozenset(["ret"]))
        assert main(["run", str(folder)]) == 1
        assert "more unsupported than the 0 allowed" in capsys.readouterr().out
        assert main(["run", str(folder), "--max-unsupported", "4"]) == 3
        put(folder, scenario(id="test.plain"))
        assert main(["run", str(folder), "--max-unsupported", "4"]) == 0
        assert main(["run", str(folder), "--max-unsupported", "3"]) == 1

    def test_a_target_that_cannot_be_had_here_leaves_with_3(
        self, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PATH", "")
        monkeypatch.delenv("CC", raising=False)
        assert main(["run", str(folder), "--target", "c"]) == 3
        assert capsys.readouterr().err.startswith("specctrl: target 'c' cannot run here: ")

    def test_an_unknown_target_leaves_with_2(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["run", str(folder), "--target", "qemu"]) == 2
        assert "no target is named 'qemu'" in capsys.readouterr().err

    def test_json_is_one_object(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        put(folder, FAILING)
        assert main(["run", str(folder), "--json"]) == 1
        document = json.loads(capsys.readouterr().out)
        assert document["counts"] == {"pass": 4, "fail": 1, "unsupported": 0, "other-profile": 0}
        assert [item["result"] for item in document["results"]] == ["pass", "fail", "pass", "pass", "pass"]

    def test_junit_is_written_beside_the_text(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["run", str(folder), "--junit", str(folder / "report.xml")]) == 0
        assert ElementTree.parse(folder / "report.xml").getroot().get("tests") == "4"
        assert "4 pass" in capsys.readouterr().out

    def test_a_junit_file_that_cannot_be_written_leaves_with_2(self, folder: Path) -> None:
        assert main(["run", str(folder), "--junit", str(folder / "no" / "report.xml")]) == 2

    @pytest.mark.parametrize("arguments", [
        ["--json", "--junit", "x"], ["--profile", "spec"], ["--max-unsupported", "-1"], ["--max-unsupported", "many"]])
    def test_a_wrong_command_line_leaves_with_2(self, folder: Path, arguments: list[str]) -> None:
        with pytest.raises(SystemExit) as caught:
            main(["run", str(folder), *arguments])
        assert caught.value.code == 2

    def test_plain_goes_with_an_adapter_only(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["run", str(folder), "--plain"]) == 2
        assert "--plain goes with --target cmd:PROGRAM only" in capsys.readouterr().err

    @pytest.mark.parametrize("plain", [[], ["--plain"]], ids=["json", "plain"])
    def test_an_adapter_runs_all_of_them(
        self, folder: Path, plain: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("PYTHONPATH", str(SOURCES))
        assert main(["run", str(folder), "--target", adapter("emulator.py", *plain), *plain]) == 0
        assert "4 pass" in capsys.readouterr().out

    def test_an_adapter_may_leave_any_number_unsupported(
        self, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        target = adapter("scripted.py", '{"unsupported": "this one"}')
        file = put(folder, scenario(id="test.plain"))
        assert main(["run", str(folder / "cap.enable-after-vcpu.json"), "--target", target]) == 3
        assert main(["run", str(folder / "cap.enable-after-vcpu.json"), file, "--target", target]) == 0
        assert "1 pass, 0 fail, 1 unsupported" in capsys.readouterr().out
        assert main(["run", file, "--target", target, "--max-unsupported", "0"]) == 1

    def test_a_broken_adapter_leaves_with_1_and_the_rest_is_counted_as_not_run(
        self, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        target = adapter("scripted.py", "{}", "{}", '{"errno": "EINVAL"}', "{}", '{"ret": 1}', "garbage")
        assert main(["run", str(folder), "--target", target]) == 1
        lines = capsys.readouterr().out.splitlines()
        assert lines[-2] == "4 scenarios: 1 pass, 0 fail, 0 unsupported, 0 other-profile, 3 not-run"
        assert lines[-1].endswith(
            f'the answer was "garbage", in {folder}/test.filtered.json, /steps/1, enable_cap')

    def test_an_adapter_that_ends_badly_leaves_with_1_though_everything_passed(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        file = put(tmp_path, scenario(id="test.plain"))
        assert main(["run", file, "--target", adapter("scripted.py", "@status")]) == 1
        assert "ended with status 3 after its last answer" in capsys.readouterr().out

    def test_a_scenario_s_own_profile_chooses_the_emulator(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["run", put(tmp_path, OTHER), put(tmp_path, EXAMPLE), "--json"]) == 0
        results = json.loads(capsys.readouterr().out)["results"]
        assert [(item["profile"], item["target"]) for item in results] == [("rfc-v3", "rfc-v3"), ("spec", "spec")]

    def test_a_profile_without_an_emulator_is_unsupported(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        variants = {"spec": specctrl.machine.VARIANTS["spec"]}
        monkeypatch.setattr("specctrl.scenario.running.VARIANTS", variants)
        assert main(["run", put(tmp_path, OTHER)]) == 1
        printed = capsys.readouterr().out
        assert "unsupported   test.other: this version has no emulator of the profile rfc-v3" in printed


class TestDecode:
    """specctrl decode."""

    def test_a_value_is_a_table_of_fields_and_the_bits_that_none_describes(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["decode", "IA32_SPEC_CTRL", "0x8000000000000401"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == "IA32_SPEC_CTRL (MSR 0x48) = 0x8000000000000401"
        assert [line.split()[:3] for line in lines if re.match(r"\d+ .* 1 ", line)] == [
            ["0", "IBRS", "1"], ["10", "BHI_DIS_S", "1"]]
        assert lines[-1] == "bits set that no field describes: 63 (0x8000000000000000)"

    def test_an_msr_may_be_a_number_and_a_name_in_any_case(self, capsys: pytest.CaptureFixture[str]) -> None:
        for name in ("0x50000002", "1342177282", "msr_virtual_mitigation_ctrl"):
            assert main(["decode", name, "3"]) == 0
            assert capsys.readouterr().out.startswith("MSR_VIRTUAL_MITIGATION_CTRL (MSR 0x50000002) = 0x3\n")

    def test_a_field_of_many_bits_is_shown_in_hex(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["decode", "IA32_SPEC_CTRL_MASK", "0x400"]) == 0
        assert "63:0  MASK   0x400" in capsys.readouterr().out

    def test_json_has_the_fields_and_the_reserved_bits(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["decode", "IA32_SPEC_CTRL", "0x201", "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert (document["register"], document["number"], document["value"]) == ("IA32_SPEC_CTRL", "0x48", "0x201")
        assert (document["fields"]["IBRS"], document["fields"]["STIBP"]) == ("0x1", "0x0")
        assert document["reserved"] == "0x200"

    @pytest.mark.parametrize(("arguments", "reason"), [
        (["SPEC_CTR", "1"], "no register is named 'SPEC_CTR'; did you mean \"IA32_SPEC_CTRL\"?"),
        (["0x49", "1"], "no MSR 0x49 is described here"),
        (["0x48", "one"], "'one' is not a number such as 0x401"),
        (["0x48", "0x10000000000000000"], "does not fit the 64 bits of IA32_SPEC_CTRL"),
        (["CPUID.(7,0):EDX", "0x100000000"], "does not fit the 32 bits"),
    ])
    def test_what_cannot_be_decoded_leaves_with_2(
        self, arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["decode", *arguments]) == 2
        assert reason in capsys.readouterr().err


RULE = Rule("cap.enable.before-vcpus", "posted", "RFC v3 p1", "", "mechanism", ("specctrl.kvm.vm.Vm.enable_cap",),
            "KVM MUST refuse it.", "spec/cap.md", 12)
REPAIRED = Rule("mask.write", "repaired", "RFC v3 p9", "D1", "mechanism", ("a.b", "c.d"), "It MUST be written.",
                "spec/mask.md", 3)


class TestRules:
    """specctrl rules."""

    @pytest.fixture(autouse=True)
    def _two_rules(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("specctrl.cli.load_rules", lambda: {rule.id: rule for rule in (RULE, REPAIRED)})

    @pytest.mark.parametrize("arguments", [[], ["list"]])
    def test_a_rule_is_a_line(self, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["rules", *arguments]) == 0
        assert capsys.readouterr().out.splitlines() == [
            "id                       status    rule",
            "cap.enable.before-vcpus  posted    KVM MUST refuse it.",
            "mask.write               repaired  It MUST be written."]

    def test_one_rule_is_shown_in_full(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["rules", "show", "mask.write"]) == 0
        assert capsys.readouterr().out.splitlines() == [
            "mask.write", "  It MUST be written.", "status  repaired", "layer   mechanism", "source  RFC v3 p9",
            "defect  D1", "code    a.b, c.d", "page    spec/mask.md:3"]

    def test_json_is_a_list_or_the_one(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["rules", "--json"]) == 0
        assert [rule["id"] for rule in json.loads(capsys.readouterr().out)] == [RULE.id, REPAIRED.id]
        assert main(["rules", "show", "mask.write", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["code"] == ["a.b", "c.d"]

    @pytest.mark.parametrize(("arguments", "reason"), [
        (["show", "mask.writes"], "no rule has the id 'mask.writes'; did you mean \"mask.write\"?"),
        (["show"], "specctrl rules show ID"),
        (["list", "mask.write"], "an ID goes with show only"),
    ])
    def test_a_rule_that_does_not_exist_leaves_with_2(
        self, arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["rules", *arguments]) == 2
        assert reason in capsys.readouterr().err

    def test_a_page_with_an_error_leaves_with_2(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def broken() -> dict[str, Rule]:
            raise RuleError("spec/cap.md:3: rule 'x': not an id")
        monkeypatch.setattr("specctrl.cli.load_rules", broken)
        assert main(["rules"]) == 2
        assert capsys.readouterr().err == "specctrl: spec/cap.md:3: rule 'x': not an id\n"


def test_no_rules_are_no_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("specctrl.cli.load_rules", dict)
    assert main(["rules"]) == 0
    assert capsys.readouterr().out == ""


class TestParts:
    """specctrl parts."""

    def test_every_part_is_a_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["parts"]) == 0
        assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["part", *PARTS]

    def test_json_has_them_too(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["parts", "--json"]) == 0
        assert [part["part"] for part in json.loads(capsys.readouterr().out)] == list(PARTS)


class TestCommand:
    """The command as a whole."""

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([sys.executable, "-m", "specctrl.cli", *arguments], capture_output=True, text=True,
                              env={"PYTHONPATH": str(SOURCES)}, timeout=60, check=False)

    def test_without_a_command_it_prints_help_and_leaves_with_2(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main([]) == 2
        assert "specctrl run vectors" in capsys.readouterr().out

    def test_it_knows_its_version(self) -> None:
        assert self.run("--version").stdout == f"specctrl {specctrl.__version__}\n"

    @pytest.mark.parametrize("command", ["run", "decode", "rules", "parts"])
    def test_every_command_has_help_with_examples(self, command: str) -> None:
        text = self.run(command, "--help").stdout
        assert f"  specctrl {command}" in text
        assert max(map(len, text.splitlines())) <= 110

    def test_a_scenario_s_failure_is_its_status(self, tmp_path: Path) -> None:
        assert self.run("run", put(tmp_path, FAILING)).returncode == 1

    def test_a_reader_that_has_had_enough_is_no_error(self, tmp_path: Path) -> None:
        long = "n" * 200
        for number in range(300):
            put(tmp_path, {**EXAMPLE, "id": f"test.{long}{number:03}"})
        shell = f"{shlex.quote(sys.executable)} -m specctrl.cli run {shlex.quote(str(tmp_path))} | head -n 1"
        done = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, timeout=60, check=False,
                              env={"PYTHONPATH": str(SOURCES), "PATH": "/usr/bin:/bin"})
        assert (done.stdout, done.stderr) == (f"pass          test.{long}000\n", "")

    def test_an_interruption_is_no_traceback(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        def interrupted(*_: object) -> None:
            raise KeyboardInterrupt
        monkeypatch.setattr("specctrl.cli.run", interrupted)
        assert main(["run", put(tmp_path, EXAMPLE)]) == 130


class TestEvidence:
    """``specctrl evidence``: what shows each rule."""

    @pytest.fixture(autouse=True)
    def made(self, monkeypatch: pytest.MonkeyPatch) -> Evidence:
        """What is gathered elsewhere: nothing, but for one rule."""
        rules = load_rules()
        shown = {id: Shown() for id in rules}
        shown["force.zeros-too"] = Shown(
            [Example("spec/page.md", 7, "shows-force.zeros-too")], ["entry.force-to-zero.list"], ["claim_name"],
            idle=["spec/page.md:9"], broken_by={"spec/page.md:7": "words:merge:swap-bits:1"}, noticed={"mutants": 3})
        evidence = Evidence(rules, shown, {"claims": {}}, {"properties": {}, "violations": {}})
        monkeypatch.setattr("specctrl.records.gather", lambda *_: evidence)
        monkeypatch.setattr(Evidence, "complaints", lambda self: [("", "nothing shows the rule 'a.b'")] * self.red)
        monkeypatch.setattr(Evidence, "red", 0, raising=False)
        return evidence

    def test_a_rule_is_listed_with_what_shows_it(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["evidence", "force.zeros-too"]) == 0
        assert capsys.readouterr().out.splitlines() == [
            "example   spec/page.md:7  breaks on words:merge:swap-bits:1",
            "scenario  entry.force-to-zero.list",
            "claim     claim_name  (specctrl prove --claim claim_name)",
            "no        spec/page.md:9  executes none of its code",
            "mutants   3 mutants",
        ]

    def test_all_of_it_as_json(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["evidence", "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert (document["schema"], document["complaints"]) == ("specctrl/evidence/1", [])
        assert document["rules"]["force.zeros-too"]["claims"] == ["claim_name"]

    def test_an_unknown_rule_leaves_with_2(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["evidence", "no.such-rule"]) == 2
        assert "no rule has the id 'no.such-rule'" in capsys.readouterr().err

    def test_a_complaint_leaves_with_1(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(Evidence, "red", 1)
        assert main(["evidence"]) == 1
        assert "nothing shows the rule 'a.b'" in capsys.readouterr().err

    def test_evidence_that_fails_leaves_with_2(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def fails(*_: object) -> None:
            raise EvidenceError("spec/page.md:7: the cell raises AssertionError()")

        monkeypatch.setattr("specctrl.records.gather", fails)
        assert main(["evidence"]) == 2
        assert "spec/page.md:7: the cell raises" in capsys.readouterr().err
