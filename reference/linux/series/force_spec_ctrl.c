// SPDX-License-Identifier: GPL-2.0-only
/*
 * Bits of the guest's IA32_SPEC_CTRL that are out of its reach: forced by
 * userspace (KVM_CAP_FORCE_SPEC_CTRL), or on the guest's own report
 * (MSR_VIRTUAL_MITIGATION_CTRL).
 *
 * With the control "virtualize IA32_SPEC_CTRL" the CPU keeps the masked bits
 * through the guest's direct writes.  Without it KVM intercepts the writes.
 *
 * "rule:" names a rule of the specification that the function carries out.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/kvm_host.h>

#include <asm/msr-index.h>
#include <asm/nospec-branch.h>
#include <asm/vmx.h>

#include "cpuid.h"
#include "msrs.h"
#include "vmx.h"
#include "x86.h"

/* rule: contract.effective.merge */
static u64 merge(u64 guest, u64 mask, u64 value)
{
	return (guest & ~mask) | (value & mask);
}

/*
 * Put the bits that a guest requests on top of userspace's pair.  A bit that
 * userspace's mask has keeps userspace's value.
 *
 * rule: contract.force.overlay
 * rule: contract.force.nothing-else
 */
static void overlay(u64 *mask, u64 *value, u64 requested)
{
	*value |= requested & ~*mask;
	*mask |= requested;
}

/*
 * The bits that a report asks for and that this host can deliver.
 *
 * rule: contract.force.deliverable
 * rule: virt.report.silent
 */
static u64 requested_bits(u64 report)
{
	u64 bits = 0;

	if ((report & MITI_CTRL_BHB_CLEAR_SEQ_S_USED) &&
	    boot_cpu_has(X86_FEATURE_BHI_CTRL) &&
	    !(kvm_host.arch_capabilities & ARCH_CAP_BHI_NO))
		bits |= SPEC_CTRL_BHI_DIS_S;
	if ((report & MITI_CTRL_RETPOLINE_S_USED) &&
	    boot_cpu_has(X86_FEATURE_RRSBA_CTRL) &&
	    (kvm_host.arch_capabilities & ARCH_CAP_RRSBA))
		bits |= SPEC_CTRL_RRSBA_DIS_S;
	return bits;
}

/* rule: cap.supported.set */
static u64 supported_bits(void)
{
	u64 bits = SPEC_CTRL_IBRS;

	if (!cpu_has_spec_ctrl_virt())
		return 0;

	if (boot_cpu_has(X86_FEATURE_STIBP))
		bits |= SPEC_CTRL_STIBP;
	if (boot_cpu_has(X86_FEATURE_SSBD))
		bits |= SPEC_CTRL_SSBD;
	if (boot_cpu_has(X86_FEATURE_RRSBA_CTRL) &&
	    (kvm_host.arch_capabilities & ARCH_CAP_RRSBA))
		bits |= SPEC_CTRL_RRSBA_DIS_S;
	if (boot_cpu_has(X86_FEATURE_BHI_CTRL))
		bits |= SPEC_CTRL_BHI_DIS_S;
	return bits;
}

void force_spec_ctrl_hardware_setup(void)
{
	kvm_caps.supported_force_spec_ctrl = supported_bits();
}

/* ---- which accesses exit ------------------------------------------------- */

/*
 * Whether the guest may access the MSR without a VM-Exit at all: it must see
 * the MSR, and without the control only interception keeps forced bits.
 *
 * rule: intercept.hidden-msr
 * rule: intercept.without-control
 */
static bool may_pass_through(struct kvm_vcpu *vcpu)
{
	return guest_has_spec_ctrl_msr(vcpu) &&
	       (cpu_has_spec_ctrl_virt() || !to_vmx(vcpu)->force_spec_ctrl.mask);
}

/* rule: filter.reintercepts */
bool force_spec_ctrl_passes_through(struct kvm_vcpu *vcpu)
{
	return to_vmx(vcpu)->force_spec_ctrl.passthrough && may_pass_through(vcpu);
}

/*
 * An interception that KVM needs holds for L2 at once; otherwise vmcs02's
 * bitmap waits for its next merge.
 *
 * rule: intercept.until-first-nonzero
 * rule: filter.l2-until-merge
 */
