"""Top floor of a vCPU: the vCPU fd, the guest's instructions, INIT, SMI, reset."""

import errno
from dataclasses import dataclass

from specctrl.model.contract import L1Controls
from specctrl.model.kvm.nested import VcpuNested, l1_intercepts
from specctrl.model.kvm.state import Loaded, NestedState, PendingExit
from specctrl.model.outcomes import GP, Blocked, Errno, ExitKind, Fault, MsrRefused, UserspaceExit, VmExit
from specctrl.model.registers import IA32_SPEC_CTRL, KVM_CAP_FORCE_SPEC_CTRL, MSR_VIRTUAL_MITIGATION_CTRL


@dataclass(slots=True)
class Vcpu(VcpuNested):
    """One vCPU, whole.  Ioctls on its fd start with an exit, as the return from KVM_RUN does."""

    # ---- creation and reset

    def power_on(self, arch_capabilities: int) -> None:
        """KVM_CREATE_VCPU's reset: userspace's pair in force, view 0, the MSR intercepted, virtual MSRs 0.

        Source: RFC v3 p1 (init_vmcs), p6, p8 (__vmx_vcpu_reset).
        """
        self.user_mask = self.vm.user_mask
        self.user_value = self.vm.user_value
        self.arch_capabilities = arch_capabilities
        if self.cpu.has_control:
            for vmcs in (self.vmcs01, self.vmcs02):
                vmcs.virtualize_spec_ctrl = True
        self.update_force()
        self.load_vmcs(Loaded.VMCS01)

    def init(self) -> None:
        """INIT, then SIPI.  In L2 it goes to L1 (Reflected); in VMX operation or SMM it stays pending (Blocked).

        Source: SDM vol. 3, INIT in VMX operation and in SMM; Linux, kvm_apic_accept_events.
        """
        self.exit_guest()
        self.init_pending = True
        self.deliver_init()
        if self.init_pending:
            raise Blocked

    def deliver_init(self) -> None:
        """A pending INIT takes effect, unless it is blocked: a VM exit to L1 if L2 is loaded, else a reset.

        SMM blocks it, and so does VMX operation while L1 runs.

        Source: SDM vol. 3, INIT in VMX operation and in SMM; Linux, vmx_check_nested_events, kvm_apic_accept_events.
        """
        if not self.init_pending or self.smm:
            return
        if self.level == 2:
            self.init_pending = False
            self.reflect_and_resume()
        if not self.vmx_operation:
            self.init_reset()

    def init_reset(self) -> None:
        """What INIT resets: the view becomes 0 and the report is withdrawn; userspace's pair stays.

        Interception stays as it is.

        Source: Linux, vmx_vcpu_reset; the report: assumed, see defect D9.
        """
        self.init_pending = False
        self.guest_view = 0
        if self.init_withdraws_report:
            self.mitigation_ctrl = 0
        self.update_force()
        if self.cpu.has_control:
            self.cpu.write_shadow(self.vmcs, 0)

    def platform_reset(self) -> None:
        """A reset of the platform, done by userspace with ioctls: leave SMM and L2, then write the MSRs.

        KVM_SET_MSRS of IA32_SPEC_CTRL = 0 and MSR_VIRTUAL_MITIGATION_CTRL = 0; nothing else is touched.

        Source: Linux has no RESET of its own: userspace emulates it with KVM_SET_*.
        """
        self.exit_guest()
        self.leave_nested()
        self.vmx_operation = False
        self.smm = False
        self.smm_left_level2 = False
        self.smm_left_vmx = False
        self.init_pending = False
        self.shut_down = False
        if self.host.has_spec_ctrl:
            self.host_write_msr(IA32_SPEC_CTRL, 0)
        self.host_write_msr(MSR_VIRTUAL_MITIGATION_CTRL, 0)

    # ---- ioctls on the vCPU fd

    def enable_cap(self, capability: int, flags: int, mask: int, value: int) -> None:
        """KVM_ENABLE_CAP on the vCPU fd (proposed): ``mask`` and ``value`` are args[0] and args[1].

        Errno(EINVAL) for flags, another capability, or a pair that
        :meth:`~specctrl.model.kvm.entry.VcpuEntry.force_spec_ctrl` refuses.
        """
        self.exit_guest()
        if flags or capability != KVM_CAP_FORCE_SPEC_CTRL:
            raise Errno(errno.EINVAL)
        self.force_spec_ctrl(mask, value)

    def get_msrs(self, msrs: tuple[int, ...]) -> list[int]:
        """KVM_GET_MSRS: the values up to the first MSR that is refused; their number is the ioctl's result.

        Source: Linux, msr_io.
        """
        self.exit_guest()
        values: list[int] = []
        for msr in msrs:
            try:
                values.append(self.read_msr(msr, host_initiated=True))
            except MsrRefused:
                break
        return values

    def set_msrs(self, msrs: tuple[tuple[int, int], ...]) -> int:
        """KVM_SET_MSRS: writes up to the first MSR that is refused, and returns how many it wrote.

        Source: Linux, msr_io.
        """
        self.exit_guest()
        for count, (msr, value) in enumerate(msrs):
            try:
                self.host_write_msr(msr, value)
            except MsrRefused:
                return count
        return len(msrs)

    def save_nested(self) -> NestedState:
        """KVM_GET_NESTED_STATE, from userspace."""
        self.exit_guest()
        return self.get_nested_state()

    def restore_nested(self, state: NestedState) -> None:
        """KVM_SET_NESTED_STATE, from userspace."""
        self.exit_guest()
        self.set_nested_state(state)

    # ---- the guest's instructions

    def rdmsr(self, msr: int) -> int:
        """The guest executes RDMSR, at the level that is running; returns what EDX:EAX receives.

        Fault(#GP), UserspaceExit or Reflected otherwise.  Bits of IA32_SPEC_CTRL: as the guest wrote them.

        Source: SDM vol. 3, RDMSR in VMX non-root operation; Linux, kvm_emulate_rdmsr.
        """
        self.run()
        if msr == IA32_SPEC_CTRL:
            try:
                return self.cpu.rdmsr_in_guest(self.vmcs)
            except VmExit:
                pass
        self.exit_guest()
        if self.level == 2 and l1_intercepts(self.controls, msr, write=False):
            self.reflect_and_resume()
        try:
            value = self.emulate_rdmsr(msr)
        except MsrRefused as refusal:
            self.hand_over(PendingExit(ExitKind.RDMSR, refusal.reason, msr, 0))
        self.run()
        return value

    def wrmsr(self, msr: int, value: int) -> None:
        """The guest executes WRMSR, at the level that is running.

        Fault(#GP), UserspaceExit or Reflected if it does not complete.

        Source: SDM vol. 3, WRMSR in VMX non-root operation; Linux, kvm_emulate_wrmsr.
        """
        self.run()
        if msr == IA32_SPEC_CTRL:
            try:
                self.cpu.wrmsr_in_guest(self.vmcs, value)
                return
            except VmExit:
                pass
        self.exit_guest()
        if self.level == 2 and l1_intercepts(self.controls, msr, write=True):
            self.reflect_and_resume()
        try:
            self.emulate_wrmsr(msr, value)
        except MsrRefused as refusal:
            self.hand_over(PendingExit(ExitKind.WRMSR, refusal.reason, msr, value))
        self.run()

    def reflect_and_resume(self) -> None:
        """L2's exit goes to L1, which runs on; raises Reflected."""
        try:
            self.reflect()
        finally:
            if not self.shut_down:
                self.run()

    def hand_over(self, pending: PendingExit) -> None:
        """An access that KVM refuses: an exit to userspace if it asked for this reason, else #GP for the guest.

        Source: Linux, kvm_msr_user_space and kvm_msr_reason; api.rst, KVM_CAP_X86_USER_SPACE_MSR.
        """
        if self.vm.exit_reasons & pending.reason.value:
            self.pending_exit = pending
            raise UserspaceExit(pending.kind, pending.reason, pending.msr, pending.value)
        self.run()
        raise Fault(GP)

    def reply(self, value: int, error: bool) -> int | None:
        """Userspace answers the pending exit and runs the vCPU: the instruction completes, or faults (#GP).

        Returns what RDMSR yields; None for WRMSR.

        Source: api.rst, KVM_EXIT_X86_RDMSR and KVM_EXIT_X86_WRMSR.
        """
        pending = self.pending_exit
        assert pending is not None, "the machine checks that an exit is pending"
        self.pending_exit = None
        self.run()
        if error:
            raise Fault(GP)
        return value if pending.kind is ExitKind.RDMSR else None

    # ---- L1's VMX instructions

    def vmlaunch(self, controls: L1Controls, msr_load: tuple[tuple[int, int], ...]) -> None:
        """L1 executes VMLAUNCH or VMRESUME.

        NestedEntryFailed if its MSR-load list fails, VmxAbort if the VM-exit list then fails too.
        Reflected if an INIT was pending: L2 is entered, and the INIT goes to L1 before L2's first instruction.

        Source: Linux, nested_vmx_enter_non_root_mode, vmx_check_nested_events.
        """
        self.run()
        self.exit_guest()
        try:
            self.nested_enter(controls, msr_load)
            self.deliver_init()
        finally:
            if not self.shut_down:
                self.run()

    def vmcall(self, msr_store: tuple[int, ...], msr_load: tuple[tuple[int, int], ...]) -> list[int]:
        """L2 executes VMCALL: a VM exit to L1 with these lists; returns what was stored."""
        self.run()
        self.exit_guest()
        stored = self.nested_exit(msr_store, msr_load)
        self.run()
        return stored

    def vmxoff(self) -> None:
        """L1 leaves VMX operation; an INIT that was pending takes effect.

        Source: SDM vol. 3, VMXOFF.
        """
        self.exit_guest()
        self.vmx_operation = False
        self.deliver_init()

    # ---- SMM

    def smi(self) -> None:
        """An SMI: SMM runs at level 1, out of VMX operation.  IA32_SPEC_CTRL and its view stay as they are.

        Source: Linux, vmx_enter_smm; RFC v3 p3.
        """
        self.exit_guest()
        self.smm = True
        self.smm_left_level2 = self.level == 2
        self.smm_left_vmx = self.vmx_operation
        self.vmx_operation = False
        self.leave_nested()

    def rsm(self) -> None:
        """RSM: back to where the SMI came, L2 included, with the view that SMM left.

        A pending INIT takes effect, unless VMX operation blocks it still; if L2 is back it goes to L1.

        Source: Linux, vmx_leave_smm; repairs D4.
        """
        self.exit_guest()
        self.smm = False
        self.vmx_operation = self.smm_left_vmx
        if self.smm_left_level2:
            self.load_vmcs02()
            self.bitmap_merge_pending = True
        self.smm_left_vmx = False
        self.smm_left_level2 = False
        self.deliver_init()
