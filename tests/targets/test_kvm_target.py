"""The running kernel as a target.  What needs /dev/kvm is skipped without it, with the reason."""

import errno
import json
import os
import random
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from scenario_samples import scenario
from specctrl.cli.main import main
from specctrl.cli.probe import kernel_facts
from specctrl.model.kvm.filters import MAX_RANGE_MSRS, FilterRange, MsrFilter, check_filter
from specctrl.model.outcomes import Errno
from specctrl.model.registers import KVM_CAP_X86_USER_SPACE_MSR
from specctrl.scenario import FAIL, PASS, UNSUPPORTED, Result, TargetFailed, load, read, run_one
from specctrl.scenario.kinds import Json
from specctrl.targets import TargetMissing, open_target
from specctrl.targets.kvm import minivmm
from specctrl.targets.kvm.bounds import TimeLimit
from specctrl.targets.kvm.host import describe_host
from specctrl.targets.kvm.minivmm import LONG_CODE, GuestLost, Kvm, KvmMissing, MsrExit, Vcpu, Vm
from specctrl.targets.kvm.recorded import as_lines, kind_of_host, record, recorded
from specctrl.targets.kvm.showable import decide
from specctrl.targets.kvm.target import CONFIRMS, KvmGuests, KvmTarget

VECTORS = Path(__file__).resolve().parents[2] / "vectors"
OURS = sorted((VECTORS / "kvm-abi").glob("*.json"))
_FACTS, WHY = kernel_facts()
live = pytest.mark.skipif(_FACTS is None, reason=f"the running kernel is not asked: {WHY}")
FILTER, UNKNOWN = 4, 2
BARE = {"part": "ice-lake-server", "features": ["ARCH_CAPABILITIES"]}


@pytest.fixture(scope="module")
def target() -> Iterator[KvmTarget]:
    found = KvmTarget()
    yield found
    found.close()


@pytest.fixture
def kvm() -> Iterator[Kvm]:
    found = Kvm()
    yield found
    found.close()


@pytest.fixture
def vm(kvm: Kvm) -> Iterator[Vm]:
    found = Vm(kvm)
    found.create_vcpu(0)
    yield found
    found.close()


@pytest.fixture(scope="module")
def results(target: KvmTarget) -> dict[str, Result]:
    """All published scenarios of profile spec, run on this kernel."""
    guests = KvmGuests(target)
    return {each.id: run_one(each, guests) for each in read([VECTORS]) if each.profile == "spec"}


@live
class TestScenarios:
    """Published scenarios on the kernel that runs here."""

    def test_none_is_a_mismatch(self, results: dict[str, Result]) -> None:
        assert [] == [(name, each.why) for name, each in results.items() if each.status == FAIL]

    def test_what_runs_is_what_was_decided_beforehand(
        self, results: dict[str, Result], target: KvmTarget
    ) -> None:
        for each in results.values():
            assert decide(each.scenario, target.facts) == (
                None if each.status == PASS else (each.step, each.why)), each.scenario.id

    def test_every_pass_says_what_it_confirms_in_words_that_are_explained(self, results: dict[str, Result]) -> None:
        passed = [each for each in results.values() if each.status == PASS]
        assert passed
        assert all(each.confirms and set(each.confirms) <= set(CONFIRMS) for each in passed)
        assert set(CONFIRMS) == {kind for each in passed for kind in each.confirms}
        assert not any(each.confirms for each in results.values() if each.status != PASS)

    def test_every_unsupported_one_names_step_and_reason(self, results: dict[str, Result]) -> None:
        assert all(each.why and each.step is not None for each in results.values() if each.status == UNSUPPORTED)

    def test_the_recorded_run_is_repeated_where_the_host_is_of_the_same_kind(
        self, results: dict[str, Result], target: KvmTarget
    ) -> None:
        was = recorded()
        here = json.loads(json.dumps(kind_of_host(target.facts, describe_host())))
        if here != was["host"]:
            different = {key: (was["host"][key], here[key]) for key in here if was["host"].get(key) != here[key]}
            pytest.skip(f"a host of another kind than the recorded run's: {different}")
        again = {
            **{name: ("pass", dict(each.confirms)) for name, each in results.items() if each.status == PASS},
            **{name: (each.status, each.why) for name, each in results.items() if each.status != PASS},
        }
        before: dict[str, Any] = {name: ("pass", kinds) for name, kinds in was["passed"].items()}
        for why, names in was["unsupported"].items():
            before.update(dict.fromkeys(names, (UNSUPPORTED, why)))
        both = set(before) & set(again)
        assert len(both) >= 200
        assert {name: again[name] for name in both} == {name: before[name] for name in both}, (
            "record again: python -m specctrl.targets.kvm.recorded vectors > src/specctrl/targets/kvm/recorded.json")

    def test_a_record_has_every_scenario_once_and_one_line_for_each(self, results: dict[str, Result]) -> None:
        found = record(results.values(), {"vendor": "x"}, "6.18", "2026-11-22")
        text = as_lines(found)
        assert json.loads(text) == found
        named = [*found["passed"], *(name for names in found["unsupported"].values() for name in names)]
        assert sorted(named) == sorted(results)


