"""Bochs' processor beside this specification's, and the modelled KVM on it.

What needs the package and a C compiler is skipped without them, with the reason.
"""

import importlib.util
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from planted_bochs import IN_SEQUENCES, KVM_FAULTS, PLANTED, KvmEntryForgets
from specctrl.cli.main import main
from specctrl.model.outcomes import Unsupported
from specctrl.model.processor import Vmcs
from specctrl.rules import load_rules
from specctrl.scenario import FAIL, PASS, UNSUPPORTED, Scenario, TargetFailed, read, run_one
from specctrl.targets import TargetMissing, open_target
from specctrl.targets.bochs import compare
from specctrl.targets.bochs.checks import CASES, NEED_CONTROL, NEED_MSR, NOT_SHOWN, Kind
from specctrl.targets.bochs.compare import Comparison
from specctrl.targets.bochs.deviations import DEVIATIONS, SHADOW_STAYS, WRITABLE, WRITABLE_FIXED
from specctrl.targets.bochs.findings import Findings, Tally
from specctrl.targets.bochs.models import MODELS, WITH_CONTROL, WITHOUT_CONTROL, WITHOUT_MSR
from specctrl.targets.bochs.processes import BochsMissing, Process, Processes, shim
from specctrl.targets.bochs.processor import PERFORMED, BochsProcessor, BochsVmcs, bound
from specctrl.targets.bochs.recorded import SEED, SEQUENCES, record, recorded, results
from specctrl.targets.bochs.sequences import sequence
from specctrl.targets.bochs.target import BochsTarget, HostProcessor
from specctrl.targets.lockstep import ABOVE, history
from specctrl.targets.plain import encode

VECTORS = Path(__file__).resolve().parents[2] / "vectors"


def _why_not() -> str | None:
    try:
        shim()
    except BochsMissing as missing:
        return str(missing)
    return None


WHY = _why_not()
live = pytest.mark.skipif(WHY is not None, reason=f"nothing ran on Bochs' processor: {WHY}")


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    found = Processes()
    yield found
    found.close()


def by_name(planted: object) -> str:
    return planted.__name__ if isinstance(planted, type) else str(planted)


