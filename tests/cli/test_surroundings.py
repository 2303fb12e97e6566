"""Commands in bad surroundings: signals, closed and full outputs, no home, no room; nothing is left or half written."""

import os
import resource
import shlex
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from commands import ROOT, SECONDS, ended, of_session, started
from scenario_samples import put, scenario, see, write
from specctrl.cli.main import main

HANGS = f"cmd:{shlex.join([sys.executable, '-c', 'import time; time.sleep(321)'])}"
LONG: dict[str, list[str]] = {
    "run": ["run", "--target", HANGS],
    "lockstep": ["lockstep", "--target", HANGS],
    "explore": ["explore", "--jobs", "1", "--pairs", "all", "--bits", "IBRS,STIBP,SSBD,RRSBA_DIS_S,BHI_DIS_S"],
    "explore, two": ["explore", "--jobs", "2"],
    "prove": ["prove", "--jobs", "2"],
    "mutants": ["mutants", "--sample", "50", "--jobs", "2"],
    "processor": ["processor", "--on", "bochs", "--sequences", "100000"],
    "vectors": ["vectors", "generate", "--check"],
}
"""Commands that take long."""
STARTS_PROCESSES = ("run", "lockstep", "explore, two", "prove", "mutants", "processor")
SIGNALS = [(command, signal.SIGINT, True) for command in LONG] + [
    ("explore, two", signal.SIGINT, False), ("explore, two", signal.SIGTERM, False), ("prove", signal.SIGTERM, False)]


