// SPDX-License-Identifier: (GPL-2.0 OR MIT)
/*
 * Checks specctrl.h with nothing but a compiler; prints TAP, ends with 1 if a
 * check fails.  What the scenarios cannot reach is here too: the MSR areas and
 * the VM-instruction errors, which KVM keeps out of its way.
 */
#include <stdio.h>

#include "specctrl_cpu.h"

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
static void new_vcpu(struct specctrl_model *model, struct specctrl_vm *vm)
{
	static const struct specctrl_msr offer[] = {
		{ MSR_VIRTUAL_ENUMERATION, VIRT_ENUM_VALID },
		{ MSR_VIRTUAL_MITIGATION_ENUM, MITI_ENUM_VALID },
	};

	check(!specctrl_vm_count_vcpu(vm, 0, false), "a vCPU can be created");
	specctrl_model_create(model, vm, GUEST_CPUID);
	check(specctrl_set_msrs(&model->vcpu, offer, 2) == 2, "userspace offers the report");
}

static bool reads(struct specctrl_model *model, uint64_t expected)
{
	uint64_t value = 0;

	return !specctrl_guest_rdmsr(model, MSR_IA32_SPEC_CTRL, &value) && value == expected;
}

static bool writes(struct specctrl_model *model, uint32_t msr, uint64_t value)
{
	return !specctrl_guest_wrmsr(model, msr, value);
}

/* Whether the host has its own value back after an exit. */
static bool exits(struct specctrl_model *model)
{
	if (specctrl_guest_run(model))
		return false;
	specctrl_guest_exit(model);
	return model->cpu.spec_ctrl == model->vcpu.host->spec_ctrl && !model->host_fault;
}

static void words(void)
{
	uint64_t mask = SSBD, value = 0;

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
	uint64_t value = 0;

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
	check(specctrl_cpu_guest_wrmsr(&cpu, &vmcs, 1ULL << 63) == SPECCTRL_CPU_GP, "an unmasked reserved bit faults");
	check(vmcs.shadow == (IBRS | SSBD), "a write that faults leaves the shadow");
	check(!specctrl_cpu_guest_rdmsr(&cpu, &vmcs, &value) && value == (IBRS | SSBD), "RDMSR reads the shadow");
	vmcs.intercept_write = true;
	check(specctrl_cpu_guest_wrmsr(&cpu, &vmcs, 1ULL << 63) == SPECCTRL_CPU_VM_EXIT, "the bitmap comes before the fault");
	vmcs.use_msr_bitmap = false;
	check(specctrl_cpu_guest_rdmsr(&cpu, &vmcs, &value) == SPECCTRL_CPU_VM_EXIT, "without a bitmap all accesses exit");

	cpu.has_control = false;
	check(specctrl_cpu_vm_entry(&cpu, &vmcs) == SPECCTRL_CPU_VMFAIL_CONTROLS, "no control, no entry with it: error 7");
	check(specctrl_vmwrite_mask(&cpu, &vmcs, 0) == SPECCTRL_CPU_VMFAIL_FIELD &&
	      specctrl_vmwrite_shadow(&cpu, &vmcs, 0) == SPECCTRL_CPU_VMFAIL_FIELD &&
	      specctrl_vmread_shadow(&cpu, &vmcs, &value) == SPECCTRL_CPU_VMFAIL_FIELD,
	      "no control, no MASK and no SHADOW: error 12");
	vmcs.exit_store.present = true;
	cpu.writable = 0;
	check(specctrl_cpu_vm_exit(&cpu, &vmcs) == SPECCTRL_CPU_VMX_ABORT, "without the MSR a VM-exit store aborts");
	check(specctrl_cpu_wrmsr(&cpu, 0) == SPECCTRL_CPU_GP && specctrl_cpu_rdmsr(&cpu, &value) == SPECCTRL_CPU_GP,
	      "without the MSR even 0 faults");
}

