"""Guest kernels: what they choose from what they see, what they write, what they report."""

from itertools import product
from typing import Any

import pytest

from helpers import BIT_63, MC, ME, SC, SPR, VE, machine
from specctrl.model.guest import (
    BhbSequence,
    BhiDisS,
    Kernel,
    KernelCpu,
    Os,
    Software,
    SpectreBhi,
    SpectreV2,
    boot,
    choose,
    enter_kernel,
    leave_kernel,
    report,
    wanted_report,
)
from specctrl.model.outcomes import GP, Fault, Misuse
from specctrl.model.parts import Features
from specctrl.model.registers import ARCH_CAP_BHI_NO, ARCH_CAP_ITS_NO, ARCH_CAP_RRSBA
from specctrl.scenario.machine import Machine

LEVELLED = Features(spec_ctrl=True, stibp=True, ssbd=True, arch_capabilities=True)
WITH_BOTH = Features(spec_ctrl=True, arch_capabilities=True, rrsba_ctrl=True, bhi_ctrl=True)


class FakeCpu:
    """A CPU whose MSRs are a table; an MSR that is not in it faults."""

    def __init__(self, cpuid: Features, **msrs: int) -> None:
        self.cpuid = cpuid
        self.msrs = {int(name[1:], 16): value for name, value in msrs.items()}
        self.accesses: list[tuple[Any, ...]] = []

    def rdmsr(self, msr: int) -> int:
        self.accesses.append(("read", msr))
        if msr not in self.msrs:
            raise Fault(GP)
        return self.msrs[msr]

    def wrmsr(self, msr: int, value: int) -> None:
        if msr not in self.msrs:
            raise Fault(GP)
        self.msrs[msr] = value
        self.accesses.append(("write", msr, value))

    def wrote(self) -> list[tuple[int, int]]:
        return [access[1:] for access in self.accesses if access[0] == "write"]


def announced(cpuid: Features = LEVELLED, offered: int = 3, now: int = 0) -> FakeCpu:
    return FakeCpu(cpuid, _48=0, _10a=BIT_63, _50000000=1, _50000001=offered, _50000002=now)


