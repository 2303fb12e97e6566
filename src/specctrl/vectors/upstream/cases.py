"""Published scenarios as cases of a KVM selftest: what one kernel shows to userspace and to a guest at level 1.

No rule is written here.  What a case expects is what the scenario expects, and the emulator says which features
of the host that depends on: a feature whose change makes the case fail is one that the case needs.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from specctrl.model.parts import (
    FEATURES,
    GUEST_ONLY,
    NOT_IN_CPUID,
    Host,
    features_from_names,
    resolve_host,
    writable_bits,
)
from specctrl.model.registers import IA32_ARCH_CAPABILITIES, IA32_SPEC_CTRL, KVM_CAP_FORCE_SPEC_CTRL, MSR_NUMBERS
from specctrl.scenario import PASS, EmulatorTarget, Scenario, Step, run_one
from specctrl.scenario.format import COUNTED
from specctrl.scenario.published import is_generated

CONTROL, VIRTUAL_MSRS, PER_VCPU = "CONTROL", "VIRTUAL_MSRS", "PER_VCPU"
"""What a case can need besides features: the tertiary control, the virtual MSRs in KVM, the capability per vCPU."""

HOST_FEATURES = tuple(name for name in FEATURES if name != "TSX")
CPUID_FEATURES = tuple(name for name in HOST_FEATURES if name not in NOT_IN_CPUID)
NEEDS = (*HOST_FEATURES, CONTROL, VIRTUAL_MSRS, PER_VCPU)

GUEST = ("rdmsr", "wrmsr")
SHOWN = (
    "check_extension", "get_supported_force_spec_ctrl", "enable_cap", "create_vcpu", "get_msrs", "set_msrs",
    "get_feature_msrs", "get_msr_index_list", "get_msr_feature_index_list", *GUEST,
)
"""The operations that a selftest performs as they are."""
UNSEEN = ("exit", "observe")
"""Operations that it leaves out: what they show stays inside, but for the guest's view, which an RDMSR shows."""
OUTCOMES = ("errno", "fault", "value", "values", "contains", "lacks")
MAX_VCPUS, MAX_MSRS, MAX_ARGS = 2, 8, 4

_EXIT = Step("exit", {"vcpu": 0}, {}, {})


@dataclass(frozen=True, slots=True)
class Case:
    """One case: a scenario's steps as far as a kernel shows them, and the host that they hold on."""

    id: str
    title: str
    steps: tuple[Step, ...]
    needs: tuple[str, ...]
    lacks: tuple[str, ...]


class Left(Exception):
    """The scenario is no case of a selftest; the message says why."""


def cases(published: Iterable[Scenario]) -> tuple[list[Case], Counter[str]]:
    """The cases of a set of scenarios, those written by hand first, and how many were left out and why."""
    found: list[Case] = []
    left: Counter[str] = Counter()
    seen = set()
    for scenario in sorted(published, key=lambda each: (is_generated(each.id), each.id)):
        try:
            case = case_of(scenario)
        except Left as why:
            left[str(why)] += 1
            continue
        content = repr(([(step.op, step.args, step.expect) for step in case.steps], case.needs, case.lacks))
        if content in seen:
            left["another scenario becomes the same case"] += 1
        else:
            seen.add(content)
            found.append(case)
    return found, left


def case_of(scenario: Scenario) -> Case:
    """The case that a scenario becomes; Left if it becomes none."""
    if scenario.profile != "spec" or any(scenario.assume.values()):
        raise Left("holds for the patches as posted, or under another assumption")
    steps = _translated(scenario)
    base = resolve_host(scenario.host)
    needs, lacks = _requirements(scenario, steps, base)
    if any(step.args.get("msr") in _VIRTUAL or _VIRTUAL & set(_msrs(step)) for step in steps):
        needs.add(VIRTUAL_MSRS)
    if any(_per_vcpu(step) for step in steps):
        needs |= {PER_VCPU, CONTROL}
    if needs & lacks:
        raise Left("needs a host where the capability cannot be told from its absence")
    return Case(scenario.id, scenario.title, steps, _in_order(needs), _in_order(lacks))


def _in_order(names: set[str]) -> tuple[str, ...]:
    return tuple(name for name in NEEDS if name in names)


def _per_vcpu(step: Step) -> bool:
    """Whether a step uses the proposed form of the capability; a kernel without it refuses everything alike."""
    return step.op == "enable_cap" and step.args["fd"] == "vcpu" and step.args["cap"] == KVM_CAP_FORCE_SPEC_CTRL


_VIRTUAL = set(MSR_NUMBERS.values()) - {IA32_SPEC_CTRL}


def _msrs(step: Step) -> list[int]:
    """The MSRs that a step's list, or its expected list, names."""
    listed = step.args.get("msrs", ())
    named = [entry if isinstance(entry, int) else entry[0] for entry in listed]
    return [*named, *step.expect.get("contains", ()), *step.expect.get("lacks", ())]


# ---- the steps


def _translated(scenario: Scenario) -> tuple[Step, ...]:
    """The steps that a kernel shows, up to the last that checks something, tried on the emulator."""
    host = resolve_host(scenario.host)
    wanting = True
    for views in (True, False):
        steps = list(_shown(scenario, views))
        while steps and not _checks(steps[-1]):
            steps.pop()
        wanting = wanting and not steps
        if steps and _passes(scenario, steps, host):
            return tuple(steps)
    raise Left("what it checks is seen inside only" if wanting
               else "an exit after each instruction, which a selftest causes, makes a difference")


