/* SPDX-License-Identifier: (GPL-2.0 OR MIT) */
/*
 * One vCPU at level 1.  Creation leads to a state in which the invariant holds;
 * each step leads from any such state, on any host, with any arguments, to such
 * a state.  The MSR filter answers anything.
 *
 * An instruction of the guest is proven by its steps, each by itself: the
 * processor's access, the exit, what KVM performs, and the entry.
 */
#include "any.h"

static struct specctrl_host host;
static struct specctrl_vm vm;
static struct specctrl_model model;
static struct specctrl_vcpu *const vcpu = &model.vcpu;
static struct specctrl_vmcs *const vmcs01 = &model.vmcs[0];

static bool any_filter(const struct specctrl_vcpu *the_vcpu, uint32_t msr, bool write)
{
	(void)the_vcpu, (void)msr, (void)write;
	return nondet_bool();
}

/* Any host: the control comes with the MSR, and the MSR can hold the host's own value. */
static void any_host(void)
{
	host = nondet_host();
	assume(!host.has_control || specctrl_host_has(&host, SPECCTRL_HAS_SPEC_CTRL));
	assume(specctrl_is_subset(host.spec_ctrl, specctrl_writable_bits(host.features)));
	vm = nondet_vm();
	vm.host = &host;
}

/* What the guest would read now. */
static uint64_t view(void)
{
	if (!model.cpu.non_root || vmcs01->intercept_write)
		return vcpu->guest_view;
	return host.has_control ? vmcs01->shadow : model.cpu.spec_ctrl;
}

static uint64_t merged_view(void)
{
	return specctrl_merge(view(), vcpu->force_mask, vcpu->force_value);
}

/* What never changes after creation, and level 1. */
static bool constants_hold(void)
{
	return vcpu->vm == &vm && vcpu->host == &host && !vcpu->level2 && !model.loaded &&
	       model.cpu.writable == specctrl_writable_bits(host.features) &&
	       model.cpu.has_control == host.has_control && !model.cpu.entry_loads_shadow &&
	       vmcs01->virtualize == host.has_control && vmcs01->use_msr_bitmap &&
	       !vmcs01->entry_load.present && !vmcs01->exit_store.present &&
	       !vmcs01->exit_load.present && !vmcs01->load_on_entry && !vmcs01->load_on_exit;
}

/* The pair in force is userspace's with the report on top; userspace's was accepted. */
static bool force_holds(void)
{
	uint64_t mask = vcpu->user_mask, value = vcpu->user_value;

	if ((mask || value) && !specctrl_can_force(&host, mask, value))
		return false;
	specctrl_overlay(&mask, &value, specctrl_requested(&host, vcpu->mitigation_ctrl));
	return vcpu->force_mask == mask && vcpu->force_value == value;
}

/* What must be intercepted is. */
static bool interception_holds(void)
{
	if (vcpu->passthrough)
		return (vcpu->cpuid & SPECCTRL_SHOW_MSR) &&
		       (host.has_control || !vcpu->force_mask);
	return vmcs01->intercept_read && vmcs01->intercept_write;
}

/* The register: the guest's merge while it runs, the host's own value otherwise. */
static bool registers_hold(void)
{
	if (host.has_control &&
	    (vmcs01->mask != vcpu->force_mask || vmcs01->shadow != view()))
		return false;
	if (!specctrl_host_has_msr(&host))
		return !vcpu->guest_view && !vcpu->saved && !model.cpu.spec_ctrl && !vcpu->passthrough;
	if (!specctrl_is_subset(merged_view(), model.cpu.writable))
		return false;
	if (!model.cpu.non_root)
		return vcpu->saved == merged_view() && model.cpu.spec_ctrl == host.spec_ctrl;
	return model.cpu.spec_ctrl == merged_view() &&
	       (!vmcs01->intercept_write || vcpu->saved == merged_view());
}

