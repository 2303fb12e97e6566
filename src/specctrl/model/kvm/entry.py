"""First floor of a vCPU: what is forced, VM entry and VM exit, and which accesses are intercepted."""

import errno
from dataclasses import dataclass

from specctrl.model.contract import can_force, requested_bits
from specctrl.model.kvm.state import Loaded, VcpuState
from specctrl.model.outcomes import GP, Errno, Fault, HostFault
from specctrl.model.registers import IA32_SPEC_CTRL
from specctrl.model.words import merge, overlay


@dataclass(slots=True)
class VcpuEntry(VcpuState):
    """Forcing, entry and exit."""

    # ---- what is forced

    def update_force(self) -> None:
        """Put userspace's pair and the report in force: mask, value, saved value, VMCS, interception.

        Called in root operation, with ``guest_view`` as of the last exit.
        The other VMCS's MASK field follows when :meth:`~specctrl.model.kvm.entry.VcpuEntry.load_vmcs` loads it.

        Source: RFC v3 p9; repairs D1, D2, D7 and D21.
        """
        mask, value = overlay(self.user_mask, self.user_value, requested_bits(self.host, self.mitigation_ctrl))
        self.force_mask = mask
        self.force_value = value
        self.saved = merge(self.guest_view, mask, value)
        if self.cpu.has_control:
            self.cpu.write_mask(self.vmcs, mask)
        self.update_passthrough()

    def force_spec_ctrl(self, mask: int, value: int) -> None:
        """KVM_CAP_FORCE_SPEC_CTRL on the vCPU fd (proposed): replaces this vCPU's userspace pair, at any time.

        Errno(EINVAL), and nothing changes, for a pair that :func:`specctrl.model.contract.can_force` refuses, and
        when the host refuses the value that would take effect: a narrower mask may uncover a bit of the
        guest's view that only the mask made harmless.

        Source: cover letter, open question 1; Sean Christopherson, 11 June 2024 (Zmh8NSzd5xK-6urr@google.com).
        """
        if not can_force(self.host, mask, value):
            raise Errno(errno.EINVAL)
        new_mask, new_value = overlay(mask, value, requested_bits(self.host, self.mitigation_ctrl))
        if not self.cpu.accepts(merge(self.guest_view, new_mask, new_value)):
            raise Errno(errno.EINVAL)
        self.user_mask = mask
        self.user_value = value
        self.update_force()

    # ---- which VMCS, which accesses exit

    def load_vmcs(self, which: Loaded) -> None:
        """Make one VMCS the loaded one; its MASK and SHADOW become what holds now.

        One place for every way to get there: nested entry (pending or not) and exit, a failed entry,
        SMI and RSM, KVM_SET_NESTED_STATE.

        Source: RFC v3 p3 (prepare_vmcs02_early, prepare_vmcs02, nested_vmx_vmexit); repairs D1, D4, D5, D7.
        """
        self.loaded = which
        if self.cpu.has_control:
            self.cpu.write_mask(self.vmcs, self.force_mask)
            self.cpu.write_shadow(self.vmcs, self.guest_view)

    def may_pass_through(self) -> bool:
        """Whether the guest may access the MSR without an exit at all.

        It must enumerate the MSR; and without the control nothing but interception keeps forced bits.

        Source: Linux, vmx_set_msr; repairs D3.
        """
        return self.cpuid.shows_spec_ctrl and (self.cpu.has_control or bool(self.force_mask == 0))

    def update_passthrough(self) -> None:
        """After a change of the mask: intercept, or stop intercepting, on a host without the control.

        Source: RFC v3 p9 (intercept without the control); repairs D3.
        """
        if not self.may_pass_through():
            self.passthrough = False
        elif not self.cpu.has_control and self.guest_view:
            self.passthrough = True
        self.update_interception()

    def update_interception(self) -> None:
        """Write vmcs01's bitmap: pass through in each direction that the MSR filter allows.

        An interception that KVM itself needs holds for L2 at once; otherwise vmcs02's bitmap is
        merged anew at the next nested entry.

        Source: Linux, vmx_disable_intercept_for_msr and nested_vmx_prepare_msr_bitmap.
        """
        msr_filter = self.vm.msr_filter
        self.vmcs01.intercept_read = not (self.passthrough and msr_filter.allows(IA32_SPEC_CTRL, write=False))
        self.vmcs01.intercept_write = not (self.passthrough and msr_filter.allows(IA32_SPEC_CTRL, write=True))
        if not self.passthrough:
            self.vmcs02.intercept_read = True
            self.vmcs02.intercept_write = True

    def msr_filter_changed(self) -> None:
        """KVM_X86_SET_MSR_FILTER took effect: the vCPU is kicked out of the guest, vmcs01's bitmap follows.

        Source: Linux 6.12, kvm_vm_ioctl_set_msr_filter (KVM_REQ_MSR_FILTER_CHANGED), vmx_msr_filter_changed.
        """
        self.exit_guest()
        self.update_interception()

    # ---- VM entry and VM exit

    def enter_guest(self) -> None:
        """VM entry, unless the guest runs already: load the saved value, unless the register holds it.

        HostFault(#GP) if the processor refuses the saved value: nothing catches it in the entry code.

        Source: Linux, vmenter.S; defect D21.
        """
        if self.in_guest:
            return
        if self.host.has_spec_ctrl and not self.register_is_saved():
            try:
                self.cpu.wrmsr(self.saved)
            except Fault:
                raise HostFault(GP) from None
        self.cpu.vm_entry(self.vmcs)
        self.nested_run_pending = False
        self.has_run = True

    def register_is_saved(self) -> bool:
        """Before an entry: whether the register holds the saved value.

        It can do so only if that value is the host's; then the register is read, for the host's variable may be
        wrong about it: a suspend to RAM, or a write that went past the variable.

        Source: Linux, vmenter.S, compares with the variable alone; commit 66065157420c (S3 cleared the register).
        """
        return bool(self.saved == self.host.spec_ctrl and self.saved == self.cpu.rdmsr())

    def exit_guest(self) -> None:
        """VM exit to the host, unless KVM runs already.

        Source: Linux, vmenter.S.
        """
        if not self.in_guest:
            return
        self.cpu.vm_exit(self.vmcs)
        self.after_exit()

    def after_exit(self) -> None:
        """What KVM does first: save what the guest left, give the host its value.

        The register is read, unless the guest could not write it and the saved value is not the host's: then the
        host's is written back in any case.  Between the exit and this read an NMI may run.

        Source: Linux, vmenter.S and vmx_spec_ctrl_restore_host; RFC v3 p1, p2.
        """
        if self.host.has_spec_ctrl:
            known = self.vmcs.write_intercepted and self.saved != self.host.spec_ctrl
            held = self.saved if known else self.cpu.rdmsr()
            self.save_spec_ctrl(held)
            self.restore_host_spec_ctrl(held)

    def save_spec_ctrl(self, held: int) -> None:
        """After an exit: take over what the guest may have changed without one; ``held`` is what the register holds.

        The view is the SHADOW field, or the register on a host without the control; the saved value follows from
        view and pair, so that nothing but the guest changes it.  While writes are intercepted both stand.

        Source: RFC v3 p1, p2; repairs D1, D18.
        """
        if self.vmcs.write_intercepted:
            return
        if self.cpu.has_control:
            self.guest_view = self.cpu.read_shadow(self.vmcs)
        else:
            self.guest_view = held
        self.saved = merge(self.guest_view, self.force_mask, self.force_value)

    def restore_host_spec_ctrl(self, held: int) -> None:
        """After an exit: write the host's value unless the register holds it; always on a legacy-IBRS host.

        Source: Linux, vmx_spec_ctrl_restore_host.
        """
        if held != self.host.spec_ctrl or self.host.legacy_ibrs:
            self.cpu.wrmsr(self.host.spec_ctrl)
