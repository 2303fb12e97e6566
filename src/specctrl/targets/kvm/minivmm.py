"""The mini VMM: the file descriptors of ``/dev/kvm``, a VM and its vCPUs, and the guest's memory.

Each object closes what it opened; nothing is left after :meth:`Vm.close` and :meth:`Kvm.close`.
"""

import contextlib
import ctypes
import fcntl
import mmap
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from specctrl.model.kvm.filters import MsrFilter
from specctrl.targets.kvm import guest_program, ioctls
from specctrl.targets.kvm.bounds import TimeLimit
from specctrl.targets.kvm.guest_program import LONG_MODE, REAL_MODE, RECORD, RECORD_FIELDS, assemble

DEVICE = "/dev/kvm"
API_VERSION = 12

REAL, LONG = assemble(REAL_MODE), assemble(LONG_MODE)
MEMORY = 0x20_0000  # one page of 2 MiB
PAGE_TABLES, GDT, IDT = 0x1000, 0x4000, 0x5000
REAL_CODE, LONG_CODE = 0x8000, 0x9000
SLOTS, SLOT_SIZE, MOST_VCPUS = 0xA000, 0x100, 64
"""Each vCPU has a slot: its record at the low end, its stack from the high end down; all below 64 KiB."""
CODE_SELECTOR, DATA_SELECTOR = 0x08, 0x10
GP_VECTOR = 13
INIT_MESSAGE, SIPI_MESSAGE, STARTUP_VECTOR = 0x4500, 0x4600, REAL_CODE >> 12
MOST_EXITS = 1_000_000
"""Exits of one vCPU at the most: a guest that leaves more often is stopped."""
NO_BOOT_CPU = 4095
"""The number of no vCPU here: none is the bootstrap processor, so that each starts where a SIPI says."""


class KvmMissing(Exception):
    """``/dev/kvm`` cannot be used here; the message says why."""


class GuestLost(Exception):
    """The guest did something that its program does not do, or did not come back in time."""


@dataclass(frozen=True, slots=True)
class MsrExit:
    """KVM_EXIT_X86_RDMSR or KVM_EXIT_X86_WRMSR; ``data`` is what the guest writes."""

    write: bool
    reason: int
    msr: int
    data: int


@dataclass(frozen=True, slots=True)
class Access:
    """An access of the guest that has ended: what RDMSR yielded, or vector, error code and RIP of the fault."""

    result: int
    vector: int
    error_code: int
    rip: int