def _shown(scenario: Scenario, views: bool) -> Iterator[Step]:
    """Each step of a scenario as a selftest performs it; with ``views`` the guest's view is read."""
    created = set()
    for step in scenario.steps:
        vcpu = step.args.get("vcpu", 0)
        if step.op == "create_vcpu" and "errno" not in step.expect:
            if set(step.args.get("features", ())) & set(GUEST_ONLY):
                raise Left("shows the guest one of AMD's bits")
            created.add(vcpu)
            if len(created) > MAX_VCPUS:
                raise Left("has more vCPUs")
        if step.op in UNSEEN:
            if views and "guest_view" in step.expect:
                read = {"vcpu": vcpu, "msr": IA32_SPEC_CTRL}
                yield Step("rdmsr", read, {"value": step.expect["guest_view"]}, {})
            continue
        if step.op not in SHOWN:
            raise Left(f"has an operation that one VM of a selftest does not show: {step.op}")
        if any(key in step.expect for key in ("exit", "reflected", "abort")):
            raise Left("exits to userspace for an MSR access")
        _check_room(step)
        yield step


def _check_room(step: Step) -> None:
    if len(step.args.get("msrs", ())) > MAX_MSRS or len(step.args.get("args", ())) > MAX_ARGS:
        raise Left("has longer lists")


def _checks(step: Step) -> bool:
    """Whether a step checks more than plain success."""
    short = step.op in COUNTED and step.expect.get("ret", len(step.args["msrs"])) < len(step.args["msrs"])
    return short or step.op == "check_extension" or any(key in step.expect for key in OUTCOMES)


def with_exits(steps: Iterable[Step]) -> tuple[Step, ...]:
    """The steps with a VM exit after each instruction of the guest, as GUEST_SYNC causes one."""
    longer: list[Step] = []
    for step in steps:
        longer.append(step)
        if step.op in GUEST:
            longer.append(replace(_EXIT, args={"vcpu": step.args.get("vcpu", 0)}))
    return tuple(longer)


_EMULATOR = EmulatorTarget("spec")


def _passes(scenario: Scenario, steps: Iterable[Step], host: Host) -> bool:
    """Whether the emulator, on this host, shows what the steps expect."""
    tried = replace(scenario, host=host_object(host), steps=with_exits(steps), assume={})
    return run_one(tried, _EMULATOR).status == PASS


# ---- the host


def host_object(host: Host) -> dict[str, Any]:
    """A host as the scenario format's object."""
    return {
        "part": "sapphire-rapids", "features": list(host.features.names()), "nested": host.nested,
        "spec_ctrl_shadow": host.spec_ctrl_shadow, "host_spec_ctrl": host.spec_ctrl,
    }


def present(host: Host) -> set[str]:
    """What a host has of what a case can need."""
    return set(host.features.names()) & set(HOST_FEATURES) | ({CONTROL} if host.spec_ctrl_shadow else set())


def host_with(has: Iterable[str], spec_ctrl: int) -> Host:
    """A host that has this, runs with as much of the value as it accepts, and has the control only with the MSR."""
    names = set(has)
    features = features_from_names(sorted(names - {CONTROL}))
    writable = writable_bits(features)
    return Host(features=features, writable=writable, spec_ctrl=spec_ctrl & writable, nested=True, legacy_ibrs=False,
                spec_ctrl_shadow=CONTROL in names and features.spec_ctrl)


def _requirements(scenario: Scenario, steps: tuple[Step, ...], base: Host) -> tuple[set[str], set[str]]:
    """What the host must have and must lack: one change, or two at once, and the steps no longer pass."""
    has = present(base)
    fixed = _shown_to_guest(steps)
    if not fixed <= has:
        raise Left("the guest's CPUID shows what the host lacks")
    free = [name for name in (*HOST_FEATURES, CONTROL) if name not in fixed]

    def matters(*changed: str) -> bool:
        host = host_with(has ^ set(changed), base.spec_ctrl)
        return not _passes(scenario, steps, host)

    fixed |= {name for name in free if matters(name)}
    for first, second in combinations([name for name in free if name not in fixed], 2):
        if first not in fixed and second not in fixed and matters(first, second):
            fixed |= {first, second}
    if any(not _passes(scenario, steps, host_with(has, value)) for value in (0, base.writable)):
        raise Left("depends on the value that the host runs with, which nobody can ask for")
    return fixed & has, fixed - has


def _shown_to_guest(steps: Iterable[Step]) -> set[str]:
    """The features that some guest's CPUID is made to show."""
    return {name for step in steps if step.op == "create_vcpu" for name in step.args.get("features", ())}


def hidden(step: Step) -> tuple[str, ...]:
    """The features that a ``create_vcpu`` takes out of the guest's CPUID."""
    args: Mapping[str, Any] = step.args
    return tuple(name for name in CPUID_FEATURES if name not in args["features"]) if "features" in args else ()


def is_masked(msr: int) -> bool:
    """Whether only the bits that are described here are compared: a real host has more of them."""
    return msr == IA32_ARCH_CAPABILITIES
