"""Random steps of histories: each one that can happen in the state that the emulator is in."""

from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from specctrl.model.kvm.vcpu import Vcpu
from specctrl.model.outcomes import ExitKind
from specctrl.model.parts import FEATURES, NOT_IN_CPUID, PARTS, resolve_host
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
from specctrl.scenario.machine import Machine

Call = dict[str, Any]
"""A step as the emulator is given it: ``op`` and its arguments, numbers as ints."""

_BITS = [field.mask for field in REGISTERS["IA32_SPEC_CTRL"]]
_LABELS = ("a", "b")
_RANGES = ((0x40, 16), (IA32_SPEC_CTRL, 1), (IA32_ARCH_CAPABILITIES, 1), (MSR_VIRTUAL_ENUMERATION, 3), (0x800, 64))
"""Where the ranges of a filter start, and how long they are at the most."""


class Chooser:
    """Makes the steps of one history; ``machine`` performs each before the next is chosen."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.host = self.any_host()
        self.assume = {"init-withdraws-report": self.often(0.9), "vm-entry-loads-shadow": self.often(0.1)}
        self.machine = Machine(self.host, assume=self.assume, record=False)

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

    def pairs(self, most: int) -> list[list[int]]:
        """An MSR list to load."""
        count = self.random.choice((0, 0, 1, 1, self.random.randint(0, most)))
        msrs = [self.msr() for _ in range(count)]
        return [[msr, self.value_for(msr)] for msr in msrs]

    def msrs(self, most: int) -> list[int]:
        """An MSR list to store."""
        return [self.msr() for _ in range(self.random.choice((0, 1, self.random.randint(0, most))))]

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
        for number in range(self.random.choice((1, 1, 1, 2, 2, 3))):
            call: Call = {"op": "create_vcpu", "vcpu": number}
            if self.often(0.3):
                call["features"] = [name for name in FEATURES if name not in NOT_IN_CPUID and self.often(0.8)]
            yield call
            if self.often(0.8):
                offer = [[MSR_VIRTUAL_ENUMERATION, 1], [MSR_VIRTUAL_MITIGATION_ENUM, self.random.choice((3, 3, 1, 2))]]
                yield {"op": "set_msrs", "vcpu": number, "msrs": offer}

    def event(self) -> Call:
        """A step that can happen now."""
        number = self.random.choice(tuple(self.machine.vcpus))
        vcpu = self.machine.vcpus[number]
        if vcpu.shut_down and self.often(0.3):
            return {"op": "reset_vcpu", "vcpu": number}
        while True:
            name = self.random.choices(_NAMES, _WEIGHTS)[0]
            possible, arguments = CHOICES[name][1:]
            if possible(self, vcpu):
                return {"op": name, **arguments(self, number)}

    def reply(self, number: int) -> Call:
        """Userspace's answer to the exit that is pending."""
        error = self.often(0.3)
        pending = self.machine.vcpus[number].pending_exit
        assert pending is not None
        if error or pending.kind is ExitKind.WRMSR:
            return {"vcpu": number, "error": error}
        return {"vcpu": number, "value": self.word()}

    def state(self, number: int) -> Call:
        """A nested state that was saved before."""
        call: Call = {"vcpu": number, "state": self.random.choice(tuple(self.machine.saved_states))}
        if self.often(0.5):
            call["run_pending"] = self.often(0.5)
        return call

    def move(self) -> Call:
        """A migration."""
        call: Call = {"to": self.any_host(), "order": self.random.choice(("nested-first", "msrs-first")),
                      "force": self.random.choice(("keep", "keep", "drop"))}
        if self.often(0.3):
            call["msrs"] = self.random.sample([IA32_SPEC_CTRL, MSR_VIRTUAL_MITIGATION_CTRL], 2) + self.msrs(1)
        return call

    def wrmsr(self, number: int) -> Call:
        """A guest's write."""
        msr = self.msr()
        return {"vcpu": number, "msr": msr, "value": self.value_for(msr)}

    def all_can_move(self) -> bool:
        """Whether no vCPU waits for a reply or has shut down."""
        return not any(vcpu.pending_exit or vcpu.shut_down for vcpu in self.machine.vcpus.values())

    def filter(self) -> Call:
        """A whole filter."""
        count = 17 if self.often(0.02) else self.random.choice((0, 1, 1, 2, 3))
        default = self.random.choice(("allow", "allow", "deny"))
        return {"default": default, "ranges": [self.filter_range() for _ in range(count)]}


