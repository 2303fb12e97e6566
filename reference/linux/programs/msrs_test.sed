# SPDX-License-Identifier: GPL-2.0-only
# x86/msrs_test.c of the KVM selftests with the exported rows, and with what the comment above them asks for.  Besides,
# the program says each row that it comes to; with an argument N it performs the N-th row from the end alone.
# Its own rows of the MSRs of CET that KVM keeps in the XSAVE area are left out: on Bochs' processor KVM_GET_MSRS gives 0
# after the guest's write, and the program ends before it comes to the exported rows.
s|^#include "processor.h"$|&\n#include "msrs_test-defines.h"|
/^\t\tMSR_TEST.*(MSR_IA32_\(U_CET\|PL[0-3]_SSP\),/d
/^\t\tMSR_TEST_KVM(GUEST_SSP/a\
#include "msrs_test-rows.h"
s|^static int idx;$|&\nstatic int only;|
/^\tvm = vm_create_with_vcpus(/a\
\
	for (i = 0; i < NR_VCPUS; i++) {\
		vcpu_set_msr(vcpus[i], MSR_VIRTUAL_ENUMERATION, 0x1);\
		vcpu_set_msr(vcpus[i], MSR_VIRTUAL_MITIGATION_ENUM, 0x3);\
	}\
	for (i = 0; i < 3; i++) {\
		const struct kvm_x86_cpu_feature amd[] = {\
			KVM_X86_CPU_FEATURE(0x80000008, 0, EBX, 14),\
			KVM_X86_CPU_FEATURE(0x80000008, 0, EBX, 15),\
			KVM_X86_CPU_FEATURE(0x80000008, 0, EBX, 24),\
		};\
\
		if (kvm_cpu_has(amd[i]))\
			vcpu_clear_cpuid_feature(vcpus[NR_VCPUS - 1], amd[i]);\
	}
/^\t\tstruct kvm_msr \*msr = &msrs\[idx\];$/a\
\
		if (only && idx != (int)ARRAY_SIZE(__msrs) - only)\
			continue;\
		printf("row %s 0x%lx%s\\n", msr->name, (unsigned long)msr->write_val, use_one_reg ? ", one reg" : "");
s|^int main(void)$|int main(int argc, char *argv[])|
s|^\thas_one_reg = kvm_has_cap.*|\tonly = argc > 1 ? atoi(argv[1]) : 0;\n&|
