"""Decides, step by step, whether this host can show what a scenario asks: from the scenario and the probe alone.

A step that the kernel cannot perform, or whose observation it cannot give, is Unsupported with the reason.
Nothing is taken from the emulator instead.
"""

from dataclasses import dataclass, field
from typing import Any

from specctrl.model.kvm.filters import ALLOW_ALL, MsrFilter, check_filter, is_x2apic
from specctrl.model.kvm.vm import MAX_VCPU_ID, MSR_EXIT_REASONS
from specctrl.model.outcomes import Errno, ExitReason, Misuse, Unsupported
from specctrl.model.parts import Host, arch_capabilities, guest_features, resolve_host
from specctrl.model.registers import (
    IA32_ARCH_CAPABILITIES,
    IA32_SPEC_CTRL,
    KVM_CAP_FORCE_SPEC_CTRL,
    KVM_CAP_X86_MSR_FILTER,
    KVM_CAP_X86_USER_SPACE_MSR,
    MSR_NUMBERS,
    MSR_VIRTUAL_ENUMERATION,
    MSR_VIRTUAL_MITIGATION_CTRL,
    MSR_VIRTUAL_MITIGATION_ENUM,
)
from specctrl.scenario.format import ASSUMPTIONS
from specctrl.scenario.machine import filter_range
from specctrl.scenario.reading import Scenario, Step
from specctrl.targets.kvm import ioctls
from specctrl.targets.kvm.facts import KernelFacts, SpecCtrl

VIRTUAL_MSRS = (MSR_VIRTUAL_ENUMERATION, MSR_VIRTUAL_MITIGATION_ENUM, MSR_VIRTUAL_MITIGATION_CTRL)
KEPT = (IA32_ARCH_CAPABILITIES, *VIRTUAL_MSRS)
"""The MSRs that userspace keeps behind a filter of its own, where the scenario has no filter."""
FIRST_FREE_CAPABILITY = 4096
"""Linux gives capability numbers out from 1 on; none from here on has been given."""
LAST_APIC = 254
"""The highest vCPU number that a message of an xAPIC reaches."""
NAMES = {number: name for name, number in MSR_NUMBERS.items()}

NO_SERIES = (
    "capability 236 is not the series' on a kernel without it (mainline's is KVM_CAP_PRE_FAULT_MEMORY): "
    "KVM_GET_SUPPORTED_FORCE_SPEC_CTRL on /dev/kvm ends in {ending}")
HIDDEN = {
    "effective": "what the processor holds while the guest runs",
    "guest_view": "the guest's view, other than by the guest's own RDMSR",
    "mask": "a field of the VMCS",
    "shadow": "a field of the VMCS",
    "intercepted": "an MSR bitmap",
    "reads_intercepted": "an MSR bitmap",
    "in_guest": "whether the guest runs",
    "saved": "the value that KVM saved",
    "level": "the level that runs",
    "smm": "whether SMM runs",
    "shut_down": "a shutdown after a VMX abort",
    "exposed": "exposure to an attack",
    "overhead": "which mitigations are paid for twice",
}
"""What ``observe`` can be asked for, and what no ioctl shows of it."""


