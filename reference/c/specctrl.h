/* SPDX-License-Identifier: (GPL-2.0 OR MIT) */
/*
 * Virtual IA32_SPEC_CTRL: the reference in C.
 *
 * One vCPU as far as IA32_SPEC_CTRL goes: what the processor does, and what KVM
 * has to do so that the guest holds the bits that userspace forces, or that the
 * guest's own report asks for, at L1 and L2, through SMM, INIT and migration.
 *
 * Header only, C99, no allocation, nothing but plain structs.  Written to be
 * copied, with specctrl_regs.h: a KVM developer leaves the processor out and puts
 * rdmsrq(), wrmsrq_safe(), vmcs_read64() and vmcs_write64() in its place.
 *
 * Hooks, both given by the caller:
 *   vm->msr_allowed   what the VM's MSR filter says of an access of the guest
 *   l1->intercepts    what L1's MSR bitmap says of an access of L2
 *
 * "rule: ID HASH" names a rule of the specification that the function carries
 * out, and the hash of the rule's text when the function was last reviewed
 * against it; `specctrl reference` says which have changed since.
 */
#ifndef SPECCTRL_H
#define SPECCTRL_H

#ifdef __KERNEL__
#include <linux/errno.h>
#include <linux/string.h>
#include <linux/types.h>
#else
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
typedef uint32_t u32;
typedef uint64_t u64;
#endif

#include "specctrl_regs.h"

/* ---- Words ------------------------------------------------------------- */

/*
 * @value where @mask has a 1, @guest elsewhere.  With the force value this is
 * what KVM computes; with the current MSR it is what the processor writes.
 *
 * rule: contract.effective.merge 6b7da674
 * rule: processor.wrmsr.masked-kept 3d2b8210
 */
static inline u64 specctrl_merge(u64 guest, u64 mask, u64 value)
{
	return (guest & ~mask) | (value & mask);
}

static inline bool specctrl_is_subset(u64 bits, u64 of)
{
	return !(bits & ~of);
}

/*
 * Put the bits that a guest requests on top of userspace's pair.  A bit that
 * userspace's mask has keeps userspace's value.
 *
 * rule: contract.force.overlay 212582f4
 * rule: contract.force.nothing-else 3954b4d9
 */
static inline void specctrl_overlay(u64 *mask, u64 *value, u64 requested)
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
};

struct specctrl_host {
	u32 features;		/* enum specctrl_feature */
	u64 spec_ctrl;		/* what the host itself runs with: of specctrl_writable_bits() only */
	bool has_control;	/* "virtualize IA32_SPEC_CTRL" may be 1: MSR 0x492 bit 7; only with the MSR */
	bool nested;		/* KVM offers VMX to its guests */
	bool legacy_ibrs;	/* the host writes the MSR after every exit */
};

static inline bool specctrl_host_has(const struct specctrl_host *host, u32 feature)
{
	return host->features & feature;
}

/*
 * The bits of IA32_SPEC_CTRL that are not reserved on a processor with these
 * features.  A simplification: without STIBP a processor with IBRS ignores bit
 * 1, as Xen has it; here it is reserved.
 */
static inline u64 specctrl_writable_bits(u32 features)
{
	u64 bits = 0;

	if (features & SPECCTRL_HAS_SPEC_CTRL)
		bits |= SPEC_CTRL_IBRS;
	if (features & SPECCTRL_HAS_STIBP)
		bits |= SPEC_CTRL_STIBP;
	if (features & SPECCTRL_HAS_SSBD)
		bits |= SPEC_CTRL_SSBD;
	if (features & SPECCTRL_HAS_IPRED_CTRL)
		bits |= SPEC_CTRL_IPRED_DIS_U | SPEC_CTRL_IPRED_DIS_S;
	if (features & SPECCTRL_HAS_RRSBA_CTRL)
		bits |= SPEC_CTRL_RRSBA_DIS_U | SPEC_CTRL_RRSBA_DIS_S;
	if (features & SPECCTRL_HAS_PSFD)
		bits |= SPEC_CTRL_PSFD;
	if (features & SPECCTRL_HAS_DDPD_U)
		bits |= SPEC_CTRL_DDPD_U;
	if (features & SPECCTRL_HAS_BHI_CTRL)
		bits |= SPEC_CTRL_BHI_DIS_S;
	return bits;
}

/* The MSR exists if some field of it does. */
static inline bool specctrl_host_has_msr(const struct specctrl_host *host)
{
	return specctrl_writable_bits(host->features);
}

/*
 * The bits that can be forced to 1 on this host.
 *
 * rule: cap.supported.set 8a23e8bc
 */
static inline u64 specctrl_supported(const struct specctrl_host *host)
{
	u64 bits = SPEC_CTRL_IBRS;

	if (!host->has_control)
		return 0;
	if (specctrl_host_has(host, SPECCTRL_HAS_STIBP))
		bits |= SPEC_CTRL_STIBP;
	if (specctrl_host_has(host, SPECCTRL_HAS_SSBD))
		bits |= SPEC_CTRL_SSBD;
	if (specctrl_host_has(host, SPECCTRL_HAS_RRSBA_CTRL) &&
	    specctrl_host_has(host, SPECCTRL_HAS_RRSBA))
		bits |= SPEC_CTRL_RRSBA_DIS_S;
	if (specctrl_host_has(host, SPECCTRL_HAS_BHI_CTRL))
		bits |= SPEC_CTRL_BHI_DIS_S;
	return bits;
}

/*
 * Whether userspace may force @value under @mask; @mask may have any bit.
 *
 * rule: cap.enable.needs-support 743d22fe
 * rule: cap.enable.value-supported b629311a
 * rule: cap.enable.value-in-mask 14a39c09
 * rule: cap.enable.mask-arbitrary 3b87e89a
 */
static inline bool specctrl_can_force(const struct specctrl_host *host, u64 mask, u64 value)
{
	u64 supported = specctrl_supported(host);

	return supported && specctrl_is_subset(value, supported) && specctrl_is_subset(value, mask);
}

/*
 * The bits that a report, the value of MSR_VIRTUAL_MITIGATION_CTRL, asks for
 * and that this host can deliver.
 *
 * rule: contract.force.deliverable 40aed6e3
 * rule: virt.report.silent 2b5214a0
 */
static inline u64 specctrl_requested(const struct specctrl_host *host, u64 report)
{
	u64 bits = 0;

	if ((report & MITI_CTRL_BHB_CLEAR_SEQ_S_USED) &&
	    specctrl_host_has(host, SPECCTRL_HAS_BHI_CTRL) &&
	    !specctrl_host_has(host, SPECCTRL_HAS_BHI_NO))
		bits |= SPEC_CTRL_BHI_DIS_S;
	if ((report & MITI_CTRL_RETPOLINE_S_USED) &&
	    specctrl_host_has(host, SPECCTRL_HAS_RRSBA_CTRL) &&
	    specctrl_host_has(host, SPECCTRL_HAS_RRSBA))
		bits |= SPEC_CTRL_RRSBA_DIS_S;
	return bits;
}

/* ---- What an operation can end in -------------------------------------- */

/* An outcome ends the operation, not the state: what was done before it stays done. */
enum specctrl_result {
	SPECCTRL_DONE = 0,
	SPECCTRL_GP,			/* #GP */
	SPECCTRL_HOST_GP,		/* #GP of the host's own WRMSR: an oops */
	SPECCTRL_VM_EXIT,		/* the bitmap intercepts; nothing was executed */
	SPECCTRL_VMFAIL_CONTROLS,	/* VM-instruction error 7 */
	SPECCTRL_VMFAIL_FIELD,		/* VM-instruction error 12 */
	SPECCTRL_VM_ENTRY_FAILED,	/* exit reason 34: the VM-entry MSR-load area */
	SPECCTRL_VMX_ABORT,
	SPECCTRL_EXIT_TO_USER,		/* KVM_EXIT_X86_RDMSR or WRMSR; see vcpu->msr_exit */
	SPECCTRL_REFLECTED,		/* L1 gets a VM exit instead */
	SPECCTRL_BLOCKED,		/* stays pending */
	SPECCTRL_NESTED_ENTRY_FAILED,	/* L1's VM entry; see vcpu->failed_entry */
};

/* ---- The processor ----------------------------------------------------- */

struct specctrl_area {			/* IA32_SPEC_CTRL in one of L0's MSR areas */
	bool present;
	u64 value;
};

