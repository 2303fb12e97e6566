// SPDX-License-Identifier: (GPL-2.0 OR MIT)
/*
 * Checks specctrl.h with nothing but a compiler; prints TAP, ends with 1 if a
 * check fails.  What the scenarios cannot reach is here too: the MSR areas and
 * the VM-instruction errors, which KVM keeps out of its way.
 */
#include <stdio.h>

#include "specctrl.h"

static unsigned int checks, failures;

static void check(bool holds, const char *what)
{
	printf("%sok %u - %s\n", holds ? "" : "not ", ++checks, what);
	failures += !holds;
}

#define IBRS	SPEC_CTRL_IBRS
#define SSBD	SPEC_CTRL_SSBD
#define BHI	SPEC_CTRL_BHI_DIS_S
#define RRSBA	SPEC_CTRL_RRSBA_DIS_S

#define GUEST_CPUID (SPECCTRL_HAS_SPEC_CTRL | SPECCTRL_HAS_ARCH_CAPABILITIES)

/* As Sapphire Rapids: the control, BHI_CTRL, RRSBA; the host runs with BHI_DIS_S. */
static struct specctrl_host new_host(void)
{
	struct specctrl_host host;

	memset(&host, 0, sizeof(host));
	host.features = GUEST_CPUID | SPECCTRL_HAS_STIBP | SPECCTRL_HAS_SSBD |
			SPECCTRL_HAS_RRSBA_CTRL | SPECCTRL_HAS_BHI_CTRL | SPECCTRL_HAS_RRSBA;
	host.spec_ctrl = IBRS | BHI;
	host.has_control = true;
	host.nested = true;
	return host;
}

static struct specctrl_vm new_vm(const struct specctrl_host *host)
{
	struct specctrl_vm vm;

	memset(&vm, 0, sizeof(vm));
	vm.host = host;
	return vm;
}

/* A vCPU whose guest may report what it likes. */
static void new_vcpu(struct specctrl_vcpu *vcpu, struct specctrl_vm *vm)
{
	static const struct specctrl_msr offer[] = {
		{ MSR_VIRTUAL_ENUMERATION, VIRT_ENUM_VALID },
		{ MSR_VIRTUAL_MITIGATION_ENUM, MITI_ENUM_VALID },
	};

	specctrl_vm_count_vcpu(vm, 0, false);
	specctrl_vcpu_create(vcpu, vm, GUEST_CPUID);
	specctrl_set_msrs(vcpu, offer, 2);
}

static bool reads(struct specctrl_vcpu *vcpu, u64 expected)
{
	u64 value = 0;

	return !specctrl_guest_rdmsr(vcpu, MSR_IA32_SPEC_CTRL, &value) && value == expected;
}

static bool writes(struct specctrl_vcpu *vcpu, u32 msr, u64 value)
{
	return !specctrl_guest_wrmsr(vcpu, msr, value);
}

/* What the host holds after an exit. */
static u64 after_exit(struct specctrl_vcpu *vcpu)
{
	specctrl_run(vcpu);
	specctrl_exit_guest(vcpu);
	return vcpu->cpu.spec_ctrl;
}

static void words(void)
{
	u64 mask = SSBD, value = 0;

	check(specctrl_merge(0x1, BHI, BHI) == (IBRS | BHI), "merge takes masked bits from the value");
	check(specctrl_merge(0x5, SSBD, 0) == IBRS, "merge clears bits that are forced to 0");
	check(specctrl_merge(~0ULL, ~0ULL, 0) == 0, "merge has 64 bits");
	specctrl_overlay(&mask, &value, SSBD | BHI);
	check(mask == (SSBD | BHI) && value == BHI, "userspace's mask wins over a request");
}

