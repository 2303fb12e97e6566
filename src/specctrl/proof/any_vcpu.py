"""A vCPU that stands for every vCPU: every host, policy, filter and guest, and every value of every field."""

from dataclasses import dataclass, field, fields
from typing import Any

from specctrl.model import contract
from specctrl.model.contract import MODE, Contract, Intercept, L1Controls, ReportKeptBy
from specctrl.model.kvm.state import Loaded
from specctrl.model.kvm.variant import Variant
from specctrl.model.kvm.vcpu import Vcpu
from specctrl.model.kvm.vm import MSR_EXIT_REASONS
from specctrl.model.parts import Features, Host
from specctrl.model.registers import (
    ARCH_CAP_VIRTUAL_ENUM,
    BHI_DIS_S,
    IA32_ARCH_CAPABILITIES,
    IA32_SPEC_CTRL,
    IBRS,
    MITIGATION_CTRL_SUPPORT,
    RRSBA_DIS_S,
    SSBD,
    STIBP,
)
from specctrl.proof.symbolic import flag, flag_term, settled, word, word_term
from specctrl.proof.terms import Term, all_of, any_of, implies, when


def same(left: Any, right: Any) -> Term:
    """The term that two words are equal."""
    return word_term(left) == word_term(right)


def subset(bits: Any, of: Any) -> Term:
    """The term that every 1 of ``bits`` is a 1 of ``of``."""
    return word_term(bits) & ~word_term(of) == 0


class Symbols:
    """Where the values of a state come from: here, each name is a word or a flag that stands for every value."""

    def word(self, name: str) -> Any:
        """The word of that name."""
        return word(name)

    def flag(self, name: str) -> Any:
        """The truth value of that name."""
        return flag(name)


@dataclass(slots=True)
class Numbers(Symbols):
    """The same names with concrete values: a counterexample.  A name that is not given is 0."""

    values: dict[str, int | bool]

    def word(self, name: str) -> Any:
        """The word of that name."""
        return int(self.values.get(name, 0))

    def flag(self, name: str) -> Any:
        """The truth value of that name."""
        return bool(self.values.get(name, False))


@dataclass(slots=True)
class Solved(Symbols):
    """Symbols of which some are known by equations; remembers what was asked for."""

    solution: dict[str, Term]
    asked: dict[str, Any] = field(default_factory=dict)

    def word(self, name: str) -> Any:
        """The word of that name, or what it is equal to."""
        if name not in self.asked:
            self.asked[name] = settled(self.solution[name]) if name in self.solution else word(name)
        return self.asked[name]

    def flag(self, name: str) -> Any:
        """The truth value of that name, or what it is equal to."""
        if name not in self.asked:
            self.asked[name] = settled(self.solution[name]) if name in self.solution else flag(name)
        return self.asked[name]


@dataclass(frozen=True, slots=True)
class AnyFilter:
    """An MSR filter that may allow or deny each access."""

    name: str
    values: Symbols
    default_allow: bool = True  # KVM accepted it: what it refuses is no filter
    ranges: tuple[()] = ()

    def allows(self, msr: int, write: bool) -> Any:
        """One flag for each MSR and direction."""
        return self.values.flag(f"{self.name}.{msr:x}.{'write' if write else 'read'}")


def any_host(values: Symbols, name: str) -> Host:
    """Every host that :func:`host_facts` lets exist."""
    return Host(
        features=Features(**{item.name: values.flag(f"{name}.{item.name}") for item in fields(Features)}),
        writable=values.word(f"{name}.writable"),
        spec_ctrl_shadow=values.flag(f"{name}.control"),
        spec_ctrl=values.word(f"{name}.own_value"),
        nested=values.flag(f"{name}.nested"),
        legacy_ibrs=values.flag(f"{name}.legacy_ibrs"),
        short_sequence_works=values.flag(f"{name}.short_sequence_works"),
    )


def host_facts(host: Host) -> dict[str, Term]:
    """What is assumed of a host, in plain English."""
    features = host.features
    bits = ((features.spec_ctrl, IBRS), (features.stibp, STIBP), (features.ssbd, SSBD),
            (features.rrsba_ctrl, RRSBA_DIS_S), (features.bhi_ctrl, BHI_DIS_S))
    return {
        "a feature that enumerates a bit makes the processor accept it": all_of(
            [implies(flag_term(feature), subset(bit, host.writable)) for feature, bit in bits]),
        "a host with the control has IBRS": implies(
            flag_term(host.spec_ctrl_shadow), flag_term(features.spec_ctrl)),
        "the processor accepts the host's own value": subset(host.spec_ctrl, host.writable),
    }


def any_controls(values: Symbols, name: str) -> L1Controls:
    """What any L1 may ask of its bitmap; its MSR lists are empty, their entries are steps of their own."""
    intercepts = tuple(
        Intercept(msr, values.flag(f"{name}.{msr:x}.read"), values.flag(f"{name}.{msr:x}.write"))
        for msr in (IA32_SPEC_CTRL, IA32_ARCH_CAPABILITIES)
    )
    return L1Controls(use_msr_bitmap=values.flag(f"{name}.bitmap"), intercepts=intercepts)


