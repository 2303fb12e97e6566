"""The prose of generated scenarios: a title made of the words of a class, and why anybody should care."""

from collections.abc import Sequence

EVENTS: dict[str, tuple[str, str]] = {
    "wrmsr-view": ("The guest writes IA32_SPEC_CTRL", "the guest reads what it wrote, and forced bits hold"),
    "rdmsr-view": ("The guest reads IA32_SPEC_CTRL", "a guest that reads forced bits may write them back"),
    "wrmsr-report": ("The guest reports its mitigation", "what a report asks for is in force before the guest goes on"),
    "set-msrs-view": ("Userspace sets IA32_SPEC_CTRL", "a restored view must not lift what is forced"),
    "set-msrs-report": ("Userspace sets the report", "a restored report must force what it forced before"),
    "get-msrs": ("Userspace reads MSRs", "what is saved must be the guest's view, not what the processor holds"),
    "enable-cap": ("Userspace forces a pair on the vCPU", "a new pair replaces the old one at once, whatever runs"),
    "nested-enter": ("L1 enters L2", "what is forced on L1 holds for L2, and L2 starts with the view of L1"),
    "nested-exit": ("L2 exits to L1", "what L2 wrote stays the view; what is forced stays forced"),
    "set-nested-state": ("Nested state is saved and set again", "it carries no MSR, and must not lose one"),
    "init": ("INIT", "a reset takes view and report away, never userspace's pair"),
    "reset-vcpu": ("Userspace resets the platform", "a reset takes view and report away, never userspace's pair"),
    "vmxoff": ("L1 leaves VMX operation", "a change of mode must not change what is in force"),
    "smi": ("An SMI", "a change of mode must not change what is in force"),
    "rsm": ("SMM returns", "a change of mode must not change what is in force"),
    "exit": ("A VM exit to the host", "the host runs with its value, and the guest finds its own again"),
    "migrate": ("The VM moves", "the view and what is forced arrive, or the move is refused"),
}
"""How a title names an event, and what goes wrong otherwise; the longest beginning counts."""

REST = {
    "view-list": "with the view in an MSR list", "report-list": "with the report in an MSR list",
    "no-bitmap": "without a bitmap", "msrs-first": "MSRs before nested state",
}
"""What the end of an event's word says."""

PLACES = {"level-1": "in L1", "level-2": "in L2", "smm": "in SMM"}
ONE_PLACE = ("L1 enters L2", "L2 exits to L1", "L1 leaves VMX operation", "SMM returns")
"""Events that happen in one place only."""
CONTROL = {"control": "with the control", "no-control": "without the control"}
FORCED = {"free": "nothing forced", "by-userspace": "userspace forces bits", "by-report": "its report forces bits",
          "by-both": "userspace and its report force bits"}
WENT = {"intercepted": "intercepted", "as-written": "the processor holds the view", "merged": "the forced bits stay"}
OUTCOMES = {
    "faults": "#GP", "fails": "the entry fails", "aborts": "VMX abort", "reflected": "L1 gets a VM exit",
    "blocked": "it stays pending", "refused": "refused", "einval": "EINVAL",
}


def _event(word: str) -> tuple[str, str, str]:
    """The phrase, the reason and the rest of an event's word."""
    known = max((name for name in EVENTS if word == name or word.startswith(f"{name}-")), key=len)
    return (*EVENTS[known], word.removeprefix(known).removeprefix("-"))


def title(words: Sequence[str]) -> str:
    """The title of a class.

    >>> title(["wrmsr-view", "level-2", "no-control", "by-report", "merged"])
    'The guest writes IA32_SPEC_CTRL, in L2, without the control, its report forces bits: the forced bits stay'
    """
    phrase, _, rest = _event(words[0])
    where = [phrase]
    for end in (rest, *REST):  # as "view-list-bitmap"
        if rest and (rest == end or rest.endswith(f"-{end}") or rest.startswith(f"{end}-")) and end in REST:
            where.append(REST[end])
            rest = rest.removesuffix(end).removeprefix(end).strip("-")
    said, came_to = {**PLACES, **CONTROL, **FORCED}, {**WENT, **OUTCOMES}
    where += [said[word] for word in words[1:] if word in said and (word not in PLACES or phrase not in ONE_PLACE)]
    came = [came_to[word] for word in words[1:] if word in came_to]
    return ", ".join(where) + (f": {', '.join(came)}" if came else "")


def reason(words: Sequence[str]) -> str:
    """What goes wrong otherwise."""
    return _event(words[0])[1]
