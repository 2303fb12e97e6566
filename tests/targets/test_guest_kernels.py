"""Guest kernels on top of a target that has none: every scenario of theirs passes on the emulator without its own."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from specctrl.model.outcomes import Unsupported
from specctrl.scenario import EmulatorTarget, run_one
from specctrl.scenario.kinds import Json
from specctrl.scenario.reading import Step, load, read
from specctrl.targets.guest_kernels import GuestsAbove

FOLDER = Path(__file__).parents[2] / "vectors" / "guest"
SCENARIOS = read([FOLDER])


class Hypervisor(EmulatorTarget):
    """The emulator without guests: it does not boot, and shows nothing of them."""

    observes = frozenset(["effective", "guest_view", "level", "smm", "value", "fault", "exit", "ret", "values"])

    def step(self, step: Step) -> Mapping[str, Json]:
        if step.op == "boot":
            raise Unsupported("no guests here")
        return {key: value for key, value in super().step(step).items() if key not in ("exposed", "overhead")}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.id)
def test_a_scenario_passes(scenario: Any) -> None:
    """Boot is made of accesses, exposure of the effective value."""
    assert run_one(scenario, Hypervisor("spec")).status == "unsupported"
    result = run_one(scenario, GuestsAbove(Hypervisor("spec")))
    assert (result.status, result.why) == ("pass", "")


def test_a_wrong_effective_value_is_noticed() -> None:
    """The verdict is not the emulator's own."""

    class Forgetful(Hypervisor):
        def step(self, step: Step) -> Mapping[str, Json]:
            seen = dict(super().step(step))
            if "effective" in seen:
                seen["effective"] = 0
            return seen

    target = GuestsAbove(Forgetful("spec"))
    failing = [scenario.id for scenario in SCENARIOS if run_one(scenario, target).status == "fail"]
    assert len(failing) > 10


@pytest.mark.parametrize(("steps", "why"), [
    ([{"op": "nested_enter"}], "outside SMM"),
    ([{"op": "set_msr_filter", "ranges": [{"base": "0x48", "count": 1, "write": True, "allow": [False]}]}],
     "wrmsr of 0x48"),
])
def test_a_boot_that_cannot_be_is_misuse(steps: list[dict[str, Any]], why: str) -> None:
    """As on the emulator."""
    kernel = {"os": "linux", "reports": False, "sequence": "short", "retpoline": False, "bhi_dis_s": "auto",
              "spectre_bhi": "on"}
    document = {"schema": "specctrl/scenario/1", "id": "x.y", "host": "sapphire-rapids", "steps": [
        {"op": "enable_cap", "cap": "KVM_CAP_X86_USER_SPACE_MSR", "args": [4]}, {"op": "create_vcpu"}, *steps,
        {"op": "boot", "kernel": kernel}]}
    result = run_one(load(document), GuestsAbove(Hypervisor("spec")))
    assert result.status == "fail"
    assert why in result.why
