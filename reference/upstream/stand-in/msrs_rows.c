// SPDX-License-Identifier: (GPL-2.0 OR MIT)
/*
 * Tries the rows for msrs_test.c on the stand-in: ROWS is the file.
 *
 * As that test does it: three vCPUs, of which the third has none of the features of the table; each MSR
 * is in KVM's list exactly where KVM has one of its features; twice, where the guest has the feature, it
 * reads 0, writes and reads back, and userspace sees the same and sets it to 0 again; where it has
 * neither feature every access is #GP.  A reserved bit is #GP always.
 */
#include "processor.h"

struct row {
	u32 index;
	u64 value;
	u64 reserved;
	struct kvm_x86_cpu_feature feature;
	struct kvm_x86_cpu_feature other;
};

#define MSR_TEST2(msr, val, rsvd, feat, other)					\
	{ msr, val, rsvd, X86_FEATURE_##feat, X86_FEATURE_##other }
#define MSR_TEST(msr, val, rsvd, feat) MSR_TEST2(msr, val, rsvd, feat, feat)

#define NR_VCPUS 3

static const struct row *row;

static void guest_check(bool right, const char *what)
{
	TEST_ASSERT(right, "row of MSR 0x%x, value 0x%llx: %s", row->index,
		    (unsigned long long)row->value, what);
}

static void guest_code(void)
{
	u64 value;

	for (;;) {
		if (this_cpu_has(row->feature)) {
			guest_check(!rdmsr_safe(row->index, &value) && !value, "0 at first");
			guest_check(!wrmsr_safe(row->index, row->value), "takes the value");
			guest_check(!rdmsr_safe(row->index, &value) && value == row->value,
				    "reads back");
		} else if (!this_cpu_has(row->other)) {
			guest_check(rdmsr_safe(row->index, &value) == GP_VECTOR, "read is #GP");
			guest_check(wrmsr_safe(row->index, row->value) == GP_VECTOR,
				    "write is #GP");
		}
		if (row->reserved)
			guest_check(wrmsr_safe(row->index, row->reserved) == GP_VECTOR,
				    "a reserved bit is #GP");
		GUEST_SYNC(0);
	}
}

static bool in_list(u32 index)
{
	const struct kvm_msr_list *list = kvm_get_msr_index_list();
	u32 i;

	for (i = 0; i < list->nmsrs; i++) {
		if (list->indices[i] == index)
			return true;
	}
	return false;
}

int main(void)
{
	const struct row rows[] = {
#include ROWS
	};
	const struct kvm_x86_cpu_feature amd[] = {
		KVM_X86_CPU_FEATURE(0x80000008, 0, EBX, 14), KVM_X86_CPU_FEATURE(0x80000008, 0, EBX, 15),
		KVM_X86_CPU_FEATURE(0x80000008, 0, EBX, 24),
	};
	struct kvm_vcpu *vcpus[NR_VCPUS];
	struct kvm_vm *vm = vm_create_with_vcpus(NR_VCPUS, guest_code, vcpus);
	unsigned int i, supported = 0;

	for (row = rows; row < rows + ARRAY_SIZE(rows); row++)
		vcpu_clear_cpuid_feature(vcpus[NR_VCPUS - 1], row->feature);
	for (i = 0; i < ARRAY_SIZE(amd); i++) {
		if (kvm_cpu_has(amd[i]))
			vcpu_clear_cpuid_feature(vcpus[NR_VCPUS - 1], amd[i]);
	}
	for (i = 0; i < NR_VCPUS; i++) {
		vcpu_set_msr(vcpus[i], MSR_VIRTUAL_ENUMERATION, 0x1);
		vcpu_set_msr(vcpus[i], MSR_VIRTUAL_MITIGATION_ENUM, 0x3);
	}
	for (row = rows; row < rows + ARRAY_SIZE(rows); row++) {
		guest_check(in_list(row->index) == (kvm_cpu_has(row->feature) || kvm_cpu_has(row->other)),
			    "in the list exactly with a feature");
		supported += kvm_cpu_has(row->feature);
		for (i = 0; i < 2 * NR_VCPUS; i++) {
			struct kvm_vcpu *vcpu = vcpus[i % NR_VCPUS];
			bool lacks = i % NR_VCPUS == NR_VCPUS - 1;

			vcpu_run(vcpu);
			if (!kvm_cpu_has(row->feature))
				continue;
			guest_check(vcpu_get_msr(vcpu, row->index) == (lacks ? 0 : row->value),
				    "userspace sees it");
			vcpu_set_msr(vcpu, row->index, 0);
		}
	}
	printf("%u rows, %u with the feature\n", (unsigned int)ARRAY_SIZE(rows), supported);
	kvm_vm_free(vm);
	return 0;
}