static bool invariant(void)
{
	return !model.host_fault && constants_hold() && force_holds() && interception_holds() &&
	       registers_hold();
}

/* Any state of which the invariant is true; the guest runs, or KVM does. */
static void any_state(bool guest_runs)
{
	any_host();
	model = nondet_model();
	vcpu->vm = &vm;
	vcpu->host = &host;
	vcpu->level2 = false;
	model.loaded = 0;
	model.msr_allowed = any_filter;
	model.l1_bitmap = NULL;
	model.cpu.non_root = guest_runs;
	assume(invariant());
}

/* A new vCPU of a VM for which KVM_ENABLE_CAP was called with anything, or not at all. */
void creation(void)
{
	any_host();
	vm.user_mask = vm.user_value = 0;
	vm.created_vcpus = 0;
	if (specctrl_vm_enable_cap(&vm, nondet_u32(), nondet_u32(), nondet_u64(), nondet_u64()))
		assert(!vm.user_mask && !vm.user_value);
	specctrl_model_create(&model, &vm, nondet_u32());
	assert(invariant());
	assert(view() == 0);
	reachable(vcpu->force_mask && vcpu->saved);
}

/* VM entry: the guest's merge is in the register, and the guest reads what it did. */
void enter_guest(void)
{
	uint64_t before;

	any_state(false);
	before = view();
	assert(specctrl_guest_run(&model) == SPECCTRL_DONE);
	assert(invariant());
	assert(model.cpu.non_root && view() == before);
	assert(!specctrl_host_has_msr(&host) || model.cpu.spec_ctrl == merged_view());
	reachable(vcpu->force_mask && model.cpu.spec_ctrl != view());
}

/* VM entry, whatever something else left in the register: the guest's merge is in it. */
void enter_drifted(void)
{
	uint64_t before, left = nondet_u64();

	any_state(false);
	assume(specctrl_host_has_msr(&host));
	before = view();
	model.cpu.spec_ctrl = left;
	assert(specctrl_guest_run(&model) == SPECCTRL_DONE);
	assert(invariant());
	assert(view() == before && model.cpu.spec_ctrl == merged_view());
	reachable(vcpu->saved == host.spec_ctrl && left != host.spec_ctrl);
}

/* VM exit: the saved value is what the register held, and the host's own is back. */
void exit_guest(void)
{
	uint64_t before, register_before;

	any_state(true);
	before = view();
	register_before = model.cpu.spec_ctrl;
	specctrl_guest_exit(&model);
	assert(invariant());
	assert(!model.cpu.non_root && view() == before);
	assert(model.cpu.spec_ctrl == host.spec_ctrl || !specctrl_host_has_msr(&host));
	assert(vcpu->saved == register_before);
	reachable(vcpu->saved != host.spec_ctrl && vcpu->saved != before);
}

/*
 * VM exit, and an NMI leaves any value before the register is read: with the
 * control, or where the guest's writes exit, nothing is lost.
 */
void exit_after_nmi(void)
{
	uint64_t before, leaves = nondet_u64();

	any_state(true);
	assume(host.has_control || specctrl_intercepted(vcpu, false, true));
	assume(specctrl_cpu_accepts(&model.cpu, leaves));
	before = view();
	specctrl_guest_exit_nmi(&model, leaves);
	assert(invariant());
	assert(view() == before && model.cpu.spec_ctrl == host.spec_ctrl);
	reachable(leaves != host.spec_ctrl && vcpu->saved == host.spec_ctrl &&
		  specctrl_intercepted(vcpu, false, true));
}

