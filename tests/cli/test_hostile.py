"""The commands against hostile programs, files and surroundings: an exact sentence and a status, and nothing left."""

import json
import os
import shlex
import signal
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from commands import ROOT, dies, ended, noted, started
from scenario_samples import put, scenario, see, write
from specctrl.cli.main import main

SCRIPTED = ROOT / "tests" / "adapters" / "scripted.py"
WRONG = scenario(write("0x1"), see(effective="0x2"), id="test.wrong")


class TestPrograms:
    """What answers no line, or the wrong ones, or does not end."""

    @pytest.mark.parametrize("command", ["run", "lockstep"])
    @pytest.mark.parametrize(("program", "said"), [
        ("", "cannot be started: no program is named"),
        ("'", "cannot be started: No closing quotation"),
        ("/no/such/program", "cannot be started"),
        ("true", "ended with status 0 instead of answering"),
        ("cat /bin/ls", "answered nonsense|speaks neither JSON nor words"),  # by what stands in its first line
        ("yes", "speaks neither JSON nor words"),
        ("sh -c 'sleep 321 &'", "ended with status 0 instead of answering"),
        ("sh -c 'read asked; head -c 3000000 /dev/zero'", "a line of over 1048576 bytes"),
    ])
    def test_it_is_said_what_it_did(self, command: str, program: str, said: str, tmp_path: Path) -> None:
        file = put(tmp_path, scenario(id="test.plain"))
        arguments = [file] if command == "run" else ["--events", "100"]
        status, out, err = ended(command, *arguments, "--target", f"cmd:{program}")
        assert status == 1
        assert any(words in (out if command == "run" else err) for words in said.split("|"))

    @pytest.mark.parametrize("end", ["exit 0", "exit 3"])
    def test_a_child_that_it_leaves_behind_is_ended_too(self, tmp_path: Path, end: str) -> None:
        note, file = tmp_path / "child", put(tmp_path, scenario(id="test.plain"))
        adapter = shlex.join([sys.executable, str(SCRIPTED)])
        script = shlex.quote(f"sleep 321 <&- & echo $! > {note}; {adapter}; {end}")
        status, _, _ = ended("run", file, "--target", f"cmd:sh -c {script}")
        assert status == (0 if end == "exit 0" else 1)
        assert dies(noted(note))

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    @pytest.mark.parametrize("command", ["run", "lockstep"])
    def test_a_signal_ends_command_and_program(self, tmp_path: Path, command: str, number: int) -> None:
        note, file = tmp_path / "program", put(tmp_path, scenario(id="test.plain"))
        script = shlex.quote(f"echo $$ > {note}; sleep 321")
        arguments = [file] if command == "run" else ["--events", "100"]
        process = started(command, *arguments, "--target", f"cmd:sh -c {script}")
        program = noted(note)
        process.send_signal(number)
        _, err = process.communicate(timeout=5)
        assert (process.returncode, err) == (128 + number, "")
        assert dies(program)

    def test_an_answer_with_many_keys_is_read_at_once(self, tmp_path: Path) -> None:
        keys = ", ".join(f'"x-{number}": 0' for number in range(40_000))
        (tmp_path / "answer").write_text(f"{{{keys}, \"x-0\": 0}}\n")
        file = put(tmp_path, scenario(id="test.plain"))
        program = f"cmd:sh -c 'read asked; cat {tmp_path / 'answer'}; cat > /dev/null'"
        begun = time.monotonic()
        status, out, _ = ended("run", file, "--target", program)
        assert status == 1
        assert "stands here twice" in out
        assert time.monotonic() - begun < 20


