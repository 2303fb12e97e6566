"""Every bit layout and number of the interface, once, as data; pages, decoder, drawings and C macros are made of it."""

from collections.abc import Iterator
from dataclasses import dataclass

from specctrl.model.words import WORD


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a register: bits ``low`` to ``low + width - 1``.

    ``exists_when`` names the CPU feature that makes the field exist ("" if it exists with the register),
    ``forceable_when`` the condition under which KVM_CAP_FORCE_SPEC_CTRL can force it to 1 ("" if never).
    """

    name: str
    low: int
    meaning: str
    source: str
    width: int = 1
    exists_when: str = ""
    forceable_when: str = ""

    @property
    def mask(self) -> int:
        """The field's bits, in place.

        >>> hex(REGISTERS["IA32_SPEC_CTRL"].field("BHI_DIS_S").mask)
        '0x400'
        """
        return ((1 << self.width) - 1) << self.low


@dataclass(frozen=True, slots=True)
class Decoded:
    """A register's value taken apart; made by :meth:`Register.decode`."""

    register: str
    value: int
    fields: dict[str, int]
    unknown: int

    def __repr__(self) -> str:
        names = [name if value == 1 else f"{name}={value:#x}" for name, value in self.fields.items() if value]
        if self.unknown:
            names.append(f"reserved {self.unknown:#x}")
        return f"{self.register} {self.value:#x} = {' | '.join(names) or '0'}"


@dataclass(frozen=True, slots=True)
class Register:
    """A 64-bit register (an MSR, a VMCS field) or a 32-bit CPUID output, as data."""

    name: str
    number: int
    kind: str
    title: str
    access: str
    reset: str
    source: str
    fields: tuple[Field, ...]
    width: int = 64

    def __iter__(self) -> Iterator[Field]:
        return iter(self.fields)

    @property
    def defined(self) -> int:
        """All bits that some field defines.

        >>> hex(REGISTERS["IA32_SPEC_CTRL"].defined)
        '0x5ff'
        """
        bits = 0
        for field in self.fields:
            bits |= field.mask
        return bits

    def field(self, name: str) -> Field:
        """The field of that name; KeyError names what exists.

        >>> REGISTERS["IA32_SPEC_CTRL"].field("RRSBA_DIS_S").low
        6
        """
        for field in self.fields:
            if field.name == name:
                return field
        known = ", ".join(field.name for field in self.fields)
        raise KeyError(f"{self.name} has no field {name!r}; it has {known}")

    def decode(self, value: int) -> Decoded:
        """Take ``value`` apart; ValueError if it does not fit the register's width.

        >>> REGISTERS["IA32_SPEC_CTRL"].decode(0x8000_0401)
        IA32_SPEC_CTRL 0x80000401 = IBRS | BHI_DIS_S | reserved 0x80000000
        """
        if not 0 <= value < 1 << self.width:
            raise ValueError(f"{value:#x} does not fit the {self.width} bits of {self.name}")
        fields = {field.name: (value & field.mask) >> field.low for field in self.fields}
        return Decoded(self.name, value, fields, value & ~self.defined)

    def encode(self, **values: int) -> int:
        """Put fields together; the rest is 0.  KeyError for an unknown field, ValueError for one too large.

        >>> hex(REGISTERS["IA32_SPEC_CTRL"].encode(IBRS=1, BHI_DIS_S=1))
        '0x401'
        """
        word = 0
        for name, value in values.items():
            field = self.field(name)
            if not 0 <= value < 1 << field.width:
                raise ValueError(f"{name}={value:#x} does not fit the field's {field.width} bit(s)")
            word |= value << field.low
        return word


_SDM_SPEC_CTRL = "SDM vol. 4, IA32_SPEC_CTRL; Intel, Branch History Injection page"
_RFC1 = "RFC v3 p1"

