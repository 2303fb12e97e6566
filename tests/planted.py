"""The plantable defects of the posted series, each planted alone in the specification's vCPU."""

from importlib import import_module

from specctrl.evidence.faults import IMPLEMENTER
from specctrl.model.kvm.entry import VcpuEntry
from specctrl.model.kvm.msrs import refuse_unless
from specctrl.model.kvm.state import Loaded
from specctrl.model.kvm.variant import Variant
from specctrl.model.kvm.vcpu import Vcpu
from specctrl.model.registers import MITIGATION_CTRL_SUPPORT, VALID_MITIGATION_CTRL
from specctrl.model.words import is_subset


class D1(Vcpu):
    """A report does not reach the MASK field."""

    def update_force(self):
        mask = self.vmcs.spec_ctrl_mask
        VcpuEntry.update_force(self)
        self.vmcs.spec_ctrl_mask = mask


class D2(Vcpu):
    """The write path adds forced bits and takes none away."""

    def write_spec_ctrl(self, value):
        Vcpu.write_spec_ctrl(self, value)
        self.saved = value | self.force_value


class D3(Vcpu):
    """Without the control the interception is dropped although bits are forced."""

    def may_pass_through(self):
        return self.cpuid.spec_ctrl


class D4(Vcpu):
    """vmcs02's SHADOW is written only for a pending entry."""

    def load_vmcs(self, which):
        shadow = self.vmcs02.spec_ctrl_shadow
        Vcpu.load_vmcs(self, which)
        if which is Loaded.VMCS02 and not self.nested_run_pending:
            self.vmcs02.spec_ctrl_shadow = shadow


class D5(Vcpu):
    """A failed entry leaves vmcs01's SHADOW as it was."""

    def abandon_entry(self):
        self.nested_run_pending = False
        self.loaded = Loaded.VMCS01


class D7(Vcpu):
    """The VMCS that is loaded keeps an old MASK."""

    def load_vmcs(self, which):
        self.loaded = which
        if self.cpu.has_control:
            self.cpu.write_shadow(self.vmcs, self.guest_view)


class D8(Vcpu):
    """The value written is tested, not the merge."""

    def write_spec_ctrl(self, value):
        refuse_unless(self.cpu.accepts(value))
        Vcpu.write_spec_ctrl(self, value)


class D9(Vcpu):
    """INIT leaves the report."""

    def init_reset(self):
        report = self.mitigation_ctrl
        Vcpu.init_reset(self)
        self.mitigation_ctrl = report
        self.update_force()


class D10(Vcpu):
    """The enumeration bit alone shows the report."""

    def shows_mitigation_ctrl(self):
        return bool(self.virtual_enumeration & MITIGATION_CTRL_SUPPORT)


class D10Offered(Vcpu):
    """What MSR_VIRTUAL_MITIGATION_ENUM offers is not asked."""

    def write_mitigation_ctrl(self, value, host_initiated):
        refuse_unless(is_subset(value, VALID_MITIGATION_CTRL))
        self.mitigation_ctrl = value
        self.update_force()


class D18(Vcpu):
    """The host's restore is decided by the computed value, not by what the register holds."""

    def restore_host_spec_ctrl(self, held):
        Vcpu.restore_host_spec_ctrl(self, self.saved)


class D18WithDrift(D1):
    """D18 where the MASK field drifts."""

    restore_host_spec_ctrl = D18.restore_host_spec_ctrl


class D21(Vcpu):
    """A report applies the view again, unmasked and untested."""

    def update_force(self):
        VcpuEntry.update_force(self)
        self.saved = self.guest_view | self.force_value


def planted(defect):
    """The specification's variant with a defect."""
    return Variant(f"spec with {defect.__name__}", vcpu=defect)


# ---- what an implementer outside KVM may get wrong

def of_fault(name):
    """A vCPU with a fault that somebody made: the methods that it changes are its own, and nobody else has them."""
    (fault,) = (each for each in IMPLEMENTER if each.name == name)
    methods = {}
    for mutant in fault.mutants():
        names = vars(import_module(f"specctrl.model.{mutant.module}")).copy()
        exec(mutant.text, names)
        owner, method = mutant.key.split(":")[1].split(".")
        methods[method] = vars(names[owner])[method]
    return type(name, (Vcpu,), methods)


KIT = [fault.name for fault in IMPLEMENTER if all(module.startswith("kvm.") for module, *_ in fault.changes)]
"""Those faults that are a vCPU's; the others are a VMM's."""
