"""Processor parts, and the host that one of them becomes.

A part says what the processor enumerates and which BHB-clearing sequence works on it.
A :class:`Host` is a part with its options chosen; rule code sees only the host.
"""

from dataclasses import dataclass, fields, replace

from specctrl.model.registers import ARCH_CAP_BHI_NO, ARCH_CAP_RRSBA, ARCH_CAP_VIRTUAL_ENUM, REGISTERS, check_word
from specctrl.model.words import is_subset


@dataclass(frozen=True, slots=True)
class Features:
    """What a processor has, or what a guest's CPUID shows; one bool for each feature of the scenario format."""

    spec_ctrl: bool = False  # CPUID.(7,0):EDX[26]: IA32_SPEC_CTRL with IBRS
    stibp: bool = False  # CPUID.(7,0):EDX[27]
    ssbd: bool = False  # CPUID.(7,0):EDX[31]
    rrsba_ctrl: bool = False  # CPUID.(7,2):EDX[2]: RRSBA_DIS_U and RRSBA_DIS_S
    bhi_ctrl: bool = False  # CPUID.(7,2):EDX[4]: BHI_DIS_S
    ipred_ctrl: bool = False  # CPUID.(7,2):EDX[1]: IPRED_DIS_U and IPRED_DIS_S
    psfd: bool = False  # CPUID.(7,2):EDX[0]
    ddpd_u: bool = False  # CPUID.(7,2):EDX[3]
    arch_capabilities: bool = False  # CPUID.(7,0):EDX[29]: IA32_ARCH_CAPABILITIES
    rrsba: bool = False  # IA32_ARCH_CAPABILITIES[19]
    bhi_no: bool = False  # IA32_ARCH_CAPABILITIES[20]
    tsx: bool = False  # transactions: XBEGIN does not fault
    amd_ibrs: bool = False  # CPUID.0x80000008:EBX[14], AMD's bits, which KVM shows on Intel hosts too
    amd_stibp: bool = False  # CPUID.0x80000008:EBX[15]
    amd_ssbd: bool = False  # CPUID.0x80000008:EBX[24]

    @property
    def shows_spec_ctrl(self) -> bool:
        """Whether a guest with this CPUID has IA32_SPEC_CTRL: leaf 7 says so, or one of AMD's bits.

        Source: Linux, guest_has_spec_ctrl_msr.

        >>> Features(amd_ssbd=True).shows_spec_ctrl, Features(ssbd=True).shows_spec_ctrl
        (True, False)
        """
        return self.spec_ctrl or self.amd_ibrs or self.amd_stibp or self.amd_ssbd

    def names(self) -> tuple[str, ...]:
        """The features that are there, as the scenario format names them.

        >>> Features(spec_ctrl=True, bhi_ctrl=True).names()
        ('SPEC_CTRL', 'BHI_CTRL')
        """
        return tuple(field.name.upper() for field in fields(self) if getattr(self, field.name))


GUEST_ONLY = ("AMD_IBRS", "AMD_STIBP", "AMD_SSBD")
"""What a guest's CPUID can show whatever the host's has: KVM makes these up from the host's own bits."""

FEATURES: tuple[str, ...] = tuple(
    field.name.upper() for field in fields(Features) if field.name.upper() not in GUEST_ONLY)
"""Every feature of a host, as the scenario format names it."""

NOT_IN_CPUID = ("RRSBA", "BHI_NO", "TSX")
"""Features of a host that no CPUID bit of this model shows to a guest: a guest's CPUID cannot name them."""

GUEST_FEATURES: tuple[str, ...] = (*(name for name in FEATURES if name not in NOT_IN_CPUID), *GUEST_ONLY)
"""Everything that a guest's CPUID can show."""


def features_from_names(names: tuple[str, ...] | list[str], known: tuple[str, ...] = FEATURES) -> Features:
    """The features of that name; ValueError for one that is not ``known``.

    >>> features_from_names(["SPEC_CTRL", "SSBD"]).ssbd
    True
    """
    for name in names:
        if name not in known:
            raise ValueError(f"no feature is named {name!r}; known: {' '.join(known)}")
    return Features(**{name.lower(): True for name in names})


def guest_features(features: Features) -> Features:
    """What a guest's CPUID shows by default: everything the host has that CPUID can show.

    >>> guest_features(PARTS["sapphire-rapids"].features).rrsba
    False
    """
    return replace(features, rrsba=False, bhi_no=False, tsx=False)  # those of NOT_IN_CPUID


def writable_bits(features: Features) -> int:
    """The bits of IA32_SPEC_CTRL that a processor with these features accepts; the others are reserved.

    Source: SDM vol. 4, IA32_SPEC_CTRL: each field exists when its CPUID bit is set.

    >>> hex(writable_bits(PARTS["ice-lake-server"].features))
    '0x7'
    """
    bits = 0
    for field in REGISTERS["IA32_SPEC_CTRL"]:
        if getattr(features, field.exists_when.lower()):
            bits |= field.mask
    return bits


