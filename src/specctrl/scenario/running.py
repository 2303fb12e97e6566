"""Running scenarios on a target, and comparing what is seen with what is expected.

A target is whatever can perform the operations: the emulator, a program behind an adapter.
Only what ``expect`` names is checked, except outcomes: one that happens and is not named fails the step.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from specctrl.model.outcomes import Misuse, Unsupported
from specctrl.model.variants import VARIANTS
from specctrl.scenario.format import COUNTED, OUTCOMES, SETS, SHOWS
from specctrl.scenario.kinds import At, Json, quoted
from specctrl.scenario.machine import Machine
from specctrl.scenario.reading import Scenario, Step

PASS, PARTLY, FAIL, UNSUPPORTED, OTHER_PROFILE = "pass", "partly", "fail", "unsupported", "other-profile"
STATUSES = (PASS, PARTLY, FAIL, UNSUPPORTED, OTHER_PROFILE)

UNSEEN = "the target cannot observe"
"""How the reason begins where a target sees nothing of what a scenario expects; the keys follow."""

PATIENCE = 10
"""So many scenarios in a row may break a target before the rest is left."""


class TargetFailed(Exception):
    """The target itself broke: an adapter that died, hung or answered nonsense; ``step``: at which one, from 0."""

    step: int | None = None


class TargetUnusable(TargetFailed):
    """The target cannot be used at all: it cannot be started, or nobody can speak to it.  Ends a run."""


class Target(Protocol):
    """Something that performs scenarios; Unsupported, Misuse and TargetFailed end one, TargetUnusable ends the run."""

    name: str
    profiles: frozenset[str]
    """The profiles that it implements; an adapter says so when it begins."""
    observes: frozenset[str] | None
    """The keys that it can see; None: all."""
    max_unsupported: int | None
    """How many unsupported scenarios are no failure, unless the command line says; None: any number."""

    def begin(self, host: str | dict[str, Any], profile: str, assume: dict[str, bool], /) -> None:
        """Start a scenario on a fresh host."""

    def step(self, step: Step) -> Mapping[str, Json]:
        """Perform a step and say what was seen."""

    def end(self) -> None:
        """Finish the scenario."""

    def close(self) -> None:
        """No scenario follows."""

    def kill(self) -> None:
        """No scenario follows, and there is no time for a good end."""


class EmulatorTarget:
    """The emulator of one profile; with ``record`` its ``machine`` keeps the history of the last scenario."""

    observes: frozenset[str] | None = frozenset(SHOWS)
    max_unsupported: int | None = 0

    def __init__(self, variant: str, record: bool = False) -> None:
        self.name = variant
        self.profiles = frozenset([variant])
        self.record = record
        self.machine: Machine | None = None

    def begin(self, host: str | dict[str, Any], _profile: str, assume: dict[str, bool]) -> None:
        """Make a fresh machine; the scenario's profile does not matter: the emulator has its own."""
        if self.name not in VARIANTS:
            raise Unsupported(f"this version has no emulator of the profile {self.name}")
        self.machine = Machine(host=host, variant=self.name, assume=assume, record=self.record)

    def step(self, step: Step) -> Mapping[str, Json]:
        """Perform the step on the machine."""
        assert self.machine is not None
        return self.machine.perform(step.call())

    def end(self) -> None:
        """Keep the machine: its history can be looked at."""

    def close(self) -> None:
        """Nothing to close."""

    def kill(self) -> None:
        """Nothing to end."""


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one scenario; ``step`` counts from 0, as in a JSON pointer."""

    scenario: Scenario
    status: str
    target: str
    step: int | None = None
    why: str = ""
    observed: Mapping[str, Json] | None = None
    confirms: Mapping[str, int] = field(default_factory=dict)
    """Of a pass: how many observations of each kind the target made, where it tells kinds apart."""
    unseen: tuple[str, ...] = ()
    """Of a partly passed one: the expected keys that the target cannot observe."""
    suspects: tuple[str, ...] = ()
    """Of a failed one: the rules whose code, changed a little, does what the target did, if that was asked."""

    @property
    def op(self) -> str | None:
        """The operation that failed or is unsupported."""
        return None if self.step is None else self.scenario.steps[self.step].op

    @property
    def expected(self) -> Mapping[str, Json] | None:
        """What the failed step had to show, as written."""
        if self.step is None or self.status != FAIL:
            return None
        expect: Mapping[str, Json] = self.scenario.steps[self.step].source.get("expect", {})
        return expect


def run(
    scenarios: Iterable[Scenario], target_of: Callable[[Scenario], Target], any_profile: bool = False
) -> Iterator[Result]:
    """The results, one after the other; a target that breaks fails the scenario, and the next begins anew.

    TargetUnusable ends them, and so do :data:`PATIENCE` scenarios in a row that broke the target.
    """
    broken = 0
    for scenario in scenarios:
        target = target_of(scenario)
        try:
            result = run_one(scenario, target, any_profile)
            broken = 0
        except TargetUnusable:
            raise
        except TargetFailed as failure:
            result = Result(scenario, FAIL, target.name, failure.step, str(failure))
            broken += 1
        yield result
        if broken == PATIENCE:
            raise TargetUnusable(f"{target.name} broke in {PATIENCE} scenarios in a row")


def run_one(scenario: Scenario, target: Target, any_profile: bool = False) -> Result:
    """Run one scenario up to its end, its first failing step or the first unsupported one.

    What it expects and the target cannot observe is left out of the comparison; the rest of it can pass.
    """
    try:
        refused = None
        try:
            target.begin(scenario.host, scenario.profile, scenario.assume)
        except Unsupported as unsupported:
            refused = str(unsupported)
        if scenario.profile not in target.profiles and not any_profile:
            why = f"holds for {scenario.profile}, the target implements {', '.join(sorted(target.profiles))}"
            return Result(scenario, OTHER_PROFILE, target.name, why=why)
        if refused is not None:
            return Result(scenario, UNSUPPORTED, target.name, why=refused)
        return _steps(scenario, target)
    finally:
        target.end()


def _steps(scenario: Scenario, target: Target) -> Result:
    unseen: dict[str, int] = {}
    compared = False
    for index, step in enumerate(scenario.steps):
        hidden = set() if target.observes is None else step.expect.keys() - target.observes
        for key in hidden:
            unseen.setdefault(key, index)
        compared = compared or bool(step.expect.keys() - hidden)
        if "misuse" in hidden and step.expect["misuse"]:
            continue  # what cannot happen is not asked of a target that cannot say so
        try:
            observation = normalised(target.step(step), target.name)
        except Unsupported as unsupported:
            return Result(scenario, UNSUPPORTED, target.name, index, str(unsupported))
        except Misuse as misuse:
            if step.expect.get("misuse"):
                continue
            return Result(scenario, FAIL, target.name, index, f"misuse: {misuse}", {"misuse": str(misuse)})
        except TargetFailed as failure:
            failure.step = index
            raise
        except Exception as error:
            error.add_note(f"in {scenario.file or scenario.id}, /steps/{index}, {step.op}")
            raise
        wrong = differences(step, observation, hidden)
        if wrong:
            return Result(scenario, FAIL, target.name, index, "; ".join(wrong), written(observation))
    names = tuple(sorted(unseen))
    if names and not compared:
        why = f"{UNSEEN} {', '.join(names)}"
        return Result(scenario, UNSUPPORTED, target.name, min(unseen.values()), why)
    confirms = dict(getattr(target, "confirms", {}))
    return Result(scenario, PARTLY if names else PASS, target.name, confirms=confirms, unseen=names)


def normalised(answer: Mapping[str, Json], name: str = "the target") -> dict[str, Any]:
    """An observation with its numbers as ints; TargetFailed if it is none."""
    at = At(name)
    observation = {}
    for key, value in answer.items():
        if key in SHOWS:
            observation[key] = SHOWS[key].read(value, at / key)
        elif not key.startswith("x-"):
            (at / key).refuse("no step can show this")
    if at.problems:
        problem = at.problems[0]
        raise TargetFailed(f"{name} answered nonsense: {problem.pointer[1:]}: {problem.reason}")
    return observation


def written(observation: Mapping[str, Any]) -> dict[str, Json]:
    """An observation in the format's notation."""
    return {key: SHOWS[key].write(value) for key, value in observation.items()}


