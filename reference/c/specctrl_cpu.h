/* SPDX-License-Identifier: (GPL-2.0 OR MIT) */
/*
 * A processor for specctrl.h, as a model: what the tests and the proofs run on,
 * and nothing to copy into a hypervisor, which has one.
 *
 * Also here: a guest, whose instructions enter and leave it, and what can be
 * looked at from outside.
 */
#ifndef SPECCTRL_CPU_H
#define SPECCTRL_CPU_H

#include "specctrl.h"

/* ---- The processor ----------------------------------------------------- */

enum specctrl_event {			/* what comes of an instruction, an entry or an exit */
	SPECCTRL_CPU_DONE = 0,
	SPECCTRL_CPU_GP,
	SPECCTRL_CPU_VM_EXIT,		/* the bitmap intercepts; nothing was executed */
	SPECCTRL_CPU_VMFAIL_CONTROLS,	/* VM-instruction error 7 */
	SPECCTRL_CPU_VMFAIL_HOST_FIELD,	/* VM-instruction error 8 */
	SPECCTRL_CPU_VMFAIL_FIELD,	/* VM-instruction error 12 */
	SPECCTRL_CPU_ENTRY_FAILED,	/* a guest-state field or the VM-entry MSR-load area */
	SPECCTRL_CPU_VMX_ABORT,
	SPECCTRL_CPU_UNDEFINED,		/* no event: the SDM does not say what happens */
};

#ifdef __GNUC__
#define specctrl_checked_event __attribute__((warn_unused_result)) enum specctrl_event
#else
#define specctrl_checked_event enum specctrl_event
#endif

struct specctrl_area {			/* IA32_SPEC_CTRL in an MSR area of the hypervisor */
	bool present;
	uint64_t value;
};

struct specctrl_vmcs {
	bool virtualize;		/* tertiary VM-execution control, bit 7 */
	uint64_t mask;			/* 0x204A: bits that the guest cannot change */
	uint64_t shadow;		/* 0x204C: what the guest reads */
	bool use_msr_bitmap;		/* without one every RDMSR and WRMSR exits */
	bool intercept_read;		/* the bitmap's bits for IA32_SPEC_CTRL */
	bool intercept_write;
	struct specctrl_area entry_load;
	struct specctrl_area exit_store;
	struct specctrl_area exit_load;
	bool load_on_entry;		/* VM-entry control, bit 24: "load IA32_SPEC_CTRL" */
	uint64_t guest_spec_ctrl;	/* guest-state field */
	bool load_on_exit;		/* secondary VM-exit control, bit 2, of the same name */
	uint64_t host_spec_ctrl;	/* host-state field */
};

struct specctrl_cpu {
	uint64_t writable;		/* the bits that are not reserved */
	bool has_control;
	bool has_entry_load;		/* the VM-entry control "load IA32_SPEC_CTRL" may be 1 */
	bool has_exit_load;		/* the VM-exit control may be */
	bool entry_loads_shadow;	/* assumption, false: see processor.entry.no-load */
	bool non_root;			/* VMX non-root operation: guest code runs */
	uint64_t spec_ctrl;		/* the register itself */
};

/*
 * Whether a write to the real MSR completes: not with a reserved bit, and not
 * where there is no MSR, where even 0 is refused.
 * rule: access.no-msr.refused, processor.wrmsr.fault-on-merged
 */
static inline bool specctrl_cpu_accepts(const struct specctrl_cpu *cpu, uint64_t value)
{
	return cpu->writable && specctrl_is_subset(value, cpu->writable);
}

/* rule: processor.root.real-msr */
static inline specctrl_checked_event specctrl_cpu_rdmsr(const struct specctrl_cpu *cpu,
							uint64_t *value)
{
	if (!cpu->writable)
		return SPECCTRL_CPU_GP;
	*value = cpu->spec_ctrl;
	return SPECCTRL_CPU_DONE;
}