static void update_interception(struct kvm_vcpu *vcpu)
{
	struct vcpu_vmx *vmx = to_vmx(vcpu);
	bool intercept = !force_spec_ctrl_passes_through(vcpu);
	unsigned long *vmcs02_bitmap = vmx->nested.vmcs02.msr_bitmap;

	vmx_set_intercept_for_msr(vcpu, MSR_IA32_SPEC_CTRL, MSR_TYPE_RW, intercept);

	if (intercept && vmcs02_bitmap) {
		vmx_set_msr_bitmap_read(vmcs02_bitmap, MSR_IA32_SPEC_CTRL);
		vmx_set_msr_bitmap_write(vmcs02_bitmap, MSR_IA32_SPEC_CTRL);
	}
}

/* After a change of the mask; rule: intercept.without-control */
static void update_passthrough(struct kvm_vcpu *vcpu)
{
	struct force_spec_ctrl *force = &to_vmx(vcpu)->force_spec_ctrl;

	if (!may_pass_through(vcpu))
		force->passthrough = false;
	else if (!cpu_has_spec_ctrl_virt() && force->guest_view)
		force->passthrough = true;
	update_interception(vcpu);
}

/* ---- what is forced ------------------------------------------------------ */

/*
 * Put userspace's pair and the report in force: mask, value, saved value, MASK
 * of the loaded VMCS, interception.  The other VMCS follows when it is loaded.
 *
 * rule: cap.guest-cpuid.not-looked-at
 * rule: cap.vcpu.report-recomputed
 * rule: force.mask-follows
 * rule: force.zeros-too
 * rule: virt.report.in-force
 * rule: virt.report.per-vcpu
 */
static void update_force(struct kvm_vcpu *vcpu)
{
	struct vcpu_vmx *vmx = to_vmx(vcpu);
	struct force_spec_ctrl *force = &vmx->force_spec_ctrl;

	force->mask = force->user_mask;
	force->value = force->user_value;
	overlay(&force->mask, &force->value, requested_bits(force->mitigation_ctrl));
	vmx->spec_ctrl = merge(force->guest_view, force->mask, force->value);
	if (cpu_has_spec_ctrl_virt())
		vmcs_write64(IA32_SPEC_CTRL_MASK, force->mask);
	update_passthrough(vcpu);
}

/*
 * Creation and INIT.  INIT withdraws the report, and leaves userspace's pair
 * and, but for what the mask decides, the interception.
 *
 * rule: cap.vcpu.starts-with-vm-pair
 * rule: virt.created-zero
 * rule: init.view-zero
 * rule: init.report.withdrawn
 * rule: init.userspace-stays
 * rule: init.interception-stays
 */
void force_spec_ctrl_reset(struct kvm_vcpu *vcpu, bool init_event)
{
	struct force_spec_ctrl *force = &to_vmx(vcpu)->force_spec_ctrl;

	if (!init_event) {
		memset(force, 0, sizeof(*force));
		force->user_mask = vcpu->kvm->arch.force_spec_ctrl_mask;
		force->user_value = vcpu->kvm->arch.force_spec_ctrl_value;
	}

	force->guest_view = 0;
	force->mitigation_ctrl = 0;
	update_force(vcpu);
	if (cpu_has_spec_ctrl_virt())
		vmcs_write64(IA32_SPEC_CTRL_SHADOW, 0);
}

/*
 * KVM_CAP_FORCE_SPEC_CTRL of a vCPU.  A narrower mask may uncover a bit of the
 * guest's view that the host refuses, so the merge is tried first: nothing
 * catches a fault of the WRMSR before VM-Entry.
 *
 * rule: cap.vcpu.any-time
 * rule: cap.vcpu.tried-on-host
 * rule: force.host-accepts
 */
int force_spec_ctrl_set_pair(struct kvm_vcpu *vcpu, u64 mask, u64 value)
{
	struct force_spec_ctrl *force = &to_vmx(vcpu)->force_spec_ctrl;
	u64 new_mask = mask, new_value = value;

	if (!kvm_can_force_spec_ctrl(mask, value))
		return -EINVAL;

	overlay(&new_mask, &new_value, requested_bits(force->mitigation_ctrl));
	if (boot_cpu_has(X86_FEATURE_MSR_SPEC_CTRL) &&
	    kvm_spec_ctrl_test_value(merge(force->guest_view, new_mask, new_value)))
		return -EINVAL;

	force->user_mask = mask;
	force->user_value = value;
	update_force(vcpu);
	return 0;
}

