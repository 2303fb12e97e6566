"""Third floor of a vCPU: L1's VM entries and exits, L1's MSR lists, saved nested state."""

import errno
from dataclasses import dataclass

from specctrl.model.contract import L1Controls
from specctrl.model.kvm.msrs import VcpuMsrs
from specctrl.model.kvm.state import Loaded, NestedState
from specctrl.model.outcomes import Errno, MsrRefused, NestedEntryFailed, Reflected, VmxAbort
from specctrl.model.registers import IA32_SPEC_CTRL

BITMAP_LOW = range(0x0000_2000)
BITMAP_HIGH = range(0xC000_0000, 0xC000_2000)
"""The MSRs that a VMX MSR bitmap covers; an access to any other always exits (SDM vol. 3, MSR-bitmap address)."""


def l1_intercepts(controls: L1Controls, msr: int, write: bool) -> bool:
    """Whether an access of L2 goes to L1: its bitmap says so, it has none, or the bitmap does not cover the MSR.

    Source: Linux, nested_vmx_exit_handled_msr.

    >>> l1_intercepts(L1Controls(), 0x48, write=True), l1_intercepts(L1Controls(), 0x5000_0002, write=True)
    (False, True)
    """
    if not controls.use_msr_bitmap or not (msr in BITMAP_LOW or msr in BITMAP_HIGH):
        return True
    for intercept in controls.intercepts:
        if intercept.msr == msr and (intercept.write if write else intercept.read):
            return True
    return False


