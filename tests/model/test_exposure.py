"""Exposure: every combination of part, value and software, against the sentences of the chapter."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import pytest

from specctrl.model.exposure import (
    NOT_LOOKED_AT,
    OVERHEAD_MEANS,
    Overhead,
    Protection,
    RrsbaProtection,
    SameModeProtection,
    bhi_protection,
    exposed,
    judge,
    overhead,
    same_mode_protection,
    sequence_works,
)
from specctrl.model.guest import BhbSequence, Software
from specctrl.model.parts import PARTS, Host, resolve_host
from specctrl.model.registers import BHI_DIS_S, IBRS, RRSBA_DIS_S

BOTH = (False, True)
SOFTWARE = [
    Software(at_entry=sequence, retpoline=retpoline, wants_bhi=wants, relies_on_ibrs=ibrs, classic_bpf=bpf,
             in_bpf=sequence if cleared else BhbSequence.NONE, ibhf=cleared, its_thunks=bpf)
    for sequence, retpoline, wants, ibrs, bpf, cleared in product(BhbSequence, BOTH, BOTH, BOTH, BOTH, BOTH)
]
VALUES = [0, BHI_DIS_S, RRSBA_DIS_S, BHI_DIS_S | RRSBA_DIS_S | IBRS]


def everything() -> Iterator[tuple[Host, int, Software]]:
    for part, value, software in product(PARTS, VALUES, SOFTWARE):
        yield resolve_host(part), value, software


def test_bhi_dis_s_ends_exposure_to_bhi_everywhere() -> None:
    """Across modes, whatever the part and the software."""
    for host, value, software in everything():
        assert bhi_protection(host, value | BHI_DIS_S, software) is not Protection.NOTHING


def test_within_the_kernel_bhi_dis_s_needs_ibhf() -> None:
    """It separates modes; without IBHF it changes nothing for classic BPF."""
    asked = [one for one in everything() if one[2].classic_bpf and not one[2].ibhf]
    assert asked
    for host, value, software in asked:
        without = value & ~BHI_DIS_S
        assert same_mode_protection(host, value, software) is same_mode_protection(host, without, software)


def test_a_kernel_that_relies_on_ibrs_is_exposed_without_it() -> None:
    """Unless its branches are retpolines that hold."""
    for host, value, software in everything():
        holds = software.retpoline and (not host.features.rrsba or bool(value & RRSBA_DIS_S))
        expected = software.relies_on_ibrs and not value & IBRS and not holds
        assert ("BTI" in exposed(host, value, software)) is expected


def test_legacy_ibrs_has_lost_the_bit_only_if_its_own_write_has_no_effect() -> None:
    """Outside the kernel the bit is 0 on purpose."""
    legacy = Software(relies_on_ibrs=True, writes_at_entry=True)
    host = resolve_host("skylake-server")
    assert "BTI" not in exposed(host, 0, legacy, view=0)
    assert "BTI" in exposed(host, 0, legacy, view=IBRS)


def test_what_is_not_looked_at_is_named() -> None:
    """An empty answer is no promise."""
    assert {"SMT siblings", "SSB", "VMSCAPE", "ITS"} <= set(NOT_LOOKED_AT)


def test_more_bits_never_expose_more() -> None:
    """A bit that is forced protects or does nothing."""
    for host, value, software in everything():
        for bit in (BHI_DIS_S, RRSBA_DIS_S, IBRS):
            assert set(exposed(host, value | bit, software)) <= set(exposed(host, value, software))


def test_only_retpoline_kernels_are_exposed_to_rrsba() -> None:
    """And those only on parts with RRSBA behaviour, without RRSBA_DIS_S."""
    for host, value, software in everything():
        expected = software.retpoline and host.features.rrsba and not value & RRSBA_DIS_S
        assert ("RRSBA" in exposed(host, value, software)) is expected


def test_the_short_sequence_is_the_one_that_a_move_breaks() -> None:
    """Long works on every part, short on those of the catalogue that say so, TSX where XBEGIN does not fault."""
    for name in PARTS:
        host = resolve_host(name)
        assert sequence_works(host, BhbSequence.LONG)
        assert not sequence_works(host, BhbSequence.NONE)
        assert sequence_works(host, BhbSequence.SHORT) is PARTS[name].short_sequence_works
        assert sequence_works(host, BhbSequence.TSX) is PARTS[name].features.tsx


def test_before_a_boot_only_the_processor_counts() -> None:
    """Nothing is known of the guest, so nothing is said of what it pays."""
    for part, value in product(PARTS, VALUES):
        host = resolve_host(part)
        bhi = not host.features.bhi_no and not value & BHI_DIS_S
        rrsba = host.features.rrsba and not value & RRSBA_DIS_S
        assert exposed(host, value, None) == ("BHI",) * bhi + ("RRSBA",) * rrsba
        assert overhead(host, value, None) == ()


def test_what_is_paid_needlessly_can_be_left_out() -> None:
    """Taking away a bit that is called unneeded, or that comes on top of a sequence, exposes nobody."""
    left_out = {
        Overhead.BHI_DIS_S_UNNEEDED: BHI_DIS_S,
        Overhead.BHI_DIS_S_AND_SEQUENCE: BHI_DIS_S,
        Overhead.RRSBA_DIS_S_UNNEEDED: RRSBA_DIS_S,
    }
    seen = set()
    for host, value, software in everything():
        for item in overhead(host, value, software):
            seen.add(item)
            if item in left_out:
                assert exposed(host, value & ~left_out[item], software) == exposed(host, value, software)
    assert seen == set(Overhead), "and every overhead occurs"


def test_a_sequence_that_is_called_needless_can_be_left_out() -> None:
    """A sequence without effect, or with nothing to protect from."""
    for host, value, software in everything():
        needless = {Overhead.SEQUENCE_UNNEEDED, Overhead.SEQUENCE_INEFFECTIVE} & set(overhead(host, value, software))
        if needless:
            without = replace(software, at_entry=BhbSequence.NONE)
            assert exposed(host, value, without) == exposed(host, value, software)


def test_the_assumption_on_bhi_no_can_be_switched() -> None:
    """Linux mitigates on parts with BHI_NO too; then such a part is like any other."""
    host = resolve_host("diamond-rapids")
    short = Software(at_entry=BhbSequence.SHORT)
    assert judge(host, 0, short).bhi is Protection.NOT_AFFECTED
    verdict = judge(host, 0, short, bhi_no_suffices=False)
    assert verdict.bhi is Protection.NOTHING
    assert verdict.exposed == ("BHI",)
    assert verdict.overhead == (Overhead.SEQUENCE_INEFFECTIVE,)


@pytest.mark.parametrize("value", VALUES)
def test_the_reasoning_names_each_part_of_the_verdict(value: int) -> None:
    """As text."""
    for part, software in product(PARTS, SOFTWARE):
        verdict = judge(resolve_host(part), value, software)
        assert verdict.bhi.value in verdict.reasons()
        assert verdict.rrsba.value in verdict.reasons()
        assert all(OVERHEAD_MEANS[item] in verdict.reasons() for item in verdict.overhead)
        nothing = (Protection.NOTHING, SameModeProtection.NOTHING)
        assert (verdict.bhi in nothing or verdict.same_mode in nothing) is ("BHI" in verdict.exposed)
        assert verdict.same_mode.value in verdict.reasons()
        assert verdict.bti.value in verdict.reasons()
        assert (verdict.rrsba is RrsbaProtection.NOTHING) is ("RRSBA" in verdict.exposed)
