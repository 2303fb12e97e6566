"""What the guest executes: a loop that performs one RDMSR or WRMSR at a time, and a handler for #GP.

The loop asks for work by an OUT to :data:`DOORBELL`, an exit to the VMM.  The VMM writes a record into the guest's
memory, to which RSI points, and runs the vCPU on; the loop performs the access and writes the result.
A fault is delivered through the guest's own IDT, in real mode through its interrupt vector table, to a handler that
writes what it got into the record and returns behind the instruction.

The program uses integer instructions alone, so that it also runs where KVM emulates its guests.
"""

import struct
from dataclasses import dataclass

DOORBELL = 0x10
"""The port of the OUT by which the guest asks for work."""
RDMSR, WRMSR = 0, 1
"""What a record asks for."""
RECORD = struct.Struct("<IIQQI4xQQ")
"""A record: operation, MSR, value to write, value read, vector of the fault, its error code, its RIP."""
RECORD_FIELDS = ("operation", "msr", "value", "result", "vector", "error_code", "rip")
MSR_INSTRUCTION_BYTES = 2


@dataclass(frozen=True, slots=True)
class Line:
    """One instruction: its bytes in hex, how it is written, what it is for.

    A jump's last byte is the distance to the label named by ``to``, counted from the next instruction.
    """

    code: str
    text: str
    why: str
    label: str = ""
    to: str = ""


def _loop(wide: bool) -> tuple[Line, ...]:
    """The loop; in real mode each access to a 32-bit register has the operand-size prefix."""
    big = "" if wide else "66 "
    si = "rsi" if wide else "si"
    # ModRM bytes of [RSI+disp8] and [SI+disp8]: r/m is 6 in 64-bit mode, 4 in real mode.
    ecx, eax, edx = ("4e", "46", "56") if wide else ("4c", "44", "54")
    operation = "80 3e 01" if wide else "80 3c 01"
    return (
        Line("e6 10", "out 0x10, al", "ask the VMM for a record", label="next"),
        Line(f"{big}8b {ecx} 04", f"mov ecx, [{si}+4]", "the MSR"),
        Line(f"{big}8b {eax} 08", f"mov eax, [{si}+8]", "the value to write"),
        Line(f"{big}8b {edx} 0c", f"mov edx, [{si}+12]", ""),
        Line(operation, f"cmp byte [{si}], 1", "read or write?"),
        Line("74", "je write", "", to="write"),
        Line("0f 32", "rdmsr", "the access", label="read"),
        Line("eb", "jmp store", "", to="store"),
        Line("0f 30", "wrmsr", "the access", label="write"),
        Line(f"{big}89 {eax} 10", f"mov [{si}+16], eax", "the value read", label="store"),
        Line(f"{big}89 {edx} 14", f"mov [{si}+20], edx", ""),
        Line("eb", "jmp next", "", to="next"),
    )


LONG_MODE: tuple[Line, ...] = (
    *_loop(wide=True),
    Line("c7 46 18 0d 00 00 00", "mov dword [rsi+24], 13", "a #GP came", label="fault"),
    Line("8f 46 20", "pop qword [rsi+32]", "its error code"),
    Line("48 8b 1c 24", "mov rbx, [rsp]", "where it came"),
    Line("48 89 5e 28", "mov [rsi+40], rbx", ""),
    Line("48 83 04 24 02", "add qword [rsp], 2", "behind the instruction"),
    Line("48 cf", "iretq", ""),
)
"""The program in 64-bit mode; ``fault`` is the IDT's gate 13."""

REAL_MODE: tuple[Line, ...] = (
    *_loop(wide=False),
    Line("c7 44 18 0d 00", "mov word [si+24], 13", "a #GP came", label="fault"),
    Line("89 e5", "mov bp, sp", "no error code in real mode"),
    Line("8b 5e 00", "mov bx, [bp]", "where it came"),
    Line("89 5c 28", "mov [si+40], bx", ""),
    Line("83 46 00 02", "add word [bp], 2", "behind the instruction"),
    Line("cf", "iret", ""),
)
"""The program in real mode; ``fault`` is entry 13 of the interrupt vector table."""


@dataclass(frozen=True, slots=True)
class Program:
    """An assembled program: its bytes, and where each label is."""

    code: bytes
    labels: dict[str, int]


def assemble(lines: tuple[Line, ...]) -> Program:
    """Resolve the labels of a program; ValueError for a jump that is too long or has no goal.

    >>> assemble((Line("0f 32", "rdmsr", "", label="again"), Line("eb", "jmp again", "", to="again"))).code.hex(" ")
    '0f 32 eb fc'
    """
    labels, ends, at = {}, [], 0
    for line in lines:
        if line.label:
            labels[line.label] = at
        at += len(bytes.fromhex(line.code)) + (1 if line.to else 0)
        ends.append(at)
    code = b""
    for line, end in zip(lines, ends, strict=True):
        code += bytes.fromhex(line.code)
        if line.to:
            if line.to not in labels:
                raise ValueError(f"{line.text}: there is no label {line.to!r}")
            distance = labels[line.to] - end
            if not -128 <= distance <= 127:
                raise ValueError(f"{line.text}: {distance} bytes are too far for a short jump")
            code += struct.pack("<b", distance)
    return Program(code, labels)


def listing(lines: tuple[Line, ...], base: int) -> str:
    """The program as assemblers print it: address, bytes, label, instruction, reason.

    >>> print(listing((Line("0f 32", "rdmsr", "the access", label="read"),), 0x9000))
    9000  0f 32                 read:   rdmsr                     ; the access
    """
    code, rows, at = assemble(lines).code, [], 0
    for line in lines:
        length = len(bytes.fromhex(line.code)) + (1 if line.to else 0)
        label = f"{line.label}:" if line.label else ""
        why = f"; {line.why}" if line.why else ""
        rows.append(f"{base + at:04x}  {code[at:at + length].hex(' '):20}  {label:6}  {line.text:24}  {why}".rstrip())
        at += length
    return "\n".join(rows)
