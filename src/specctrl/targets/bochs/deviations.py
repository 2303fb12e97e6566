"""Where Bochs is known to differ from this specification: declared, and expected of it.

A difference that is not declared here is a failure, and so is one that is declared and no longer seen.  What the SDM
leaves undefined is compared nowhere, and stands in no row.
"""

from collections.abc import Collection
from dataclasses import dataclass

from specctrl.model.processor import LogicalProcessor, Vmcs


@dataclass(frozen=True, slots=True)
class Deviation:
    """One difference: the rule that it breaks, the models that show it, and what is done about it in a run."""

    name: str
    rule: str
    models: tuple[str, ...]
    required: str
    shown: str
    in_a_run: str


SHADOW_STAYS = Deviation(
    name="shadow-stays",
    rule="processor.wrmsr.shadow-unmodified",
    models=("arrow_lake", "sapphire_rapids"),
    required="a WRMSR that completes under the control puts its source operand into SHADOW",
    shown="SHADOW stays as it was",
    in_a_run="the VMM writes the source operand into SHADOW after each such WRMSR, if it is not there",
)
WRITABLE_FIXED = Deviation(
    name="writable-fixed",
    rule="processor.root.real-msr",
    models=("sapphire_rapids", "corei7_icelake_u"),
    required="IA32_SPEC_CTRL takes the bits that CPUID enumerates",
    shown="it takes 0x5ff, whatever CPUID enumerates",
    in_a_run="a scenario is unsupported as soon as the processor takes a bit that the scenario's host refuses",
)
DEVIATIONS = (SHADOW_STAYS, WRITABLE_FIXED)
"""All that are declared."""

WRITABLE = 0x5FF
"""The bits that Bochs' IA32_SPEC_CTRL takes, on each model that has the MSR."""


class ShadowStays(LogicalProcessor):
    """This specification's processor, with the deviation ``shadow-stays``."""

    def wrmsr_in_guest(self, vmcs: Vmcs, source: int) -> None:
        """WRMSR in the guest; SHADOW stays."""
        before = vmcs.spec_ctrl_shadow
        LogicalProcessor.wrmsr_in_guest(self, vmcs, source)
        vmcs.spec_ctrl_shadow = before


def expected_processor(
    writable: int, has_spec_ctrl: bool, has_control: bool, has_exit_load: bool, deviations: Collection[Deviation]
) -> LogicalProcessor:
    """This specification's processor with these deviations; ``writable`` is what CPUID enumerates.

    >>> expected_processor(0x7, True, False, False, [WRITABLE_FIXED]).accepts(0x400)
    True
    """
    processor = ShadowStays if SHADOW_STAYS in deviations else LogicalProcessor
    bits = WRITABLE if WRITABLE_FIXED in deviations else writable
    return processor(bits, has_spec_ctrl, has_control, has_exit_load=has_exit_load)
