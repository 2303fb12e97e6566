"""The same operations on Bochs' processor and on this specification's, and whether the two show the same."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import fields
from random import Random
from typing import Any

from specctrl.model.parts import Features, features_from_names, writable_bits
from specctrl.model.processor import LogicalProcessor, Vmcs
from specctrl.model.registers import REGISTERS
from specctrl.scenario.running import TargetFailed
from specctrl.targets.bochs.checks import CASES, LOOKS_AT, NEED_CONTROL, NEED_MSR, Case, Kind
from specctrl.targets.bochs.deviations import DEVIATIONS, WRITABLE, Deviation, expected_processor
from specctrl.targets.bochs.findings import Findings, Tally
from specctrl.targets.bochs.operations import Seen, Step, do, ended, perform
from specctrl.targets.bochs.processes import Asked
from specctrl.targets.bochs.processor import BochsProcessor, BochsVmcs
from specctrl.targets.bochs.sequences import STEPS, sequence

PLAIN = {
    **{one.name: one.default for one in fields(Vmcs) if not one.name.startswith("spec_ctrl")},
    "intercept_read": False, "intercept_write": False, "tertiary_inactive": False,
}
"""The fields of a VMCS at the start of a case: the guest's accesses pass through, nothing else is asked for."""
EVERYTHING = tuple(one.name for one in fields(Seen))
Steps = Sequence[Step]
Transcript = list[Seen]


class PlainVmcs(Vmcs):
    """This specification's VMCS: where tertiary controls are inactive, its control is 0 already."""

    tertiary_inactive = False


def enumerated(answers: dict[str, Any]) -> Features:
    """The features that CPUID of a model enumerates, as far as they concern the MSR."""
    words = {"CPUID.(7,0):EDX": answers["cpuid_7_0_edx"], "CPUID.(7,2):EDX": answers["cpuid_7_2_edx"]}
    return features_from_names([
        one.name for register, word in words.items() for one in REGISTERS[register] if word & one.mask])


class Comparison:
    """One model of Bochs beside this specification's processor; ``expect`` makes the latter."""

    def __init__(
        self, process: Asked, deviations: Collection[Deviation] = DEVIATIONS,
        expect: Callable[..., LogicalProcessor] = expected_processor, measured: type[BochsProcessor] = BochsProcessor,
    ) -> None:
        model = process.model
        answers = process.ask(["describe"])[0]
        features = enumerated(answers)
        self.has_msr, self.has_control = features.spec_ctrl, bool(answers["has_control"])
        self.has_exit_load = bool(answers["has_exit_load"])
        if self.has_msr != answers["has_msr"]:
            raise TargetFailed(f"Bochs' {model} has IA32_SPEC_CTRL and CPUID denies it, or the reverse")
        self.model = model
        self.writable = writable_bits(features)
        self.kind = Kind(self.has_msr, self.has_control, self.has_exit_load, WRITABLE if self.has_msr else 0)
        self.deviations = [one for one in deviations if model in one.models]
        self.expect = expect

        class Here(measured):  # type: ignore[misc, valid-type]
            def choose(self, _has_spec_ctrl: bool, _has_control: bool) -> Any:
                return process

        self.measured = Here(self.kind.takes, self.has_msr, self.has_control, has_exit_load=self.has_exit_load)
        self.vmcs = BochsVmcs()

    # ---- one transcript

    def observed(self, case: Case) -> Transcript:
        """What Bochs shows."""
        return self.transcript(case, self.measured, self.vmcs)

    def expected(self, case: Case, deviations: Collection[Deviation]) -> Transcript:
        """What this specification's processor shows, with these deviations."""
        processor = self.expect(self.writable, self.has_msr, self.has_control, self.has_exit_load, deviations)
        return self.transcript(case, processor, PlainVmcs())

    def transcript(self, case: Case, processor: LogicalProcessor, vmcs: Vmcs) -> Transcript:
        """Bring a processor to a case's start, and perform its steps."""
        for step in self.start(case):
            ended(do, processor, vmcs, step)
        return [perform(processor, vmcs, step) for step in case.steps]

    def start(self, case: Case) -> Iterator[Step]:
        """What brings a processor to a case's start."""
        yield Step("controls", fields={**PLAIN, **case.fields})
        if self.has_control:
            yield Step("write mask", case.mask)
            yield Step("write shadow", case.shadow)
        if self.has_exit_load:
            yield Step("write host", case.host)
        if self.has_msr:
            yield Step("wrmsr", case.msr)

    def judge(self, case: Case, tally: Tally, seen: dict[str, int], looks_at: Sequence[str] = EVERYTHING) -> None:
        """Perform a case on both, and count."""
        def shown(transcript: Transcript) -> list[tuple[Any, ...]]:
            return [tuple(getattr(one, name) for name in looks_at) for one in transcript]

        bochs = shown(self.observed(case))
        expected = shown(self.expected(case, self.deviations))
        if bochs != expected:
            place = next(at for at, both in enumerate(zip(bochs, expected, strict=True)) if both[0] != both[1])
            tally.undeclared.append(told(case.steps[:place + 1], looks_at, bochs[place], expected[place]))
            return
        needed = [one for one in self.deviations
                  if shown(self.expected(case, [other for other in self.deviations if other != one])) != bochs]
        for one in needed:
            seen[one.name] += 1
        if needed:
            tally.declared += 1
        else:
            tally.same += 1

    # ---- everything

    def rule(self, rule: str, seen: dict[str, int]) -> Tally:
        """Every case of one rule."""
        tally = Tally()
        for case in CASES[rule](self.kind):
            self.judge(case, tally, seen, LOOKS_AT.get(rule, EVERYTHING))
        return tally

    def random(self, seed: int, sequences: int, seen: dict[str, int]) -> Tally:
        """Random sequences of this seed."""
        tally = Tally()
        for number in range(sequences):
            steps = sequence(Random(f"{self.model}.{seed}.{number}"), self.kind)
            self.judge(Case(tuple(steps)), tally, seen)
        return tally

    def findings(self, seed: int, sequences: int) -> Findings:
        """Everything: each rule that says something of this model, and random sequences."""
        seen = {one.name: 0 for one in self.deviations}
        left_out = (frozenset() if self.has_control else NEED_CONTROL) | (frozenset() if self.has_msr else NEED_MSR)
        rules = {rule: self.rule(rule, seen) for rule in CASES if rule not in left_out}
        return Findings(self.model, rules, self.random(seed, sequences, seen), sequences * STEPS, seen)


def told(steps: Steps, looks_at: Sequence[str], bochs: tuple[Any, ...], expected: tuple[Any, ...]) -> str:
    """A difference in a line: the last steps, and what each side shows."""
    last = ", ".join(f"{step.does} {step.value:#x}" if "w" in step.does else step.does for step in steps[-5:])
    wrong = [f"{name} {hexadecimal(one)} instead of {hexadecimal(two)}"
             for name, one, two in zip(looks_at, bochs, expected, strict=True) if one != two]
    return f"after {last}: Bochs shows {', '.join(wrong)}"


def hexadecimal(shown: Any) -> str:
    """A value as the pages write it.

    >>> hexadecimal(1024), hexadecimal("#GP"), hexadecimal(None)
    ('0x400', '#GP', 'nothing')
    """
    return f"{shown:#x}" if isinstance(shown, int) else "nothing" if shown is None else str(shown)
