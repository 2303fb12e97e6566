/* SPDX-License-Identifier: (GPL-2.0 OR MIT) */
/*
 * Virtual IA32_SPEC_CTRL: the reference in C.
 *
 * What a hypervisor has to do so that its guest holds the bits that userspace
 * forces, or that the guest's own report asks for, at L1 and L2, through SMM,
 * INIT and migration.  Header only, C99, no allocation, plain structs; written
 * to be copied, with specctrl_regs.h.
 *
 * Part 1, up to "end of part 1", is what every hypervisor needs; it works alone,
 * with SPECCTRL_MINIMAL.  Part 2 is KVM's MSRs and ioctls, part 3 nesting and SMM.
 *
 * The processor, the MSR bitmap and the MSR filter are reached by the functions
 * under "Accessors", which are declared here and defined by whoever includes
 * this: sample.c does it for a toy, specctrl_cpu.h for the model that is tested.
 *
 * All of it runs between a VM exit and the next VM entry of the vCPU, under the
 * vCPU's lock.  "rule:" names what of the specification a function carries out;
 * specctrl rules show ID prints the sentence.
 */
#ifndef SPECCTRL_H
#define SPECCTRL_H

#ifdef __KERNEL__
#include <linux/string.h>
#include <linux/types.h>
#else
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#endif

#ifndef SPECCTRL_OWN_REGS		/* the tree has these names */
#include "specctrl_regs.h"
#endif

/* ---- Outcomes ---------------------------------------------------------- */

/*
 * What an operation ends in: the one convention of this file.  An outcome ends
 * the operation, not the state: what was done before it stays done.
 */
enum specctrl_result {
	SPECCTRL_DONE = 0,
	SPECCTRL_GP,			/* #GP for the guest */
	SPECCTRL_MSR_INVAL,		/* an access of an MSR is refused: in the order of */
	SPECCTRL_MSR_UNKNOWN,		/* the bits of KVM_CAP_X86_USER_SPACE_MSR */
	SPECCTRL_MSR_FILTER,
	SPECCTRL_EXIT_TO_USER,		/* KVM_EXIT_X86_RDMSR or WRMSR; see vcpu->msr_exit */
	SPECCTRL_REFLECTED,		/* L1 gets a VM exit instead */
	SPECCTRL_BLOCKED,		/* stays pending */
	SPECCTRL_NESTED_ENTRY_FAILED,	/* L1's VM entry; see vcpu->failed_entry */
	SPECCTRL_VMX_ABORT,		/* the vCPU is shut down */
	SPECCTRL_EINVAL,		/* errnos of ioctls */
	SPECCTRL_EEXIST,
	SPECCTRL_EFAULT,
	SPECCTRL_ENOTTY,
};

/* Such an outcome, as what a function returns: whoever calls it looks at it. */
#ifdef __GNUC__
#define specctrl_checked __attribute__((warn_unused_result)) enum specctrl_result
#else
#define specctrl_checked enum specctrl_result
#endif

/* ==== Part 1: what every hypervisor needs =============================== */

/* ---- Words ------------------------------------------------------------- */

/*
 * @value where @mask has a 1, @guest elsewhere.  With the force value this is
 * what a hypervisor computes; with the current MSR it is what the processor
 * writes.
 * rule: contract.effective.merge, processor.wrmsr.masked-kept
 */
static inline uint64_t specctrl_merge(uint64_t guest, uint64_t mask, uint64_t value)
{
	return (guest & ~mask) | (value & mask);
}

static inline bool specctrl_is_subset(uint64_t bits, uint64_t of)
{
	return !(bits & ~of);
}

/*
 * Put the bits that a guest requests on top of userspace's pair.  A bit that
 * userspace's mask has keeps userspace's value.
 * rule: contract.force.overlay, contract.force.nothing-else
 */
static inline void specctrl_overlay(uint64_t *mask, uint64_t *value, uint64_t requested)
{
	*value |= requested & ~*mask;
	*mask |= requested;
}

/* ---- The host ---------------------------------------------------------- */

/* What a processor has, or what a guest's CPUID shows. */
enum specctrl_feature {
	SPECCTRL_HAS_SPEC_CTRL		= 1 << 0,	/* CPUID.(7,0):EDX[26] */
	SPECCTRL_HAS_STIBP		= 1 << 1,	/* CPUID.(7,0):EDX[27] */
	SPECCTRL_HAS_SSBD		= 1 << 2,	/* CPUID.(7,0):EDX[31] */
	SPECCTRL_HAS_RRSBA_CTRL		= 1 << 3,	/* CPUID.(7,2):EDX[2] */
	SPECCTRL_HAS_BHI_CTRL		= 1 << 4,	/* CPUID.(7,2):EDX[4] */
	SPECCTRL_HAS_IPRED_CTRL		= 1 << 5,	/* CPUID.(7,2):EDX[1] */
	SPECCTRL_HAS_PSFD		= 1 << 6,	/* CPUID.(7,2):EDX[0] */
	SPECCTRL_HAS_DDPD_U		= 1 << 7,	/* CPUID.(7,2):EDX[3] */
	SPECCTRL_HAS_ARCH_CAPABILITIES	= 1 << 8,	/* CPUID.(7,0):EDX[29] */
	SPECCTRL_HAS_RRSBA		= 1 << 9,	/* ARCH_CAPABILITIES[19]; no CPUID bit */
	SPECCTRL_HAS_BHI_NO		= 1 << 10,	/* ARCH_CAPABILITIES[20]; no CPUID bit */
	SPECCTRL_HAS_AMD_IBRS		= 1 << 11,	/* CPUID.0x80000008:EBX[14]; these three */
	SPECCTRL_HAS_AMD_STIBP		= 1 << 12,	/* EBX[15]; only of a guest: KVM shows */
	SPECCTRL_HAS_AMD_SSBD		= 1 << 13,	/* EBX[24]; them on Intel hosts, too */
};

#define SPECCTRL_SHOW_MSR	(SPECCTRL_HAS_SPEC_CTRL | SPECCTRL_HAS_AMD_IBRS | \
				 SPECCTRL_HAS_AMD_STIBP | SPECCTRL_HAS_AMD_SSBD)	/* any of them */

struct specctrl_host {
	uint32_t features;	/* enum specctrl_feature */
	uint64_t spec_ctrl;	/* what the host itself runs with; nothing reserved */
	bool has_control;	/* "virtualize IA32_SPEC_CTRL" may be 1: MSR 0x492 bit 7 */
	bool nested;		/* KVM offers VMX to its guests */
	bool legacy_ibrs;	/* the host writes the MSR after every exit */
};

/* Whether it has all of these features. */
static inline bool specctrl_host_has(const struct specctrl_host *host, uint32_t features)
{
	return (host->features & features) == features;
}