class Kvm:
    """The fd of ``/dev/kvm``; KvmMissing if it cannot be opened or speaks another version."""

    def __init__(self, device: str = DEVICE) -> None:
        try:
            self.fd = os.open(device, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise KvmMissing(f"{device} cannot be opened: {error.strerror}") from None
        version = ioctls.attempt(self.fd, ioctls.GET_API_VERSION)
        if version != API_VERSION:
            self.close()
            raise KvmMissing(f"{device} is not KVM's, or of another version: KVM_GET_API_VERSION gives {version}")
        self.run_size = ioctls.attempt(self.fd, ioctls.GET_VCPU_MMAP_SIZE)
        self._cpuid: bytes | None = None

    def check_extension(self, capability: int) -> int:
        """KVM_CHECK_EXTENSION; negative: the errno."""
        return ioctls.attempt(self.fd, ioctls.CHECK_EXTENSION, capability)

    def supported_cpuid(self) -> bytes:
        """KVM_GET_SUPPORTED_CPUID, asked once: struct kvm_cpuid2 with its entries."""
        if self._cpuid is None:
            room = 256
            buffer = bytearray(struct.pack("<I4x", room) + bytes(ioctls.CPUID_ENTRY.size * room))
            fcntl.ioctl(self.fd, ioctls.GET_SUPPORTED_CPUID, buffer)
            found = struct.unpack_from("<I", buffer)[0]
            self._cpuid = bytes(buffer[: 8 + ioctls.CPUID_ENTRY.size * found])
        return self._cpuid

    def get_msrs(self, msrs: tuple[int, ...]) -> list[int]:
        """KVM_GET_MSRS on this fd: the values of feature MSRs, as many as it gave."""
        return read_msrs(self.fd, msrs)

    def close(self) -> None:
        """Close the fd."""
        os.close(self.fd)


def read_msrs(fd: int, msrs: tuple[int, ...]) -> list[int]:
    """KVM_GET_MSRS on this fd: the values up to the first MSR that is refused; OSError if the ioctl fails."""
    buffer = ioctls.msr_list((msr, 0) for msr in msrs)
    count = fcntl.ioctl(fd, ioctls.GET_MSRS, buffer)
    return ioctls.msr_values(buffer, count)


class Vm:
    """A VM with the guest's program in its memory; ``apic``: with local APICs in the kernel, as INIT needs them."""

    def __init__(self, kvm: Kvm, apic: bool = False) -> None:
        self.kvm = kvm
        self.apic = apic
        self.vcpus: dict[int, Vcpu] = {}
        self.fd = fcntl.ioctl(kvm.fd, ioctls.CREATE_VM, 0)
        self.memory = mmap.mmap(-1, MEMORY)
        try:
            fill(self.memory)
            region = ioctls.memory_region(address_of(self.memory), MEMORY)
            fcntl.ioctl(self.fd, ioctls.SET_USER_MEMORY_REGION, region)
            if apic:
                fcntl.ioctl(self.fd, ioctls.ENABLE_CAP, ioctls.enable_cap(ioctls.CAP_SPLIT_IRQCHIP, [0]))
                fcntl.ioctl(self.fd, ioctls.SET_BOOT_CPU_ID, NO_BOOT_CPU)
        except OSError:
            self.close()
            raise

    def check_extension(self, capability: int) -> int:
        """KVM_CHECK_EXTENSION on the VM fd; negative: the errno."""
        return ioctls.attempt(self.fd, ioctls.CHECK_EXTENSION, capability)

    def enable_cap(self, capability: int, args: list[int], flags: int = 0) -> int:
        """KVM_ENABLE_CAP on the VM fd; negative: the errno."""
        return ioctls.attempt(self.fd, ioctls.ENABLE_CAP, ioctls.enable_cap(capability, args, flags))

    def set_msr_filter(self, wanted: MsrFilter) -> int:
        """KVM_X86_SET_MSR_FILTER; negative: the errno.  ValueError for more ranges than the structure holds."""
        if len(wanted.ranges) > ioctls.FILTER_RANGES:
            raise ValueError(f"{len(wanted.ranges)} ranges: the structure has room for {ioctls.FILTER_RANGES}")
        with contextlib.ExitStack() as bitmaps:
            ranges = []
            for entry in wanted.ranges:
                flags = (ioctls.FILTER_READ if entry.read else 0) | (ioctls.FILTER_WRITE if entry.write else 0)
                address = bitmaps.enter_context(placed(bitmap(entry.allow)))
                ranges.append((flags, entry.count, entry.base, address))
            packed = ioctls.msr_filter(not wanted.default_allow, ranges)
            return ioctls.attempt(self.fd, ioctls.X86_SET_MSR_FILTER, packed)

    def create_vcpu(self, number: int) -> int:
        """KVM_CREATE_VCPU and what makes it ready for 64-bit code; negative: the errno of the creation."""
        fd = ioctls.attempt(self.fd, ioctls.CREATE_VCPU, number)
        if fd < 0:
            return fd
        if len(self.vcpus) >= MOST_VCPUS:
            os.close(fd)
            raise GuestLost(f"the guest's memory has room for {MOST_VCPUS} vCPUs")
        try:
            self.vcpus[number] = Vcpu(self, fd, number, SLOTS + SLOT_SIZE * len(self.vcpus))
        except BaseException:
            os.close(fd)
            raise
        return 0

    def close(self) -> None:
        """Close vCPUs, VM and memory, in this order."""
        for vcpu in self.vcpus.values():
            vcpu.close()
        self.vcpus.clear()
        os.close(self.fd)
        self.memory.close()


class Vcpu:
    """A vCPU: its fd, the kvm_run page that it shares with the kernel, its slot in the guest's memory."""

    def __init__(self, vm: Vm, fd: int, number: int, slot: int) -> None:
        self.vm, self.fd, self.number, self.slot = vm, fd, number, slot
        self.exits = 0
        self.started = False  # whether the guest has asked for its first record
        self.read_at, self.write_at = LONG_CODE + LONG.labels["read"], LONG_CODE + LONG.labels["write"]
        self.shared = mmap.mmap(fd, vm.kvm.run_size)
        try:
            fcntl.ioctl(fd, ioctls.SET_CPUID2, bytearray(vm.kvm.supported_cpuid()))
            if vm.apic:
                fcntl.ioctl(fd, ioctls.SET_MP_STATE, struct.pack("<I", ioctls.MP_STATE_RUNNABLE))
            fcntl.ioctl(fd, ioctls.SET_SREGS, long_mode(self._get(ioctls.GET_SREGS, 312)))
            self.set_registers(LONG_CODE)
        except BaseException:
            self.shared.close()
            raise

    # ---- running

    def run(self) -> int:
        """KVM_RUN once, and the exit's reason; GuestLost at the time limit, or after too many exits."""
        limit = TimeLimit.active
        if limit is None:
            raise RuntimeError("KVM_RUN without a time limit")
        if self.exits >= MOST_EXITS:
            raise GuestLost(f"vCPU {self.number} made {self.exits} exits")
        self.exits += 1
        while True:
            try:
                fcntl.ioctl(self.fd, ioctls.RUN, 0)
            except InterruptedError:
                if limit.over:
                    raise GuestLost(f"vCPU {self.number} did not come back within {limit.seconds:g} s") from None
                continue
            reason: int = struct.unpack_from("<I", self.shared, ioctls.RUN_EXIT_REASON)[0]
            return reason

    def access(self, msr: int, write: bool, value: int = 0) -> Access | MsrExit:
        """Have the guest execute one RDMSR or WRMSR, up to its end or an exit for this MSR."""
        if not self.started:
            self._to_doorbell()
            self.started = True
        operation = guest_program.WRMSR if write else guest_program.RDMSR
        RECORD.pack_into(self.vm.memory, self.slot, operation, msr, value, 0, 0, 0, 0)
        return self.go_on()

    def go_on(self) -> Access | MsrExit:
        """Run up to the end of the access, or to an exit for an MSR."""
        reason = self.run()
        if reason in (ioctls.EXIT_RDMSR, ioctls.EXIT_WRMSR):
            _error, why, msr, data = ioctls.RUN_MSR.unpack_from(self.shared, ioctls.RUN_MSR_AT)
            return MsrExit(reason == ioctls.EXIT_WRMSR, why, msr, data)
        self._check_doorbell(reason)
        record = dict(zip(RECORD_FIELDS, RECORD.unpack_from(self.vm.memory, self.slot), strict=True))
        ended = Access(record["result"], record["vector"], record["error_code"], record["rip"])
        instruction = self.write_at if record["operation"] == guest_program.WRMSR else self.read_at
        if ended.vector and (ended.vector, ended.error_code, ended.rip) != (GP_VECTOR, 0, instruction):
            raise GuestLost(f"vCPU {self.number} took another fault than #GP(0) at {instruction:#x}: {ended}")
        return ended

    def exited_for_write(self) -> bool:
        """Whether the last exit was for a WRMSR."""
        return bool(struct.unpack_from("<I", self.shared, ioctls.RUN_EXIT_REASON)[0] == ioctls.EXIT_WRMSR)

    def reply(self, value: int, error: bool) -> None:
        """Answer the exit for an MSR; the next KVM_RUN completes it."""
        _error, why, msr, data = ioctls.RUN_MSR.unpack_from(self.shared, ioctls.RUN_MSR_AT)
        ioctls.RUN_MSR.pack_into(
            self.shared, ioctls.RUN_MSR_AT, error, why, msr, data if self.exited_for_write() else value)

    def init(self) -> None:
        """INIT and SIPI, as messages to the vCPU's local APIC; its program goes on in real mode."""
        fcntl.ioctl(self.fd, ioctls.SET_LAPIC, self._get(ioctls.GET_LAPIC, 1024))  # KVM then finds it by its number
        for data in (INIT_MESSAGE, SIPI_MESSAGE | STARTUP_VECTOR):
            if ioctls.attempt(self.vm.fd, ioctls.SIGNAL_MSI, ioctls.msi(self.number, data)) < 1:
                raise GuestLost(f"vCPU {self.number} did not take INIT and SIPI")
        self._to_doorbell()
        cr0 = struct.unpack_from("<Q", self._get(ioctls.GET_SREGS, 312), 224)[0]
        if cr0 & 1:
            raise GuestLost(f"vCPU {self.number} is not in real mode after INIT")
        rip = struct.unpack_from("<Q", self._get(ioctls.GET_REGS, 144), 128)[0]
        self.set_registers(rip)
        self.started = True
        self.read_at, self.write_at = REAL.labels["read"], REAL.labels["write"]  # CS is based at the program

    def _to_doorbell(self) -> None:
        self._check_doorbell(self.run())

    def _check_doorbell(self, reason: int) -> None:
        port = struct.unpack_from("<H", self.shared, ioctls.RUN_IO_PORT)[0]
        if reason != ioctls.EXIT_IO or port != guest_program.DOORBELL:
            raise GuestLost(f"vCPU {self.number} left its program: exit reason {reason}")

    # ---- state

    def set_registers(self, rip: int) -> None:
        """Begin or go on at ``rip``, with the slot's record and stack."""
        registers = [0] * 18
        registers[4], registers[6] = self.slot, self.slot + SLOT_SIZE  # RSI, RSP
        registers[16], registers[17] = rip, 0x2  # RIP, RFLAGS
        fcntl.ioctl(self.fd, ioctls.SET_REGS, struct.pack("<18Q", *registers))

    def get_msrs(self, msrs: tuple[int, ...]) -> list[int]:
        """KVM_GET_MSRS: the values up to the first MSR that is refused."""
        return read_msrs(self.fd, msrs)

    def set_msrs(self, pairs: tuple[tuple[int, int], ...]) -> int:
        """KVM_SET_MSRS: how many were written, up to the first that is refused."""
        count: int = fcntl.ioctl(self.fd, ioctls.SET_MSRS, ioctls.msr_list(pairs))
        return count

    def enable_cap(self, capability: int, args: list[int], flags: int = 0) -> int:
        """KVM_ENABLE_CAP on the vCPU fd; negative: the errno."""
        return ioctls.attempt(self.fd, ioctls.ENABLE_CAP, ioctls.enable_cap(capability, args, flags))

    def copy_state(self, source: "Vcpu") -> None:
        """Take over registers and pending events of another vCPU, as a migration does; no MSR."""
        for read, write, size in (
            (ioctls.GET_SREGS, ioctls.SET_SREGS, 312),
            (ioctls.GET_REGS, ioctls.SET_REGS, 144),
            (ioctls.GET_VCPU_EVENTS, ioctls.SET_VCPU_EVENTS, 64),
        ):
            fcntl.ioctl(self.fd, write, bytes(source._get(read, size)))
        self.started, self.read_at, self.write_at = source.started, source.read_at, source.write_at

    def _get(self, request: int, size: int) -> bytearray:
        buffer = bytearray(size)
        fcntl.ioctl(self.fd, request, buffer)
        return buffer

    def close(self) -> None:
        """Close the shared page, then the fd."""
        self.shared.close()
        os.close(self.fd)


# ---- memory

def fill(memory: mmap.mmap) -> None:
    """Write what the guest needs: page tables, GDT, IDT, interrupt vector table, both programs."""
    memory[REAL_CODE:REAL_CODE + len(REAL.code)] = REAL.code
    memory[LONG_CODE:LONG_CODE + len(LONG.code)] = LONG.code
    present_writable, big = 0x3, 0x80
    entries = {  # 64-bit words of the page tables and the GDT, by address
        PAGE_TABLES: PAGE_TABLES + 0x1000 | present_writable,
        PAGE_TABLES + 0x1000: PAGE_TABLES + 0x2000 | present_writable,
        PAGE_TABLES + 0x2000: 0 | present_writable | big,  # all of the memory, at its own address
        GDT + CODE_SELECTOR: 0x00AF_9B00_0000_FFFF,
        GDT + DATA_SELECTOR: 0x00CF_9300_0000_FFFF,
    }
    for address, entry in entries.items():
        struct.pack_into("<Q", memory, address, entry)
    interrupt_gate, handler = 0x8E00, LONG_CODE + LONG.labels["fault"]
    struct.pack_into("<HHHHII", memory, IDT + 16 * GP_VECTOR, handler, CODE_SELECTOR, interrupt_gate, 0, 0, 0)
    struct.pack_into("<HH", memory, 4 * GP_VECTOR, REAL_CODE + REAL.labels["fault"], 0)  # vector table: IP, CS


def long_mode(sregs: bytearray) -> bytes:
    """Change struct kvm_sregs for 64-bit code with paging; what is not named stays as it was."""
    changed = bytearray(sregs)
    code = (0, 0xFFFF_FFFF, CODE_SELECTOR, 11, 1, 0, 0, 1, 1, 1, 0, 0, 0)
    data = (0, 0xFFFF_FFFF, DATA_SELECTOR, 3, 1, 0, 1, 1, 0, 1, 0, 0, 0)
    for position, segment in enumerate((code, data, data, data, data, data)):  # cs ds es fs gs ss
        ioctls.SEGMENT.pack_into(changed, ioctls.SEGMENT.size * position, *segment)
    ioctls.TABLE.pack_into(changed, 192, GDT, 0x17)
    ioctls.TABLE.pack_into(changed, 208, IDT, 16 * 32 - 1)
    cr0, cr4, efer = 0x8005_0033, 0x6A0, 0x500
    struct.pack_into("<QQQQ", changed, 224, cr0, 0, PAGE_TABLES, cr4)  # cr0 cr2 cr3 cr4
    struct.pack_into("<Q", changed, 264, efer)
    return bytes(changed)


def bitmap(allow: tuple[bool, ...]) -> bytes:
    """One bit for each MSR, the first in bit 0 of the first byte.

    >>> bitmap((True, False, True)).hex()
    '05'
    """
    word = sum(1 << place for place, allowed in enumerate(allow) if allowed)
    return word.to_bytes((len(allow) + 7) // 8, "little")


@contextlib.contextmanager
def placed(content: bytes) -> Iterator[int]:
    """The address of a copy of ``content``, while the context lasts."""
    buffer = ctypes.create_string_buffer(content, max(1, len(content)))
    yield ctypes.addressof(buffer)


def address_of(memory: mmap.mmap) -> int:
    """Where the mapping lies in this process."""
    view = ctypes.c_char.from_buffer(memory)
    address = ctypes.addressof(view)
    del view  # a view that is left would keep the mapping from being closed
    return address
