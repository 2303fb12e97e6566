"""``specctrl run``: what it prints and the status that it leaves with."""

import json
import shlex
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from scenario_samples import EXAMPLE, SAMPLES, put, scenario, see, write
from specctrl.cli.main import main
from specctrl.model.variants import VARIANTS

ADAPTERS = Path(__file__).parents[1] / "adapters"
ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "src"
FAILING = scenario(write("0x1"), see(effective="0x2"), id="test.failing")
OTHER = scenario(id="test.other", profile="rfc-v3")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory with the samples."""
    for sample in SAMPLES:
        put(tmp_path, sample)
    return tmp_path


def adapter(name: str, *arguments: str) -> str:
    return "cmd:" + shlex.join([sys.executable, str(ADAPTERS / name), *arguments])


class TestRun:
    """specctrl run."""

    def test_passing_scenarios_leave_with_0_and_are_counted(
        self, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["run", str(folder)]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == "pass          test.nested"
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
        printed = capsys.readouterr().out
        assert "more unsupported than the 0 allowed" in printed
        assert "4 scenarios: 0 pass, 2 partly, 0 fail, 2 unsupported" in printed
        assert "not seen: level, in 1 that passed partly" in printed
        one = str(folder / "cap.enable-after-vcpu.json")
        assert main(["run", one, "--max-unsupported", "1"]) == 3
        assert main(["run", str(folder), "--max-unsupported", "2"]) == 0
        assert main(["run", str(folder), "--max-unsupported", "1"]) == 1

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
        assert [item["result"] for item in document["results"]] == ["fail", "pass", "pass", "pass", "pass"]

    def test_they_come_by_level_and_the_shortest_first(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        wrong = see(effective="0x2")
        for id, steps in (("a", [{"op": "smi"}, wrong]), ("b", [write("0x1"), write("0x1"), wrong]), ("c", [wrong])):
            put(tmp_path, scenario(*steps, id=f"test.{id}"))
        assert main(["run", str(tmp_path)]) == 1
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[1] for line in lines if line.startswith("fail ")] == ["test.c", "test.b", "test.a"]
        assert lines[-3:-1] == ["failed, level processor, shortest first: test.c, test.b",
                                "failed, level nested, shortest first: test.a"]

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
        one, file = put(folder, scenario(id="test.one")), put(folder, scenario(id="test.plain"))
        assert main(["run", one, "--target", target]) == 3
        assert main(["run", one, file, "--target", target]) == 0
        assert "1 pass, 0 fail, 1 unsupported" in capsys.readouterr().out
        assert main(["run", file, "--target", target, "--max-unsupported", "0"]) == 1

    @pytest.mark.parametrize(("how", "why"), [
        ("@die", "ended with status 7 instead of answering"), ("garbage", "answered nonsense: not JSON"),
        ('{"value": "many"}', "answered nonsense: value:")])
    def test_a_broken_adapter_is_started_again_one_failure_is_counted_and_the_rest_goes_on(
        self, tmp_path: Path, how: str, why: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        script = 'import os, sys; answers = ["{}", "{}", sys.argv[1]]\n' \
                 'for line in sys.stdin:\n' \
                 '    crash = "0x7" in line\n' \
                 '    if crash and sys.argv[1] == "@die": sys.exit(7)\n' \
                 '    print(sys.argv[1] if crash else "{}", flush=True)'
        for id, value in (("a", "0x1"), ("b", "0x7"), ("c", "0x1")):
            put(tmp_path, scenario(write(value), id=f"test.{id}"))
        target = "cmd:" + shlex.join([sys.executable, "-c", script, how])
        assert main(["run", str(tmp_path), "--target", target]) == 1
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[:2] for line in lines if "  test." in line] == [
            ["pass", "test.a"], ["fail", "test.b"], ["pass", "test.c"]]
        assert "step 2 (/steps/1) wrmsr: " in lines[2]
        assert why in lines[2]
        assert lines[-1] == "3 scenarios: 2 pass, 1 fail, 0 unsupported, 0 other-profile"

    def test_ten_scenarios_in_a_row_that_break_it_end_the_run(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for number in range(12):
            put(tmp_path, scenario(write("0x1"), id=f"test.number-{number}"))
        assert main(["run", str(tmp_path), "--target", adapter("scripted.py", "{}", "{}", "@die")]) == 1
        lines = capsys.readouterr().out.splitlines()
        assert lines[-2] == "12 scenarios: 0 pass, 10 fail, 0 unsupported, 0 other-profile, 2 not-run"
        assert lines[-1].endswith(" broke in 10 scenarios in a row")

    def test_an_adapter_that_nobody_can_speak_to_ends_the_run_at_once(
        self, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for target in (adapter("scripted.py", "garbage", "garbage"), "cmd:/no/such/program"):
            assert main(["run", str(folder), "--target", target]) == 1
            assert "0 fail, 0 unsupported, 0 other-profile, 4 not-run" in capsys.readouterr().out

    def test_without_a_path_the_released_scenarios_are_run(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["run", "--level", "processor", "--kind", "hand"]) == 0
        ids = {line.split()[1] for line in capsys.readouterr().out.splitlines() if line.startswith("pass ")}
        names = json.loads((ROOT / "vectors" / "RELEASED.json").read_text())["released"]
        assert "processor.masked-bit-clear" in ids
        assert ids <= names.keys()

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
        variants = {"spec": VARIANTS["spec"]}
        monkeypatch.setattr("specctrl.scenario.running.VARIANTS", variants)
        assert main(["run", put(tmp_path, OTHER)]) == 1
        printed = capsys.readouterr().out
        assert "unsupported   test.other: this version has no emulator of the profile rfc-v3" in printed