def perturbed(document: dict[str, Json]) -> Iterator[tuple[int, str, dict[str, Json]]]:
    """The scenario with one expectation changed, for each value that it expects."""
    for index, step in enumerate(document["steps"]):
        for key, value in step.get("expect", {}).items():
            if key in ("contains", "lacks"):
                continue  # tried in TestLists
            wrong = deepcopy(document)
            expect = wrong["steps"][index]["expect"]
            if key == "exit":
                for part, other in (("kind", "wrmsr" if value["kind"] == "rdmsr" else "rdmsr"),
                                    ("reason", "FILTER" if value["reason"] != "FILTER" else "INVAL"), ("msr", "0x1234"),
                                    ("value", "0x5a5a")):
                    if part in value:
                        again = deepcopy(wrong)
                        again["steps"][index]["expect"]["exit"][part] = other
                        yield index, f"exit.{part}", again
                continue
            changed: dict[str, Json] = {
                "ret": 17, "errno": "EPERM", "fault": "#UD", "value": "0x5a5a", "values": ["0x5a5a"]}
            expect[key] = changed[key]
            yield index, key, wrong


@live
class TestAChangedExpectationFails:
    """Each expectation of the folder's vectors is really compared with what the kernel did."""

    @pytest.mark.parametrize("path", OURS, ids=[path.stem for path in OURS])
    def test_wherever_it_stands(self, path: Path, target: KvmTarget) -> None:
        as_written = run_one(load(json.loads(path.read_text())), target)
        if as_written.status == UNSUPPORTED:
            pytest.skip(f"{path.stem}: {as_written.why}")
        tried = 0
        for index, key, document in perturbed(json.loads(path.read_text())):
            found = run_one(load(document), target)
            assert (found.status, found.step) == (FAIL, index), (index, key, found.why)
            tried += 1
        assert tried

    def test_and_an_outcome_that_is_left_out_too(self, target: KvmTarget) -> None:
        document = scenario({"op": "rdmsr", "msr": "0x12345"}, id="test.left-out")
        found = run_one(load(document), target)
        assert (found.status, found.why) == (FAIL, "fault #GP happened, which is not expected")