/* rule: processor.root.real-msr */
static inline specctrl_checked_event specctrl_cpu_wrmsr(struct specctrl_cpu *cpu, uint64_t value)
{
	if (!specctrl_cpu_accepts(cpu, value))
		return SPECCTRL_CPU_GP;
	cpu->spec_ctrl = value;
	return SPECCTRL_CPU_DONE;
}

/*
 * RDMSR of IA32_SPEC_CTRL in VMX non-root operation.
 * rule: processor.intercept.first, processor.rdmsr.shadow,
 *	 processor.without-control.plain
 */
static inline specctrl_checked_event specctrl_cpu_guest_rdmsr(const struct specctrl_cpu *cpu,
							      const struct specctrl_vmcs *vmcs,
							      uint64_t *value)
{
	if (!vmcs->use_msr_bitmap || vmcs->intercept_read)
		return SPECCTRL_CPU_VM_EXIT;
	if (!vmcs->virtualize)
		return specctrl_cpu_rdmsr(cpu, value);
	*value = vmcs->shadow;
	return SPECCTRL_CPU_DONE;
}

/*
 * WRMSR of IA32_SPEC_CTRL in VMX non-root operation.  With the control, masked
 * bits stay as they are in the MSR, the fault is decided on the merged value,
 * and the unmodified source becomes the shadow.
 * rule: processor.intercept.first, processor.without-control.plain,
 *	 processor.wrmsr.masked-kept, processor.wrmsr.fault-on-merged,
 *	 processor.wrmsr.shadow-unmodified
 */
static inline specctrl_checked_event specctrl_cpu_guest_wrmsr(struct specctrl_cpu *cpu,
							      struct specctrl_vmcs *vmcs,
							      uint64_t source)
{
	if (!vmcs->use_msr_bitmap || vmcs->intercept_write)
		return SPECCTRL_CPU_VM_EXIT;
	if (!vmcs->virtualize)
		return specctrl_cpu_wrmsr(cpu, source);
	if (specctrl_cpu_wrmsr(cpu, specctrl_merge(source, vmcs->mask, cpu->spec_ctrl)))
		return SPECCTRL_CPU_GP;
	vmcs->shadow = source;
	return SPECCTRL_CPU_DONE;
}

/* VMWRITE of IA32_SPEC_CTRL_MASK; rule: processor.fields.need-control */
static inline specctrl_checked_event specctrl_vmwrite_mask(const struct specctrl_cpu *cpu,
							   struct specctrl_vmcs *vmcs,
							   uint64_t value)
{
	if (!cpu->has_control)
		return SPECCTRL_CPU_VMFAIL_FIELD;
	vmcs->mask = value;
	return SPECCTRL_CPU_DONE;
}

/* VMWRITE of IA32_SPEC_CTRL_SHADOW; rule: processor.fields.need-control */
static inline specctrl_checked_event specctrl_vmwrite_shadow(const struct specctrl_cpu *cpu,
							     struct specctrl_vmcs *vmcs,
							     uint64_t value)
{
	if (!cpu->has_control)
		return SPECCTRL_CPU_VMFAIL_FIELD;
	vmcs->shadow = value;
	return SPECCTRL_CPU_DONE;
}

/* VMREAD of IA32_SPEC_CTRL_SHADOW; rule: processor.fields.need-control */
static inline specctrl_checked_event specctrl_vmread_shadow(const struct specctrl_cpu *cpu,
							    const struct specctrl_vmcs *vmcs,
							    uint64_t *value)
{
	if (!cpu->has_control)
		return SPECCTRL_CPU_VMFAIL_FIELD;
	*value = vmcs->shadow;
	return SPECCTRL_CPU_DONE;
}

/*
 * VMWRITE of the guest-state field IA32_SPEC_CTRL; it exists with the VM-entry
 * control; rule: processor.load.entry
 */
static inline specctrl_checked_event specctrl_vmwrite_guest(const struct specctrl_cpu *cpu,
							    struct specctrl_vmcs *vmcs,
							    uint64_t value)
{
	if (!cpu->has_entry_load)
		return SPECCTRL_CPU_VMFAIL_FIELD;
	vmcs->guest_spec_ctrl = value;
	return SPECCTRL_CPU_DONE;
}

