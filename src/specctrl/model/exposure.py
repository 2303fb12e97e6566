"""Whether a guest kernel is exposed now, and what it pays for needlessly.

Three things decide: the processor that it runs on, the value of IA32_SPEC_CTRL in effect while it runs, and the
software that it chose where it booted.
"""

from dataclasses import dataclass, replace
from enum import Enum

from specctrl.model.guest import BhbSequence, Software
from specctrl.model.parts import Host
from specctrl.model.registers import BHI_DIS_S, RRSBA_DIS_S


class Protection(Enum):
    """What keeps an attacker's branch history from steering the kernel; the value is the reasoning in words."""

    NOT_AFFECTED = "the processor reports BHI_NO"
    BHI_DIS_S = "BHI_DIS_S is in effect"
    RETPOLINE = "every indirect branch is a retpoline, and RRSBA behaviour is absent or disabled"
    SEQUENCE = "a sequence that works on this processor clears the history at each system call"
    NOTHING = "nothing stops it"


class RrsbaProtection(Enum):
    """What keeps RRSBA behaviour from undoing a retpoline; the value is the reasoning in words."""

    NO_RETPOLINE = "the kernel does not rely on retpoline"
    NO_RRSBA = "the processor has no RRSBA behaviour"
    RRSBA_DIS_S = "RRSBA_DIS_S is in effect"
    NOTHING = "a RET whose RSB is empty may take its target from elsewhere, and retpoline ends in a RET"


class Overhead(Enum):
    """What is paid needlessly; the value is the scenario format's name."""

    BHI_DIS_S_UNNEEDED = "bhi-dis-s-unneeded"
    BHI_DIS_S_OPTED_OUT = "bhi-dis-s-opted-out"
    BHI_DIS_S_AND_SEQUENCE = "bhi-dis-s-and-sequence"
    SEQUENCE_UNNEEDED = "sequence-unneeded"
    SEQUENCE_INEFFECTIVE = "sequence-ineffective"
    SEQUENCE_TOO_LONG = "sequence-too-long"
    RRSBA_DIS_S_UNNEEDED = "rrsba-dis-s-unneeded"


OVERHEAD_MEANS: dict[Overhead, str] = {
    Overhead.BHI_DIS_S_UNNEEDED: "BHI_DIS_S is in effect, and the kernel is not exposed without it or a sequence",
    Overhead.BHI_DIS_S_OPTED_OUT: "BHI_DIS_S is in effect, and the guest's owner wants no mitigation at system calls",
    Overhead.BHI_DIS_S_AND_SEQUENCE: "BHI_DIS_S is in effect, and a sequence that works here runs too",
    Overhead.SEQUENCE_UNNEEDED: "a sequence runs, and the kernel is not exposed without it or BHI_DIS_S",
    Overhead.SEQUENCE_INEFFECTIVE: "a sequence runs that does not work on this processor",
    Overhead.SEQUENCE_TOO_LONG: "the long sequence runs on a processor for which the short one would do",
    Overhead.RRSBA_DIS_S_UNNEEDED: "RRSBA_DIS_S is in effect, and there is no retpoline or no RRSBA behaviour",
}
"""Each overhead in words."""

Known = Software | None
"""The software of a guest that has booted, or None: then nothing but the processor protects it."""


def sequence_works(host: Host, sequence: BhbSequence) -> bool:
    """Whether a BHB-clearing sequence clears the history on this host's processor.

    Source: Linux, the comment at clear_bhb_loop; Xen's sequences, and its comment on the TSX one: an abort clears
    the history as long as XBEGIN does not fault.

    >>> from specctrl.model.parts import resolve_host
    >>> [sequence_works(resolve_host("sapphire-rapids"), sequence) for sequence in BhbSequence]
    [False, False, True, False]
    """
    if sequence is BhbSequence.SHORT:
        return host.short_sequence_works
    if sequence is BhbSequence.TSX:
        return host.features.tsx
    return sequence is BhbSequence.LONG


def rrsba_protection(host: Host, effective: int, software: Known) -> RrsbaProtection:
    """What protects a retpoline kernel from RRSBA behaviour; ``effective`` is the processor's IA32_SPEC_CTRL.

    Source: RFC v3 p5's reasoning; Linux, spec_ctrl_disable_kernel_rrsba.

    >>> from specctrl.model.parts import resolve_host
    >>> rrsba_protection(resolve_host("sapphire-rapids"), 0x40, Software(retpoline=True)).name
    'RRSBA_DIS_S'
    """
    if software is not None and not software.retpoline:
        return RrsbaProtection.NO_RETPOLINE
    if not host.features.rrsba:
        return RrsbaProtection.NO_RRSBA
    if effective & RRSBA_DIS_S:
        return RrsbaProtection.RRSBA_DIS_S
    return RrsbaProtection.NOTHING