BUGS: dict[str, Any] = {
    "a reply's error is dropped": lambda patch: patch.setattr(
        Vcpu, "reply", lambda self, value, error, real=Vcpu.reply: real(self, value, False)),
    "a reply's value loses its high half": lambda patch: patch.setattr(
        Vcpu, "reply", lambda self, value, error, real=Vcpu.reply: real(self, value & 0xFFFF_FFFF, error)),
    "the filter is not set": lambda patch: patch.setattr(Vm, "set_msr_filter", lambda self, wanted: 0),
    "the filter's bits are inverted": lambda patch: patch.setattr(
        minivmm, "bitmap", lambda allow, real=minivmm.bitmap: bytes(255 - byte for byte in real(allow))),
    "the reasons are not enabled": lambda patch: patch.setattr(
        Vm, "enable_cap", lambda self, cap, args, flags=0: 0),
    "INIT is not sent": lambda patch: patch.setattr(minivmm, "INIT_MESSAGE", 0x4400),
    "a move leaves the filter behind": lambda patch: patch.setattr(
        Vcpu, "copy_state", lambda self, source, real=Vcpu.copy_state: (
            real(self, source), self.vm.set_msr_filter(MsrFilter()))),
    "a move leaves the registers behind": lambda patch: patch.setattr(
        Vcpu, "copy_state", lambda self, source: setattr(self, "started", True)),
    "KVM_SET_MSRS goes on after a refusal": lambda patch: patch.setattr(
        Vcpu, "set_msrs", lambda self, pairs: len(pairs)),
    "the guest's handler does not run": lambda patch: patch.setattr(minivmm, "GP_VECTOR", 14),
}
"""Bugs of the VMM or, as seen from the scenarios, of a kernel."""


