"""The events of an exploration: how a scenario writes each, and how the rule code and the contract perform it."""

import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from specctrl.exploration.snapshot import CONTROLS
from specctrl.model.contract import Contract, ReportKeptBy
from specctrl.model.kvm.vcpu import Vcpu
from specctrl.model.outcomes import GP, Errno, Fault
from specctrl.model.parts import Features, Host
from specctrl.model.registers import (
    IA32_SPEC_CTRL,
    KVM_CAP_FORCE_SPEC_CTRL,
    MSR_VIRTUAL_ENUMERATION,
    MSR_VIRTUAL_MITIGATION_CTRL,
    RRSBA_DIS_S,
)
from specctrl.model.vmm.vmms import STATE_MSRS

RESERVED = 1 << 31
"""A bit that no host accepts: it can stand in a mask, and then in the guest's view."""

CPUID = Features(spec_ctrl=True, arch_capabilities=True)
"""What an explored guest is shown, wherever it runs, unless its world says otherwise."""

HostSpec = str | dict[str, Any]
Pair = tuple[int, int]


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

    def contract(self, host: Host) -> Contract:
        """The contract of a new vCPU on one of the hosts."""
        mask, value = self.pair
        return Contract(host, self.cpuid, ReportKeptBy.KVM, self.offered, self.announced,
                        user_mask=mask, user_value=value)


Ended = Any
"""What a step shows: None, a value, or the type and arguments of an outcome."""

REFUSED: Ended = "refused"


# ---- events


def alive(at: Contract) -> bool:
    """Anything can happen, except to a vCPU that has shut down."""
    return not at.shut_down


def at_level_2(at: Contract) -> bool:
    """L2 runs."""
    return at.level == 2 and not at.shut_down


def can_enter(at: Contract) -> bool:
    """L1 can execute VMLAUNCH."""
    return at.level == 1 and not at.smm and not at.shut_down


def _can_leave_vmx(at: Contract) -> bool:
    return can_enter(at) and bool(at.vmx_operation)


def _outside_smm(at: Contract) -> bool:
    return alive(at) and not at.smm


def _in_smm(at: Contract) -> bool:
    return alive(at) and bool(at.smm)


def _always(_: Contract) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Event:
    """One step: as a scenario writes it, as the rule code performs it, as the contract performs it."""

    step: dict[str, Any]
    perform: Callable[[Vcpu], Ended]
    expect: Callable[[Contract], Ended]
    possible: Callable[[Contract], bool] = alive
    violates: str = "mechanism_refines_contract"  # the property that is violated if something else is seen
    moves_to: int | None = None  # the host, for a migration
    order: str = ""
    resets: bool = False  # whether it leaves view 0 and exactly userspace's pair in force, where it is performed
    form: tuple[Any, ...] = ()  # what makes it: a function, and its arguments before the words
    words: tuple[int, ...] = ()  # its last arguments

    @property
    def op(self) -> str:
        """The operation."""
        return str(self.step["op"])

    def with_words(self, words: Sequence[int]) -> "Event":
        """The same event with other words; they may be symbolic."""
        make, *fixed = self.form
        made: Event = make(*fixed, *words)
        return replace(made, possible=self.possible, violates=self.violates)


MsrPairs = tuple[tuple[int, int], ...]


def alike(step: dict[str, Any], perform: Callable[[Any], Ended], **more: Any) -> Event:
    """An event that rule code and contract perform by the same name."""
    return Event(step, perform, perform, **more)


def wrmsr(msr: int, value: int) -> Event:
    """The guest writes an MSR."""
    return alike({"op": "wrmsr", "msr": msr, "value": value}, lambda vcpu: vcpu.wrmsr(msr, value),
                 form=(wrmsr, msr), words=(value,))


def rdmsr() -> Event:
    """The guest reads IA32_SPEC_CTRL."""
    step = {"op": "rdmsr", "msr": IA32_SPEC_CTRL}
    return alike(step, lambda vcpu: vcpu.rdmsr(IA32_SPEC_CTRL), violates="guest_reads_what_it_wrote", form=(rdmsr,))


def rdmsr_enumeration() -> Event:
    """The guest reads MSR_VIRTUAL_ENUMERATION."""

    def expect(contract: Contract) -> Ended:
        contract.show_l1(MSR_VIRTUAL_ENUMERATION, write=False)
        if not contract.announced:
            raise Fault(GP)
        return 1

    step = {"op": "rdmsr", "msr": MSR_VIRTUAL_ENUMERATION}
    return Event(step, lambda vcpu: vcpu.rdmsr(MSR_VIRTUAL_ENUMERATION), expect, form=(rdmsr_enumeration,))


def host_exit() -> Event:
    """The guest runs, and an interrupt brings the host back."""

    def perform(vcpu: Vcpu) -> Ended:
        vcpu.run()
        vcpu.exit_guest()

    return Event({"op": "exit"}, perform, lambda _: None, form=(host_exit,))