/*
 * VMWRITE of the host-state field IA32_SPEC_CTRL; it exists with the VM-exit
 * control; rule: processor.load.exit
 */
static inline specctrl_checked_event specctrl_vmwrite_host(const struct specctrl_cpu *cpu,
							   struct specctrl_vmcs *vmcs,
							   uint64_t value)
{
	if (!cpu->has_exit_load)
		return SPECCTRL_CPU_VMFAIL_FIELD;
	vmcs->host_spec_ctrl = value;
	return SPECCTRL_CPU_DONE;
}

/*
 * The host's state: of a VM exit, and of a VM entry that fails late.  The field
 * was checked at VM entry; the area acts on the MSR, not on the shadow.
 * rule: processor.areas.real-msr+2, processor.load.checked, processor.load.exit
 */
static inline specctrl_checked_event specctrl_cpu_load_host(struct specctrl_cpu *cpu,
							    const struct specctrl_vmcs *vmcs)
{
	cpu->non_root = false;
	if (vmcs->load_on_exit)
		cpu->spec_ctrl = vmcs->host_spec_ctrl;
	if (vmcs->exit_load.present && specctrl_cpu_wrmsr(cpu, vmcs->exit_load.value))
		return SPECCTRL_CPU_VMX_ABORT;
	return SPECCTRL_CPU_DONE;
}

/*
 * VM entry.  It loads the MSR from the guest-state field if that control is 1,
 * then from the VM-entry MSR-load area, never from the shadow.  What the area
 * loads under "virtualize IA32_SPEC_CTRL" is undefined: no guest runs then.
 * rule: processor.areas.not-listed, processor.entry.control-checked,
 *	 processor.entry.no-load, processor.load.checked, processor.load.entry
 */
static inline specctrl_checked_event specctrl_cpu_vm_entry(struct specctrl_cpu *cpu,
							   const struct specctrl_vmcs *vmcs)
{
	if ((vmcs->virtualize && !cpu->has_control) ||
	    (vmcs->load_on_entry && !cpu->has_entry_load) ||
	    (vmcs->load_on_exit && !cpu->has_exit_load))
		return SPECCTRL_CPU_VMFAIL_CONTROLS;
	if (vmcs->load_on_exit && !specctrl_cpu_accepts(cpu, vmcs->host_spec_ctrl))
		return SPECCTRL_CPU_VMFAIL_HOST_FIELD;
	if ((vmcs->load_on_entry && specctrl_cpu_wrmsr(cpu, vmcs->guest_spec_ctrl)) ||
	    (vmcs->entry_load.present && !specctrl_cpu_accepts(cpu, vmcs->entry_load.value)))
		return specctrl_cpu_load_host(cpu, vmcs) ? SPECCTRL_CPU_VMX_ABORT :
							   SPECCTRL_CPU_ENTRY_FAILED;
	if (vmcs->entry_load.present && vmcs->virtualize)
		return SPECCTRL_CPU_UNDEFINED;
	if (vmcs->entry_load.present)
		cpu->spec_ctrl = vmcs->entry_load.value;
	if (cpu->entry_loads_shadow && vmcs->virtualize &&
	    specctrl_cpu_wrmsr(cpu, specctrl_merge(vmcs->shadow, vmcs->mask, cpu->spec_ctrl)))
		return SPECCTRL_CPU_GP;
	cpu->non_root = true;
	return SPECCTRL_CPU_DONE;
}

/*
 * VM exit.  The MSR is saved in the guest-state field wherever an entry could
 * load it from there, and stays as the guest left it unless the host's state has
 * it.  What the VM-exit MSR-store area receives under "virtualize IA32_SPEC_CTRL"
 * is undefined.
 * rule: processor.areas.not-listed, processor.load.saved
 */