struct specctrl_vmcs {
	bool virtualize;		/* tertiary VM-execution control, bit 7 */
	u64 mask;			/* 0x204A: bits that the guest cannot change */
	u64 shadow;			/* 0x204C: what the guest reads */
	bool use_msr_bitmap;		/* without one every RDMSR and WRMSR exits */
	bool intercept_read;		/* the bitmap's bits for IA32_SPEC_CTRL */
	bool intercept_write;
	struct specctrl_area entry_load;
	struct specctrl_area exit_store;
	struct specctrl_area exit_load;
};

struct specctrl_cpu {
	u64 writable;			/* the bits that are not reserved */
	bool has_control;
	bool entry_loads_shadow;	/* assumption, false: see processor.entry.no-load */
	bool non_root;			/* VMX non-root operation: guest code runs */
	u64 spec_ctrl;			/* the register itself */
};

/*
 * Whether a write to the real MSR completes: not with a reserved bit, and not
 * where there is no MSR, where even 0 is refused.
 *
 * rule: access.no-msr.refused 84c1f91d
 * rule: processor.wrmsr.fault-on-merged c31baa85
 */
static inline bool specctrl_cpu_accepts(const struct specctrl_cpu *cpu, u64 value)
{
	return cpu->writable && specctrl_is_subset(value, cpu->writable);
}

/* rule: processor.root.real-msr ca02d80b */
static inline enum specctrl_result specctrl_cpu_rdmsr(const struct specctrl_cpu *cpu, u64 *value)
{
	if (!cpu->writable)
		return SPECCTRL_GP;
	*value = cpu->spec_ctrl;
	return SPECCTRL_DONE;
}

/* rule: processor.root.real-msr ca02d80b */
static inline enum specctrl_result specctrl_cpu_wrmsr(struct specctrl_cpu *cpu, u64 value)
{
	if (!specctrl_cpu_accepts(cpu, value))
		return SPECCTRL_GP;
	cpu->spec_ctrl = value;
	return SPECCTRL_DONE;
}

/*
 * RDMSR of IA32_SPEC_CTRL in VMX non-root operation.
 *
 * rule: processor.intercept.first 05bd283f
 * rule: processor.rdmsr.shadow 4397712f
 * rule: processor.without-control.plain 1186c11f
 */
static inline enum specctrl_result specctrl_cpu_guest_rdmsr(const struct specctrl_cpu *cpu,
							    const struct specctrl_vmcs *vmcs,
							    u64 *value)
{
	if (!vmcs->use_msr_bitmap || vmcs->intercept_read)
		return SPECCTRL_VM_EXIT;
	if (!vmcs->virtualize)
		return specctrl_cpu_rdmsr(cpu, value);
	*value = vmcs->shadow;
	return SPECCTRL_DONE;
}

static inline bool specctrl_write_intercepted(const struct specctrl_vmcs *vmcs)
{
	return !vmcs->use_msr_bitmap || vmcs->intercept_write;
}

/*
 * WRMSR of IA32_SPEC_CTRL in VMX non-root operation.  With the control, masked
 * bits stay as they are in the MSR, the fault is decided on the merged value,
 * and the unmodified source becomes the shadow.
 *
 * rule: processor.intercept.first 05bd283f
 * rule: processor.without-control.plain 1186c11f
 * rule: processor.wrmsr.masked-kept 3d2b8210
 * rule: processor.wrmsr.fault-on-merged c31baa85
 * rule: processor.wrmsr.shadow-unmodified da404ecd
 */
static inline enum specctrl_result specctrl_cpu_guest_wrmsr(struct specctrl_cpu *cpu,
							    struct specctrl_vmcs *vmcs, u64 source)
{
	if (specctrl_write_intercepted(vmcs))
		return SPECCTRL_VM_EXIT;
	if (!vmcs->virtualize)
		return specctrl_cpu_wrmsr(cpu, source);
	if (specctrl_cpu_wrmsr(cpu, specctrl_merge(source, vmcs->mask, cpu->spec_ctrl)))
		return SPECCTRL_GP;
	vmcs->shadow = source;
	return SPECCTRL_DONE;
}

/* VMWRITE of IA32_SPEC_CTRL_MASK; rule: processor.fields.need-control 9205a267 */
static inline enum specctrl_result specctrl_vmwrite_mask(const struct specctrl_cpu *cpu,
							 struct specctrl_vmcs *vmcs, u64 value)
{
	if (!cpu->has_control)
		return SPECCTRL_VMFAIL_FIELD;
	vmcs->mask = value;
	return SPECCTRL_DONE;
}

/* VMWRITE of IA32_SPEC_CTRL_SHADOW; rule: processor.fields.need-control 9205a267 */
static inline enum specctrl_result specctrl_vmwrite_shadow(const struct specctrl_cpu *cpu,
							   struct specctrl_vmcs *vmcs, u64 value)
{
	if (!cpu->has_control)
		return SPECCTRL_VMFAIL_FIELD;
	vmcs->shadow = value;
	return SPECCTRL_DONE;
}

/* VMREAD of IA32_SPEC_CTRL_SHADOW; rule: processor.fields.need-control 9205a267 */
static inline enum specctrl_result specctrl_vmread_shadow(const struct specctrl_cpu *cpu,
							  const struct specctrl_vmcs *vmcs,
							  u64 *value)
{
	if (!cpu->has_control)
		return SPECCTRL_VMFAIL_FIELD;
	*value = vmcs->shadow;
	return SPECCTRL_DONE;
}

/*
 * VM entry.  It leaves the MSR alone, unless the hypervisor put it into the
 * VM-entry MSR-load area.
 *
 * rule: processor.entry.control-checked ee9871ec
 * rule: processor.entry.no-load bcb599ca
 * rule: processor.areas.real-msr 0ffffc3e
 */
static inline enum specctrl_result specctrl_cpu_vm_entry(struct specctrl_cpu *cpu,
							 const struct specctrl_vmcs *vmcs)
{
	if (vmcs->virtualize && !cpu->has_control)
		return SPECCTRL_VMFAIL_CONTROLS;
	if (vmcs->entry_load.present && specctrl_cpu_wrmsr(cpu, vmcs->entry_load.value))
		return SPECCTRL_VM_ENTRY_FAILED;
	if (cpu->entry_loads_shadow && vmcs->virtualize &&
	    specctrl_cpu_wrmsr(cpu, specctrl_merge(vmcs->shadow, vmcs->mask, cpu->spec_ctrl)))
		return SPECCTRL_GP;
	cpu->non_root = true;
	return SPECCTRL_DONE;
}

/*
 * VM exit.  The MSR stays as the guest left it, unless it stands in a VM-exit
 * MSR area; these act on the MSR, not on the shadow.
 *
 * rule: processor.areas.real-msr 0ffffc3e
 */
static inline enum specctrl_result specctrl_cpu_vm_exit(struct specctrl_cpu *cpu,
							struct specctrl_vmcs *vmcs)
{
	cpu->non_root = false;
	if (vmcs->exit_store.present)
		vmcs->exit_store.value = cpu->spec_ctrl;
	if (vmcs->exit_load.present && specctrl_cpu_wrmsr(cpu, vmcs->exit_load.value))
		return SPECCTRL_VMX_ABORT;
	return SPECCTRL_DONE;
}

/* ---- KVM: the VM ------------------------------------------------------- */

#define SPECCTRL_MAX_VCPU_ID	4096

/* Why KVM refuses an MSR access, and what KVM_CAP_X86_USER_SPACE_MSR can ask for. */
#define SPECCTRL_MSR_INVAL	(1u << 0)
#define SPECCTRL_MSR_UNKNOWN	(1u << 1)
#define SPECCTRL_MSR_FILTER	(1u << 2)
#define SPECCTRL_MSR_REASONS	(SPECCTRL_MSR_INVAL | SPECCTRL_MSR_UNKNOWN | SPECCTRL_MSR_FILTER)

struct specctrl_vm {
	const struct specctrl_host *host;
	u64 user_mask;			/* what a vCPU starts with */
	u64 user_value;
	u32 created_vcpus;
	u32 exit_reasons;		/* args[0] of KVM_CAP_X86_USER_SPACE_MSR */

	/* Hook: the VM's MSR filter; NULL allows every access. */
	bool (*msr_allowed)(const struct specctrl_vm *vm, u32 msr, bool write);
	const void *msr_filter;		/* the hook's own */
};

static inline bool specctrl_msr_allowed(const struct specctrl_vm *vm, u32 msr, bool write)
{
	return !vm->msr_allowed || vm->msr_allowed(vm, msr, write);
}

/*
 * KVM_CHECK_EXTENSION, on the /dev/kvm fd and on a VM fd.
 *
 * rule: cap.check.boolean f0eeba64
 */