/* L0's MSR areas, with "virtualize IA32_SPEC_CTRL" and without. */
static void areas(void)
{
	struct specctrl_cpu cpu;
	struct specctrl_vmcs vmcs;

	memset(&cpu, 0, sizeof(cpu));
	memset(&vmcs, 0, sizeof(vmcs));
	cpu.writable = IBRS | BHI;
	cpu.has_control = true;
	cpu.spec_ctrl = IBRS;
	vmcs.entry_load.present = true;
	vmcs.entry_load.value = BHI;
	vmcs.exit_store.present = true;
	check(!specctrl_cpu_vm_entry(&cpu, &vmcs) && cpu.spec_ctrl == BHI, "VM entry loads the area's value");
	check(!specctrl_cpu_vm_exit(&cpu, &vmcs) && vmcs.exit_store.value == BHI, "VM exit stores the MSR");
	vmcs.entry_load.value = SSBD;
	check(specctrl_cpu_vm_entry(&cpu, &vmcs) == SPECCTRL_CPU_ENTRY_FAILED && !cpu.non_root,
	      "a refused VM-entry load fails the entry");
	vmcs.entry_load.value = IBRS;
	vmcs.virtualize = true;
	vmcs.shadow = SSBD;
	check(specctrl_cpu_vm_entry(&cpu, &vmcs) == SPECCTRL_CPU_UNDEFINED && !cpu.non_root,
	      "what VM entry loads from its area under the control is undefined");
	check(specctrl_cpu_vm_exit(&cpu, &vmcs) == SPECCTRL_CPU_UNDEFINED && vmcs.exit_store.value == BHI,
	      "what VM exit stores under the control is undefined");
	vmcs.entry_load.present = vmcs.exit_store.present = false;
	vmcs.exit_load.present = true;
	vmcs.exit_load.value = IBRS | BHI;
	check(!specctrl_cpu_vm_exit(&cpu, &vmcs) && cpu.spec_ctrl == (IBRS | BHI) && vmcs.shadow == SSBD,
	      "the VM-exit load area acts on the MSR, not on the shadow");
	vmcs.exit_load.value = SSBD;
	check(specctrl_cpu_vm_exit(&cpu, &vmcs) == SPECCTRL_CPU_VMX_ABORT, "a refused VM-exit load aborts");
}

/* The two controls "load IA32_SPEC_CTRL". */
static void loads(void)
{
	struct specctrl_cpu cpu;
	struct specctrl_vmcs vmcs;

	memset(&cpu, 0, sizeof(cpu));
	memset(&vmcs, 0, sizeof(vmcs));
	cpu.writable = IBRS | BHI;
	cpu.spec_ctrl = IBRS;
	check(specctrl_vmwrite_guest(&cpu, &vmcs, 0) == SPECCTRL_CPU_VMFAIL_FIELD &&
	      specctrl_vmwrite_host(&cpu, &vmcs, 0) == SPECCTRL_CPU_VMFAIL_FIELD, "no such control, no such field: error 12");
	vmcs.load_on_entry = true;
	check(specctrl_cpu_vm_entry(&cpu, &vmcs) == SPECCTRL_CPU_VMFAIL_CONTROLS, "and no entry with it: error 7");
	vmcs.load_on_entry = false;
	vmcs.load_on_exit = true;
	check(specctrl_cpu_vm_entry(&cpu, &vmcs) == SPECCTRL_CPU_VMFAIL_CONTROLS, "nor with the other: error 7");
	cpu.has_entry_load = cpu.has_exit_load = true;
	vmcs.load_on_entry = true;
	check(!specctrl_vmwrite_guest(&cpu, &vmcs, BHI) && !specctrl_vmwrite_host(&cpu, &vmcs, IBRS), "fields are written");
	check(!specctrl_cpu_vm_entry(&cpu, &vmcs) && cpu.spec_ctrl == BHI, "VM entry loads the guest-state field");
	cpu.spec_ctrl = 0;
	check(!specctrl_cpu_vm_exit(&cpu, &vmcs) && cpu.spec_ctrl == IBRS, "VM exit loads the host-state field");
	check(vmcs.guest_spec_ctrl == 0, "VM exit saves the MSR in the guest-state field");
	vmcs.load_on_entry = false;
	check(!specctrl_cpu_vm_exit(&cpu, &vmcs) && vmcs.guest_spec_ctrl == IBRS, "whether an entry loads it or not");
	vmcs.load_on_entry = true;
	vmcs.guest_spec_ctrl = SSBD;
	cpu.spec_ctrl = BHI;
	check(specctrl_cpu_vm_entry(&cpu, &vmcs) == SPECCTRL_CPU_ENTRY_FAILED && cpu.spec_ctrl == IBRS,
	      "a refused guest-state field fails the entry, and the host's state is loaded");
	vmcs.exit_load.present = true;
	vmcs.exit_load.value = SSBD;
	check(specctrl_cpu_vm_entry(&cpu, &vmcs) == SPECCTRL_CPU_VMX_ABORT, "which may abort");
	vmcs.host_spec_ctrl = SSBD;
	check(specctrl_cpu_vm_entry(&cpu, &vmcs) == SPECCTRL_CPU_VMFAIL_HOST_FIELD, "a refused host-state field: error 8");
}

