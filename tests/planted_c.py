"""The plantable defects of the posted series, each as a change of the text of the C reference.

They mirror tests/planted.py, which has the same defects for the emulator.
"""

from specctrl.targets.c_reference import ADAPTER, HEADER, REGISTER_HEADER

Change = tuple[str, str]

DEFECTS: dict[str, tuple[Change, ...]] = {
    # A report does not reach the MASK field.
    "D1": ((
        "	if (vcpu->cpu.has_control)\n"
        "		specctrl_vmwrite_mask(&vcpu->cpu, specctrl_loaded_vmcs(vcpu), mask);\n",
        ""),),
    # The write path adds forced bits and takes none away.
    "D2": (("	vcpu->saved = merged;\n", "	vcpu->saved = value | vcpu->force_value;\n"),),
    # Without the control the interception is dropped although bits are forced.
    "D3": ((
        "	return (vcpu->cpuid & SPECCTRL_HAS_SPEC_CTRL) &&\n"
        "	       (vcpu->cpu.has_control || !vcpu->force_mask);\n",
        "	return vcpu->cpuid & SPECCTRL_HAS_SPEC_CTRL;\n"),),
    # vmcs02's SHADOW is written only for a pending entry.
    "D4": ((
        "		specctrl_vmwrite_shadow(&vcpu->cpu, vmcs, vcpu->guest_view);\n",
        "		if (which == SPECCTRL_VMCS01 || vcpu->nested_run_pending)\n"
        "			specctrl_vmwrite_shadow(&vcpu->cpu, vmcs, vcpu->guest_view);\n"),),
    # A failed entry leaves vmcs01's SHADOW as it was.
    "D5": ((
        "	vcpu->nested_run_pending = false;\n"
        "	specctrl_load_vmcs(vcpu, SPECCTRL_VMCS01);\n",
        "	vcpu->nested_run_pending = false;\n"
        "	vcpu->loaded = SPECCTRL_VMCS01;\n"),),
    # The VMCS that is loaded keeps an old MASK.
    "D7": (("		specctrl_vmwrite_mask(&vcpu->cpu, vmcs, vcpu->force_mask);\n", ""),),
    # The value written is tested, not the merge.
    "D8": ((
        "	if (!specctrl_cpu_accepts(&vcpu->cpu, merged))\n",
        "	if (!specctrl_cpu_accepts(&vcpu->cpu, value))\n"),),
    # INIT leaves the report.
    "D9": (("		vcpu->mitigation_ctrl = 0;\n", "		;\n"),),
    # The enumeration bit alone shows the report.
    "D10": ((
        "	return specctrl_shows_enumeration(vcpu) &&\n"
        "	       (vcpu->virtual_enumeration & VIRT_ENUM_MITIGATION_CTRL_SUPPORT);\n",
        "	return vcpu->virtual_enumeration & VIRT_ENUM_MITIGATION_CTRL_SUPPORT;\n"),),
    # What MSR_VIRTUAL_MITIGATION_ENUM offers is not asked.
    "D10Offered": ((
        "	if (!host_initiated && !specctrl_is_subset(newly_set, vcpu->mitigation_enum))\n",
        "	if (!host_initiated && !specctrl_is_subset(newly_set, MITI_ENUM_VALID))\n"),),
    # The saved value is computed from mask and value, not read.
    "D18": ((
        "	specctrl_cpu_rdmsr(&vcpu->cpu, &vcpu->saved);\n"
        "	if (vcpu->cpu.has_control)\n"
        "		specctrl_vmread_shadow(&vcpu->cpu, vmcs, &vcpu->guest_view);\n"
        "	else\n"
        "		vcpu->guest_view = vcpu->saved;\n",
        "	if (!vcpu->cpu.has_control) {\n"
        "		specctrl_cpu_rdmsr(&vcpu->cpu, &vcpu->saved);\n"
        "		vcpu->guest_view = vcpu->saved;\n"
        "		return;\n"
        "	}\n"
        "	specctrl_vmread_shadow(&vcpu->cpu, vmcs, &vcpu->guest_view);\n"
        "	vcpu->saved = specctrl_merge(vcpu->guest_view, vcpu->force_mask, vcpu->force_value);\n"),),
    # A report applies the view again, unmasked and untested.
    "D21": ((
        "	vcpu->saved = specctrl_merge(vcpu->guest_view, mask, value);\n",
        "	vcpu->saved = vcpu->guest_view | value;\n"),),
}
"""The name of each defect's class in tests/planted.py, and the text to replace."""

DEFECTS["D18WithDrift"] = DEFECTS["D1"] + DEFECTS["D18"]


def plant(defect, source, target):
    """Copy the C code from one folder to another with a defect in it; each text must be there exactly once."""
    header = (source / HEADER).read_text("utf-8")
    for old, new in DEFECTS[defect]:
        assert header.count(old) == 1, f"{defect}: {header.count(old)} times {old!r}"
        header = header.replace(old, new)
    target.mkdir(exist_ok=True)
    (target / HEADER).write_text(header, "utf-8")
    for name in (REGISTER_HEADER, ADAPTER):
        (target / name).write_bytes((source / name).read_bytes())
    return target
