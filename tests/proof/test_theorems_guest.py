"""The theorems about guest kernels and VMMs: each mistake is refuted by the theorem that speaks of it."""

from dataclasses import replace

import pytest

from specctrl.model import exposure, guest
from specctrl.model.contract import Contract, ReportKeptBy
from specctrl.model.exposure import Overhead
from specctrl.model.guest import BhbSequence, KernelCpu
from specctrl.model.kvm.variant import SPEC
from specctrl.model.registers import BHI_DIS_S, IA32_SPEC_CTRL, MSR_VIRTUAL_MITIGATION_CTRL
from specctrl.model.vmm import pool
from specctrl.model.vmm.filtering import FilteredSpecCtrl
from specctrl.model.vmm.hotplug import SharedPair
from specctrl.model.vmm.keeper import ReportKeeper
from specctrl.model.vmm.policies import AsXen
from specctrl.model.words import merge
from specctrl.proof.counterexamples import replays
from specctrl.proof.prove import prove
from specctrl.proof.theorems import THEOREMS, vmm
from specctrl.proof.theorems import guest as guests

OWN = [name for name, one in THEOREMS.items() if one.run.__module__ in (guests.__name__, vmm.__name__)]
CHOOSE, BOOT, OVERHEAD, ADVERTISE = guest.choose, guest.boot, exposure.overhead, pool.advertise
SAME_MODE, BTI = exposure.same_mode_protection, exposure.bti_protection


def trusts_the_control(kernel, cpuid, shown, found=0):
    """Retpoline is trusted where RRSBA could be disabled, and it is not."""
    chosen = CHOOSE(kernel, cpuid, shown, found)
    return replace(chosen, spec_ctrl=tuple(value for value in chosen.spec_ctrl if value & BHI_DIS_S or value == 1))


def writes_no_zero(kernel, cpu, which=KernelCpu.BOOT, kept=0):
    """A secondary CPU leaves the MSR alone where the boot CPU wrote nothing."""
    found = cpu.rdmsr(IA32_SPEC_CTRL) if which is KernelCpu.BOOT and cpu.cpuid.shows_spec_ctrl else kept
    software = CHOOSE(kernel, cpu.cpuid, cpu.rdmsr(0x10A) if cpu.cpuid.arch_capabilities else 0, found)
    for value in software.spec_ctrl if which is KernelCpu.BOOT else software.spec_ctrl[-1:]:
        cpu.wrmsr(IA32_SPEC_CTRL, value)
    return software


def reports_after_s3(kernel, cpu, which=KernelCpu.BOOT, kept=0):
    """What G1 lacks."""
    return BOOT(kernel, cpu, KernelCpu.SECONDARY if which is KernelCpu.RESUME else which, kept)


def writes_whole(cpu, wanted):
    """The report is written without regard to what is offered."""
    if cpu.rdmsr(0x50000000) & 1:
        cpu.wrmsr(MSR_VIRTUAL_MITIGATION_CTRL, wanted & 3)


def replies_first(self, kind, msr, value, force):
    """The guest goes on before the pair is in force."""
    force(*self.pair())
    return self.reply(kind, msr, value)


def remembers_what_was_refused(self, kind, value):
    """The view is taken although KVM refused the value."""
    if kind.value == "rdmsr":
        return {"value": self.view}
    self.view = value
    return {"error": not self.set_msr(merge(value, self.mask, self.value))}


def answers_whatever_cpuid_shows(host, cpuid, offered):
    """A guest that is not told of the virtual MSRs gets answers all the same."""
    return ReportKeeper(Contract(host, cpuid, ReportKeptBy.USERSPACE, offered))


MISTAKES = {
    "kernel_uses_retpoline_or_hardware_or_software": (guest, "choose", trusts_the_control),
    "every_cpu_of_a_guest_chooses_alike": (guest, "boot", writes_no_zero),
    "report_says_what_runs": (guest, "wanted_report", lambda _, software: 2 if software.retpoline else 1),
    "report_sets_and_clears_what_is_offered": (guest, "report", writes_whole),
    "each_cpu_reports_for_itself": (guest, "boot", reports_after_s3),
    "four_things_stop_bhi": (
        exposure, "sequence_works", lambda host, sequence: sequence in (BhbSequence.SHORT, BhbSequence.LONG)),
    "bhi_dis_s_helps_within_the_kernel_with_ibhf_alone": (
        guests, "same_mode_protection", lambda host, effective, software: SAME_MODE(
            host, effective, replace(software, ibhf=True))),
    "a_lost_ibrs_is_named": (
        guests, "bti_protection", lambda host, effective, software, view: BTI(
            host, effective | view & 1, software, view)),
    "rrsba_needs_retpoline_and_no_bit": (exposure, "RRSBA_DIS_S", BHI_DIS_S),
    "what_is_needless_can_be_left_out": (
        guests, "overhead", lambda *known: (*OVERHEAD(*known), Overhead.BHI_DIS_S_UNNEEDED) if known[2] else ()),
    "pool_of_two_shows_what_both_have": (vmm, "advertise", lambda pool, *told: ADVERTISE(pool[:1], *told)),
    "only_guests_without_the_control_are_forced": (AsXen, "pair", lambda *_: (BHI_DIS_S, BHI_DIS_S)),
    "filtered_guest_reads_what_it_wrote": (FilteredSpecCtrl, "answer", remembers_what_was_refused),
    "keeper_answers_as_kvm_does": (vmm, "keep_report", answers_whatever_cpuid_shows),
    "keeper_forces_before_it_replies": (ReportKeeper, "complete", replies_first),
    "arrival_forces_for_this_host": (ReportKeeper, "arrive", lambda *_: None),
    "later_vcpu_has_the_pair_of_its_siblings": (SharedPair, "created", lambda self, vcpu: self.vcpus.append(vcpu)),
}


def test_there_is_a_mistake_for_each() -> None:
    """Of both modules."""
    assert set(OWN) == set(MISTAKES)


@pytest.mark.parametrize("name", OWN)
def test_a_mistake_is_refuted_and_the_refutation_replays(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On plain integers."""
    monkeypatch.setattr(*MISTAKES[name])
    found = prove(SPEC, name).refutations
    assert {each.claim for each in found} == {name}
    assert set(replays(SPEC, found)) == {name}
