"""The command line: what it prints and the status that it leaves with."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import specctrl
from scenario_samples import EXAMPLE, put, scenario, see, write
from specctrl.cli.main import main
from specctrl.model.parts import PARTS
from specctrl.rules import Rule, RuleError

SOURCES = Path(__file__).parents[2] / "src"
FAILING = scenario(write("0x1"), see(effective="0x2"), id="test.failing")


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


RULE = Rule("cap.enable.before-vcpus", "posted", "RFC v3 p1", "", "mechanism", ("specctrl.model.kvm.vm.Vm.enable_cap",),
            "KVM MUST refuse it.", "spec/cap.md", 12)
REPAIRED = Rule("mask.write", "repaired", "RFC v3 p9", "D1", "mechanism", ("a.b", "c.d"), "It MUST be written.",
                "spec/mask.md", 3)


class TestRules:
    """specctrl rules."""

    @pytest.fixture(autouse=True)
    def _two_rules(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("specctrl.cli.lookup.load_rules", lambda: {rule.id: rule for rule in (RULE, REPAIRED)})

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
        monkeypatch.setattr("specctrl.cli.lookup.load_rules", broken)
        assert main(["rules"]) == 2
        assert capsys.readouterr().err == "specctrl: spec/cap.md:3: rule 'x': not an id\n"


def test_no_rules_are_no_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("specctrl.cli.lookup.load_rules", dict)
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
        monkeypatch.setattr("specctrl.cli.run.run", interrupted)
        assert main(["run", put(tmp_path, EXAMPLE)]) == 130
