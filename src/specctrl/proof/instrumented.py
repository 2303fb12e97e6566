"""The variant's vCPU with instruments: it notes what the claims speak of, and summarizes what only costs paths."""

from collections.abc import Callable
from copy import copy
from functools import cache, partial
from typing import Any

from specctrl.model.kvm.variant import Variant
from specctrl.model.kvm.vcpu import Vcpu
from specctrl.model.outcomes import Fault, HostFault, MsrRefused
from specctrl.proof.summaries import identity, summarize
from specctrl.proof.symbolic import SymbolicError, refuse

BITMAP = tuple((vmcs, bit) for vmcs in ("vmcs01", "vmcs02") for bit in ("intercept_read", "intercept_write"))
"""The bits of the two bitmaps."""
READ = ("passthrough", "controls", "cpuid", "force_mask", "loaded", "arch_capabilities", "virtual_enumeration")
"""Fields of a vCPU that a summarized method may look at, besides the control; some look at bitmaps and filter too."""


class Unread:
    """Stands where a summarized method must not look."""

    __bool__ = __and__ = __rand__ = __or__ = __ror__ = __eq__ = __ne__ = refuse("a field outside its summary")
    __hash__ = None  # type: ignore[assignment]  # nor does it go into a table

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # Python itself asks whether there is such a method
            raise AttributeError(name)
        raise SymbolicError(f"rule code uses {name!r} of a field outside its summary")

    def __setattr__(self, name: str, value: object) -> None:
        raise SymbolicError(f"a summarized method writes {name}")


UNREAD: Any = Unread()


class Part(Unread):
    """What of a record a summarized method may look at; of this it may write the bits of a bitmap, nothing else."""

    def __init__(self, **shown: Any) -> None:
        self.__dict__.update(shown)

    def __setattr__(self, name: str, value: object) -> None:
        if name not in self.__dict__ or not name.startswith("intercept_"):
            super().__setattr__(name, value)
        self.__dict__[name] = value


def fields_of(vcpu: Vcpu) -> dict[str, Any]:
    """Every field of a vCPU as it is."""
    return {name: getattr(vcpu, name) for name in Vcpu.__dataclass_fields__}


def copy_of(vcpu: Vcpu) -> Any:
    """A vCPU of which only the fields :data:`READ` and the control can be read."""
    made: Any = copy(vcpu)
    for name in Vcpu.__dataclass_fields__:
        if name not in READ:
            setattr(made, name, UNREAD)
    made.cpu = Part(has_control=vcpu.cpu.has_control)
    return made


def copy_with_bitmaps(vcpu: Vcpu) -> Any:
    """The same, and the bitmaps and the filter can be read too."""
    made = copy_of(vcpu)
    made.vm = Part(msr_filter=vcpu.vm.msr_filter)
    for name in ("vmcs01", "vmcs02"):
        bits = {bit: getattr(getattr(vcpu, name), bit) for vmcs, bit in BITMAP if vmcs == name}
        setattr(made, name, Part(**bits))
    return made


def performed(method: Callable[[Any], Any], scratch: Any) -> Any:
    """What the method returns on such a copy; SymbolicError if it writes a field."""
    before = fields_of(scratch)
    result = method(scratch)
    for name, now in fields_of(scratch).items():
        if now is not before[name]:
            raise SymbolicError(f"a summarized method writes {name}")
    return result


def inputs(vcpu: Vcpu) -> Any:
    """What the summary of a method that only answers depends on: all that :func:`copy_of` shows."""
    return identity((*(getattr(vcpu, field) for field in READ), vcpu.cpu.has_control))


def bitmap_inputs(vcpu: Vcpu) -> Any:
    """What the summary of a method that writes bitmaps depends on: all that :func:`copy_with_bitmaps` shows."""
    bits = tuple(getattr(getattr(vcpu, vmcs), bit) for vmcs, bit in BITMAP)
    msr_filter: Any = vcpu.vm.msr_filter
    name = (msr_filter.name, id(msr_filter.values)) if hasattr(msr_filter, "values") else id(msr_filter)
    return inputs(vcpu), identity(bits), name


def bitmap_summary(method: Callable[[Any], None], vcpu: Vcpu) -> tuple[Any, ...]:
    """The bits of both bitmaps after the method; SymbolicError if it writes anything else."""

    def after(vmcs: str, bit: str) -> Any:
        scratch = copy_with_bitmaps(vcpu)
        performed(method, scratch)
        return getattr(getattr(scratch, vmcs), bit)

    return tuple(summarize(partial(after, vmcs, bit)) for vmcs, bit in BITMAP)


class Begun(Exception):
    """The operation came to the one that it must begin with."""


@cache
def instrumented(variant: Variant) -> Variant:
    """The variant, with vCPUs that note what the claims speak of; they do what the variant's do."""
    base: Any = variant.vcpu
    made: dict[Any, Any] = {}

    def effects(method: Callable[[Any], None], vcpu: Any) -> None:
        """A method that only writes bitmaps, summarized: what each of their bits is then."""
        key = (method, bitmap_inputs(vcpu))
        if key not in made:
            kept = copy_with_bitmaps(vcpu)  # and with it the filter, whose id is in the key
            made[key] = (kept, bitmap_summary(method, vcpu))
        for (name, bit), value in zip(BITMAP, made[key][1], strict=True):
            setattr(getattr(vcpu, name), bit, value)

    def brief(method: Callable[[Any], Any], vcpu: Any) -> Any:
        """A method that only answers, and looks at a few fields only, summarized once for what they are."""
        key = (method, inputs(vcpu))
        if key not in made:
            made[key] = summarize(lambda: performed(method, copy_of(vcpu)))
        return made[key]

    class Instrumented(base):  # type: ignore[misc]  # the variant's own class
        __slots__ = ("exits", "merged", "refusal", "stops_at")

        def run(self) -> None:
            if getattr(self, "stops_at", "") == "run":
                raise Begun
            base.run(self)

        def enter_guest(self) -> None:
            try:
                base.enter_guest(self)
            except Fault as fault:
                raise HostFault(fault.vector) from None

        def exit_guest(self) -> None:
            if getattr(self, "stops_at", "") == "exit_guest":
                raise Begun
            try:
                base.exit_guest(self)
            except Fault as fault:
                raise HostFault(fault.vector) from None

        def shows_enumeration(self) -> Any:
            return brief(base.shows_enumeration, self)

        def shows_mitigation_ctrl(self) -> Any:
            return brief(base.shows_mitigation_ctrl, self)

        def may_pass_through(self) -> Any:
            return brief(base.may_pass_through, self)

        def update_interception(self) -> None:
            effects(base.update_interception, self)

        def merge_bitmap(self) -> None:
            effects(base.merge_bitmap, self)
            self.merged = (self.vmcs02.intercept_read, self.vmcs02.intercept_write)

        def restore_host_spec_ctrl(self, held: int) -> None:
            held_then = self.cpu.spec_ctrl
            base.restore_host_spec_ctrl(self, held)
            self.exits = (*getattr(self, "exits", ()), (self.saved, held_then, self.cpu.spec_ctrl))

        def emulate_rdmsr(self, msr: int) -> Any:
            try:
                return base.emulate_rdmsr(self, msr)
            except MsrRefused as refused:
                self.refusal = refused.reason
                raise

        def emulate_wrmsr(self, msr: int, value: int) -> None:
            try:
                base.emulate_wrmsr(self, msr, value)
            except MsrRefused as refused:
                self.refusal = refused.reason
                raise

    return Variant(variant.name, variant.processor, variant.vmcs, variant.vm, Instrumented)