static inline int specctrl_check_extension(const struct specctrl_host *host, u32 cap)
{
	switch (cap) {
	case KVM_CAP_FORCE_SPEC_CTRL:
		return specctrl_supported(host) ? 1 : 0;
	case KVM_CAP_X86_USER_SPACE_MSR:
	case KVM_CAP_X86_MSR_FILTER:
		return 1;
	default:
		return 0;
	}
}

/*
 * KVM_GET_SUPPORTED_FORCE_SPEC_CTRL: an ioctl of the /dev/kvm fd.  @bits is
 * NULL where userspace's pointer cannot be written.
 *
 * rule: cap.supported.ioctl-fd 978969e3
 * rule: cap.supported.bad-pointer 46c15bc1
 */
static inline int specctrl_get_supported(const struct specctrl_host *host, bool vm_fd, u64 *bits)
{
	if (vm_fd)
		return -ENOTTY;
	if (!bits)
		return -EFAULT;
	*bits = specctrl_supported(host);
	return 0;
}

/* IA32_ARCH_CAPABILITIES as KVM offers it; rule: virt.feature-msrs df773a72 */
static inline u64 specctrl_arch_capabilities(const struct specctrl_host *host)
{
	u64 bits = ARCH_CAP_VIRTUAL_ENUM;

	if (!specctrl_host_has(host, SPECCTRL_HAS_ARCH_CAPABILITIES))
		return bits;
	if (specctrl_host_has(host, SPECCTRL_HAS_RRSBA))
		bits |= ARCH_CAP_RRSBA;
	if (specctrl_host_has(host, SPECCTRL_HAS_BHI_NO))
		bits |= ARCH_CAP_BHI_NO;
	return bits;
}

/*
 * One MSR of KVM_GET_MSRS on the /dev/kvm fd; SPECCTRL_MSR_UNKNOWN if it is no
 * feature MSR.
 *
 * rule: virt.feature-msrs df773a72
 */
static inline u32 specctrl_get_msr_feature(const struct specctrl_host *host, u32 msr, u64 *value)
{
	switch (msr) {
	case MSR_IA32_ARCH_CAPABILITIES:
		*value = specctrl_arch_capabilities(host);
		return 0;
	case MSR_VIRTUAL_ENUMERATION:
		*value = VIRT_ENUM_VALID;
		return 0;
	case MSR_VIRTUAL_MITIGATION_ENUM:
		*value = MITI_ENUM_VALID;
		return 0;
	default:
		return SPECCTRL_MSR_UNKNOWN;
	}
}

static inline bool specctrl_is_feature_msr(u32 msr)
{
	return msr == MSR_IA32_ARCH_CAPABILITIES || msr == MSR_VIRTUAL_ENUMERATION ||
	       msr == MSR_VIRTUAL_MITIGATION_ENUM;
}

/*
 * KVM_GET_MSR_INDEX_LIST, as far as it goes here; returns how many there are,
 * five at the most.
 *
 * rule: virt.index-list c8dec366
 */
static inline u32 specctrl_msr_index_list(const struct specctrl_host *host, u32 *msrs)
{
	u32 nmsrs = 0;

	if (specctrl_host_has_msr(host))
		msrs[nmsrs++] = MSR_IA32_SPEC_CTRL;
	msrs[nmsrs++] = MSR_IA32_ARCH_CAPABILITIES;
	msrs[nmsrs++] = MSR_VIRTUAL_ENUMERATION;
	msrs[nmsrs++] = MSR_VIRTUAL_MITIGATION_ENUM;
	msrs[nmsrs++] = MSR_VIRTUAL_MITIGATION_CTRL;
	return nmsrs;
}

/*
 * KVM_CAP_FORCE_SPEC_CTRL on the VM fd, under kvm->lock.
 *
 * rule: cap.enable.before-vcpus dccf036b
 * rule: cap.enable.needs-support 743d22fe
 * rule: cap.enable.value-supported b629311a
 * rule: cap.enable.value-in-mask 14a39c09
 * rule: cap.enable.replaces 34564d4a
 */
static inline int specctrl_vm_force(struct specctrl_vm *vm, u64 mask, u64 value)
{
	if (vm->created_vcpus)
		return -EINVAL;
	if (!specctrl_can_force(vm->host, mask, value))
		return -EINVAL;
	vm->user_mask = mask;
	vm->user_value = value;
	return 0;
}

/*
 * KVM_ENABLE_CAP on the VM fd; @arg0 and @arg1 are args[0] and args[1].
 *
 * rule: cap.enable.flags-zero 725d8125
 * rule: msr-exit.caps 774afd61
 */
static inline int specctrl_vm_enable_cap(struct specctrl_vm *vm, u32 cap, u32 flags,
					 u64 arg0, u64 arg1)
{
	if (flags)
		return -EINVAL;
	switch (cap) {
	case KVM_CAP_FORCE_SPEC_CTRL:
		return specctrl_vm_force(vm, arg0, arg1);
	case KVM_CAP_X86_USER_SPACE_MSR:
		if (!specctrl_is_subset(arg0, SPECCTRL_MSR_REASONS))
			return -EINVAL;
		vm->exit_reasons = (u32)arg0;
		return 0;
	default:
		return -EINVAL;
	}
}

/*
 * The part of KVM_CREATE_VCPU that can fail.
 *
 * rule: cap.enable.failed-vcpu 183e1c3e
 */
static inline int specctrl_vm_count_vcpu(struct specctrl_vm *vm, u32 id, bool exists)
{
	if (id >= SPECCTRL_MAX_VCPU_ID)
		return -EINVAL;
	if (exists)
		return -EEXIST;
	vm->created_vcpus++;
	return 0;
}

/* ---- KVM: the vCPU ----------------------------------------------------- */

struct specctrl_msr {			/* an entry of an MSR list */
	u32 index;
	u64 value;
};

/*
 * What L1's VMCS for L2 says about MSRs.  The lists and the bitmap are the
 * caller's: only the pointers are copied, here and into a saved nested state, so
 * they must last as long as L2 may run or be restored.
 */
struct specctrl_l1 {
	bool use_msr_bitmap;		/* without one every access of L2 goes to L1 */

	/* Hook: L1's bitmap, for an MSR that it covers; NULL intercepts nothing. */
	bool (*intercepts)(const struct specctrl_l1 *l1, u32 msr, bool write);
	const void *bitmap;		/* the hook's own */

	const u32 *exit_store;		/* the VM-exit MSR-store list */
	u32 nr_exit_store;
	const struct specctrl_msr *exit_load;	/* the VM-exit MSR-load list */
	u32 nr_exit_load;
};

struct specctrl_msr_exit {		/* an instruction that waits for userspace */
	bool pending;
	bool write;
	u32 reason;
	u32 index;
	u64 value;
};

enum specctrl_loaded { SPECCTRL_VMCS01, SPECCTRL_VMCS02 };

struct specctrl_vcpu {
	struct specctrl_vm *vm;
	struct specctrl_cpu cpu;	/* the logical processor that runs it */
	u32 cpuid;			/* what the guest sees; enum specctrl_feature */
	struct specctrl_vmcs vmcs01;
	struct specctrl_vmcs vmcs02;
	enum specctrl_loaded loaded;
	bool init_withdraws_report;	/* assumption, true: see init.report.withdrawn */

	u64 user_mask;			/* userspace's pair: the VM's at first, then its own */
	u64 user_value;
	u64 force_mask;			/* the pair in force: with the guest's report on top */
	u64 force_value;

	u64 guest_view;			/* what the guest wrote and reads, as of the last exit */
	u64 saved;			/* what the next VM entry loads */
	bool passthrough;		/* KVM wants no exit for the MSR */

	u64 arch_capabilities;
	u64 virtual_enumeration;
	u64 mitigation_enum;
	u64 mitigation_ctrl;		/* the guest's report */

	bool has_run;			/* feature MSRs are frozen from then on */
	bool shut_down;			/* after a VMX abort: run it no more, until a platform reset */
	struct specctrl_msr_exit msr_exit;

	bool vmx_operation;		/* L1 executed VMXON */
	bool nested_run_pending;	/* L1's VM entry was emulated, L2 has not run yet */
	bool bitmap_merge_pending;	/* KVM_RUN merges vmcs02's bitmap */
	struct specctrl_l1 l1;
	u32 failed_entry;		/* of a VM-entry MSR-load list, from 1 */
	bool smm;
	bool smm_left_level2;		/* RSM goes back to L2 */
	bool smm_left_vmx;		/* RSM goes back to VMX operation */
	bool init_pending;
};

/* What KVM_GET_NESTED_STATE carries, and KVM_GET_VCPU_EVENTS with it. */
struct specctrl_nested_state {
	bool vmx_operation;
	bool level2;
	struct specctrl_l1 l1;
	bool run_pending;
	bool smm;
	bool smm_left_level2;
	bool smm_left_vmx;
	bool init_pending;
};

