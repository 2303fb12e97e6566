/* SPDX-License-Identifier: (GPL-2.0 OR MIT) */
/*
 * Numbers and bits of virtual IA32_SPEC_CTRL, generated from the specification's
 * tables by `specctrl reference --write`.  Do not edit.
 *
 * A kernel that has some of these in msr-index.h or vmx.h takes the rest.
 */
#ifndef SPECCTRL_REGS_H
#define SPECCTRL_REGS_H

/* IA32_SPEC_CTRL: Speculation control */
#define MSR_IA32_SPEC_CTRL			0x00000048
#define SPEC_CTRL_IBRS				(1ULL << 0)	/* indirect branch restricted speculation */
#define SPEC_CTRL_STIBP				(1ULL << 1)	/* single thread indirect branch predictors */
#define SPEC_CTRL_SSBD				(1ULL << 2)	/* speculative store bypass disable */
#define SPEC_CTRL_IPRED_DIS_U			(1ULL << 3)	/* indirect predictor disable, CPL 3 */
#define SPEC_CTRL_IPRED_DIS_S			(1ULL << 4)	/* indirect predictor disable, CPL below 3 */
#define SPEC_CTRL_RRSBA_DIS_U			(1ULL << 5)	/* no alternate predictions for RET, CPL 3 */
#define SPEC_CTRL_RRSBA_DIS_S			(1ULL << 6)	/* no alternate predictions for RET, CPL below 3 */
#define SPEC_CTRL_PSFD				(1ULL << 7)	/* fast store forwarding predictor disable */
#define SPEC_CTRL_DDPD_U			(1ULL << 8)	/* data dependent prefetcher disable, CPL 3 */
#define SPEC_CTRL_BHI_DIS_S			(1ULL << 10)	/* branch history of lower privilege not used, CPL below 3 */

/* IA32_ARCH_CAPABILITIES: Architectural capabilities (only the bits that matter here) */
#define MSR_IA32_ARCH_CAPABILITIES		0x0000010a
#define ARCH_CAP_RRSBA				(1ULL << 19)	/* RET may take an alternate prediction when the RSB underflows */
#define ARCH_CAP_BHI_NO				(1ULL << 20)	/* not affected by branch history injection */
#define ARCH_CAP_ITS_NO				(1ULL << 62)	/* not affected by indirect target selection */
#define ARCH_CAP_VIRTUAL_ENUM			(1ULL << 63)	/* MSR_VIRTUAL_ENUMERATION exists */

/* MSR_VIRTUAL_ENUMERATION: Virtual enumeration */
#define MSR_VIRTUAL_ENUMERATION			0x50000000
#define VIRT_ENUM_MITIGATION_CTRL_SUPPORT	(1ULL << 0)	/* MITIGATION_ENUM and MITIGATION_CTRL exist */
#define VIRT_ENUM_VALID				(VIRT_ENUM_MITIGATION_CTRL_SUPPORT)

/* MSR_VIRTUAL_MITIGATION_ENUM: Virtual mitigation enumeration */
#define MSR_VIRTUAL_MITIGATION_ENUM		0x50000001
#define MITI_ENUM_BHB_CLEAR_SEQ_S_SUPPORT	(1ULL << 0)	/* a report of a BHB-clearing sequence is taken */
#define MITI_ENUM_RETPOLINE_S_SUPPORT		(1ULL << 1)	/* a report of retpoline is taken */
#define MITI_ENUM_VALID				(MITI_ENUM_BHB_CLEAR_SEQ_S_SUPPORT | MITI_ENUM_RETPOLINE_S_SUPPORT)

/* MSR_VIRTUAL_MITIGATION_CTRL: Virtual mitigation control: the guest's report */
#define MSR_VIRTUAL_MITIGATION_CTRL		0x50000002
#define MITI_CTRL_BHB_CLEAR_SEQ_S_USED		(1ULL << 0)	/* the guest's kernel relies on a BHB-clearing sequence */
#define MITI_CTRL_RETPOLINE_S_USED		(1ULL << 1)	/* the guest's kernel relies on retpoline */
#define MITI_CTRL_VALID				(MITI_CTRL_BHB_CLEAR_SEQ_S_USED | MITI_CTRL_RETPOLINE_S_USED)

/* CPUID.(7,0):EDX: Structured extended features, subleaf 0 (only what matters here) */
#define CPUID_7_0_EDX_SPEC_CTRL			(1ULL << 26)	/* IA32_SPEC_CTRL with IBRS */
#define CPUID_7_0_EDX_STIBP			(1ULL << 27)	/* IA32_SPEC_CTRL.STIBP */
#define CPUID_7_0_EDX_ARCH_CAPABILITIES		(1ULL << 29)	/* IA32_ARCH_CAPABILITIES */
#define CPUID_7_0_EDX_SSBD			(1ULL << 31)	/* IA32_SPEC_CTRL.SSBD */

/* CPUID.(7,2):EDX: Structured extended features, subleaf 2 (only what matters here) */
#define CPUID_7_2_EDX_PSFD			(1ULL << 0)	/* IA32_SPEC_CTRL.PSFD */
#define CPUID_7_2_EDX_IPRED_CTRL		(1ULL << 1)	/* IA32_SPEC_CTRL.IPRED_DIS_U and IPRED_DIS_S */
#define CPUID_7_2_EDX_RRSBA_CTRL		(1ULL << 2)	/* IA32_SPEC_CTRL.RRSBA_DIS_U and RRSBA_DIS_S */
#define CPUID_7_2_EDX_DDPD_U			(1ULL << 3)	/* IA32_SPEC_CTRL.DDPD_U */
#define CPUID_7_2_EDX_BHI_CTRL			(1ULL << 4)	/* IA32_SPEC_CTRL.BHI_DIS_S */

/* IA32_VMX_PROCBASED_CTLS3: Which tertiary VM-execution controls may be 1 */
#define MSR_IA32_VMX_PROCBASED_CTLS3		0x00000492
#define VMX_PROCBASED_CTLS3_IPI_VIRTUALIZATION	(1ULL << 4)	/* not used here; shown for the neighbour */
#define VMX_PROCBASED_CTLS3_VIRTUALIZE_IA32_SPEC_CTRL	(1ULL << 7)	/* the guest's accesses go through MASK and SHADOW */

/* VMCS field encodings */
#define IA32_SPEC_CTRL_MASK			0x0000204a
#define IA32_SPEC_CTRL_MASK_HIGH		0x0000204b
#define IA32_SPEC_CTRL_SHADOW			0x0000204c
#define IA32_SPEC_CTRL_SHADOW_HIGH		0x0000204d

/* Capabilities and ioctls of KVM */
#define KVM_CAP_FORCE_SPEC_CTRL			236
#define KVM_CAP_X86_USER_SPACE_MSR		188
#define KVM_CAP_X86_MSR_FILTER			189
#define KVM_GET_SUPPORTED_FORCE_SPEC_CTRL	0x8008aee4

#endif /* SPECCTRL_REGS_H */