def bhi_protection(host: Host, effective: int, software: Known) -> Protection:
    """What protects this kernel from BHI at its system calls; ``effective`` is the processor's IA32_SPEC_CTRL.

    Source: Intel's guidance as quoted by Jim Mattson (BHI_NO, BHI_DIS_S, the short sequence); Linux,
    bhi_select_mitigation (retpoline).

    >>> from specctrl.model.parts import resolve_host
    >>> short = Software(at_entry=BhbSequence.SHORT)
    >>> for part in ("ice-lake-server", "sapphire-rapids"):
    ...     print(bhi_protection(resolve_host(part), 0x1, short).name)
    SEQUENCE
    NOTHING
    """
    if host.features.bhi_no:
        return Protection.NOT_AFFECTED
    if effective & BHI_DIS_S:
        return Protection.BHI_DIS_S
    if software is None:
        return Protection.NOTHING
    if retpoline_suffices(host, effective, software):
        return Protection.RETPOLINE
    if sequence_works(host, software.at_entry):
        return Protection.SEQUENCE
    return Protection.NOTHING


def retpoline_suffices(host: Host, effective: int, software: Software) -> bool:
    """Whether retpoline alone protects this kernel from BHI.

    Source: Linux, bhi_select_mitigation, which then does nothing more.
    """
    return software.retpoline and rrsba_protection(host, effective, software) is not RrsbaProtection.NOTHING


def exposed(host: Host, effective: int, software: Known) -> tuple[str, ...]:
    """The attacks that nothing stops, by the scenario format's names: ``BHI``, ``RRSBA``.

    >>> from specctrl.model.parts import resolve_host
    >>> exposed(resolve_host("sapphire-rapids"), 0x1, None)
    ('BHI', 'RRSBA')
    """
    attacks: tuple[str, ...] = ()
    if bhi_protection(host, effective, software) is Protection.NOTHING:
        attacks += ("BHI",)
    if rrsba_protection(host, effective, software) is RrsbaProtection.NOTHING:
        attacks += ("RRSBA",)
    return attacks


def overhead(host: Host, effective: int, software: Known) -> tuple[Overhead, ...]:
    """What is paid needlessly now, whoever asked for it; of a guest that has not booted nothing is known.

    >>> from specctrl.model.parts import resolve_host
    >>> long = Software(at_entry=BhbSequence.LONG)
    >>> [item.value for item in overhead(resolve_host("sapphire-rapids"), 0x401, long)]
    ['bhi-dis-s-and-sequence']
    """
    if software is None:
        return ()
    found: tuple[Overhead, ...] = ()
    clears = software.at_entry is not BhbSequence.NONE
    works = sequence_works(host, software.at_entry)
    unneeded = host.features.bhi_no or retpoline_suffices(host, effective, software)

    if effective & BHI_DIS_S:
        if unneeded:
            found += (Overhead.BHI_DIS_S_UNNEEDED,)
        elif not software.wants_bhi:
            found += (Overhead.BHI_DIS_S_OPTED_OUT,)
        elif works:
            found += (Overhead.BHI_DIS_S_AND_SEQUENCE,)
    if clears and unneeded:
        found += (Overhead.SEQUENCE_UNNEEDED,)
    elif clears and not works:
        found += (Overhead.SEQUENCE_INEFFECTIVE,)
    elif software.at_entry is BhbSequence.LONG and host.short_sequence_works:
        found += (Overhead.SEQUENCE_TOO_LONG,)
    if effective & RRSBA_DIS_S and not (software.retpoline and host.features.rrsba):
        found += (Overhead.RRSBA_DIS_S_UNNEEDED,)
    return found


@dataclass(frozen=True, slots=True)
class Verdict:
    """Everything that is said of one guest on one host, with the reasoning."""

    exposed: tuple[str, ...]
    overhead: tuple[Overhead, ...]
    bhi: Protection
    rrsba: RrsbaProtection

    def reasons(self) -> str:
        """The verdict in sentences."""
        parts = [f"BHI: {self.bhi.value}", f"RRSBA: {self.rrsba.value}"]
        return "; ".join(parts + [f"paid needlessly: {OVERHEAD_MEANS[item]}" for item in self.overhead])


def judge(host: Host, effective: int, software: Known, bhi_no_suffices: bool = True) -> Verdict:
    """All of the above for one guest.  ``bhi_no_suffices``: the assumption of that name.

    >>> from specctrl.model.parts import resolve_host
    >>> print(judge(resolve_host("sapphire-rapids"), 0x401, Software(at_entry=BhbSequence.NONE)).reasons())
    BHI: BHI_DIS_S is in effect; RRSBA: the kernel does not rely on retpoline
    """
    if not bhi_no_suffices:
        host = replace(host, features=replace(host.features, bhi_no=False))
    return Verdict(
        exposed(host, effective, software),
        overhead(host, effective, software),
        bhi_protection(host, effective, software),
        rrsba_protection(host, effective, software),
    )
