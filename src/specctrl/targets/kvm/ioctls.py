"""KVM's ioctls and structures as far as the mini VMM uses them: numbers, sizes, how they are packed.

Source: Linux, include/uapi/linux/kvm.h and arch/x86/include/uapi/asm/kvm.h.
"""

import errno
import fcntl
import struct
from collections.abc import Iterable

KVMIO = 0xAE
_NONE, _WRITE, _READ = 0, 1, 2


def number(direction: int, nr: int, size: int = 0) -> int:
    """The number of an ioctl: direction in bits 31:30, size in 29:16, KVM's group in 15:8, ``nr`` in 7:0."""
    return direction << 30 | size << 16 | KVMIO << 8 | nr


# On /dev/kvm.
GET_API_VERSION = number(_NONE, 0x00)
CREATE_VM = number(_NONE, 0x01)
GET_MSR_INDEX_LIST = number(_READ | _WRITE, 0x02, 4)
CHECK_EXTENSION = number(_NONE, 0x03)
GET_VCPU_MMAP_SIZE = number(_NONE, 0x04)
GET_SUPPORTED_CPUID = number(_READ | _WRITE, 0x05, 8)
GET_MSR_FEATURE_INDEX_LIST = number(_READ | _WRITE, 0x0A, 4)

# On a VM.
CREATE_VCPU = number(_NONE, 0x41)
SET_USER_MEMORY_REGION = number(_WRITE, 0x46, 32)
SET_BOOT_CPU_ID = number(_NONE, 0x78)
SIGNAL_MSI = number(_WRITE, 0xA5, 32)
X86_SET_MSR_FILTER = number(_WRITE, 0xC6, 392)

# On a vCPU; KVM_ENABLE_CAP and KVM_GET_MSRS on others too.
RUN = number(_NONE, 0x80)
GET_REGS = number(_READ, 0x81, 144)
SET_REGS = number(_WRITE, 0x82, 144)
GET_SREGS = number(_READ, 0x83, 312)
SET_SREGS = number(_WRITE, 0x84, 312)
GET_MSRS = number(_READ | _WRITE, 0x88, 8)
SET_MSRS = number(_WRITE, 0x89, 8)
GET_LAPIC = number(_READ, 0x8E, 1024)
SET_LAPIC = number(_WRITE, 0x8F, 1024)
SET_CPUID2 = number(_WRITE, 0x90, 8)
GET_CPUID2 = number(_READ | _WRITE, 0x91, 8)
SET_MP_STATE = number(_WRITE, 0x99, 4)
GET_VCPU_EVENTS = number(_READ, 0x9F, 64)
SET_VCPU_EVENTS = number(_WRITE, 0xA0, 64)
ENABLE_CAP = number(_WRITE, 0xA3, 104)

EXIT_IO, EXIT_RDMSR, EXIT_WRMSR = 2, 29, 30
CAP_MAX_VCPU_ID = 128
CAP_SPLIT_IRQCHIP = 121
MP_STATE_RUNNABLE = 0

RUN_EXIT_REASON = 8
"""Where struct kvm_run has ``exit_reason``."""
RUN_IO_PORT = 34
"""Where it has ``io.port``."""
RUN_MSR = struct.Struct("<B7xIIQ")
"""``msr`` of struct kvm_run: error, reason, index, data."""
RUN_MSR_AT = 32
SEGMENT = struct.Struct("<QIHBBBBBBBBBB")
"""struct kvm_segment: base, limit, selector, type, present, dpl, db, s, l, g, avl, unusable, padding."""
TABLE = struct.Struct("<QH6x")
"""struct kvm_dtable: base, limit."""
CPUID_ENTRY = struct.Struct("<7I12x")
"""struct kvm_cpuid_entry2: function, index, flags, EAX, EBX, ECX, EDX."""
_FILTER_RANGE = struct.Struct("<III4xQ")
FILTER_READ, FILTER_WRITE, FILTER_DEFAULT_DENY = 1, 2, 1
FILTER_RANGES = 16


def enable_cap(capability: int, args: Iterable[int], flags: int = 0) -> bytes:
    """Pack struct kvm_enable_cap; missing arguments are 0.

    >>> enable_cap(188, [4])[:16].hex(" ", 4)
    'bc000000 00000000 04000000 00000000'
    """
    padded = [*args, 0, 0, 0, 0][:4]
    return struct.pack("<II4Q64x", capability, flags, *padded)


def msr_filter(default_deny: bool, ranges: Iterable[tuple[int, int, int, int]]) -> bytes:
    """Pack struct kvm_msr_filter; a range is (flags, number of MSRs, first MSR, address of its bitmap)."""
    packed = struct.pack("<I4x", FILTER_DEFAULT_DENY if default_deny else 0)
    for entry in ranges:
        packed += _FILTER_RANGE.pack(*entry)
    return packed.ljust(392, b"\0")


def memory_region(address: int, size: int) -> bytes:
    """Pack struct kvm_userspace_memory_region: slot 0, from guest address 0 on."""
    return struct.pack("<IIQQQ", 0, 0, 0, size, address)


def msi(apic: int, data: int) -> bytes:
    """Pack struct kvm_msi: a message to one local APIC."""
    return struct.pack("<IIIII12x", 0xFEE0_0000 | apic << 12, 0, data, 0, 0)


def msr_list(pairs: Iterable[tuple[int, int]]) -> bytearray:
    """Pack struct kvm_msrs: pairs of an MSR and a value.

    >>> bytes(msr_list([(0x48, 0x1)])).hex(" ", 4)
    '01000000 00000000 48000000 00000000 01000000 00000000'
    """
    entries = [struct.pack("<I4xQ", msr, value) for msr, value in pairs]
    return bytearray(struct.pack("<I4x", len(entries)) + b"".join(entries))


def msr_values(buffer: bytes | bytearray, count: int) -> list[int]:
    """The first values of struct kvm_msrs."""
    return [struct.unpack_from("<Q", buffer, 8 + 16 * entry + 8)[0] for entry in range(count)]


def attempt(fd: int, request: int, argument: int | bytes | bytearray = 0) -> int:
    """Perform an ioctl and return its result, 0 or more; or, negative, the errno with which it failed.

    A bytearray is filled in place.
    """
    try:
        # Of bytes Python would make a copy and return that instead of the ioctl's result.
        return fcntl.ioctl(fd, request, bytearray(argument) if isinstance(argument, bytes) else argument)
    except OSError as error:
        return -(error.errno or errno.EIO)


def name_of(number: int) -> str:
    """The name of an errno; those that only the kernel has, such as 524, have none.

    >>> name_of(errno.EINVAL), name_of(524)
    ('EINVAL', 'E524')
    """
    return errno.errorcode.get(number, f"E{number}")


def index_list(kvm: int, request: int) -> tuple[int, ...]:
    """KVM_GET_MSR_INDEX_LIST or KVM_GET_MSR_FEATURE_INDEX_LIST, on the fd of ``/dev/kvm``."""
    room = 0
    while True:
        buffer = bytearray(struct.pack("<I", room) + bytes(4 * room))
        result = attempt(kvm, request, buffer)
        found: int = struct.unpack_from("<I", buffer)[0]
        if result == 0:
            return struct.unpack_from(f"<{found}I", buffer, 4)
        if result != -errno.E2BIG or found <= room:
            raise OSError(-result, "the list of MSRs cannot be read")
        room = found