def _always(_: Chooser, vcpu: Vcpu) -> bool:
    return True


def _pending(_: Chooser, vcpu: Vcpu) -> bool:
    return vcpu.pending_exit is not None


def _not_pending(_: Chooser, vcpu: Vcpu) -> bool:
    return vcpu.pending_exit is None


def _running(_: Chooser, vcpu: Vcpu) -> bool:
    return vcpu.pending_exit is None and not vcpu.shut_down


def _can_enter(chooser: Chooser, vcpu: Vcpu) -> bool:
    return _running(chooser, vcpu) and chooser.machine.host.nested and vcpu.level == 1 and not vcpu.smm


def _can_vmxoff(chooser: Chooser, vcpu: Vcpu) -> bool:
    return _running(chooser, vcpu) and vcpu.level == 1 and not vcpu.smm and vcpu.vmx_operation


Possible = Callable[[Chooser, Vcpu], bool]
Arguments = Callable[[Chooser, int], Call]

CHOICES: dict[str, tuple[float, Possible, Arguments]] = {
    "check_extension": (0.2, _always, lambda c, n: {"cap": c.random.choice((*CAP_NUMBERS.values(), 1)), "fd": "vm"}),
    "get_supported_force_spec_ctrl": (0.2, _always, lambda c, n: {
        "fd": c.random.choice(("kvm", "kvm", "vm")), "bad_pointer": c.often(0.2)}),
    "enable_cap": (4, _always, lambda c, n: {
        **({"fd": "vcpu", "vcpu": n} if c.often(0.85) else {"fd": "vm"}), "args": c.pair(),
        "cap": c.random.choice((*(KVM_CAP_FORCE_SPEC_CTRL,) * 12, KVM_CAP_X86_USER_SPACE_MSR, 7)),
        "flags": int(c.often(0.05))}),
    "create_vcpu": (0.1, _always, lambda c, n: {"vcpu": c.random.choice((n, 4096))}),
    "get_msrs": (2, _always, lambda c, n: {"vcpu": n, "msrs": c.msrs(4)}),
    "set_msrs": (6, _always, lambda c, n: {"vcpu": n, "msrs": c.pairs(4)}),
    "get_feature_msrs": (0.2, _always, lambda c, n: {"msrs": c.msrs(3)}),
    "get_msr_index_list": (0.2, _always, lambda c, n: {}),
    "get_msr_feature_index_list": (0.1, _always, lambda c, n: {}),
    "set_msr_filter": (1.2, _always, lambda c, n: c.filter()),
    "reply_msr_exit": (40, _pending, lambda c, n: c.reply(n)),
    "reset_vcpu": (0.7, _not_pending, lambda c, n: {"vcpu": n}),
    "get_nested_state": (2, _always, lambda c, n: {"vcpu": n, "state": c.random.choice(_LABELS)}),
    "set_nested_state": (2, lambda c, _: bool(c.machine.saved_states), lambda c, n: c.state(n)),
    "migrate": (1.5, lambda c, _: c.all_can_move(), lambda c, n: c.move()),
    "rdmsr": (8, _running, lambda c, n: {"vcpu": n, "msr": c.msr()}),
    "wrmsr": (22, _running, lambda c, n: c.wrmsr(n)),
    "nested_enter": (9, _can_enter, lambda c, n: {
        "vcpu": n, "msr_load": c.pairs(3), "intercept": c.intercept(),
        "exit_msr_store": c.msrs(2) if c.often(0.3) else [], "exit_msr_load": c.pairs(2) if c.often(0.3) else []}),
    "nested_exit": (9, lambda c, v: _running(c, v) and v.level == 2, lambda c, n: {
        "vcpu": n, "msr_store": c.msrs(2), "msr_load": c.pairs(2)}),
    "init": (1.5, _running, lambda c, n: {"vcpu": n}),
    "vmxoff": (2, _can_vmxoff, lambda c, n: {"vcpu": n}),
    "smi": (2, lambda c, v: _running(c, v) and not v.smm, lambda c, n: {"vcpu": n}),
    "rsm": (5, lambda c, v: _running(c, v) and v.smm, lambda c, n: {"vcpu": n}),
    "exit": (6, _running, lambda c, n: {"vcpu": n}),
}
"""Every operation but ``boot`` and ``observe``: how often it is chosen, when it is possible, with which arguments."""

_NAMES = tuple(CHOICES)
_WEIGHTS = tuple(weight for weight, _, _ in CHOICES.values())