static inline struct specctrl_vmcs *specctrl_loaded_vmcs(struct specctrl_vcpu *vcpu)
{
	return vcpu->loaded == SPECCTRL_VMCS02 ? &vcpu->vmcs02 : &vcpu->vmcs01;
}

static inline bool specctrl_in_l2(const struct specctrl_vcpu *vcpu)
{
	return vcpu->loaded == SPECCTRL_VMCS02;
}

/* ---- KVM: which accesses exit ------------------------------------------ */

/*
 * Whether the guest may access the MSR without an exit at all: it must see the
 * MSR, and without the control only interception keeps forced bits.
 *
 * rule: intercept.hidden-msr 8b2a0f21
 * rule: intercept.without-control 1aca3107
 */
static inline bool specctrl_may_pass_through(const struct specctrl_vcpu *vcpu)
{
	return (vcpu->cpuid & SPECCTRL_HAS_SPEC_CTRL) &&
	       (vcpu->cpu.has_control || !vcpu->force_mask);
}

/*
 * Write vmcs01's bitmap.  An interception that KVM needs holds for L2 at once;
 * otherwise vmcs02's bitmap waits for its next merge.
 *
 * rule: intercept.until-first-nonzero 253fd6a6
 * rule: intercept.without-control 1aca3107
 * rule: filter.reintercepts 3b078b4a
 * rule: filter.l2-until-merge cc3fa4b7
 */
static inline void specctrl_update_interception(struct specctrl_vcpu *vcpu)
{
	const struct specctrl_vm *vm = vcpu->vm;

	vcpu->vmcs01.intercept_read =
		!vcpu->passthrough || !specctrl_msr_allowed(vm, MSR_IA32_SPEC_CTRL, false);
	vcpu->vmcs01.intercept_write =
		!vcpu->passthrough || !specctrl_msr_allowed(vm, MSR_IA32_SPEC_CTRL, true);
	if (!vcpu->passthrough) {
		vcpu->vmcs02.intercept_read = true;
		vcpu->vmcs02.intercept_write = true;
	}
}

/*
 * After a change of the mask: without the control, intercept or stop doing so.
 *
 * rule: intercept.without-control 1aca3107
 */
static inline void specctrl_update_passthrough(struct specctrl_vcpu *vcpu)
{
	if (!specctrl_may_pass_through(vcpu))
		vcpu->passthrough = false;
	else if (!vcpu->cpu.has_control && vcpu->guest_view)
		vcpu->passthrough = true;
	specctrl_update_interception(vcpu);
}

/* ---- KVM: what is forced ----------------------------------------------- */

/*
 * Put userspace's pair and the report in force: mask, value, saved value, MASK
 * of the loaded VMCS, interception.  The other VMCS follows when it is loaded.
 *
 * rule: cap.guest-cpuid.not-looked-at c9b60a6a
 * rule: cap.vcpu.report-recomputed 50ac484e
 * rule: force.host-accepts 79562ace
 * rule: force.mask-follows 44fbe7de
 * rule: force.zeros-too 87175b46
 * rule: virt.report.in-force a5625c31
 * rule: virt.report.per-vcpu d5977937
 */
static inline void specctrl_update_force(struct specctrl_vcpu *vcpu)
{
	u64 mask = vcpu->user_mask, value = vcpu->user_value;

	specctrl_overlay(&mask, &value, specctrl_requested(vcpu->vm->host, vcpu->mitigation_ctrl));
	vcpu->force_mask = mask;
	vcpu->force_value = value;
	vcpu->saved = specctrl_merge(vcpu->guest_view, mask, value);
	if (vcpu->cpu.has_control)
		specctrl_vmwrite_mask(&vcpu->cpu, specctrl_loaded_vmcs(vcpu), mask);
	specctrl_update_passthrough(vcpu);
}

/*
 * KVM_CAP_FORCE_SPEC_CTRL on the vCPU fd (proposed).  A narrower mask may
 * uncover a bit of the view that the host refuses: the merge is tried first.
 *
 * rule: cap.vcpu.any-time ce0a15a7
 * rule: cap.vcpu.tried-on-host 8080b87f
 * rule: force.host-accepts 79562ace
 */
static inline int specctrl_vcpu_force(struct specctrl_vcpu *vcpu, u64 mask, u64 value)
{
	u64 new_mask = mask, new_value = value;

	if (!specctrl_can_force(vcpu->vm->host, mask, value))
		return -EINVAL;
	specctrl_overlay(&new_mask, &new_value,
			 specctrl_requested(vcpu->vm->host, vcpu->mitigation_ctrl));
	if (!specctrl_cpu_accepts(&vcpu->cpu,
				  specctrl_merge(vcpu->guest_view, new_mask, new_value)))
		return -EINVAL;
	vcpu->user_mask = mask;
	vcpu->user_value = value;
	specctrl_update_force(vcpu);
	return 0;
}

/*
 * Make one VMCS the loaded one; its MASK and SHADOW become what holds now.  The
 * one place for every way there: nested entry and exit, a failed entry, SMI,
 * RSM, KVM_SET_NESTED_STATE.
 *
 * rule: contract.level.one-view e6fa129f
 * rule: force.mask-follows 44fbe7de
 * rule: nested.mask-both 48657b29
 * rule: nested.entry.view 33b2a0a5
 * rule: nested.exit.view 5d6813f3
 * rule: nested.no-control-for-l1 5ee9791f
 */
static inline void specctrl_load_vmcs(struct specctrl_vcpu *vcpu, enum specctrl_loaded which)
{
	struct specctrl_vmcs *vmcs;

	vcpu->loaded = which;
	vmcs = specctrl_loaded_vmcs(vcpu);
	if (vcpu->cpu.has_control) {
		specctrl_vmwrite_mask(&vcpu->cpu, vmcs, vcpu->force_mask);
		specctrl_vmwrite_shadow(&vcpu->cpu, vmcs, vcpu->guest_view);
	}
}

/* ---- KVM: VM entry and VM exit ----------------------------------------- */

/*
 * VM entry, unless the guest runs already.  SPECCTRL_HOST_GP must never happen.
 *
 * rule: entry.loads-saved c60010f3
 */
static inline enum specctrl_result specctrl_enter_guest(struct specctrl_vcpu *vcpu)
{
	const struct specctrl_host *host = vcpu->vm->host;
	enum specctrl_result ret;

	if (vcpu->cpu.non_root)
		return SPECCTRL_DONE;
	if (specctrl_host_has_msr(host) && vcpu->saved != host->spec_ctrl &&
	    specctrl_cpu_wrmsr(&vcpu->cpu, vcpu->saved))
		return SPECCTRL_HOST_GP;
	ret = specctrl_cpu_vm_entry(&vcpu->cpu, specctrl_loaded_vmcs(vcpu));
	if (ret)
		return ret;
	vcpu->nested_run_pending = false;
	vcpu->has_run = true;
	return SPECCTRL_DONE;
}

/*
 * After an exit: take over what the guest may have changed without one.  The
 * saved value is read, not computed.
 *
 * rule: exit.saved-is-hardware 1b9adf9e
 * rule: exit.view-taken 55e85bce
 */
static inline void specctrl_save_guest(struct specctrl_vcpu *vcpu)
{
	struct specctrl_vmcs *vmcs = specctrl_loaded_vmcs(vcpu);

	if (specctrl_write_intercepted(vmcs))
		return;
	specctrl_cpu_rdmsr(&vcpu->cpu, &vcpu->saved);
	if (vcpu->cpu.has_control)
		specctrl_vmread_shadow(&vcpu->cpu, vmcs, &vcpu->guest_view);
	else
		vcpu->guest_view = vcpu->saved;
}

/* rule: exit.host-restored 44642986 */
static inline void specctrl_restore_host(struct specctrl_vcpu *vcpu)
{
	const struct specctrl_host *host = vcpu->vm->host;

	if (vcpu->saved != host->spec_ctrl || host->legacy_ibrs)
		specctrl_cpu_wrmsr(&vcpu->cpu, host->spec_ctrl);
}

/*
 * VM exit to the host, unless KVM runs already.  KVM keeps IA32_SPEC_CTRL out
 * of the MSR areas, so the exit cannot abort.
 */
static inline void specctrl_exit_guest(struct specctrl_vcpu *vcpu)
{
	if (!vcpu->cpu.non_root)
		return;
	specctrl_cpu_vm_exit(&vcpu->cpu, specctrl_loaded_vmcs(vcpu));
	if (specctrl_host_has_msr(vcpu->vm->host)) {
		specctrl_save_guest(vcpu);
		specctrl_restore_host(vcpu);
	}
}

