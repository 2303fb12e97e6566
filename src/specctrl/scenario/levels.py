"""The level of a scenario: how much of a hypervisor it needs, so that an implementation can run the levels that it has.

Each level includes those before it; a scenario is of the highest that one of its steps needs.
"""

from collections.abc import Mapping
from typing import Any

from specctrl.model.parts import resolve_host
from specctrl.model.registers import IA32_SPEC_CTRL, KVM_CAP_FORCE_SPEC_CTRL
from specctrl.scenario.format import COUNTED, FORCE, KVM_ABI, LEVELS, NESTED, OPERATIONS, PROCESSOR
from specctrl.scenario.reading import Scenario, Step

ORDER = tuple(LEVELS)
"""The levels, lowest first."""

ABI_OUTCOMES = ("errno", "exit", "refused")
"""Outcomes that only somebody who performs ioctls can see."""

KEYS: dict[str, str] = {
    "intercepted": FORCE, "reads_intercepted": FORCE, "saved": FORCE, "in_guest": FORCE, "exposed": FORCE,
    "overhead": FORCE, "shut_down": NESTED,
}
"""The levels of what an ``observe`` can name and a processor alone does not know; of the rest: processor."""


def level(scenario: Scenario) -> str:
    """The level of a scenario.

    >>> from specctrl.scenario import load
    >>> steps = [{"op": "create_vcpu"}, {"op": "wrmsr", "msr": "IA32_SPEC_CTRL", "value": "0x1"}]
    >>> document = {"schema": "specctrl/scenario/1", "id": "a", "host": "sapphire-rapids", "steps": steps}
    >>> level(load(document))
    'processor'
    >>> steps.append({"op": "nested_enter"})
    >>> level(load(document))
    'nested'
    """
    bare = all(step.op == "bare_stay" for step in scenario.steps)
    needed = [PROCESSOR if bare or _only_the_processor(scenario) else FORCE]
    needed += [level_of_step(step, scenario) for step in scenario.steps]
    return max(needed, key=ORDER.index)


def _only_the_processor(scenario: Scenario) -> bool:
    """Whether the host has the MSR and the control, and nobody but vCPU 0 uses it."""
    return processor_alone(scenario.host) and all(step.args.get("vcpu", 0) == 0 for step in scenario.steps)


def processor_alone(host: Any) -> bool:
    """Whether a host's processor keeps a mask and value by itself: it has the MSR and the control."""
    resolved = resolve_host(host)
    return resolved.spec_ctrl_shadow and resolved.has_spec_ctrl


def level_of_step(step: Step, scenario: Scenario) -> str:
    """The level that one step needs."""
    if any(step.expect.get(key) for key in ABI_OUTCOMES) or _counts(step):
        return KVM_ABI
    levels = [OPERATIONS[step.op].level, *(KEYS.get(key, PROCESSOR) for key in step.expect)]
    match step.op:
        case "enable_cap":
            levels.append(_pair(step, scenario))
        case "rdmsr" | "wrmsr" if step.args["msr"] != IA32_SPEC_CTRL:
            levels.append(FORCE)
        case "exit" if "nmi_leaves" in step.args:
            levels.append(FORCE)  # what an NMI leaves is between the exit and the hypervisor's own save
        case "create_vcpu" if "features" in step.args and "SPEC_CTRL" not in step.args["features"]:
            levels.append(FORCE)  # no guest of a processor alone lacks what the processor has
        case "migrate" if step.args["order"] == "msrs-first":
            levels.append(NESTED)
        case "migrate" if "msrs" in step.args or step.args["force"] == "drop":
            levels.append(KVM_ABI)
    return max(levels, key=ORDER.index)


def _counts(step: Step) -> bool:
    """Whether fewer MSRs are processed than asked."""
    return step.op in COUNTED and "ret" in step.expect and step.expect["ret"] < len(step.args["msrs"])


def _pair(step: Step, scenario: Scenario) -> str:
    """A pair that the VM starts with is the processor's mask and value; any other takes a hypervisor."""
    args: Mapping[str, Any] = step.args
    if args["cap"] != KVM_CAP_FORCE_SPEC_CTRL or args["flags"] or len(args["args"]) > 2:
        return KVM_ABI
    pairs = sum(other.op == "enable_cap" for other in scenario.steps)
    return PROCESSOR if args["fd"] == "vm" and pairs == 1 else FORCE