static void capability(void)
{
	struct specctrl_host host = new_host();
	struct specctrl_vm vm = new_vm(&host);
	uint64_t bits = 0;

	check(!specctrl_get_supported(&host, false, &bits) && bits == 0x447, "what can be forced: 0x447");
	check(specctrl_get_supported(&host, true, &bits) == SPECCTRL_ENOTTY, "that ioctl is not the VM fd's");
	check(specctrl_vm_force(&vm, 0, BHI) == SPECCTRL_EINVAL, "a value outside the mask is refused");
	check(specctrl_vm_force(&vm, ~0ULL, 1ULL << 63) == SPECCTRL_EINVAL, "a value that is not supported is refused");
	check(!specctrl_vm_force(&vm, ~0ULL, BHI), "a mask may have any bit");
	check(!specctrl_vm_count_vcpu(&vm, 0, false), "a first vCPU can be created");
	check(specctrl_vm_force(&vm, 0, 0) == SPECCTRL_EINVAL, "not once a vCPU exists");
	host.has_control = false;
	vm.created_vcpus = 0;
	check(specctrl_vm_force(&vm, SSBD, 0) == SPECCTRL_EINVAL, "without the control nothing, not even 0, can be forced");
}

static void report(void)
{
	struct specctrl_host host = new_host();
	struct specctrl_vm vm = new_vm(&host);
	struct specctrl_model model;

	new_vcpu(&model, &vm);
	check(writes(&model, MSR_IA32_SPEC_CTRL, IBRS) &&
	      writes(&model, MSR_VIRTUAL_MITIGATION_CTRL, MITI_CTRL_BHB_CLEAR_SEQ_S_USED) &&
	      writes(&model, MSR_IA32_SPEC_CTRL, IBRS), "the guest reports");
	check(model.cpu.non_root && model.cpu.spec_ctrl == (IBRS | BHI), "a report is in force while the guest runs");
	check(reads(&model, IBRS), "the guest reads what it wrote");
	check(exits(&model), "the host has its value back");
	check(!specctrl_init(&model.vcpu) && !model.vcpu.mitigation_ctrl && !model.vcpu.force_mask,
	      "INIT withdraws the report");

	host.has_control = false;
	new_vcpu(&model, &vm);
	check(writes(&model, MSR_IA32_SPEC_CTRL, IBRS) && !model.vmcs[0].intercept_write,
	      "without the control a non-zero write ends the interception");
	check(writes(&model, MSR_VIRTUAL_MITIGATION_CTRL, MITI_CTRL_RETPOLINE_S_USED) &&
	      model.vmcs[0].intercept_write, "and a report brings it back");
	check(writes(&model, MSR_IA32_SPEC_CTRL, SSBD) && model.cpu.spec_ctrl == (SSBD | RRSBA) && reads(&model, SSBD),
	      "the intercepted write is merged");
	check(model.cpu.non_root && specctrl_view(&model) == SSBD && specctrl_effective(&model) == (SSBD | RRSBA) &&
	      specctrl_access_exits(&model, true), "without the control the view is not the register");
}

