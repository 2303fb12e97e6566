"""A variant of the interface: the classes that its machine is made of."""

from collections.abc import Iterable
from dataclasses import dataclass

from specctrl.model.kvm.vcpu import Vcpu
from specctrl.model.kvm.vm import Vm
from specctrl.model.parts import Features, Host, arch_capabilities
from specctrl.model.processor import LogicalProcessor, Vmcs


@dataclass(frozen=True, slots=True)
class Assumptions:
    """What can be switched: assumptions where no source decides, and one reading against the manual's."""

    init_withdraws_report: bool = True  # INIT returns MSR_VIRTUAL_MITIGATION_CTRL to 0 (defect D9)
    vm_entry_loads_shadow: bool = False  # VM entry loads the MSR from the SHADOW field
    bhi_no_suffices: bool = True  # a guest on a part with BHI_NO needs no mitigation of BHI; Linux' code differs


@dataclass(frozen=True, slots=True)
class Variant:
    """One reading of the interface; every record of a machine is made here, never by a class named in rule code."""

    name: str
    processor: type[LogicalProcessor] = LogicalProcessor
    vmcs: type[Vmcs] = Vmcs
    vm: type[Vm] = Vm
    vcpu: type[Vcpu] = Vcpu

    def make_vm(self, host: Host) -> Vm:
        """A new VM on this host (KVM_CREATE_VM)."""
        return self.vm(host)

    def make_processor(self, host: Host, assume: Assumptions, loads: Iterable[str] = ()) -> LogicalProcessor:
        """A logical processor of this host, which runs host code with the host's value.

        ``loads``: at which of ``entry`` and ``exit`` it can load the MSR by a control.
        """
        return self.processor(
            writable=host.writable,
            has_spec_ctrl=host.has_spec_ctrl,
            has_control=host.spec_ctrl_shadow,
            spec_ctrl=host.spec_ctrl,
            entry_loads_shadow=assume.vm_entry_loads_shadow,
            **{f"has_{where}_load": True for where in loads},
        )

    def make_vcpu(self, vm: Vm, cpuid: Features, assume: Assumptions) -> Vcpu:
        """A new vCPU of this VM on a logical processor of its own (KVM_CREATE_VCPU, KVM_SET_CPUID2)."""
        vcpu = self.vcpu(
            vm=vm,
            cpu=self.make_processor(vm.host, assume),
            cpuid=cpuid,
            vmcs01=self.vmcs(),
            vmcs02=self.vmcs(),
            init_withdraws_report=assume.init_withdraws_report,
        )
        vcpu.power_on(arch_capabilities(vm.host))
        return vcpu


SPEC = Variant("spec")
"""What this specification requires."""