@dataclass(frozen=True, slots=True)
class Host:
    """One host: a processor with the options that its firmware and kernel have chosen."""

    features: Features  # what the processor has
    writable: int  # the bits of IA32_SPEC_CTRL that it accepts
    spec_ctrl_shadow: bool  # whether the control "virtualize IA32_SPEC_CTRL" may be 1
    spec_ctrl: int  # the value that the host itself runs with
    nested: bool  # whether KVM offers VMX to guests
    legacy_ibrs: bool  # X86_FEATURE_KERNEL_IBRS: the host writes the MSR after every exit
    short_sequence_works: bool = False  # whether the short BHB-clearing sequence works on this processor
    its: bool = False  # whether the processor has indirect target selection (ITS)

    @property
    def has_spec_ctrl(self) -> bool:
        """Whether the MSR exists: some field of it does.

        >>> resolve_host({"part": "ice-lake-server", "features": []}).has_spec_ctrl
        False
        """
        return bool(self.writable != 0)


def arch_capabilities(host: Host) -> int:
    """IA32_ARCH_CAPABILITIES as KVM offers it: the modelled bits of the host's, and bit 63 always.

    Source: RFC v3 p7 (``kvm_get_arch_capabilities`` sets bit 63 on VMX, whatever the host has).

    >>> hex(arch_capabilities(resolve_host("sapphire-rapids")))
    '0x8000000000080000'
    """
    bits = ARCH_CAP_VIRTUAL_ENUM
    if host.features.arch_capabilities and host.features.rrsba:
        bits |= ARCH_CAP_RRSBA
    if host.features.arch_capabilities and host.features.bhi_no:
        bits |= ARCH_CAP_BHI_NO
    return bits


@dataclass(frozen=True, slots=True)
class Part:
    """A processor of the catalogue, with what is known of it and from where."""

    name: str
    title: str
    features: Features
    spec_ctrl_shadow: bool
    spec_ctrl: int  # what a Linux host runs with by default
    short_sequence_works: bool  # whether the short BHB-clearing sequence clears this part's branch history
    source: str
    assumed: str  # what no source was read for
    atom_only: bool = False
    legacy_ibrs: bool = False
    its: bool = False  # Linux 7.3.4, the table of vulnerable_to_its; a part that enumerates BHI_CTRL is not affected

    def __repr__(self) -> str:
        return f"<Part {self.name}: {' '.join(self.features.names())}>"


_OLD = ("SPEC_CTRL", "STIBP", "SSBD")
_NEW = (*_OLD, "RRSBA_CTRL", "BHI_CTRL", "IPRED_CTRL", "PSFD", "ARCH_CAPABILITIES")

_DUMPS = "CPUID dumps of the InstLatX64 collection"
_FINGERPRINTS = "IA32_ARCH_CAPABILITIES as Firecracker's guests see it (fingerprint files of its test suite)"
_QEMU = "QEMU CPU model by Tao Su, January 2025 (20250121020650.1899618-2-tao1.su@linux.intel.com and -4-)"
_BOCHS = "tertiary control: Bochs cpudb"
_NO_CONTROL = "that the part lacks the control: no dump of MSR 0x492 was found, Bochs' models have none"
_CONTROL = "that the part has the control: no dump of MSR 0x492 was found"
_NO_TSX = "that XBEGIN faults: the dumps show TSX, Firecracker's guests do not see it"

