"""The sample in Rust: it compiles without a warning, passes every level, and agrees with the emulator in lockstep."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from moves import first_difference
from published_files import ROOT
from specctrl.model.registers import CAPABILITIES, MSR_NUMBERS, REGISTERS
from specctrl.rules import load_rules
from specctrl.scenario import PASS, UNSUPPORTED, read, run_one
from specctrl.targets.adapter import AdapterTarget
from specctrl.targets.guest_kernels import GuestsAbove
from specctrl.targets.lockstep import Finding, Lockstep

SAMPLE = ROOT / "reference" / "rust"
SOURCES = sorted([*SAMPLE.glob("src/*.rs"), *SAMPLE.glob("adapter/*.rs")])
TEXT = "".join(path.read_text() for path in SOURCES)
SPEC = [each for each in read([ROOT / "vectors"]) if each.profile == "spec"]
BARE = [each for each in SPEC if any(step.op == "bare_stay" for step in each.steps)]
EVERY = [each for each in SPEC if each not in BARE]
"""Every scenario that a hypervisor can perform; those of a bare processor ask what it runs on."""
RUSTC = shutil.which("rustc")
SLOW = bool(os.environ.get("SPECCTRL_SLOW"))
needs_rust = pytest.mark.skipif(RUSTC is None, reason="no rustc here: the sample in Rust was not compiled or run")

FAULTS = {
    # what goes wrong: the text, what it becomes
    "the host's value is restored only if the view is another": (
        "        if held != host.spec_ctrl || host.legacy_ibrs {",
        "        if self.guest_view != host.spec_ctrl || host.legacy_ibrs {"),
    "the host's restore is decided by the computed value": (
        "        if held != host.spec_ctrl || host.legacy_ibrs {",
        "        if self.saved != host.spec_ctrl || host.legacy_ibrs {"),
    "the entry trusts the host's variable": (
        "(self.saved != host.spec_ctrl || self.saved != self.cpu.spec_ctrl)", "self.saved != host.spec_ctrl"),
    "the saved value is the register's": (
        "self.saved = self.force.merge(self.guest_view); // rule", "self.saved = held; // rule"),
    "AMD's bits show nothing": ('(has("SPEC_CTRL") || amd != 0,', '(has("SPEC_CTRL"),'),
    "the other CPUID is not looked at whole": ("shown: writable | amd }", "shown: amd }"),
    "a report does not reach MASK": ("(vmcs.mask, vmcs.shadow) = (self.force.mask,",
                                     "(vmcs.mask, vmcs.shadow) = (self.user.mask,"),
    "the value written is tested, not the merge": ("ensure(self.cpu.accepts(merged), MsrExitReason::Inval)?;",
                                                   "ensure(self.cpu.accepts(value), MsrExitReason::Inval)?;"),
    "a refused vCPU pair is stored": (
        "        ensure(self.kvm.host.can_force(pair) && self.cpu",
        "        self.user = pair;\n        ensure(self.kvm.host.can_force(pair) && self.cpu"),
    "an INIT in L2 stays pending": ("if blocked || !take(&mut self.nested.init_pending) {",
                                    "if blocked || !self.nested.init_pending {"),
    "bit 63 shows nothing": ("self.cpuid.arch_capabilities && self.feature_msrs[0] & ARCH_CAP_VIRTUAL_ENUM != 0;",
                             "self.cpuid.arch_capabilities;"),
}


def compiled(folder, output):
    """The program, or the compiler's words."""
    command = [RUSTC, "--edition", "2021", "-O", "-D", "warnings", "-o", str(output),
               str(folder / "adapter" / "main.rs")]
    return subprocess.run(command, text=True, check=False, capture_output=True).stderr


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    output = tmp_path_factory.mktemp("rust") / "sample"
    assert compiled(SAMPLE, output) == ""
    return output


def results(program, scenarios=EVERY, guests=True):
    """What becomes of scenarios."""
    adapter = AdapterTarget(str(program), plain=True)
    target = GuestsAbove(adapter) if guests else adapter
    try:
        return {scenario.id: run_one(scenario, target) for scenario in scenarios}
    finally:
        target.close()