@dataclass(slots=True)
class VcpuNested(VcpuMsrs):
    """Nested transitions; each starts in root operation with the guest's state saved."""

    def run(self) -> None:
        """KVM_RUN goes on: a merge of L2's bitmap that waits is done, then VM entry, unless the guest runs already.

        Source: Linux, vcpu_enter_guest.
        """
        if self.bitmap_merge_pending:
            self.bitmap_merge_pending = False
            if self.level == 2:
                self.merge_bitmap()
        self.enter_guest()

    # ---- into L2

    def merge_bitmap(self) -> None:
        """vmcs02 intercepts what L1's bitmap or vmcs01's bitmap intercepts.

        Performed at L1's VM entry, before its MSR-load list; after RSM and KVM_SET_NESTED_STATE also before
        the next VM entry.

        Source: Linux, nested_vmx_prepare_msr_bitmap and KVM_REQ_GET_NESTED_STATE_PAGES.
        """
        controls = self.controls
        self.vmcs02.intercept_read = self.vmcs01.intercept_read or l1_intercepts(controls, IA32_SPEC_CTRL, write=False)
        self.vmcs02.intercept_write = self.vmcs01.intercept_write or l1_intercepts(controls, IA32_SPEC_CTRL, write=True)

    def load_vmcs02(self) -> None:
        """Load KVM's VMCS for L2, with the merged bitmap, the mask in force and the view that holds now.

        Source: Linux, prepare_vmcs02; RFC v3 p3.
        """
        self.merge_bitmap()
        self.load_vmcs(Loaded.VMCS02)

    def nested_enter(self, controls: L1Controls, msr_load: tuple[tuple[int, int], ...]) -> None:
        """L1's VMLAUNCH or VMRESUME, after the exit to KVM that it causes.

        L1's VM-entry MSR-load list is performed as the guest's writes, with vmcs02 loaded; what an
        earlier entry did stays done when a later one fails.  On failure L1 goes on with
        NestedEntryFailed, after its VM-exit MSR-load list.

        Source: Linux, nested_vmx_run, nested_vmx_load_msr; RFC v3 p3.
        """
        self.vmx_operation = True
        self.controls = controls
        self.nested_run_pending = True
        self.load_vmcs02()
        for entry, (msr, value) in enumerate(msr_load, start=1):
            try:
                self.emulate_wrmsr(msr, value)
            except MsrRefused:
                self.abandon_entry()
                self.perform_exit_load(controls.exit_msr_load)
                raise NestedEntryFailed(entry) from None

    def abandon_entry(self) -> None:
        """A VM entry of L1 that fails half-way: vmcs01 is loaded again, with the view that the list left.

        Source: Linux, nested_vmx_enter_non_root_mode; repairs D5.
        """
        self.nested_run_pending = False
        self.load_vmcs(Loaded.VMCS01)

    # ---- back to L1

    def nested_exit(self, msr_store: tuple[int, ...], msr_load: tuple[tuple[int, int], ...]) -> list[int]:
        """A VM exit from L2 to L1, after the exit to KVM: L1's store list, vmcs01, L1's load list.

        Returns what the store list stored: the guest's view, as every guest access does.
        VmxAbort if an entry of either list is refused; the vCPU is shut down then.

        Source: Linux, nested_vmx_vmexit, nested_vmx_store_msr; RFC v3 p3.
        """
        self.nested_run_pending = False
        stored = []
        for msr in msr_store:
            try:
                stored.append(self.emulate_rdmsr(msr))
            except MsrRefused:
                self.load_vmcs(Loaded.VMCS01)
                self.shut_down = True
                raise VmxAbort from None
        self.load_vmcs(Loaded.VMCS01)
        self.perform_exit_load(msr_load)
        return stored

    def perform_exit_load(self, msr_load: tuple[tuple[int, int], ...]) -> None:
        """L1's VM-exit MSR-load list, performed as the guest's writes with vmcs01 loaded; VmxAbort on a refusal.

        Source: Linux, load_vmcs12_host_state, nested_vmx_load_msr.
        """
        for msr, value in msr_load:
            try:
                self.emulate_wrmsr(msr, value)
            except MsrRefused:
                self.shut_down = True
                raise VmxAbort from None

    def reflect(self) -> None:
        """An exit of L2 that L1 asked for goes to L1, with the lists that L1 gave at entry; raises Reflected."""
        self.nested_exit(self.controls.exit_msr_store, self.controls.exit_msr_load)
        raise Reflected

    def leave_nested(self) -> None:
        """Forced back to vmcs01 without a VM exit to L1: no MSR list is performed.

        KVM performs L1's VM-exit MSR-load list here, against the SDM: see the chapter on nesting.

        Source: SDM vol. 3, default treatment of SMIs; Linux, vmx_leave_nested.
        """
        self.nested_run_pending = False
        if self.level == 2:
            self.load_vmcs(Loaded.VMCS01)

    # ---- save and restore

    def get_nested_state(self) -> NestedState:
        """KVM_GET_NESTED_STATE, and the SMM and INIT bits of KVM_GET_VCPU_EVENTS.

        Source: Linux, vmx_get_nested_state.
        """
        return NestedState(
            vmx_operation=self.vmx_operation,
            level2=self.level == 2,
            controls=self.controls,
            run_pending=self.nested_run_pending,
            smm=self.smm,
            smm_left_level2=self.smm_left_level2,
            smm_left_vmx=self.smm_left_vmx,
            init_pending=self.init_pending,
        )

    def set_nested_state(self, state: NestedState) -> None:
        """KVM_SET_NESTED_STATE: leaves L2 first; then, if L2 is saved, loads vmcs02 with the view that holds now.

        No MSR is in the state, and no list is performed.  Errno(EINVAL), and nothing changes, for VMX state, that
        which an SMI left included, on a host that offers no VMX, and for a pending entry of a state that is not in L2.

        Source: Linux, vmx_set_nested_state; repairs D4.
        """
        if (state.vmx_operation or state.smm_left_vmx) and not self.host.nested:
            raise Errno(errno.EINVAL)
        if state.run_pending and not state.level2:
            raise Errno(errno.EINVAL)
        self.leave_nested()
        self.vmx_operation = state.vmx_operation
        self.controls = state.controls
        self.smm = state.smm
        self.smm_left_level2 = state.smm_left_level2
        self.smm_left_vmx = state.smm_left_vmx
        self.init_pending = state.init_pending
        if state.level2:
            self.nested_run_pending = state.run_pending
            self.load_vmcs02()
            self.bitmap_merge_pending = True