static inline specctrl_checked_event specctrl_cpu_vm_exit(struct specctrl_cpu *cpu,
							  struct specctrl_vmcs *vmcs)
{
	cpu->non_root = false;
	if (cpu->has_entry_load)
		vmcs->guest_spec_ctrl = cpu->spec_ctrl;
	if (vmcs->exit_store.present && !cpu->writable)
		return SPECCTRL_CPU_VMX_ABORT;
	if (vmcs->exit_store.present && vmcs->virtualize)
		return SPECCTRL_CPU_UNDEFINED;
	if (vmcs->exit_store.present)
		vmcs->exit_store.value = cpu->spec_ctrl;
	return specctrl_cpu_load_host(cpu, vmcs);
}

/* ---- A vCPU on it, and the accessors ------------------------------------- */

struct specctrl_model {
	struct specctrl_vcpu vcpu;	/* first: the model of a vCPU is found by it */
	struct specctrl_cpu cpu;	/* the logical processor that runs it */
	struct specctrl_vmcs vmcs[2];	/* vmcs01, vmcs02 */
	unsigned int loaded;		/* which of them */
	bool host_fault;		/* the hypervisor did what the processor refuses: a bug */

	/* The VM's MSR filter, and L1's bitmap; NULL allows everything, intercepts nothing. */
	bool (*msr_allowed)(const struct specctrl_vcpu *vcpu, uint32_t msr, bool write);
	bool (*l1_bitmap)(const struct specctrl_vcpu *vcpu, uint32_t msr, bool write);
};

static inline struct specctrl_model *specctrl_model_of(const struct specctrl_vcpu *vcpu)
{
	return (struct specctrl_model *)vcpu;
}

static inline struct specctrl_vmcs *specctrl_loaded_vmcs(struct specctrl_model *model)
{
	return &model->vmcs[model->loaded];
}

static inline void specctrl_model_create(struct specctrl_model *model, struct specctrl_vm *vm,
					 uint32_t cpuid)
{
	memset(model, 0, sizeof(*model));
	model->cpu.writable = specctrl_writable_bits(vm->host->features);
	model->cpu.has_control = vm->host->has_control;
	model->cpu.spec_ctrl = vm->host->spec_ctrl;
	model->vmcs[0].virtualize = model->vmcs[1].virtualize = vm->host->has_control;
	model->vmcs[0].use_msr_bitmap = model->vmcs[1].use_msr_bitmap = true;
	specctrl_vcpu_create(&model->vcpu, vm, cpuid);
}

/* What the hypervisor does must succeed. */
static inline void specctrl_model_must(struct specctrl_model *model, enum specctrl_event event)
{
	if (event)
		model->host_fault = true;
}

SPECCTRL_ACCESSOR uint64_t specctrl_rdmsr(struct specctrl_vcpu *vcpu)
{
	uint64_t value = 0;

	specctrl_model_must(specctrl_model_of(vcpu),
			    specctrl_cpu_rdmsr(&specctrl_model_of(vcpu)->cpu, &value));
	return value;
}

SPECCTRL_ACCESSOR void specctrl_wrmsr(struct specctrl_vcpu *vcpu, uint64_t value)
{
	specctrl_model_must(specctrl_model_of(vcpu),
			    specctrl_cpu_wrmsr(&specctrl_model_of(vcpu)->cpu, value));
}

SPECCTRL_ACCESSOR bool specctrl_accepts(const struct specctrl_vcpu *vcpu, uint64_t value)
{
	return specctrl_cpu_accepts(&specctrl_model_of(vcpu)->cpu, value);
}

SPECCTRL_ACCESSOR void specctrl_write_mask(struct specctrl_vcpu *vcpu, uint64_t value)
{
	struct specctrl_model *model = specctrl_model_of(vcpu);

	specctrl_model_must(model, specctrl_vmwrite_mask(&model->cpu, specctrl_loaded_vmcs(model),
							 value));
}

SPECCTRL_ACCESSOR void specctrl_write_shadow(struct specctrl_vcpu *vcpu, uint64_t value)
{
	struct specctrl_model *model = specctrl_model_of(vcpu);

	specctrl_model_must(model, specctrl_vmwrite_shadow(&model->cpu,
							   specctrl_loaded_vmcs(model), value));
}