PARTS: dict[str, Part] = {
    part.name: part
    for part in (
        Part("skylake-server", "Skylake-SP (2017)", features_from_names([*_OLD, "TSX"]),
             spec_ctrl_shadow=False, spec_ctrl=0x1, short_sequence_works=True, legacy_ibrs=True,
             source=f"{_DUMPS}; no IA32_ARCH_CAPABILITIES, so no enhanced IBRS: Linux uses legacy IBRS",
             assumed=_NO_CONTROL),
        Part("cascade-lake", "Cascade Lake-SP (2019)",
             features_from_names([*_OLD, "ARCH_CAPABILITIES", "RRSBA", "TSX"]),
             spec_ctrl_shadow=False, spec_ctrl=0x1, short_sequence_works=True, its=True,
             source=f"{_DUMPS}; {_FINGERPRINTS}", assumed=_NO_CONTROL),
        Part("ice-lake-server", "Ice Lake-SP (2021)", features_from_names([*_OLD, "ARCH_CAPABILITIES"]),
             spec_ctrl_shadow=False, spec_ctrl=0x1, short_sequence_works=True, its=True,
             source=f"{_DUMPS}; {_FINGERPRINTS}: RRSBA is 0",
             assumed=f"{_NO_CONTROL}; that PSFD is absent, which newer microcode adds; {_NO_TSX}"),
        Part("alder-lake-p", "Alder Lake-P (2022)", features_from_names([*_NEW, "RRSBA"]),
             spec_ctrl_shadow=True, spec_ctrl=0x401, short_sequence_works=False,
             source=f"{_DUMPS}; RFC v3 p5 for RRSBA", assumed=f"{_CONTROL}; that BHI_NO is 0"),
        Part("sapphire-rapids", "Sapphire Rapids-SP (2023)", features_from_names([*_NEW, "RRSBA"]),
             spec_ctrl_shadow=True, spec_ctrl=0x401, short_sequence_works=False,
             source=f"{_DUMPS}; {_FINGERPRINTS}; {_BOCHS}",
             assumed=_NO_TSX),
        Part("granite-rapids", "Granite Rapids (2024)", features_from_names([*_NEW, "DDPD_U", "RRSBA"]),
             spec_ctrl_shadow=True, spec_ctrl=0x401, short_sequence_works=False,
             source=f"{_DUMPS}; {_FINGERPRINTS}", assumed=f"{_CONTROL}; {_NO_TSX}"),
        Part("sierra-forest", "Sierra Forest (2024), Atom cores only", features_from_names([*_NEW, "RRSBA"]),
             spec_ctrl_shadow=True, spec_ctrl=0x401, short_sequence_works=True, atom_only=True,
             source=f"{_QEMU}; Intel's guidance as quoted by Jim Mattson exempts Atom-only parts",
             assumed=f"{_CONTROL}; STIBP and RRSBA; that the short sequence works"),
        Part("clearwater-forest", "Clearwater Forest, Atom cores only, BHI_NO",
             features_from_names([*_NEW, "DDPD_U", "BHI_NO"]),
             spec_ctrl_shadow=True, spec_ctrl=0x401, short_sequence_works=True, atom_only=True,
             source=_QEMU, assumed=f"{_CONTROL}; STIBP; no RRSBA; that the short sequence works; the host value"),
        Part("diamond-rapids", "Diamond Rapids, BHI_NO", features_from_names([*_NEW, "DDPD_U", "BHI_NO", "RRSBA"]),
             spec_ctrl_shadow=True, spec_ctrl=0x401, short_sequence_works=False,
             source="QEMU CPU model by Zhao Liu, December 2025 (20251227094759.35658-71-pbonzini@redhat.com)",
             assumed=f"{_CONTROL}; that the short sequence fails; that Linux sets BHI_DIS_S on it; "
                     "that XBEGIN faults: the model has TSX"),
    )
}
"""The catalogue, by name."""

HOST_KEYS = ("part", "spec_ctrl_shadow", "host_spec_ctrl", "features", "without", "nested")
"""Keys of the scenario format's ``host`` object."""


def resolve_host(spec: "str | dict[str, object] | Host") -> Host:
    """The host that a scenario's ``host`` names: a part's name, or ``{"part": name, …overrides}``.

    Without ``host_spec_ctrl`` the host runs with the part's default, less the bits that it lacks; without
    SPEC_CTRL it has no control either.
    ValueError for an unknown name or key, and for a host value that the host's processor refuses.

    >>> hex(resolve_host({"part": "sapphire-rapids", "without": ["BHI_CTRL"]}).spec_ctrl)
    '0x1'
    >>> resolve_host({"part": "ice-lake-server", "host_spec_ctrl": 0x400})
    Traceback (most recent call last):
    ...
    ValueError: host_spec_ctrl 0x400 has bits that this host refuses: 0x400
    """
    if isinstance(spec, Host):
        return spec
    options: dict[str, object] = {"part": spec} if isinstance(spec, str) else dict(spec)
    for key in options:
        if key not in HOST_KEYS:
            raise ValueError(f"a host has no key {key!r}; it has {', '.join(HOST_KEYS)}")
    name = options.get("part")
    if not isinstance(name, str) or name not in PARTS:
        raise ValueError(f"no part is named {name!r}; known: {', '.join(PARTS)}")
    part = PARTS[name]

    features = part.features
    if "features" in options:
        features = features_from_names(_names(options["features"], "features"))
    if "without" in options:
        without = _names(options["without"], "without")
        features_from_names(without)
        features = features_from_names([name for name in features.names() if name not in without])

    writable = writable_bits(features)
    spec_ctrl = part.spec_ctrl & writable
    if "host_spec_ctrl" in options:
        value = options["host_spec_ctrl"]
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"host_spec_ctrl is {value!r}: not a number")
        spec_ctrl = check_word(value, "host_spec_ctrl")
        if not is_subset(spec_ctrl, writable):
            refused = spec_ctrl & ~writable
            raise ValueError(f"host_spec_ctrl {spec_ctrl:#x} has bits that this host refuses: {refused:#x}")

    control = _flag(options, "spec_ctrl_shadow", part.spec_ctrl_shadow and features.spec_ctrl)
    if control and not features.spec_ctrl:
        raise ValueError("spec_ctrl_shadow is true on a host without SPEC_CTRL: there is no MSR to virtualize")

    return Host(
        features=features,
        writable=writable,
        spec_ctrl_shadow=control,
        spec_ctrl=spec_ctrl,
        nested=_flag(options, "nested", True),
        legacy_ibrs=part.legacy_ibrs,
        short_sequence_works=part.short_sequence_works,
        its=part.its,
    )


def _names(value: object, what: str) -> list[str]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(name, str) for name in value):
        raise ValueError(f"{what} is {value!r}: not a list of feature names")
    return list(value)


def _flag(options: dict[str, object], key: str, default: bool) -> bool:
    value = options.get(key, default)
    if not isinstance(value, bool):
        raise ValueError(f"{key} is {value!r}: not true or false")
    return value
