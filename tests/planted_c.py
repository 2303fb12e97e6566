"""The plantable defects of the posted series, each as a change of the text of the C reference.

They mirror tests/planted.py, which has the same defects for the emulator.
"""

import shutil

from specctrl.targets.c_reference import HEADERS

Change = tuple[str, str]

DEFECTS: dict[str, tuple[Change, ...]] = {
    # A report does not reach the MASK field.
    "D1": ((
        "	if (vcpu->host->has_control)\n"
        "		specctrl_write_mask(vcpu, mask);\n",
        ""),),
    # The write path adds forced bits and takes none away.
    "D2": (("	vcpu->saved = merged;\n", "	vcpu->saved = value | vcpu->force_value;\n"),),
    # Without the control the interception is dropped although bits are forced.
    "D3": ((
        "	return (vcpu->cpuid & SPECCTRL_SHOW_MSR) &&\n"
        "	       (vcpu->host->has_control || !vcpu->force_mask);\n",
        "	return vcpu->cpuid & SPECCTRL_SHOW_MSR;\n"),),
    # vmcs02's SHADOW is written only for a pending entry.
    "D4": ((
        "		specctrl_write_shadow(vcpu, vcpu->guest_view);\n",
        "		if (!vcpu->level2 || vcpu->nested.run_pending)\n"
        "			specctrl_write_shadow(vcpu, vcpu->guest_view);\n"),),
    # A failed entry leaves vmcs01's SHADOW as it was.
    "D5": ((
        "		specctrl_leave_nested(vcpu);\n"
        "		if (specctrl_exit_load(",
        "		vcpu->nested.run_pending = false;\n"
        "		vcpu->level2 = false;\n"
        "		specctrl_switch_vmcs(vcpu, false);\n"
        "		if (specctrl_exit_load("),),
    # The VMCS that is loaded keeps an old MASK.
    "D7": (("		specctrl_write_mask(vcpu, vcpu->force_mask);\n", ""),),
    # The value written is tested, not the merge.
    "D8": ((
        "	if (!specctrl_accepts(vcpu, merged))\n",
        "	if (!specctrl_accepts(vcpu, value))\n"),),
    # INIT leaves the report.
    "D9": (("		vcpu->mitigation_ctrl = 0;\n", "		;\n"),),
    # The enumeration bit alone shows the report.
    "D10": ((
        "	if (!(vcpu->cpuid & SPECCTRL_HAS_ARCH_CAPABILITIES))\n"
        "		return false;\n",
        "	if (msr == MSR_VIRTUAL_MITIGATION_ENUM || msr == MSR_VIRTUAL_MITIGATION_CTRL)\n"
        "		return vcpu->virtual_enumeration & VIRT_ENUM_MITIGATION_CTRL_SUPPORT;\n"
        "	if (!(vcpu->cpuid & SPECCTRL_HAS_ARCH_CAPABILITIES))\n"
        "		return false;\n"),),
    # What MSR_VIRTUAL_MITIGATION_ENUM offers is not asked.
    "D10Offered": ((
        "	if (!host_initiated && !specctrl_is_subset(newly_set, vcpu->mitigation_enum))\n",
        "	if (!host_initiated && !specctrl_is_subset(newly_set, MITI_ENUM_VALID))\n"),),
    # The host's restore is decided by the computed value, not by what the register holds.
    "D18": (("	if (held != vcpu->host->spec_ctrl ||", "	if (vcpu->saved != vcpu->host->spec_ctrl ||"),),
    # A report applies the view again, unmasked and untested.
    "D21": ((
        "	vcpu->saved = specctrl_merge(vcpu->guest_view, mask, value);\n",
        "	vcpu->saved = vcpu->guest_view | value;\n"),),
}
"""The name of each defect's class in tests/planted.py, and the text to replace."""

DEFECTS["D18WithDrift"] = DEFECTS["D1"] + DEFECTS["D18"]


def change(folder, *changes):
    """Change the C code in a folder; each text must be there exactly once, in one of its headers."""
    for old, new in changes:
        texts = {path: path.read_text("utf-8") for path in (folder / name for name in HEADERS)}
        counts = sum(text.count(old) for text in texts.values())
        assert counts == 1, f"{counts} times {old!r}"
        for path, text in texts.items():
            path.write_text(text.replace(old, new), "utf-8")


def plant(defect, source, target):
    """Copy the C code from one folder to another with a defect in it."""
    target.mkdir(exist_ok=True)
    for path in source.glob("*.[ch]"):
        shutil.copy(path, target)
    change(target, *DEFECTS[defect])
    return target