#define SPECCTRL_CAN_RRSBA	(SPECCTRL_HAS_RRSBA_CTRL | SPECCTRL_HAS_RRSBA)

/*
 * The bits of IA32_SPEC_CTRL that are not reserved on a processor with these
 * features.  A simplification: without STIBP a processor with IBRS ignores bit
 * 1, as Xen has it; here it is reserved.
 */
static inline uint64_t specctrl_writable_bits(uint32_t features)
{
	return (features & SPECCTRL_HAS_SPEC_CTRL ? SPEC_CTRL_IBRS : 0) |
	       (features & SPECCTRL_HAS_STIBP ? SPEC_CTRL_STIBP : 0) |
	       (features & SPECCTRL_HAS_SSBD ? SPEC_CTRL_SSBD : 0) |
	       (features & SPECCTRL_HAS_IPRED_CTRL ?
		SPEC_CTRL_IPRED_DIS_U | SPEC_CTRL_IPRED_DIS_S : 0) |
	       (features & SPECCTRL_HAS_RRSBA_CTRL ?
		SPEC_CTRL_RRSBA_DIS_U | SPEC_CTRL_RRSBA_DIS_S : 0) |
	       (features & SPECCTRL_HAS_PSFD ? SPEC_CTRL_PSFD : 0) |
	       (features & SPECCTRL_HAS_DDPD_U ? SPEC_CTRL_DDPD_U : 0) |
	       (features & SPECCTRL_HAS_BHI_CTRL ? SPEC_CTRL_BHI_DIS_S : 0);
}

/* The MSR exists if some field of it does. */
static inline bool specctrl_host_has_msr(const struct specctrl_host *host)
{
	return specctrl_writable_bits(host->features);
}

/* The bits that can be forced to 1 on this host; rule: cap.supported.set */
static inline uint64_t specctrl_supported(const struct specctrl_host *host)
{
	if (!host->has_control)
		return 0;
	return SPEC_CTRL_IBRS |
	       (specctrl_host_has(host, SPECCTRL_HAS_STIBP) ? SPEC_CTRL_STIBP : 0) |
	       (specctrl_host_has(host, SPECCTRL_HAS_SSBD) ? SPEC_CTRL_SSBD : 0) |
	       (specctrl_host_has(host, SPECCTRL_CAN_RRSBA) ? SPEC_CTRL_RRSBA_DIS_S : 0) |
	       (specctrl_host_has(host, SPECCTRL_HAS_BHI_CTRL) ? SPEC_CTRL_BHI_DIS_S : 0);
}

/*
 * Whether userspace may force @value under @mask; @mask may have any bit.
 * rule: cap.enable.needs-support, cap.enable.value-supported, cap.enable.value-in-mask,
 *	 cap.enable.mask-arbitrary
 */
static inline bool specctrl_can_force(const struct specctrl_host *host, uint64_t mask,
				      uint64_t value)
{
	uint64_t supported = specctrl_supported(host);

	return supported && specctrl_is_subset(value, supported) && specctrl_is_subset(value, mask);
}

/*
 * The bits that a report, the value of MSR_VIRTUAL_MITIGATION_CTRL, asks for
 * and that this host can deliver.
 * rule: contract.force.deliverable, virt.report.silent
 */
static inline uint64_t specctrl_requested(const struct specctrl_host *host, uint64_t report)
{
	uint64_t bits = 0;

	if ((report & MITI_CTRL_BHB_CLEAR_SEQ_S_USED) &&
	    specctrl_host_has(host, SPECCTRL_HAS_BHI_CTRL) &&
	    !specctrl_host_has(host, SPECCTRL_HAS_BHI_NO))
		bits |= SPEC_CTRL_BHI_DIS_S;
	if ((report & MITI_CTRL_RETPOLINE_S_USED) && specctrl_host_has(host, SPECCTRL_CAN_RRSBA))
		bits |= SPEC_CTRL_RRSBA_DIS_S;
	return bits;
}

/* ---- The vCPU ---------------------------------------------------------- */

struct specctrl_msr {			/* an entry of an MSR list */
	uint32_t index;
	uint64_t value;
};

#ifndef SPECCTRL_MINIMAL
/*
 * What L1's VMCS for L2 says about MSRs.  Lists and bitmap are the caller's:
 * only the pointers are copied, here and into a saved nested state, so they must
 * last as long as L2 may run or be restored.
 */
struct specctrl_l1 {
	bool use_msr_bitmap;			/* without one every access of L2 goes to L1 */
	const void *bitmap;			/* for specctrl_l1_bitmap() */
	const uint32_t *exit_store;		/* the VM-exit MSR-store list */
	uint32_t nr_exit_store;
	const struct specctrl_msr *exit_load;	/* the VM-exit MSR-load list */
	uint32_t nr_exit_load;
};

/* What moves beside the MSRs: KVM_GET_NESTED_STATE, and the bits of KVM_GET_VCPU_EVENTS. */
struct specctrl_nested {
	bool vmx_operation;		/* L1 executed VMXON */
	bool run_pending;		/* L1's VM entry was emulated, L2 has not run yet */
	struct specctrl_l1 l1;
	bool smm;
	bool smm_left_level2;		/* RSM goes back to L2 */
	bool smm_left_vmx;		/* RSM goes back to VMX operation */
	bool init_pending;
};

struct specctrl_msr_exit {		/* an instruction that waits for userspace */
	bool pending;
	bool write;
	enum specctrl_result reason;	/* SPECCTRL_MSR_... */
	uint32_t index;
	uint64_t value;
};
#endif

struct specctrl_vcpu {
	const struct specctrl_host *host;
	uint32_t cpuid;			/* what the guest sees; enum specctrl_feature */
	bool level2;			/* the VMCS of L2, vmcs02, is loaded */

	uint64_t user_mask;		/* userspace's pair */
	uint64_t user_value;
	uint64_t mitigation_ctrl;	/* the guest's report; 0 without the virtual MSRs */
	uint64_t force_mask;		/* the pair in force: with the report on top */
	uint64_t force_value;

	uint64_t guest_view;		/* what the guest wrote and reads, as of an exit */
	uint64_t saved;			/* what the next VM entry loads */
	bool passthrough;		/* nothing but the filter wants an exit for the MSR */

#ifndef SPECCTRL_MINIMAL
	struct specctrl_vm *vm;
	uint64_t arch_capabilities;
	uint64_t virtual_enumeration;
	uint64_t mitigation_enum;

	bool has_run;			/* feature MSRs are frozen from then on */
	bool shut_down;			/* after a VMX abort, until a platform reset */
	struct specctrl_msr_exit msr_exit;

	struct specctrl_nested nested;
	bool bitmap_merge_pending;	/* KVM_RUN merges vmcs02's bitmap */
	uint32_t failed_entry;		/* of a VM-entry MSR-load list, from 1 */
#endif
};

/* ---- Accessors: define them, for your processor ------------------------- */

