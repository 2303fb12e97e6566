"""Turns a history, steps without expectations, into a scenario: what the emulator shows becomes what must be shown."""

from collections.abc import Mapping, Sequence
from typing import Any

from specctrl.scenario import load
from specctrl.scenario.format import COUNTED, OUTCOMES, SCHEMA, SHOWS
from specctrl.scenario.kinds import Json
from specctrl.scenario.machine import Machine
from specctrl.scenario.reading import Step
from specctrl.vectors.transition_classes import Class, look, transition

ANYBODY = ("effective", "guest_view")
"""What any implementation can say of a vCPU after every step."""

SHOWN = ("value", "values", "stored", "host_spec_ctrl", "refused")
"""The values that a step names in its expectation, where it shows them."""

MODES = {"level": ("nested_enter", "nested_exit", "set_nested_state"), "smm": ("smi",)}
"""What is looked at only in histories with one of these operations."""

FIRST_HALF = "get_nested_state"
"""An exploration saves nested state and sets it again at once: a look is taken after the second step."""


def dress(host: Json, setup: int, steps: Sequence[dict[str, Json]]) -> dict[str, Json]:
    """Host and steps of a scenario: after each step but the first ``setup`` an ``observe``.

    ``host`` and ``steps`` are as a file writes them.
    Raises :class:`specctrl.model.outcomes.Misuse` for a history that cannot happen.
    """
    scenario = load({"schema": SCHEMA, "id": "history", "host": host, "steps": list(steps)})
    machine = Machine(scenario.host, record=False)
    modes = [key for key, ops in MODES.items() if any(step["op"] in ops for step in steps)]
    written: list[dict[str, Json]] = []
    for index, step in enumerate(scenario.steps):
        seen = machine.perform(step.call())
        expect = _expected(step, seen)
        written.append({**step.source, **({"expect": expect} if expect else {})})
        number = step.args.get("vcpu", 0)
        if index < setup or step.op == FIRST_HALF or "abort" in seen:
            continue  # what a vCPU holds that has shut down says nothing
        shown = machine.observe(vcpu=number)
        named = {key: SHOWS[key].write(shown[key]) for key in (*ANYBODY, *modes)}
        written.append({"op": "observe", **({"vcpu": number} if number else {}), "expect": named})
    return {"host": host, "steps": written}


def _expected(step: Step, seen: Mapping[str, Any]) -> dict[str, Json]:
    """What a step must show: each outcome, each value, a count that falls short."""
    named = {key: SHOWS[key].write(value) for key, value in seen.items() if key in OUTCOMES or key in SHOWN}
    if step.op in COUNTED and seen["ret"] < len(step.args["msrs"]):
        named["ret"] = seen["ret"]
    return named


OWN_BIT: dict[str, Json] = {"op": "wrmsr", "msr": "IA32_SPEC_CTRL", "value": "0x1"}


def with_own_bit(host: Json, setup: int, steps: Sequence[dict[str, Json]]) -> Sequence[dict[str, Json]]:
    """The history with IBRS set by its guest first, if its last step is of the same class then.

    Where every word is 0, a lost one does not show.
    """
    longer = [*steps[:setup], OWN_BIT, *steps[setup:]]
    return longer if class_of_last(host, longer) == class_of_last(host, steps) else steps


def class_of_last(host: Json, steps: Sequence[dict[str, Json]]) -> Class | None:
    """The transition class of the last step that is no ``observe``."""
    done = [step for step in steps if step["op"] != "observe"]
    return classes_of(host, done)[-1] if done else None


def classes_of(host: Json, steps: Sequence[dict[str, Json]]) -> list[Class | None]:
    """The transition class of each step; None before there is a vCPU.

    Raises :class:`specctrl.model.outcomes.Misuse` for a history that cannot happen.
    """
    scenario = load({"schema": SCHEMA, "id": "history", "host": host, "steps": list(steps)})
    machine = Machine(scenario.host, record=False)
    found: list[Class | None] = []
    for step in scenario.steps:
        number = step.args.get("vcpu", 0)
        before = look(machine.vcpus[number]) if number in machine.vcpus else None
        seen = machine.perform(step.call())
        if before is not None:
            found.append(transition(step.call(), seen, before, look(machine.vcpus[number])))
        else:
            found.append(None)
    return found
