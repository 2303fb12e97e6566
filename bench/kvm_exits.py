"""Measures MSR exits a second to Python beside a C loop that does the same, in one run; a ratio says most.

Prints what it left out where there is no ``/dev/kvm`` or no C compiler with the kernel's headers.
"""

import fcntl
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

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
AIM = 1 / 3


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


def main() -> None:
    """Print both rates and their ratio, medians of rounds in turn."""
    minivmm.MOST_EXITS = sys.maxsize
    try:
        kvm = Kvm()
    except KvmMissing as missing:
        print(f"left out: MSR exits to Python: {missing}")
        return
    folder = Path(tempfile.mkdtemp(prefix="specctrl-bench-"))
    try:
        compiler = shutil.which("cc")
        program = folder / "kvm_exits"
        built = compiler and subprocess.run([compiler, "-O2", "-o", program, SOURCE], capture_output=True, text=True)
        if not built or built.returncode:
            print("left out: the C loop beside it: no C compiler with linux/kvm.h")
            print(f"{'MSR exits to Python':35} {python_rate(kvm):12,.0f} per second")
            return
        (folder / "state").write_bytes(state(kvm))
        in_c, in_python = [], []
        for _ in range(ROUNDS):
            ran = subprocess.run([program, folder / "state", str(SECONDS)], capture_output=True, text=True, check=True)
            in_c.append(float(ran.stdout))
            in_python.append(python_rate(kvm))
        ratio = statistics.median(mine / theirs for mine, theirs in zip(in_python, in_c, strict=True))
        print(f"{'MSR exits to C':35} {statistics.median(in_c):12,.0f} per second")
        print(f"{'MSR exits to Python':35} {statistics.median(in_python):12,.0f} per second  ({ratio:.2f} of C)")
        if ratio < AIM:
            raise SystemExit(f"less than the {AIM:.2f} of C that is aimed at")
    finally:
        kvm.close()
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