#ifndef SPECCTRL_ACCESSOR
#define SPECCTRL_ACCESSOR static inline		/* or extern, to link them from elsewhere */
#endif

/* RDMSR and WRMSR of IA32_SPEC_CTRL by the hypervisor, only of values that the MSR accepts. */
SPECCTRL_ACCESSOR uint64_t specctrl_rdmsr(struct specctrl_vcpu *vcpu);
SPECCTRL_ACCESSOR void specctrl_wrmsr(struct specctrl_vcpu *vcpu, uint64_t value);

/* Whether the MSR accepts a value: tried, as KVM does, or computed of specctrl_writable_bits(). */
SPECCTRL_ACCESSOR bool specctrl_accepts(const struct specctrl_vcpu *vcpu, uint64_t value);

/* VMWRITE and VMREAD of MASK and SHADOW in the loaded VMCS; called only with host->has_control. */
SPECCTRL_ACCESSOR void specctrl_write_mask(struct specctrl_vcpu *vcpu, uint64_t value);
SPECCTRL_ACCESSOR void specctrl_write_shadow(struct specctrl_vcpu *vcpu, uint64_t value);
SPECCTRL_ACCESSOR uint64_t specctrl_read_shadow(struct specctrl_vcpu *vcpu);

/* The MSR's bits in the bitmap of vmcs01 or vmcs02; without nesting there is no vmcs02. */
SPECCTRL_ACCESSOR bool specctrl_intercepted(const struct specctrl_vcpu *vcpu, bool vmcs02,
					    bool write);
SPECCTRL_ACCESSOR void specctrl_intercept(struct specctrl_vcpu *vcpu, bool vmcs02, bool write,
					  bool intercept);

/* Userspace's MSR filter; true without one. */
SPECCTRL_ACCESSOR bool specctrl_msr_allowed(const struct specctrl_vcpu *vcpu, uint32_t msr,
					    bool write);

#ifndef SPECCTRL_MINIMAL
/* VMPTRLD of vmcs01 or vmcs02. */
SPECCTRL_ACCESSOR void specctrl_switch_vmcs(struct specctrl_vcpu *vcpu, bool vmcs02);

/* L1's MSR bitmap, of an MSR that a bitmap covers; it is read from the guest's memory. */
SPECCTRL_ACCESSOR bool specctrl_l1_bitmap(const struct specctrl_vcpu *vcpu, uint32_t msr,
					  bool write);
#endif

/* ---- Which accesses exit ------------------------------------------------ */

/*
 * Whether the guest may access the MSR without an exit at all: it must see the
 * MSR, and without the control only interception keeps forced bits.
 * rule: intercept.hidden-msr, intercept.without-control
 */
static inline bool specctrl_may_pass_through(const struct specctrl_vcpu *vcpu)
{
	return (vcpu->cpuid & SPECCTRL_SHOW_MSR) &&
	       (vcpu->host->has_control || !vcpu->force_mask);
}

/*
 * Write vmcs01's bitmap.  An interception that is needed holds for L2 at once;
 * otherwise vmcs02's bitmap waits for its next merge.  To be called when the MSR
 * filter has changed, too.
 * rule: intercept.until-first-nonzero, intercept.without-control, filter.reintercepts,
 *	 filter.l2-until-merge
 */
static inline void specctrl_update_interception(struct specctrl_vcpu *vcpu)
{
	specctrl_intercept(vcpu, false, false, !vcpu->passthrough ||
			   !specctrl_msr_allowed(vcpu, MSR_IA32_SPEC_CTRL, false));
	specctrl_intercept(vcpu, false, true, !vcpu->passthrough ||
			   !specctrl_msr_allowed(vcpu, MSR_IA32_SPEC_CTRL, true));
	if (!vcpu->passthrough) {
		specctrl_intercept(vcpu, true, false, true);
		specctrl_intercept(vcpu, true, true, true);
	}
}

/*
 * After a change of the mask: without the control, intercept or stop doing so.
 * rule: intercept.without-control
 */
static inline void specctrl_update_passthrough(struct specctrl_vcpu *vcpu)
{
	if (!specctrl_may_pass_through(vcpu))
		vcpu->passthrough = false;
	else if (!vcpu->host->has_control && vcpu->guest_view)
		vcpu->passthrough = true;
	specctrl_update_interception(vcpu);
}

/* ---- What is forced ------------------------------------------------------ */

/*
 * Put userspace's pair and the report in force: mask, value, saved value, MASK
 * of the loaded VMCS, interception.  The other VMCS follows when it is loaded.
 * rule: cap.guest-cpuid.not-looked-at, cap.vcpu.report-recomputed, force.host-accepts,
 *	 force.mask-follows, force.zeros-too, virt.report.in-force, virt.report.per-vcpu
 */
static inline void specctrl_update_force(struct specctrl_vcpu *vcpu)
{
	uint64_t mask = vcpu->user_mask, value = vcpu->user_value;

	specctrl_overlay(&mask, &value, specctrl_requested(vcpu->host, vcpu->mitigation_ctrl));
	vcpu->force_mask = mask;
	vcpu->force_value = value;
	vcpu->saved = specctrl_merge(vcpu->guest_view, mask, value);
	if (vcpu->host->has_control)
		specctrl_write_mask(vcpu, mask);
	specctrl_update_passthrough(vcpu);
}

/*
 * Userspace forces a pair on this vCPU, at any time; KVM_CAP_FORCE_SPEC_CTRL on
 * its fd (proposed).  A narrower mask may uncover a bit of the view that the host
 * refuses: the merge is tried first.
 * rule: cap.vcpu.any-time, cap.vcpu.tried-on-host, force.host-accepts
 */
static inline specctrl_checked specctrl_vcpu_force(struct specctrl_vcpu *vcpu, uint64_t mask,
						   uint64_t value)
{
	uint64_t new_mask = mask, new_value = value;

	if (!specctrl_can_force(vcpu->host, mask, value))
		return SPECCTRL_EINVAL;
	specctrl_overlay(&new_mask, &new_value,
			 specctrl_requested(vcpu->host, vcpu->mitigation_ctrl));
	if (!specctrl_accepts(vcpu, specctrl_merge(vcpu->guest_view, new_mask, new_value)))
		return SPECCTRL_EINVAL;
	vcpu->user_mask = mask;
	vcpu->user_value = value;
	specctrl_update_force(vcpu);
	return SPECCTRL_DONE;
}

/*
 * MASK and SHADOW become what holds now, in a VMCS that was loaded.  For every
 * way there: creation, nested entry and exit, a failed entry, SMI, RSM, restored
 * nested state.
 * rule: contract.level.one-view, force.mask-follows, nested.mask-both, nested.entry.view,
 *	 nested.exit.view, nested.no-control-for-l1
 */