def l1_wants(controls: L1Controls, msr: int, write: bool) -> Term:
    """The term that L1 intercepts an access of L2, as the contract says it."""
    return flag_term(contract.l1_asks(controls, msr, write))


def any_vcpu(variant: Variant, values: Symbols, loaded: Loaded, in_guest: bool) -> Vcpu:
    """A vCPU with every field from ``values``; only the loaded VMCS and where the vCPU is are given."""
    host = any_host(values, "host")
    vm = variant.vm(host, values.word("vm.user_mask"), values.word("vm.user_value"), 1, values.word("vm.exit_reasons"))
    vm.msr_filter = AnyFilter("filter", values)  # type: ignore[assignment]  # stands for every MsrFilter
    for write in (False, True):
        vm.msr_filter.allows(IA32_SPEC_CTRL, write)  # what the invariant says of it is part of a counterexample
    cpu = variant.processor(
        writable=host.writable,
        has_spec_ctrl=exists(host),
        has_control=host.spec_ctrl_shadow,
        spec_ctrl=values.word("cpu.spec_ctrl"),
        non_root=in_guest,
        entry_loads_shadow=values.flag("assume.entry_loads_shadow"),
    )
    vmcs01, vmcs02 = (
        variant.vmcs(
            virtualize_spec_ctrl=host.spec_ctrl_shadow,
            spec_ctrl_mask=values.word(f"{name}.mask"),
            spec_ctrl_shadow=values.word(f"{name}.shadow"),
            intercept_read=values.flag(f"{name}.intercept_read"),
            intercept_write=values.flag(f"{name}.intercept_write"),
        )
        for name in ("vmcs01", "vmcs02")
    )
    words = ("user_mask", "user_value", "force_mask", "force_value", "guest_view", "saved",
             "arch_capabilities", "virtual_enumeration", "mitigation_enum", "mitigation_ctrl")
    flags = ("passthrough", "has_run", "vmx_operation", "bitmap_merge_pending", "nested_run_pending",
             "smm", "smm_left_level2", "smm_left_vmx", "init_pending")
    return variant.vcpu(
        vm=vm,
        cpu=cpu,
        cpuid=Features(spec_ctrl=values.flag("cpuid.spec_ctrl"), arch_capabilities=values.flag("cpuid.arch_cap")),
        vmcs01=vmcs01,
        vmcs02=vmcs02,
        init_withdraws_report=values.flag("assume.init_withdraws_report"),
        loaded=loaded,
        controls=any_controls(values, "l1"),
        **{name: values.word(name) for name in words},
        **{name: values.flag(name) for name in flags},
    )


def vm_facts(vcpu: Vcpu) -> dict[str, Term]:
    """What is assumed of a VM, in plain English: what KVM_ENABLE_CAP on its fd let pass."""
    return {
        "the VM's pair is one that its host accepted, or none": pair_is_valid(
            vcpu, vcpu.vm.user_mask, vcpu.vm.user_value),
        "the VM's exit reasons are valid": subset(vcpu.vm.exit_reasons, MSR_EXIT_REASONS),
    }


def pair_is_valid(vcpu: Vcpu, mask: object, value: object) -> Term:
    """The term that a pair of userspace is one that this host accepted, or none."""
    fits = all_of(subset(value, mask), subset(value, vcpu.host.writable))
    return all_of(fits, any_of(flag_term(vcpu.cpu.has_control), all_of(same(mask, 0), same(value, 0))))


def exists(host: Host) -> Any:
    """Whether the host has IA32_SPEC_CTRL, as a flag that forks nothing by itself."""
    return settled(word_term(host.writable) != 0)


def view_now(vcpu: Vcpu) -> Any:
    """The guest's view at this moment: where it may change without an exit, what the hardware keeps of it."""
    if not vcpu.in_guest:
        return vcpu.guest_view
    kept = when(flag_term(vcpu.cpu.has_control), word_term(vcpu.vmcs.spec_ctrl_shadow), word_term(vcpu.cpu.spec_ctrl))
    return settled(when(flag_term(vcpu.vmcs.intercept_write), word_term(vcpu.guest_view), kept))


def announced(vcpu: Vcpu) -> Any:
    """Whether the guest is shown the report: CPUID, bit 63 and MSR_VIRTUAL_ENUMERATION, all three."""
    return settled(all_of(
        flag_term(vcpu.cpuid.arch_capabilities),
        word_term(vcpu.arch_capabilities) & ARCH_CAP_VIRTUAL_ENUM != 0,
        word_term(vcpu.virtual_enumeration) & MITIGATION_CTRL_SUPPORT != 0,
    ))


def abstract(vcpu: Vcpu) -> Contract:
    """What of a vCPU its observers see: the contract's record."""
    return Contract(
        host=vcpu.host,
        cpuid=vcpu.cpuid,
        kept_by=ReportKeptBy.KVM,
        offered=vcpu.mitigation_enum,
        announced=announced(vcpu),
        init_withdraws_report=vcpu.init_withdraws_report,
        guest_view=view_now(vcpu),
        user_mask=vcpu.user_mask,
        user_value=vcpu.user_value,
        report=vcpu.mitigation_ctrl,
        **{name: getattr(vcpu, name) for name in MODE},
    )
