/* SPDX-License-Identifier: (GPL-2.0 OR MIT) */
/* x86, as far as the generated files use it; see test_util.h. */
#ifndef STAND_IN_PROCESSOR_H
#define STAND_IN_PROCESSOR_H

#include "kvm_util.h"

/* Of asm/msr-index.h. */
#define MSR_IA32_SPEC_CTRL		0x00000048
#define MSR_IA32_ARCH_CAPABILITIES	0x0000010a

#define GP_VECTOR 13

enum { KVM_CPUID_EAX, KVM_CPUID_EBX, KVM_CPUID_ECX, KVM_CPUID_EDX };

struct kvm_x86_cpu_feature {
	u32 function;
	u32 index;
	u8 reg;
	u8 bit;
};

#define KVM_X86_CPU_FEATURE(fn, idx, gpr, nr) \
	((struct kvm_x86_cpu_feature){ fn, idx, KVM_CPUID_##gpr, nr })
#define X86_FEATURE_SPEC_CTRL		KVM_X86_CPU_FEATURE(0x7, 0, EDX, 26)
#define X86_FEATURE_ARCH_CAPABILITIES	KVM_X86_CPU_FEATURE(0x7, 0, EDX, 29)

extern bool host_cpu_is_intel;
bool kvm_is_ignore_msrs(void);
bool kvm_cpu_has(struct kvm_x86_cpu_feature feature);
bool this_cpu_has(struct kvm_x86_cpu_feature feature);
void vcpu_clear_cpuid_feature(struct kvm_vcpu *vcpu, struct kvm_x86_cpu_feature feature);

u64 kvm_get_feature_msr(u64 msr_index);
const struct kvm_msr_list *kvm_get_msr_index_list(void);
const struct kvm_msr_list *kvm_get_feature_msr_index_list(void);
u64 vcpu_get_msr(struct kvm_vcpu *vcpu, u64 msr_index);
void vcpu_set_msr(struct kvm_vcpu *vcpu, u64 msr_index, u64 value);

u8 rdmsr_safe(u32 msr, u64 *value);
u8 wrmsr_safe(u32 msr, u64 value);

#endif