def nested_enter(msr_load: MsrPairs = (), bitmap: bool = True) -> Event:
    """L1 enters L2, with a VM-entry MSR-load list."""
    controls = CONTROLS[bitmap]
    step: dict[str, Any] = {"op": "nested_enter"}
    if msr_load:
        step["msr_load"] = [list(pair) for pair in msr_load]
    if not bitmap:
        step["intercept"] = "all"
    msrs, values = _apart(msr_load)
    return alike(step, lambda vcpu: vcpu.vmlaunch(controls, msr_load), possible=can_enter,
                 form=(_enter_with, bitmap, msrs), words=values)


def nested_exit(msr_load: MsrPairs = ()) -> Event:
    """L2 exits to L1, with a VM-exit MSR-load list."""

    def perform(vcpu: Vcpu) -> Ended:
        vcpu.vmcall((), msr_load)

    step: dict[str, Any] = {"op": "nested_exit"}
    if msr_load:
        step["msr_load"] = [list(pair) for pair in msr_load]
    msrs, values = _apart(msr_load)
    return Event(step, perform, lambda contract: contract.leave_l2(msr_load), at_level_2,
                 form=(_exit_with, msrs), words=values)


def _apart(msr_load: MsrPairs) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The MSRs of a list, and what is loaded into them."""
    return tuple(msr for msr, _ in msr_load), tuple(value for _, value in msr_load)


def _enter_with(bitmap: bool, msrs: tuple[int, ...], *values: int) -> Event:
    return nested_enter(tuple(zip(msrs, values, strict=True)), bitmap)


def _exit_with(msrs: tuple[int, ...], *values: int) -> Event:
    return nested_exit(tuple(zip(msrs, values, strict=True)))


def init() -> Event:
    """INIT, then SIPI."""
    return alike({"op": "init"}, lambda vcpu: vcpu.init(), resets=True, form=(init,))


def vmxoff() -> Event:
    """L1 leaves VMX operation."""
    return alike({"op": "vmxoff"}, lambda vcpu: vcpu.vmxoff(),
                 possible=_can_leave_vmx, form=(vmxoff,))


def smi() -> Event:
    """An SMI."""
    return alike({"op": "smi"}, lambda vcpu: vcpu.smi(), possible=_outside_smm, form=(smi,))


def rsm() -> Event:
    """SMM returns to where it came from."""
    return alike({"op": "rsm"}, lambda vcpu: vcpu.rsm(), possible=_in_smm, form=(rsm,))


def set_msr(msr: int, value: int) -> Event:
    """KVM_SET_MSRS of one MSR."""

    def expect(contract: Contract) -> Ended:
        return int(contract.restore_view(value) if msr == IA32_SPEC_CTRL else contract.restore_report(value))

    step = {"op": "set_msrs", "msrs": [[msr, value]]}
    return Event(step, lambda vcpu: vcpu.set_msrs(((msr, value),)), expect, form=(set_msr, msr), words=(value,))


def get_msrs() -> Event:
    """KVM_GET_MSRS of the two MSRs that a migration carries."""
    step = {"op": "get_msrs", "msrs": list(STATE_MSRS)}
    return Event(step, lambda vcpu: vcpu.get_msrs(STATE_MSRS),
                 lambda contract: [contract.guest_view, contract.report], violates="get_msrs_is_the_view",
                 form=(get_msrs,))


def force(mask: int, value: int) -> Event:
    """KVM_CAP_FORCE_SPEC_CTRL on the vCPU fd."""

    def expect(contract: Contract) -> Ended:
        if not contract.userspace_force(mask, value):
            raise Errno(errno.EINVAL)

    step = {"op": "enable_cap", "fd": "vcpu", "vcpu": 0, "cap": "KVM_CAP_FORCE_SPEC_CTRL", "args": [mask, value]}
    return Event(step, lambda vcpu: vcpu.enable_cap(KVM_CAP_FORCE_SPEC_CTRL, 0, mask, value), expect,
                 form=(force,), words=(mask, value))


def nested_state() -> Event:
    """KVM_GET_NESTED_STATE, and KVM_SET_NESTED_STATE with what it gave."""
    return Event({"op": "nested_state"}, lambda vcpu: vcpu.restore_nested(vcpu.save_nested()), lambda _: None,
                 form=(nested_state,))


def platform_reset() -> Event:
    """Userspace resets the platform."""
    step = {"op": "reset_vcpu"}
    return alike(step, lambda vcpu: vcpu.platform_reset(), possible=_always, resets=True, form=(platform_reset,))


def migration(to: int, spec: HostSpec, host: Host, order: str) -> Event:
    """The VM moves to another host; the search performs it (``Search.move``)."""
    step = {"op": "migrate", "to": spec, "order": order}
    return Event(step, lambda _: None, lambda contract: None if contract.move(host) else REFUSED,
                 lambda at: alive(at) and at.host is not host, "migration_is_identity", to, order)


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
            migration(to, spec, world.hosts[to], order)
            for to, spec in enumerate(world.specs)
            for order in ("nested-first", "msrs-first")
        ),
    ]
