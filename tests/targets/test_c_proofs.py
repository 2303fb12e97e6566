"""The C reference is proven by ESBMC where that is installed, and the proofs refute bugs planted in it."""

import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import planted_c
from specctrl.targets import c_reference as reference

C = reference.folder()
TEXT = "".join(path.read_text("utf-8") for path in sorted(C.glob("proofs/*.c")))
PROOFS = re.findall(r"^void ([a-z_]+)\(void\)$", TEXT, re.MULTILINE)
SLOWEST = 600  # seconds for one proof, on a busy machine

BUGS = {
    # name: the text, what it becomes, a proof that refutes it
    "the merge keeps the guest's masked bits": (
        "return (guest & ~mask) | (value & mask);", "return guest | (value & mask);", "merge"),
    "a report overrides userspace's 0": (
        "*value |= requested & ~*mask;", "*value |= requested;", "overlay"),
    "the shadow takes the merge": (
        "	vmcs->shadow = source;\n", "	vmcs->shadow = cpu->spec_ctrl;\n", "guest_wrmsr"),
    "the host's value stays away": (
        "held != vcpu->host->spec_ctrl || vcpu->host->legacy_ibrs", "vcpu->host->legacy_ibrs", "exit_guest"),
    "the guest's value is not loaded": (
        "&& !specctrl_register_is_saved(vcpu))", "&& vcpu->saved < vcpu->host->spec_ctrl)", "enter_guest"),
    "the entry trusts the host's variable": (
        "&& vcpu->saved == specctrl_rdmsr(vcpu);", ";", "enter_drifted"),
    "the saved value is the register's": (
        "vcpu->saved = specctrl_merge(vcpu->guest_view, vcpu->force_mask, vcpu->force_value);",
        "vcpu->saved = held;", "exit_after_nmi"),
    "an intercepted guest's host is not looked at": (
        "bool read = !intercepted || vcpu->saved == vcpu->host->spec_ctrl;", "bool read = !intercepted;",
        "exit_after_nmi"),
    "a failed entry leaves the guest's state": (
        "return specctrl_cpu_load_host(cpu, vmcs) ? SPECCTRL_CPU_VMX_ABORT :",
        "return false ? SPECCTRL_CPU_VMX_ABORT :", "vm_entry"),
    "an area is loaded under the control": (
        "	if (vmcs->entry_load.present && vmcs->virtualize)\n		return SPECCTRL_CPU_UNDEFINED;\n", "", "vm_entry"),
    "the guest-state field is saved with its control only": (
        "	if (cpu->has_entry_load)\n		vmcs->guest", "	if (vmcs->load_on_entry)\n		vmcs->guest", "vm_exit"),
}
DEFECTS = {"D1": "performed_report", "D2": "performed_write", "D3": "performed_write", "D18": "exit_after_nmi"}
"""Defects of the posted series, planted as in tests/planted_c.py, and a proof that refutes each."""


@cache
def esbmc():
    """The program, on PATH or where a wheel puts it; None where it is not, or is for another machine."""
    program = shutil.which("esbmc") or shutil.which("esbmc", path=str(Path(sys.executable).parent))
    try:
        return program and subprocess.run([program, "--version"], capture_output=True, check=True) and program
    except (OSError, subprocess.CalledProcessError):
        return None


needs_esbmc = pytest.mark.skipif(
    not esbmc() or not shutil.which("make"),
    reason="ESBMC is not here, or does not start: pip install 'specctrl[proofs-c]'")


def proved(name, folder=C, flags=""):
    """What make proofs says of one proof: its exit status and its words."""
    command = ["make", "-s", "proofs", f"PROOFS={name}", f"ESBMC={esbmc()}", f"ESBMC_FLAGS={flags}"]
    done = subprocess.run(command, cwd=folder, text=True, capture_output=True, check=False, timeout=SLOWEST,
                          env={**os.environ, "MAKEFLAGS": "", "MAKELEVEL": "0"})
    return done.returncode, done.stdout + done.stderr


def refuted(name, folder, flags=""):
    """Whether a proof ends with a counterexample to one of its claims, not in any other way."""
    status, said = proved(name, folder, flags)
    return status != 0 and "VERIFICATION FAILED" in said and re.search(r"^  (assertion|assert) ", said, re.MULTILINE)


@pytest.fixture
def copy(tmp_path):
    """The C reference, to be changed."""
    return shutil.copytree(C, tmp_path / "c")


def test_every_proof_is_found_once():
    """Each file has proofs, and none hides another of the same name."""
    assert len(PROOFS) == len(set(PROOFS)) > len(list(C.glob("proofs/*.c")))
    assert {proof for _, _, proof in BUGS.values()} | set(DEFECTS.values()) <= set(PROOFS)


def test_the_readme_lists_every_proof():
    """What is said to be proven is what there is."""
    text = (C / "README.md").read_text("utf-8")
    section = text.split("## What is proven", 1)[1]
    assert re.findall(r"^\| `([a-z_]+)` \|", section, re.MULTILINE) == PROOFS


@needs_esbmc
@pytest.mark.parametrize("name", PROOFS)
def test_the_claim_holds_for_all_inputs(name):
    """ESBMC proves it."""
    assert proved(name) == (0, f"proved: {name}\n")


@needs_esbmc
@pytest.mark.parametrize("name", PROOFS)
def test_the_claim_is_not_empty(name):
    """The case that the proof is about occurs under its assumptions."""
    assert refuted(name, C, "-DREACH")


@needs_esbmc
@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_refuted(bug, copy):
    """The proof fails on C code that is wrong."""
    old, new, proof = BUGS[bug]
    planted_c.change(copy, (old, new))
    assert refuted(proof, copy)


@needs_esbmc
@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_of_the_posted_series_is_refuted(defect, copy):
    """So it does on a defect of the posted series."""
    planted_c.plant(defect, C, copy)
    assert refuted(DEFECTS[defect], copy)