class TestText:
    """What can be said of it without a compiler."""

    def test_every_rule_that_it_names_is_one(self):
        named = {rule for line in re.findall(r"rule: ([^\n]*(?:\n\s*///? [a-z0-9.+-]+[.,][a-z0-9.+, -]*$)*)", TEXT,
                                             re.MULTILINE)
                 for rule in re.findall(r"[a-z0-9-]+(?:\.[a-z0-9-]+)+", line)}
        assert named - set(load_rules()) == set()
        assert len(named) > 80

    def test_its_numbers_are_those_of_the_tables(self):
        found = {name: int(number.replace("_", ""), 0) if "<<" not in number else 1 << int(number.split()[-1])
                 for name, number in re.findall(r"const ([A-Z0-9_]+): u(?:32|64) = ([0-9a-fx_]+(?: << \d+)?);", TEXT)}
        known = {name if name.startswith("MSR_") else f"MSR_{name}": number for name, number in MSR_NUMBERS.items()}
        known |= {capability.name: capability.number for capability in CAPABILITIES.values()}
        prefixes = {"IA32_SPEC_CTRL": "SPEC_CTRL", "IA32_ARCH_CAPABILITIES": "ARCH_CAP",
                    "MSR_VIRTUAL_ENUMERATION": "VIRT_ENUM", "MSR_VIRTUAL_MITIGATION_CTRL": "MITI_CTRL"}
        known |= {f"{prefix}_{field.name}": field.mask for name, prefix in prefixes.items()
                  for field in REGISTERS[name]}
        found.pop("KVM_MAX_VCPU_IDS")
        assert found == {name: known[name] for name in found}
        assert len(found) == 15

    def test_what_is_to_be_copied_is_short(self):
        lines = {path.name: len(path.read_text().splitlines()) for path in SOURCES}
        assert sum(len(path.read_text().splitlines()) for path in SAMPLE.glob("src/*")) <= 700
        assert lines["main.rs"] <= 400

    def test_it_names_its_licences_and_needs_no_crate(self):
        for path in SOURCES:
            assert path.read_text().startswith("// SPDX-License-Identifier: (GPL-2.0 OR MIT)\n")
        assert "dependencies" not in (SAMPLE / "Cargo.toml").read_text()
        assert {"crate", "std", "kvm", "vmx"} == set(re.findall(r"^use (\w+)", TEXT, re.MULTILINE))


def compared(program, events, seed):
    """A finding, or how many events were compared."""
    target = AdapterTarget(str(program))
    try:
        *_, last = Lockstep(target).compare(events, seed)
    finally:
        target.kill()
    return last


@needs_rust
class TestProgram:
    """What it does."""

    def test_every_scenario_passes_with_guest_kernels_above_it(self, program):
        found = results(program)
        assert {} == {id: result.why for id, result in found.items() if result.status != PASS}
        assert len(found) == len(EVERY) > 700

    def test_alone_it_lacks_only_those_that_a_guest_kernel_takes(self, program):
        found = results(program, guests=False)
        lacking = {id for id, result in found.items() if result.status == UNSUPPORTED}
        guests = {"exposed", "overhead"}
        assert lacking == {each.id for each in EVERY
                           if any(step.op == "boot" or guests & {*step.expect} for step in each.steps)}
        assert {PASS, UNSUPPORTED} == {result.status for result in found.values()}

    def test_a_bare_processor_is_below_it(self, program):
        found = results(program, BARE)
        assert {UNSUPPORTED} == {result.status for result in found.values()}

    def test_in_lockstep(self, program):
        events = 300_000 if SLOW else 20_000
        last = compared(program, events, seed=20261130)
        assert last == events, json.dumps(last.document())

    def test_each_vmm_moves_a_vm_as_its_record_says(self, program):
        assert first_difference(program) is None

    @pytest.mark.parametrize(("old", "new"), [
        ("on_refusal: OnRefusal::Abort, drops", "drops"),
        ("drops_unlisted: true, ..TODAY", "..TODAY"),
        ("saves_nested: false, ..TODAY", "..TODAY"),
        ("Skip, ..AS_SPECIFIED", "Skip, compares_cpuid: false, ..AS_SPECIFIED"),
        ("Skip, ..AS_SPECIFIED", "Skip, feature_msrs: &[MSR_IA32_ARCH_CAPABILITIES], ..AS_SPECIFIED"),
        ("    state_msrs: &[MSR_IA32_SPEC_CTRL],", "    state_msrs: STATE_MSRS,"),
        ("while vmm.on_refusal", "if vmm.on_refusal"),
    ])
    def test_another_record_is_found(self, old, new, tmp_path):
        folder = Path(shutil.copytree(SAMPLE, tmp_path / "sample"))
        text = (folder / "adapter" / "vmm.rs").read_text()
        assert text.count(old) == 1
        (folder / "adapter" / "vmm.rs").write_text(text.replace(old, new))
        assert compiled(folder, tmp_path / "wrong") == ""
        assert first_difference(tmp_path / "wrong") is not None

    @pytest.mark.parametrize("fault", FAULTS)
    def test_a_planted_fault_is_found(self, fault, tmp_path):
        folder = Path(shutil.copytree(SAMPLE, tmp_path / "sample"))
        old, new = FAULTS[fault]
        text = (folder / "src" / "kvm.rs").read_text()
        assert text.count(old) == 1
        (folder / "src" / "kvm.rs").write_text(text.replace(old, new))
        assert compiled(folder, tmp_path / "wrong") == ""
        assert isinstance(compared(tmp_path / "wrong", 40_000, seed=1), Finding)