static void processor(void)
{
	struct specctrl_cpu cpu;
	struct specctrl_vmcs vmcs;
	u64 value = 0;

	memset(&cpu, 0, sizeof(cpu));
	memset(&vmcs, 0, sizeof(vmcs));
	cpu.writable = IBRS | BHI;
	cpu.has_control = true;
	vmcs.virtualize = true;
	vmcs.use_msr_bitmap = true;
	vmcs.mask = BHI | SSBD;
	cpu.spec_ctrl = BHI;
	check(!specctrl_cpu_guest_wrmsr(&cpu, &vmcs, IBRS | SSBD), "a masked reserved bit does not fault");
	check(cpu.spec_ctrl == (IBRS | BHI), "masked bits stay as they are in the MSR");
	check(vmcs.shadow == (IBRS | SSBD), "the shadow is the unmodified source");
	check(specctrl_cpu_guest_wrmsr(&cpu, &vmcs, 1ULL << 63) == SPECCTRL_GP, "an unmasked reserved bit faults");
	check(vmcs.shadow == (IBRS | SSBD), "a write that faults leaves the shadow");
	check(!specctrl_cpu_guest_rdmsr(&cpu, &vmcs, &value) && value == (IBRS | SSBD), "RDMSR reads the shadow");
	vmcs.intercept_write = true;
	check(specctrl_cpu_guest_wrmsr(&cpu, &vmcs, 1ULL << 63) == SPECCTRL_VM_EXIT, "the bitmap comes before the fault");
	vmcs.use_msr_bitmap = false;
	check(specctrl_cpu_guest_rdmsr(&cpu, &vmcs, &value) == SPECCTRL_VM_EXIT, "without a bitmap all accesses exit");

	vmcs.exit_store.present = true;
	check(!specctrl_cpu_vm_exit(&cpu, &vmcs) && vmcs.exit_store.value == (IBRS | BHI),
	      "the VM-exit store area receives the MSR, not the shadow");
	vmcs.exit_load.present = true;
	vmcs.exit_load.value = SSBD;
	check(specctrl_cpu_vm_exit(&cpu, &vmcs) == SPECCTRL_VMX_ABORT, "a refused VM-exit load aborts");
	vmcs.entry_load.present = true;
	vmcs.entry_load.value = SSBD;
	check(specctrl_cpu_vm_entry(&cpu, &vmcs) == SPECCTRL_VM_ENTRY_FAILED && !cpu.non_root,
	      "a refused VM-entry load fails the entry");
	vmcs.entry_load.value = BHI;
	check(!specctrl_cpu_vm_entry(&cpu, &vmcs) && cpu.spec_ctrl == BHI, "VM entry loads the area's value");
	check(vmcs.shadow == (IBRS | SSBD), "no area touches the shadow");

	cpu.has_control = false;
	check(specctrl_cpu_vm_entry(&cpu, &vmcs) == SPECCTRL_VMFAIL_CONTROLS, "no control, no entry with it: error 7");
	check(specctrl_vmwrite_mask(&cpu, &vmcs, 0) == SPECCTRL_VMFAIL_FIELD &&
	      specctrl_vmwrite_shadow(&cpu, &vmcs, 0) == SPECCTRL_VMFAIL_FIELD &&
	      specctrl_vmread_shadow(&cpu, &vmcs, &value) == SPECCTRL_VMFAIL_FIELD,
	      "no control, no MASK and no SHADOW: error 12");
	cpu.writable = 0;
	check(specctrl_cpu_wrmsr(&cpu, 0) == SPECCTRL_GP && specctrl_cpu_rdmsr(&cpu, &value) == SPECCTRL_GP,
	      "without the MSR even 0 faults");
}

static void capability(void)
{
	struct specctrl_host host = new_host();
	struct specctrl_vm vm = new_vm(&host);
	u64 bits = 0;

	check(!specctrl_get_supported(&host, false, &bits) && bits == 0x447, "what can be forced: 0x447");
	check(specctrl_get_supported(&host, true, &bits) == -ENOTTY, "that ioctl is not the VM fd's");
	check(specctrl_vm_force(&vm, 0, BHI) == -EINVAL, "a value outside the mask is refused");
	check(specctrl_vm_force(&vm, ~0ULL, 1ULL << 63) == -EINVAL, "a value that is not supported is refused");
	check(!specctrl_vm_force(&vm, ~0ULL, BHI), "a mask may have any bit");
	specctrl_vm_count_vcpu(&vm, 0, false);
	check(specctrl_vm_force(&vm, 0, 0) == -EINVAL, "not once a vCPU exists");
	host.has_control = false;
	vm.created_vcpus = 0;
	check(specctrl_vm_force(&vm, SSBD, 0) == -EINVAL, "without the control nothing, not even 0, can be forced");
}