/*
 * KVM_X86_SET_MSR_FILTER took effect: KVM_REQ_MSR_FILTER_CHANGED.
 *
 * rule: filter.reintercepts 3b078b4a
 */
static inline void specctrl_msr_filter_changed(struct specctrl_vcpu *vcpu)
{
	specctrl_exit_guest(vcpu);
	specctrl_update_interception(vcpu);
}

/* ---- KVM: MSR accesses; 0, or why it is refused ------------------------- */

/*
 * Whether the guest may read MSR_VIRTUAL_ENUMERATION.
 *
 * rule: virt.enumeration.gate dabf79d0
 */
static inline bool specctrl_shows_enumeration(const struct specctrl_vcpu *vcpu)
{
	return (vcpu->cpuid & SPECCTRL_HAS_ARCH_CAPABILITIES) &&
	       (vcpu->arch_capabilities & ARCH_CAP_VIRTUAL_ENUM);
}

/*
 * Whether the guest may access MSR_VIRTUAL_MITIGATION_ENUM and _CTRL.
 *
 * rule: virt.ctrl.gate cd2d9705
 */
static inline bool specctrl_shows_mitigation_ctrl(const struct specctrl_vcpu *vcpu)
{
	return specctrl_shows_enumeration(vcpu) &&
	       (vcpu->virtual_enumeration & VIRT_ENUM_MITIGATION_CTRL_SUPPORT);
}

/*
 * A write of IA32_SPEC_CTRL that KVM performs, for the guest or for userspace.
 *
 * rule: access.emulated.merged-decides fa37408d
 * rule: access.emulated.view-and-saved e6d014e5
 * rule: access.no-msr.refused 84c1f91d
 * rule: contract.write.merged-decides 4dad8e33
 * rule: force.host-accepts 79562ace
 * rule: force.zeros-too 87175b46
 * rule: intercept.until-first-nonzero 253fd6a6
 * rule: migration.restorable 29b73b58
 * rule: nested.l0-intercept.emulated 514c159f
 */
static inline u32 specctrl_write_spec_ctrl(struct specctrl_vcpu *vcpu, u64 value)
{
	u64 merged = specctrl_merge(value, vcpu->force_mask, vcpu->force_value);

	if (!specctrl_cpu_accepts(&vcpu->cpu, merged))
		return SPECCTRL_MSR_INVAL;
	vcpu->guest_view = value;
	vcpu->saved = merged;
	if (vcpu->cpu.has_control)
		specctrl_vmwrite_shadow(&vcpu->cpu, specctrl_loaded_vmcs(vcpu), value);
	if (value && specctrl_may_pass_through(vcpu)) {
		vcpu->passthrough = true;
		specctrl_update_interception(vcpu);
	}
	return 0;
}

/*
 * A report.  Of the guest, a bit that it sets must be offered; such a bit may
 * be kept or cleared.
 *
 * rule: virt.ctrl.any-time 1e2a5063
 * rule: virt.ctrl.offered 3fc619a9
 * rule: virt.ctrl.reserved f36919ac
 * rule: virt.report.in-force a5625c31
 */
static inline u32 specctrl_write_mitigation_ctrl(struct specctrl_vcpu *vcpu, u64 value,
						 bool host_initiated)
{
	u64 newly_set = value & ~vcpu->mitigation_ctrl;

	if (!specctrl_is_subset(value, MITI_CTRL_VALID))
		return SPECCTRL_MSR_INVAL;
	if (!host_initiated && !specctrl_is_subset(newly_set, vcpu->mitigation_enum))
		return SPECCTRL_MSR_INVAL;
	vcpu->mitigation_ctrl = value;
	specctrl_update_force(vcpu);
	return 0;
}

/*
 * The refusal of any other MSR: the x2APIC MSRs are known, and refused as the
 * local APIC of this vCPU is not in x2APIC mode.
 *
 * rule: msr-exit.x2apic c59accd3
 */
static inline u32 specctrl_refuse_other(u32 msr)
{
	if (msr >= 0x800 && msr <= 0x8ff)
		return SPECCTRL_MSR_INVAL;
	return SPECCTRL_MSR_UNKNOWN;
}

/*
 * rule: access.cpuid-gate 0c287c14
 * rule: access.read.view 10f48c3a
 * rule: contract.view.reads-back d986833a
 * rule: migration.view-not-effective e3fe7232
 * rule: virt.ctrl.gate cd2d9705
 * rule: virt.enumeration.gate dabf79d0
 * rule: virt.refusal.inval 35f7c8d5
 */
static inline u32 specctrl_get_msr(const struct specctrl_vcpu *vcpu, u32 msr, u64 *value,
				   bool host_initiated)
{
	switch (msr) {
	case MSR_IA32_SPEC_CTRL:
		if (!host_initiated && !(vcpu->cpuid & SPECCTRL_HAS_SPEC_CTRL))
			return SPECCTRL_MSR_INVAL;
		*value = vcpu->guest_view;
		return 0;
	case MSR_IA32_ARCH_CAPABILITIES:
		if (!host_initiated && !(vcpu->cpuid & SPECCTRL_HAS_ARCH_CAPABILITIES))
			return SPECCTRL_MSR_INVAL;
		*value = vcpu->arch_capabilities;
		return 0;
	case MSR_VIRTUAL_ENUMERATION:
		if (!host_initiated && !specctrl_shows_enumeration(vcpu))
			return SPECCTRL_MSR_INVAL;
		*value = vcpu->virtual_enumeration;
		return 0;
	case MSR_VIRTUAL_MITIGATION_ENUM:
		if (!host_initiated && !specctrl_shows_mitigation_ctrl(vcpu))
			return SPECCTRL_MSR_INVAL;
		*value = vcpu->mitigation_enum;
		return 0;
	case MSR_VIRTUAL_MITIGATION_CTRL:
		if (!host_initiated && !specctrl_shows_mitigation_ctrl(vcpu))
			return SPECCTRL_MSR_INVAL;
		*value = vcpu->mitigation_ctrl;
		return 0;
	default:
		return specctrl_refuse_other(msr);
	}
}

/*
 * rule: access.cpuid-gate 0c287c14
 * rule: virt.ctrl.gate cd2d9705
 * rule: virt.host.valid-sets ce0a123c
 * rule: virt.read-only cd8352b0
 * rule: virt.refusal.inval 35f7c8d5
 */
static inline u32 specctrl_set_msr(struct specctrl_vcpu *vcpu, u32 msr, u64 value,
				   bool host_initiated)
{
	switch (msr) {
	case MSR_IA32_SPEC_CTRL:
		if (!host_initiated && !(vcpu->cpuid & SPECCTRL_HAS_SPEC_CTRL))
			return SPECCTRL_MSR_INVAL;
		return specctrl_write_spec_ctrl(vcpu, value);
	case MSR_IA32_ARCH_CAPABILITIES:
		if (!host_initiated)
			return SPECCTRL_MSR_INVAL;
		vcpu->arch_capabilities = value;
		return 0;
	case MSR_VIRTUAL_ENUMERATION:
		if (!host_initiated || !specctrl_is_subset(value, VIRT_ENUM_VALID))
			return SPECCTRL_MSR_INVAL;
		vcpu->virtual_enumeration = value;
		return 0;
	case MSR_VIRTUAL_MITIGATION_ENUM:
		if (!host_initiated || !specctrl_is_subset(value, MITI_ENUM_VALID))
			return SPECCTRL_MSR_INVAL;
		vcpu->mitigation_enum = value;
		return 0;
	case MSR_VIRTUAL_MITIGATION_CTRL:
		if (!host_initiated && !specctrl_shows_mitigation_ctrl(vcpu))
			return SPECCTRL_MSR_INVAL;
		return specctrl_write_mitigation_ctrl(vcpu, value, host_initiated);
	default:
		return specctrl_refuse_other(msr);
	}
}

/*
 * A guest's RDMSR that KVM performs: an intercepted instruction, or an entry of
 * L1's store list.
 *
 * rule: filter.decides-first 59dfcd0b
 */
static inline u32 specctrl_emulate_rdmsr(const struct specctrl_vcpu *vcpu, u32 msr, u64 *value)
{
	if (!specctrl_msr_allowed(vcpu->vm, msr, false))
		return SPECCTRL_MSR_FILTER;
	return specctrl_get_msr(vcpu, msr, value, false);
}

/*
 * A guest's WRMSR that KVM performs: an intercepted instruction, or an entry of
 * L1's load lists.
 *
 * rule: filter.decides-first 59dfcd0b
 */
