"""Theorems: claims about one operation, from every state; see :mod:`specctrl.theorems.stating`."""

from specctrl.theorems import accesses, capability, entering, moving, nesting, processor
from specctrl.theorems.stating import THEOREMS, Of, Start, Theorem

__all__ = ["THEOREMS", "Of", "Start", "Theorem", "accesses", "capability", "entering", "moving", "nesting", "processor"]
