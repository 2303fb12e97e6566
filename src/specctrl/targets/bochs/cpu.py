"""Bochs' processor in this process: it executes one instruction in VMX root operation at a time.

Only the child process of :mod:`specctrl.targets.bochs.serve` imports this.  A process can have one processor, of one
model; a second one crashes.
"""

import ctypes
import os
from importlib import import_module
from pathlib import Path
from typing import Any

from specctrl.targets.bochs.models import MODELS

PAGE = 0x1000
GIGABYTE = 1 << 30
PML4, PAGE_DIRECTORY_POINTERS = 0x1000, 0x2000
"""Page tables: they map the first gigabyte of addresses to itself, with one large page."""
ROOT_CODE, STOP, OPERAND, STACK = 0x3000, 0x4000, 0x5000, 0x7000
"""Instructions of root operation; where they end and a VM exit arrives; a pointer for VMXON and others; a stack."""

INSTRUCTIONS = {
    "cpuid": b"\x0f\xa2",
    "rdmsr": b"\x0f\x32",
    "wrmsr": b"\x0f\x30",
    "vmxon": b"\xf3\x0f\xc7\x30",  # its operand is the pointer at [rax]
    "vmclear": b"\x66\x0f\xc7\x30",  # [rax]
    "vmptrld": b"\x0f\xc7\x30",  # [rax]
    "vmwrite": b"\x0f\x79\xd8",  # field rbx, value rax
    "vmread": b"\x0f\x78\xd8",  # field rbx, into rax
    "vmlaunch": b"\x0f\x01\xc2",
    "vmresume": b"\x0f\x01\xc3",
}
FLAGS_INTO_R8 = b"\x9c\x41\x58"  # pushfq; pop r8: Bochs computes flags late, so only an instruction can tell them
LONGEST = 50
"""Instructions that one call may execute; a processor that goes on is stuck."""

CS, DATA, TASK = 8, 16, 24  # selectors; no descriptor table stands behind them

CR0, CR4, EFER = 0x8000_0031, 1 << 13 | 1 << 5, 0x500  # paging and protection; VMX and PAE; long mode


class Stuck(Exception):
    """The processor did something that this program does not understand; the message says what."""


class RootFault(Exception):
    """The instruction takes an exception in root operation."""

    def __init__(self, vector: int) -> None:
        super().__init__(vector)
        self.vector = vector