static inline u32 specctrl_emulate_wrmsr(struct specctrl_vcpu *vcpu, u32 msr, u64 value)
{
	if (!specctrl_msr_allowed(vcpu->vm, msr, true))
		return SPECCTRL_MSR_FILTER;
	return specctrl_set_msr(vcpu, msr, value, false);
}

/*
 * One entry of KVM_SET_MSRS: after the first KVM_RUN a feature MSR takes only
 * the value that it has.
 *
 * rule: virt.frozen 21f4a11c
 */
static inline u32 specctrl_do_set_msr(struct specctrl_vcpu *vcpu, u32 msr, u64 value)
{
	u64 now = 0;

	if (vcpu->has_run && specctrl_is_feature_msr(msr)) {
		if (specctrl_get_msr(vcpu, msr, &now, true) || now != value)
			return SPECCTRL_MSR_INVAL;
		return 0;
	}
	return specctrl_set_msr(vcpu, msr, value, true);
}

/* ---- KVM: nested virtualization ----------------------------------------- */

/* An MSR bitmap covers these MSRs; an access to any other always exits. */
static inline bool specctrl_in_msr_bitmap(u32 msr)
{
	return msr < 0x2000 || (msr >= 0xc0000000 && msr < 0xc0002000);
}

/*
 * Whether an access of L2 goes to L1.
 *
 * rule: nested.bitmap.merged 697443a7
 * rule: nested.reflect 7a9141e5
 * rule: nested.virtual-msrs.reflected 26a1f9e9
 */
static inline bool specctrl_l1_intercepts(const struct specctrl_l1 *l1, u32 msr, bool write)
{
	if (!l1->use_msr_bitmap || !specctrl_in_msr_bitmap(msr))
		return true;
	return l1->intercepts && l1->intercepts(l1, msr, write);
}

/*
 * vmcs02 intercepts what L1's bitmap or vmcs01's bitmap intercepts.
 *
 * rule: filter.l2-until-merge cc3fa4b7
 * rule: nested.bitmap.merged 697443a7
 */
static inline void specctrl_merge_bitmap(struct specctrl_vcpu *vcpu)
{
	const struct specctrl_l1 *l1 = &vcpu->l1;

	vcpu->vmcs02.intercept_read = vcpu->vmcs01.intercept_read ||
		specctrl_l1_intercepts(l1, MSR_IA32_SPEC_CTRL, false);
	vcpu->vmcs02.intercept_write = vcpu->vmcs01.intercept_write ||
		specctrl_l1_intercepts(l1, MSR_IA32_SPEC_CTRL, true);
}

/*
 * KVM_RUN goes on: a merge that waits, then VM entry.
 *
 * rule: nested.bitmap.when 3d3ec2d1
 */
static inline enum specctrl_result specctrl_run(struct specctrl_vcpu *vcpu)
{
	if (vcpu->bitmap_merge_pending) {
		vcpu->bitmap_merge_pending = false;
		if (specctrl_in_l2(vcpu))
			specctrl_merge_bitmap(vcpu);
	}
	return specctrl_enter_guest(vcpu);
}

/* rule: nested.bitmap.when 3d3ec2d1, rule: nested.entry.view 33b2a0a5 */
static inline void specctrl_load_vmcs02(struct specctrl_vcpu *vcpu)
{
	specctrl_merge_bitmap(vcpu);
	specctrl_load_vmcs(vcpu, SPECCTRL_VMCS02);
}

/*
 * L1's VM-exit MSR-load list, with vmcs01 loaded: writes of the guest.
 *
 * rule: msr-exit.lists-never-exit 4195444b
 * rule: nested.lists.abort 1cb1ee99
 * rule: nested.lists.guest-writes ac4dccc1
 */
static inline enum specctrl_result specctrl_exit_load(struct specctrl_vcpu *vcpu,
						      const struct specctrl_msr *load, u32 nr_load)
{
	u32 i;

	for (i = 0; i < nr_load; i++) {
		if (specctrl_emulate_wrmsr(vcpu, load[i].index, load[i].value)) {
			vcpu->shut_down = true;
			return SPECCTRL_VMX_ABORT;
		}
	}
	return SPECCTRL_DONE;
}

/*
 * A VM entry of L1 that fails half-way: vmcs01 again, with the view that the
 * list left.
 *
 * rule: nested.failed-entry.view fea15ea7
 */
static inline void specctrl_abandon_entry(struct specctrl_vcpu *vcpu)
{
	vcpu->nested_run_pending = false;
	specctrl_load_vmcs(vcpu, SPECCTRL_VMCS01);
}

/*
 * L1's VMLAUNCH or VMRESUME, after the exit that it causes.  The VM-entry
 * MSR-load list is performed as writes of the guest, with vmcs02 loaded.
 *
 * rule: msr-exit.lists-never-exit 4195444b
 * rule: nested.bitmap.when 3d3ec2d1
 * rule: nested.failed-entry.view fea15ea7
 * rule: nested.lists.fail-half 8d48249a
 * rule: nested.lists.guest-writes ac4dccc1
 * rule: nested.no-control-for-l1 5ee9791f
 * rule: nested.report-from-list 02ae69cd
 */
static inline enum specctrl_result specctrl_nested_enter(struct specctrl_vcpu *vcpu,
							 const struct specctrl_l1 *l1,
							 const struct specctrl_msr *load,
							 u32 nr_load)
{
	u32 i;

	vcpu->vmx_operation = true;
	vcpu->l1 = *l1;
	vcpu->nested_run_pending = true;
	specctrl_load_vmcs02(vcpu);
	for (i = 0; i < nr_load; i++) {
		if (!specctrl_emulate_wrmsr(vcpu, load[i].index, load[i].value))
			continue;
		specctrl_abandon_entry(vcpu);
		vcpu->failed_entry = i + 1;
		if (specctrl_exit_load(vcpu, l1->exit_load, l1->nr_exit_load))
			return SPECCTRL_VMX_ABORT;
		return SPECCTRL_NESTED_ENTRY_FAILED;
	}
	return SPECCTRL_DONE;
}

/*
 * A VM exit from L2 to L1, after the exit to KVM: L1's store list, vmcs01, L1's
 * load list.  @stored has room for @nr_store values.
 *
 * rule: msr-exit.lists-never-exit 4195444b
 * rule: nested.exit.view 5d6813f3
 * rule: nested.lists.abort 1cb1ee99
 * rule: nested.lists.store-view ab65fd49
 */
static inline enum specctrl_result specctrl_nested_exit(struct specctrl_vcpu *vcpu,
							const u32 *store, u32 nr_store, u64 *stored,
							const struct specctrl_msr *load,
							u32 nr_load)
{
	u64 value;
	u32 i;

	vcpu->nested_run_pending = false;
	for (i = 0; i < nr_store; i++) {
		if (specctrl_emulate_rdmsr(vcpu, store[i], &value)) {
			specctrl_load_vmcs(vcpu, SPECCTRL_VMCS01);
			vcpu->shut_down = true;
			return SPECCTRL_VMX_ABORT;
		}
		if (stored)
			stored[i] = value;
	}
	specctrl_load_vmcs(vcpu, SPECCTRL_VMCS01);
	return specctrl_exit_load(vcpu, load, nr_load);
}

/*
 * An exit of L2 goes to L1, with the lists that L1 gave at entry, and L1 runs on.
 *
 * rule: nested.reflect 7a9141e5
 */
static inline enum specctrl_result specctrl_reflect(struct specctrl_vcpu *vcpu)
{
	const struct specctrl_l1 *l1 = &vcpu->l1;
	enum specctrl_result ret;

	if (specctrl_nested_exit(vcpu, l1->exit_store, l1->nr_exit_store, NULL,
				 l1->exit_load, l1->nr_exit_load))
		return SPECCTRL_VMX_ABORT;
	ret = specctrl_run(vcpu);
	return ret ? ret : SPECCTRL_REFLECTED;
}

/*
 * Back to vmcs01 without a VM exit to L1: no list is performed.
 *
 * rule: nested.set-state.no-lists f147a03f
 * rule: nested.smi.no-lists 7d1aeaa0
 */
static inline void specctrl_leave_nested(struct specctrl_vcpu *vcpu)
{
	vcpu->nested_run_pending = false;
	if (specctrl_in_l2(vcpu))
		specctrl_load_vmcs(vcpu, SPECCTRL_VMCS01);
}

