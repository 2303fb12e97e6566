"""What an operation can end in, other than success.

Rule code raises these; they carry values, never text.
An outcome ends the operation, not the state: what was done before it stays done.
"""

import errno
from enum import Enum


class Outcome(Exception):
    """Base of everything that guest, userspace or host can observe instead of success."""


class Fault(Outcome):
    """The guest takes an exception; ``vector`` is its number (13 is #GP)."""

    def __init__(self, vector: int) -> None:
        super().__init__(vector)
        self.vector = vector


class HostFault(Outcome):
    """The hypervisor's own instruction faults: on real hardware, an oops of the host."""

    def __init__(self, vector: int) -> None:
        super().__init__(vector)
        self.vector = vector


class Errno(Outcome):
    """An ioctl fails; ``number`` is the positive errno, of which the name is printed: numbers differ among systems."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    def __str__(self) -> str:
        return errno.errorcode.get(self.number, str(self.number))


class ExitKind(Enum):
    """Which instruction KVM hands to userspace."""

    RDMSR = "rdmsr"
    WRMSR = "wrmsr"


class ExitReason(Enum):
    """Why KVM hands it over: the bits of KVM_CAP_X86_USER_SPACE_MSR."""

    INVAL = 1
    UNKNOWN = 2
    FILTER = 4


class UserspaceExit(Outcome):
    """KVM_RUN returns with KVM_EXIT_X86_RDMSR or KVM_EXIT_X86_WRMSR; the instruction waits for a reply."""

    def __init__(self, kind: ExitKind, reason: ExitReason, msr: int, value: int) -> None:
        super().__init__(kind, reason, msr, value)
        self.kind = kind
        self.reason = reason
        self.msr = msr
        self.value = value


class Reflected(Outcome):
    """L1 receives a VM exit instead; the instruction or event had no effect of its own."""


class Blocked(Outcome):
    """The event stays pending until the vCPU leaves VMX root operation or SMM."""


class NestedEntryFailed(Outcome):
    """L1's VM entry fails while its MSR-load list is performed; ``entry`` counts from 1."""

    def __init__(self, entry: int) -> None:
        super().__init__(entry)
        self.entry = entry


class VmxAbort(Outcome):
    """L1's VM exit cannot be completed: the vCPU shuts down."""


class VmExit(Exception):
    """The processor leaves non-root operation instead of executing the instruction (an MSR bitmap said so)."""


class VmxInstructionError(Exception):
    """A VMX instruction fails; ``number`` is the VM-instruction error (7 control, 8 host state, 12 no such field)."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class VmEntryFailed(Exception):
    """VM entry fails at a guest-state field (exit reason 33) or in the VM-entry MSR-load area (34); the host runs."""


class MsrRefused(Exception):
    """KVM does not perform an MSR access; ``reason`` decides whether userspace may take it over."""

    def __init__(self, reason: ExitReason) -> None:
        super().__init__(reason)
        self.reason = reason


class Misuse(Exception):
    """The history asks for something that cannot happen: an error of whoever wrote it, not an outcome."""


class Unsupported(Exception):
    """This implementation cannot perform or observe what is asked."""


GP = 13
"""Vector of the general-protection exception."""