_SPEC_CTRL = Register(
    name="IA32_SPEC_CTRL",
    number=0x48,
    kind="MSR",
    title="Speculation control",
    access="read and write, by any software that runs at CPL 0",
    reset="0 at RESET; INIT leaves it, but KVM makes it 0",
    source=_SDM_SPEC_CTRL,
    fields=(
        Field("IBRS", 0, "indirect branch restricted speculation", _SDM_SPEC_CTRL,
              exists_when="SPEC_CTRL", forceable_when="always"),
        Field("STIBP", 1, "single thread indirect branch predictors", _SDM_SPEC_CTRL,
              exists_when="STIBP", forceable_when="STIBP"),
        Field("SSBD", 2, "speculative store bypass disable", _SDM_SPEC_CTRL,
              exists_when="SSBD", forceable_when="SSBD"),
        Field("IPRED_DIS_U", 3, "indirect predictor disable, CPL 3", _SDM_SPEC_CTRL, exists_when="IPRED_CTRL"),
        Field("IPRED_DIS_S", 4, "indirect predictor disable, CPL below 3", _SDM_SPEC_CTRL, exists_when="IPRED_CTRL"),
        Field("RRSBA_DIS_U", 5, "no alternate predictions for RET, CPL 3", _SDM_SPEC_CTRL, exists_when="RRSBA_CTRL"),
        Field("RRSBA_DIS_S", 6, "no alternate predictions for RET, CPL below 3", _SDM_SPEC_CTRL,
              exists_when="RRSBA_CTRL", forceable_when="RRSBA_CTRL and RRSBA"),
        Field("PSFD", 7, "fast store forwarding predictor disable", _SDM_SPEC_CTRL, exists_when="PSFD"),
        Field("DDPD_U", 8, "data dependent prefetcher disable, CPL 3", _SDM_SPEC_CTRL, exists_when="DDPD_U"),
        Field("BHI_DIS_S", 10, "branch history of lower privilege not used, CPL below 3", _SDM_SPEC_CTRL,
              exists_when="BHI_CTRL", forceable_when="BHI_CTRL"),
    ),
)

_ARCH_CAPABILITIES = Register(
    name="IA32_ARCH_CAPABILITIES",
    number=0x10A,
    kind="MSR",
    title="Architectural capabilities (only the bits that matter here)",
    access="read-only for guests; KVM_SET_MSRS until the first VM entry",
    reset="what the part enumerates",
    source="SDM vol. 4, IA32_ARCH_CAPABILITIES; RFC v3 p7 for bit 63",
    fields=(
        Field("RRSBA", 19, "RET may take an alternate prediction when the RSB underflows", "SDM vol. 4",
              exists_when="RRSBA"),
        Field("BHI_NO", 20, "not affected by branch history injection", "SDM vol. 4", exists_when="BHI_NO"),
        Field("ITS_NO", 62, "not affected by indirect target selection", "Linux 7.3.4, ARCH_CAP_ITS_NO"),
        Field("VIRTUAL_ENUM", 63, "MSR_VIRTUAL_ENUMERATION exists", "RFC v3 p7; set by hypervisors only"),
    ),
)

_VIRTUAL_ENUMERATION = Register(
    name="MSR_VIRTUAL_ENUMERATION",
    number=0x5000_0000,
    kind="MSR",
    title="Virtual enumeration",
    access="read-only for guests; KVM_SET_MSRS until the first VM entry",
    reset="0 in a new vCPU",
    source="RFC v3 p7, p8",
    fields=(
        Field("MITIGATION_CTRL_SUPPORT", 0, "MITIGATION_ENUM and MITIGATION_CTRL exist", "RFC v3 p8"),
    ),
)

_VIRTUAL_MITIGATION_ENUM = Register(
    name="MSR_VIRTUAL_MITIGATION_ENUM",
    number=0x5000_0001,
    kind="MSR",
    title="Virtual mitigation enumeration",
    access="read-only for guests; KVM_SET_MSRS until the first VM entry",
    reset="0 in a new vCPU",
    source="RFC v3 p8-p10",
    fields=(
        Field("BHB_CLEAR_SEQ_S_SUPPORT", 0, "a report of a BHB-clearing sequence is taken", "RFC v3 p9"),
        Field("RETPOLINE_S_SUPPORT", 1, "a report of retpoline is taken", "RFC v3 p10"),
    ),
)