def begun(process: subprocess.Popen[str], children: bool) -> None:
    """Wait until a command works, on processes of its own if it has any."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        used = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        if len(of_session(process.pid)) > 1 if children else int(used[11]) > 60:  # of processor time, in hundredths
            time.sleep(0.3)
            return
        time.sleep(0.05)
    assert process.poll() is None, f"it ended: {process.communicate()}"


@pytest.mark.parametrize(("command", "number", "to_all"), SIGNALS)
def test_a_signal_ends_a_command_and_all_its_processes(command: str, number: signal.Signals, to_all: bool) -> None:
    """^C goes to all processes of a terminal's group; kill to one."""
    if command == "mutants" and os.environ.get("SPECCTRL_SLOW") != "1":
        pytest.skip("making the mutants takes long: SPECCTRL_SLOW=1")
    if command == "processor" and find_spec("bochscpu") is None:
        pytest.skip("needs bochscpu-python")
    process = started(*LONG[command])
    try:
        begun(process, children=command in STARTS_PROCESSES)
        (os.killpg if to_all else os.kill)(process.pid, number)
        _, err = process.communicate(timeout=SECONDS)
    except BaseException:
        for left in of_session(process.pid):
            os.kill(left, signal.SIGKILL)
        raise
    assert process.returncode == 128 + number, err
    assert "Traceback" not in err
    deadline = time.monotonic() + 20
    while (left := of_session(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == {}


def test_workers_do_not_outlive_a_command_that_is_killed() -> None:
    process = started("explore", "--jobs", "2")
    begun(process, children=True)
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 20
    while (left := of_session(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == {}


def test_an_interrupt_while_the_commands_are_imported_says_nothing() -> None:
    code = """
import os, signal, sys
class Interrupts:
    def find_spec(self, name, path, target=None):
        if name == "specctrl.cli.explore":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupts())
sys.argv = ["specctrl", "parts"]
from specctrl.cli.script import script
script()
"""
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
                          text=True, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_before_its_script_runs_nothing_is_imported_that_takes_time() -> None:
    code = "import sys, specctrl.cli.script; print(sorted(each for each in sys.modules if each.startswith('specctrl')))"
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
                          text=True, capture_output=True, check=True)
    assert done.stdout == "['specctrl', 'specctrl.cli', 'specctrl.cli.script']\n"


class TestNumbers:
    """How much may be asked for."""

    @pytest.mark.parametrize("command", [["explore"], ["prove"], ["mutants"]])
    @pytest.mark.parametrize("jobs", ["0", "-1", "1000000", "\u0661", "1_0", "x", "9" * 5000])
    def test_processes_are_as_many_as_the_machine_can_bear(
        self, command: list[str], jobs: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit) as left:
            main([*command, "--jobs", jobs])
        assert left.value.code == 2
        assert "argument --jobs: " in capsys.readouterr().err

    def test_a_version_is_in_ordinary_digits(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["vectors", "--folder", str(tmp_path), "release", "\u0661.0.0"]) == 2
        assert "is not a version" in capsys.readouterr().err


class TestOutput:
    """Standard output and files that cannot be written."""

    @pytest.mark.parametrize("command", [["parts"], ["rules"], ["run", "vectors/cap"], ["export", "selftest"]])
    def test_a_full_device_is_said(self, command: list[str]) -> None:
        with open("/dev/full", "w") as full:
            status, _, err = ended(*command, cwd=ROOT, stdout=full)
        assert (status, err) == (2, "specctrl: standard output cannot be written: No space left on device\n")

    @pytest.mark.parametrize("command", [["parts"], ["run", "vectors/cap"]])
    def test_a_closed_output_is_said_before_anything_is_done(self, command: list[str]) -> None:
        line = shlex.join([sys.executable, "-m", "specctrl.cli", *command])
        done = subprocess.run(["sh", "-c", f"{line} >&-"], cwd=ROOT, text=True, capture_output=True, check=False,
                              env={**os.environ, "PYTHONPATH": str(ROOT / "src")})
        assert (done.returncode, done.stderr) == (2, "specctrl: standard output is closed\n")

    def test_what_is_said_to_a_closed_error_stream_does_not_go_to_the_other(self) -> None:
        line = shlex.join([sys.executable, "-m", "specctrl.cli", "run", "nowhere"])
        done = subprocess.run(["sh", "-c", f"{line} 2>&-"], cwd=ROOT, text=True, capture_output=True, check=False,
                              env={**os.environ, "PYTHONPATH": str(ROOT / "src")})
        assert (done.returncode, done.stdout) == (2, "")

    @pytest.mark.parametrize(("command", "name"), [
        (["export", "vectors"], "old.tar"), (["export", "vectors"], "old.tar.gz"), (["export", "selftest"], "old.c"),
        (["run", "vectors/cap", "--junit"], "old.xml")])
    def test_a_file_that_has_no_room_leaves_the_old_one_whole(
        self, command: list[str], name: str, tmp_path: Path
    ) -> None:
        old = tmp_path / name
        old.write_text("old")

        status, _, err = self.without_room(*command, str(old))
        assert (status, err) == (2, f"specctrl: {old} cannot be written: File too large\n")
        assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [(name, "old")]

    def test_a_folder_is_exported_whole_or_not_at_all(self, tmp_path: Path) -> None:
        status, _, err = self.without_room("export", "vectors", str(tmp_path / "new"))
        assert (status, err) == (2, f"specctrl: {tmp_path / 'new'} cannot be written: File too large\n")
        assert list(tmp_path.iterdir()) == []
        (tmp_path / "empty").mkdir()
        assert ended("export", "vectors", str(tmp_path / "empty"))[0] == 0
        assert (tmp_path / "empty" / "index.json").is_file()

    def without_room(self, *command: str) -> tuple[int, str, str]:
        """The command where no file grows beyond some bytes."""
        line = shlex.join([sys.executable, "-B", "-m", "specctrl.cli", *command])
        done = subprocess.run(line, shell=True, cwd=ROOT, text=True, capture_output=True, check=False,
                              preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000)),
                              env={**os.environ, "PYTHONPATH": str(ROOT / "src")})
        return done.returncode, done.stdout, done.stderr

    def test_a_folder_that_cannot_be_written_is_said(
        self, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Root can write anywhere, and so is somebody else for a moment."""
        file = put(tmp_path_factory.mktemp("scenarios"), scenario(id="test.plain"))
        read_only = "/usr" if os.getuid() == 0 else "/"
        try:
            scenarios = Path(file).read_text()
            if os.getuid() == 0:
                os.seteuid(65534)
            status = main(["export", "selftest", f"{read_only}/x.c"])
        finally:
            os.seteuid(os.getuid())
        assert (status, scenarios != "") == (2, True)
        assert capsys.readouterr().err == f"specctrl: {read_only}/x.c cannot be written: Permission denied\n"


SURROUNDINGS: dict[str, dict[str, Any]] = {
    "no home": {"env": {"HOME": None, "XDG_CACHE_HOME": None}},
    "a plain locale": {"env": {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}},
    "without assertions": {"flags": ("-O",)},
    "warnings are errors": {"flags": ("-W", "error")},
    "no path": {"env": {"PATH": ""}},
}


@pytest.mark.parametrize("surroundings", SURROUNDINGS)
@pytest.mark.parametrize(("command", "status"), [
    (["run"], 1), (["rules", "show", "exit.host-restored"], 0), (["export", "selftest"], 0),
    (["explore", "--depth", "1"], 0)])
def test_surroundings_change_neither_status_nor_what_is_said(
    surroundings: str, command: list[str], status: int, tmp_path: Path
) -> None:
    if command == ["run"]:
        wrong = scenario(write("0x1"), see(effective="0x2"), id="test.wrong", title="Gr\u00f6\u00dfe")
        command = ["run", put(tmp_path, wrong)]
    found, out, err = ended(*command, **SURROUNDINGS[surroundings])
    usual = ended(*command)
    if surroundings == "a plain locale":
        usual = (usual[0], usual[1].encode("ascii", "backslashreplace").decode(), usual[2])
    assert (found, out, err) == usual
    assert found == status


def test_a_folder_that_is_gone_is_said(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    code = "import os, sys; os.rmdir(os.getcwd()); from specctrl.cli.main import main; sys.exit(main(sys.argv[1:]))"

    def said(*arguments: str) -> tuple[int, str]:
        gone.mkdir(exist_ok=True)
        done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=gone, text=True, capture_output=True,
                              env={**os.environ, "PYTHONPATH": str(ROOT / "src")}, check=False)
        return done.returncode, done.stderr

    assert said("run", "x.json") == (2, "x.json: #: cannot be read: No such file or directory\n")
    assert said("export", "vectors", "x.tar") == (2, "specctrl: x.tar cannot be written: No such file or directory\n")
    assert said("export", "vectors", "x") == (2, "specctrl: x cannot be written: No such file or directory\n")
    assert said("run", "--junit", "x") == (2, "specctrl: x cannot be written: No such file or directory\n")


@pytest.mark.parametrize("text", [
    "", "{", "[]", "null", '{"released": {}}', '{"released": [], "withdrawn": {}}', '{"released": {}, "withdrawn": []}',
    '{"released": {"a": 1}, "withdrawn": {}}', '{"released": {"a": {"sha256": 1, "version": "1"}}, "withdrawn": {}}',
    '{"released": {"a": {"sha256": "", "version": ""}}, "withdrawn": {"a": []}}', "[" * 100_000, "\xff"])
@pytest.mark.parametrize("command", [["check"], ["release", "0.1.0"], ["new", "test.new"]])
def test_a_broken_manifest_is_said(
    text: str, command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "RELEASED.json").write_text(text, "latin-1")
    assert main(["vectors", "--folder", str(tmp_path), *command]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"{tmp_path}/RELEASED.json: #")
    assert [each.name for each in tmp_path.iterdir()] == ["RELEASED.json"]
