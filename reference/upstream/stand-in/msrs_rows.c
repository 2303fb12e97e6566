// SPDX-License-Identifier: (GPL-2.0 OR MIT)
/*
 * Tries the rows for the tables of other trees on the stand-in: ROWS is the file,
 * and UNIT_TEST is defined for the rows of kvm-unit-tests, which have no feature.
 *
 * As msrs_test.c does it: two vCPUs; where the guest has the feature it reads 0,
 * writes, reads back, and userspace sees the same and sets it to 0 again; where it
 * lacks the feature every access is #GP.  A reserved bit is #GP always.
 */
#include "processor.h"

struct row {
	u32 index;
	u64 value;
	u64 reserved;
	struct kvm_x86_cpu_feature feature;
	struct kvm_x86_cpu_feature other;
};

#ifdef UNIT_TEST
#define MSR_TEST(msr, val, keep)						\
	{ msr, (val) & ~(u64)(keep), 0, X86_FEATURE_SPEC_CTRL, X86_FEATURE_SPEC_CTRL }
#else
#define MSR_TEST2(msr, val, rsvd, feat, other)					\
	{ msr, val, rsvd, X86_FEATURE_##feat, X86_FEATURE_##other }
#define MSR_TEST(msr, val, rsvd, feat) MSR_TEST2(msr, val, rsvd, feat, feat)
#endif

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

int main(void)
{
	const struct row rows[] = {
#include ROWS
	};
	struct kvm_vcpu *vcpus[2];
	struct kvm_vm *vm = vm_create_with_vcpus(2, guest_code, vcpus);
	unsigned int i, supported = 0;

	for (i = 0; i < 2; i++) {
		vcpu_set_msr(vcpus[i], MSR_VIRTUAL_ENUMERATION, 0x1);
		vcpu_set_msr(vcpus[i], MSR_VIRTUAL_MITIGATION_ENUM, 0x3);
	}
	for (row = rows; row < rows + ARRAY_SIZE(rows); row++) {
		for (i = 0; i < 2; i++) {
			vcpu_run(vcpus[i]);
			if (!kvm_cpu_has(row->feature))
				continue;
			supported++;
			guest_check(vcpu_get_msr(vcpus[i], row->index) == row->value,
				    "userspace sees it");
			vcpu_set_msr(vcpus[i], row->index, 0);
		}
	}
	printf("%u rows, %u with the feature\n", (unsigned int)ARRAY_SIZE(rows), supported / 2);
	kvm_vm_free(vm);
	return 0;
}
