"""Random histories: steps of every operation, each one that can happen in the state that the emulator is in."""

from collections.abc import Callable, Collection, Iterator, Sequence
from random import Random
from typing import Any

from specctrl.model import parts
from specctrl.model.outcomes import ExitKind, Misuse
from specctrl.model.parts import FEATURES, GUEST_ONLY, PARTS, resolve_host
from specctrl.model.registers import (
    CAP_NUMBERS,
    IA32_ARCH_CAPABILITIES,
    IA32_SPEC_CTRL,
    KVM_CAP_FORCE_SPEC_CTRL,
    KVM_CAP_X86_USER_SPACE_MSR,
    MSR_NUMBERS,
    MSR_VIRTUAL_ENUMERATION,
    MSR_VIRTUAL_MITIGATION_CTRL,
    MSR_VIRTUAL_MITIGATION_ENUM,
    REGISTERS,
)
from specctrl.scenario.format import (
    CAP,
    GUEST_FEATURES,
    HOST,
    INTERCEPT,
    KVM_ABI,
    LABEL,
    MSR,
    MSRS,
    OPERATIONS,
    PAIRS,
    PROCESSOR,
    VCPU,
    WORD,
)
from specctrl.scenario.kinds import Choice, Flag, Kind
from specctrl.scenario.levels import ORDER, level_of_step, processor_alone
from specctrl.scenario.machine import Machine
from specctrl.scenario.observation import Observation
from specctrl.scenario.reading import Scenario, Step

Call = dict[str, Any]
"""A step as the emulator is given it: ``op`` and its arguments, numbers as ints."""

_BITS = [field.mask for field in REGISTERS["IA32_SPEC_CTRL"]]
_RANGES = ((0x40, 16), (IA32_SPEC_CTRL, 1), (IA32_ARCH_CAPABILITIES, 1), (MSR_VIRTUAL_ENUMERATION, 3), (0x800, 64))
"""Where the ranges of a filter start, and how long they are at the most."""


TRIES = 1000
"""So many steps that cannot happen are tried before a history ends."""