class TestChoose:
    """The decision table of the guests' chapter, row by row."""

    @pytest.mark.parametrize(
        ("kernel", "cpuid", "capabilities", "writes", "at_entry", "after_exit"),
        [
            (Kernel(), LEVELLED, 0, (1,), "short", "short"),
            (Kernel(), WITH_BOTH, 0, (1, 0x401), "none", "none"),
            (Kernel(bhi_dis_s=BhiDisS.NEVER), WITH_BOTH, 0, (1,), "short", "short"),
            (Kernel(spectre_bhi=SpectreBhi.OFF), WITH_BOTH, 0, (1,), "none", "none"),
            (Kernel(spectre_bhi=SpectreBhi.VMEXIT), LEVELLED, 0, (1,), "none", "short"),
            (Kernel(spectre_bhi=SpectreBhi.VMEXIT), WITH_BOTH, 0, (1, 0x401), "none", "none"),
            (Kernel(sequence=BhbSequence.LONG), LEVELLED, 0, (1,), "long", "long"),
            (Kernel(retpoline=True), LEVELLED, 0, (), "none", "none"),
            (Kernel(retpoline=True), LEVELLED, ARCH_CAP_RRSBA, (), "short", "short"),
            (Kernel(retpoline=True), WITH_BOTH, ARCH_CAP_RRSBA, (0x40,), "none", "none"),
            (Kernel(retpoline=True), WITH_BOTH, 0, (), "none", "none"),
            (Kernel(), Features(), 0, (), "short", "short"),
        ],
    )
    def test_a_row(
        self, kernel: Kernel, cpuid: Features, capabilities: int, writes: tuple[int, ...], at_entry: str,
        after_exit: str,
    ) -> None:
        chosen = choose(kernel, cpuid, capabilities)
        assert (chosen.spec_ctrl, chosen.at_entry.value, chosen.after_exit.value) == (writes, at_entry, after_exit)
        assert chosen.retpoline is kernel.retpoline
        assert chosen.wants_bhi is (kernel.spectre_bhi is SpectreBhi.ON)


    @pytest.mark.parametrize(("version", "capabilities", "writes", "at_entry", "ibhf", "thunks"), [
        ("6.3", 0, (1,), "none", False, False),
        ("6.9", 0, (1,), "short", False, False),
        ("6.9", ARCH_CAP_BHI_NO, (1,), "none", False, False),
        ("6.15", 0, (1,), "short", True, True),
        ("6.15", ARCH_CAP_BHI_NO, (1,), "short", True, True),
        ("6.15", ARCH_CAP_ITS_NO, (1,), "short", True, False),
        ("any", ARCH_CAP_BHI_NO, (1,), "short", True, False),
    ])
    def test_a_version(
        self, version: str, capabilities: int, writes: tuple[int, ...], at_entry: str, ibhf: bool, thunks: bool
    ) -> None:
        chosen = choose(Kernel(version=version), LEVELLED, capabilities)
        assert (chosen.spec_ctrl, chosen.at_entry.value, chosen.ibhf, chosen.its_thunks) == (
            writes, at_entry, ibhf, thunks)

    @pytest.mark.parametrize(("mode", "writes", "retpoline", "relies", "legacy"), [
        ("eibrs", (1, 0x401), False, True, False),
        ("retpoline", (0x40,), True, False, False),
        ("eibrs,retpoline", (1, 0x41), True, True, False),
        ("ibrs", (1, 0x401), False, True, True),
        ("off", (), False, False, False),
    ])
    def test_a_setting_of_spectre_v2(
        self, mode: str, writes: tuple[int, ...], retpoline: bool, relies: bool, legacy: bool
    ) -> None:
        chosen = choose(Kernel(spectre_v2=SpectreV2(mode)), WITH_BOTH, ARCH_CAP_RRSBA)
        assert (chosen.spec_ctrl, chosen.retpoline, chosen.relies_on_ibrs, chosen.writes_at_entry) == (
            writes, retpoline, relies, legacy)

    def test_what_linux_does_not_manage_is_kept_and_the_rest_is_chosen_anew(self) -> None:
        chosen = choose(Kernel(), LEVELLED, 0, found=0x497)
        assert (chosen.spec_ctrl, chosen.kept) == ((0x91,), 0x90)

    def test_ibhf_stands_where_the_history_is_cleared_at_all(self) -> None:
        for bhi in SpectreBhi:
            chosen = choose(Kernel(spectre_bhi=bhi), LEVELLED, 0)
            assert chosen.ibhf is (bhi is SpectreBhi.ON)
        assert choose(Kernel(spectre_bhi=SpectreBhi.VMEXIT), WITH_BOTH, 0).ibhf, "BHI_DIS_S is used"


class TestReport:
    """MSR_VIRTUAL_MITIGATION_CTRL."""

    @pytest.mark.parametrize(("sequence", "linux", "other"), [
        ("none", 0, 0), ("short", 1, 1), ("long", 1, 0), ("tsx", 1, 0)])
    def test_what_the_sequence_says(self, sequence: str, linux: int, other: int) -> None:
        software = Software(at_entry=BhbSequence(sequence))
        assert wanted_report(Kernel(), software) == linux
        assert wanted_report(Kernel(os=Os.WINDOWS_LIKE), software) == other
        with_retpoline = Software(at_entry=BhbSequence(sequence), retpoline=True)
        assert wanted_report(Kernel(), with_retpoline) == linux | 2

    def test_a_sequence_after_exits_alone_is_not_reported(self) -> None:
        assert wanted_report(Kernel(), Software(after_exit=BhbSequence.SHORT)) == 0

    @pytest.mark.parametrize(("offered", "now", "wanted"), list(product(range(4), repeat=3)))
    def test_an_offered_bit_becomes_as_wanted_and_no_other_changes(self, offered: int, now: int, wanted: int) -> None:
        cpu = announced(offered=offered, now=now)
        report(cpu, wanted)
        assert cpu.msrs[0x50000002] == (now & ~offered) | (wanted & offered)
        assert len(cpu.wrote()) == bin((now ^ wanted) & offered).count("1"), "a write for each bit that changes"

    def test_nothing_is_read_behind_an_enumeration_of_nothing(self) -> None:
        cpu = announced()
        cpu.msrs[0x50000000] = 0
        report(cpu, 3)
        assert cpu.accesses == [("read", 0x50000000)]


