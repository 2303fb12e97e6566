"""The events of an exploration: how a scenario writes each, the rule code performs it, the contract expects it to end.

What the contract does not know, the guest's mode (VMX operation, SMM, a pending INIT), is kept beside it.
"""

import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from specctrl.exploration.snapshot import CONTROLS
from specctrl.model.contract import Contract, ReportKeptBy
from specctrl.model.kvm.vcpu import Vcpu
from specctrl.model.outcomes import GP, Blocked, Errno, Fault, NestedEntryFailed, Reflected, VmxAbort
from specctrl.model.parts import Features, Host
from specctrl.model.registers import (
    IA32_SPEC_CTRL,
    KVM_CAP_FORCE_SPEC_CTRL,
    MSR_VIRTUAL_ENUMERATION,
    MSR_VIRTUAL_MITIGATION_CTRL,
    RRSBA_DIS_S,
)
from specctrl.model.vmm.migration import STATE_MSRS

RESERVED = 1 << 31
"""A bit that no host accepts: it can stand in a mask, and then in the guest's view."""

CPUID = Features(spec_ctrl=True, arch_capabilities=True)
"""What an explored guest is shown, wherever it runs, unless its world says otherwise."""

HostSpec = str | dict[str, Any]
Pair = tuple[int, int]


# ---- what must be seen


@dataclass(frozen=True, slots=True)
class Expected:
    """Where the contract is, and in which mode the guest: a state of the specification."""

    host: int
    user_mask: int
    user_value: int
    view: int = 0
    report: int = 0
    level: int = 1
    vmx: bool = False  # L1 is in VMX operation
    smm: bool = False
    back_to_level2: bool = False  # where RSM goes
    back_to_vmx: bool = False
    init_pending: bool = False
    no_bitmap: bool = False  # L1 sees every MSR access of its L2
    shut_down: bool = False


@dataclass(frozen=True, slots=True)
class World:
    """What is fixed in one exploration: the hosts that a VM can move to, its pair, what its guest is offered."""

    specs: tuple[HostSpec, ...]
    hosts: tuple[Host, ...]
    pair: Pair
    offered: int
    cpuid: Features = CPUID  # what the guest is shown, wherever it runs
    bit_63: bool = True  # whether IA32_ARCH_CAPABILITIES announces the virtual MSRs

    @property
    def announced(self) -> bool:
        """Whether the guest is shown the virtual MSRs."""
        return self.cpuid.arch_capabilities and self.bit_63

    def contract(self, at: Expected) -> Contract:
        """The contract in this state."""
        return Contract(
            host=self.hosts[at.host],
            cpuid=self.cpuid,
            announced=self.announced,
            kept_by=ReportKeptBy.KVM,
            offered=self.offered,
            guest_view=at.view,
            user_mask=at.user_mask,
            user_value=at.user_value,
            report=at.report,
            level=at.level,
        )


Seen = Any
"""What a step shows: None, a value, or the type and arguments of an outcome."""

FAULT: Seen = (Fault, (GP,))
REFLECTED: Seen = (Reflected, ())
BLOCKED: Seen = (Blocked, ())
ABORTED: Seen = (VmxAbort, ())
EINVAL: Seen = (Errno, (errno.EINVAL,))
REFUSED: Seen = "refused"


def guest_writes(contract: Contract, msr: int, value: int) -> bool:
    """Whether the contract takes a guest's write."""
    try:
        if msr == IA32_SPEC_CTRL:
            contract.write_view(value)
        elif msr == MSR_VIRTUAL_MITIGATION_CTRL:
            contract.write_report(value)
        else:
            return False
    except Fault:
        return False
    return True


def after(at: Expected, contract: Contract, **changes: Any) -> Expected:
    """The state with the contract's words and these changes of the mode."""
    words = {
        "view": contract.guest_view,
        "report": contract.report,
        "user_mask": contract.user_mask,
        "user_value": contract.user_value,
    }
    return replace(at, **{**words, **changes})


# ---- events


@dataclass(frozen=True, slots=True)
class Event:
    """One step: as a scenario writes it, as the rule code performs it, as the contract expects it."""

    step: dict[str, Any]
    perform: Callable[[Vcpu], Seen]
    expect: Callable[[World, Expected], tuple[Seen, Expected]]
    possible: Callable[[Expected], bool]
    violates: str  # the property that is violated if something else is seen
    moves_to: int | None = None  # the host, for a migration
    order: str = ""
    resets: bool = False  # whether it leaves view 0 and exactly userspace's pair in force, where it is performed

    @property
    def op(self) -> str:
        """The operation."""
        return str(self.step["op"])