/* KVM_GET_NESTED_STATE; rule: migration.nested-state.no-msrs 2377d0e1 */
static inline void specctrl_get_nested_state(struct specctrl_vcpu *vcpu,
					     struct specctrl_nested_state *state)
{
	specctrl_exit_guest(vcpu);
	state->vmx_operation = vcpu->vmx_operation;
	state->level2 = specctrl_in_l2(vcpu);
	state->l1 = vcpu->l1;
	state->run_pending = vcpu->nested_run_pending;
	state->smm = vcpu->smm;
	state->smm_left_level2 = vcpu->smm_left_level2;
	state->smm_left_vmx = vcpu->smm_left_vmx;
	state->init_pending = vcpu->init_pending;
}

/*
 * KVM_SET_NESTED_STATE: leaves L2 first; a saved L2 is loaded with the view that
 * holds now.
 *
 * rule: migration.any-order cc0e1620
 * rule: migration.nested-state.no-msrs 2377d0e1
 * rule: nested.bitmap.when 3d3ec2d1
 * rule: nested.set-state.no-lists f147a03f
 */
static inline int specctrl_set_nested_state(struct specctrl_vcpu *vcpu,
					    const struct specctrl_nested_state *state)
{
	specctrl_exit_guest(vcpu);
	if (state->vmx_operation && !vcpu->vm->host->nested)
		return -EINVAL;
	if (state->run_pending && !state->level2)
		return -EINVAL;
	specctrl_leave_nested(vcpu);
	vcpu->vmx_operation = state->vmx_operation;
	vcpu->l1 = state->l1;
	vcpu->smm = state->smm;
	vcpu->smm_left_level2 = state->smm_left_level2;
	vcpu->smm_left_vmx = state->smm_left_vmx;
	vcpu->init_pending = state->init_pending;
	if (state->level2) {
		vcpu->nested_run_pending = state->run_pending;
		specctrl_load_vmcs02(vcpu);
		vcpu->bitmap_merge_pending = true;
	}
	return 0;
}

/* ---- KVM: creation, INIT, reset ----------------------------------------- */

/*
 * KVM_CREATE_VCPU on a logical processor of @vm's host, and KVM_SET_CPUID2; after
 * specctrl_vm_count_vcpu(), which freezes the VM's pair.
 *
 * rule: cap.vcpu.starts-with-vm-pair 0ec917f6
 * rule: nested.no-control-for-l1 5ee9791f
 * rule: virt.created-zero 90c61c90
 */
static inline void specctrl_vcpu_create(struct specctrl_vcpu *vcpu, struct specctrl_vm *vm,
					u32 cpuid)
{
	const struct specctrl_host *host = vm->host;

	memset(vcpu, 0, sizeof(*vcpu));
	vcpu->vm = vm;
	vcpu->cpuid = cpuid;
	vcpu->cpu.writable = specctrl_writable_bits(host->features);
	vcpu->cpu.has_control = host->has_control;
	vcpu->cpu.spec_ctrl = host->spec_ctrl;
	vcpu->vmcs01.virtualize = vcpu->vmcs02.virtualize = host->has_control;
	vcpu->vmcs01.use_msr_bitmap = vcpu->vmcs02.use_msr_bitmap = true;
	vcpu->l1.use_msr_bitmap = true;
	vcpu->init_withdraws_report = true;
	vcpu->user_mask = vm->user_mask;
	vcpu->user_value = vm->user_value;
	vcpu->arch_capabilities = specctrl_arch_capabilities(host);
	specctrl_update_force(vcpu);
	specctrl_load_vmcs(vcpu, SPECCTRL_VMCS01);
}

/*
 * What INIT resets, outside VMX operation and SMM.
 *
 * rule: init.interception-stays 0cf4f98c
 * rule: init.report.withdrawn e8d4d249
 * rule: init.userspace-stays 6a0807ae
 * rule: init.view-zero e4e69eec
 */
static inline void specctrl_init_reset(struct specctrl_vcpu *vcpu)
{
	vcpu->init_pending = false;
	vcpu->guest_view = 0;
	if (vcpu->init_withdraws_report)
		vcpu->mitigation_ctrl = 0;
	specctrl_update_force(vcpu);
	if (vcpu->cpu.has_control)
		specctrl_vmwrite_shadow(&vcpu->cpu, specctrl_loaded_vmcs(vcpu), 0);
}

/*
 * A pending INIT takes effect, unless SMM blocks it, or VMX operation while L1
 * runs: a VM exit to L1 if L2 is loaded, else a reset.
 *
 * rule: nested.init.blocked 9ff39390
 * rule: nested.init.delivered 9f60c6aa
 * rule: nested.init.reflected fc97b261
 */
static inline enum specctrl_result specctrl_deliver_init(struct specctrl_vcpu *vcpu)
{
	if (!vcpu->init_pending || vcpu->smm)
		return SPECCTRL_DONE;
	if (specctrl_in_l2(vcpu)) {
		vcpu->init_pending = false;
		return specctrl_reflect(vcpu);
	}
	if (!vcpu->vmx_operation)
		specctrl_init_reset(vcpu);
	return SPECCTRL_DONE;
}

/*
 * INIT, then SIPI.
 *
 * rule: nested.init.blocked 9ff39390
 * rule: nested.init.reflected fc97b261
 */
static inline enum specctrl_result specctrl_init(struct specctrl_vcpu *vcpu)
{
	enum specctrl_result ret;

	specctrl_exit_guest(vcpu);
	vcpu->init_pending = true;
	ret = specctrl_deliver_init(vcpu);
	return vcpu->init_pending ? SPECCTRL_BLOCKED : ret;
}

/* L1 leaves VMX operation; rule: nested.init.delivered 9f60c6aa */
static inline void specctrl_vmxoff(struct specctrl_vcpu *vcpu)
{
	specctrl_exit_guest(vcpu);
	vcpu->vmx_operation = false;
	specctrl_deliver_init(vcpu);
}

/*
 * An SMI: SMM runs at level 1, out of VMX operation.
 *
 * rule: nested.smi.no-lists 7d1aeaa0
 * rule: nested.smi.view 31f8fa02
 */
static inline void specctrl_smi(struct specctrl_vcpu *vcpu)
{
	specctrl_exit_guest(vcpu);
	vcpu->smm = true;
	vcpu->smm_left_level2 = specctrl_in_l2(vcpu);
	vcpu->smm_left_vmx = vcpu->vmx_operation;
	vcpu->vmx_operation = false;
	specctrl_leave_nested(vcpu);
}

/*
 * RSM: back to where the SMI came, with the view that SMM left; a pending INIT
 * takes effect, or goes to L1 if L2 is back.
 *
 * rule: nested.bitmap.when 3d3ec2d1
 * rule: nested.init.delivered 9f60c6aa
 * rule: nested.smi.no-lists 7d1aeaa0
 * rule: nested.smi.view 31f8fa02
 */
static inline enum specctrl_result specctrl_rsm(struct specctrl_vcpu *vcpu)
{
	specctrl_exit_guest(vcpu);
	vcpu->smm = false;
	vcpu->vmx_operation = vcpu->smm_left_vmx;
	if (vcpu->smm_left_level2) {
		specctrl_load_vmcs02(vcpu);
		vcpu->bitmap_merge_pending = true;
	}
	vcpu->smm_left_vmx = false;
	vcpu->smm_left_level2 = false;
	return specctrl_deliver_init(vcpu);
}

/*
 * A platform reset that userspace performs with ioctls.
 *
 * rule: nested.set-state.no-lists f147a03f
 * rule: reset.userspace 15a4a374
 */
static inline void specctrl_platform_reset(struct specctrl_vcpu *vcpu)
{
	specctrl_exit_guest(vcpu);
	specctrl_leave_nested(vcpu);
	vcpu->vmx_operation = false;
	vcpu->smm = false;
	vcpu->smm_left_level2 = false;
	vcpu->smm_left_vmx = false;
	vcpu->init_pending = false;
	vcpu->shut_down = false;
	if (specctrl_host_has_msr(vcpu->vm->host))
		specctrl_do_set_msr(vcpu, MSR_IA32_SPEC_CTRL, 0);
	specctrl_do_set_msr(vcpu, MSR_VIRTUAL_MITIGATION_CTRL, 0);
}

/* ---- KVM: ioctls of the vCPU fd ----------------------------------------- */

/*
 * KVM_ENABLE_CAP on the vCPU fd (proposed).
 *
 * rule: cap.enable.flags-zero 725d8125
 * rule: cap.vcpu.any-time ce0a15a7
 */
static inline int specctrl_vcpu_enable_cap(struct specctrl_vcpu *vcpu, u32 cap, u32 flags,
					   u64 mask, u64 value)
{
	specctrl_exit_guest(vcpu);
	if (flags || cap != KVM_CAP_FORCE_SPEC_CTRL)
		return -EINVAL;
	return specctrl_vcpu_force(vcpu, mask, value);
}