static inline void specctrl_vmcs_loaded(struct specctrl_vcpu *vcpu)
{
	if (vcpu->host->has_control) {
		specctrl_write_mask(vcpu, vcpu->force_mask);
		specctrl_write_shadow(vcpu, vcpu->guest_view);
	}
}

/*
 * A new vCPU, zeroed but for what the accessors need; its vmcs01 is loaded, and
 * "virtualize IA32_SPEC_CTRL" is 1 in both VMCSs on every host that has it.
 * rule: cap.vcpu.starts-with-vm-pair, nested.no-control-for-l1
 */
static inline void specctrl_create(struct specctrl_vcpu *vcpu, const struct specctrl_host *host,
				   uint32_t cpuid, uint64_t mask, uint64_t value)
{
	vcpu->host = host;
	vcpu->cpuid = cpuid;
	vcpu->user_mask = mask;
	vcpu->user_value = value;
	specctrl_update_force(vcpu);
	specctrl_vmcs_loaded(vcpu);
}

/* ---- VM entry and VM exit ------------------------------------------------ */

/*
 * Whether the register holds the saved value: only if that is the host's is it read,
 * as what the host believes may be wrong; rule: entry.by-register
 */
static inline bool specctrl_register_is_saved(struct specctrl_vcpu *vcpu)
{
	return vcpu->saved == vcpu->host->spec_ctrl && vcpu->saved == specctrl_rdmsr(vcpu);
}

/* The last before VM entry; rule: entry.loads-saved */
static inline void specctrl_enter_guest(struct specctrl_vcpu *vcpu)
{
	if (specctrl_host_has_msr(vcpu->host) && !specctrl_register_is_saved(vcpu))
		specctrl_wrmsr(vcpu, vcpu->saved);
}

/*
 * The first after a VM exit.  The register is read, unless the guest could not
 * write it and the host's value is written back in any case.
 * rule: exit.host-restored, exit.saved-from-view, exit.saved-is-hardware, exit.view-taken
 */
static inline void specctrl_exit_guest(struct specctrl_vcpu *vcpu)
{
	bool intercepted = specctrl_intercepted(vcpu, vcpu->level2, true);
	bool read = !intercepted || vcpu->saved == vcpu->host->spec_ctrl;
	uint64_t held;

	if (!specctrl_host_has_msr(vcpu->host))
		return;
	held = read ? specctrl_rdmsr(vcpu) : vcpu->saved;
	if (!intercepted) {
		vcpu->guest_view = vcpu->host->has_control ? specctrl_read_shadow(vcpu) : held;
		vcpu->saved = specctrl_merge(vcpu->guest_view, vcpu->force_mask, vcpu->force_value);
	}
	if (held != vcpu->host->spec_ctrl || vcpu->host->legacy_ibrs)
		specctrl_wrmsr(vcpu, vcpu->host->spec_ctrl);
}

/* ---- What the hypervisor writes for the guest ----------------------------- */

/*
 * A write of IA32_SPEC_CTRL that the hypervisor performs, for the guest, whose
 * WRMSR exited, or for userspace; a read of it is vcpu->guest_view.
 * rule: access.emulated.merged-decides, access.emulated.view-and-saved,
 *	 access.no-msr.refused, contract.write.merged-decides, force.host-accepts,
 *	 force.zeros-too, intercept.until-first-nonzero, migration.restorable,
 *	 nested.l0-intercept.emulated
 */
static inline specctrl_checked specctrl_write_spec_ctrl(struct specctrl_vcpu *vcpu, uint64_t value)
{
	uint64_t merged = specctrl_merge(value, vcpu->force_mask, vcpu->force_value);

	if (!specctrl_accepts(vcpu, merged))
		return SPECCTRL_MSR_INVAL;
	vcpu->guest_view = value;
	vcpu->saved = merged;
	if (vcpu->host->has_control)
		specctrl_write_shadow(vcpu, value);
	if (value && specctrl_may_pass_through(vcpu)) {
		vcpu->passthrough = true;
		specctrl_update_interception(vcpu);
	}
	return SPECCTRL_DONE;
}

/* A report that was taken; rule: virt.report.in-force */
static inline void specctrl_report(struct specctrl_vcpu *vcpu, uint64_t report)
{
	vcpu->mitigation_ctrl = report;
	specctrl_update_force(vcpu);
}

#ifndef SPECCTRL_INIT_WITHDRAWS_REPORT	/* assumed: see init.report.withdrawn */
#define SPECCTRL_INIT_WITHDRAWS_REPORT	true
#endif

/*
 * What INIT resets, outside VMX operation and SMM.
 * rule: init.interception-stays, init.report.withdrawn, init.userspace-stays,
 *	 init.view-zero
 */
static inline void specctrl_init_reset(struct specctrl_vcpu *vcpu)
{
	vcpu->guest_view = 0;
	if (SPECCTRL_INIT_WITHDRAWS_REPORT)
		vcpu->mitigation_ctrl = 0;
	specctrl_update_force(vcpu);
	if (vcpu->host->has_control)
		specctrl_write_shadow(vcpu, 0);
}

/* ==== end of part 1 ====================================================== */
#ifndef SPECCTRL_MINIMAL

/* ==== Part 2: KVM's MSRs and ioctls ====================================== */

/* ---- /dev/kvm ------------------------------------------------------------ */

/* KVM_CHECK_EXTENSION, on the /dev/kvm fd and on a VM fd; rule: cap.check.boolean */
static inline bool specctrl_check_extension(const struct specctrl_host *host, uint32_t cap)
{
	if (cap == KVM_CAP_FORCE_SPEC_CTRL)
		return specctrl_supported(host);
	return cap == KVM_CAP_X86_USER_SPACE_MSR || cap == KVM_CAP_X86_MSR_FILTER;
}

/*
 * KVM_GET_SUPPORTED_FORCE_SPEC_CTRL: an ioctl of the /dev/kvm fd.  @bits is
 * NULL where userspace's pointer cannot be written.
 * rule: cap.supported.ioctl-fd, cap.supported.bad-pointer
 */
static inline specctrl_checked specctrl_get_supported(const struct specctrl_host *host, bool vm_fd,
						      uint64_t *bits)
{
	if (vm_fd)
		return SPECCTRL_ENOTTY;
	if (!bits)
		return SPECCTRL_EFAULT;
	*bits = specctrl_supported(host);
	return SPECCTRL_DONE;
}

/* IA32_ARCH_CAPABILITIES as KVM offers it; rule: virt.feature-msrs */
static inline uint64_t specctrl_arch_capabilities(const struct specctrl_host *host)
{
	bool known = specctrl_host_has(host, SPECCTRL_HAS_ARCH_CAPABILITIES);

	return ARCH_CAP_VIRTUAL_ENUM |
	       (known && specctrl_host_has(host, SPECCTRL_HAS_RRSBA) ? ARCH_CAP_RRSBA : 0) |
	       (known && specctrl_host_has(host, SPECCTRL_HAS_BHI_NO) ? ARCH_CAP_BHI_NO : 0);
}