MsrPairs = tuple[tuple[int, int], ...]


def alive(at: Expected) -> bool:
    """Anything can happen, except to a vCPU that has shut down."""
    return not at.shut_down


def at_level_2(at: Expected) -> bool:
    """L2 runs."""
    return at.level == 2 and not at.shut_down


def can_enter(at: Expected) -> bool:
    """L1 can execute VMLAUNCH."""
    return at.level == 1 and not at.smm and not at.shut_down


def wrmsr(msr: int, value: int) -> Event:
    """The guest writes an MSR."""

    def perform(vcpu: Vcpu) -> Seen:
        vcpu.wrmsr(msr, value)

    def expect(world: World, at: Expected) -> tuple[Seen, Expected]:
        if at.level == 2 and (at.no_bitmap or msr != IA32_SPEC_CTRL):
            return REFLECTED, replace(at, level=1)
        contract = world.contract(at)
        done = guest_writes(contract, msr, value)
        return (None if done else FAULT), after(at, contract)

    step = {"op": "wrmsr", "msr": msr, "value": value}
    return Event(step, perform, expect, alive, "mechanism_refines_contract")


def rdmsr() -> Event:
    """The guest reads IA32_SPEC_CTRL."""

    def perform(vcpu: Vcpu) -> Seen:
        return vcpu.rdmsr(IA32_SPEC_CTRL)

    def expect(_world: World, at: Expected) -> tuple[Seen, Expected]:
        if at.level == 2 and at.no_bitmap:
            return REFLECTED, replace(at, level=1)
        return at.view, at

    step = {"op": "rdmsr", "msr": IA32_SPEC_CTRL}
    return Event(step, perform, expect, alive, "guest_reads_what_it_wrote")


def rdmsr_enumeration() -> Event:
    """The guest reads MSR_VIRTUAL_ENUMERATION."""

    def perform(vcpu: Vcpu) -> Seen:
        return vcpu.rdmsr(MSR_VIRTUAL_ENUMERATION)

    def expect(world: World, at: Expected) -> tuple[Seen, Expected]:
        if at.level == 2:
            return REFLECTED, replace(at, level=1)
        return (1 if world.announced else FAULT), at

    step = {"op": "rdmsr", "msr": MSR_VIRTUAL_ENUMERATION}
    return Event(step, perform, expect, alive, "mechanism_refines_contract")


def host_exit() -> Event:
    """The guest runs, and an interrupt brings the host back."""

    def perform(vcpu: Vcpu) -> Seen:
        vcpu.run()
        vcpu.exit_guest()

    return Event({"op": "exit"}, perform, lambda _, at: (None, at), alive, "mechanism_refines_contract")


def nested_enter(msr_load: MsrPairs = (), bitmap: bool = True) -> Event:
    """L1 enters L2, with a VM-entry MSR-load list."""
    controls = CONTROLS[bitmap]

    def perform(vcpu: Vcpu) -> Seen:
        vcpu.vmlaunch(controls, msr_load)

    def expect(world: World, at: Expected) -> tuple[Seen, Expected]:
        contract = world.contract(at)
        for entry, (msr, value) in enumerate(msr_load, start=1):
            if not guest_writes(contract, msr, value):
                return (NestedEntryFailed, (entry,)), after(at, contract, vmx=True, no_bitmap=not bitmap)
        if at.init_pending:
            return REFLECTED, after(at, contract, level=1, vmx=True, no_bitmap=not bitmap, init_pending=False)
        return None, after(at, contract, level=2, vmx=True, no_bitmap=not bitmap)

    step: dict[str, Any] = {"op": "nested_enter"}
    if msr_load:
        step["msr_load"] = [list(pair) for pair in msr_load]
    if not bitmap:
        step["intercept"] = "all"
    return Event(step, perform, expect, can_enter, "mechanism_refines_contract")


