"""The word formulas: all arithmetic on IA32_SPEC_CTRL that this specification knows.

Each takes and returns 64-bit words.  They use only ``&``, ``|``, ``==`` and ``~`` as the right operand
of ``&``, so that the same text runs on integers and on symbolic words.
"""

WORD = 0xFFFF_FFFF_FFFF_FFFF
"""All 64 bits set; the largest word."""


def merge(guest: int, mask: int, value: int) -> int:
    """The value that takes effect: ``value`` where ``mask`` has a 1, ``guest`` elsewhere.

    With ``value`` the force value this is what KVM computes; with ``value`` the current MSR it is
    what the processor writes in VMX non-root operation.

    Source: SDM vol. 3, changes to instruction behaviour in VMX non-root operation (WRMSR); RFC v3 p1.

    >>> hex(merge(guest=0x001, mask=0x400, value=0x400))
    '0x401'
    >>> hex(merge(guest=0x405, mask=0x004, value=0x000))
    '0x401'
    """
    return (guest & ~mask) | (value & mask)


def is_subset(bits: int, of: int) -> bool:
    """Whether every 1 of ``bits`` is a 1 of ``of``.

    >>> is_subset(0x400, of=0x401), is_subset(0x402, of=0x401)
    (True, False)
    """
    return bool(bits & ~of == 0)


def overlay(user_mask: int, user_value: int, requested: int) -> tuple[int, int]:
    """Mask and value in force when a guest requests bits on top of what userspace forces.

    A requested bit is forced to 1 unless userspace's mask already has it: userspace wins.
    Returns ``(mask, value)``.

    Source: RFC v3 p9, the precedence of KVM_CAP_FORCE_SPEC_CTRL.

    >>> [hex(word) for word in overlay(user_mask=0x004, user_value=0x000, requested=0x400)]
    ['0x404', '0x400']
    >>> [hex(word) for word in overlay(user_mask=0x400, user_value=0x000, requested=0x400)]
    ['0x400', '0x0']
    """
    return user_mask | requested, user_value | (requested & ~user_mask)


def newly_set(new: int, old: int) -> int:
    """The bits that ``new`` sets and ``old`` did not.

    >>> hex(newly_set(new=0x3, old=0x1))
    '0x2'
    """
    return new & ~old
