"""Transition classes: what one step does, in words, without the numbers.

Two steps are of one class if the same event happens in the same kind of place and changes the same kind of thing:
one scenario a class says of every kind of step what must come of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from specctrl.model.kvm.vcpu import Vcpu
from specctrl.model.registers import (
    IA32_ARCH_CAPABILITIES,
    IA32_SPEC_CTRL,
    MSR_VIRTUAL_ENUMERATION,
    MSR_VIRTUAL_MITIGATION_CTRL,
    MSR_VIRTUAL_MITIGATION_ENUM,
)
from specctrl.scenario.format import COUNTED, OUTCOMES
from specctrl.scenario.observation import effective, intercepted, view_as_read

MSR_WORDS = {
    IA32_SPEC_CTRL: "view",
    MSR_VIRTUAL_MITIGATION_CTRL: "report",
    MSR_VIRTUAL_ENUMERATION: "enumeration",
    MSR_VIRTUAL_MITIGATION_ENUM: "offer",
    IA32_ARCH_CAPABILITIES: "capabilities",
}
"""What an access of each MSR is about."""

Class = tuple[str, ...]
"""A transition class: its words, from the event to what came of it."""

TAKEN = "taken"
"""The outcome of a step that simply succeeds."""

SAYS = {"fault": "faults", "host_fault": "host-faults", "fail": "fails", "abort": "aborts"}
"""The words of outcomes; of the others the key is the word."""

WITHOUT_EFFECT = frozenset(["reflected", "blocked", "refused", "einval"])
"""Outcomes of steps that leave what is forced as it was, so that a class need not say what it was."""


WRITES = ("wrmsr-view", "set-msrs-view", "wrmsr-report", "enable-cap")
"""The events of which a class says whether the processor then holds what the guest sees."""


ALIKE = ("get-msrs", "set-nested-state", "reset-vcpu", "smi", "rsm", "vmxoff")
"""The events of which a class does not say whether the host has the control."""


@dataclass(frozen=True, slots=True)
class Look:
    """What a class needs to know of a vCPU at one moment."""

    control: bool
    place: str
    forced: str
    intercepted: bool
    effective: int
    view: int
    report: int


def look(vcpu: Vcpu) -> Look:
    """Look at a vCPU."""
    return Look(
        vcpu.cpu.has_control,
        "smm" if vcpu.smm else f"level-{vcpu.level}",
        forced_by(vcpu),
        intercepted(vcpu, write=True),
        effective(vcpu),
        view_as_read(vcpu),
        vcpu.mitigation_ctrl,
    )


def forced_by(vcpu: Vcpu) -> str:
    """Who forces bits of this vCPU: nobody, userspace, the guest's report, or both."""
    if not vcpu.force_mask:
        return "free"
    if not vcpu.mitigation_ctrl:
        return "by-userspace"
    return "by-both" if vcpu.user_mask else "by-report"


def event(step: Mapping[str, Any]) -> str:
    """The kind of a step: its operation, and which MSR or list it is about.

    >>> event({"op": "wrmsr", "msr": 0x48, "value": 1})
    'wrmsr-view'
    >>> event({"op": "nested_exit", "msr_load": [[0x48, 1], [0x50000000, 0]]})
    'nested-exit-view-list'
    """
    op = "set_nested_state" if step["op"] == "nested_state" else step["op"]  # an exploration saves and restores at once
    words = [op.replace("_", "-")]
    if "msr" in step:
        words.append(MSR_WORDS.get(step["msr"], "other"))
    if step["op"] in ("set_msrs", "get_msrs") and len(step["msrs"]) == 1:
        first = step["msrs"][0]
        words.append(MSR_WORDS.get(first if isinstance(first, int) else first[0], "other"))
    if step.get("msr_load"):
        words.append(f"{MSR_WORDS[step['msr_load'][0][0]]}-list")
    if step.get("intercept"):
        words.append("no-bitmap" if step["intercept"] == "all" else "bitmap")
    return "-".join(words)


def outcome(step: Mapping[str, Any], seen: Mapping[str, Any]) -> str:
    """What a step ended in, as a word.

    >>> outcome({"op": "wrmsr"}, {"fault": "#GP"}), outcome({"op": "set_msrs", "msrs": [[0x48, 1]]}, {"ret": 0})
    ('faults', 'refused')
    """
    for key in OUTCOMES:
        if seen.get(key):
            if key == "errno":
                return str(seen[key]).lower()
            return f"exits-{seen[key]['reason'].lower()}" if key == "exit" else SAYS.get(key, key)
    short = step["op"] in COUNTED and seen["ret"] < len(step["msrs"])
    return "refused" if short or seen.get("refused") else TAKEN


def effect(after: Look) -> str:
    """What a write came to: the processor holds what the guest sees, or forced bits make a difference."""
    return "as-written" if after.effective == after.view else "merged"


def transition(step: Mapping[str, Any], seen: Mapping[str, Any], before: Look, after: Look) -> Class:
    """The class of a step, as the words of an id: from the event to what came of it."""
    kind = event(step)
    words = [kind, before.place]
    if before.place == "level-2" and step.get("order") == "msrs-first":
        words[0] += "-msrs-first"
    ended = outcome(step, seen)
    if ended in WITHOUT_EFFECT:
        return (*words, ended)
    if kind not in ALIKE:
        words.append("control" if before.control else "no-control")
    words.append(before.forced)
    if step.get("msr") == IA32_SPEC_CTRL and before.intercepted:
        words.append("intercepted")
    if ended != TAKEN:
        words.append(ended)
    elif kind in WRITES:
        words.append(effect(after))
    return tuple(words)