_VIRTUAL_MITIGATION_CTRL = Register(
    name="MSR_VIRTUAL_MITIGATION_CTRL",
    number=0x5000_0002,
    kind="MSR",
    title="Virtual mitigation control: the guest's report",
    access="read and write",
    reset="0 in a new vCPU; at INIT see the rule init.report.withdrawn",
    source="RFC v3 p8-p10",
    fields=(
        Field("BHB_CLEAR_SEQ_S_USED", 0, "the guest's kernel relies on a BHB-clearing sequence", "RFC v3 p9"),
        Field("RETPOLINE_S_USED", 1, "the guest's kernel relies on retpoline", "RFC v3 p10"),
    ),
)

_SDM_CPUID = "SDM vol. 2, CPUID leaf 0x07"

_CPUID_7_0_EDX = Register(
    name="CPUID.(7,0):EDX", number=7, kind="CPUID",
    title="Structured extended features, subleaf 0 (only what matters here)",
    access="read-only", reset="what the part, or userspace for its guest, enumerates", source=_SDM_CPUID, width=32,
    fields=(
        Field("SPEC_CTRL", 26, "IA32_SPEC_CTRL with IBRS", _SDM_CPUID),
        Field("STIBP", 27, "IA32_SPEC_CTRL.STIBP", _SDM_CPUID),
        Field("ARCH_CAPABILITIES", 29, "IA32_ARCH_CAPABILITIES", _SDM_CPUID),
        Field("SSBD", 31, "IA32_SPEC_CTRL.SSBD", _SDM_CPUID),
    ),
)

_CPUID_7_2_EDX = Register(
    name="CPUID.(7,2):EDX", number=7, kind="CPUID",
    title="Structured extended features, subleaf 2 (only what matters here)",
    access="read-only", reset="what the part, or userspace for its guest, enumerates", source=_SDM_CPUID, width=32,
    fields=(
        Field("PSFD", 0, "IA32_SPEC_CTRL.PSFD", _SDM_CPUID),
        Field("IPRED_CTRL", 1, "IA32_SPEC_CTRL.IPRED_DIS_U and IPRED_DIS_S", _SDM_CPUID),
        Field("RRSBA_CTRL", 2, "IA32_SPEC_CTRL.RRSBA_DIS_U and RRSBA_DIS_S", _SDM_CPUID),
        Field("DDPD_U", 3, "IA32_SPEC_CTRL.DDPD_U", _SDM_CPUID),
        Field("BHI_CTRL", 4, "IA32_SPEC_CTRL.BHI_DIS_S", _SDM_CPUID),
    ),
)

_SDM_VMX = "SDM vol. 3, VMX non-root operation; vol. 3, appendix B for the encodings"

_TERTIARY = Register(
    name="IA32_VMX_PROCBASED_CTLS3", number=0x492, kind="MSR",
    title="Which tertiary VM-execution controls may be 1",
    access="read-only for the host; KVM offers no tertiary control to L1", reset="what the part enumerates",
    source="SDM vol. 3, appendix A; Jim Mattson, September 2022, quoting Intel's page",
    fields=(
        Field("IPI_VIRTUALIZATION", 4, "not used here; shown for the neighbour", _SDM_VMX),
        Field("VIRTUALIZE_IA32_SPEC_CTRL", 7, "the guest's accesses go through MASK and SHADOW", _SDM_VMX),
    ),
)