/*
 * The loaded VMCS was switched: its MASK and SHADOW become what holds now.  The
 * one place for every way between vmcs01 and vmcs02: nested VM-Enter and
 * VM-Exit, an entry that fails, SMI and RSM, KVM_SET_NESTED_STATE.
 *
 * rule: contract.level.one-view
 * rule: force.mask-follows
 * rule: nested.mask-both
 * rule: nested.entry.view
 * rule: nested.exit.view
 * rule: nested.failed-entry.view
 */
void force_spec_ctrl_load_vmcs(struct kvm_vcpu *vcpu)
{
	struct force_spec_ctrl *force = &to_vmx(vcpu)->force_spec_ctrl;

	if (!cpu_has_spec_ctrl_virt())
		return;

	vmcs_write64(IA32_SPEC_CTRL_MASK, force->mask);
	vmcs_write64(IA32_SPEC_CTRL_SHADOW, force->guest_view);
}

/* ---- IA32_SPEC_CTRL ------------------------------------------------------ */

/*
 * Before VM-Enter: the assembly code writes the MSR only if the value differs
 * from the host's variable, which may be wrong about the MSR, e.g. after S3.
 *
 * rule: entry.by-register
 */
void force_spec_ctrl_before_entry(struct kvm_vcpu *vcpu)
{
	u64 saved = to_vmx(vcpu)->spec_ctrl, held;

	if (!cpu_feature_enabled(X86_FEATURE_MSR_SPEC_CTRL) ||
	    saved != this_cpu_read(x86_spec_ctrl_current))
		return;

	rdmsrq(MSR_IA32_SPEC_CTRL, held);
	if (held != saved)
		wrmsrq(MSR_IA32_SPEC_CTRL, saved);
}

/*
 * After a VM-Exit: take over what the guest may have written without one.  The
 * assembly code has read the MSR into vmx->spec_ctrl under the same condition,
 * and has compared that with the host's value.  Where the guest cannot write
 * the MSR it compares two variables; if they agree, the MSR is looked at here.
 *
 * rule: exit.host-restored
 * rule: exit.saved-from-view
 * rule: exit.saved-is-hardware
 * rule: exit.view-taken
 */
void force_spec_ctrl_after_exit(struct kvm_vcpu *vcpu)
{
	struct vcpu_vmx *vmx = to_vmx(vcpu);
	struct force_spec_ctrl *force = &vmx->force_spec_ctrl;
	u64 host, held;

	if (!cpu_feature_enabled(X86_FEATURE_MSR_SPEC_CTRL))
		return;

	if (vmx_msr_write_intercepted(vmx, MSR_IA32_SPEC_CTRL)) {
		host = this_cpu_read(x86_spec_ctrl_current);
		if (vmx->spec_ctrl != host)
			return;
		rdmsrq(MSR_IA32_SPEC_CTRL, held);
		if (held != host)
			wrmsrq(MSR_IA32_SPEC_CTRL, host);
		return;
	}

	if (cpu_has_spec_ctrl_virt())
		force->guest_view = vmcs_read64(IA32_SPEC_CTRL_SHADOW);
	else
		force->guest_view = vmx->spec_ctrl;
	vmx->spec_ctrl = merge(force->guest_view, force->mask, force->value);
}

/* rule: access.read.view */
u64 force_spec_ctrl_read(struct kvm_vcpu *vcpu)
{
	return to_vmx(vcpu)->force_spec_ctrl.guest_view;
}

/*
 * A write that KVM performs, for the guest or for userspace.  Whether it is
 * refused is decided on the merged value, as the CPU does.
 *
 * rule: access.emulated.merged-decides
 * rule: access.emulated.view-and-saved
 * rule: access.no-msr.refused
 * rule: contract.write.merged-decides
 * rule: force.host-accepts
 * rule: force.zeros-too
 * rule: intercept.until-first-nonzero
 */