static inline bool specctrl_is_feature_msr(uint32_t msr)
{
	return msr == MSR_IA32_ARCH_CAPABILITIES || msr == MSR_VIRTUAL_ENUMERATION ||
	       msr == MSR_VIRTUAL_MITIGATION_ENUM;
}

/* One MSR of KVM_GET_MSRS on the /dev/kvm fd; rule: virt.feature-msrs */
static inline specctrl_checked specctrl_get_msr_feature(const struct specctrl_host *host,
							uint32_t msr, uint64_t *value)
{
	if (!specctrl_is_feature_msr(msr))
		return SPECCTRL_MSR_UNKNOWN;
	if (msr == MSR_IA32_ARCH_CAPABILITIES)
		*value = specctrl_arch_capabilities(host);
	else
		*value = msr == MSR_VIRTUAL_ENUMERATION ? VIRT_ENUM_VALID : MITI_ENUM_VALID;
	return SPECCTRL_DONE;
}

/*
 * KVM_GET_MSR_INDEX_LIST, as far as it goes here: how many there are, five at
 * the most; rule: virt.index-list
 */
static inline uint32_t specctrl_msr_index_list(const struct specctrl_host *host, uint32_t *msrs)
{
	uint32_t nmsrs = 0;

	if (specctrl_host_has_msr(host))
		msrs[nmsrs++] = MSR_IA32_SPEC_CTRL;
	msrs[nmsrs++] = MSR_IA32_ARCH_CAPABILITIES;
	msrs[nmsrs++] = MSR_VIRTUAL_ENUMERATION;
	msrs[nmsrs++] = MSR_VIRTUAL_MITIGATION_ENUM;
	msrs[nmsrs++] = MSR_VIRTUAL_MITIGATION_CTRL;
	return nmsrs;
}

/* ---- The VM --------------------------------------------------------------- */

#define SPECCTRL_MAX_VCPU_ID	4096

struct specctrl_vm {
	const struct specctrl_host *host;
	uint64_t user_mask;		/* what a vCPU starts with */
	uint64_t user_value;
	uint32_t created_vcpus;
	uint32_t exit_reasons;		/* args[0] of KVM_CAP_X86_USER_SPACE_MSR */
};

/*
 * KVM_CAP_FORCE_SPEC_CTRL on the VM fd, under kvm->lock.
 * rule: cap.enable.before-vcpus, cap.enable.needs-support, cap.enable.replaces,
 *	 cap.enable.value-supported, cap.enable.value-in-mask
 */
static inline specctrl_checked specctrl_vm_force(struct specctrl_vm *vm, uint64_t mask,
						 uint64_t value)
{
	if (vm->created_vcpus || !specctrl_can_force(vm->host, mask, value))
		return SPECCTRL_EINVAL;
	vm->user_mask = mask;
	vm->user_value = value;
	return SPECCTRL_DONE;
}

/*
 * KVM_ENABLE_CAP on the VM fd; @arg0 and @arg1 are args[0] and args[1].
 * rule: cap.enable.flags-zero, msr-exit.caps
 */
static inline specctrl_checked specctrl_vm_enable_cap(struct specctrl_vm *vm, uint32_t cap,
						      uint32_t flags, uint64_t arg0, uint64_t arg1)
{
	if (!flags && cap == KVM_CAP_FORCE_SPEC_CTRL)
		return specctrl_vm_force(vm, arg0, arg1);
	if (flags || cap != KVM_CAP_X86_USER_SPACE_MSR || !specctrl_is_subset(arg0, 7))
		return SPECCTRL_EINVAL;
	vm->exit_reasons = (uint32_t)arg0;
	return SPECCTRL_DONE;
}

/* The part of KVM_CREATE_VCPU that can fail; rule: cap.enable.failed-vcpu */
static inline specctrl_checked specctrl_vm_count_vcpu(struct specctrl_vm *vm, uint32_t id,
						      bool exists)
{
	if (id >= SPECCTRL_MAX_VCPU_ID)
		return SPECCTRL_EINVAL;
	if (exists)
		return SPECCTRL_EEXIST;
	vm->created_vcpus++;
	return SPECCTRL_DONE;
}

/*
 * KVM_CREATE_VCPU and KVM_SET_CPUID2, after specctrl_vm_count_vcpu(), which
 * freezes the VM's pair.
 * rule: cap.vcpu.starts-with-vm-pair, virt.created-zero
 */
static inline void specctrl_vcpu_create(struct specctrl_vcpu *vcpu, struct specctrl_vm *vm,
					uint32_t cpuid)
{
	memset(vcpu, 0, sizeof(*vcpu));
	vcpu->vm = vm;
	vcpu->arch_capabilities = specctrl_arch_capabilities(vm->host);
	specctrl_create(vcpu, vm->host, cpuid, vm->user_mask, vm->user_value);
}

/* KVM_ENABLE_CAP on the vCPU fd (proposed); rule: cap.enable.flags-zero, cap.vcpu.any-time */
static inline specctrl_checked specctrl_vcpu_enable_cap(struct specctrl_vcpu *vcpu, uint32_t cap,
							uint32_t flags, uint64_t mask,
							uint64_t value)
{
	if (flags || cap != KVM_CAP_FORCE_SPEC_CTRL)
		return SPECCTRL_EINVAL;
	return specctrl_vcpu_force(vcpu, mask, value);
}

/* ---- MSRs ------------------------------------------------------------------ */

/*
 * A report.  Of the guest, a bit that it sets must be offered; such a bit may
 * be kept or cleared.
 * rule: virt.ctrl.any-time, virt.ctrl.offered, virt.ctrl.reserved
 */
static inline specctrl_checked specctrl_write_mitigation_ctrl(struct specctrl_vcpu *vcpu,
							      uint64_t value, bool host_initiated)
{
	uint64_t newly_set = value & ~vcpu->mitigation_ctrl;

	if (!specctrl_is_subset(value, MITI_CTRL_VALID))
		return SPECCTRL_MSR_INVAL;
	if (!host_initiated && !specctrl_is_subset(newly_set, vcpu->mitigation_enum))
		return SPECCTRL_MSR_INVAL;
	specctrl_report(vcpu, value);
	return SPECCTRL_DONE;
}

/* Where the value of an MSR is; NULL of one that KVM does not have. */
static inline uint64_t *specctrl_msr_value(struct specctrl_vcpu *vcpu, uint32_t msr)
{
	switch (msr) {
	case MSR_IA32_SPEC_CTRL:
		return &vcpu->guest_view;
	case MSR_IA32_ARCH_CAPABILITIES:
		return &vcpu->arch_capabilities;
	case MSR_VIRTUAL_ENUMERATION:
		return &vcpu->virtual_enumeration;
	case MSR_VIRTUAL_MITIGATION_ENUM:
		return &vcpu->mitigation_enum;
	case MSR_VIRTUAL_MITIGATION_CTRL:
		return &vcpu->mitigation_ctrl;
	default:
		return NULL;
	}
}

