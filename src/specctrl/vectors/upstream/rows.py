"""What tests that upstream trees have already can take, from the register tables.

``x86/msrs_test.c`` of the KVM selftests has a table: it writes a value, reads it back in the guest and in userspace,
and expects #GP for a reserved bit, or for every access where the guest lacks the feature.
``x86/msr.c`` of kvm-unit-tests has a function that writes each combination of the bits that CPUID shows.
"""

from specctrl.model.registers import MSR_VIRTUAL_MITIGATION_CTRL, REGISTERS, Register
from specctrl.vectors.upstream.selftest import cpuid_bit, msr_name

_SPEC_CTRL = REGISTERS["IA32_SPEC_CTRL"]
_ENUMERATION = REGISTERS["MSR_VIRTUAL_ENUMERATION"]
_ENUM = REGISTERS["MSR_VIRTUAL_MITIGATION_ENUM"]
_CTRL = REGISTERS["MSR_VIRTUAL_MITIGATION_CTRL"]


def reserved_bit(register: Register) -> int:
    """The highest bit that no field of a register defines.

    >>> hex(reserved_bit(REGISTERS["IA32_SPEC_CTRL"]))
    '0x8000000000000000'
    """
    return max(1 << bit for bit in range(register.width) if not register.defined >> bit & 1)


def _by_feature() -> dict[str, int]:
    """The bits of IA32_SPEC_CTRL that each feature brings, in the order of the fields."""
    bits: dict[str, int] = {}
    for field in _SPEC_CTRL:
        bits[field.exists_when] = bits.get(field.exists_when, 0) | field.mask
    return bits


def _meaning(bits: int) -> str:
    return ", ".join(field.name for field in _SPEC_CTRL if field.mask & bits)


_DEFINES = "".join(
    f"#ifndef {register.name}\n#define {register.name}\t{register.number:#x}\n#endif\n"
    for register in (_ENUMERATION, _ENUM, _CTRL))
"""The numbers that no header has without the series."""

_MSRS_HEAD = """\
/*
 * Rows for tools/testing/selftests/kvm/x86/msrs_test.c, generated from the register tables
 * of the executable specification of virtual IA32_SPEC_CTRL.
 *
 * For Intel: other vendors enumerate IA32_SPEC_CTRL elsewhere, so guard the rows with
 * host_cpu_is_intel.  The second feature of MSR_TEST2 keeps the rows of a single bit from expecting #GP of the
 * whole MSR.  The last row is for a kernel that has {ctrl}; on any other the
 * test finds it missing in the list of MSRs and ends.  The MSR is there only for a vCPU to which
 * userspace announces it; for each vCPU, before its first VM entry:
 *
 *	vcpu_set_msr(vcpu, {enumeration}, {enumeration_bits:#x});
 *	vcpu_set_msr(vcpu, {enum}, {enum_bits:#x});
 *
 * KVM shows AMD's bits on Intel hosts, and each opens the MSR: of the vCPU without features clear EBX[14],
 * EBX[15] and EBX[24] of CPUID leaf 0x80000008, too.
 *
 * Where the host has no CPUID leaf 7.2, leave the rows of its features out: that test clears each
 * feature of the table for one vCPU, and the library cannot clear what has no leaf.
 *
 * {enumeration} and {enum} have no rows:
 * the guest can only read them, and these macros write.
 */
"""


