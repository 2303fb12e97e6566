"""One host with its VM: performs the operations of the scenario format.

Each operation of :data:`specctrl.scenario.format.OPERATIONS` is a method with its name and arguments; it returns an
:class:`~specctrl.scenario.observation.Observation`.
An outcome of the history (a fault, an errno, …) is a key of the observation; only a history that
cannot happen raises, with :class:`specctrl.model.outcomes.Misuse`.
"""

from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import replace
from functools import wraps
from typing import Any, TypeVar, cast

from specctrl.model.contract import Intercept, L1Controls
from specctrl.model.guest import Kernel, KernelCpu, Software, boot
from specctrl.model.kvm.filters import FilterRange, MsrFilter
from specctrl.model.kvm.state import NestedState
from specctrl.model.kvm.system import (
    FEATURE_MSRS,
    check_extension,
    feature_msr,
    get_supported_force_spec_ctrl,
    msr_index_list,
)
from specctrl.model.kvm.variant import Assumptions, Variant
from specctrl.model.kvm.vcpu import Vcpu
from specctrl.model.outcomes import (
    ExitKind,
    Misuse,
    Outcome,
    UserspaceExit,
)
from specctrl.model.parts import (
    GUEST_FEATURES,
    NOT_IN_CPUID,
    Features,
    Host,
    features_from_names,
    guest_features,
    resolve_host,
)
from specctrl.model.registers import cap_number, check_word, msr_number
from specctrl.model.variants import VARIANTS
from specctrl.model.vmm.migration import Plan, migrate
from specctrl.model.vmm.vmms import VMMS
from specctrl.model.words import is_subset
from specctrl.scenario.bare import Stay, perform
from specctrl.scenario.format import ASSUMPTIONS, OPERATIONS
from specctrl.scenario.observation import Hex, Observation, describe, index_list, nested_flags, observe

Operation = TypeVar("Operation", bound=Callable[..., Observation])


def operation(method: Operation) -> Operation:
    """A method that performs one operation: outcomes become an observation, and the history gets a row."""

    @wraps(method)
    def perform(machine: "Machine", **arguments: Any) -> Observation:
        try:
            seen = method(machine, **arguments)
        except Outcome as outcome:
            seen = describe(outcome)
        if machine.record:
            machine.remember(method.__name__, arguments, seen)
        return seen

    return cast(Operation, perform)


MOST_ROWS = 10_000
"""So many operations does a machine remember."""

Msr = int | str
Pairs = Iterable[tuple[Msr, int]]