class TestBoot:
    """The accesses of a CPU that comes up."""

    def test_bit_63_is_looked_at_first(self) -> None:
        cpu = announced()
        cpu.msrs[0x10A] = 0
        boot(Kernel(reports=True), cpu)
        assert cpu.accesses == [("read", 0x10A), ("read", 0x48), ("write", 0x48, 1)]

    def test_without_its_cpuid_bit_the_capabilities_are_not_read(self) -> None:
        cpu = announced(Features(spec_ctrl=True))
        boot(Kernel(reports=True), cpu)
        assert cpu.accesses == [("read", 0x48), ("write", 0x48, 1)]

    def test_a_kernel_that_does_not_report_reads_no_virtual_msr(self) -> None:
        cpu = announced()
        boot(Kernel(), cpu)
        assert cpu.accesses == [("read", 0x10A), ("read", 0x48), ("write", 0x48, 1)]

    @pytest.mark.parametrize(("which", "wrote"), [
        (KernelCpu.BOOT, [(0x48, 1), (0x48, 0x401), (0x50000002, 0)]),
        (KernelCpu.SECONDARY, [(0x48, 0x401), (0x50000002, 0)]),
        (KernelCpu.RESUME, [(0x48, 0x401)]),
    ])
    def test_each_cpu_writes(self, which: KernelCpu, wrote: list[tuple[int, int]]) -> None:
        cpu = announced(WITH_BOTH, now=1)
        boot(Kernel(reports=True), cpu, which)
        assert cpu.wrote() == wrote

    def test_a_fault_is_survived(self) -> None:
        cpu = FakeCpu(WITH_BOTH, _10a=BIT_63)
        boot(Kernel(reports=True), cpu)
        assert cpu.accesses == [("read", 0x10A), ("read", 0x48), ("read", 0x50000000)]
        assert cpu.msrs == {0x10A: BIT_63}

    def test_a_kernel_keeps_on_every_cpu_what_the_boot_cpu_found(self) -> None:
        first, second = FakeCpu(LEVELLED, _48=0x95, _10a=0), FakeCpu(LEVELLED, _48=0x0, _10a=0)
        software = boot(Kernel(), first)
        boot(Kernel(), second, KernelCpu.SECONDARY, software.kept)
        assert (first.msrs[0x48], second.msrs[0x48]) == (0x91, 0x91)

    def test_legacy_ibrs_writes_on_the_way_in_and_out(self) -> None:
        for mode, inside, outside in (("ibrs", 0x1, 0x0), ("eibrs", 0x1, 0x1)):
            cpu = FakeCpu(LEVELLED, _48=0, _10a=0)
            software = boot(Kernel(spectre_v2=SpectreV2(mode)), cpu)
            leave_kernel(cpu, software)
            assert cpu.msrs[0x48] == outside
            enter_kernel(cpu, software)
            assert cpu.msrs[0x48] == inside

    @pytest.mark.parametrize("kernel", [Kernel(), Kernel(retpoline=True), Kernel(spectre_v2=SpectreV2.EIBRS)])
    def test_no_other_kernel_writes_there(self, kernel: Kernel) -> None:
        cpu = FakeCpu(LEVELLED, _48=0, _10a=0)
        software = boot(kernel, cpu)
        cpu.msrs[0x48] = 0x80
        for step in (enter_kernel, leave_kernel):
            step(cpu, software)
            assert cpu.msrs[0x48] == 0x80

    def test_a_secondary_cpu_writes_zero_too_but_never_a_hidden_msr(self) -> None:
        cpu = FakeCpu(LEVELLED, _48=5, _10a=0)
        boot(Kernel(retpoline=True), cpu, KernelCpu.SECONDARY)
        assert cpu.msrs[0x48] == 0
        hidden = FakeCpu(Features(), _48=5)
        boot(Kernel(), hidden, KernelCpu.SECONDARY)
        assert hidden.accesses == []