@live
class TestRules:
    """Every rule of the chapter, on every model."""

    @pytest.mark.parametrize("model", MODELS)
    def test_a_model_shows_what_is_expected_and_every_deviation_declared_for_it(
        self, processes: Processes, model: str
    ) -> None:
        findings = processes.compare(model, seed=1, sequences=20)
        assert [] == findings.undeclared
        assert {one.name for one in DEVIATIONS if model in one.models} == set(findings.seen)
        assert [] == findings.unseen

    @pytest.mark.parametrize(
        ("planted", "rule", "model"), sorted(PLANTED, key=lambda one: one[0].__name__), ids=by_name)
    def test_a_planted_fault_fails_the_check_of_its_rule(
        self, processes: Processes, planted: type[BochsProcessor], rule: str, model: str
    ) -> None:
        seen = {one.name: 0 for one in DEVIATIONS}
        assert Comparison(processes.of(model), measured=planted).rule(rule, seen).undeclared

    @pytest.mark.parametrize("planted", IN_SEQUENCES, ids=by_name)
    def test_random_sequences_see_a_planted_fault(
        self, processes: Processes, planted: type[BochsProcessor]
    ) -> None:
        comparison = Comparison(processes.of(WITH_CONTROL), measured=planted)
        assert comparison.random(SEED, 8, {SHADOW_STAYS.name: 0}).undeclared

    @pytest.mark.parametrize("model", MODELS)
    def test_no_model_has_the_control_for_want_of_which_rules_have_no_cases(
        self, processes: Processes, model: str
    ) -> None:
        assert {"processor.load.entry", "processor.load.saved", "processor.load.merged-by-software"} == set(NOT_SHOWN)
        assert 0 == processes.of(model).ask(["describe"])[0]["entry_controls"] & 1 << 24
        with pytest.raises(Unsupported, match="no model of Bochs offers the VM-entry control"):
            bound(BochsProcessor, processes)(WRITABLE, True, True, has_entry_load=True)

    def test_a_difference_that_is_not_declared_fails(self, processes: Processes) -> None:
        undeclared = Comparison(processes.of(WITH_CONTROL), deviations=[WRITABLE_FIXED])
        tally = undeclared.rule("processor.wrmsr.shadow-unmodified", {})
        assert (54, 0, 242) == (tally.same, tally.declared, len(tally.undeclared))
        assert tally.undeclared[0] == "after guest wrmsr 0x0: Bochs shows shadow 0x1 instead of 0x0"

    def test_a_declared_difference_that_is_no_longer_seen_fails(
        self, processes: Processes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rule = "processor.wrmsr.shadow-unmodified"
        monkeypatch.setattr(compare, "CASES", {rule: CASES[rule]})

        class Mended(BochsProcessor):
            def wrmsr_in_guest(self, vmcs: Vmcs, source: int) -> None:
                super().wrmsr_in_guest(vmcs, source)
                if vmcs.virtualize_spec_ctrl:
                    self.write_shadow(vmcs, source)

        findings = Comparison(processes.of(WITH_CONTROL), measured=Mended).findings(seed=0, sequences=0)
        assert [SHADOW_STAYS.name] == findings.unseen
        assert 242 == len(findings.rules[rule].undeclared)
        assert not findings.passed
        declared_away = Comparison(processes.of(WITH_CONTROL), deviations=[], measured=Mended)
        assert declared_away.findings(seed=0, sequences=0).passed

    def test_a_deviation_that_a_model_does_not_have_is_not_seen(
        self, processes: Processes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(compare, "CASES", {"processor.root.real-msr": CASES["processor.root.real-msr"]})
        findings = Comparison(processes.of(WITHOUT_CONTROL)).findings(seed=0, sequences=0)
        assert findings.passed
        findings.seen[SHADOW_STAYS.name] = 0
        assert not findings.passed
        assert f"declared deviation {SHADOW_STAYS.name}: NOT SEEN" in findings.as_text()


class TestCases:
    """What is asked."""

    def test_every_rule_of_the_chapter_has_cases(self) -> None:
        chapter = {id for id, rule in load_rules().items() if rule.page.endswith("processor.md")}
        assert chapter == set(CASES) | set(NOT_SHOWN)
        assert not set(CASES) & set(NOT_SHOWN)
        assert set(CASES) > NEED_CONTROL | NEED_MSR

    @pytest.mark.parametrize("rule", CASES)
    def test_every_bit_of_the_word_is_in_the_cases_of_a_rule(self, rule: str) -> None:
        cases = list(CASES[rule](Kind(has_msr=True, has_control=True, has_exit_load=True, takes=WRITABLE)))
        words = [word for case in cases for word in (
            case.msr, case.mask, case.shadow, case.host, case.fields.get("entry_load_value", 0), *(
                step.value for step in case.steps))]
        every = {1 << place for place in range(64)}
        looks_at_no_word = rule == "processor.entry.control-checked"
        refused_ends_in_an_abort = rule == "processor.areas.real-msr+2"
        bits = set() if looks_at_no_word else every & {bit & WRITABLE for bit in every} \
            if refused_ends_in_an_abort else every
        assert bits <= set(words)

    @pytest.mark.parametrize("kind", [Kind(True, True, True, WRITABLE), Kind(True, False, False, WRITABLE),
                                      Kind(False, False, False, 0)])
    def test_nothing_is_asked_that_the_sdm_leaves_undefined(self, kind: Kind) -> None:
        asked = [case.fields for cases in CASES.values() for case in cases(kind)]
        asked += [step.fields for seed in range(20) for step in sequence(Random(seed), kind) if step.fields]
        undefined = [fields for fields in asked
                     if fields.get("virtualize_spec_ctrl") and (fields.get("entry_load") or fields.get("exit_store"))]
        assert [] == undefined
        assert any(fields.get("entry_load") for fields in asked)

    def test_a_seed_gives_the_same_sequence_again(self) -> None:
        kind = Kind(True, True, True, WRITABLE)
        assert list(sequence(Random(3), kind)) == list(sequence(Random(3), kind))
        assert list(sequence(Random(3), kind)) != list(sequence(Random(4), kind))


# ---- the modelled KVM on it

@pytest.fixture(scope="module")
def some() -> list[Scenario]:
    """Scenarios that are written by hand and go through the processor."""
    folders = ("entry", "intercept", "nested", "access", "processor", "virt")
    return read([VECTORS / folder for folder in folders])


def failing(processor: type[HostProcessor], scenarios: list[Scenario]) -> list[str]:
    target = BochsTarget(processor)
    try:
        return [one.id for one in scenarios if run_one(one, target).status == FAIL]
    finally:
        target.close()


def history_ends(processor: type[HostProcessor], seed: int) -> str:
    """How a random history goes on Bochs, compared with the emulator after every step."""
    expected = history(f"bochs.{seed}", events=25)
    target = BochsTarget(processor)
    target.begin(expected.host, "spec", {**expected.assume, "vm-entry-loads-shadow": False})
    assert target.machine is not None
    try:
        for call, shown in zip(expected.calls, expected.shown, strict=True):
            seen = target.machine.perform(call)
            if shown != encode({key: value for key, value in seen.items() if key not in ABOVE}):
                return "differs"
        return "same"
    except Unsupported:  # Bochs takes a bit that the history's host refuses
        return "unsupported"
    finally:
        target.close()


@live
class TestRun:
    """``specctrl run --target bochs``."""

    def test_scenarios_pass_and_each_planted_fault_makes_some_fail(self, some: list[Scenario]) -> None:
        assert [] == failing(HostProcessor, some)
        assert {by_name(fault): True for fault in KVM_FAULTS} == {
            by_name(fault): bool(failing(fault, some)) for fault in KVM_FAULTS}

    def test_a_processor_that_updates_shadow_ends_the_run(self, some: list[Scenario]) -> None:
        class Mended(HostProcessor):
            def wrmsr_in_guest(self, vmcs: Vmcs, source: int) -> None:
                before = vmcs.spec_ctrl_shadow if vmcs.virtualize_spec_ctrl else 0
                BochsProcessor.wrmsr_in_guest(self, vmcs, source)
                if vmcs.virtualize_spec_ctrl and source != before:
                    self.write_shadow(vmcs, source)
                    self.complete_shadow(vmcs, source, before)

        with pytest.raises(TargetFailed, match="shadow-stays is declared and not seen any more: WRMSR of 0x"):
            failing(Mended, some)

    def test_a_bit_that_the_host_refuses_and_bochs_takes_is_unsupported(self) -> None:
        [scenario] = [one for one in read([VECTORS]) if one.id.startswith("gen.field.ddpd-u.refused.")]
        target = BochsTarget()
        result = run_one(scenario, target)
        target.close()
        assert (UNSUPPORTED, "Bochs' IA32_SPEC_CTRL takes 0x5ff, this host's refuses 0x100") == (
            result.status, result.why)
        assert 1 == target.processes.seen[WRITABLE_FIXED.name]

    def test_the_reading_that_entry_loads_shadow_is_unsupported(self, processes: Processes) -> None:
        with pytest.raises(Unsupported, match="no processor of Bochs loads SHADOW at VM entry"):
            bound(HostProcessor, processes)(0x5FF, True, True, entry_loads_shadow=True)

    def test_a_vmcs_field_that_is_not_carried_out_is_unsupported(
        self, processes: Processes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("specctrl.targets.bochs.processor.PERFORMED", tuple(set(PERFORMED) - {"exit_load"}))
        processor = bound(BochsProcessor, processes)(0x5FF, True, True)
        processor.vm_entry(BochsVmcs())
        with pytest.raises(Unsupported, match="was not told how to perform exit_load"):
            processor.vm_entry(BochsVmcs(exit_load=True))

    def test_random_histories_show_what_they_show_on_the_emulator(self) -> None:
        assert {"same", "unsupported"} == {history_ends(HostProcessor, seed) for seed in range(6)}

    def test_a_planted_fault_shows_in_a_random_history(self) -> None:
        assert "differs" == history_ends(KvmEntryForgets, 0)

    def test_everything_ends_as_recorded(self, processes: Processes) -> None:
        performed = results([VECTORS])
        assert recorded() == json.loads(json.dumps(record(processes, performed)))
        assert {PASS, UNSUPPORTED} == {result.status for result in performed}
        assert (SEED, SEQUENCES) == (recorded()["seed"], recorded()["models"][WITH_CONTROL]["steps"] / 100)


@live
class TestProcess:
    """A processor that breaks is an error of its own, in bounded time."""

    def test_one_that_dies_is_named_with_the_signal(self) -> None:
        process = Process(WITHOUT_MSR, shim())
        assert not process.ask(["describe"])[0]["has_msr"]
        os.kill(process.program.pid, signal.SIGSEGV)
        with pytest.raises(TargetFailed, match=r"^Bochs' corei7_haswell_4770 was ended by signal 11 instead of answer"):
            process.ask(["describe"])

    def test_one_that_hangs_is_ended(self) -> None:
        processes = Processes(seconds=3)
        processor = bound(BochsProcessor, processes)(WRITABLE, True, True)
        with pytest.raises(TargetFailed, match=r"did not answer .* within 3 s$"):  # a VMX abort
            processor.enter(BochsVmcs(), "nothing", exit_load=0x200)
        with pytest.raises(ProcessLookupError):
            os.kill(processor.process.program.pid, 0)  # type: ignore[attr-defined]

    def test_a_vmx_abort_is_unsupported_before_it_happens(self, processes: Processes) -> None:
        processor = bound(BochsProcessor, processes)(WRITABLE, True, True)
        with pytest.raises(Unsupported, match="a VMX abort ends Bochs' processor"):
            processor.vm_exit(BochsVmcs(exit_load=True, exit_load_value=0x200))

    def test_what_it_does_not_understand_is_said_by_it(self) -> None:
        with pytest.raises(TargetFailed, match=r"^Bochs' arrow_lake: ValueError: there is no operation 'main'$"):
            Process(WITH_CONTROL, shim()).ask(["main"])

    def test_another_model_in_the_place_of_one_is_noticed(self, tmp_path: Path) -> None:
        with pytest.raises(TargetFailed, match="KeyError: 'i486'"):
            Process("i486", shim()).ask(["describe"])


class TestMissing:
    """Without the package or a compiler it is said that nothing ran."""

    def test_without_the_package(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        real = importlib.util.find_spec
        monkeypatch.setattr("specctrl.targets.bochs.processes.find_spec",
                            lambda name: None if name == "bochscpu" else real(name))
        with pytest.raises(TargetMissing, match=r"'bochs' cannot run here: .* pip install '\.\[bochs\]'"):
            open_target("bochs")
        assert 3 == main(["processor", "--on", "bochs"])
        assert "bochs cannot run here: Bochs' processor is not installed" in capsys.readouterr().err

    @live
    def test_without_a_compiler(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CC", "no-such-compiler")
        with pytest.raises(TargetMissing, match="a C compiler is needed: CC is 'no-such-compiler'"):
            open_target("bochs")


@live
class TestCommand:
    """``specctrl processor --on bochs``."""

    def test_it_prints_the_counts_and_succeeds(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert 0 == main(["processor", "--on", "bochs", "--sequences", "2", "--json"])
        document = json.loads(capsys.readouterr().out)
        assert document["passed"]
        assert list(MODELS) == list(document["models"])

    def test_a_difference_is_exit_status_1_and_is_told(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def with_one(_processes: Processes, model: str, _seed: int, _sequences: int) -> Findings:
            findings = Findings.from_json(recorded()["models"][model])
            findings.rules["processor.root.real-msr"] = Tally(same=1, undeclared=["after rdmsr: planted"])
            return findings

        monkeypatch.setattr(Processes, "compare", with_one)
        assert 1 == main(["processor", "--on", "bochs", "--sequences", "0"])
        shown = capsys.readouterr().out
        assert "    after rdmsr: planted\n" in shown
        assert shown.endswith("there are differences that are not as declared\n")

    def test_another_processor_is_a_wrong_command_line(self) -> None:
        with pytest.raises(SystemExit, match="2"):
            main(["processor", "--on", "qemu"])
