"""Words as few bits: the bits that every constant has alike are one column.

All arithmetic of the rules is bit by bit, so two bits of a word that no constant tells apart are always equal, and one
of them stands for both.
"""

from collections.abc import Iterable

BITS = 64


class Indistinct(Exception):
    """A word that the columns cannot write: it tells apart bits that are one column."""


class Columns:
    """The columns that some words have.

    >>> columns = Columns([0x401, 0x1])
    >>> columns.width, columns.packed(0x401), hex(columns.word(3))
    (3, 5, '0xfffffffffffffbff')
    """

    def __init__(self, words: Iterable[int]) -> None:
        known = sorted(set(words))
        bits: dict[tuple[int, ...], int] = {}
        for bit in range(BITS):
            having = tuple(word >> bit & 1 for word in known)
            bits[having] = bits.get(having, 0) | 1 << bit
        self.masks = tuple(bits.values())

    @property
    def width(self) -> int:
        """How many columns there are."""
        return len(self.masks)

    def packed(self, word: int) -> int:
        """A word with one bit for each column; Indistinct if it has some bits of a column, and not all."""
        found = sum(bool(word & mask) << place for place, mask in enumerate(self.masks))
        if self.word(found) != word:
            raise Indistinct(f"{word:#x} tells apart bits that are one column")
        return found

    def word(self, packed: int) -> int:
        """The word of 64 bits."""
        return sum(mask for place, mask in enumerate(self.masks) if packed >> place & 1)