SPECCTRL_ACCESSOR uint64_t specctrl_read_shadow(struct specctrl_vcpu *vcpu)
{
	struct specctrl_model *model = specctrl_model_of(vcpu);
	uint64_t value = 0;

	specctrl_model_must(model, specctrl_vmread_shadow(&model->cpu, specctrl_loaded_vmcs(model),
							  &value));
	return value;
}

SPECCTRL_ACCESSOR bool specctrl_intercepted(const struct specctrl_vcpu *vcpu, bool vmcs02,
					    bool write)
{
	const struct specctrl_vmcs *vmcs = &specctrl_model_of(vcpu)->vmcs[vmcs02];

	return write ? vmcs->intercept_write : vmcs->intercept_read;
}

SPECCTRL_ACCESSOR void specctrl_intercept(struct specctrl_vcpu *vcpu, bool vmcs02, bool write,
					  bool intercept)
{
	struct specctrl_vmcs *vmcs = &specctrl_model_of(vcpu)->vmcs[vmcs02];

	if (write)
		vmcs->intercept_write = intercept;
	else
		vmcs->intercept_read = intercept;
}

SPECCTRL_ACCESSOR bool specctrl_msr_allowed(const struct specctrl_vcpu *vcpu, uint32_t msr,
					    bool write)
{
	const struct specctrl_model *model = specctrl_model_of(vcpu);

	return !model->msr_allowed || model->msr_allowed(vcpu, msr, write);
}

SPECCTRL_ACCESSOR void specctrl_switch_vmcs(struct specctrl_vcpu *vcpu, bool vmcs02)
{
	specctrl_model_of(vcpu)->loaded = vmcs02;
}

SPECCTRL_ACCESSOR bool specctrl_l1_bitmap(const struct specctrl_vcpu *vcpu, uint32_t msr,
					  bool write)
{
	const struct specctrl_model *model = specctrl_model_of(vcpu);

	return model->l1_bitmap && model->l1_bitmap(vcpu, msr, write);
}

/* ---- The guest ----------------------------------------------------------- */

/*
 * Each instruction enters the guest if it does not run.  None is for a vCPU that
 * is shut down or waits in vcpu->msr_exit: that is the caller's to see.
 */

/* KVM_RUN, unless the guest runs already. */
static inline specctrl_checked specctrl_guest_run(struct specctrl_model *model)
{
	if (model->cpu.non_root)
		return SPECCTRL_DONE;
	specctrl_run(&model->vcpu);
	return specctrl_cpu_vm_entry(&model->cpu, specctrl_loaded_vmcs(model)) ? SPECCTRL_GP :
										 SPECCTRL_DONE;
}

/* A VM exit, an interrupt's say, unless KVM runs already. */
static inline void specctrl_guest_exit(struct specctrl_model *model)
{
	if (!model->cpu.non_root)
		return;
	specctrl_model_must(model, specctrl_cpu_vm_exit(&model->cpu, specctrl_loaded_vmcs(model)));
	specctrl_exit_guest(&model->vcpu);
}

/* The same, but an NMI leaves a value of the host in the MSR before it is read. */
static inline void specctrl_guest_exit_nmi(struct specctrl_model *model, uint64_t leaves)
{
	specctrl_model_must(model, specctrl_cpu_vm_exit(&model->cpu, specctrl_loaded_vmcs(model)));
	specctrl_model_must(model, specctrl_cpu_wrmsr(&model->cpu, leaves));
	specctrl_exit_guest(&model->vcpu);
}

/* The guest goes on after KVM has done something for it, unless userspace or nobody does. */
static inline specctrl_checked specctrl_guest_resume(struct specctrl_model *model,
						     enum specctrl_result done)
{
	enum specctrl_result ret = SPECCTRL_DONE;

	if (done != SPECCTRL_EXIT_TO_USER && !model->vcpu.shut_down)
		ret = specctrl_guest_run(model);
	return ret ? ret : done;
}