/*
 * Whether the guest's CPUID and its other MSRs show it this MSR.
 * rule: access.cpuid-gate, virt.ctrl.gate, virt.enumeration.gate
 */
static inline bool specctrl_shows(const struct specctrl_vcpu *vcpu, uint32_t msr)
{
	if (msr == MSR_IA32_SPEC_CTRL)
		return vcpu->cpuid & SPECCTRL_SHOW_MSR;
	if (!(vcpu->cpuid & SPECCTRL_HAS_ARCH_CAPABILITIES))
		return false;
	if (msr == MSR_IA32_ARCH_CAPABILITIES)
		return true;
	if (!(vcpu->arch_capabilities & ARCH_CAP_VIRTUAL_ENUM))
		return false;
	return msr == MSR_VIRTUAL_ENUMERATION ||
	       (vcpu->virtual_enumeration & VIRT_ENUM_MITIGATION_CTRL_SUPPORT);
}

/*
 * An x2APIC MSR is known, and refused as the local APIC is not in x2APIC mode.
 * rule: access.read.view, contract.view.reads-back, migration.view-not-effective,
 *	 msr-exit.x2apic, virt.refusal.inval
 */
static inline specctrl_checked specctrl_get_msr(struct specctrl_vcpu *vcpu, uint32_t msr,
						uint64_t *value, bool host_initiated)
{
	const uint64_t *now = specctrl_msr_value(vcpu, msr);

	if (!now)
		return msr >= 0x800 && msr <= 0x8ff ? SPECCTRL_MSR_INVAL : SPECCTRL_MSR_UNKNOWN;
	if (!host_initiated && !specctrl_shows(vcpu, msr))
		return SPECCTRL_MSR_INVAL;
	*value = *now;
	return SPECCTRL_DONE;
}

/* rule: virt.host.valid-sets, virt.read-only */
static inline specctrl_checked specctrl_set_msr(struct specctrl_vcpu *vcpu, uint32_t msr,
						uint64_t value, bool host_initiated)
{
	uint64_t now, valid = ~0ULL;
	enum specctrl_result refused = specctrl_get_msr(vcpu, msr, &now, host_initiated);

	if (refused)
		return refused;
	if (msr == MSR_IA32_SPEC_CTRL)
		return specctrl_write_spec_ctrl(vcpu, value);
	if (msr == MSR_VIRTUAL_MITIGATION_CTRL)
		return specctrl_write_mitigation_ctrl(vcpu, value, host_initiated);
	if (msr == MSR_VIRTUAL_ENUMERATION)
		valid = VIRT_ENUM_VALID;
	if (msr == MSR_VIRTUAL_MITIGATION_ENUM)
		valid = MITI_ENUM_VALID;
	if (!host_initiated || !specctrl_is_subset(value, valid))
		return SPECCTRL_MSR_INVAL;
	*specctrl_msr_value(vcpu, msr) = value;
	return SPECCTRL_DONE;
}

/* A guest's RDMSR that KVM performs, or an entry of a list of L1; rule: filter.decides-first */
static inline specctrl_checked specctrl_emulate_rdmsr(struct specctrl_vcpu *vcpu, uint32_t msr,
						      uint64_t *value)
{
	if (!specctrl_msr_allowed(vcpu, msr, false))
		return SPECCTRL_MSR_FILTER;
	return specctrl_get_msr(vcpu, msr, value, false);
}

/* A guest's WRMSR that KVM performs, or an entry of a list of L1; rule: filter.decides-first */
static inline specctrl_checked specctrl_emulate_wrmsr(struct specctrl_vcpu *vcpu, uint32_t msr,
						      uint64_t value)
{
	if (!specctrl_msr_allowed(vcpu, msr, true))
		return SPECCTRL_MSR_FILTER;
	return specctrl_set_msr(vcpu, msr, value, false);
}

/*
 * One entry of KVM_SET_MSRS: after the first KVM_RUN a feature MSR takes only
 * the value that it has; rule: virt.frozen
 */
static inline specctrl_checked specctrl_do_set_msr(struct specctrl_vcpu *vcpu, uint32_t msr,
						   uint64_t value)
{
	uint64_t now = 0;

	if (vcpu->has_run && specctrl_is_feature_msr(msr)) {
		if (specctrl_get_msr(vcpu, msr, &now, true) || now != value)
			return SPECCTRL_MSR_INVAL;
		return SPECCTRL_DONE;
	}
	return specctrl_set_msr(vcpu, msr, value, true);
}

/*
 * KVM_GET_MSRS: how many were read, up to the first that is refused.
 * rule: filter.guest-only, migration.view-not-effective, set-msrs.stops
 */
static inline uint32_t specctrl_get_msrs(struct specctrl_vcpu *vcpu, const uint32_t *msrs,
					 uint32_t nmsrs, uint64_t *values)
{
	uint32_t i;

	for (i = 0; i < nmsrs; i++) {
		if (specctrl_get_msr(vcpu, msrs[i], &values[i], true))
			break;
	}
	return i;
}

/*
 * KVM_SET_MSRS: how many were written, up to the first that is refused.
 * rule: filter.guest-only, migration.any-order, set-msrs.stops
 */
static inline uint32_t specctrl_set_msrs(struct specctrl_vcpu *vcpu,
					 const struct specctrl_msr *msrs, uint32_t nmsrs)
{
	uint32_t i;

	for (i = 0; i < nmsrs; i++) {
		if (specctrl_do_set_msr(vcpu, msrs[i].index, msrs[i].value))
			break;
	}
	return i;
}

/*
 * An access of the guest that KVM refuses: an exit to userspace if it asked for
 * this reason, else #GP for the guest; rule: msr-exit.reasons
 */
static inline specctrl_checked specctrl_hand_over(struct specctrl_vcpu *vcpu, bool write,
						  enum specctrl_result reason, uint32_t msr,
						  uint64_t value)
{
	if (!(vcpu->vm->exit_reasons & 1u << (reason - SPECCTRL_MSR_INVAL)))
		return SPECCTRL_GP;
	vcpu->msr_exit.pending = true;
	vcpu->msr_exit.write = write;
	vcpu->msr_exit.reason = reason;
	vcpu->msr_exit.index = msr;
	vcpu->msr_exit.value = value;
	return SPECCTRL_EXIT_TO_USER;
}

/*
 * Userspace answers with KVM_RUN: the instruction completes, or takes #GP.  For
 * an RDMSR the value is userspace's; a WRMSR has no effect of KVM's own.
 * rule: msr-exit.completes
 */
