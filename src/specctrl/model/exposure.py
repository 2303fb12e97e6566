"""Whether a guest kernel is exposed now, and what it pays for needlessly.

Three things decide: the processor that it runs on, the value of IA32_SPEC_CTRL in effect while it runs, and the
software that it chose where it booted.

Four attacks are looked at, those against which a kernel relies on something that this interface, a move, a reset or a
VMM can take away.  An empty answer says that these four are stopped, never that a guest is safe: see
:data:`NOT_LOOKED_AT`.
"""

from dataclasses import dataclass, replace
from enum import Enum

from specctrl.model.guest import BhbSequence, Software
from specctrl.model.parts import Host
from specctrl.model.registers import BHI_DIS_S, IBRS, RRSBA_DIS_S


class Protection(Enum):
    """What keeps an attacker's branch history from steering the kernel; the value is the reasoning in words."""

    NOT_AFFECTED = "the processor reports BHI_NO"
    BHI_DIS_S = "BHI_DIS_S is in effect"
    RETPOLINE = "every indirect branch is a retpoline, and RRSBA behaviour is absent or disabled"
    SEQUENCE = "a sequence that works on this processor clears the history at each system call"
    NOTHING = "nothing stops it"


class SameModeProtection(Enum):
    """What keeps code that the kernel runs for a program, classic BPF, from attacking the kernel with its own history.

    BHI_DIS_S does not: it separates modes, and here is one.  The value is the reasoning in words.
    """

    NOT_ASKED = "no program can have code run in this kernel, as far as is known"
    RETPOLINE = "every indirect branch is a retpoline, and RRSBA behaviour is absent or disabled"
    SEQUENCE = "a sequence that works on this processor ends each classic BPF program"
    IBHF = "IBHF ends each classic BPF program, and works: BHI_DIS_S is in effect, or the processor reports BHI_NO"
    NOTHING = "nothing ends classic BPF programs that works here"


class BtiProtection(Enum):
    """What keeps an attacker's branch targets (BTI) from the kernel; the value is the reasoning in words."""

    NOT_RELIED_ON = "the kernel does not rely on IBRS"
    IBRS = "IBRS, bit 0, is in effect"
    RETPOLINE = "every indirect branch is a retpoline, and RRSBA behaviour is absent or disabled"
    LEFT_KERNEL = "legacy IBRS: the guest is outside its kernel, which sets bit 0 on the way in"
    NOTHING = "the kernel relies on IBRS, and bit 0 is not in effect"


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
    ITS_THUNKS_UNNEEDED = "its-thunks-unneeded"


OVERHEAD_MEANS: dict[Overhead, str] = {
    Overhead.BHI_DIS_S_UNNEEDED: "BHI_DIS_S is in effect, and the kernel is not exposed without it or a sequence",
    Overhead.BHI_DIS_S_OPTED_OUT: "BHI_DIS_S is in effect, and the guest's owner wants no mitigation at system calls",
    Overhead.BHI_DIS_S_AND_SEQUENCE: "BHI_DIS_S is in effect, and a sequence that works here runs too",
    Overhead.SEQUENCE_UNNEEDED: "a sequence runs, and the kernel is not exposed without it or BHI_DIS_S",
    Overhead.SEQUENCE_INEFFECTIVE: "a sequence runs that does not work on this processor",
    Overhead.SEQUENCE_TOO_LONG: "the long sequence runs on a processor for which the short one would do",
    Overhead.RRSBA_DIS_S_UNNEEDED: "RRSBA_DIS_S is in effect, and there is no retpoline or no RRSBA behaviour",
    Overhead.ITS_THUNKS_UNNEEDED: "the kernel avoids branches for ITS, which this processor does not have: show ITS_NO",
}
"""Each overhead in words."""

Known = Software | None
"""The software of a guest that has booted, or None: then nothing but the processor protects it."""

NOT_LOOKED_AT: dict[str, str] = {
    "SMT siblings": "STIBP of guest and host together, and which threads share a core",
    "SSB": "which tasks ask for SSBD, and when the kernel sets it",
    "VMSCAPE": "the host's userspace: an IBPB between guest and VMM, which no bit of IA32_SPEC_CTRL replaces",
    "ITS": "where in a cache line the guest's branches lie; only that it pays needlessly is said (its-thunks-unneeded)",
    "attacks within the kernel but for classic BPF": "what else a program can have run there: eBPF without privilege",
    "attacks between guests, and on the host": "the host's own mitigations: IBPB and its value of IA32_SPEC_CTRL",
    "attacks of L2 on L1": "what L1 does after an exit, and KVM's IBPB at a nested exit",
}
"""Attacks of which ``exposed`` says nothing, and what an answer would need."""


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


def same_mode_protection(host: Host, effective: int, software: Software) -> SameModeProtection:
    """What protects this kernel from BHI by classic BPF, within its own mode.

    Source: Linux 9f725eec8fc0: BHI_DIS_S does not stop attacks within one mode, IBHF does while BHI_DIS_S is on, and a
    part with BHI_NO behaves as if it always were.

    >>> from specctrl.model.parts import resolve_host
    >>> forced, host = 0x401, resolve_host("sapphire-rapids")
    >>> same_mode_protection(host, forced, Software(classic_bpf=True, ibhf=True)).name
    'IBHF'
    >>> same_mode_protection(host, forced, Software(classic_bpf=True)).name
    'NOTHING'
    """
    if not software.classic_bpf:
        return SameModeProtection.NOT_ASKED
    if retpoline_suffices(host, effective, software):
        return SameModeProtection.RETPOLINE
    if sequence_works(host, software.in_bpf):
        return SameModeProtection.SEQUENCE
    if software.ibhf and (effective & BHI_DIS_S or host.features.bhi_no):
        return SameModeProtection.IBHF
    return SameModeProtection.NOTHING


