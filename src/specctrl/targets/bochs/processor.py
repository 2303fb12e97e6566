"""A logical processor and a VMCS of the emulator, carried out by Bochs.

They stand where :class:`~specctrl.model.processor.LogicalProcessor` and :class:`~specctrl.model.processor.Vmcs`
stand: what those compute, Bochs does.
The emulator splits a stay in the guest into VM entry, instructions and VM exit.  Bochs' guest enters, executes one
instruction and exits, each time; VM entry and VM exit of the emulator are such stays without an instruction, the
first with the VM-entry MSR area, the last with the VM-exit areas and the field that the host's MSR is loaded from.
"""

from collections.abc import Mapping
from dataclasses import fields
from itertools import count
from typing import Any, ClassVar, TypeVar

from specctrl.model.outcomes import GP, Fault, Unsupported, VmEntryFailed, VmExit, VmxInstructionError
from specctrl.model.processor import LogicalProcessor, Vmcs
from specctrl.model.registers import VMCS_ENCODINGS
from specctrl.targets.bochs.processes import Asked, Processes

MASK, SHADOW = VMCS_ENCODINGS["IA32_SPEC_CTRL_MASK"], VMCS_ENCODINGS["IA32_SPEC_CTRL_SHADOW"]
HOST_FIELD = 0x2C1A
"""The host-state field that the VM-exit control "load IA32_SPEC_CTRL" loads, as Bochs numbers it."""
NUMBERS = count()
"""Numbers of processors and VMCSs; none is used twice."""

PERFORMED = ("virtualize_spec_ctrl", "spec_ctrl_mask", "spec_ctrl_shadow", "use_msr_bitmap", "intercept_read",
             "intercept_write", "entry_load", "entry_load_value", "exit_store", "exit_store_value", "exit_load",
             "exit_load_value", "load_on_entry", "load_on_exit", "host_spec_ctrl")
"""The fields of a VMCS that are carried out here; with another one the processor refuses to enter."""


class BochsVmcs(Vmcs):
    """A VMCS whose MASK and SHADOW are the fields of a VMCS region; the process is that of its first use."""

    def __init__(self, **policy: Any) -> None:
        self.process: Asked | None = None
        self.number = next(NUMBERS)
        self.tertiary_inactive = False  # the control's bit is 1, but "activate tertiary controls" is 0
        super().__init__(**policy)

    def on(self, process: Asked) -> int:
        """The number of this VMCS on the process."""
        self.process = process
        return self.number

    @property
    def spec_ctrl_mask(self) -> int:
        """VMREAD of IA32_SPEC_CTRL_MASK; 0 before the first use."""
        return self._vmread(MASK)

    @spec_ctrl_mask.setter
    def spec_ctrl_mask(self, value: int) -> None:
        self._vmwrite(MASK, value)

    @property
    def spec_ctrl_shadow(self) -> int:
        """VMREAD of IA32_SPEC_CTRL_SHADOW; 0 before the first use."""
        return self._vmread(SHADOW)

    @spec_ctrl_shadow.setter
    def spec_ctrl_shadow(self, value: int) -> None:
        self._vmwrite(SHADOW, value)

    def _vmread(self, field: int) -> int:
        if self.process is None:
            return 0
        return value_of(self.process.ask(["vmread", self.number, field])[0])

    def _vmwrite(self, field: int, value: int) -> None:
        if self.process is not None:
            raise_failure(self.process.ask(["vmwrite", self.number, field, value])[0])
        elif value:
            raise ValueError("a VMCS of Bochs is written by the processor that it is on")