def differences(step: Step, observation: Mapping[str, Any], hidden: Collection[str] = ()) -> list[str]:
    """What a step shows that it must not, or does not show as expected; empty if it passes.

    ``hidden``: expected keys that the target cannot observe, which are not compared.
    """
    wrong = [sentence for key in OUTCOMES if key not in hidden for sentence in _outcome(key, step.expect, observation)]
    wrong += _shortfall(step, observation)
    if wrong:
        return wrong
    for key, expected in step.expect.items():
        if key not in OUTCOMES and key not in hidden:
            wrong += _value(key, expected, observation)
    return wrong


def _outcome(key: str, expect: Mapping[str, Any], observation: Mapping[str, Any]) -> Iterator[str]:
    """Outcomes that are absent, null or false did not happen."""
    expected, seen = expect.get(key), observation.get(key)
    happens, must_happen = seen not in (None, False), expected not in (None, False)
    if happens and not must_happen:
        yield f"{key} {_text(key, seen)} happened, which is not expected"
    elif must_happen and not happens:
        yield f"{key} {_text(key, expected)} is expected and did not happen"
    elif isinstance(expected, dict) and isinstance(seen, dict):
        for part, value in expected.items():
            if part not in seen or seen[part] != value:
                yield f"{key}: expected {_text(key, expected)}, observed {_text(key, seen)}"
                return
    elif must_happen and expected != seen:
        yield f"{key}: expected {_text(key, expected)}, observed {_text(key, seen)}"