def bti_protection(host: Host, effective: int, software: Software, view: int) -> BtiProtection:
    """What protects this kernel's indirect branches from another mode's targets; ``view`` is what the guest wrote.

    A kernel with enhanced IBRS sets bit 0 once and counts on it from then on, also where a suspend, a VMM or a pair
    has taken it away.  One with legacy IBRS sets it on each entry, so it has lost the bit only if its own write has no
    effect.

    Source: Linux 7.3.4, spectre_v2_apply_mitigation and calling.h; commit 66065157420c (the bit lost in S3).

    >>> from specctrl.model.parts import resolve_host
    >>> bti_protection(resolve_host("ice-lake-server"), 0x0, Software(relies_on_ibrs=True), 0x0).name
    'NOTHING'
    """
    if not software.relies_on_ibrs:
        return BtiProtection.NOT_RELIED_ON
    if effective & IBRS:
        return BtiProtection.IBRS
    if retpoline_suffices(host, effective, software):
        return BtiProtection.RETPOLINE
    if software.writes_at_entry and not view & IBRS:
        return BtiProtection.LEFT_KERNEL
    return BtiProtection.NOTHING


def exposed(host: Host, effective: int, software: Known, view: int = 0) -> tuple[str, ...]:
    """The attacks that nothing stops, by the scenario format's names: ``BHI``, ``RRSBA``, ``BTI``.

    ``BHI`` stands for attacks across modes and within one.  Of a guest that has not booted, only what the processor
    alone does not stop is said: BHI across modes, and RRSBA.
    An empty answer does not say that a guest is safe: :data:`NOT_LOOKED_AT`.

    >>> from specctrl.model.parts import resolve_host
    >>> exposed(resolve_host("sapphire-rapids"), 0x1, None)
    ('BHI', 'RRSBA')
    """
    attacks: tuple[str, ...] = ()
    across = bhi_protection(host, effective, software) is Protection.NOTHING
    if across or (software is not None
                  and same_mode_protection(host, effective, software) is SameModeProtection.NOTHING):
        attacks += ("BHI",)
    if rrsba_protection(host, effective, software) is RrsbaProtection.NOTHING:
        attacks += ("RRSBA",)
    if software is not None and bti_protection(host, effective, software, view) is BtiProtection.NOTHING:
        attacks += ("BTI",)
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
        elif works and same_mode_protection(host, effective, software) is not SameModeProtection.IBHF:
            found += (Overhead.BHI_DIS_S_AND_SEQUENCE,)
    if clears and unneeded:
        found += (Overhead.SEQUENCE_UNNEEDED,)
    elif clears and not works:
        found += (Overhead.SEQUENCE_INEFFECTIVE,)
    elif software.at_entry is BhbSequence.LONG and host.short_sequence_works:
        found += (Overhead.SEQUENCE_TOO_LONG,)
    if effective & RRSBA_DIS_S and not (software.retpoline and host.features.rrsba):
        found += (Overhead.RRSBA_DIS_S_UNNEEDED,)
    if software.its_thunks and not host.its:
        found += (Overhead.ITS_THUNKS_UNNEEDED,)
    return found


@dataclass(frozen=True, slots=True)
class Verdict:
    """Everything that is said of one guest on one host, with the reasoning."""

    exposed: tuple[str, ...]
    overhead: tuple[Overhead, ...]
    bhi: Protection
    rrsba: RrsbaProtection
    same_mode: SameModeProtection
    bti: BtiProtection

    def reasons(self) -> str:
        """The verdict in sentences."""
        parts = [f"BHI: {self.bhi.value}", f"BHI within the kernel: {self.same_mode.value}",
                 f"RRSBA: {self.rrsba.value}", f"BTI: {self.bti.value}"]
        return "; ".join(parts + [f"paid needlessly: {OVERHEAD_MEANS[item]}" for item in self.overhead])


def judge(host: Host, effective: int, software: Known, bhi_no_suffices: bool = True, view: int = 0) -> Verdict:
    """All of the above for one guest.  ``bhi_no_suffices``: the assumption of that name; ``view``: what it wrote.

    >>> from specctrl.model.parts import resolve_host
    >>> print(judge(resolve_host("sapphire-rapids"), 0x401, Software(relies_on_ibrs=True)).reasons())
    BHI: BHI_DIS_S is in effect; BHI within the kernel: no program ...; RRSBA: ...; BTI: IBRS, bit 0, is in effect
    """
    if not bhi_no_suffices:
        host = replace(host, features=replace(host.features, bhi_no=False))
    return Verdict(
        exposed(host, effective, software, view),
        overhead(host, effective, software),
        bhi_protection(host, effective, software),
        rrsba_protection(host, effective, software),
        SameModeProtection.NOT_ASKED if software is None else same_mode_protection(host, effective, software),
        BtiProtection.NOT_RELIED_ON if software is None else bti_protection(host, effective, software, view),
    )