_WHOLE = "one bit for each bit of IA32_SPEC_CTRL"
_VMCS_MASK = Register(
    name="IA32_SPEC_CTRL_MASK", number=0x204A, kind="VMCS field", title="Bits that the guest cannot change",
    access="VMREAD and VMWRITE (0x204A full, 0x204B high half), where the control is supported",
    reset="no value until software writes it", source=_SDM_VMX,
    fields=(Field("MASK", 0, _WHOLE, _SDM_VMX, width=64),),
)
_VMCS_SHADOW = Register(
    name="IA32_SPEC_CTRL_SHADOW", number=0x204C, kind="VMCS field", title="What the guest reads",
    access="VMREAD and VMWRITE (0x204C full, 0x204D high half), where the control is supported",
    reset="no value until software writes it", source=_SDM_VMX,
    fields=(Field("SHADOW", 0, _WHOLE, _SDM_VMX, width=64),),
)

REGISTERS: dict[str, Register] = {
    register.name: register
    for register in (
        _SPEC_CTRL, _ARCH_CAPABILITIES, _VIRTUAL_ENUMERATION, _VIRTUAL_MITIGATION_ENUM, _VIRTUAL_MITIGATION_CTRL,
        _CPUID_7_0_EDX, _CPUID_7_2_EDX, _TERTIARY, _VMCS_MASK, _VMCS_SHADOW,
    )
}
"""Every register, by name."""

VMCS_ENCODINGS: dict[str, int] = {
    "IA32_SPEC_CTRL_MASK": 0x204A,
    "IA32_SPEC_CTRL_MASK_HIGH": 0x204B,
    "IA32_SPEC_CTRL_SHADOW": 0x204C,
    "IA32_SPEC_CTRL_SHADOW_HIGH": 0x204D,
}
"""The four VMCS encodings (SDM vol. 3, appendix B)."""

IA32_SPEC_CTRL = _SPEC_CTRL.number
IA32_ARCH_CAPABILITIES = _ARCH_CAPABILITIES.number
MSR_VIRTUAL_ENUMERATION = _VIRTUAL_ENUMERATION.number
MSR_VIRTUAL_MITIGATION_ENUM = _VIRTUAL_MITIGATION_ENUM.number
MSR_VIRTUAL_MITIGATION_CTRL = _VIRTUAL_MITIGATION_CTRL.number

MSR_NUMBERS: dict[str, int] = {
    register.name: register.number for register in (
        _SPEC_CTRL, _ARCH_CAPABILITIES, _VIRTUAL_ENUMERATION, _VIRTUAL_MITIGATION_ENUM, _VIRTUAL_MITIGATION_CTRL)
}
"""The MSRs that KVM handles here, by name."""

IBRS = _SPEC_CTRL.field("IBRS").mask
STIBP = _SPEC_CTRL.field("STIBP").mask
SSBD = _SPEC_CTRL.field("SSBD").mask
RRSBA_DIS_S = _SPEC_CTRL.field("RRSBA_DIS_S").mask
BHI_DIS_S = _SPEC_CTRL.field("BHI_DIS_S").mask

ARCH_CAP_RRSBA = _ARCH_CAPABILITIES.field("RRSBA").mask
ARCH_CAP_BHI_NO = _ARCH_CAPABILITIES.field("BHI_NO").mask
ARCH_CAP_ITS_NO = _ARCH_CAPABILITIES.field("ITS_NO").mask
ARCH_CAP_VIRTUAL_ENUM = _ARCH_CAPABILITIES.field("VIRTUAL_ENUM").mask

MITIGATION_CTRL_SUPPORT = _VIRTUAL_ENUMERATION.field("MITIGATION_CTRL_SUPPORT").mask
BHB_CLEAR_SEQ_S_USED = _VIRTUAL_MITIGATION_CTRL.field("BHB_CLEAR_SEQ_S_USED").mask
RETPOLINE_S_USED = _VIRTUAL_MITIGATION_CTRL.field("RETPOLINE_S_USED").mask