def msrs_rows() -> str:
    """Rows for the selftest ``x86/msrs_test.c``: definitions for the top of the file, then the rows."""
    head = _MSRS_HEAD.format(ctrl=_CTRL.name, enumeration=_ENUMERATION.name, enum=_ENUM.name,
                             enumeration_bits=_ENUMERATION.defined, enum_bits=_ENUM.defined)
    lines = [head]
    lines.append(_DEFINES)
    for feature in _by_feature():
        if feature != "SPEC_CTRL":
            subleaf, bit = cpuid_bit(feature)
            lines.append(f"#ifndef X86_FEATURE_{feature}\n#define X86_FEATURE_{feature}"
                         f"\tKVM_X86_CPU_FEATURE(0x7, {subleaf}, EDX, {bit})\n#endif\n")
    lines.append("\n/* The rows. */\n")
    name, reserved = msr_name(_SPEC_CTRL.number), reserved_bit(_SPEC_CTRL)
    for feature, bits in _by_feature().items():
        lines.append(f"/* {_meaning(bits)} */\n")
        if feature == "SPEC_CTRL":
            lines.append(f"MSR_TEST({name}, {bits:#x}, {reserved:#x}, SPEC_CTRL),\n")
        else:
            lines.append(f"MSR_TEST2({name}, {bits:#x}, {reserved:#x}, {feature}, SPEC_CTRL),\n")
    lines.append(f"/* {', '.join(field.name for field in _CTRL)} */\n")
    lines.append(f"MSR_TEST({msr_name(MSR_VIRTUAL_MITIGATION_CTRL)}, {_CTRL.defined:#x}, "
                 f"{reserved_bit(_CTRL):#x}, ARCH_CAPABILITIES),\n")
    return "".join(lines)


_UNIT_HEAD = """\
/*
 * Lines for test_mitigation_msrs() of x86/msr.c of kvm-unit-tests, before it looks at spec_ctrl_bits,
 * generated from the register tables of the executable specification of virtual IA32_SPEC_CTRL.
 *
 * That function writes each combination of the bits that CPUID shows, and reads it back: forced bits
 * are included, since the guest reads what it wrote.  It has {known} already.  With all that
 * follow it tries {values} values.  The table of that file is no place for them: it asks for no feature,
 * and a #GP that it does not expect ends the program.
 */
"""

_KNOWN_THERE = ("SPEC_CTRL", "STIBP", "SSBD")
"""The features of IA32_SPEC_CTRL that ``test_mitigation_msrs`` of kvm-unit-tests asks for itself."""

_REPORT = """\
/* The report, where a VMM announces it. */
if (this_cpu_has(X86_FEATURE_ARCH_CAPABILITIES) &&
    rdmsr(MSR_IA32_ARCH_CAPABILITIES) & {bit:#x} &&
    rdmsr({enumeration}) & {enumeration_bit:#x}) {{
	u64 report, offered = rdmsr({enum});

	for (report = 0; report <= offered; report++) {{
		if (!(report & ~offered))
			test_msr_rw({ctrl}, "{ctrl}", report);
	}}
	test_wrmsr_fault({ctrl}, "{ctrl}", {reserved:#x});
}}
"""


def unit_test_rows() -> str:
    """Lines for the function ``test_mitigation_msrs`` of kvm-unit-tests' ``x86/msr.c``."""
    ours = {feature: bits for feature, bits in _by_feature().items() if feature not in _KNOWN_THERE}
    known = [_meaning(bits) for feature, bits in _by_feature().items() if feature in _KNOWN_THERE]
    lines = [_UNIT_HEAD.format(known=f"{', '.join(known[:-1])} and {known[-1]}",
                               values=1 << _SPEC_CTRL.defined.bit_count()), _DEFINES]
    for feature in ours:
        subleaf, bit = cpuid_bit(feature)
        lines.append(f"#ifndef X86_FEATURE_{feature}\n#define X86_FEATURE_{feature}"
                     f"\tX86_CPU_FEATURE(0x7, {subleaf}, EDX, {bit})\n#endif\n")
    lines.append("\n/* One of them alone does not give a guest of KVM the MSR. */\n"
                 "if (this_cpu_has(X86_FEATURE_SPEC_CTRL)) {\n")
    for feature, bits in ours.items():
        lines.append(f"\tif (this_cpu_has(X86_FEATURE_{feature}))\n"
                     f"\t\tspec_ctrl_bits |= {bits:#x};\t/* {_meaning(bits)} */\n")
    lines.append("}\n")
    capabilities = REGISTERS["IA32_ARCH_CAPABILITIES"]
    lines.append("\n" + _REPORT.format(
        bit=capabilities.field("VIRTUAL_ENUM").mask, enumeration=_ENUMERATION.name, enum=_ENUM.name, ctrl=_CTRL.name,
        enumeration_bit=_ENUMERATION.field("MITIGATION_CTRL_SUPPORT").mask, reserved=reserved_bit(_CTRL)))
    return "".join(lines)
