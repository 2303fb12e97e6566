"""Which functions changed a vCPU or its VM: the innermost ones, and only what stays changed."""

import sys
from collections.abc import Callable
from types import CodeType
from typing import Any

from specctrl import Machine
from specctrl.model.kvm.entry import VcpuEntry
from specctrl.model.kvm.msrs import VcpuMsrs
from specctrl.model.kvm.vcpu import Vcpu
from specctrl.model.kvm.vm import Vm
from specctrl.model.processor import LogicalProcessor
from specctrl.site.changes import Changes
from specctrl.site.playground import by_code


def changed(machine: Machine, act: Callable[[], Any]) -> dict[CodeType, list[str]]:
    """What changed while something was done."""
    with Changes(by_code(), [machine.vm, *machine.vcpus.values()]) as changes:
        act()
    return changes.by_code()


def ready() -> Machine:
    """A machine whose guest has run."""
    machine = Machine("sapphire-rapids")
    machine.create_vcpu()
    machine.rdmsr(msr="IA32_SPEC_CTRL")
    return machine


def test_a_change_is_put_down_to_the_innermost_function() -> None:
    machine = ready()
    found = changed(machine, lambda: machine.wrmsr(msr="IA32_SPEC_CTRL", value=0x1))
    assert found[VcpuMsrs.write_spec_ctrl.__code__] == ["guest_view", "saved", "passthrough"]
    assert found[LogicalProcessor.write_shadow.__code__] == ["vmcs01.spec_ctrl_shadow"]
    assert found[VcpuEntry.update_interception.__code__] == ["vmcs01.intercept_read", "vmcs01.intercept_write"]
    assert LogicalProcessor.vm_exit.__code__ not in found, "the guest runs again: that is as it was"


def test_what_only_looks_changes_nothing() -> None:
    machine = ready()
    assert changed(machine, lambda: machine.rdmsr(msr="IA32_SPEC_CTRL")) == {}
    assert changed(machine, lambda: machine.enable_cap(cap="KVM_CAP_FORCE_SPEC_CTRL", args=[0x1, 0x1])) == {}, "EINVAL"


def test_a_vcpu_that_is_being_made_is_watched_from_its_first_call() -> None:
    machine = Machine("sapphire-rapids")
    machine.enable_cap(cap="KVM_CAP_FORCE_SPEC_CTRL", args=[0x400, 0x400])
    found = changed(machine, machine.create_vcpu)
    assert found[Vm.count_vcpu.__code__] == ["created_vcpus"]
    assert "user_mask" in found[Vcpu.power_on.__code__]
    assert found[VcpuEntry.update_force.__code__] == ["force_mask", "force_value", "saved"]


def test_a_fault_leaves_the_profile_as_it_was() -> None:
    machine = ready()
    seen = []
    changed(machine, lambda: seen.append(machine.wrmsr(msr="IA32_SPEC_CTRL", value=1 << 63)))
    assert seen == [{"fault": "#GP"}]
    before = sys.getprofile()
    changed(machine, lambda: None)
    assert sys.getprofile() is before