class BochsProcessor(LogicalProcessor):
    """A logical processor of Bochs.  ``processes`` are where it can run."""

    processes: ClassVar[Processes]

    def __init__(
        self, writable: int, has_spec_ctrl: bool, has_control: bool, has_entry_load: bool = False,
        has_exit_load: bool = False, spec_ctrl: int = 0, non_root: bool = False, entry_loads_shadow: bool = False,
    ) -> None:
        if entry_loads_shadow:
            raise Unsupported("no processor of Bochs loads SHADOW at VM entry")
        if has_entry_load:
            raise Unsupported("no model of Bochs offers the VM-entry control that loads IA32_SPEC_CTRL")
        self.process = self.choose(has_spec_ctrl, has_control)
        self.number = next(NUMBERS)
        self.has_spec_ctrl = has_spec_ctrl  # before the MSR is written
        super().__init__(writable, has_spec_ctrl, has_control, has_exit_load=has_exit_load, spec_ctrl=spec_ctrl,
                         non_root=non_root)

    def __deepcopy__(self, memo: dict[int, object]) -> "BochsProcessor":
        """There is one of it: Unsupported."""
        raise Unsupported("a processor of Bochs cannot be copied, as a boot that is tried first needs")

    def choose(self, has_spec_ctrl: bool, has_control: bool) -> Asked:
        """The process with a processor that has these."""
        return self.processes.with_these(has_spec_ctrl, has_control)

    @property
    def spec_ctrl(self) -> int:
        """What RDMSR reads in root operation; 0 where there is no MSR."""
        return self.rdmsr() if self.has_spec_ctrl else 0

    @spec_ctrl.setter
    def spec_ctrl(self, value: int) -> None:
        if self.has_spec_ctrl:
            raise_failure(self.process.ask(["wrmsr", self.number, value])[0])

    def accepts(self, value: int) -> bool:
        """Whether a write completes: it is tried, and taken back."""
        if not self.has_spec_ctrl:
            return False
        before, tried = self.process.ask(["rdmsr", self.number], ["wrmsr", self.number, value])
        self.process.ask(["wrmsr", self.number, value_of(before)])
        return bool(tried == ["ok"])

    def rdmsr(self) -> int:
        """RDMSR in root operation."""
        return value_of(self.process.ask(["rdmsr", self.number])[0])

    def wrmsr(self, value: int) -> None:
        """WRMSR in root operation."""
        raise_failure(self.process.ask(["wrmsr", self.number, value])[0])

    def rdmsr_in_guest(self, vmcs: Vmcs) -> int:
        """VM entry, RDMSR, VM exit."""
        return value_of(self.enter(vmcs, "rdmsr"))

    def wrmsr_in_guest(self, vmcs: Vmcs, source: int) -> None:
        """VM entry, WRMSR, VM exit."""
        raise_failure(self.enter(vmcs, "wrmsr", source))

    def write_mask(self, vmcs: Vmcs, value: int) -> None:
        """VMWRITE of IA32_SPEC_CTRL_MASK."""
        raise_failure(self.process.ask(["vmwrite", self.on_this(vmcs), MASK, value])[0])

    def write_shadow(self, vmcs: Vmcs, value: int) -> None:
        """VMWRITE of IA32_SPEC_CTRL_SHADOW."""
        raise_failure(self.process.ask(["vmwrite", self.on_this(vmcs), SHADOW, value])[0])

    def read_shadow(self, vmcs: Vmcs) -> int:
        """VMREAD of IA32_SPEC_CTRL_SHADOW."""
        return value_of(self.process.ask(["vmread", self.on_this(vmcs), SHADOW])[0])

    def write_host_field(self, vmcs: Vmcs, value: int) -> None:
        """VMWRITE of host IA32_SPEC_CTRL."""
        raise_failure(self.process.ask(["vmwrite", self.on_this(vmcs), HOST_FIELD, value])[0])

    def vm_entry(self, vmcs: Vmcs) -> None:
        """VM entry with its MSR area, and an exit at once; what that has loaded of the host's is taken back."""
        load = vmcs.entry_load_value if vmcs.entry_load else None
        held = self.spec_ctrl if load is None else load
        fails = load is not None and not self.accepts(load)  # the host's state is loaded then, its area too
        raise_failure(self.enter(vmcs, "nothing", entry_load=load, load_on_exit=vmcs.load_on_exit,
                                 exit_load=vmcs.exit_load_value if fails and vmcs.exit_load else None))
        if vmcs.load_on_exit:
            self.spec_ctrl = held
        self.non_root = True

    def vm_exit(self, vmcs: Vmcs) -> None:
        """VM exit with its MSR areas and the host-state field; without any nothing is left to do."""
        self.non_root = False
        if not vmcs.exit_store and not vmcs.exit_load and not vmcs.load_on_exit:
            return
        load = vmcs.exit_load_value if vmcs.exit_load else None
        if (load is not None and not self.accepts(load)) or (vmcs.exit_store and not self.has_spec_ctrl):
            raise Unsupported("a VMX abort ends Bochs' processor")
        raise_failure(self.enter(
            vmcs, "nothing", exit_store=vmcs.exit_store, exit_load=load, load_on_exit=vmcs.load_on_exit))

    def enter(self, vmcs: Vmcs, program: str, value: int = 0, **areas: Any) -> list[Any]:
        """One stay in the guest: how it ended; ``exit_store_value`` becomes what the store area received."""
        for field in fields(Vmcs):
            if field.name not in PERFORMED and getattr(vmcs, field.name) != field.default:
                raise Unsupported(f"Bochs' processor was not told how to perform {field.name}")
        number = self.on_this(vmcs)
        assert isinstance(vmcs, BochsVmcs)
        controls: Mapping[str, Any] = {
            "virtualize": vmcs.virtualize_spec_ctrl or vmcs.tertiary_inactive,
            "activated": not vmcs.tertiary_inactive, "bitmap": vmcs.use_msr_bitmap,
            "intercept_read": vmcs.intercept_read, "intercept_write": vmcs.intercept_write,
            "load_on_entry": vmcs.load_on_entry, "load_on_exit": False,
            "entry_load": None, "exit_store": False, "exit_load": None, **areas,
        }
        ended, stored = self.process.ask(["enter", self.number, number, program, value, controls])[0]
        if stored is not None:
            vmcs.exit_store_value = stored
        result: list[Any] = ended
        return result

    def on_this(self, vmcs: Vmcs) -> int:
        """The number of a VMCS, which is on this processor's process from now on."""
        assert isinstance(vmcs, BochsVmcs), "Bochs runs its own VMCSs"
        return vmcs.on(self.process)


P = TypeVar("P", bound=BochsProcessor)


def bound(processor: type[P], on: Processes) -> type[P]:
    """The same class, its processors being on these processes."""
    return type(processor.__name__, (processor,), {"processes": on})


def value_of(result: list[Any]) -> int:
    """The value of a result; its outcome is raised where it has none."""
    raise_failure(result)
    return int(result[1])


def raise_failure(result: list[Any]) -> None:
    """Raise what an operation ended in, if not in success."""
    match result:
        case ["#GP"]:
            raise Fault(GP)
        case ["exit"]:
            raise VmExit
        case ["error", number]:
            raise VmxInstructionError(number)
        case ["entry failed"]:
            raise VmEntryFailed
