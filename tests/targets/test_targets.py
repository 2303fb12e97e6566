"""Targets: the emulator, and programs behind the adapter protocol."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from scenario_samples import EXAMPLE, FILTERED, SAMPLES, scenario, see, write
from specctrl.scenario import EmulatorTarget, Result, TargetFailed, as_text, load, run_one
from specctrl.scenario.format import ASSUMPTIONS
from specctrl.targets import UnknownTarget, open_target
from specctrl.targets.adapter import AdapterTarget
from specctrl.targets.guest_kernels import GuestsAbove
from specctrl.targets.plain import decode, encode
from specctrl.targets.program import Program

ADAPTERS = Path(__file__).parents[1] / "adapters"
SOURCES = Path(__file__).parents[2] / "src"


def command(name: str, *arguments: str) -> str:
    return shlex.join([sys.executable, str(ADAPTERS / name), *arguments])


@pytest.fixture(autouse=True)
def _adapters_find_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(SOURCES))


def result_of(document: dict[str, Any], *answers: str, seconds: float = 5, any_profile: bool = False) -> Result:
    """What becomes of a scenario on an adapter that gives these answers."""
    target = AdapterTarget(command("scripted.py", *answers), seconds=seconds)
    try:
        return run_one(load(document), target, any_profile)
    finally:
        target.close()


TWO_STEPS = scenario(write("0x1"))


class TestNames:
    """Targets have names."""

    def test_the_emulator_of_spec_is_a_target(self) -> None:
        assert isinstance(open_target("spec"), EmulatorTarget)

    def test_any_other_name_is_unknown_and_the_message_lists_the_known_ones(self) -> None:
        known = r"no target is named 'qemu'; known: spec, rfc-v3, c, kvm, bochs, cmd:PROGRAM"
        with pytest.raises(UnknownTarget, match=known):
            open_target("qemu")

    def test_a_program_without_cmd_is_told_how_it_is_written(self) -> None:
        with pytest.raises(UnknownTarget, match=r"for a program of yours: --target 'cmd:./adapter --fast'$"):
            open_target("./adapter --fast")

    def test_cmd_is_an_adapter(self) -> None:
        target = open_target("cmd:true")
        assert isinstance(target, GuestsAbove)
        assert isinstance(target.target, AdapterTarget)


class TestForwarding:
    """An adapter that forwards to the emulator agrees with the emulator."""

    @pytest.mark.parametrize("plain", [False, True], ids=["json", "plain"])
    def test_every_sample_passes_in_one_process(self, plain: bool) -> None:
        target = AdapterTarget(command("emulator.py", *(["--plain"] if plain else [])), plain)
        results = [run_one(load(sample), target) for sample in SAMPLES]
        target.close()
        assert [(result.status, result.why) for result in results] == [("pass", "")] * len(SAMPLES)

    @pytest.mark.parametrize("plain", [False, True], ids=["json", "plain"])
    def test_a_failing_step_is_observed_as_on_the_emulator(self, plain: bool) -> None:
        wrong = load(scenario(write("0x1"), see(effective="0x2")))
        target = AdapterTarget(command("emulator.py", *(["--plain"] if plain else [])), plain)
        result = run_one(wrong, target)
        target.close()
        expected = run_one(wrong, EmulatorTarget("spec"))
        assert (result.status, result.step, result.why) == ("fail", 2, "effective: expected 0x2, observed 0x1")
        assert result.observed == expected.observed

    @pytest.mark.parametrize("plain", [False, True], ids=["json", "plain"])
    def test_misuse_and_unsupported_come_back_with_their_reason(self, plain: bool) -> None:
        kernel = {"os": "linux", "reports": True, "sequence": "short", "retpoline": False, "bhi_dis_s": "auto",
                  "spectre_bhi": "on"}
        misused = load(scenario({"op": "nested_exit"}))
        target = AdapterTarget(command("emulator.py", *(["--plain"] if plain else [])), plain)
        result = run_one(misused, target)
        booted = run_one(load(scenario({"op": "boot", "kernel": kernel})), target)
        target.close()
        assert (result.status, result.observed) == ("fail", {"misuse": "L2 does not run"})
        assert booted.status == "pass"


class TestBegin:
    """The answer to begin says what the adapter implements and sees."""

    def test_an_adapter_that_cannot_have_the_host_makes_the_scenario_unsupported(self) -> None:
        result = result_of(TWO_STEPS, '{"unsupported": "only AMD here"}')
        assert (result.status, result.step, result.why) == ("unsupported", None, "only AMD here")

    def test_a_scenario_of_a_profile_that_it_does_not_name_is_not_run(self) -> None:
        result = result_of(TWO_STEPS, '{"profiles": ["rfc-v3"]}')
        assert (result.status, result.why) == ("other-profile", "holds for spec, the target implements rfc-v3")

    def test_without_profiles_it_implements_spec(self) -> None:
        assert result_of({**TWO_STEPS, "profile": "rfc-v3"}).status == "other-profile"
        assert result_of({**TWO_STEPS, "profile": "rfc-v3"}, any_profile=True).status == "pass"

    def test_a_scenario_of_which_it_sees_nothing_is_unsupported(self) -> None:
        result = result_of(scenario(see(effective=0)), '{"observes": ["value", "fault"]}')
        assert (result.status, result.step, result.why) == ("unsupported", 1, "the target cannot observe effective")

    def test_but_what_it_shows_and_must_not_still_fails_it(self) -> None:
        document = scenario(write("0x1"), see(effective=0))
        result = result_of(document, '{"observes": ["fault"]}', "{}", '{"fault": "#GP"}')
        assert (result.status, result.step) == ("fail", 1)

    def test_what_it_cannot_observe_is_left_out_and_the_scenario_passes_partly(self) -> None:
        document = scenario(write("0x1"), see(effective=0), see(saved=0, mask=0, guest_view=0), see(mask=0))
        sees = '{"observes": ["effective", "guest_view"]}'
        result = result_of(document, sees, "{}", "{}", '{"effective": 0}', '{"guest_view": "0x0"}')
        assert (result.status, result.step, result.unseen) == ("partly", None, ("mask", "saved"))
        assert as_text(result) == "partly        test.sample: not seen: mask, saved"

    def test_what_it_can_observe_has_to_be_right(self) -> None:
        document = scenario(see(saved=0, guest_view=0))
        result = result_of(document, '{"observes": ["guest_view"]}', "{}", '{"guest_view": "0x1"}')
        assert (result.status, result.why) == ("fail", "guest_view: expected 0x0, observed 0x1")

    def test_an_outcome_that_it_cannot_observe_may_have_happened(self) -> None:
        """A refused pair shows in what stays in force, with or without errnos."""
        refused = {"op": "enable_cap", "cap": 236, "args": ["0x8"], "expect": {"errno": "EINVAL"}}
        document = scenario(refused, see(mask=0))
        for last, status in (('{"mask": "0x0"}', "partly"), ('{"mask": "0x8"}', "fail")):
            assert result_of(document, '{"observes": ["mask"]}', "{}", "{}", last).status == status

    def test_a_short_count_that_it_cannot_observe_may_have_happened(self) -> None:
        document = scenario({"op": "get_msrs", "msrs": ["0x48", "0x12345"], "expect": {"ret": 1, "values": [0]}})
        assert result_of(document, '{"observes": ["values"]}', "{}", '{"values": ["0x0"]}').status == "partly"

    def test_it_may_see_keys_of_its_own(self) -> None:
        assert result_of(TWO_STEPS, '{"observes": ["x-cycles", "effective"]}', "{}", '{"x-cycles": 7}').status == "pass"

    def test_each_scenario_begins_anew(self) -> None:
        target = AdapterTarget(command("scripted.py", '{"profiles": ["rfc-v3"]}', "{}"), seconds=5)
        statuses = [run_one(load(TWO_STEPS), target).status for _ in range(2)]
        target.close()
        assert statuses == ["other-profile", "pass"]

    def test_begin_tells_the_host_resolved(self, tmp_path: Path) -> None:
        log = tmp_path / "log"
        script = f"import sys\nfor line in sys.stdin: print('{{}}', flush=True); open({str(log)!r}, 'a').write(line)"
        target = AdapterTarget(shlex.join([sys.executable, "-c", script]))
        run_one(load({**FILTERED, "steps": FILTERED["steps"][:1], "host": {"part": "ice-lake-server"}}), target)
        target.close()
        assert log.read_text() == (
            '{"op": "begin", "host": {"part": "ice-lake-server", "features": ["SPEC_CTRL", "STIBP", "SSBD", '
            '"ARCH_CAPABILITIES"], "spec_ctrl_shadow": false, "host_spec_ctrl": "0x1", "nested": true, '
            f'"legacy_ibrs": false}}, "profile": "spec", "assume": {json.dumps(ASSUMPTIONS)}}}\n'
            '{"op": "create_vcpu", "vcpu": 0}\n')


class TestBroken:
    """A broken adapter ends the run, and the message names its answer."""

    @pytest.mark.parametrize(("answers", "reason"), [
        (["{}", "@die"], r'ended with status 7 instead of answering \{"op": "create_vcpu", "vcpu": 0\}'),
        (["@hang"], r'did not answer \{"op": "begin".*within 0.4 s'),
        (["@close"], r"closed its output instead of answering"),
        (["nonsense"], r"speaks neither JSON nor words: it answered \{.* with \"nonsense\"; in words: '\{\}' is"),
        (["[]"], r"speaks neither JSON nor words: it answered \{.* with \"\[\]\""),
        (['{"value": NaN}'], r"answered nonsense: NaN is not JSON"),
        (['{"ret": 0}'], r'answered nonsense: begin cannot be answered with "ret"'),
        (['{"observes": ["ret", "effektive"]}'],
         r'answered nonsense: observes: "effektive" is no key that can be observed; did you mean "effective"\?'),
        (['{"observes": ["everything", "ret"]}'], r'"everything" is no key that can be observed; known: errno, fault'),
        (['{"profiles": "spec"}'], r'answered nonsense: profiles: "spec" is not a list'),
        (["{}", '{"valeu": 1}'], r"answered nonsense: valeu: no step can show this"),
        (["{}", '{"value": "many"}'], r'answered nonsense: value: "many" is not a 64-bit value'),
        (["{}", '{"mask": "none"}'], r'mask: "none" is not a 64-bit value: .* or an integer, or null \(no control'),
        (["{}", '{"shadow": []}'], r'shadow: \[\] is not a 64-bit value or null'),
        (["{}\n{}"], r'said "\{\}.*" without being asked'),
        (["@bytes"], r"answered nonsense: .* is not UTF-8"),
        (["@flood"], r"answered nonsense: a line of over"),
        (["@status"], r"ended with status 3 after its last answer"),
        (["{}", "{}", "{}", "@linger"], r"did not end when its input was closed"),
        (["{}", "{}", "{}", "@afterword"], r'said "one more thing\\n" after its last answer'),
    ])
    def test_it_is_said_how_it_broke(self, answers: list[str], reason: str) -> None:
        seconds = {"@hang": 0.4, "@linger": 2}.get(answers[-1], 5)
        with pytest.raises(TargetFailed, match=reason):
            result_of(TWO_STEPS, *answers, seconds=seconds)

    def test_a_program_that_does_not_exist_cannot_be_started(self) -> None:
        for program in ("/no/such/program", "", "'half a quote"):
            with pytest.raises(TargetFailed, match="cannot be started"):
                run_one(load(EXAMPLE), AdapterTarget(program))

    def test_a_program_that_never_reads_is_said_to_have_ended(self) -> None:
        with pytest.raises(TargetFailed, match="ended with status 0 instead of answering"):
            run_one(load(EXAMPLE), AdapterTarget("true"))

    def test_a_message_longer_than_a_pipe_arrives_in_full_and_is_cut_where_it_is_named(self) -> None:
        long = load(scenario({"op": "get_msrs", "msrs": [0x48] * 50_000, "expect": {"ret": 7}}))
        counting = (
            "import sys\n"
            "for line in sys.stdin:\n"
            "    print('{\"ret\": %d}' % len(line) if 'msrs' in line else '{}', flush=True)")
        target = AdapterTarget(shlex.join([sys.executable, "-c", counting]))
        result = run_one(long, target)
        target.close()
        length = len(json.dumps(long.steps[1].message())) + 1
        assert result.why == f"ret: expected 7, observed {length}"
        with pytest.raises(TargetFailed, match=r"did not answer .{197}\.\.\. within 1 s"):
            run_one(long, AdapterTarget(shlex.join([sys.executable, "-c", _DEAF]), seconds=1))

    def test_a_hung_adapter_is_ended_with_its_children(self, tmp_path: Path) -> None:
        note = tmp_path / "child"
        script = shlex.quote(f"sleep 60 & echo $! > {note}; wait")
        with pytest.raises(TargetFailed, match="did not answer"):
            run_one(load(EXAMPLE), AdapterTarget(f"sh -c {script}", seconds=0.5))
        child = int(note.read_text())
        for _ in range(50):
            if not _alive(child):
                return
            time.sleep(0.1)
        pytest.fail("the child is alive")

    def test_null_in_words_is_the_word_null(self) -> None:
        without = scenario(see(mask=None), host="ice-lake-server")
        for word, status in (("null", "pass"), ("0x0", "fail")):
            target = AdapterTarget(command("scripted.py", "ok", "ok", f"mask={word}"), plain=True)
            assert run_one(load(without), target).status == status
            target.close()

    def test_nonsense_in_words_is_named_too(self) -> None:
        target = AdapterTarget(command("scripted.py", "what"), plain=True)
        with pytest.raises(TargetFailed, match="answered nonsense: 'what' is not key=value"):
            run_one(load(EXAMPLE), target)


_DEAF = "import sys, time; [print('{}', flush=True) for _ in range(2) if sys.stdin.readline()]; time.sleep(60)"


def _alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class TestPlain:
    """The plain form: words on a line."""

    def test_every_sample_step_is_one_line_of_words(self) -> None:
        for sample in SAMPLES:
            for step in load(sample).steps:
                line = encode(step.message())
                assert all("=" in word for word in line.split(" ")), line

    def test_lists_pairs_ranges_and_interceptions_have_commas_and_colons(self) -> None:
        lines = [encode(step.message()) for step in load(FILTERED).steps]
        assert lines[2] == "op=set_msr_filter default=allow ranges=0x50000000:3:rw:000"
        assert lines[8] == "op=set_msrs vcpu=0 msrs=0x50000002:0x0,0x50000002:0x80"
        assert lines[9] == "op=get_nested_state vcpu=0 state=a%20label"
        entry = {"op": "nested_enter", "intercept": ["0x48", {"msr": "0x10a", "read": False, "write": True}]}
        assert encode(entry) == "op=nested_enter intercept=0x48:rw,0x10a:w"
        assert encode({"ranges": [{"base": "0x1", "count": 0, "read": False, "write": False, "allow": []}]}) \
            == "ranges=0x1:0:-:"
        assert encode({"args": [], "error": True, "mask": None}) == "args= error=true mask=null"

    def test_an_empty_line_and_ok_say_that_nothing_was_shown(self) -> None:
        assert decode("") == decode("ok") == {}

    def test_an_answer_is_the_same_as_in_json(self) -> None:
        assert decode("exit.kind=rdmsr exit.msr=0x48") == {"exit": {"kind": "rdmsr", "msr": "0x48"}}
        assert decode("wrote=0x48:0x1,0x50000002:0x1 exposed=BHI overhead=") \
            == {"wrote": [["0x48", "0x1"], ["0x50000002", "0x1"]], "exposed": ["BHI"], "overhead": []}
        assert decode("fault=#GP reflected=true mask=null ret=2") \
            == {"fault": "#GP", "reflected": True, "mask": None, "ret": 2}

    def test_a_reason_is_the_rest_of_the_line(self) -> None:
        assert decode("unsupported=no nesting = here") == {"unsupported": "no nesting = here"}

    @pytest.mark.parametrize("line", ["value", "=1", "ret=1 ret=2", "exit=1 exit.kind=rdmsr", "a.b.c=1"])
    def test_anything_else_is_nonsense(self, line: str) -> None:
        with pytest.raises(ValueError, match=r"is not key=value|is given twice"):
            decode(line)


def test_the_core_does_not_need_what_a_browser_has_not() -> None:
    code = "import specctrl.scenario, specctrl.targets, sys; print({'subprocess', 'select', 'signal'} & {*sys.modules})"
    read, to = os.pipe()
    process = os.posix_spawn(sys.executable, [sys.executable, "-c", code], {"PYTHONPATH": str(SOURCES)},
                             file_actions=[(os.POSIX_SPAWN_DUP2, to, 1)])
    os.close(to)
    os.waitpid(process, 0)
    with open(read) as output:
        assert output.read() == "set()\n"


def test_a_signal_while_a_program_starts_leaves_none_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes when the process is there, and before anybody knows of it."""
    started = []

    class Interrupted(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            started.append(self.pid)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        Program("sleep 60")
    assert not _alive(started[0])