/* The guest's WRMSR that does not exit: it reads the operand back, or took #GP. */
void guest_write(void)
{
	uint64_t before, register_before, operand = nondet_u64();
	enum specctrl_event result;

	any_state(true);
	assume(!specctrl_intercepted(vcpu, false, true));
	before = view();
	register_before = model.cpu.spec_ctrl;
	result = specctrl_cpu_guest_wrmsr(&model.cpu, vmcs01, operand);
	assert(invariant());
	assert(result == SPECCTRL_CPU_DONE || result == SPECCTRL_CPU_GP);
	assert(view() == (result == SPECCTRL_CPU_DONE ? operand : before));
	assert(result == SPECCTRL_CPU_DONE || model.cpu.spec_ctrl == register_before);
	reachable(result == SPECCTRL_CPU_DONE && vcpu->force_mask && model.cpu.spec_ctrl != operand);
}

/* The guest's RDMSR that does not exit gives its view. */
void guest_read(void)
{
	uint64_t value = 0;
	enum specctrl_event result;

	any_state(true);
	assume(!vmcs01->intercept_read);
	result = specctrl_cpu_guest_rdmsr(&model.cpu, vmcs01, &value);
	assert(result == SPECCTRL_CPU_DONE && value == view());
	reachable(vcpu->force_mask && value != model.cpu.spec_ctrl);
}

/* A write that KVM performs, the guest's or userspace's: read back, or refused. */
void performed_write(void)
{
	uint64_t before, operand = nondet_u64();
	enum specctrl_result refused;

	any_state(false);
	before = view();
	if (nondet_bool())
		refused = specctrl_emulate_wrmsr(vcpu, MSR_IA32_SPEC_CTRL, operand);
	else
		refused = specctrl_do_set_msr(vcpu, MSR_IA32_SPEC_CTRL, operand);
	assert(invariant());
	assert(view() == (refused ? before : operand));
	reachable(!refused && vcpu->force_mask && vcpu->saved != operand);
}

/* A report that KVM takes: what this host can deliver is in force; the view stays. */
void performed_report(void)
{
	uint64_t before, report = nondet_u64();
	enum specctrl_result refused;

	any_state(false);
	before = view();
	if (nondet_bool())
		refused = specctrl_emulate_wrmsr(vcpu, MSR_VIRTUAL_MITIGATION_CTRL, report);
	else
		refused = specctrl_do_set_msr(vcpu, MSR_VIRTUAL_MITIGATION_CTRL, report);
	assert(invariant());
	assert(view() == before);
	assert(refused || specctrl_is_subset(specctrl_requested(&host, report) & ~vcpu->user_mask,
					     vcpu->saved));
	reachable(!refused && specctrl_requested(&host, report) && host.has_control);
}

/* KVM_ENABLE_CAP on the vCPU fd: in force, or refused and nothing changed; never the view. */
void vcpu_enable_cap(void)
{
	uint64_t before, mask = nondet_u64(), value = nondet_u64(), old_mask, old_value;
	enum specctrl_result error;

	any_state(false);
	before = view();
	old_mask = vcpu->force_mask;
	old_value = vcpu->force_value;
	error = specctrl_vcpu_enable_cap(vcpu, nondet_u32(), nondet_u32(), mask, value);
	assert(invariant());
	assert(view() == before);
	if (error)
		assert(vcpu->force_mask == old_mask && vcpu->force_value == old_value);
	else
		assert((vcpu->saved & mask) == value);
	reachable(!error && vcpu->force_mask != old_mask && (value & ~before));
}

/* A changed MSR filter: the invariant and the view stay. */
void filter_changed(void)
{
	uint64_t before;

	any_state(false);
	before = view();
	specctrl_update_interception(vcpu);
	assert(invariant());
	assert(view() == before);
	reachable(vcpu->passthrough && vmcs01->intercept_write);
}

/* What INIT resets outside VMX operation and SMM: the view is 0, userspace's pair stays. */
void init_reset(void)
{
	uint64_t mask, value;

	any_state(false);
	mask = vcpu->user_mask;
	value = vcpu->user_value;
	specctrl_init_reset(vcpu);
	assert(invariant());
	assert(view() == 0 && vcpu->user_mask == mask && vcpu->user_value == value);
	reachable(mask && vcpu->saved);
}
