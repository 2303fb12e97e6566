"""The whole state of one vCPU, one record, each field with the reason why it exists."""

from dataclasses import dataclass
from enum import Enum

from specctrl.model.contract import NO_CONTROLS, L1Controls
from specctrl.model.kvm.vm import Vm
from specctrl.model.outcomes import ExitKind, ExitReason
from specctrl.model.parts import Features, Host
from specctrl.model.processor import LogicalProcessor, Vmcs


class Loaded(Enum):
    """Which of the two VMCSs the logical processor runs this vCPU with."""

    VMCS01 = 1  # KVM's VMCS for L1
    VMCS02 = 2  # KVM's VMCS for L2, made from vmcs01 and what L1 asked for


@dataclass(frozen=True, slots=True)
class PendingExit:
    """An instruction of the guest that waits for userspace's reply."""

    kind: ExitKind
    reason: ExitReason
    msr: int
    value: int


@dataclass(frozen=True, slots=True)
class NestedState:
    """What KVM_GET_NESTED_STATE and the events saved with it carry; no MSR is in it."""

    vmx_operation: bool
    level2: bool
    controls: L1Controls
    run_pending: bool
    smm: bool
    smm_left_level2: bool
    smm_left_vmx: bool
    init_pending: bool


@dataclass(slots=True)
class VcpuState:
    """One vCPU: what KVM keeps, and the logical processor that runs it."""

    vm: Vm
    cpu: LogicalProcessor
    cpuid: Features  # what the guest's CPUID shows
    vmcs01: Vmcs
    vmcs02: Vmcs
    init_withdraws_report: bool  # assumption: see the rule init.report.withdrawn

    # What is forced.
    user_mask: int = 0  # userspace's pair: the VM's at creation, then the vCPU's own
    user_value: int = 0
    force_mask: int = 0  # the pair in force: userspace's, and the guest's report on top
    force_value: int = 0

    # IA32_SPEC_CTRL.
    guest_view: int = 0  # what the guest wrote and reads, as of the last exit
    saved: int = 0  # what the processor holds while the guest runs: view and pair merged, as of the last exit
    passthrough: bool = False  # whether KVM wants the guest to access the MSR without an exit

    # The virtual MSRs, and the MSR that announces them.
    arch_capabilities: int = 0
    virtual_enumeration: int = 0
    mitigation_enum: int = 0
    mitigation_ctrl: int = 0  # the guest's report

    # Where the vCPU is.
    loaded: Loaded = Loaded.VMCS01
    has_run: bool = False  # after the first VM entry the feature MSRs are frozen
    pending_exit: PendingExit | None = None
    shut_down: bool = False  # after a VMX abort

    # Nested virtualization and SMM.
    vmx_operation: bool = False  # L1 executed VMXON
    nested_run_pending: bool = False  # L1's VM entry was emulated, but L2 has not run yet
    bitmap_merge_pending: bool = False  # RSM or KVM_SET_NESTED_STATE loaded vmcs02; KVM_RUN merges its bitmap
    controls: L1Controls = NO_CONTROLS
    smm: bool = False
    smm_left_level2: bool = False  # the SMI came while L2 ran: RSM goes back there
    smm_left_vmx: bool = False  # the SMI came in VMX operation
    init_pending: bool = False

    @property
    def host(self) -> Host:
        """The host that this vCPU runs on."""
        return self.vm.host

    @property
    def vmcs(self) -> Vmcs:
        """The loaded VMCS."""
        return self.vmcs02 if self.loaded is Loaded.VMCS02 else self.vmcs01

    @property
    def in_guest(self) -> bool:
        """Whether the processor runs guest code now."""
        return self.cpu.non_root

    @property
    def level(self) -> int:
        """1 while L1 (or SMM) runs, 2 while L2 runs."""
        return 2 if self.loaded is Loaded.VMCS02 else 1
