"""A vCPU's whole mutable state as one flat tuple, taken and put back from one list of fields."""

from collections.abc import Callable
from dataclasses import fields
from operator import attrgetter
from typing import Any

from specctrl.model.contract import L1Controls
from specctrl.model.kvm.state import Loaded, VcpuState
from specctrl.model.kvm.vcpu import Vcpu
from specctrl.model.processor import LogicalProcessor, Vmcs
from specctrl.model.words import WORD

CONSTANT = {
    "vm",  # one for each host and pair
    "cpuid",
    "init_withdraws_report",
    "arch_capabilities",
    "virtual_enumeration",
    "mitigation_enum",
    "pending_exit",  # no exit to userspace is enabled
    "cpu.writable",
    "cpu.has_spec_ctrl",
    "cpu.has_control",
    "cpu.has_entry_load",
    "cpu.has_exit_load",
    "cpu.entry_loads_shadow",
    *(
        f"{vmcs}.{field}"
        for vmcs in ("vmcs01", "vmcs02")
        for field in (
            "virtualize_spec_ctrl",
            "use_msr_bitmap",
            "entry_load",
            "entry_load_value",
            "exit_store",
            "exit_store_value",
            "exit_load",
            "exit_load_value",
            "load_on_entry",
            "guest_spec_ctrl",
            "load_on_exit",
            "host_spec_ctrl",
        )
    ),
}
"""Fields that no step of the exploration changes."""

RECORDS: dict[str, type[LogicalProcessor] | type[Vmcs]] = {"cpu": LogicalProcessor, "vmcs01": Vmcs, "vmcs02": Vmcs}
"""The records that every vCPU has to itself."""

ALL_FIELDS: tuple[str, ...] = tuple(
    name
    for field in fields(VcpuState)
    for name in (
        [f"{field.name}.{inner.name}" for inner in fields(RECORDS[field.name])]
        if field.name in RECORDS
        else [field.name]
    )
)
"""Every field of a vCPU and of the records in it, with dotted names."""

FIELDS: tuple[str, ...] = tuple(name for name in ALL_FIELDS if name not in CONSTANT)
"""The fields of a state."""

State = tuple[Any, ...]
"""The values of :data:`FIELDS`."""

LOADED = {loaded.value: loaded for loaded in Loaded}
CONTROLS = {True: L1Controls(), False: L1Controls(use_msr_bitmap=False)}
"""What L1 asks for in the exploration: a bitmap that intercepts nothing, or no bitmap."""

_STORED = {"loaded": "loaded._value_", "controls": "controls.use_msr_bitmap"}
"""An enum and a record stand in a state as a number and a flag, which hash fast."""
_BACK = {"loaded": "LOADED[{}]", "controls": "CONTROLS[{}]"}

take: Callable[[Vcpu], State] = attrgetter(*(_STORED.get(name, name) for name in FIELDS))
"""The state of a vCPU."""


def _put() -> Callable[[Vcpu, State], None]:
    """One assignment to each field, written out: several times as fast as a loop over ``setattr``."""
    names = [f"f{index}" for index in range(len(FIELDS))]
    lines = ["def put(vcpu, state):", f"    {', '.join(names)} = state"]
    lines += [f"    {record} = vcpu.{record}" for record in RECORDS]
    for name, value in zip(FIELDS, names, strict=True):
        target = name if "." in name else f"vcpu.{name}"
        lines.append(f"    {target} = {_BACK.get(name, '{}').format(value)}")
    space: dict[str, Any] = {"LOADED": LOADED, "CONTROLS": CONTROLS}
    exec("\n".join(lines), space)
    made: Callable[[Vcpu, State], None] = space["put"]
    return made


put = _put()
"""Give a vCPU a state that :data:`take` took."""

POISON = WORD
"""What an explored VMCS holds while it is not loaded; nothing that is explored holds it otherwise."""


def forget(vcpu: Vcpu) -> None:
    """Spoil the MASK and SHADOW fields of the VMCS that is not loaded.

    Rule code that writes them whenever it loads the VMCS cannot tell, and far fewer states differ.
    Rule code that relies on what they held lets the guest read the poison, or masks every bit.
    """
    other = vcpu.vmcs01 if vcpu.loaded is Loaded.VMCS02 else vcpu.vmcs02
    other.spec_ctrl_mask = POISON
    other.spec_ctrl_shadow = POISON