/* A register that something else wrote: the guest gets its merge, the host its value. */
static void drift(void)
{
	struct specctrl_host host = new_host();
	struct specctrl_vm vm = new_vm(&host);
	struct specctrl_model model;

	new_vcpu(&model, &vm);
	check(writes(&model, MSR_IA32_SPEC_CTRL, IBRS | BHI) && exits(&model) && model.vcpu.saved == host.spec_ctrl,
	      "a guest runs with the host's value");
	model.cpu.spec_ctrl = 0;
	check(!specctrl_guest_run(&model) && model.cpu.spec_ctrl == (IBRS | BHI),
	      "and does so when the register lost it");
	specctrl_guest_exit_nmi(&model, SSBD);
	check(model.vcpu.saved == (IBRS | BHI) && model.cpu.spec_ctrl == host.spec_ctrl,
	      "what an NMI leaves becomes neither the guest's nor the host's");
	specctrl_intercept(&model.vcpu, false, true, true);
	check(!specctrl_guest_run(&model), "the guest's writes are intercepted");
	specctrl_guest_exit_nmi(&model, SSBD);
	check(model.cpu.spec_ctrl == host.spec_ctrl, "and what an NMI leaves is not the host's all the same");
	model.vcpu.cpuid = SPECCTRL_HAS_AMD_SSBD;
	check(reads(&model, IBRS | BHI), "AMD's bits show the MSR");
	model.vcpu.cpuid = SPECCTRL_HAS_SSBD;
	check(!specctrl_shows(&model.vcpu, MSR_IA32_SPEC_CTRL), "SSBD of leaf 7 alone does not");
}

static void nested(void)
{
	static const struct specctrl_msr half[] = {
		{ MSR_IA32_SPEC_CTRL, SSBD },
		{ MSR_VIRTUAL_ENUMERATION, 0 },		/* refused: read-only */
	};
	struct specctrl_host host = new_host();
	struct specctrl_vm vm = new_vm(&host);
	struct specctrl_model model;
	struct specctrl_l1 l1;

	memset(&l1, 0, sizeof(l1));
	l1.use_msr_bitmap = true;
	new_vcpu(&model, &vm);
	check(!specctrl_vcpu_enable_cap(&model.vcpu, KVM_CAP_FORCE_SPEC_CTRL, 0, BHI, BHI), "a vCPU takes a pair");
	check(specctrl_effective(&model) == BHI && !specctrl_view(&model) && !model.vcpu.has_run,
	      "what the next entry loads shows before it, and looking is no entry");
	check(writes(&model, MSR_IA32_SPEC_CTRL, IBRS) && !specctrl_guest_vmlaunch(&model, &l1, NULL, 0) &&
	      model.vcpu.level2 && reads(&model, IBRS), "L2 starts with L1's view");
	check(writes(&model, MSR_IA32_SPEC_CTRL, 0) && model.cpu.spec_ctrl == BHI, "forced bits hold in L2");
	check(specctrl_guest_wrmsr(&model, MSR_VIRTUAL_MITIGATION_CTRL, 0) == SPECCTRL_REFLECTED &&
	      !model.vcpu.level2, "L2's access to a virtual MSR goes to L1");
	check(reads(&model, 0), "L1 reads what L2 wrote");
	check(specctrl_guest_vmlaunch(&model, &l1, half, 2) == SPECCTRL_NESTED_ENTRY_FAILED &&
	      model.vcpu.failed_entry == 2 && reads(&model, SSBD), "an entry that fails half-way keeps what was done");
	check(!specctrl_guest_vmlaunch(&model, &l1, NULL, 0), "L2 is entered again");
	specctrl_guest_exit(&model);
	specctrl_smi(&model.vcpu);
	check(!model.vcpu.level2 && writes(&model, MSR_IA32_SPEC_CTRL, IBRS), "SMM runs at level 1");
	specctrl_guest_exit(&model);
	check(!specctrl_rsm(&model.vcpu) && model.vcpu.level2 && reads(&model, IBRS), "L2 reads what SMM wrote");
	check(exits(&model), "after all of it the host has its value back");
}

int main(void)
{
	words();
	processor();
	areas();
	loads();
	capability();
	report();
	drift();
	nested();
	printf("1..%u\n", checks);
	return failures ? 1 : 0;
}