VALID_ENUMERATION = _VIRTUAL_ENUMERATION.defined
"""Bits of MSR_VIRTUAL_ENUMERATION that KVM can offer."""
VALID_MITIGATION_ENUM = _VIRTUAL_MITIGATION_ENUM.defined
"""Bits of MSR_VIRTUAL_MITIGATION_ENUM that KVM can offer."""
VALID_MITIGATION_CTRL = _VIRTUAL_MITIGATION_CTRL.defined
"""Bits of MSR_VIRTUAL_MITIGATION_CTRL that are not reserved."""


@dataclass(frozen=True, slots=True)
class Capability:
    """A KVM capability: its number and where it comes from."""

    name: str
    number: int
    source: str


KVM_CAP_FORCE_SPEC_CTRL = 236
KVM_CAP_X86_USER_SPACE_MSR = 188
KVM_CAP_X86_MSR_FILTER = 189

CAPABILITIES: dict[str, Capability] = {
    capability.name: capability for capability in (
        Capability("KVM_CAP_FORCE_SPEC_CTRL", KVM_CAP_FORCE_SPEC_CTRL,
                   "RFC v3 p1; mainline has since given 236 to KVM_CAP_PRE_FAULT_MEMORY"),
        Capability("KVM_CAP_X86_USER_SPACE_MSR", KVM_CAP_X86_USER_SPACE_MSR, "Linux, include/uapi/linux/kvm.h"),
        Capability("KVM_CAP_X86_MSR_FILTER", KVM_CAP_X86_MSR_FILTER, "Linux, include/uapi/linux/kvm.h"),
    )
}
"""The capabilities that this specification speaks of, by name."""

CAP_NUMBERS: dict[str, int] = {capability.name: capability.number for capability in CAPABILITIES.values()}


@dataclass(frozen=True, slots=True)
class Ioctl:
    """An ioctl that reads ``size`` bytes back, by its parts; ``number`` is what the kernel sees."""

    name: str
    group: int
    nr: int
    size: int
    source: str

    @property
    def number(self) -> int:
        """``_IOR(group, nr, size)``.

        >>> hex(KVM_GET_SUPPORTED_FORCE_SPEC_CTRL.number)
        '0x8008aee4'
        """
        direction_read = 2
        return direction_read << 30 | self.size << 16 | self.group << 8 | self.nr


KVM_GET_SUPPORTED_FORCE_SPEC_CTRL = Ioctl("KVM_GET_SUPPORTED_FORCE_SPEC_CTRL", 0xAE, 0xE4, 8, _RFC1)


def msr_number(name_or_number: str | int) -> int:
    """The number of an MSR given by name or number; ValueError for an unknown name or a number over 32 bits.

    >>> hex(msr_number("MSR_VIRTUAL_MITIGATION_CTRL"))
    '0x50000002'
    """
    if isinstance(name_or_number, str):
        if name_or_number not in MSR_NUMBERS:
            raise ValueError(f"no MSR is named {name_or_number!r}; known: {', '.join(MSR_NUMBERS)}")
        return MSR_NUMBERS[name_or_number]
    if not 0 <= name_or_number < 1 << 32:
        raise ValueError(f"{name_or_number:#x} is not the number of an MSR: ECX has 32 bits")
    return name_or_number


def cap_number(name_or_number: str | int) -> int:
    """The number of a capability given by name or number; ValueError for an unknown name.

    >>> cap_number("KVM_CAP_FORCE_SPEC_CTRL")
    236
    """
    if isinstance(name_or_number, str):
        if name_or_number not in CAP_NUMBERS:
            raise ValueError(f"no capability is named {name_or_number!r}; known: {', '.join(CAP_NUMBERS)}")
        return CAP_NUMBERS[name_or_number]
    return name_or_number


def check_word(value: int, what: str) -> int:
    """``value`` itself if it is a 64-bit word; ValueError names ``what`` otherwise.

    >>> check_word(0x400, "the mask")
    1024
    """
    if not 0 <= value <= WORD:
        raise ValueError(f"{what} is {value:#x}: not a 64-bit word")
    return value