class TestKeys:
    """The scenario format's object."""

    def test_there_and_back(self) -> None:
        for os, sequence, bhi in product(Os, BhbSequence, SpectreBhi):
            kernel = Kernel(
                os=os, reports=True, sequence=sequence, retpoline=True, bhi_dis_s=BhiDisS.NEVER, spectre_bhi=bhi)
            assert Kernel.from_keys(kernel.as_keys()) == kernel

    def test_a_key_that_is_not_given_is_as_in_a_plain_linux(self) -> None:
        assert Kernel.from_keys({"os": "linux"}) == Kernel()

    def test_two_keys_that_contradict_each_other_are_refused(self) -> None:
        with pytest.raises(ValueError, match="contradict each other"):
            Kernel.from_keys({"os": "linux", "retpoline": True, "spectre_v2": "ibrs"})

    @pytest.mark.parametrize("wrong", [
        {"bhi_dis_s": "perhaps"}, {"os": "plan9"}, {"sequence": "shorter"}, {"version": "2.6"}, {"spectre_v2": "on"},
    ])
    def test_what_is_no_kernel_is_refused(self, wrong: dict[str, str]) -> None:
        with pytest.raises(ValueError, match=next(iter(wrong.values()))):
            Kernel.from_keys({**Kernel().as_keys(), **wrong})


class TestOnTheMachine:
    """The operation ``boot``."""

    def test_it_survives_a_move_and_an_init_and_ends_with_a_reset(self) -> None:
        made = Machine("ice-lake-server")
        made.create_vcpu()
        made.boot(kernel=Kernel().as_keys())
        assert made.observe()["exposed"] == []
        made.migrate(to="sapphire-rapids")
        assert made.observe()["overhead"] == ["sequence-ineffective"]
        made.init()
        assert made.observe()["overhead"] == ["sequence-ineffective"]
        made.reset_vcpu()
        assert made.observe()["overhead"] == []
        assert made.observe()["exposed"] == ["BHI", "RRSBA"]

    def test_l2_and_smm_do_not_boot(self) -> None:
        for enter in ("nested_enter", "smi"):
            made = machine()
            getattr(made, enter)()
            with pytest.raises(Misuse, match="outside SMM"):
                made.boot(kernel=Kernel().as_keys())

    def test_an_exit_on_the_way_is_misuse(self) -> None:
        made = Machine(SPR)
        made.enable_cap(cap="KVM_CAP_X86_USER_SPACE_MSR", args=[4])
        made.set_msr_filter(ranges=[{"base": 0x48, "count": 1, "write": True, "allow": [False]}])
        made.create_vcpu()
        with pytest.raises(Misuse, match="wrmsr of 0x48"):
            made.boot(kernel=Kernel().as_keys())

    def test_which_cpu_is_one_of_three(self) -> None:
        with pytest.raises(Misuse, match="cpu is 'third'"):
            machine().boot(kernel=Kernel().as_keys(), cpu="third")

    def test_what_was_written_can_be_read_back(self) -> None:
        made = machine(offer=True)
        wrote = made.boot(kernel=Kernel(reports=True, bhi_dis_s=BhiDisS.NEVER).as_keys())["wrote"]
        assert wrote == [[0x48, 1], [0x50000002, 1]]
        assert made.rdmsr(msr=SC)["value"] == 1
        assert made.rdmsr(msr=MC)["value"] == 1
        assert (made.rdmsr(msr=VE)["value"], made.rdmsr(msr=ME)["value"]) == (1, 3)