def nested_exit(msr_load: MsrPairs = ()) -> Event:
    """L2 exits to L1, with a VM-exit MSR-load list."""

    def perform(vcpu: Vcpu) -> Seen:
        vcpu.vmcall((), msr_load)

    def expect(world: World, at: Expected) -> tuple[Seen, Expected]:
        contract = world.contract(at)
        if all(guest_writes(contract, msr, value) for msr, value in msr_load):
            return None, after(at, contract, level=1)
        return ABORTED, after(at, contract, level=1, shut_down=True)

    step: dict[str, Any] = {"op": "nested_exit"}
    if msr_load:
        step["msr_load"] = [list(pair) for pair in msr_load]
    return Event(step, perform, expect, at_level_2, "mechanism_refines_contract")


def init() -> Event:
    """INIT, then SIPI."""

    def expect(world: World, at: Expected) -> tuple[Seen, Expected]:
        if at.smm or (at.vmx and at.level == 1):
            return BLOCKED, replace(at, init_pending=True)
        if at.level == 2:
            return REFLECTED, replace(at, level=1)
        contract = world.contract(at)
        contract.init()
        return None, after(at, contract)

    return Event({"op": "init"}, Vcpu.init, expect, alive, "mechanism_refines_contract", resets=True)


def pending_init(world: World, at: Expected) -> Expected:
    """After VMXOFF and RSM: an INIT that nothing blocks any more takes effect."""
    if not at.init_pending or at.vmx or at.smm:
        return at
    contract = world.contract(at)
    contract.init()
    return after(at, contract, init_pending=False)


def vmxoff() -> Event:
    """L1 leaves VMX operation."""

    def expect(world: World, at: Expected) -> tuple[Seen, Expected]:
        return None, pending_init(world, replace(at, vmx=False))

    def possible(at: Expected) -> bool:
        return can_enter(at) and at.vmx

    return Event({"op": "vmxoff"}, lambda vcpu: vcpu.vmxoff(), expect, possible, "mechanism_refines_contract")


def smi() -> Event:
    """An SMI."""

    def expect(_world: World, at: Expected) -> tuple[Seen, Expected]:
        return None, replace(
            at, smm=True, level=1, vmx=False, back_to_level2=at.level == 2, back_to_vmx=at.vmx
        )

    def possible(at: Expected) -> bool:
        return not at.smm and not at.shut_down

    return Event({"op": "smi"}, lambda vcpu: vcpu.smi(), expect, possible, "mechanism_refines_contract")


def rsm() -> Event:
    """SMM returns to where it came from."""

    def expect(world: World, at: Expected) -> tuple[Seen, Expected]:
        level = 2 if at.back_to_level2 else 1
        back = replace(
            at, smm=False, level=level, vmx=at.back_to_vmx, back_to_level2=False, back_to_vmx=False
        )
        if back.init_pending and back.level == 2:
            return REFLECTED, replace(back, level=1, init_pending=False)
        return None, pending_init(world, back)

    def possible(at: Expected) -> bool:
        return at.smm and not at.shut_down

    return Event({"op": "rsm"}, lambda vcpu: vcpu.rsm(), expect, possible, "mechanism_refines_contract")


def set_msr(msr: int, value: int) -> Event:
    """KVM_SET_MSRS of one MSR."""

    def perform(vcpu: Vcpu) -> Seen:
        return vcpu.set_msrs(((msr, value),))

    def expect(world: World, at: Expected) -> tuple[Seen, Expected]:
        contract = world.contract(at)
        done = contract.restore_view(value) if msr == IA32_SPEC_CTRL else contract.restore_report(value)
        return int(done), after(at, contract)

    step = {"op": "set_msrs", "msrs": [[msr, value]]}
    return Event(step, perform, expect, alive, "mechanism_refines_contract")


def get_msrs() -> Event:
    """KVM_GET_MSRS of the two MSRs that a migration carries."""

    def perform(vcpu: Vcpu) -> Seen:
        return vcpu.get_msrs(STATE_MSRS)

    step = {"op": "get_msrs", "msrs": list(STATE_MSRS)}
    return Event(step, perform, lambda _, at: ([at.view, at.report], at), alive, "get_msrs_is_the_view")