int force_spec_ctrl_write(struct kvm_vcpu *vcpu, u64 data)
{
	struct vcpu_vmx *vmx = to_vmx(vcpu);
	struct force_spec_ctrl *force = &vmx->force_spec_ctrl;
	u64 merged = merge(data, force->mask, force->value);

	if (kvm_spec_ctrl_test_value(merged))
		return 1;

	force->guest_view = data;
	vmx->spec_ctrl = merged;
	if (cpu_has_spec_ctrl_virt())
		vmcs_write64(IA32_SPEC_CTRL_SHADOW, data);
	if (data && may_pass_through(vcpu)) {
		force->passthrough = true;
		update_interception(vcpu);
	}
	return 0;
}

/* ---- the virtual MSRs ---------------------------------------------------- */

/* What KVM offers; rule: virt.feature-msrs */
int force_spec_ctrl_get_feature_msr(u32 index, u64 *data)
{
	*data = index == MSR_VIRTUAL_ENUMERATION ? VIRT_ENUM_VALID : MITI_ENUM_VALID;
	return 0;
}

/* rule: virt.enumeration.gate */
static bool shows_enumeration(struct kvm_vcpu *vcpu)
{
	return guest_cpu_cap_has(vcpu, X86_FEATURE_ARCH_CAPABILITIES) &&
	       (vcpu->arch.arch_capabilities & ARCH_CAP_VIRTUAL_ENUM);
}

/* rule: virt.ctrl.gate */
static bool shows_mitigation_ctrl(struct kvm_vcpu *vcpu)
{
	return shows_enumeration(vcpu) &&
	       (to_vmx(vcpu)->force_spec_ctrl.virtual_enumeration &
		VIRT_ENUM_MITIGATION_CTRL_SUPPORT);
}

/*
 * rule: virt.enumeration.gate
 * rule: virt.ctrl.gate
 * rule: virt.refusal.inval
 */
int force_spec_ctrl_get_virtual_msr(struct kvm_vcpu *vcpu, struct msr_data *msr_info)
{
	struct force_spec_ctrl *force = &to_vmx(vcpu)->force_spec_ctrl;
	bool host = msr_info->host_initiated;

	switch (msr_info->index) {
	case MSR_VIRTUAL_ENUMERATION:
		if (!host && !shows_enumeration(vcpu))
			return 1;
		msr_info->data = force->virtual_enumeration;
		return 0;
	case MSR_VIRTUAL_MITIGATION_ENUM:
		if (!host && !shows_mitigation_ctrl(vcpu))
			return 1;
		msr_info->data = force->mitigation_enum;
		return 0;
	default:
		if (!host && !shows_mitigation_ctrl(vcpu))
			return 1;
		msr_info->data = force->mitigation_ctrl;
		return 0;
	}
}

/*
 * A report.  Of the guest, a bit that it sets must be offered; such a bit may
 * be kept or cleared.
 *
 * rule: virt.ctrl.any-time
 * rule: virt.ctrl.offered
 * rule: virt.ctrl.reserved
 */
static int write_mitigation_ctrl(struct kvm_vcpu *vcpu, u64 data, bool host)
{
	struct force_spec_ctrl *force = &to_vmx(vcpu)->force_spec_ctrl;
	u64 newly_set = data & ~force->mitigation_ctrl;

	if (data & ~MITI_CTRL_VALID)
		return 1;
	if (!host && (newly_set & ~force->mitigation_enum))
		return 1;

	force->mitigation_ctrl = data;
	update_force(vcpu);
	return 0;
}

/*
 * rule: virt.read-only
 * rule: virt.host.valid-sets
 * rule: virt.ctrl.gate
 */
int force_spec_ctrl_set_virtual_msr(struct kvm_vcpu *vcpu, struct msr_data *msr_info)
{
	struct force_spec_ctrl *force = &to_vmx(vcpu)->force_spec_ctrl;
	bool host = msr_info->host_initiated;
	u64 data = msr_info->data;

	switch (msr_info->index) {
	case MSR_VIRTUAL_ENUMERATION:
		if (!host || (data & ~VIRT_ENUM_VALID))
			return 1;
		force->virtual_enumeration = data;
		return 0;
	case MSR_VIRTUAL_MITIGATION_ENUM:
		if (!host || (data & ~MITI_ENUM_VALID))
			return 1;
		force->mitigation_enum = data;
		return 0;
	default:
		if (!host && !shows_mitigation_ctrl(vcpu))
			return 1;
		return write_mitigation_ctrl(vcpu, data, host);
	}
}
