"""The inductive invariant of a vCPU, and the state that stands for every state that satisfies it."""

from dataclasses import dataclass
from typing import Any

import z3

from specctrl.contract import Contract, ReportKeptBy, requested_bits
from specctrl.kvm.state import Intercept, L1Controls, Loaded
from specctrl.kvm.variant import Variant
from specctrl.kvm.vcpu import Vcpu
from specctrl.parts import Features, Host
from specctrl.registers import (
    BHI_DIS_S,
    IA32_ARCH_CAPABILITIES,
    IA32_SPEC_CTRL,
    IBRS,
    RRSBA_DIS_S,
    SSBD,
    STIBP,
    VALID_MITIGATION_CTRL,
)
from specctrl.symbolic import Flag, Word, assume, flag, flag_term, summarize, word, word_term
from specctrl.words import merge, overlay

Term = z3.BoolRef


def same(left: Any, right: Any) -> Term:
    """The term that two words are equal."""
    return word_term(left) == word_term(right)


def subset(bits: Any, of: Any) -> Term:
    """The term that every 1 of ``bits`` is a 1 of ``of``."""
    return word_term(bits) & ~word_term(of) == 0


@dataclass(frozen=True, slots=True)
class AnyFilter:
    """An MSR filter that may allow or deny each access."""

    name: str

    def allows(self, msr: int, write: bool) -> Any:
        """One flag for each MSR and direction."""
        return flag(f"{self.name}.{msr:x}.{'write' if write else 'read'}")


def any_host(name: str) -> Host:
    """Every host that can exist: each feature there or not, every host value that its processor accepts.

    The MSR's bits belong to the features, and the control to an MSR with IBRS.
    """
    features = Features(**{field: flag(f"{name}.{field}") for field in Features.__dataclass_fields__})
    writable, control = word(f"{name}.writable"), flag(f"{name}.control")
    for feature, bit in (
        (features.spec_ctrl, IBRS),
        (features.stibp, STIBP),
        (features.ssbd, SSBD),
        (features.rrsba_ctrl, RRSBA_DIS_S),
        (features.bhi_ctrl, BHI_DIS_S),
    ):
        assume(Flag(z3.Implies(flag_term(feature), subset(bit, writable))))
    assume(Flag(z3.Implies(flag_term(control), flag_term(features.spec_ctrl))))
    spec_ctrl = word(f"{name}.spec_ctrl")
    assume(Flag(subset(spec_ctrl, writable)))
    return Host(features, writable, control, spec_ctrl, nested=True, legacy_ibrs=flag(f"{name}.legacy_ibrs"))


def any_controls(name: str) -> L1Controls:
    """What any L1 may ask of its bitmap; its exit lists are empty, their entries are steps of their own."""
    intercepts = tuple(
        Intercept(msr, flag(f"{name}.{msr:x}.read"), flag(f"{name}.{msr:x}.write"))
        for msr in (IA32_SPEC_CTRL, IA32_ARCH_CAPABILITIES)
    )
    return L1Controls(use_msr_bitmap=flag(f"{name}.bitmap"), intercepts=intercepts)


def any_vcpu(variant: Variant, loaded: Loaded, in_guest: bool) -> Vcpu:
    """A vCPU whose every field may have every value; :func:`assume_invariant` restricts it."""
    host = any_host("host")
    vm = variant.vm(host, word("vm.user_mask"), word("vm.user_value"), 1, word("vm.exit_reasons"))
    vm.msr_filter = AnyFilter("filter")  # type: ignore[assignment]  # stands for every MsrFilter
    cpu = variant.processor(
        writable=host.writable,
        has_spec_ctrl=Flag(word_term(host.writable) != 0),  # type: ignore[arg-type]  # stands for a bool
        has_control=host.spec_ctrl_shadow,
        spec_ctrl=word("cpu.spec_ctrl"),
        non_root=in_guest,
        entry_loads_shadow=flag("assume.entry_loads_shadow"),
    )
    vmcs01, vmcs02 = (
        variant.vmcs(
            virtualize_spec_ctrl=host.spec_ctrl_shadow,
            spec_ctrl_mask=word(f"{name}.mask"),
            spec_ctrl_shadow=word(f"{name}.shadow"),
            intercept_read=flag(f"{name}.intercept_read"),
            intercept_write=flag(f"{name}.intercept_write"),
        )
        for name in ("vmcs01", "vmcs02")
    )
    return variant.vcpu(
        vm=vm,
        cpu=cpu,
        cpuid=Features(**{name: flag(f"cpuid.{name}") for name in ("spec_ctrl", "arch_capabilities")}),
        vmcs01=vmcs01,
        vmcs02=vmcs02,
        init_withdraws_report=flag("assume.init_withdraws_report"),
        user_mask=word("user_mask"),
        user_value=word("user_value"),
        force_mask=word("force_mask"),
        force_value=word("force_value"),
        guest_view=word("guest_view"),
        saved=word("saved"),
        passthrough=flag("passthrough"),
        arch_capabilities=word("arch_capabilities"),
        virtual_enumeration=word("virtual_enumeration"),
        mitigation_enum=word("mitigation_enum"),
        mitigation_ctrl=word("mitigation_ctrl"),
        loaded=loaded,
        has_run=flag("has_run"),
        bitmap_merge_pending=flag("bitmap_merge_pending"),
        nested_run_pending=flag("nested_run_pending"),
        controls=any_controls("l1"),
    )


