// SPDX-License-Identifier: (GPL-2.0 OR MIT)
/*
 * Tries the lines for kvm-unit-tests on the stand-in: LINES is the file.
 *
 * As test_mitigation_msrs() of its x86/msr.c does it: the bits of IA32_SPEC_CTRL that the guest's
 * CPUID shows, and each combination of them written and read back; without any the MSR is #GP.
 */
#include "processor.h"

#define X86_CPU_FEATURE KVM_X86_CPU_FEATURE
#define X86_FEATURE_STIBP	X86_CPU_FEATURE(0x7, 0, EDX, 27)
#define X86_FEATURE_SSBD	X86_CPU_FEATURE(0x7, 0, EDX, 31)

static unsigned int tried;

static u64 rdmsr(u32 msr)
{
	u64 value;

	TEST_ASSERT(!rdmsr_safe(msr, &value), "RDMSR of 0x%x is #GP", msr);
	return value;
}

static void wrmsr(u32 msr, u64 value)
{
	TEST_ASSERT(!wrmsr_safe(msr, value), "WRMSR of 0x%x, value 0x%llx, is #GP", msr,
		    (unsigned long long)value);
}

static void test_msr_rw(u32 msr, const char *name, u64 value)
{
	u64 before = rdmsr(msr), after;

	wrmsr(msr, value);
	after = rdmsr(msr);
	wrmsr(msr, before);
	TEST_ASSERT(after == value, "%s: 0x%llx, and not 0x%llx", name, (unsigned long long)after,
		    (unsigned long long)value);
	tried++;
}

static void test_wrmsr_fault(u32 msr, const char *name, u64 value)
{
	TEST_ASSERT(wrmsr_safe(msr, value) == GP_VECTOR, "%s: 0x%llx is taken", name,
		    (unsigned long long)value);
}

static void test_mitigation_msrs(void)
{
	u64 spec_ctrl_bits = 0, value;

	if (this_cpu_has(X86_FEATURE_SPEC_CTRL))
		spec_ctrl_bits |= 1 << 0;
	if (this_cpu_has(X86_FEATURE_STIBP))
		spec_ctrl_bits |= 1 << 1;
	if (this_cpu_has(X86_FEATURE_SSBD))
		spec_ctrl_bits |= 1 << 2;

#include LINES

	if (!spec_ctrl_bits) {
		test_wrmsr_fault(MSR_IA32_SPEC_CTRL, "SPEC_CTRL", 0);
		return;
	}
	for (value = 0; value <= spec_ctrl_bits; value++) {
		if (!(value & ~spec_ctrl_bits))
			test_msr_rw(MSR_IA32_SPEC_CTRL, "SPEC_CTRL", value);
	}
}

static void guest_code(void)
{
	test_mitigation_msrs();
	GUEST_SYNC(0);
}

int main(void)
{
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm = vm_create_with_vcpus(1, guest_code, &vcpu);

	vcpu_set_msr(vcpu, MSR_VIRTUAL_ENUMERATION, 0x1);
	vcpu_set_msr(vcpu, MSR_VIRTUAL_MITIGATION_ENUM, 0x3);
	vcpu_run(vcpu);
	printf("%u values\n", tried);
	kvm_vm_free(vm);
	return 0;
}