static void report(void)
{
	struct specctrl_host host = new_host();
	struct specctrl_vm vm = new_vm(&host);
	struct specctrl_vcpu vcpu;

	new_vcpu(&vcpu, &vm);
	writes(&vcpu, MSR_IA32_SPEC_CTRL, IBRS);
	writes(&vcpu, MSR_VIRTUAL_MITIGATION_CTRL, MITI_CTRL_BHB_CLEAR_SEQ_S_USED);
	writes(&vcpu, MSR_IA32_SPEC_CTRL, IBRS);
	check(vcpu.cpu.non_root && vcpu.cpu.spec_ctrl == (IBRS | BHI), "a report is in force while the guest runs");
	check(reads(&vcpu, IBRS), "the guest reads what it wrote");
	check(after_exit(&vcpu) == host.spec_ctrl, "the host has its value back");
	specctrl_init(&vcpu);
	check(!vcpu.mitigation_ctrl && !vcpu.force_mask, "INIT withdraws the report");

	host.has_control = false;
	new_vcpu(&vcpu, &vm);
	writes(&vcpu, MSR_IA32_SPEC_CTRL, IBRS);
	check(!vcpu.vmcs01.intercept_write, "without the control a non-zero write ends the interception");
	writes(&vcpu, MSR_VIRTUAL_MITIGATION_CTRL, MITI_CTRL_RETPOLINE_S_USED);
	check(vcpu.vmcs01.intercept_write, "and a report brings it back");
	check(writes(&vcpu, MSR_IA32_SPEC_CTRL, SSBD) && vcpu.cpu.spec_ctrl == (SSBD | RRSBA) && reads(&vcpu, SSBD),
	      "the intercepted write is merged");
	check(vcpu.cpu.non_root && specctrl_view(&vcpu) == SSBD && specctrl_effective(&vcpu) == (SSBD | RRSBA) &&
	      specctrl_write_exits(&vcpu), "without the control the view is not the register");
}

static void nested(void)
{
	static const struct specctrl_msr half[] = {
		{ MSR_IA32_SPEC_CTRL, SSBD },
		{ MSR_VIRTUAL_ENUMERATION, 0 },		/* refused: read-only */
	};
	struct specctrl_host host = new_host();
	struct specctrl_vm vm = new_vm(&host);
	struct specctrl_vcpu vcpu;
	struct specctrl_l1 l1;

	memset(&l1, 0, sizeof(l1));
	l1.use_msr_bitmap = true;
	new_vcpu(&vcpu, &vm);
	specctrl_vcpu_enable_cap(&vcpu, KVM_CAP_FORCE_SPEC_CTRL, 0, BHI, BHI);
	check(specctrl_effective(&vcpu) == BHI && !specctrl_view(&vcpu) && !vcpu.has_run,
	      "what the next entry loads shows before it, and looking is no entry");
	writes(&vcpu, MSR_IA32_SPEC_CTRL, IBRS);
	check(!specctrl_guest_vmlaunch(&vcpu, &l1, NULL, 0) && specctrl_in_l2(&vcpu) && reads(&vcpu, IBRS),
	      "L2 starts with L1's view");
	check(writes(&vcpu, MSR_IA32_SPEC_CTRL, 0) && vcpu.cpu.spec_ctrl == BHI, "forced bits hold in L2");
	check(specctrl_guest_wrmsr(&vcpu, MSR_VIRTUAL_MITIGATION_CTRL, 0) == SPECCTRL_REFLECTED &&
	      !specctrl_in_l2(&vcpu), "L2's access to a virtual MSR goes to L1");
	check(reads(&vcpu, 0), "L1 reads what L2 wrote");
	check(specctrl_guest_vmlaunch(&vcpu, &l1, half, 2) == SPECCTRL_NESTED_ENTRY_FAILED &&
	      vcpu.failed_entry == 2 && reads(&vcpu, SSBD), "an entry that fails half-way keeps what was done");
	specctrl_guest_vmlaunch(&vcpu, &l1, NULL, 0);
	specctrl_smi(&vcpu);
	check(!specctrl_in_l2(&vcpu) && writes(&vcpu, MSR_IA32_SPEC_CTRL, IBRS), "SMM runs at level 1");
	check(!specctrl_rsm(&vcpu) && specctrl_in_l2(&vcpu) && reads(&vcpu, IBRS), "L2 reads what SMM wrote");
}

int main(void)
{
	words();
	processor();
	capability();
	report();
	nested();
	printf("1..%u\n", checks);
	return failures ? 1 : 0;
}