def view_now(vcpu: Vcpu) -> Any:
    """The guest's view at this moment: where it may change without an exit, what the hardware keeps of it."""
    written_direct = z3.And(z3.BoolVal(vcpu.in_guest), z3.Not(flag_term(vcpu.vmcs.intercept_write)))
    kept = z3.If(flag_term(vcpu.cpu.has_control), word_term(vcpu.vmcs.spec_ctrl_shadow), word_term(vcpu.cpu.spec_ctrl))
    return Word(z3.If(written_direct, kept, word_term(vcpu.guest_view)))


def invariant(vcpu: Vcpu) -> dict[str, Term]:
    """What holds of a vCPU after every operation, each part in plain English."""
    host, control = vcpu.host, flag_term(vcpu.cpu.has_control)
    exists = word_term(host.writable) != 0
    view = view_now(vcpu)
    mask, value = overlay(vcpu.user_mask, vcpu.user_value, requested_bits(host, vcpu.mitigation_ctrl))
    effective = merge(view, mask, value)
    direct_01 = z3.Or(z3.Not(flag_term(vcpu.vmcs01.intercept_read)), z3.Not(flag_term(vcpu.vmcs01.intercept_write)))
    direct_02 = z3.Or(z3.Not(flag_term(vcpu.vmcs02.intercept_read)), z3.Not(flag_term(vcpu.vmcs02.intercept_write)))
    allowed = z3.And(flag_term(vcpu.cpuid.spec_ctrl), exists, z3.Or(control, same(vcpu.force_mask, 0)))
    direct = z3.Or(direct_01, direct_02, flag_term(vcpu.passthrough))
    parts = {
        "the pair in force is userspace's with the report on top": z3.And(
            same(vcpu.force_mask, mask), same(vcpu.force_value, value)
        ),
        "userspace's pair is one that this host can force, or none": user_pair_is_valid(vcpu),
        "the report has no reserved bit": subset(vcpu.mitigation_ctrl, VALID_MITIGATION_CTRL),
        "the processor accepts the effective value": z3.If(
            exists, subset(effective, host.writable), z3.And(same(view, 0), same(vcpu.saved, 0))
        ),
        "the guest accesses the MSR directly only where that is safe": z3.Implies(direct, allowed),
        "with the control, the loaded VMCS has the mask in force": z3.Implies(
            control, same(vcpu.vmcs.spec_ctrl_mask, vcpu.force_mask)
        ),
        "with the control, the loaded SHADOW is the guest's view": z3.Implies(
            control, same(vcpu.vmcs.spec_ctrl_shadow, view)
        ),
    }
    if vcpu.in_guest:
        parts["while the guest runs, the processor holds the effective value"] = z3.If(
            exists, same(vcpu.cpu.spec_ctrl, effective), same(vcpu.cpu.spec_ctrl, 0)
        )
        parts["while writes are intercepted, the saved value is the processor's"] = z3.Implies(
            z3.And(exists, flag_term(vcpu.vmcs.intercept_write)), same(vcpu.saved, vcpu.cpu.spec_ctrl)
        )
    else:
        parts["while KVM runs, the processor holds the host's value"] = same(vcpu.cpu.spec_ctrl, host.spec_ctrl)
        parts["while KVM runs, the saved value is the effective one"] = z3.Implies(
            exists, same(vcpu.saved, effective)
        )
    return parts


def user_pair_is_valid(vcpu: Vcpu) -> Term:
    """The term that userspace's value lies within its mask and within what the processor accepts; none without control."""
    none = z3.And(same(vcpu.user_mask, 0), same(vcpu.user_value, 0))
    fits = z3.And(subset(vcpu.user_value, vcpu.user_mask), subset(vcpu.user_value, vcpu.host.writable))
    return z3.And(fits, z3.Or(flag_term(vcpu.cpu.has_control), none))


def assume_invariant(vcpu: Vcpu) -> None:
    """Restrict the path to the states that satisfy the invariant."""
    for term in invariant(vcpu).values():
        assume(Flag(term))


def abstract(vcpu: Vcpu) -> Contract:
    """What of a vCPU its observers see: the contract's record."""
    return Contract(
        host=vcpu.host,
        cpuid=vcpu.cpuid,
        kept_by=ReportKeptBy.KVM,
        offered=vcpu.mitigation_enum,
        announced=summarize(vcpu.shows_mitigation_ctrl),
        init_withdraws_report=vcpu.init_withdraws_report,
        guest_view=view_now(vcpu),
        user_mask=vcpu.user_mask,
        user_value=vcpu.user_value,
        report=vcpu.mitigation_ctrl,
        level=vcpu.level,
    )


