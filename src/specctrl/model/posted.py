"""The ten patches of RFC v3 as posted, defects included, on what this specification models of KVM itself.

Whole operations are overridden, as the patches write them; everything else is the specification's.
Base of the patches: 2c71fdf02a95 (after v6.9-rc3).
Message-Id of patch N: 20240410143446.797262-<N+1>-chao.gao@intel.com.
"""

import errno
from dataclasses import dataclass

from specctrl.model.contract import requested_bits
from specctrl.model.kvm.msrs import refuse_unless
from specctrl.model.kvm.state import Loaded, NestedState
from specctrl.model.kvm.variant import Variant
from specctrl.model.kvm.vcpu import Vcpu
from specctrl.model.outcomes import Errno
from specctrl.model.registers import (
    ARCH_CAP_VIRTUAL_ENUM,
    IA32_SPEC_CTRL,
    MITIGATION_CTRL_SUPPORT,
    VALID_MITIGATION_CTRL,
)
from specctrl.model.words import is_subset


@dataclass(slots=True)
class PostedVcpu(Vcpu):
    """A vCPU as the patches make it.  ``guest_view`` is their cache, kept only on a host with the control.

    At creation (init_vmcs, vmx_vcpu_reset) they do what this specification does, so ``power_on`` is not overridden;
    but that is the only place where the MASK field of vmcs01 is written (D1, D7).
    """

    def set_spec_ctrl(self, value: int) -> None:
        """vmx_set_spec_ctrl (p1, p2, p6): forced-to-1 bits are added, forced-to-0 bits are not taken away (D2)."""
        self.saved = value
        if self.cpu.has_control:
            self.guest_view = value
            self.cpu.write_shadow(self.vmcs, value)
            self.saved = value | self.force_value

    def init_reset(self) -> None:
        """vmx_vcpu_reset at INIT (p1, p8): the report, mask and value survive (D9)."""
        self.init_pending = False
        self.set_spec_ctrl(0)

    def force_spec_ctrl(self, mask: int, value: int) -> None:
        """There is no form of the capability for a vCPU: Errno(EINVAL)."""
        raise Errno(errno.EINVAL)

    def register_is_saved(self) -> bool:
        """vmenter.S, which the patches leave as it was: the host's variable is compared, not its register."""
        return bool(self.saved == self.host.spec_ctrl)

    def save_spec_ctrl(self, held: int) -> None:
        """vmx_spec_ctrl_restore_host, the save (p1, p2): computed from mask and value, not read (D1, D18)."""
        if self.vmcs.write_intercepted:
            return
        if self.cpu.has_control:
            self.guest_view = self.cpu.read_shadow(self.vmcs)
            self.saved = (self.guest_view & ~self.force_mask) | self.force_value
        else:
            self.saved = held

    def restore_host_spec_ctrl(self, held: int) -> None:
        """vmx_spec_ctrl_restore_host (p1): the computed value decides, not the register (D1, D2, D18)."""
        Vcpu.restore_host_spec_ctrl(self, self.saved)

    def update_interception(self) -> None:
        """vmx_enable_intercept_for_msr and its opposite: vmcs01's bitmap only (D3, the load-list case)."""
        msr_filter = self.vm.msr_filter
        self.vmcs01.intercept_read = not (self.passthrough and msr_filter.allows(IA32_SPEC_CTRL, write=False))
        self.vmcs01.intercept_write = not (self.passthrough and msr_filter.allows(IA32_SPEC_CTRL, write=True))

    def load_vmcs(self, which: Loaded) -> None:
        """prepare_vmcs02_early, prepare_vmcs02, nested_vmx_vmexit (p3): SHADOW only for a pending entry (D4).

        The MASK field of vmcs01 is not written (D1, D7).
        """
        self.loaded = which
        if not self.cpu.has_control:
            return
        if which is Loaded.VMCS02:
            self.cpu.write_mask(self.vmcs, self.force_mask)
        if which is Loaded.VMCS01 or self.nested_run_pending:
            self.cpu.write_shadow(self.vmcs, self.guest_view)

    def abandon_entry(self) -> None:
        """nested_vmx_enter_non_root_mode, the failure after the MSR-load list (p3): SHADOW is not written (D5)."""
        self.nested_run_pending = False
        self.loaded = Loaded.VMCS01

    def set_nested_state(self, state: NestedState) -> None:
        """vmx_set_nested_state on the base kernel: vmcs02 is freed, nobody writes a new one's SHADOW, here 0 (D4)."""
        if state.level2:
            self.vmcs02.spec_ctrl_shadow = 0
        Vcpu.set_nested_state(self, state)

    def read_spec_ctrl(self) -> int:
        """vmx_get_msr (p1, p2): the cache with the control, KVM's saved value without."""
        return self.guest_view if self.cpu.has_control else self.saved

    def write_spec_ctrl(self, value: int) -> None:
        """vmx_set_msr, IA32_SPEC_CTRL (p1): the value written is tested, not the merge (D8)."""
        refuse_unless(self.cpu.accepts(value))
        self.set_spec_ctrl(value)
        if value:
            self.passthrough = True
            self.update_interception()

    def shows_enumeration(self) -> bool:
        """vmx_get_msr, MSR_VIRTUAL_ENUMERATION (p7): bit 63 alone, not the guest's CPUID (D10)."""
        return bool(self.arch_capabilities & ARCH_CAP_VIRTUAL_ENUM)

    def shows_mitigation_ctrl(self) -> bool:
        """vmx_get_msr and vmx_set_msr, the other two (p8): the enumeration bit alone (D10)."""
        return bool(self.virtual_enumeration & MITIGATION_CTRL_SUPPORT)

    def write_mitigation_ctrl(self, value: int, host_initiated: bool) -> None:
        """vmx_set_msr, MSR_VIRTUAL_MITIGATION_CTRL (p8-p10): what 0x50000001 offers is not asked (D10).

        The cached view is applied again untested (D21), and is always 0 without the control (D3);
        the MASK field is not written (D1).
        """
        refuse_unless(is_subset(value, VALID_MITIGATION_CTRL))
        requested = requested_bits(self.host, value)
        if requested and not self.cpu.has_control:
            self.passthrough = False
            self.update_interception()
        requested = requested & ~self.vm.user_mask
        self.force_mask = self.vm.user_mask | requested
        self.force_value = self.vm.user_value | requested
        self.set_spec_ctrl(self.guest_view)
        self.mitigation_ctrl = value


RFC_V3 = Variant("rfc-v3", vcpu=PostedVcpu)
"""The variant of the interface that the ten patches implement."""
