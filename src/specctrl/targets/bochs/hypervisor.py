"""The smallest hypervisor on Bochs' processor: it enters a guest that executes one access of IA32_SPEC_CTRL.

Many logical processors take turns on the one that Bochs has: each keeps its value of the MSR while another runs.
Each VMCS of the emulator has a VMCS region of its own here.
"""

from collections.abc import Mapping
from typing import Any

from specctrl.targets.bochs.cpu import (
    CR0,
    CR4,
    CS,
    DATA,
    EFER,
    OPERAND,
    PAGE,
    PML4,
    STACK,
    STOP,
    TASK,
    Cpu,
    RootFault,
    Stuck,
)

SPEC_CTRL = 0x48
FEATURE_CONTROL, VMX_ON = 0x3A, 5  # IA32_FEATURE_CONTROL: locked, VMX outside SMX
VMX_BASIC, TERTIARY_CONTROLS_MSR = 0x480, 0x492
SECONDARY_EXIT_CONTROLS_MSR = 0x493
CONTROLS_MSRS = {"pin": 0x48D, "primary": 0x48E, "exit": 0x48F, "entry": 0x490}  # low half must be 1, high may be 1

ACTIVATE_TERTIARY, USE_MSR_BITMAP = 1 << 17, 1 << 28  # primary processor-based controls
VIRTUALIZE_SPEC_CTRL = 1 << 7  # tertiary ones
HOST_64_BIT, SAVE_EFER, LOAD_EFER = 1 << 9, 1 << 20, 1 << 21  # VM-exit controls
ACTIVATE_SECONDARY_EXIT = 1 << 31  # one more of them
LOAD_HOST_SPEC_CTRL = 1 << 2  # secondary VM-exit controls: "load IA32_SPEC_CTRL"
GUEST_64_BIT, ENTRY_LOAD_EFER = 1 << 9, 1 << 15  # VM-entry controls
LOAD_GUEST_SPEC_CTRL = 1 << 24  # one more of them: "load IA32_SPEC_CTRL"

VMXON_REGION, MSR_BITMAP, GUEST_CODE, GUEST_STACK = 0x8000, 0x9000, 0xA000, 0xC000
EXIT_STORE_AREA, EXIT_LOAD_AREA, ENTRY_LOAD_AREA = 0xD000, 0xD100, 0xD200
FIRST_VMCS = 0x10_0000

GUEST_PROGRAMS = {
    "rdmsr": b"\x0f\x32",
    "wrmsr": b"\x0f\x30",
    "wrmsr, rdmsr": b"\x0f\x30\x0f\x32",
    "nothing": b"",
}
VMCALL = b"\x0f\x01\xc1"  # each program ends with it, and so exits

PIN, PRIMARY, TERTIARY, EXCEPTIONS = 0x4000, 0x4002, 0x2034, 0x4004
EXIT_CONTROLS, SECONDARY_EXIT_CONTROLS, ENTRY_CONTROLS = 0x400C, 0x2044, 0x4012
EXIT_STORE_COUNT, EXIT_LOAD_COUNT, ENTRY_LOAD_COUNT = 0x400E, 0x4010, 0x4014
INSTRUCTION_ERROR, EXIT_REASON, EXIT_INTERRUPTION = 0x4400, 0x4402, 0x4404
GUEST_RIP = 0x681E

STATE = {
    EXCEPTIONS: 0xFFFF_FFFF,  # every exception of the guest exits
    0x4006: 0, 0x4008: 0, 0x400A: 0,  # page faults are no special case; no CR3 target
    EXIT_STORE_COUNT: 0, EXIT_LOAD_COUNT: 0, ENTRY_LOAD_COUNT: 0,
    0x4016: 0, 0x4018: 0, 0x401A: 0,  # nothing is injected at entry
    0x2004: MSR_BITMAP, 0x2006: EXIT_STORE_AREA, 0x2008: EXIT_LOAD_AREA, 0x200A: ENTRY_LOAD_AREA,
    0x2800: (1 << 64) - 1,  # no VMCS is linked
    0x6000: 0, 0x6002: 0, 0x6004: 0, 0x6006: 0,  # CR0 and CR4 are the guest's own
    # the guest: control registers, debug register, stack, flags, EFER; no pending event
    0x6800: CR0, 0x6802: PML4, 0x6804: CR4, 0x681A: 0x400, 0x681C: GUEST_STACK, 0x6820: 2, 0x2806: EFER,
    0x4810: 0xFFFF, 0x4812: 0xFFFF, 0x6816: 0, 0x6818: 0,  # GDTR, IDTR
    0x4824: 0, 0x4826: 0, 0x482A: 0, 0x6822: 0, 0x6824: 0, 0x6826: 0, 0x2802: 0,
    # the host: the same, and it goes on at STOP
    0x6C00: CR0, 0x6C02: PML4, 0x6C04: CR4, 0x6C14: STACK, 0x6C16: STOP, 0x2C02: EFER,
    0x4C00: 0, 0x6C06: 0, 0x6C08: 0, 0x6C0A: 0, 0x6C0C: 0, 0x6C0E: 0, 0x6C10: 0, 0x6C12: 0,
}
"""What every VMCS has: field and value (SDM vol. 3, appendix B)."""
SEGMENTS = ((DATA, 0xC093), (CS, 0xA09B), (DATA, 0xC093), (DATA, 0xC093), (DATA, 0xC093), (DATA, 0xC093),
            (0, 0x1_0000), (TASK, 0x8B))