class TestFiles:
    """What is no scenario, cannot be read, or cannot be written."""

    def test_an_empty_path_is_no_folder(self, tmp_path: Path) -> None:
        put(tmp_path, scenario(id="test.plain"))
        status, _, err = ended("run", "", cwd=tmp_path)
        assert (status, err) == (2, ": #: an empty path names nothing\n")

    def test_a_pipe_in_a_folder_is_no_scenario(self, tmp_path: Path) -> None:
        put(tmp_path, scenario(id="test.plain"))
        os.mkfifo(tmp_path / "pipe.json")
        status, out, err = ended("run", str(tmp_path))
        assert (status, out, err) == (2, "", f"{tmp_path}/pipe.json: #: is no regular file\n")

    @pytest.fixture
    def open_folder(self) -> Iterator[Path]:
        """A folder that other users can look into."""
        with tempfile.TemporaryDirectory() as name:
            os.chmod(name, 0o755)
            yield Path(name)

    def test_a_folder_that_cannot_be_listed_is_not_passed_over(
        self, open_folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Root can list any, and so is somebody else for a moment."""
        put(open_folder, scenario(id="test.plain"))
        (open_folder / "hidden").mkdir()
        put(open_folder / "hidden", WRONG)
        os.chmod(open_folder / "hidden", 0)
        try:
            if os.getuid() == 0:
                os.seteuid(65534)
            status = main(["run", str(open_folder)])
        finally:
            os.seteuid(os.getuid())
            os.chmod(open_folder / "hidden", 0o755)
        said = f"{open_folder}/hidden: #: cannot be read: Permission denied\n"
        assert (status, *capsys.readouterr()) == (2, "", said)

    def test_links_in_a_circle_and_names_that_are_too_long(self, tmp_path: Path) -> None:
        (tmp_path / "round.json").symlink_to(tmp_path / "round.json")
        status, _, err = ended("run", str(tmp_path), "x" * 5000)
        assert status == 2
        assert "round.json: #: cannot be read: Too many levels of symbolic links" in err
        assert "cannot be read: File name too long" in err

    @pytest.mark.parametrize("step", [{"op": "get_nested_state", "state": []}, {"op": "set_nested_state", "state": {}}])
    def test_a_label_that_is_no_string_is_said(self, tmp_path: Path, step: dict[str, Any]) -> None:
        file = put(tmp_path, scenario(step, id="test.label"))
        status, _, err = ended("run", file)
        assert status == 2
        assert err.startswith(f"{file}: #/steps/1/state: ")

    def test_what_a_title_or_a_reason_says_cannot_look_like_a_result(self, tmp_path: Path) -> None:
        forged = "\x1b[2K\rpass          test.wrong\npass          test.wrong"
        file = put(tmp_path, {**WRONG, "title": forged})
        status, out, _ = ended("run", file)
        assert status == 1
        assert not {"\x1b", "\r"} & set(out)
        assert [line for line in out.splitlines() if line.startswith("pass ")] == []
        reason = json.dumps({"unsupported": forged})
        status, out, _ = ended("run", file, "--target", f"cmd:{shlex.join([sys.executable, str(SCRIPTED), reason])}")
        assert status == 3
        assert not {"\x1b", "\r"} & set(out)
        assert [line for line in out.splitlines() if line.startswith("pass ")] == []
        (tmp_path / "new\n\x1b[2K.json").write_text("[]")
        _, _, err = ended("run", str(tmp_path))
        assert err.count("\n") == 1
        assert "\x1b" not in err

    def test_a_terminal_that_cannot_show_a_title_gets_its_number(self, tmp_path: Path) -> None:
        file = put(tmp_path, {**WRONG, "title": "Gr\u00f6\u00dfe"})
        status, out, _ = ended("run", file, env={"PYTHONIOENCODING": "ascii"})
        assert status == 1
        assert r"Gr\xf6\xdfe" in out

    def test_an_old_junit_file_stays_until_the_new_one_is_whole(self, tmp_path: Path) -> None:
        file, report = put(tmp_path, scenario(id="test.plain")), tmp_path / "report.xml"
        report.write_text("old")
        note = tmp_path / "program"
        script = shlex.quote(f"echo $$ > {note}; sleep 321")
        process = started("run", file, "--junit", str(report), "--target", f"cmd:sh -c {script}")
        noted(note)
        assert report.read_text() == "old"
        process.terminate()
        process.communicate(timeout=5)
        assert report.read_text() == "old"
        report.chmod(0o640)
        assert ended("run", file, "--junit", str(report))[0] == 0
        assert "testsuite" in report.read_text()
        assert stat.S_IMODE(report.stat().st_mode) == 0o640
        assert sorted(path.name for path in tmp_path.iterdir()) == ["program", "report.xml", "test.plain.json"]