class Cpu:
    """A processor in long mode at CPL 0, and the memory that it uses."""

    def __init__(self, model: str, shim: str) -> None:
        self.bochs = load(shim)
        self.memory = import_module("bochscpu.memory")
        choose(self.bochs, model)
        self.session: Any = self.bochs.Session()
        self.session.missing_page_handler = self._new_page
        self.hook: Any = self.bochs.Hook()
        self.hook.before_execution = self._count
        self.hook.exception = self._exception
        self.vector: int | None = None
        self.executed = 0
        self.in_guest = False
        self._pages_and_code()
        self._long_mode()
        signature = self.cpuid(1)[0]
        if signature != MODELS[model].signature:
            raise Stuck(f"model {MODELS[model].number} says CPUID signature {signature:#x}: it is not {model}")

    # ---- memory

    def write(self, address: int, content: bytes) -> None:
        """Write memory."""
        for page in range(address & -PAGE, address + len(content), PAGE):
            if page not in self.pages:
                self._new_page(page)
        self.memory.phy_write(address, list(content))

    def read(self, address: int, length: int) -> bytes:
        """Read memory."""
        return bytes(self.memory.phy_read(address, length))

    def _new_page(self, address: int) -> None:
        page = address & -PAGE
        if not 0 <= page < GIGABYTE:
            raise Stuck(f"address {address:#x} is no memory")
        self.pages.add(page)
        self.memory.page_insert(page, self.memory.allocate_host_page())

    def _pages_and_code(self) -> None:
        self.pages: set[int] = set()
        present, writable, large = 1, 2, 0x80
        self.write(PML4, (PAGE_DIRECTORY_POINTERS | present | writable).to_bytes(8, "little"))
        self.write(PAGE_DIRECTORY_POINTERS, (present | writable | large).to_bytes(8, "little"))
        self.write(STOP, b"\x90" * 16)
        self.write(STACK - 8, bytes(8))
        self.at: dict[str, int] = {}
        place = ROOT_CODE
        for name, code in INSTRUCTIONS.items():
            code += FLAGS_INTO_R8
            jump = STOP - (place + len(code) + 5)
            self.write(place, code + b"\xe9" + jump.to_bytes(4, "little", signed=True))
            self.at[name] = place
            place += 32

    # ---- execution

    def _long_mode(self) -> None:
        state: Any = self.bochs.State()
        self.bochs.cpu.set_long_mode(state)
        state.cr0, state.cr3, state.cr4, state.efer = CR0, PML4, CR4, EFER
        state.rflags, state.rip, state.rsp = 2, STOP, STACK
        state.cs = self._segment(CS, 0xA09B)
        for name in ("ds", "es", "ss", "fs", "gs"):
            setattr(state, name, self._segment(DATA, 0xC093))
        state.tr = self._segment(TASK, 0x8B, limit=0x67)
        self.session.cpu.state = state

    def _segment(self, selector: int, attributes: int, limit: int = 0xFFFF_FFFF) -> Any:
        segment: Any = self.bochs.Segment()
        segment.present, segment.selector, segment.base = True, selector, 0
        segment.limit, segment.attr = limit, attributes
        return segment

    def _count(self, session: Any, _cpu: int, _instruction: Any) -> None:
        self.executed += 1
        if session.cpu.rip == STOP or self.executed > LONGEST:
            session.stop()

    def _exception(self, session: Any, _cpu: int, vector: int, _error: int) -> None:
        if not self.in_guest:  # a guest's exception is a VM exit: the processor goes on to STOP
            self.vector = int(vector)
            session.stop()

    def execute(self, name: str, in_guest: bool = False, **registers: int) -> Any:
        """Execute one instruction, and the guest that it enters; returns the registers after it.

        RootFault if it takes an exception in root operation, Stuck if it does not end.
        """
        cpu = self.session.cpu
        for register, value in registers.items():
            setattr(cpu, register, value)
        cpu.r8, cpu.rip = 0, self.at[name]
        self.vector, self.executed, self.in_guest = None, 0, in_guest
        self.session.run([self.hook])
        if self.vector is not None:
            raise RootFault(self.vector)
        if self.executed > LONGEST:
            raise Stuck(f"{name} did not come to its end")
        return cpu

    def cpuid(self, leaf: int, subleaf: int = 0) -> tuple[int, int, int, int]:
        """CPUID: EAX, EBX, ECX, EDX."""
        cpu = self.execute("cpuid", rax=leaf, rcx=subleaf)
        return cpu.rax & 0xFFFF_FFFF, cpu.rbx & 0xFFFF_FFFF, cpu.rcx & 0xFFFF_FFFF, cpu.rdx & 0xFFFF_FFFF

    def rdmsr(self, msr: int) -> int:
        """RDMSR in root operation."""
        cpu = self.execute("rdmsr", rcx=msr)
        return int((cpu.rdx & 0xFFFF_FFFF) << 32 | cpu.rax & 0xFFFF_FFFF)

    def wrmsr(self, msr: int, value: int) -> None:
        """WRMSR in root operation."""
        self.execute("wrmsr", rcx=msr, rax=value & 0xFFFF_FFFF, rdx=value >> 32)


def load(shim: str) -> Any:
    """The package bochscpu, after what it needs of other libraries."""
    ctypes.CDLL(shim, mode=ctypes.RTLD_GLOBAL)
    bochs = import_module("bochscpu")
    import_module("bochscpu.cpu")
    return bochs


def choose(bochs: Any, model: str) -> None:
    """Set the parameters of Bochs that the package has no function for, through their C++ symbols.

    The processor's model; and that an MSR which the model does not have is #GP, instead of one that takes everything.
    """
    library = ctypes.CDLL(str(next(Path(bochs.__file__).parent.glob("_bochscpu*.so"))))
    set_range, set_value = library._ZN14bx_param_num_c9set_rangeEmm, library._ZN14bx_param_num_c3setEl
    set_range.argtypes = [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64]
    set_value.argtypes, set_value.restype = [ctypes.c_void_p, ctypes.c_int64], None
    chosen = _parameter(library._ZN13bx_real_sim_c14get_param_enumEPKcP10bx_param_c, b"cpu.model")
    set_range(chosen, 0, max(one.number for one in MODELS.values()))
    set_value(chosen, MODELS[model].number)
    set_value(_parameter(library._ZN13bx_real_sim_c14get_param_boolEPKcP10bx_param_c, b"cpu.ignore_bad_msrs"), 0)


def _parameter(get: Any, name: bytes) -> int:
    get.argtypes, get.restype = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p], ctypes.c_void_p
    found = get(None, name, None)
    if not found:
        raise Stuck(f"Bochs has no parameter {name.decode()}")
    return int(found)


def leave(status: int) -> None:
    """End the process at once: the package's own end crashes."""
    os._exit(status)
