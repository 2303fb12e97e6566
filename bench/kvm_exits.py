"""MSR exits a second to Python beside a C loop that does the same, in one run; a ratio says most."""

import fcntl
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from figures import Figure, Missing

from specctrl.model.kvm.filters import FilterRange, MsrFilter
from specctrl.model.registers import KVM_CAP_X86_USER_SPACE_MSR, MSR_VIRTUAL_MITIGATION_CTRL
from specctrl.targets.kvm import ioctls, minivmm
from specctrl.targets.kvm.bounds import TimeLimit
from specctrl.targets.kvm.minivmm import Kvm, KvmMissing, MsrExit, Vcpu, Vm

SOURCE = Path(__file__).with_suffix(".c")
SECONDS = 1.0
ROUNDS = 3
PROGRAM_AT = 0x7000
PROGRAM = bytes.fromhex(
    "b9 02 00 00 50"  # mov ecx, 0x50000002
    "0f 32"  # again: rdmsr
    "eb fc"  # jmp again
)
AREA = "kvm"


def looping_vm(kvm: Kvm) -> tuple[Vm, Vcpu]:
    """A VM whose guest reads one denied MSR for ever."""
    vm = Vm(kvm)
    vm.create_vcpu(0)
    vm.memory[PROGRAM_AT:PROGRAM_AT + len(PROGRAM)] = PROGRAM
    vm.vcpus[0].set_registers(PROGRAM_AT)
    vm.enable_cap(KVM_CAP_X86_USER_SPACE_MSR, [4])
    vm.set_msr_filter(MsrFilter(True, (FilterRange(MSR_VIRTUAL_MITIGATION_CTRL, 1, True, True, (False,)),)))
    return vm, vm.vcpus[0]


def python_rate(kvm: Kvm) -> float:
    """Exits a second, each taken apart and answered as the target does it."""
    vm, vcpu = looping_vm(kvm)
    exits = 0
    try:
        with TimeLimit(SECONDS + 5):
            begin = time.perf_counter()
            end = begin + SECONDS
            while time.perf_counter() < end:
                seen = vcpu.go_on()
                if not isinstance(seen, MsrExit) or seen.msr != MSR_VIRTUAL_MITIGATION_CTRL:
                    raise SystemExit(f"the guest did something else: {seen}")
                vcpu.reply(exits, error=False)
                exits += 1
            return exits / (time.perf_counter() - begin)
    finally:
        vm.close()


def state(kvm: Kvm) -> bytes:
    """What the C program starts from: registers and memory of the same guest."""
    vm, vcpu = looping_vm(kvm)
    try:
        sregs, regs = bytearray(312), bytearray(144)
        fcntl.ioctl(vcpu.fd, ioctls.GET_SREGS, sregs)
        fcntl.ioctl(vcpu.fd, ioctls.GET_REGS, regs)
        return bytes(sregs) + bytes(regs) + bytes(vm.memory[:])
    finally:
        vm.close()


def measure() -> Iterator[Figure]:
    """Both rates, medians of rounds in turn."""
    minivmm.MOST_EXITS = sys.maxsize
    compiler = shutil.which("cc")
    if compiler is None:
        raise Missing("a C compiler")
    try:
        kvm = Kvm()
    except KvmMissing as missing:
        raise Missing(str(missing)) from None
    with tempfile.TemporaryDirectory() as folder:
        program, start = Path(folder, "kvm_exits"), Path(folder, "state")
        try:
            subprocess.run([compiler, "-O2", "-o", program, SOURCE], capture_output=True, check=True)
            start.write_bytes(state(kvm))
            in_c, in_python = [], []
            for _ in range(ROUNDS):
                ran = subprocess.run([program, start, str(SECONDS)], capture_output=True, text=True, check=True)
                in_c.append(float(ran.stdout))
                in_python.append(python_rate(kvm))
        finally:
            kvm.close()
    ratio = statistics.median(mine / theirs for mine, theirs in zip(in_python, in_c, strict=True))
    yield Figure(AREA, "MSR exits to C", statistics.median(in_c), "a second")
    yield Figure(AREA, "MSR exits to Python", statistics.median(in_python), "a second", "those to C", ratio)