@live
class TestPlantedBugs:
    """A VMM or kernel with a bug does not get past the vectors."""

    @pytest.mark.parametrize("name", list(BUGS))
    def test_each_is_caught(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        target = KvmTarget()
        BUGS[name](monkeypatch)
        caught = []
        try:
            for each in read([VECTORS / "kvm-abi"]):
                try:
                    if run_one(each, target).status == FAIL:
                        caught.append(each.id)
                except TargetFailed:
                    caught.append(each.id)
        finally:
            target.close()
        assert caught


@live
class TestFiltersAgainstTheEmulator:
    """The rule code of filters and the kernel, asked the same."""

    BASE = 0x1230_0000

    def some_filter(self, choose: random.Random) -> MsrFilter:
        ranges = []
        for _ in range(choose.randint(0, 16)):
            count = choose.choice([0, 1, 2, 9, 16])
            ranges.append(FilterRange(
                self.BASE + choose.randint(0, 24), count, choose.random() < 0.7, choose.random() < 0.7,
                tuple(choose.random() < 0.5 for _ in range(count))))
        return MsrFilter(choose.random() < 0.7, tuple(ranges))

    def test_random_filters_are_refused_alike_and_decide_alike(self, vm: Vm) -> None:
        choose = random.Random(20240410)
        assert vm.enable_cap(KVM_CAP_X86_USER_SPACE_MSR, [FILTER | UNKNOWN]) == 0
        in_force, refused, denied, allowed = MsrFilter(), 0, 0, 0
        with TimeLimit(60):
            for _ in range(300):
                candidate = self.some_filter(choose)
                try:
                    check_filter(candidate)
                    expected = 0
                except Errno as outcome:
                    expected = -outcome.number
                assert vm.set_msr_filter(candidate) == expected, candidate
                if expected == 0:
                    in_force = candidate
                refused += expected != 0
                for _ in range(10):
                    msr, is_write = self.BASE + choose.randint(0, 40), choose.random() < 0.5
                    value = choose.getrandbits(64)
                    seen = vm.vcpus[0].access(msr, is_write, value)
                    reason = UNKNOWN if in_force.allows(msr, is_write) else FILTER
                    assert seen == MsrExit(is_write, reason, msr, value if is_write else 0), in_force
                    vm.vcpus[0].reply(value, error=False)
                    ended = vm.vcpus[0].go_on()
                    assert isinstance(ended, minivmm.Access)
                    assert (ended.result, ended.vector) == (value, 0)
                    denied += reason == FILTER
                    allowed += reason == UNKNOWN
        assert min(refused, denied, allowed) >= 50, (refused, denied, allowed)

    @pytest.mark.parametrize("count", [MAX_RANGE_MSRS, MAX_RANGE_MSRS + 1])
    def test_the_kernels_limit_of_a_range_is_the_rules(self, vm: Vm, count: int) -> None:
        entry = FilterRange(0, count, True, True, (True,) * count)
        refused = vm.set_msr_filter(MsrFilter(True, (entry,)))
        assert refused == (0 if count == MAX_RANGE_MSRS else -errno.EINVAL)

    def test_more_ranges_than_the_structure_holds_are_an_error_of_the_caller(self, vm: Vm) -> None:
        with pytest.raises(ValueError, match="17 ranges: the structure has room for 16"):
            vm.set_msr_filter(MsrFilter(True, (FilterRange(0, 0, True, True, ()),) * 17))


def left_open() -> tuple[int, int]:
    """How many descriptors and mappings this process has."""
    with open("/proc/self/maps") as maps:
        return len(os.listdir("/proc/self/fd")), sum(1 for _ in maps)


@live
class TestBounds:
    """Nothing runs for ever, nothing is left."""

    def test_a_thousand_vms_leave_neither_descriptor_nor_mapping(self, kvm: Kvm) -> None:
        def one(number: int) -> None:
            vm = Vm(kvm, apic=number % 10 == 0)
            vm.create_vcpu(0)
            if number % 50 == 0:
                with TimeLimit(1):
                    vm.vcpus[0].access(0x12345, False)
            vm.close()

        for number in range(20):  # what Python allocates once
            one(number)
        fds, maps = left_open()
        for number in range(1000):
            one(number)
        now_fds, now_maps = left_open()
        assert now_fds == fds
        assert now_maps <= maps + 5, "Python's own heap may have grown a little; a thousand VMs have not stayed"

    def test_a_scenario_that_fails_leaves_nothing_either(self, target: KvmTarget) -> None:
        wrong = load(scenario({"op": "rdmsr", "msr": "0x12345", "expect": {"value": "0x1"}}, id="test.wrong"))
        run_one(wrong, target)
        before = left_open()[0]
        for _ in range(20):
            assert run_one(wrong, target).status == FAIL
        assert left_open()[0] == before

    def test_an_endless_loop_is_interrupted(self, vm: Vm) -> None:
        vm.memory[LONG_CODE:LONG_CODE + 2] = b"\xeb\xfe"
        with TimeLimit(0.2), pytest.raises(GuestLost, match=r"did not come back within 0\.2 s"):
            vm.vcpus[0].run()

    def test_too_many_exits_are_stopped(self, vm: Vm, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(minivmm, "MOST_EXITS", 10)
        with TimeLimit(5):
            for _ in range(10):
                vm.vcpus[0].run()
            with pytest.raises(GuestLost, match="vCPU 0 made 10 exits"):
                vm.vcpus[0].run()

    def test_kvm_run_needs_a_time_limit(self, vm: Vm) -> None:
        with pytest.raises(RuntimeError, match="KVM_RUN without a time limit"):
            vm.vcpus[0].run()

    def test_a_guest_that_leaves_its_program_is_lost(self, vm: Vm) -> None:
        vm.memory[LONG_CODE:LONG_CODE + 2] = b"\x0f\x0b"  # ud2, for which the IDT has no gate: a triple fault
        with TimeLimit(1), pytest.raises(GuestLost, match="left its program: exit reason 8"):
            vm.vcpus[0].access(0x48, False)

    def test_a_lost_guest_breaks_the_run_and_closes_its_vm(
        self, target: KvmTarget, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(minivmm, "MOST_EXITS", 0)
        before = left_open()[0]
        with pytest.raises(TargetFailed, match="kvm: vCPU 0 made 0 exits"):
            run_one(load(scenario({"op": "rdmsr", "msr": "0x12345"}, id="test.lost")), target)
        assert (left_open()[0], TimeLimit.active) == (before, None)

    def test_there_is_room_for_64_vcpus(self, vm: Vm) -> None:
        assert [vm.create_vcpu(number) for number in range(1, 64)] == [0] * 63
        with pytest.raises(GuestLost, match="room for 64 vCPUs"):
            vm.create_vcpu(64)
        with TimeLimit(1):
            assert isinstance(vm.vcpus[63].access(0x12345, False), minivmm.Access)


@live
class TestGuestKernels:
    """A boot, whose accesses the guest of the mini VMM executes."""

    STEPS = (
        {"op": "set_msrs", "msrs": [["IA32_ARCH_CAPABILITIES", "0x8000000000000000"],
                                    ["MSR_VIRTUAL_ENUMERATION", "0x1"], ["MSR_VIRTUAL_MITIGATION_ENUM", "0x3"]]},
        {"op": "boot", "kernel": {"os": "linux", "version": "6.15", "reports": True, "retpoline": True},
         "expect": {"wrote": [["MSR_VIRTUAL_MITIGATION_CTRL", "0x2"]]}},
        {"op": "rdmsr", "msr": "MSR_VIRTUAL_MITIGATION_CTRL", "expect": {"value": "0x2"}},
    )

    def test_the_report_goes_through_this_kernel(self, target: KvmTarget) -> None:
        booted = load(scenario(*deepcopy(self.STEPS), id="test.boot", host=BARE))
        result = run_one(booted, KvmGuests(target))
        assert (result.status, result.why) == (PASS, "")
        assert result.confirms["kept"] >= 5

    def test_another_report_is_a_mismatch(self, target: KvmTarget) -> None:
        steps = deepcopy(self.STEPS)
        steps[1]["expect"]["wrote"] = []
        result = run_one(load(scenario(*steps, id="test.boot", host=BARE)), KvmGuests(target))
        assert (result.status, result.step) == (FAIL, 2)


@live
class TestLists:
    """Lists of MSRs, where an expectation is part of one."""

    @pytest.mark.parametrize("expect", [{"lacks": ["IA32_ARCH_CAPABILITIES"]}, {"contains": ["0x12345"]}])
    def test_a_wrong_list_fails(self, target: KvmTarget, expect: dict[str, Json]) -> None:
        step = {"op": "get_msr_feature_index_list", "expect": expect}
        assert run_one(load(scenario(step, id="test.list")), target).status == FAIL


@live
class TestCommands:
    """``specctrl run --target kvm`` and ``specctrl probe``, on this kernel."""

    def test_the_run_counts_what_is_confirmed(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["run", str(VECTORS / "kvm-abi"), "--target", "kvm"]) == 0
        out = capsys.readouterr().out
        assert "pass          kvm-abi.exit.error: " in out
        for kind in CONFIRMS:
            assert f"confirmed: {kind:6} " in out

    def test_the_run_as_json_has_them_too(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["run", str(VECTORS / "kvm-abi"), "--target", "kvm", "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert set(document["confirms"]) == set(CONFIRMS)
        assert all(each["confirms"] for each in document["results"] if each["result"] != UNSUPPORTED)
        assert document["counts"][UNSUPPORTED] <= len(OURS) // 10

    def test_a_scenario_of_another_profile_is_not_run(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["run", str(VECTORS / "defects"), "--target", "kvm"]) == 3

    def test_the_probe_says_what_the_kernel_offers(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["probe"]) == 0
        assert "KVM_CAP_PRE_FAULT_MEMORY" in capsys.readouterr().out
        assert main(["probe", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)["kvm"]
        assert (found["usable"], found["capabilities"]["188"], found["capabilities"]["189"]) == (True, 1, 1)
        assert found["series"] is (None if found["series_ioctl"] == "0" else False)


class TestWithoutKvm:
    """A machine without ``/dev/kvm``, or without the right to open it."""

    @pytest.fixture(autouse=True)
    def _no_device(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(minivmm.Kvm.__init__, "__defaults__", (str(tmp_path / "kvm"),))

    def test_the_run_ends_with_one_line_and_3(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        file = tmp_path / "one.json"
        file.write_text(json.dumps(scenario(id="test.one")))
        assert main(["run", str(file), "--target", "kvm"]) == 3
        assert capsys.readouterr().err == (
            f"specctrl: target 'kvm': {tmp_path / 'kvm'} cannot be opened: No such file or directory\n")

    def test_a_file_that_is_not_kvm_is_said_to_be_none(self, tmp_path: Path) -> None:
        (tmp_path / "kvm").touch()
        with pytest.raises(TargetMissing, match="is not KVM's, or of another version: KVM_GET_API_VERSION gives -25"):
            open_target("kvm")

    def test_a_kernel_whose_probe_fails_is_no_target(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Opened(Kvm):
            def __init__(self) -> None:
                self.fd = os.open(os.devnull, os.O_RDWR)

            def check_extension(self, capability: int) -> int:
                return 1

        monkeypatch.setattr("specctrl.targets.kvm.target.Kvm", Opened)
        before = left_open()[0]
        with pytest.raises(KvmMissing, match=r"the probe of this kernel failed: .*ioctl"):
            KvmTarget()
        assert left_open()[0] == before

    def test_the_probe_still_tells_what_it_can(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["probe"]) == 0
        assert "/dev/kvm                   not usable: " in capsys.readouterr().out
        assert main(["probe", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["kvm"]["usable"] is False

    def test_a_kernel_without_filters_is_no_target(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Old:
            def check_extension(self, capability: int) -> int:
                return 1 if capability == KVM_CAP_X86_USER_SPACE_MSR else 0

        from specctrl.targets.kvm.probe import probe

        with pytest.raises(KvmMissing, match=r"lacks KVM_CAP_X86_MSR_FILTER \(189\)"):
            probe(Old())  # type: ignore[arg-type]


class TestHostDescription:
    """What files say, under a folder of the test's own."""

    def test_nothing_can_be_read_and_all_of_it_is_named(self, tmp_path: Path) -> None:
        found = describe_host(tmp_path)
        assert set(found.unread) == {
            str(tmp_path / name) for name in
            ("proc/cpuinfo", "dev/cpu/0/cpuid", "dev/cpu/0/msr", "sys/devices/system/cpu/vulnerabilities")}
        assert (found.processor, found.cpuid, found.msrs, found.modules) == ({}, {}, {}, [])

    def test_what_is_there_is_read(self, tmp_path: Path) -> None:
        for name, content in {
            "proc/cpuinfo": "vendor_id\t: GenuineIntel\nmodel\t\t: 143\nflags\t: hypervisor\n\nvendor_id\t: other\n",
            "sys/module/kvm/parameters/ignore_msrs": "Y\n",
            "sys/module/kvm_intel/version": "",
            "sys/devices/system/cpu/vulnerabilities/spectre_v2": "Mitigation: …; BHI: BHI_DIS_S\n",
        }.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(content)
        (tmp_path / "dev/cpu/0").mkdir(parents=True)
        (tmp_path / "dev/cpu/0/msr").write_bytes(bytes(0x48) + (0x401).to_bytes(8, "little"))
        found = describe_host(tmp_path)
        assert (found.processor, found.virtual) == ({"vendor": "GenuineIntel", "model": "143"}, True)
        assert (found.modules, found.ignore_msrs) == (["kvm", "kvm_intel"], "Y")
        assert found.vulnerabilities == {"spectre_v2": "Mitigation: …; BHI: BHI_DIS_S"}
        assert found.msrs == {"IA32_SPEC_CTRL": 0x401}
        assert found.unread[f"{tmp_path}/dev/cpu/0/msr at 0x10a"] == "0 bytes of 8"
