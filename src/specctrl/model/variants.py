"""The variants of the interface, by name."""

from specctrl.model.kvm.variant import SPEC, Variant
from specctrl.model.posted import RFC_V3

VARIANTS: dict[str, Variant] = {variant.name: variant for variant in (SPEC, RFC_V3)}
"""Each variant by its name."""
