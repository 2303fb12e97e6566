/* SPDX-License-Identifier: (GPL-2.0 OR MIT) */
/* RDMSR and WRMSR of IA32_SPEC_CTRL in VMX non-root operation, VM entry and VM exit, for all inputs. */
#include "any.h"

/* The shadow is read, or the MSR without the control; an intercepted read gives nothing. */
void guest_rdmsr(void)
{
	struct specctrl_cpu cpu = nondet_cpu();
	struct specctrl_vmcs vmcs = nondet_vmcs();
	uint64_t before = nondet_u64();
	uint64_t value = before;
	enum specctrl_event result = specctrl_cpu_guest_rdmsr(&cpu, &vmcs, &value);

	assert((result == SPECCTRL_CPU_VM_EXIT) == (!vmcs.use_msr_bitmap || vmcs.intercept_read));
	if (result == SPECCTRL_CPU_DONE)
		assert(value == (vmcs.virtualize ? vmcs.shadow : cpu.spec_ctrl));
	else
		assert(value == before);
	reachable(result == SPECCTRL_CPU_DONE && vmcs.virtualize && value != cpu.spec_ctrl);
}

/*
 * With the control: masked bits stay, the others and the shadow take the
 * operand, #GP if and only if the merge is refused, and then nothing changed.
 */
void guest_wrmsr(void)
{
	struct specctrl_cpu cpu = nondet_cpu(), cpu_before = cpu;
	struct specctrl_vmcs vmcs = nondet_vmcs(), vmcs_before = vmcs;
	uint64_t operand = nondet_u64(), merged = 0;
	uint32_t nr = any_bit_number(), i;
	enum specctrl_event result;

	for (i = 0; i < 64; i++)
		merged |= (bit(vmcs.mask, i) ? bit(cpu.spec_ctrl, i) : bit(operand, i)) * (1ULL << i);
	assume(vmcs.virtualize);
	result = specctrl_cpu_guest_wrmsr(&cpu, &vmcs, operand);

	assert(vmcs.mask == vmcs_before.mask);
	assert((result == SPECCTRL_CPU_VM_EXIT) == (!vmcs.use_msr_bitmap || vmcs.intercept_write));
	if (result != SPECCTRL_CPU_VM_EXIT)
		assert((result == SPECCTRL_CPU_GP) == (!cpu.writable || (merged & ~cpu.writable)));
	if (result == SPECCTRL_CPU_DONE) {
		assert(cpu.spec_ctrl == merged);
		assert(!bit(vmcs.mask, nr) || bit(cpu.spec_ctrl, nr) == bit(cpu_before.spec_ctrl, nr));
		assert(vmcs.shadow == operand);
	} else {
		assert(cpu.spec_ctrl == cpu_before.spec_ctrl && vmcs.shadow == vmcs_before.shadow);
	}
	reachable(result == SPECCTRL_CPU_DONE && (operand & ~cpu.writable) && cpu.spec_ctrl != operand);
}

/* Without the control the MSR itself is written, whatever mask and shadow hold. */
void guest_wrmsr_plain(void)
{
	struct specctrl_cpu cpu = nondet_cpu();
	struct specctrl_vmcs vmcs = nondet_vmcs();
	uint64_t operand = nondet_u64(), before = cpu.spec_ctrl, shadow = vmcs.shadow;
	enum specctrl_event result;

	assume(!vmcs.virtualize);
	result = specctrl_cpu_guest_wrmsr(&cpu, &vmcs, operand);
	assert(vmcs.shadow == shadow);
	assert(cpu.spec_ctrl == (result == SPECCTRL_CPU_DONE ? operand : before));
	if (result == SPECCTRL_CPU_DONE)
		assert(!(operand & ~cpu.writable));
	reachable(result == SPECCTRL_CPU_DONE && vmcs.mask && operand != before);
}

/* What a VM exit, or an entry that failed late, leaves in the MSR: @guest, unless the host's state has it. */
static uint64_t host_state(const struct specctrl_vmcs *vmcs, uint64_t guest)
{
	if (vmcs->exit_load.present)
		return vmcs->exit_load.value;
	return vmcs->load_on_exit ? vmcs->host_spec_ctrl : guest;
}

/*
 * VM entry: the MSR is what the area or else the guest-state field says, if they
 * are to be loaded, and never the shadow; a failed entry leaves the host's state.
 */
void vm_entry(void)
{
	struct specctrl_cpu cpu = nondet_cpu(), cpu_before = cpu;
	struct specctrl_vmcs vmcs = nondet_vmcs();
	uint64_t loaded = vmcs.load_on_entry ? vmcs.guest_spec_ctrl : cpu.spec_ctrl;
	enum specctrl_event result;

	assume(!cpu.entry_loads_shadow);
	result = specctrl_cpu_vm_entry(&cpu, &vmcs);
	if (result == SPECCTRL_CPU_DONE) {
		assert(cpu.non_root && !(vmcs.entry_load.present && vmcs.virtualize));
		assert(cpu.spec_ctrl == (vmcs.entry_load.present ? vmcs.entry_load.value : loaded));
		assert(!vmcs.load_on_exit || specctrl_cpu_accepts(&cpu, vmcs.host_spec_ctrl));
	} else if (result == SPECCTRL_CPU_ENTRY_FAILED) {
		assert(!cpu.non_root && (vmcs.load_on_entry || vmcs.entry_load.present));
		assert(cpu.spec_ctrl == host_state(&vmcs, loaded) ||
		       cpu.spec_ctrl == host_state(&vmcs, cpu_before.spec_ctrl));
	} else if (result != SPECCTRL_CPU_VMX_ABORT && result != SPECCTRL_CPU_UNDEFINED) {
		assert(cpu.spec_ctrl == cpu_before.spec_ctrl && cpu.non_root == cpu_before.non_root);
	}
	reachable(result == SPECCTRL_CPU_DONE && vmcs.virtualize && vmcs.load_on_entry &&
		  cpu.spec_ctrl != cpu_before.spec_ctrl && cpu.spec_ctrl != vmcs.shadow);
}

/* VM exit: the guest-state field takes the MSR where it exists, the MSR the host's state; never the shadow. */
void vm_exit(void)
{
	struct specctrl_cpu cpu = nondet_cpu(), cpu_before = cpu;
	struct specctrl_vmcs vmcs = nondet_vmcs(), vmcs_before = vmcs;
	enum specctrl_event result = specctrl_cpu_vm_exit(&cpu, &vmcs);

	assert(!cpu.non_root && vmcs.shadow == vmcs_before.shadow && vmcs.mask == vmcs_before.mask);
	assert(vmcs.guest_spec_ctrl == (cpu.has_entry_load ? cpu_before.spec_ctrl : vmcs_before.guest_spec_ctrl));
	if (result == SPECCTRL_CPU_DONE) {
		assert(cpu.spec_ctrl == host_state(&vmcs, cpu_before.spec_ctrl));
		assert(!vmcs.exit_store.present || vmcs.exit_store.value == cpu_before.spec_ctrl);
		assert(!(vmcs.exit_store.present && vmcs.virtualize));
	}
	reachable(result == SPECCTRL_CPU_DONE && vmcs.exit_store.present && vmcs.load_on_exit &&
		  cpu.spec_ctrl != cpu_before.spec_ctrl);
}