static inline specctrl_checked specctrl_complete_msr_exit(struct specctrl_vcpu *vcpu, bool error)
{
	vcpu->msr_exit.pending = false;
	return error ? SPECCTRL_GP : SPECCTRL_DONE;
}

/* ==== Part 3: nested virtualization, INIT and SMM ========================= */

/* ---- L2's accesses --------------------------------------------------------- */

/*
 * Whether an access of L2 goes to L1: always, if no bitmap covers the MSR.
 * rule: nested.bitmap.merged, nested.reflect, nested.virtual-msrs.reflected
 */
static inline bool specctrl_l1_intercepts(const struct specctrl_vcpu *vcpu, uint32_t msr,
					  bool write)
{
	bool covered = msr < 0x2000 || (msr >= 0xc0000000 && msr < 0xc0002000);

	return !vcpu->nested.l1.use_msr_bitmap || !covered || specctrl_l1_bitmap(vcpu, msr, write);
}

/*
 * vmcs02 intercepts what L1's bitmap or vmcs01's bitmap intercepts.
 * rule: filter.l2-until-merge, nested.bitmap.merged
 */
static inline void specctrl_merge_bitmap(struct specctrl_vcpu *vcpu)
{
	specctrl_intercept(vcpu, true, false, specctrl_intercepted(vcpu, false, false) ||
			   specctrl_l1_intercepts(vcpu, MSR_IA32_SPEC_CTRL, false));
	specctrl_intercept(vcpu, true, true, specctrl_intercepted(vcpu, false, true) ||
			   specctrl_l1_intercepts(vcpu, MSR_IA32_SPEC_CTRL, true));
}

/*
 * KVM_RUN, up to VM entry: a merge that waits, then the value that the entry
 * loads; rule: nested.bitmap.when
 */
static inline void specctrl_run(struct specctrl_vcpu *vcpu)
{
	if (vcpu->bitmap_merge_pending && vcpu->level2)
		specctrl_merge_bitmap(vcpu);
	vcpu->bitmap_merge_pending = false;
	vcpu->nested.run_pending = false;
	vcpu->has_run = true;
	specctrl_enter_guest(vcpu);
}

/* ---- Between L1 and L2 ------------------------------------------------------ */

/* rule: contract.level.one-view, nested.mask-both */
static inline void specctrl_load_vmcs(struct specctrl_vcpu *vcpu, bool level2)
{
	vcpu->level2 = level2;
	specctrl_switch_vmcs(vcpu, level2);
	specctrl_vmcs_loaded(vcpu);
}

/* rule: nested.bitmap.when, nested.entry.view */
static inline void specctrl_load_vmcs02(struct specctrl_vcpu *vcpu)
{
	specctrl_merge_bitmap(vcpu);
	specctrl_load_vmcs(vcpu, true);
}

/* To L2 without an instruction of L1; rule: nested.bitmap.when */
static inline void specctrl_return_to_l2(struct specctrl_vcpu *vcpu)
{
	specctrl_load_vmcs02(vcpu);
	vcpu->bitmap_merge_pending = true;
}

/*
 * Back to vmcs01, with the view that holds now: after a VM exit of L2, a VM entry
 * of L1 that fails half-way, and without either for SMI, KVM_SET_NESTED_STATE and
 * a platform reset.  No list is performed.
 * rule: nested.exit.view, nested.failed-entry.view, nested.set-state.no-lists,
 *	 nested.smi.no-lists
 */
static inline void specctrl_leave_nested(struct specctrl_vcpu *vcpu)
{
	vcpu->nested.run_pending = false;
	if (vcpu->level2)
		specctrl_load_vmcs(vcpu, false);
}

static inline specctrl_checked specctrl_abort(struct specctrl_vcpu *vcpu)
{
	vcpu->shut_down = true;
	return SPECCTRL_VMX_ABORT;
}

/*
 * L1's VM-exit MSR-load list, with vmcs01 loaded: writes of the guest.
 * rule: msr-exit.lists-never-exit, nested.lists.abort, nested.lists.guest-writes
 */
static inline specctrl_checked specctrl_exit_load(struct specctrl_vcpu *vcpu,
						  const struct specctrl_msr *load, uint32_t nr_load)
{
	uint32_t i;

	for (i = 0; i < nr_load; i++) {
		if (specctrl_emulate_wrmsr(vcpu, load[i].index, load[i].value))
			return specctrl_abort(vcpu);
	}
	return SPECCTRL_DONE;
}

/*
 * A VM exit from L2 to L1, after the exit to KVM: L1's store list, vmcs01, L1's
 * load list.  @stored has room for @nr_store values.
 * rule: msr-exit.lists-never-exit, nested.exit.view, nested.lists.abort,
 *	 nested.lists.store-view
 */
static inline specctrl_checked specctrl_nested_exit(struct specctrl_vcpu *vcpu,
						    const uint32_t *store, uint32_t nr_store,
						    uint64_t *stored,
						    const struct specctrl_msr *load,
						    uint32_t nr_load)
{
	uint64_t value;
	uint32_t i;

	for (i = 0; i < nr_store; i++) {
		if (specctrl_emulate_rdmsr(vcpu, store[i], &value)) {
			specctrl_leave_nested(vcpu);
			return specctrl_abort(vcpu);
		}
		if (stored)
			stored[i] = value;
	}
	specctrl_leave_nested(vcpu);
	return specctrl_exit_load(vcpu, load, nr_load);
}

/* An exit of L2 goes to L1, with the lists that L1 gave at entry; rule: nested.reflect */
static inline specctrl_checked specctrl_reflect(struct specctrl_vcpu *vcpu)
{
	const struct specctrl_l1 *l1 = &vcpu->nested.l1;

	if (specctrl_nested_exit(vcpu, l1->exit_store, l1->nr_exit_store, NULL,
				 l1->exit_load, l1->nr_exit_load))
		return SPECCTRL_VMX_ABORT;
	return SPECCTRL_REFLECTED;
}

/*
 * A pending INIT takes effect, unless SMM blocks it, or VMX operation while L1
 * runs: a VM exit to L1 if L2 is loaded, else a reset.
 * rule: nested.init.blocked, nested.init.delivered, nested.init.reflected
 */
static inline specctrl_checked specctrl_deliver_init(struct specctrl_vcpu *vcpu)
{
	if (!vcpu->nested.init_pending || vcpu->nested.smm)
		return SPECCTRL_DONE;
	if (vcpu->level2) {
		vcpu->nested.init_pending = false;
		return specctrl_reflect(vcpu);
	}
	if (!vcpu->nested.vmx_operation) {
		vcpu->nested.init_pending = false;
		specctrl_init_reset(vcpu);
	}
	return SPECCTRL_DONE;
}