class Machine:
    """A host with one VM.

    ``host`` is a part's name, the format's host object, or a :class:`specctrl.model.parts.Host`; ``variant`` a name
    of :data:`~specctrl.model.variants.VARIANTS`, or a variant itself; ``assume`` switches assumptions.  ``record``
    keeps a row for each operation in ``history``, for timelines: the last :data:`MOST_ROWS`.

    >>> machine = Machine("sapphire-rapids")
    >>> machine.create_vcpu()
    {'ret': 0}
    >>> machine.wrmsr(msr="IA32_SPEC_CTRL", value=0x1)
    {}
    >>> machine.rdmsr(msr="IA32_SPEC_CTRL")
    {'value': 0x1}
    """

    def __init__(
        self,
        host: str | dict[str, Any] | Host = "sapphire-rapids",
        variant: str | Variant = "spec",
        assume: Mapping[str, bool] | None = None,
        record: bool = True,
    ) -> None:
        for name in assume or {}:
            if name not in ASSUMPTIONS:
                raise ValueError(f"no assumption is named {name!r}; known: {', '.join(ASSUMPTIONS)}")
        if isinstance(variant, str) and variant not in VARIANTS:
            raise ValueError(f"no variant is named {variant!r}; known: {', '.join(VARIANTS)}")
        self.variant = VARIANTS[variant] if isinstance(variant, str) else variant
        self.assume = Assumptions(**{name.replace("-", "_"): on for name, on in (assume or {}).items()})
        self.vm = self.variant.make_vm(resolve_host(host))
        self.vcpus: dict[int, Vcpu] = {}
        self.saved_states: dict[str, NestedState] = {}
        self.guests: dict[int, Software] = {}
        self.record = record
        self.history: list[dict[str, Any]] = []

    @property
    def host(self) -> Host:
        """The host that the VM is on now."""
        return self.vm.host

    def perform(self, step: Mapping[str, Any]) -> Observation:
        """Perform one step of a scenario: ``op`` and its arguments; what it expects is not looked at.

        Misuse for an operation or an argument that does not exist, or that cannot be asked now.

        >>> Machine().perform({"op": "check_extension", "cap": 236})
        {'ret': 1}
        """
        arguments = {key: value for key, value in step.items() if key not in ("op", "expect")}
        name = step["op"]
        if name not in OPERATIONS:
            raise Misuse(f"there is no operation {name!r}")
        seen: Observation = getattr(self, name)(**arguments)
        return seen

    # ---- what userspace does

    @operation
    def check_extension(self, *, cap: Msr, fd: str = "vm") -> Observation:
        """KVM_CHECK_EXTENSION on the ``/dev/kvm`` or a VM fd; both answer alike."""
        one_of("fd", fd, ("kvm", "vm"))
        return Observation(ret=check_extension(self.host, cap_number(cap)))

    @operation
    def get_supported_force_spec_ctrl(self, *, fd: str = "kvm", bad_pointer: bool = False) -> Observation:
        """KVM_GET_SUPPORTED_FORCE_SPEC_CTRL: the ``/dev/kvm`` fd's; ENOTTY on a VM fd, EFAULT for a bad pointer.

        >>> Machine().get_supported_force_spec_ctrl()
        {'ret': 0, 'value': 0x447}
        """
        one_of("fd", fd, ("kvm", "vm"))
        return Observation(ret=0, value=Hex(get_supported_force_spec_ctrl(self.host, fd, bad_pointer)))

    @operation
    def enable_cap(
        self, *, cap: Msr, args: Iterable[int] = (), fd: str = "vm", vcpu: int = 0, flags: int = 0
    ) -> Observation:
        """KVM_ENABLE_CAP on the VM fd, or (proposed) on a vCPU fd.

        >>> machine = Machine()
        >>> machine.enable_cap(cap="KVM_CAP_FORCE_SPEC_CTRL", args=[0x400, 0x400])
        {'ret': 0}
        """
        one_of("fd", fd, ("vm", "vcpu"))
        first, second, *_ = [*args, 0, 0]
        if fd == "vm":
            self.vm.enable_cap(cap_number(cap), flags, word(first, "args[0]"), word(second, "args[1]"))
        else:
            self.vcpu(vcpu).enable_cap(
                cap_number(cap), flags, word(first, "args[0]"), word(second, "args[1]")
            )
        return Observation(ret=0)

    @operation
    def create_vcpu(self, *, vcpu: int = 0, features: Iterable[str] | None = None) -> Observation:
        """KVM_CREATE_VCPU and KVM_SET_CPUID2; ``features`` is the guest's CPUID, by default the host's."""
        if not 0 <= vcpu < 1 << 32:
            raise ValueError(f"vcpu is {vcpu}: a vCPU's number has 32 bits")
        cpuid = guest_features(self.host.features) if features is None else guest_cpuid(features)
        self.vm.count_vcpu(vcpu, exists=vcpu in self.vcpus)
        self.vcpus[vcpu] = self.variant.make_vcpu(self.vm, cpuid, self.assume)
        return Observation(ret=0)

    @operation
    def get_msrs(self, *, msrs: Iterable[Msr], vcpu: int = 0) -> Observation:
        """KVM_GET_MSRS on a vCPU fd: how many were read, and their values."""
        values = self.vcpu(vcpu).get_msrs(tuple(msr_number(msr) for msr in msrs))
        return Observation(ret=len(values), values=[Hex(value) for value in values])

    @operation
    def set_msrs(self, *, msrs: Pairs, vcpu: int = 0) -> Observation:
        """KVM_SET_MSRS on a vCPU fd: how many were written, up to the first that is refused."""
        return Observation(ret=self.vcpu(vcpu).set_msrs(msr_pairs(msrs)))

    @operation
    def get_feature_msrs(self, *, msrs: Iterable[Msr]) -> Observation:
        """KVM_GET_MSRS on the ``/dev/kvm`` fd: what KVM can offer.

        >>> Machine("ice-lake-server").get_feature_msrs(msrs=["MSR_VIRTUAL_ENUMERATION", 0x50000001])
        {'ret': 2, 'values': [0x1, 0x3]}
        """
        values: list[Hex] = []
        for msr in msrs:
            value = feature_msr(self.host, msr_number(msr))
            if value is None:
                break
            values.append(Hex(value))
        return Observation(ret=len(values), values=values)

    @operation
    def get_msr_index_list(self) -> Observation:
        """KVM_GET_MSR_INDEX_LIST, as far as modelled: the MSRs to save and restore."""
        return index_list(msr_index_list(self.host))

    @operation
    def get_msr_feature_index_list(self) -> Observation:
        """KVM_GET_MSR_FEATURE_INDEX_LIST, as far as modelled."""
        return index_list(FEATURE_MSRS)

    @operation
    def set_msr_filter(self, *, default: str = "allow", ranges: Iterable[Mapping[str, Any]] = ()) -> Observation:
        """KVM_X86_SET_MSR_FILTER on the VM fd; every vCPU that is in its guest is kicked out."""
        one_of("default", default, ("allow", "deny"))
        entries = tuple(filter_range(entry) for entry in ranges)
        self.vm.set_msr_filter(MsrFilter(default == "allow", entries))
        for vcpu in self.vcpus.values():
            vcpu.msr_filter_changed()
        return Observation(ret=0)

    @operation
    def reply_msr_exit(self, *, vcpu: int = 0, value: int | None = None, error: bool = False) -> Observation:
        """Userspace answers a pending MSR exit and runs the vCPU: the instruction completes or takes #GP."""
        target = self.vcpu(vcpu)
        if target.pending_exit is None:
            raise Misuse(f"vCPU {vcpu} has no exit pending")
        if value is not None and target.pending_exit.kind is ExitKind.WRMSR:
            raise Misuse("a pending WRMSR takes no value")
        if value is None and target.pending_exit.kind is ExitKind.RDMSR and not error:
            raise Misuse("a pending RDMSR needs a value or an error")
        result = target.reply(word(value or 0, "value"), error)
        return Observation() if result is None else Observation(value=Hex(result))

    @operation
    def reset_vcpu(self, *, vcpu: int = 0) -> Observation:
        """A platform reset by userspace: leaves nested and SMM, then writes 0x48 and 0x50000002 to 0."""
        target = self.vcpu(vcpu)
        if target.pending_exit is not None:
            raise Misuse(f"vCPU {vcpu} has an MSR exit pending; reply first")
        target.platform_reset()
        self.guests.pop(vcpu, None)
        return Observation(ret=0)

    @operation
    def get_nested_state(self, *, state: str, vcpu: int = 0) -> Observation:
        """KVM_GET_NESTED_STATE, kept under the scenario's own label."""
        if not isinstance(state, str):
            raise ValueError(f"state is {state!r}: not a label")
        saved = self.saved_states[state] = self.vcpu(vcpu).save_nested()
        return Observation(ret=0, nested_flags=nested_flags(saved))

    @operation
    def set_nested_state(self, *, state: str, vcpu: int = 0, run_pending: bool | None = None) -> Observation:
        """KVM_SET_NESTED_STATE with what was kept under the label; ``run_pending`` replaces the saved flag."""
        if state not in self.saved_states:
            raise Misuse(f"no nested state was saved as {state!r}")
        saved = self.saved_states[state]
        target = self.vcpu(vcpu)
        if run_pending is not None:
            saved = replace(saved, run_pending=run_pending)
        target.restore_nested(saved)
        return Observation(ret=0)

    @operation
    def migrate(
        self,
        *,
        to: str | dict[str, Any] | Host,
        order: str = "nested-first",
        msrs: Iterable[Msr] | None = None,
        force: str = "keep",
        features: Iterable[str] | None = None,
        vmm: str = "as-specified",
    ) -> Observation:
        """Move the whole VM; if a step at the destination fails, the source goes on unchanged.

        ``features``: the CPUID that the destination shows, if it is another.
        """
        one_of("order", order, ("nested-first", "msrs-first"))
        one_of("force", force, ("keep", "drop"))
        one_of("vmm", vmm, tuple(VMMS))
        cpuid = None if features is None else guest_cpuid(features)
        destination = resolve_host(to)
        carried = None if msrs is None else tuple(msr_number(msr) for msr in msrs)
        plan = Plan(destination, order == "nested-first", force == "keep", carried, cpuid, VMMS[vmm])
        for vcpu in [self.running(number) for number in self.vcpus]:
            vcpu.exit_guest()
        self.vm, self.vcpus = migrate(self.variant, self.assume, self.vm, self.vcpus, plan)
        return Observation()

    # ---- what the guest does

    @operation
    def rdmsr(self, *, msr: Msr, vcpu: int = 0) -> Observation:
        """The guest executes RDMSR at the level that runs now."""
        return Observation(value=Hex(self.running(vcpu).rdmsr(msr_number(msr))))

    @operation
    def wrmsr(self, *, msr: Msr, value: int, vcpu: int = 0) -> Observation:
        """The guest executes WRMSR at the level that runs now."""
        self.running(vcpu).wrmsr(msr_number(msr), word(value, "value"))
        return Observation()

    @operation
    def nested_enter(
        self,
        *,
        vcpu: int = 0,
        msr_load: Pairs = (),
        intercept: str | Iterable[Any] = (),
        exit_msr_store: Iterable[Msr] = (),
        exit_msr_load: Pairs = (),
    ) -> Observation:
        """L1 executes VMXON if need be, then VMLAUNCH or VMRESUME, with these MSR lists and this bitmap."""
        target = self.running(vcpu)
        if not self.host.nested:
            raise Misuse("this host offers no VMX to guests")
        if target.level == 2:
            raise Misuse("L2 runs already")
        if target.smm:
            raise Misuse("SMM cannot enter L2")
        controls = L1Controls(
            use_msr_bitmap=intercept != "all",
            intercepts=() if intercept == "all" else tuple(intercept_entry(entry) for entry in intercept),
            exit_msr_store=tuple(msr_number(msr) for msr in exit_msr_store),
            exit_msr_load=msr_pairs(exit_msr_load),
        )
        target.vmlaunch(controls, msr_pairs(msr_load))
        return Observation()

    @operation
    def nested_exit(self, *, vcpu: int = 0, msr_store: Iterable[Msr] = (), msr_load: Pairs = ()) -> Observation:
        """L2 executes VMCALL: a VM exit to L1, with these MSR lists."""
        target = self.running(vcpu)
        if target.level != 2:
            raise Misuse("L2 does not run")
        numbers = tuple(msr_number(msr) for msr in msr_store)
        stored = target.vmcall(numbers, msr_pairs(msr_load))
        return Observation(stored=[Hex(value) for value in stored])

    @operation
    def init(self, *, vcpu: int = 0) -> Observation:
        """INIT, then SIPI."""
        self.running(vcpu).init()
        return Observation()

    @operation
    def vmxoff(self, *, vcpu: int = 0) -> Observation:
        """L1 leaves VMX operation."""
        target = self.running(vcpu)
        if target.level == 2:
            raise Misuse("VMXOFF is L1's; L2 runs")
        if target.smm or not target.vmx_operation:
            raise Misuse("L1 is not in VMX operation")
        target.vmxoff()
        return Observation()

    @operation
    def smi(self, *, vcpu: int = 0) -> Observation:
        """An SMI."""
        target = self.running(vcpu)
        if target.smm:
            raise Misuse("SMM blocks a second SMI")
        target.smi()
        return Observation()

    @operation
    def rsm(self, *, vcpu: int = 0) -> Observation:
        """SMM executes RSM."""
        target = self.running(vcpu)
        if not target.smm:
            raise Misuse("RSM outside SMM")
        target.rsm()
        return Observation()

    @operation
    def boot(self, *, kernel: Mapping[str, Any], vcpu: int = 0, cpu: str = "boot") -> Observation:
        """A guest kernel brings up a CPU: the boot CPU, a ``secondary`` one, or the boot CPU after S3 (``resume``).

        >>> machine = Machine()
        >>> _ = machine.create_vcpu()
        >>> machine.boot(kernel=Kernel().as_keys())
        {'wrote': [[0x48, 0x1], [0x48, 0x401]]}
        """
        one_of("cpu", cpu, tuple(item.value for item in KernelCpu))
        target = self.running(vcpu)
        if target.level == 2 or target.smm:
            raise Misuse("a kernel that boots is L1, outside SMM")
        kept = next((guest.kept for guest in self.guests.values()), 0)
        booting, which = Kernel.from_keys(kernel), KernelCpu(cpu)
        if self.vm.exit_reasons:
            self.check_boot(booting, deepcopy(target), which, kept)
        recorder = WritesRecorded(target)
        self.guests[vcpu] = boot(booting, recorder, which, kept)
        return Observation(wrote=[[Hex(msr), Hex(value)] for msr, value in recorder.wrote])

    def check_boot(self, kernel: Kernel, trial: Vcpu, cpu: KernelCpu, kept: int) -> None:
        """Misuse if a kernel that boots so leaves to userspace on the way; the trial is a copy of the vCPU."""
        try:
            boot(kernel, WritesRecorded(trial), cpu, kept)
        except UserspaceExit as left:
            raise Misuse(
                f"boot cannot go on over an exit to userspace ({left.kind.value} of {left.msr:#x}): "
                "perform its accesses one by one"
            ) from None
        except Outcome:
            pass  # it ends so in earnest too

    # ---- what the host does, and what can be looked at

    @operation
    def exit(self, *, vcpu: int = 0, nmi_leaves: int | None = None) -> Observation:
        """A VM exit to the host (an interrupt); enters the guest first if need be.

        ``nmi_leaves``: what an NMI leaves in IA32_SPEC_CTRL before KVM has read it.
        """
        target = self.running(vcpu)
        if nmi_leaves is not None:
            self.check_host_value(nmi_leaves)
        target.run()
        if nmi_leaves is None:
            target.exit_guest()
        else:
            target.cpu.vm_exit(target.vmcs)
            target.cpu.wrmsr(nmi_leaves)
            target.after_exit()
        return Observation(host_spec_ctrl=Hex(target.cpu.spec_ctrl))

    @operation
    def host_write(self, *, value: int, vcpu: int = 0) -> Observation:
        """The host's IA32_SPEC_CTRL changes on this vCPU's processor, and KVM is not told: S3, a late write.

        >>> machine = Machine()
        >>> _ = machine.create_vcpu(), machine.wrmsr(msr=0x48, value=0x401), machine.exit()
        >>> machine.host_write(value=0x0), machine.observe()["effective"]
        ({}, 0x401)
        """
        target = self.running(vcpu)
        self.check_host_value(value)
        target.exit_guest()
        target.cpu.wrmsr(value)
        return Observation()

    def check_host_value(self, value: int) -> None:
        """Misuse unless the host's own kernel could write this value."""
        if not self.host.has_spec_ctrl or not is_subset(word(value, "a value"), self.host.writable):
            raise Misuse(f"this host's processor refuses {value:#x}")

    def observe(self, *, vcpu: int = 0) -> Observation:
        """What can be looked at; changes nothing.

        >>> machine = Machine()
        >>> _ = machine.enable_cap(cap=236, args=[0x400, 0x400]), machine.create_vcpu()
        >>> machine.observe()["effective"], machine.observe()["guest_view"]
        (0x400, 0x0)
        """
        return observe(self.vcpu(vcpu), self.guests.get(vcpu), self.assume.bhi_no_suffices)

    @operation
    def bare_stay(
        self,
        *,
        offers: Iterable[str] = (),
        virtualize: bool = False,
        mask: int | None = None,
        shadow: int | None = None,
        load_on_entry: bool = False,
        guest_field: int | None = None,
        load_on_exit: bool = False,
        host_field: int | None = None,
        entry_load: int | None = None,
        exit_store: bool = False,
        exit_load: int | None = None,
        write: int | None = None,
        read: bool = False,
    ) -> Observation:
        """A stay in a guest on a processor of this host, without KVM and with a VMCS of its own.

        >>> Machine().bare_stay(virtualize=True, mask=0x1, shadow=0x0, write=0x4)["effective"]
        0x5
        """
        for control in offers:
            one_of("offers", control, ("entry", "exit"))
        for value in (mask, shadow, guest_field, host_field, write):
            word(value or 0, "a value")
        stay = Stay(mask, shadow, guest_field, host_field, write, read)
        vmcs = self.variant.vmcs(
            virtualize_spec_ctrl=virtualize, intercept_read=False, intercept_write=False,
            load_on_entry=load_on_entry, load_on_exit=load_on_exit, exit_store=exit_store,
            entry_load=entry_load is not None, entry_load_value=word(entry_load or 0, "entry_load"),
            exit_load=exit_load is not None, exit_load_value=word(exit_load or 0, "exit_load"))
        return perform(self.variant.make_processor(self.host, self.assume, offers), vmcs, stay)

    # ---- helpers

    def vcpu(self, number: int) -> Vcpu:
        """The vCPU of that number; Misuse if no step created it."""
        if number not in self.vcpus:
            raise Misuse(f"there is no vCPU {number}")
        return self.vcpus[number]

    def running(self, number: int) -> Vcpu:
        """The vCPU of that number if it can run guest code now; Misuse otherwise."""
        target = self.stopped(number)
        if target.shut_down:
            raise Misuse(f"vCPU {number} has shut down")
        return target

    def stopped(self, number: int) -> Vcpu:
        """The vCPU of that number if no MSR exit waits for a reply; Misuse otherwise."""
        target = self.vcpu(number)
        if target.pending_exit is not None:
            raise Misuse(f"vCPU {number} has an MSR exit pending; reply first")
        return target

    def remember(self, op: str, arguments: Mapping[str, Any], seen: Observation) -> None:
        """Add a row to the history: the step, what it showed, and every vCPU's registers after it."""
        self.history.append({"op": op, "arguments": dict(arguments), "seen": seen, "vcpus": self.registers()})
        del self.history[:-MOST_ROWS]

    def registers(self) -> dict[int, dict[str, Any]]:
        """What can be looked at of every vCPU, by its number, and what its processor's IA32_SPEC_CTRL holds now."""
        return {
            number: {
                **self.observe(vcpu=number),
                "in_guest": vcpu.in_guest,
                "register": Hex(vcpu.cpu.spec_ctrl),
            }
            for number, vcpu in self.vcpus.items()
        }


