/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef __KVM_X86_VMX_FORCE_SPEC_CTRL_H
#define __KVM_X86_VMX_FORCE_SPEC_CTRL_H

#include <linux/kvm_host.h>

/* IA32_SPEC_CTRL of one vCPU; what the next VM-Entry loads is vmx->spec_ctrl. */
struct force_spec_ctrl {
	/* Userspace's pair: the VM's at first, then the vCPU's own. */
	u64 user_mask;
	u64 user_value;

	/* The pair in force: userspace's, with the guest's report on top. */
	u64 mask;
	u64 value;

	/* What the guest wrote and reads, as of the last VM-Exit. */
	u64 guest_view;

	/* KVM itself wants no VM-Exit for the MSR. */
	bool passthrough;

	u64 virtual_enumeration;
	u64 mitigation_enum;
	u64 mitigation_ctrl;
};

/* 0001: the capability and the control */
void force_spec_ctrl_hardware_setup(void);
void force_spec_ctrl_reset(struct kvm_vcpu *vcpu, bool init_event);
bool force_spec_ctrl_passes_through(struct kvm_vcpu *vcpu);
void force_spec_ctrl_before_entry(struct kvm_vcpu *vcpu);
void force_spec_ctrl_after_exit(struct kvm_vcpu *vcpu);
u64 force_spec_ctrl_read(struct kvm_vcpu *vcpu);
int force_spec_ctrl_write(struct kvm_vcpu *vcpu, u64 data);

/* 0002: nested virtualization */
void force_spec_ctrl_load_vmcs(struct kvm_vcpu *vcpu);

/* 0003: the capability of a vCPU */
int force_spec_ctrl_set_pair(struct kvm_vcpu *vcpu, u64 mask, u64 value);

/* 0004: the virtual MSRs */
int force_spec_ctrl_get_feature_msr(u32 index, u64 *data);
int force_spec_ctrl_get_virtual_msr(struct kvm_vcpu *vcpu, struct msr_data *msr_info);
int force_spec_ctrl_set_virtual_msr(struct kvm_vcpu *vcpu, struct msr_data *msr_info);

#endif /* __KVM_X86_VMX_FORCE_SPEC_CTRL_H */