/*
 * KVM_GET_MSRS: how many were read, up to the first that is refused.
 *
 * rule: filter.guest-only 7d339449
 * rule: migration.view-not-effective e3fe7232
 * rule: set-msrs.stops 710f74f7
 */
static inline u32 specctrl_get_msrs(struct specctrl_vcpu *vcpu, const u32 *msrs, u32 nmsrs,
				    u64 *values)
{
	u32 i;

	specctrl_exit_guest(vcpu);
	for (i = 0; i < nmsrs; i++) {
		if (specctrl_get_msr(vcpu, msrs[i], &values[i], true))
			break;
	}
	return i;
}

/*
 * KVM_SET_MSRS: how many were written, up to the first that is refused.
 *
 * rule: filter.guest-only 7d339449
 * rule: migration.any-order cc0e1620
 * rule: set-msrs.stops 710f74f7
 */
static inline u32 specctrl_set_msrs(struct specctrl_vcpu *vcpu, const struct specctrl_msr *msrs,
				    u32 nmsrs)
{
	u32 i;

	specctrl_exit_guest(vcpu);
	for (i = 0; i < nmsrs; i++) {
		if (specctrl_do_set_msr(vcpu, msrs[i].index, msrs[i].value))
			break;
	}
	return i;
}

/* ---- What can be observed ------------------------------------------------ */

/*
 * vcpu->guest_view and vcpu->saved are as of the last exit.  These functions say
 * what holds now, for tests and debuggers; none enters or leaves the guest.
 */

/* What the processor holds while this guest runs: now, or after the next entry. */
static inline u64 specctrl_effective(const struct specctrl_vcpu *vcpu)
{
	const struct specctrl_host *host = vcpu->vm->host;

	if (vcpu->cpu.non_root || !specctrl_host_has_msr(host) || vcpu->saved == host->spec_ctrl)
		return vcpu->cpu.spec_ctrl;
	return vcpu->saved;
}

/* The guest's view: what an RDMSR of it would read. */
static inline u64 specctrl_view(struct specctrl_vcpu *vcpu)
{
	const struct specctrl_vmcs *vmcs = specctrl_loaded_vmcs(vcpu);

	if (vcpu->cpu.has_control && vmcs->use_msr_bitmap && !vmcs->intercept_read)
		return vmcs->shadow;
	if (vcpu->cpu.non_root && !specctrl_write_intercepted(vmcs))
		return vcpu->cpu.has_control ? vmcs->shadow : vcpu->cpu.spec_ctrl;
	return vcpu->guest_view;
}

/* Whether a WRMSR of the guest would exit, at its level, after a merge that still waits. */
static inline bool specctrl_write_exits(struct specctrl_vcpu *vcpu)
{
	if (vcpu->bitmap_merge_pending && specctrl_in_l2(vcpu))
		return specctrl_write_intercepted(&vcpu->vmcs01) ||
		       specctrl_l1_intercepts(&vcpu->l1, MSR_IA32_SPEC_CTRL, true);
	return specctrl_write_intercepted(specctrl_loaded_vmcs(vcpu));
}

/* ---- The guest's instructions ------------------------------------------- */

/*
 * Each enters the guest if it does not run.  Any other VM exit, an interrupt's
 * say, is specctrl_exit_guest(); the next of these enters again.  None is for a
 * vCPU that is shut down or waits in vcpu->msr_exit: that is the caller's to see.
 */

/*
 * An access that KVM refuses: an exit to userspace if it asked for this reason,
 * else #GP for the guest.
 *
 * rule: msr-exit.reasons 431aa1a0
 */
static inline enum specctrl_result specctrl_hand_over(struct specctrl_vcpu *vcpu, bool write,
						      u32 reason, u32 msr, u64 value)
{
	enum specctrl_result ret;

	if (vcpu->vm->exit_reasons & reason) {
		vcpu->msr_exit.pending = true;
		vcpu->msr_exit.write = write;
		vcpu->msr_exit.reason = reason;
		vcpu->msr_exit.index = msr;
		vcpu->msr_exit.value = value;
		return SPECCTRL_EXIT_TO_USER;
	}
	ret = specctrl_run(vcpu);
	return ret ? ret : SPECCTRL_GP;
}

/*
 * Userspace answers: the instruction completes, or takes #GP.  For an RDMSR the
 * value is userspace's; a WRMSR has no effect of KVM's own.
 *
 * rule: msr-exit.completes 95fd0c47
 */
static inline enum specctrl_result specctrl_complete_msr_exit(struct specctrl_vcpu *vcpu,
							      bool error)
{
	enum specctrl_result ret;

	vcpu->msr_exit.pending = false;
	ret = specctrl_run(vcpu);
	if (ret)
		return ret;
	return error ? SPECCTRL_GP : SPECCTRL_DONE;
}

/*
 * The guest executes RDMSR, at the level that runs.
 *
 * rule: nested.l0-intercept.emulated 514c159f
 * rule: nested.reflect 7a9141e5
 */
static inline enum specctrl_result specctrl_guest_rdmsr(struct specctrl_vcpu *vcpu, u32 msr,
							u64 *value)
{
	enum specctrl_result ret;
	u32 refused;

	ret = specctrl_run(vcpu);
	if (ret)
		return ret;
	if (msr == MSR_IA32_SPEC_CTRL) {
		ret = specctrl_cpu_guest_rdmsr(&vcpu->cpu, specctrl_loaded_vmcs(vcpu), value);
		if (ret != SPECCTRL_VM_EXIT)
			return ret;
	}
	specctrl_exit_guest(vcpu);
	if (specctrl_in_l2(vcpu) && specctrl_l1_intercepts(&vcpu->l1, msr, false))
		return specctrl_reflect(vcpu);
	refused = specctrl_emulate_rdmsr(vcpu, msr, value);
	if (refused)
		return specctrl_hand_over(vcpu, false, refused, msr, 0);
	return specctrl_run(vcpu);
}

/*
 * The guest executes WRMSR, at the level that runs.
 *
 * rule: nested.l0-intercept.emulated 514c159f
 * rule: nested.reflect 7a9141e5
 */
static inline enum specctrl_result specctrl_guest_wrmsr(struct specctrl_vcpu *vcpu, u32 msr,
							u64 value)
{
	enum specctrl_result ret;
	u32 refused;

	ret = specctrl_run(vcpu);
	if (ret)
		return ret;
	if (msr == MSR_IA32_SPEC_CTRL) {
		ret = specctrl_cpu_guest_wrmsr(&vcpu->cpu, specctrl_loaded_vmcs(vcpu), value);
		if (ret != SPECCTRL_VM_EXIT)
			return ret;
	}
	specctrl_exit_guest(vcpu);
	if (specctrl_in_l2(vcpu) && specctrl_l1_intercepts(&vcpu->l1, msr, true))
		return specctrl_reflect(vcpu);
	refused = specctrl_emulate_wrmsr(vcpu, msr, value);
	if (refused)
		return specctrl_hand_over(vcpu, true, refused, msr, value);
	return specctrl_run(vcpu);
}

/*
 * L1 executes VMLAUNCH or VMRESUME, with a VM-entry MSR-load list.  An INIT that
 * was pending goes to L1 before L2's first instruction.
 *
 * rule: nested.init.delivered 9f60c6aa
 * rule: nested.lists.fail-half 8d48249a
 */
static inline enum specctrl_result specctrl_guest_vmlaunch(struct specctrl_vcpu *vcpu,
							   const struct specctrl_l1 *l1,
							   const struct specctrl_msr *load,
							   u32 nr_load)
{
	enum specctrl_result entered, ret;

	ret = specctrl_run(vcpu);
	if (ret)
		return ret;
	specctrl_exit_guest(vcpu);
	entered = specctrl_nested_enter(vcpu, l1, load, nr_load);
	if (!entered)
		entered = specctrl_deliver_init(vcpu);
	if (vcpu->shut_down)
		return entered;
	ret = specctrl_run(vcpu);
	return ret ? ret : entered;
}

/* L2 executes VMCALL: a VM exit to L1 with these lists. */
static inline enum specctrl_result specctrl_guest_vmcall(struct specctrl_vcpu *vcpu,
							 const u32 *store, u32 nr_store,
							 u64 *stored,
							 const struct specctrl_msr *load,
							 u32 nr_load)
{
	enum specctrl_result ret;

	ret = specctrl_run(vcpu);
	if (ret)
		return ret;
	specctrl_exit_guest(vcpu);
	ret = specctrl_nested_exit(vcpu, store, nr_store, stored, load, nr_load);
	if (ret)
		return ret;
	return specctrl_run(vcpu);
}

#endif /* SPECCTRL_H */