class WritesRecorded:
    """A vCPU as its guest kernel's CPU; keeps what the kernel wrote."""

    def __init__(self, vcpu: Vcpu) -> None:
        self.vcpu = vcpu
        self.cpuid = vcpu.cpuid
        self.wrote: list[tuple[int, int]] = []

    def rdmsr(self, msr: int) -> int:
        """RDMSR."""
        return self.vcpu.rdmsr(msr)

    def wrmsr(self, msr: int, value: int) -> None:
        """WRMSR; one that does not fault is kept."""
        self.vcpu.wrmsr(msr, value)
        self.wrote.append((msr, value))


def word(value: int, what: str) -> int:
    """A 64-bit word that somebody gives; ValueError for anything else."""
    if not isinstance(value, int):
        raise ValueError(f"{what} is {value!r}: not a number")
    return check_word(value, what)


def one_of(what: str, value: str, allowed: tuple[str, ...]) -> None:
    """Misuse unless ``value`` is one of ``allowed``."""
    if value not in allowed:
        raise Misuse(f"{what} is {value!r}: not one of {', '.join(allowed)}")


def msr_pairs(pairs: Pairs) -> tuple[tuple[int, int], ...]:
    """MSR-value pairs with their numbers resolved."""
    return tuple((msr_number(msr), word(value, "a value")) for msr, value in pairs)


def guest_cpuid(features: Iterable[str]) -> Features:
    """What a guest's CPUID shows, by names; Misuse for one that is no CPUID bit."""
    names = list(features)
    for name in names:
        if name in NOT_IN_CPUID:
            raise Misuse(f"{name} is no CPUID bit here")
    return features_from_names(names, GUEST_FEATURES)


def filter_range(entry: Mapping[str, Any]) -> FilterRange:
    """One range of ``set_msr_filter``; ValueError unless ``allow`` has an entry for each MSR."""
    if len(entry["allow"]) != entry["count"]:
        raise ValueError(f"allow has {len(entry['allow'])} entries for {entry['count']} MSRs")
    return FilterRange(
        base=msr_number(entry["base"]),
        count=entry["count"],
        read=entry.get("read", False),
        write=entry.get("write", False),
        allow=tuple(entry["allow"]),
    )


def intercept_entry(entry: Msr | Mapping[str, Any]) -> Intercept:
    """One entry of ``intercept``: an MSR, or an object that names directions."""
    if isinstance(entry, Mapping):
        result = Intercept(msr_number(entry["msr"]), entry.get("read", False), entry.get("write", False))
    else:
        result = Intercept(msr_number(entry))
    return result
