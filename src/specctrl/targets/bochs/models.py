"""The processor models of Bochs that are used, by Bochs' own names."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Model:
    """One model: its number in the wheel, and CPUID leaf 1, EAX, by which it is known again."""

    number: int
    signature: int
    title: str


MODELS: dict[str, Model] = {
    "arrow_lake": Model(31, 0xC0662, "Core Ultra 5 245K"),
    "sapphire_rapids": Model(30, 0x806F8, "Xeon w9-3475X"),
    "corei7_icelake_u": Model(28, 0x706E5, "Core i7-1065G7"),
    "corei7_haswell_4770": Model(24, 0x306C3, "Core i7-4770"),
}
"""Two with the control, one without it, one without IA32_SPEC_CTRL."""

WITH_CONTROL, WITHOUT_CONTROL, WITHOUT_MSR = "arrow_lake", "corei7_icelake_u", "corei7_haswell_4770"
"""What a modelled host runs on, by what it has."""