static inline specctrl_checked specctrl_guest_rdmsr(struct specctrl_model *model, uint32_t msr,
						    uint64_t *value)
{
	enum specctrl_event event = SPECCTRL_CPU_VM_EXIT;
	enum specctrl_result ret = specctrl_guest_run(model);

	if (ret)
		return ret;
	if (msr == MSR_IA32_SPEC_CTRL)
		event = specctrl_cpu_guest_rdmsr(&model->cpu, specctrl_loaded_vmcs(model), value);
	if (event != SPECCTRL_CPU_VM_EXIT)
		return event ? SPECCTRL_GP : SPECCTRL_DONE;
	specctrl_guest_exit(model);
	return specctrl_guest_resume(model, specctrl_handle_rdmsr(&model->vcpu, msr, value));
}

static inline specctrl_checked specctrl_guest_wrmsr(struct specctrl_model *model, uint32_t msr,
						    uint64_t value)
{
	enum specctrl_event event = SPECCTRL_CPU_VM_EXIT;
	enum specctrl_result ret = specctrl_guest_run(model);

	if (ret)
		return ret;
	if (msr == MSR_IA32_SPEC_CTRL)
		event = specctrl_cpu_guest_wrmsr(&model->cpu, specctrl_loaded_vmcs(model), value);
	if (event != SPECCTRL_CPU_VM_EXIT)
		return event ? SPECCTRL_GP : SPECCTRL_DONE;
	specctrl_guest_exit(model);
	return specctrl_guest_resume(model, specctrl_handle_wrmsr(&model->vcpu, msr, value));
}

/* L1 executes VMLAUNCH or VMRESUME, with a VM-entry MSR-load list. */
static inline specctrl_checked specctrl_guest_vmlaunch(struct specctrl_model *model,
						       const struct specctrl_l1 *l1,
						       const struct specctrl_msr *load,
						       uint32_t nr_load)
{
	enum specctrl_result ret = specctrl_guest_run(model);

	if (ret)
		return ret;
	specctrl_guest_exit(model);
	return specctrl_guest_resume(model, specctrl_nested_enter(&model->vcpu, l1, load, nr_load));
}

/* L2 executes VMCALL: a VM exit to L1 with these lists. */
static inline specctrl_checked specctrl_guest_vmcall(struct specctrl_model *model,
						     const uint32_t *store, uint32_t nr_store,
						     uint64_t *stored,
						     const struct specctrl_msr *load,
						     uint32_t nr_load)
{
	enum specctrl_result ret = specctrl_guest_run(model);

	if (ret)
		return ret;
	specctrl_guest_exit(model);
	return specctrl_guest_resume(model, specctrl_nested_exit(&model->vcpu, store, nr_store,
								 stored, load, nr_load));
}

/* ---- What can be observed ------------------------------------------------ */

/*
 * vcpu->guest_view and vcpu->saved are as of the last exit.  These functions say
 * what holds now; none enters or leaves the guest.
 */

/* What the processor holds while this guest runs: now, or after the next entry. */
static inline uint64_t specctrl_effective(const struct specctrl_model *model)
{
	if (model->cpu.non_root || !specctrl_host_has_msr(model->vcpu.host))
		return model->cpu.spec_ctrl;
	return model->vcpu.saved;
}

/* The guest's view: what an RDMSR of it would read. */
static inline uint64_t specctrl_view(struct specctrl_model *model)
{
	const struct specctrl_vmcs *vmcs = specctrl_loaded_vmcs(model);

	if (model->cpu.has_control && !vmcs->intercept_read)
		return vmcs->shadow;
	if (model->cpu.non_root && !vmcs->intercept_write)
		return model->cpu.has_control ? vmcs->shadow : model->cpu.spec_ctrl;
	return model->vcpu.guest_view;
}

/* Whether an access of the guest would exit, at its level, after a merge that still waits. */
static inline bool specctrl_access_exits(struct specctrl_model *model, bool write)
{
	const struct specctrl_vcpu *vcpu = &model->vcpu;

	if (vcpu->bitmap_merge_pending && vcpu->level2)
		return specctrl_intercepted(vcpu, false, write) ||
		       specctrl_l1_intercepts(vcpu, MSR_IA32_SPEC_CTRL, write);
	return specctrl_intercepted(vcpu, vcpu->level2, write);
}

#endif /* SPECCTRL_CPU_H */
