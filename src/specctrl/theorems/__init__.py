"""Theorems: claims about one operation, from every state; see :mod:`specctrl.theorems.stating`."""

from specctrl.theorems import accesses, capability, entering, guests, moving, nesting, processor, vmm
from specctrl.theorems.stating import THEOREMS, Of, Start, Theorem

__all__ = [
    "THEOREMS", "Of", "Start", "Theorem", "accesses", "capability", "entering", "guests", "moving", "nesting",
    "processor", "vmm",
]
