"""Theorems: claims about one operation, from every state; see :mod:`specctrl.proof.theorems.statement`."""

from specctrl.proof.theorems import capability, entry, guest, migration, msrs, nested, processor, vmm
from specctrl.proof.theorems.statement import THEOREMS, Of, Start, Theorem

__all__ = [
    "THEOREMS", "Of", "Start", "Theorem", "capability", "entry", "guest", "migration", "msrs", "nested", "processor",
    "vmm",
]