@dataclass(slots=True)
class Showable:
    """One scenario on this host: what its steps have set up so far, and whether the next can be shown."""

    facts: KernelFacts
    host: Host
    assume: dict[str, bool]
    own_exits: bool = False  # the scenario says itself what userspace does: it used a filter or capability 188
    kept: bool = False  # userspace keeps the virtual MSRs, behind a filter of the target's
    msr_filter: MsrFilter = ALLOW_ALL
    reasons: int = 0
    vcpus: dict[int, bool] = field(default_factory=dict)  # and whether the scenario chose the CPUID
    pending: set[int] = field(default_factory=set)
    has_run: set[int] = field(default_factory=set)
    arch_zero: set[int] = field(default_factory=set)  # vCPUs whose IA32_ARCH_CAPABILITIES was set to 0

    def look(self, step: Step) -> None:
        """Unsupported if this host cannot show the step; otherwise take note of what it sets up."""
        if step.expect.get("misuse"):
            raise Unsupported("what cannot happen is not asked of a kernel")
        if "vcpu" in step.args and step.op != "create_vcpu":
            self._stopped(step)
        decide = getattr(self, f"_{step.op}", None)
        if decide is None:
            raise Unsupported(f"this target performs no {step.op}")
        decide(step.args, step.expect)

    def _stopped(self, step: Step) -> None:
        number = step.args["vcpu"]
        if number not in self.vcpus:
            raise Misuse(f"there is no vCPU {number}")
        waits = number in self.pending
        if step.op == "reply_msr_exit" and not waits:
            raise Misuse(f"vCPU {number} has no exit pending")
        if waits and step.op not in ("reply_msr_exit", "enable_cap", "get_msrs", "set_msrs", "observe"):
            raise Misuse(f"vCPU {number} has an MSR exit pending; reply first")

    # ---- ioctls on /dev/kvm and the VM

    def _no_series(self) -> Unsupported:
        return Unsupported(NO_SERIES.format(ending=self.facts.series_ioctl))

    def _capability(self, capability: int) -> None:
        if capability == KVM_CAP_FORCE_SPEC_CTRL:
            raise self._no_series()
        modelled = capability in (KVM_CAP_X86_USER_SPACE_MSR, KVM_CAP_X86_MSR_FILTER)
        if not modelled and capability < FIRST_FREE_CAPABILITY:
            raise Unsupported(f"capability {capability} is Linux's own: the specification says nothing of it")

    def _check_extension(self, args: dict[str, Any], _expect: dict[str, Any]) -> None:
        self._capability(args["cap"])

    def _get_supported_force_spec_ctrl(self, _args: dict[str, Any], _expect: dict[str, Any]) -> None:
        raise self._no_series()

    def _enable_cap(self, args: dict[str, Any], _expect: dict[str, Any]) -> None:
        self._capability(args["cap"])
        if args["cap"] != KVM_CAP_X86_USER_SPACE_MSR or args["fd"] != "vm":
            return
        self._own_exits()
        reasons = args["args"][0] if args["args"] else 0
        if not args["flags"] and reasons <= MSR_EXIT_REASONS:
            self.reasons = reasons

    def _own_exits(self) -> None:
        if self.kept:
            raise Unsupported(
                "userspace keeps the virtual MSRs behind a filter in this run; the scenario's would replace it")
        self.own_exits = True

    def _set_msr_filter(self, args: dict[str, Any], _expect: dict[str, Any]) -> None:
        self._own_exits()
        if len(args["ranges"]) > ioctls.FILTER_RANGES:
            raise Unsupported(f"struct kvm_msr_filter has room for {ioctls.FILTER_RANGES} ranges alone")
        wanted = MsrFilter(args["default"] == "allow", tuple(map(filter_range, args["ranges"])))
        try:
            check_filter(wanted)
        except Errno:
            return
        self.msr_filter = wanted

    def _create_vcpu(self, args: dict[str, Any], _expect: dict[str, Any]) -> None:
        number = args["vcpu"]
        if (number < MAX_VCPU_ID) != (number < self.facts.max_vcpu_id):
            raise Unsupported(f"this kernel has vCPU numbers below {self.facts.max_vcpu_id}, not {MAX_VCPU_ID}")
        if number < MAX_VCPU_ID and number not in self.vcpus:
            self.vcpus[number] = "features" in args

    # ---- lists of MSRs

    def _get_msr_index_list(self, _args: dict[str, Any], expect: dict[str, Any]) -> None:
        for msr in (*expect.get("contains", ()), *expect.get("lacks", ())):
            self._listed(msr)
            if msr == IA32_SPEC_CTRL and self.host.has_spec_ctrl != (self.facts.spec_ctrl is SpecCtrl.STORED):
                raise Unsupported(self._spec_ctrl_differs())

    def _get_msr_feature_index_list(self, _args: dict[str, Any], expect: dict[str, Any]) -> None:
        for msr in (*expect.get("contains", ()), *expect.get("lacks", ())):
            self._listed(msr)

    def _listed(self, msr: int) -> None:
        if msr in VIRTUAL_MSRS:
            raise Unsupported(f"this kernel does not know {NAMES[msr]}, so its lists cannot show the rule")
        if msr not in MSR_NUMBERS.values():
            self._refused_by_both(msr, write=False)

    def _get_feature_msrs(self, args: dict[str, Any], _expect: dict[str, Any]) -> None:
        for msr in args["msrs"]:
            if msr == IA32_ARCH_CAPABILITIES:
                if self.facts.feature_arch_capabilities != arch_capabilities(self.host):
                    raise Unsupported("this kernel offers another IA32_ARCH_CAPABILITIES than the scenario's host")
                continue
            if msr in VIRTUAL_MSRS:
                raise Unsupported(f"this kernel does not know {NAMES[msr]}")
            if msr != IA32_SPEC_CTRL:
                self._refused_by_both(msr, write=False)
            elif msr in self.facts.index_list:
                raise Unsupported("this kernel reads 0 on /dev/kvm for any MSR that it lists, no feature MSR alone")
            return  # no feature MSR: the list stops here

    def _get_msrs(self, args: dict[str, Any], _expect: dict[str, Any]) -> None:
        for msr in args["msrs"]:
            if self._host_access(args["vcpu"], msr, None):
                return

    def _set_msrs(self, args: dict[str, Any], expect: dict[str, Any]) -> None:
        if self.set_in_userspace(args, expect):
            self._keep(args["vcpu"])
            return
        for msr, value in args["msrs"]:
            if self._host_access(args["vcpu"], msr, value):
                return

    def set_in_userspace(self, args: dict[str, Any], expect: dict[str, Any]) -> bool:
        """Whether a ``set_msrs`` gives values to MSRs that userspace keeps: no ioctl, so its ``ret`` is not shown."""
        return "ret" not in expect and all(msr in KEPT for msr, _ in args["msrs"]) and not self.own_exits

    def _host_access(self, vcpu: int, msr: int, value: int | None) -> bool:
        """Whether a list stops at this MSR; ``value`` is None for a read."""
        if msr in VIRTUAL_MSRS:
            raise Unsupported(
                f"this kernel does not know {NAMES[msr]}: KVM_GET_MSRS and KVM_SET_MSRS do not reach an MSR "
                "that userspace keeps")
        if msr not in (IA32_SPEC_CTRL, IA32_ARCH_CAPABILITIES):
            self._refused_by_both(msr, write=value is not None)
            return True
        if msr == IA32_SPEC_CTRL and self._native():
            return False
        if msr not in self.facts.takes_zero or value or not self.host.has_spec_ctrl:
            raise Unsupported(self._spec_ctrl_differs() if msr == IA32_SPEC_CTRL else
                              "this kernel takes no IA32_ARCH_CAPABILITIES but 0 from userspace")
        if msr == IA32_ARCH_CAPABILITIES and vcpu not in self.arch_zero:
            if value is None or vcpu in self.has_run:
                raise Unsupported("this kernel's own IA32_ARCH_CAPABILITIES of a new vCPU is not the scenario's")
            self.arch_zero.add(vcpu)
        return False

    def _refused_by_both(self, msr: int, write: bool) -> ExitReason:
        """Every MSR but five is refused by the specification; this host can show that if it gives the same reason."""
        expected = ExitReason.INVAL if is_x2apic(msr) else ExitReason.UNKNOWN
        refusal = self.facts.refusal(msr, write)
        if refusal != expected.name:
            how = f"refuses it as {refusal}" if refusal else "performs the access"
            raise Unsupported(f"MSR {msr:#x} is refused as {expected.name} by the specification; this kernel {how}")
        return expected

    # ---- the guest

    def _rdmsr(self, args: dict[str, Any], _expect: dict[str, Any]) -> None:
        self._guest_access(args["vcpu"], args["msr"], write=False)

    def _wrmsr(self, args: dict[str, Any], _expect: dict[str, Any]) -> None:
        self._guest_access(args["vcpu"], args["msr"], write=True)

    def _guest_access(self, vcpu: int, msr: int, write: bool) -> None:
        self.has_run.add(vcpu)
        if not self.msr_filter.allows(msr, write):
            if self.reasons & ExitReason.FILTER.value:
                self.pending.add(vcpu)
            return
        if msr in KEPT:
            self._keep(vcpu)
        elif msr == IA32_SPEC_CTRL:
            if not self._native():
                raise Unsupported(self._spec_ctrl_differs())
            self._own_cpuid(vcpu)
        elif self.reasons & (ExitReason.UNKNOWN.value | ExitReason.INVAL.value) or not self.facts.refusal(msr, write):
            reason = self._refused_by_both(msr, write)
            if self.reasons & reason.value:
                self.pending.add(vcpu)

    def _keep(self, vcpu: int) -> None:
        """The guest is to see the virtual MSRs as KVM would show them: userspace has to keep them."""
        if self.own_exits:
            raise Unsupported(
                "this kernel does not know the virtual MSRs, and the scenario's own filter does not hand them over")
        self._own_cpuid(vcpu)
        self.kept = True

    def _own_cpuid(self, vcpu: int) -> None:
        if self.vcpus[vcpu]:
            raise Unsupported("the guest has this host's CPUID: the scenario's is not set")

    def _native(self) -> bool:
        """Whether this kernel stores IA32_SPEC_CTRL and accepts the bits that the scenario's host accepts."""
        return self.facts.spec_ctrl is SpecCtrl.STORED and self.facts.spec_ctrl_bits == self.host.writable

    def _spec_ctrl_differs(self) -> str:
        if self.facts.spec_ctrl is SpecCtrl.IGNORED:
            return "this kernel ignores IA32_SPEC_CTRL: a guest's write has no effect, a read gives 0"
        if self.facts.spec_ctrl is SpecCtrl.REFUSED:
            return "this kernel gives its guests no IA32_SPEC_CTRL"
        return (f"this host accepts the bits {self.facts.spec_ctrl_bits:#x} of IA32_SPEC_CTRL, the scenario's "
                f"{self.host.writable:#x}")

    def _reply_msr_exit(self, args: dict[str, Any], _expect: dict[str, Any]) -> None:
        self.pending.discard(args["vcpu"])

    def _init(self, args: dict[str, Any], _expect: dict[str, Any]) -> None:
        if not self.facts.apic or args["vcpu"] > LAST_APIC:
            raise Unsupported("INIT needs a local APIC in the kernel, and a vCPU number that its messages reach")
        withdraws = {**ASSUMPTIONS, **self.assume}["init-withdraws-report"]
        if withdraws and self.kept:
            raise Unsupported("INIT does not reach a report that userspace keeps: only a kernel withdraws it")
        self.has_run.add(args["vcpu"])

    def _exit(self, _args: dict[str, Any], expect: dict[str, Any]) -> None:
        if expect:
            raise Unsupported("no ioctl shows what the processor holds once the host runs again")

    def _observe(self, _args: dict[str, Any], expect: dict[str, Any]) -> None:
        for key in expect:
            raise Unsupported(f"no ioctl shows {key}: {HIDDEN[key]}")

    # ---- userspace with more than one ioctl

    def _reset_vcpu(self, _args: dict[str, Any], expect: dict[str, Any]) -> None:
        if not self.kept or "ret" in expect:
            raise Unsupported("the reset writes 0x50000002 with KVM_SET_MSRS, which this kernel does not know")

    def _migrate(self, args: dict[str, Any], expect: dict[str, Any]) -> None:
        if self.pending:
            raise Misuse("an MSR exit is pending; reply first")
        if expect.get("errno") or expect.get("refused"):
            raise Unsupported("both VMs are on this host: it cannot refuse what another host would")
        self.host = resolve_host(args["to"])
        self.has_run.clear()

    # ---- what this target's guests do not do

    def _nested(self, _args: dict[str, Any], _expect: dict[str, Any]) -> None:
        if not self.facts.nested:
            raise Unsupported("this kernel offers its guests no nested virtualization")
        raise Unsupported("this target's guests execute no VMX instructions")

    _nested_enter = _nested_exit = _vmxoff = _get_nested_state = _set_nested_state = _nested

    def _smm(self, _args: dict[str, Any], _expect: dict[str, Any]) -> None:
        raise Unsupported("this target's guests have no SMM")

    _smi = _rsm = _smm

    # ---- a guest kernel, whose accesses are this target's

    def _boot(self, args: dict[str, Any], _expect: dict[str, Any]) -> None:
        """A kernel's first accesses: all that follow are of the same MSRs, or of others that userspace keeps."""
        self._own_cpuid(args["vcpu"])
        cpuid = guest_features(self.host.features)
        if cpuid.arch_capabilities:
            self._guest_access(args["vcpu"], IA32_ARCH_CAPABILITIES, write=False)
        if cpuid.shows_spec_ctrl:
            self._guest_access(args["vcpu"], IA32_SPEC_CTRL, write=False)


def decide(scenario: Scenario, facts: KernelFacts) -> tuple[int, str] | None:
    """The first step that this host cannot show, and why; None if it can show all of them.

    Misuse for a scenario that asks what cannot be asked.
    """
    showable = Showable(facts, resolve_host(scenario.host), scenario.assume)
    for index, step in enumerate(scenario.steps):
        try:
            showable.look(step)
        except Unsupported as unsupported:
            return index, str(unsupported)
    return None