def force(mask: int, value: int) -> Event:
    """KVM_CAP_FORCE_SPEC_CTRL on the vCPU fd."""

    def perform(vcpu: Vcpu) -> Seen:
        vcpu.enable_cap(KVM_CAP_FORCE_SPEC_CTRL, 0, mask, value)

    def expect(world: World, at: Expected) -> tuple[Seen, Expected]:
        contract = world.contract(at)
        done = contract.userspace_force(mask, value)
        return (None if done else EINVAL), after(at, contract)

    step = {"op": "enable_cap", "fd": "vcpu", "vcpu": 0, "cap": "KVM_CAP_FORCE_SPEC_CTRL", "args": [mask, value]}
    return Event(step, perform, expect, alive, "mechanism_refines_contract")


def nested_state() -> Event:
    """KVM_GET_NESTED_STATE, and KVM_SET_NESTED_STATE with what it gave."""

    def perform(vcpu: Vcpu) -> Seen:
        vcpu.restore_nested(vcpu.save_nested())

    return Event({"op": "nested_state"}, perform, lambda _, at: (None, at), alive, "mechanism_refines_contract")


def platform_reset() -> Event:
    """Userspace resets the platform."""

    def expect(world: World, at: Expected) -> tuple[Seen, Expected]:
        contract = world.contract(at)
        contract.restore_view(0)
        contract.restore_report(0)
        mode = Expected(at.host, 0, 0, no_bitmap=at.no_bitmap)
        return None, after(mode, contract)

    return Event(
        {"op": "reset_vcpu"}, Vcpu.platform_reset, expect, lambda _: True, "mechanism_refines_contract", resets=True
    )


def migration(to: int, spec: HostSpec, order: str) -> Event:
    """The VM moves to another host; the search performs it (``Search.move``)."""

    def expect(world: World, at: Expected) -> tuple[Seen, Expected]:
        moved = world.contract(at).move(world.hosts[to])
        return (None, replace(at, host=to)) if moved else (REFUSED, at)

    def possible(at: Expected) -> bool:
        return at.host != to and not at.shut_down

    step = {"op": "migrate", "to": spec, "order": order}
    return Event(step, lambda _: None, expect, possible, "migration_is_identity", to, order)


def subsets(bits: int) -> list[int]:
    """Every word whose bits are among these, smallest number of bits first."""
    each = [1 << position for position in range(64) if bits >> position & 1]
    return [sum(chosen) for count in range(len(each) + 1) for chosen in combinations(each, count)]


def pairs_of(bits: int) -> list[Pair]:
    """Every pair of mask and value over these bits."""
    return [(mask, value) for mask in subsets(bits) for value in subsets(mask)]


def all_events(world: World, bits: int, vcpu_pairs: Sequence[Pair]) -> list[Event]:
    """Every event of an exploration over these bits."""
    values = subsets(bits)
    if any(mask & RESERVED for mask, _ in (world.pair, *vcpu_pairs)):
        values += [RESERVED, RESERVED | values[1]]
    reports = [report for report in (0, 1, 2, 3) if bits & RRSBA_DIS_S or not report & 2]
    all_reports = reports[-1]
    spec_ctrl, report_msr = IA32_SPEC_CTRL, MSR_VIRTUAL_MITIGATION_CTRL
    fails = (MSR_VIRTUAL_ENUMERATION, 0)
    return [
        host_exit(),  # first, so that of two shortest histories the one that ends with a plain exit is found
        *(set_msr(spec_ctrl, value) for value in values),
        *(set_msr(report_msr, report) for report in reports),
        *(wrmsr(spec_ctrl, value) for value in values),
        *(wrmsr(report_msr, report) for report in reports),
        rdmsr(),
        *([] if world.announced else [rdmsr_enumeration()]),
        nested_enter(),
        nested_enter(bitmap=False),
        nested_enter(((spec_ctrl, values[1]),)),
        nested_enter(((report_msr, all_reports),)),
        nested_enter(((report_msr, 0),)),
        nested_enter(((spec_ctrl, values[1]), fails)),
        nested_enter(((report_msr, all_reports), fails)),
        nested_exit(),
        nested_exit(((spec_ctrl, values[1]),)),
        nested_exit(((report_msr, all_reports),)),
        nested_exit(((spec_ctrl, values[1]), fails)),
        init(),
        vmxoff(),
        smi(),
        rsm(),
        get_msrs(),
        *(force(*pair) for pair in vcpu_pairs),
        nested_state(),
        platform_reset(),
        *(
            migration(to, spec, order)
            for to, spec in enumerate(world.specs)
            for order in ("nested-first", "msrs-first")
        ),
    ]