class Chooser:
    """Makes one history; ``machine`` performs each step before the next is chosen.

    ``top``: the highest level that a step may need; ``without``: operations that are never chosen.
    """

    def __init__(self, random: Random, top: str = KVM_ABI, without: Collection[str] = ()) -> None:
        self.random = random
        self.top = top
        self.names = [name for name, each in OPERATIONS.items()
                      if each.often and name not in without and ORDER.index(each.level) <= ORDER.index(top)]
        self.often_chosen = [OPERATIONS[name].often for name in self.names]
        self.host = self.any_host()
        while top == PROCESSOR and not processor_alone(self.host):
            self.host = self.any_host()
        self.assume = {"init-withdraws-report": self.often(0.9), "vm-entry-loads-shadow": self.often(0.1)}
        self.begin()

    def begin(self, calls: Sequence[Call] = ()) -> None:
        """Start anew, with these steps."""
        self.machine = Machine(self.host, assume=self.assume, record=False)
        self.calls = list(calls)
        for call in calls:
            self.machine.perform(call)

    def take(self, call: Call) -> Observation | None:
        """Perform a step; None, and nothing has changed, if it cannot happen or needs more than the level."""
        try:
            seen = self.machine.perform(call)
        except Misuse:
            return None
        if self.top != KVM_ABI and not self.fits(call, seen):
            self.begin(self.calls)
            return None
        self.calls.append(call)
        return seen

    def fits(self, call: Call, seen: Observation) -> bool:
        """Whether the level has a step that shows this."""
        pairs = [Step("enable_cap", {"flags": 0, **each}, {}, {}) for each in self.calls if each["op"] == "enable_cap"]
        args = {**OPERATIONS[call["op"]].defaults, **call}
        step = Step(call["op"], args, {} if call["op"] == "observe" else seen, {})
        steps = (*pairs, step) if step.op == "enable_cap" else (step,)
        return ORDER.index(level_of_step(step, Scenario("", self.host, steps))) <= ORDER.index(self.top)

    # ---- values

    def often(self, share: float) -> bool:
        """True with this probability."""
        return self.random.random() < share

    def any_host(self) -> Any:
        """A part of the catalogue, often with other options."""
        part = self.random.choice(tuple(PARTS))
        if self.often(0.4):
            return part
        host: dict[str, Any] = {"part": part}
        if self.often(0.3):
            host["without"] = self.random.sample(FEATURES, self.random.randint(1, 4))
        elif self.often(0.1):
            host["features"] = self.random.sample(FEATURES, self.random.randint(0, len(FEATURES)))
        if self.often(0.6):
            host["spec_ctrl_shadow"] = resolve_host(host).features.spec_ctrl and self.often(0.3)
        if self.often(0.5):
            host["host_spec_ctrl"] = self.random.getrandbits(11) & resolve_host(host).writable
        if self.often(0.2):
            host["nested"] = False
        return host

    def word(self) -> int:
        """A value for IA32_SPEC_CTRL: mostly few bits that most hosts have, now and then any 64."""
        kind = self.random.random()
        if kind < 0.2:
            return 0
        if kind < 0.75:
            few = (0x1, 0x2, 0x4, 0x40, 0x400)
            return sum(bit for bit in few if self.often(0.35))
        if kind < 0.9:
            return sum(self.random.sample(_BITS, self.random.randint(1, 4)))
        if kind < 0.96:
            return 1 << self.random.randrange(64)
        return self.random.getrandbits(64)

    def msr(self) -> int:
        """An MSR: mostly IA32_SPEC_CTRL, now and then one that KVM does not know."""
        kind = self.random.random()
        if kind < 0.6:
            return IA32_SPEC_CTRL
        if kind < 0.8:
            return MSR_VIRTUAL_MITIGATION_CTRL
        return self.random.choice((*MSR_NUMBERS.values(), 0x10, 0x830, 0xC000_0102, 0xC000_2000))

    def value_for(self, msr: int) -> int:
        """A value for this MSR."""
        if msr == IA32_SPEC_CTRL or self.often(0.05):
            return self.word()
        if msr == IA32_ARCH_CAPABILITIES:
            return self.random.choice((0, 1 << 63, 1 << 63 | 1 << 19))
        return self.random.choice((0, 1, 1, 2, 3, 3, 4))

    def pairs(self) -> list[list[int]]:
        """MSRs with values."""
        count = self.random.choice((0, 1, 1, self.random.randint(0, 4)))
        msrs = [self.msr() for _ in range(count)]
        return [[msr, self.value_for(msr)] for msr in msrs]

    def msrs(self) -> list[int]:
        """MSRs."""
        return [self.msr() for _ in range(self.random.choice((0, 1, self.random.randint(0, 4))))]

    def pair(self) -> list[int]:
        """A mask and a value; mostly one that may be forced."""
        mask = self.word() | self.word()
        return [mask, self.word() & mask if self.often(0.9) else self.word()]

    def filter_range(self) -> Call:
        """A range of a filter."""
        base, longest = self.random.choice(_RANGES)
        count = self.random.choice((longest, longest, 0, self.random.randint(0, longest)))
        direction = self.random.choice(((True, True), (True, False), (False, True), (False, False)))
        share = self.random.random()
        return {"base": base, "count": count, "allow": [self.often(share) for _ in range(count)],
                "read": direction[0], "write": direction[1]}

    def cpuid(self) -> list[str]:
        """What a guest's CPUID shows: most of what there is."""
        if self.often(0.2):
            return self.random.sample(GUEST_ONLY, self.random.randint(0, len(GUEST_ONLY)))
        return [name for name in parts.GUEST_FEATURES if self.often(0.8)]

    def intercept(self) -> Any:
        """What L1's bitmap intercepts."""
        if self.often(0.1):
            return "all"
        entries: list[Any] = []
        for _ in range(self.random.choice((0, 0, 1, 2))):
            read, write = self.random.choice(((True, True), (True, False), (False, True)))
            entries.append(self.msr() if read and write else {"msr": self.msr(), "read": read, "write": write})
        return entries

    # ---- steps

    def setup(self) -> Iterator[Call]:
        """The VM before its guest runs."""
        if self.often(0.5):
            yield {"op": "enable_cap", "fd": "vm", "cap": KVM_CAP_FORCE_SPEC_CTRL, "args": self.pair(), "flags": 0}
        if self.often(0.5):
            yield {"op": "enable_cap", "fd": "vm", "cap": KVM_CAP_X86_USER_SPACE_MSR,
                   "args": [self.random.randrange(9)], "flags": 0}
        for number in range(1 if self.top == PROCESSOR else self.random.choice((1, 1, 1, 2, 2, 3))):
            call: Call = {"op": "create_vcpu", "vcpu": number}
            if self.often(0.3):
                call["features"] = self.cpuid()
            yield call
            if self.often(0.8) and self.top != PROCESSOR:
                offer = [[MSR_VIRTUAL_ENUMERATION, 1], [MSR_VIRTUAL_MITIGATION_ENUM, self.random.choice((3, 3, 1, 2))]]
                if self.often(0.1):
                    offer.append([IA32_ARCH_CAPABILITIES, 0])
                yield {"op": "set_msrs", "vcpu": number, "msrs": offer}

    def history(self, events: int) -> Iterator[tuple[Call, Observation, bool]]:
        """The VM's setup, and so many events: each step, what it showed, and whether it is an event."""
        for call in self.setup():
            seen = self.take(call)
            if seen is not None:
                yield call, seen, False
        for _ in range(events if self.machine.vcpus else 0):
            step = self.step()
            if step is None:
                return
            yield *step, True

    def step(self) -> tuple[Call, Observation] | None:
        """A step that can happen now, and what it showed; None if none is found.

        One that cannot happen changes nothing, and another is tried.
        """
        for _ in range(TRIES):
            call = self.any_step()
            seen = self.take(call)
            if seen is not None:
                return call, seen
        return None

    def any_step(self) -> Call:
        """A step, whether or not it can happen now."""
        number = self.random.choice(tuple(self.machine.vcpus))
        near = self.near(number)
        if near and self.often(0.3):
            name = self.random.choice(near)
        else:
            name = self.random.choices(self.names, self.often_chosen)[0]
        own = OWN.get(name)
        return {"op": name, **(self.arguments(name, number) if own is None else own(self, number))}

    def near(self, number: int) -> list[str]:
        """The operations that show soonest what a rare state of this vCPU is about."""
        vcpu = self.machine.vcpus[number]
        if vcpu.shut_down:
            names = ["get_nested_state", "set_nested_state", "reset_vcpu"]
        elif vcpu.init_pending:
            names = ["nested_enter", "vmxoff", "rsm"]
        else:
            names = []
        return [name for name in names if name in self.names]

    def arguments(self, name: str, number: int) -> Call:
        """Arguments of an operation, each any of its kind; half of those that may be absent are."""
        operation = OPERATIONS[name]
        return {key: self.any_of(kind, number) for key, kind in operation.args.items()
                if key not in operation.optional or self.often(0.5)}

    def any_of(self, kind: Kind, number: int) -> Any:
        """Any value of a kind; ``number`` is the vCPU that the step is about."""
        if isinstance(kind, Choice):
            return self.random.choice(kind.names)
        if isinstance(kind, Flag):
            return self.often(0.3)
        return number if kind is VCPU else ANY[id(kind)](self)

    # ---- operations whose arguments belong together

    def enable_cap(self, number: int) -> Call:
        """Mostly a pair for one vCPU."""
        on = {"fd": "vcpu", "vcpu": number} if self.often(0.85) else {"fd": "vm"}
        cap = self.random.choice((*(KVM_CAP_FORCE_SPEC_CTRL,) * 12, KVM_CAP_X86_USER_SPACE_MSR, 7))
        return {**on, "args": self.pair(), "cap": cap, "flags": int(self.often(0.05))}

    def create_vcpu(self, number: int) -> Call:
        """One that exists already, or one too many."""
        return {"vcpu": self.random.choice((number, 4096))}

    def wrmsr(self, number: int) -> Call:
        """A guest's write."""
        msr = self.msr()
        return {"vcpu": number, "msr": msr, "value": self.value_for(msr)}

    def set_msr_filter(self, _number: int) -> Call:
        """A whole filter."""
        count = 17 if self.often(0.02) else self.random.choice((0, 1, 1, 2, 3))
        default = self.random.choice(("allow", "allow", "deny"))
        return {"default": default, "ranges": [self.filter_range() for _ in range(count)]}

    def reply_msr_exit(self, number: int) -> Call:
        """Userspace's answer to an exit, if one is pending."""
        pending = self.machine.vcpus[number].pending_exit
        error = self.often(0.3)
        if error or pending is None or pending.kind is ExitKind.WRMSR:
            return {"vcpu": number, "error": error}
        return {"vcpu": number, "value": self.word()}

    def migrate(self, number: int) -> Call:
        """A move; the MSRs that carry state are mostly among those that are carried."""
        call = self.arguments("migrate", number)
        call.pop("vmm", None)  # a target is a hypervisor, moved as this specification asks
        if self.often(0.6):
            call.pop("features", None)  # most destinations show what the source did
        if "msrs" in call:
            call["msrs"] = self.random.sample([IA32_SPEC_CTRL, MSR_VIRTUAL_MITIGATION_CTRL], 2) + call["msrs"][:1]
        return call

    def bare_stay(self, _number: int) -> Call:
        """A stay in a guest without KVM; each field and area is there now and then."""
        words = OPERATIONS["bare_stay"].optional
        flags = ("virtualize", "load_on_entry", "load_on_exit", "exit_store", "read")
        offers = [control for control in ("entry", "exit") if self.often(0.7)]
        return {"offers": offers, **{name: True for name in flags if self.often(0.4)},
                **{name: self.word() for name in words if self.often(0.3)}}


ANY: dict[int, Callable[[Chooser], Any]] = {id(kind): choose for kind, choose in (
    (WORD, Chooser.word), (MSR, Chooser.msr), (MSRS, Chooser.msrs), (PAIRS, Chooser.pairs), (HOST, Chooser.any_host),
    (INTERCEPT, Chooser.intercept), (LABEL, lambda chooser: chooser.random.choice("ab")),
    (CAP, lambda chooser: chooser.random.choice((*CAP_NUMBERS.values(), 1))), (GUEST_FEATURES, Chooser.cpuid),
)}
"""How a value of each kind is chosen."""

OWN: dict[str, Callable[[Chooser, int], Call]] = {
    "enable_cap": Chooser.enable_cap, "create_vcpu": Chooser.create_vcpu, "wrmsr": Chooser.wrmsr,
    "set_msr_filter": Chooser.set_msr_filter, "reply_msr_exit": Chooser.reply_msr_exit, "migrate": Chooser.migrate,
    "bare_stay": Chooser.bare_stay,
}
"""The operations whose arguments are not simply any of their kinds."""