/*
 * L1's VMLAUNCH or VMRESUME, after the exit that it causes.  The VM-entry
 * MSR-load list is performed as writes of the guest, with vmcs02 loaded.  An INIT
 * that was pending goes to L1 before L2's first instruction.
 * rule: msr-exit.lists-never-exit, nested.bitmap.when, nested.failed-entry.view,
 *	 nested.init.delivered, nested.lists.fail-half, nested.lists.guest-writes,
 *	 nested.no-control-for-l1, nested.report-from-list
 */
static inline specctrl_checked specctrl_nested_enter(struct specctrl_vcpu *vcpu,
						     const struct specctrl_l1 *l1,
						     const struct specctrl_msr *load,
						     uint32_t nr_load)
{
	uint32_t i;

	vcpu->nested.vmx_operation = true;
	vcpu->nested.l1 = *l1;
	vcpu->nested.run_pending = true;
	specctrl_load_vmcs02(vcpu);
	for (i = 0; i < nr_load; i++) {
		if (!specctrl_emulate_wrmsr(vcpu, load[i].index, load[i].value))
			continue;
		vcpu->failed_entry = i + 1;
		specctrl_leave_nested(vcpu);
		if (specctrl_exit_load(vcpu, l1->exit_load, l1->nr_exit_load))
			return SPECCTRL_VMX_ABORT;
		return SPECCTRL_NESTED_ENTRY_FAILED;
	}
	return specctrl_deliver_init(vcpu);
}

/*
 * The exit of an RDMSR of the guest, at the level that runs.
 * rule: nested.l0-intercept.emulated, nested.reflect
 */
static inline specctrl_checked specctrl_handle_rdmsr(struct specctrl_vcpu *vcpu, uint32_t msr,
						     uint64_t *value)
{
	enum specctrl_result refused;

	if (vcpu->level2 && specctrl_l1_intercepts(vcpu, msr, false))
		return specctrl_reflect(vcpu);
	refused = specctrl_emulate_rdmsr(vcpu, msr, value);
	return refused ? specctrl_hand_over(vcpu, false, refused, msr, 0) : SPECCTRL_DONE;
}

/*
 * The exit of a WRMSR of the guest, at the level that runs.
 * rule: nested.l0-intercept.emulated, nested.reflect
 */
static inline specctrl_checked specctrl_handle_wrmsr(struct specctrl_vcpu *vcpu, uint32_t msr,
						     uint64_t value)
{
	enum specctrl_result refused;

	if (vcpu->level2 && specctrl_l1_intercepts(vcpu, msr, true))
		return specctrl_reflect(vcpu);
	refused = specctrl_emulate_wrmsr(vcpu, msr, value);
	return refused ? specctrl_hand_over(vcpu, true, refused, msr, value) : SPECCTRL_DONE;
}

/* ---- Saved state ------------------------------------------------------------ */

struct specctrl_nested_state {
	struct specctrl_nested nested;
	bool level2;
};

/* KVM_GET_NESTED_STATE; rule: migration.nested-state.no-msrs */
static inline void specctrl_get_nested_state(const struct specctrl_vcpu *vcpu,
					     struct specctrl_nested_state *state)
{
	state->nested = vcpu->nested;
	state->level2 = vcpu->level2;
}

/*
 * KVM_SET_NESTED_STATE: leaves L2 first; a saved L2 is loaded with the view that
 * holds now.
 * rule: migration.any-order, migration.nested-state.no-msrs, nested.bitmap.when,
 *	 nested.set-state.no-lists
 */
static inline specctrl_checked
specctrl_set_nested_state(struct specctrl_vcpu *vcpu, const struct specctrl_nested_state *state)
{
	if (((state->nested.vmx_operation || state->nested.smm_left_vmx) && !vcpu->host->nested) ||
	    (state->nested.run_pending && !state->level2))
		return SPECCTRL_EINVAL;
	specctrl_leave_nested(vcpu);
	vcpu->nested = state->nested;
	if (state->level2)
		specctrl_return_to_l2(vcpu);
	return SPECCTRL_DONE;
}

/* ---- INIT, SMM, reset --------------------------------------------------------- */

/* INIT, then SIPI; rule: nested.init.blocked, nested.init.reflected */
static inline specctrl_checked specctrl_init(struct specctrl_vcpu *vcpu)
{
	enum specctrl_result ret;

	vcpu->nested.init_pending = true;
	ret = specctrl_deliver_init(vcpu);
	return vcpu->nested.init_pending ? SPECCTRL_BLOCKED : ret;
}

/* L1 leaves VMX operation; rule: nested.init.delivered */
static inline specctrl_checked specctrl_vmxoff(struct specctrl_vcpu *vcpu)
{
	vcpu->nested.vmx_operation = false;
	return specctrl_deliver_init(vcpu);
}

/*
 * An SMI: SMM runs at level 1, out of VMX operation.
 * rule: nested.smi.no-lists, nested.smi.view
 */
static inline void specctrl_smi(struct specctrl_vcpu *vcpu)
{
	vcpu->nested.smm = true;
	vcpu->nested.smm_left_level2 = vcpu->level2;
	vcpu->nested.smm_left_vmx = vcpu->nested.vmx_operation;
	vcpu->nested.vmx_operation = false;
	specctrl_leave_nested(vcpu);
}

/*
 * RSM: back to where the SMI came, with the view that SMM left; a pending INIT
 * takes effect, or goes to L1 if L2 is back.
 * rule: nested.bitmap.when, nested.init.delivered, nested.smi.no-lists, nested.smi.view
 */
static inline specctrl_checked specctrl_rsm(struct specctrl_vcpu *vcpu)
{
	vcpu->nested.smm = false;
	vcpu->nested.vmx_operation = vcpu->nested.smm_left_vmx;
	if (vcpu->nested.smm_left_level2)
		specctrl_return_to_l2(vcpu);
	vcpu->nested.smm_left_vmx = false;
	vcpu->nested.smm_left_level2 = false;
	return specctrl_deliver_init(vcpu);
}

/*
 * A platform reset that userspace performs with ioctls: of its two writes of
 * MSRs it looks at neither, and none is refused.
 * rule: nested.set-state.no-lists, reset.userspace
 */
static inline specctrl_checked specctrl_platform_reset(struct specctrl_vcpu *vcpu)
{
	enum specctrl_result ret = SPECCTRL_DONE;

	specctrl_leave_nested(vcpu);
	memset(&vcpu->nested, 0, sizeof(vcpu->nested));
	vcpu->shut_down = false;
	if (specctrl_host_has_msr(vcpu->host))
		ret = specctrl_do_set_msr(vcpu, MSR_IA32_SPEC_CTRL, 0);
	return ret ? ret : specctrl_do_set_msr(vcpu, MSR_VIRTUAL_MITIGATION_CTRL, 0);
}

#endif /* !SPECCTRL_MINIMAL */
#endif /* SPECCTRL_H */