def _shortfall(step: Step, observation: Mapping[str, Any]) -> Iterator[str]:
    """Fewer MSRs processed than asked is an outcome, named by ``ret`` or ``refused``."""
    if step.op in COUNTED and "ret" not in step.expect:
        asked = len(step.args["msrs"])
        processed = observation.get("ret", len(observation.get("values", step.args["msrs"])))
        if processed < asked:
            yield f"{processed} of {asked} MSRs were processed, which is not expected"
    if observation.get("refused") and "refused" not in step.expect:
        yield f"KVM_SET_MSRS refused {_text('refused', observation['refused'])}, which is not expected"


def _value(key: str, expected: Any, observation: Mapping[str, Any]) -> Iterator[str]:
    if key in ("contains", "lacks"):
        if "contains" not in observation:
            yield f"{key}: expected {_text(key, expected)}, no list was shown"
            return
        present = set(observation["contains"])
        wrong = [msr for msr in expected if (msr in present) == (key == "lacks")]
        if wrong:
            yield f"the list {'lacks' if key == 'contains' else 'contains'} {_text(key, wrong)}"
        return
    if key not in observation:
        yield f"{key}: expected {_text(key, expected)}, nothing was shown"
        return
    seen = observation[key]
    same = set(seen) == set(expected) if key in SETS else seen == expected
    if not same:
        yield f"{key}: expected {_text(key, expected)}, observed {_text(key, seen)}"


def _text(key: str, value: Any) -> str:
    shown = SHOWS[key].write(value)
    if isinstance(shown, list):
        items = [f"{item[0]}:{item[1]}" if isinstance(item, list) else str(item) for item in shown]
        return f"[{', '.join(items)}]"
    if isinstance(shown, dict):
        return "{" + ", ".join(f"{part} {item}" for part, item in shown.items()) + "}"
    return shown if isinstance(shown, str) else quoted(shown)