"""The guest's ES, CS, SS, DS, FS, GS, LDTR (unusable) and TR: selector and access rights; the host's but for LDTR."""

Result = list[Any]
"""How an operation ended: ["ok"], ["value", n], ["#GP"], ["error", n], ["exit"], ["entry failed"]."""
OK: Result = ["ok"]


class Hypervisor:
    """VMX root operation, with its VMCS regions and logical processors."""

    def __init__(self, cpu: Cpu) -> None:
        self.cpu = cpu
        self.has_msr = self._has(SPEC_CTRL)
        self.tertiary = bool(cpu.rdmsr(CONTROLS_MSRS["primary"]) >> 32 & ACTIVATE_TERTIARY)
        self.has_control = self.tertiary and bool(cpu.rdmsr(TERTIARY_CONTROLS_MSR) & VIRTUALIZE_SPEC_CTRL)
        self.entry_controls = cpu.rdmsr(CONTROLS_MSRS["entry"]) >> 32
        secondary = cpu.rdmsr(CONTROLS_MSRS["exit"]) >> 32 & ACTIVATE_SECONDARY_EXIT
        self.secondary_exit_controls = cpu.rdmsr(SECONDARY_EXIT_CONTROLS_MSR) if secondary else None
        self.has_exit_load = bool((self.secondary_exit_controls or 0) & LOAD_HOST_SPEC_CTRL)
        self.parked: dict[int, int] = {}  # the MSR of each logical processor that does not run now
        self.running: int | None = None
        self.regions: dict[int, int] = {}  # of each VMCS
        self.launched: set[int] = set()
        self.current: int | None = None
        cpu.wrmsr(FEATURE_CONTROL, VMX_ON)
        self._revision(VMXON_REGION)
        self._must(self._pointed("vmxon", VMXON_REGION))
        cpu.write(MSR_BITMAP, bytes(PAGE))
        for number, code in enumerate(GUEST_PROGRAMS.values()):
            cpu.write(GUEST_CODE + 16 * number, code + VMCALL)
        self.starts = {name: GUEST_CODE + 16 * number for number, name in enumerate(GUEST_PROGRAMS)}

    def _has(self, msr: int) -> bool:
        try:
            self.cpu.rdmsr(msr)
        except RootFault:
            return False
        return True

    # ---- operations that the other side of the pipe asks for

    def describe(self) -> dict[str, Any]:
        """What the processor is: the MSR, the controls, and the CPUID registers that enumerate the MSR's bits.

        ``entry_controls``: the VM-entry controls that may be 1; ``secondary_exit_controls``: those, or null.
        """
        return {"has_msr": self.has_msr, "has_control": self.has_control,
                "has_entry_load": bool(self.entry_controls & LOAD_GUEST_SPEC_CTRL),
                "has_exit_load": self.has_exit_load, "entry_controls": self.entry_controls,
                "secondary_exit_controls": self.secondary_exit_controls,
                "cpuid_7_0_edx": self.cpu.cpuid(7, 0)[3], "cpuid_7_2_edx": self.cpu.cpuid(7, 2)[3]}

    def forget(self) -> Result:
        """Forget every logical processor and every VMCS."""
        for number in self.regions:
            self._must(self._pointed("vmclear", self.regions[number]))
        self.regions.clear()
        self.launched.clear()
        self.parked.clear()
        self.current = self.running = None
        return OK

    def rdmsr(self, processor: int) -> Result:
        """RDMSR of IA32_SPEC_CTRL in root operation."""
        self._run(processor)
        try:
            return ["value", self.cpu.rdmsr(SPEC_CTRL)]
        except RootFault as fault:
            return general_protection(fault)

    def wrmsr(self, processor: int, value: int) -> Result:
        """WRMSR of IA32_SPEC_CTRL in root operation."""
        self._run(processor)
        try:
            self.cpu.wrmsr(SPEC_CTRL, value)
        except RootFault as fault:
            return general_protection(fault)
        return OK

    def vmread(self, vmcs: int, field: int) -> Result:
        """VMREAD."""
        self._load(vmcs)
        cpu = self.cpu.execute("vmread", rbx=field, rax=0)
        return self._failure(cpu.r8) or ["value", int(cpu.rax)]

    def vmwrite(self, vmcs: int, field: int, value: int) -> Result:
        """VMWRITE."""
        self._load(vmcs)
        return self._vmwrite(field, value)

    def enter(self, processor: int, vmcs: int, program: str, value: int, controls: Mapping[str, Any]) -> Result:
        """VM entry, the guest's program with ``value`` in EDX:EAX, VM exit.

        ``controls``: ``virtualize``, ``activated`` (the tertiary controls), ``bitmap``, ``intercept_read``,
        ``intercept_write``, ``load_on_entry``, ``load_on_exit``, ``exit_store``; ``entry_load`` and ``exit_load``: a
        value in that MSR area, or null.
        The second item of the result is what the VM-exit MSR-store area received, or null.
        """
        self._run(processor)
        self._load(vmcs)
        self._set(controls)
        start = self.starts[program]
        self._must(self._vmwrite(GUEST_RIP, start))
        cpu = self.cpu.execute(
            "vmresume" if vmcs in self.launched else "vmlaunch", in_guest=True,
            rcx=SPEC_CTRL, rax=value & 0xFFFF_FFFF, rdx=value >> 32)
        failure = self._failure(cpu.r8)
        if failure is not None:
            return [failure, None]
        answer = int((cpu.rdx & 0xFFFF_FFFF) << 32 | cpu.rax & 0xFFFF_FFFF)
        outcome = self._outcome(program, start, answer)
        if outcome != ["entry failed"]:
            self.launched.add(vmcs)
        stored = int.from_bytes(self.cpu.read(EXIT_STORE_AREA + 8, 8), "little") if controls["exit_store"] else None
        return [outcome, stored]

    # ---- inside

    def _outcome(self, program: str, start: int, answer: int) -> Result:
        """Why the guest exited, or did not run."""
        reason, where = self._read(EXIT_REASON), self._read(GUEST_RIP)
        if reason == 1 << 31 | 34:
            return ["entry failed"]
        if reason == 18 and where == start + len(GUEST_PROGRAMS[program]):
            return ["value", answer] if program.endswith("rdmsr") else OK
        if reason == 0 and self._read(EXIT_INTERRUPTION) & 0xFF == 13 and where == start:
            return ["#GP"]
        if (reason, program) in ((31, "rdmsr"), (32, "wrmsr")) and where == start:
            return ["exit"]
        raise Stuck(f"a guest that executes {program} exits for the reason {reason:#x} at {where - start:+}")

    def _run(self, processor: int) -> None:
        """Give the processor that Bochs has to this logical one."""
        if self.running == processor or not self.has_msr:
            return
        if self.running is not None:
            self.parked[self.running] = self.cpu.rdmsr(SPEC_CTRL)
        self.cpu.wrmsr(SPEC_CTRL, self.parked.get(processor, 0))
        self.running = processor

    def _load(self, vmcs: int) -> None:
        """Make a VMCS the current one; a new one is initialised."""
        if self.current == vmcs:
            return
        self.current = vmcs
        if vmcs in self.regions:
            self._must(self._pointed("vmptrld", self.regions[vmcs]))
            return
        region = FIRST_VMCS + PAGE * len(self.regions)
        self.regions[vmcs] = region
        self._revision(region)
        self._must(self._pointed("vmclear", region))
        self._must(self._pointed("vmptrld", region))
        for field, value in STATE.items():
            self._must(self._vmwrite(field, value))
        for number, (selector, rights) in enumerate(SEGMENTS):
            guest = {0x800: selector, 0x4800: 0x67 if selector == TASK else 0xFFFF_FFFF, 0x4814: rights, 0x6806: 0}
            for field, value in guest.items():
                self._must(self._vmwrite(field + 2 * number, value))
        for number, selector in enumerate(one for one, _ in SEGMENTS if one):
            self._must(self._vmwrite(0xC00 + 2 * number, selector))
        self._must(self._vmwrite(PIN, self._allowed("pin", 0)))

    def _allowed(self, which: str, wanted: int) -> int:
        """The wanted controls and those that must be 1."""
        return wanted | self.cpu.rdmsr(CONTROLS_MSRS[which]) & 0xFFFF_FFFF

    def _set(self, controls: Mapping[str, Any]) -> None:
        """Controls, bitmap and areas of the current VMCS."""
        activate = controls["virtualize"] and controls["activated"]
        primary = (ACTIVATE_TERTIARY if activate else 0) | (USE_MSR_BITMAP if controls["bitmap"] else 0)
        self._must(self._vmwrite(PRIMARY, self._allowed("primary", primary)))
        if self.tertiary:
            self._must(self._vmwrite(TERTIARY, VIRTUALIZE_SPEC_CTRL if controls["virtualize"] else 0))
        leave, come = HOST_64_BIT | SAVE_EFER | LOAD_EFER, GUEST_64_BIT | ENTRY_LOAD_EFER
        if controls["load_on_exit"]:
            leave |= ACTIVATE_SECONDARY_EXIT
        if controls["load_on_entry"]:
            come |= LOAD_GUEST_SPEC_CTRL
        self._must(self._vmwrite(EXIT_CONTROLS, self._allowed("exit", leave)))
        self._must(self._vmwrite(ENTRY_CONTROLS, self._allowed("entry", come)))
        if self.secondary_exit_controls is not None:
            load = LOAD_HOST_SPEC_CTRL if controls["load_on_exit"] else 0
            self._must(self._vmwrite(SECONDARY_EXIT_CONTROLS, load))
        byte, bit = SPEC_CTRL >> 3, 1 << (SPEC_CTRL & 7)
        self.cpu.write(MSR_BITMAP + byte, bytes([bit if controls["intercept_read"] else 0]))
        self.cpu.write(MSR_BITMAP + 0x800 + byte, bytes([bit if controls["intercept_write"] else 0]))
        areas = {
            (ENTRY_LOAD_COUNT, ENTRY_LOAD_AREA): controls["entry_load"],
            (EXIT_STORE_COUNT, EXIT_STORE_AREA): 0 if controls["exit_store"] else None,
            (EXIT_LOAD_COUNT, EXIT_LOAD_AREA): controls["exit_load"],
        }
        for (count, area), value in areas.items():
            self._must(self._vmwrite(count, 0 if value is None else 1))
            if value is not None:
                self.cpu.write(area, SPEC_CTRL.to_bytes(8, "little") + value.to_bytes(8, "little"))

    def _vmwrite(self, field: int, value: int) -> Result:
        return self._failure(self.cpu.execute("vmwrite", rbx=field, rax=value).r8) or OK

    def _read(self, field: int) -> int:
        cpu = self.cpu.execute("vmread", rbx=field, rax=0)
        self._must(self._failure(cpu.r8) or OK)
        return int(cpu.rax)

    def _pointed(self, instruction: str, address: int) -> Result:
        self.cpu.write(OPERAND, address.to_bytes(8, "little"))
        return self._failure(self.cpu.execute(instruction, rax=OPERAND).r8) or OK

    def _revision(self, region: int) -> None:
        revision = self.cpu.rdmsr(VMX_BASIC) & 0x7FFF_FFFF
        self.cpu.write(region, revision.to_bytes(4, "little") + bytes(PAGE - 4))

    def _failure(self, flags: int) -> Result | None:
        """VMfail, with the VM-instruction error; None after VMsucceed."""
        carry, zero = 1, 1 << 6
        if flags & carry:
            raise Stuck("a VMX instruction failed without a current VMCS")
        return ["error", self._read(INSTRUCTION_ERROR)] if flags & zero else None

    def _must(self, result: Result) -> None:
        if result != OK:
            raise Stuck(f"a VMX instruction failed: {result}")


def general_protection(fault: RootFault) -> Result:
    """#GP in root operation; Stuck for another exception."""
    if fault.vector != 13:
        raise Stuck(f"an access of the MSR took exception {fault.vector}")
    return ["#GP"]
