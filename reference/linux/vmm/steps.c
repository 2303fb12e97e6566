/* SPDX-License-Identifier: GPL-2.0-only */
/* The steps of a scenario. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "vmm.h"

/* The guest runs with what the window says of it, and leaves; an NMI may have been there before KVM. */
static void exit_to_host(const char *line)
{
	struct vcpu *v = the_vcpu(line);
	u64 effective, held;
	char leaves[32];

	settle(v);
	if (get_msr(v, MSR_TEST_EFFECTIVE, &effective) != 1)
		unsupported("the window is shut");
	if (has_word(line, "nmi_leaves")) {
		snprintf(leaves, sizeof(leaves), "%llu", 1ull << 31 | (unsigned long long)number(line, "nmi_leaves"));
		set_parameter("nmi_leaves", leaves);
	}
	if (perform(v, NOP, 0, 0))
		unsupported("the guest does not come back");
	get_msr(v, MSR_TEST_HELD, &held);
	if (held == effective)
		say("host_spec_ctrl=0x%llx", (unsigned long long)rdmsr_host(MSR_SPEC_CTRL));
	else
		say("The guest ran with 0x%llx, not 0x%llx", (unsigned long long)held, (unsigned long long)effective);
}

static void observe(const char *line)
{
	struct vcpu *v = the_vcpu(line);
	struct kvm_vcpu_events events;
	u64 effective, saved, place, mask, shadow, view;

	if (get_msr(v, MSR_TEST_EFFECTIVE, &effective) != 1 || get_msr(v, MSR_TEST_SAVED, &saved) != 1 ||
	    get_msr(v, MSR_TEST_PLACE, &place) != 1 || get_msr(v, MSR_SPEC_CTRL, &view) != 1)
		unsupported("the window is shut");
	ioctl(v->fd, KVM_GET_VCPU_EVENTS, &events);
	say("effective=0x%llx guest_view=0x%llx saved=0x%llx level=%d smm=%s shut_down=%s",
	    (unsigned long long)effective, (unsigned long long)view, (unsigned long long)saved, place & 2 ? 2 : 1,
	    events.smi.smm ? "true" : "false", v->shut_down ? "true" : "false");
	if (place & 1) {
		get_msr(v, MSR_TEST_MASK, &mask);
		get_msr(v, MSR_TEST_SHADOW, &shadow);
		say(" mask=0x%llx shadow=0x%llx", (unsigned long long)mask, (unsigned long long)shadow);
	} else {
		say(" mask=null shadow=null");
	}
	if (!(place & 8))
		say(" intercepted=%s", place & 4 ? "true" : "false");
}

static void reset_vcpu(const char *line)
{
	struct vcpu *v = the_vcpu(line);
	struct kvm_nested_state none = { .size = sizeof(none), .hdr.vmx = { .vmxon_pa = ~0ull, .vmcs12_pa = ~0ull } };
	struct kvm_vcpu_events events;
	struct kvm_mp_state runnable = { KVM_MP_STATE_RUNNABLE };

	if (nested)
		ioctl(v->fd, KVM_SET_NESTED_STATE, &none);
	ioctl(v->fd, KVM_GET_VCPU_EVENTS, &events);
	events.smi.smm = 0;
	events.smi.pending = 0;
	events.smi.smm_inside_nmi = 0;
	events.smi.latched_init = 0;
	events.triple_fault.pending = 0;
	events.flags = KVM_VCPUEVENT_VALID_SMM;
	ioctl(v->fd, KVM_SET_VCPU_EVENTS, &events);
	ioctl(v->fd, KVM_SET_MP_STATE, &runnable);
	v->vmx = v->launched = v->shut_down = false;
	set_registers(v);
	set_msr(v, MSR_SPEC_CTRL, 0);
	set_msr(v, MSR_MITIGATION_CTRL, 0);
	say("ret=0");
}

/* After a change that a vCPU notices when it next runs. */
static void kick(struct vcpu *v)
{
	if (v->ran && v->port && !v->msr_pending && !v->shut_down)
		perform(v, NOP, 0, 0);
}

void perform_step(const char *line, const char *rest)
{
	const char *op = word(line, "op");
	struct vcpu *v;
	u32 i;

	if (!strcmp(op, "check_extension")) {
		u64 cap = number(line, "cap");

		answer_ret(ioctl(strcmp(word(line, "fd"), "kvm") ? vm.fd : kvm, KVM_CHECK_EXTENSION,
				 cap == 236 ? CAP_FORCE_SPEC_CTRL : cap));
	} else if (!strcmp(op, "get_supported_force_spec_ctrl")) {
		u64 bits = 0;
		bool bad = !strcmp(word(line, "bad_pointer"), "true");
		int ret = ioctl(strcmp(word(line, "fd"), "kvm") ? vm.fd : kvm, GET_SUPPORTED, bad ? (void *)8 : &bits);

		answer_ret(ret);
		if (!ret)
			say(" value=0x%llx", (unsigned long long)bits);
	} else if (!strcmp(op, "enable_cap")) {
		do_enable_cap(line);
	} else if (!strcmp(op, "create_vcpu")) {
		answer_ret(create_vcpu(number(line, "vcpu"),
				       has_word(line, "features") ? word(line, "features") : host_features));
	} else if (!strcmp(op, "get_msrs")) {
		get_msrs(the_vcpu(line)->fd, line);
	} else if (!strcmp(op, "set_msrs")) {
		struct list list = msr_list(word(line, "msrs"));
		u64 now;

		v = the_vcpu(line);
		for (i = 0; i < list.count; i++)	/* bits that are not modelled stay */
			if (list.msr[i] == MSR_ARCH_CAPABILITIES && get_msr(v, MSR_ARCH_CAPABILITIES, &now) == 1)
				list.value[i] |= now & ~MODELLED;
		answer_ret(set_msrs(v, &list));
	} else if (!strcmp(op, "get_feature_msrs")) {
		get_msrs(kvm, line);
	} else if (!strcmp(op, "get_msr_index_list")) {
		index_list(KVM_GET_MSR_INDEX_LIST);
	} else if (!strcmp(op, "get_msr_feature_index_list")) {
		index_list(KVM_GET_MSR_FEATURE_INDEX_LIST);
	} else if (!strcmp(op, "set_msr_filter")) {
		int ret = set_filter(line);

		answer_ret(ret);
		for (i = 0; !ret && i < vm.nr; i++)
			kick(&vm.vcpus[i]);
	} else if (!strcmp(op, "reply_msr_exit")) {
		bool read;
		u32 port;

		v = the_vcpu(line);
		if (!v->msr_pending)
			unsupported("no MSR exit is pending");
		v->msr_pending = false;
		read = v->run->exit_reason == KVM_EXIT_X86_RDMSR;
		port = v->port;
		v->run->msr.error = !strcmp(word(line, "error"), "true");
		v->run->msr.data = number(line, "value");
		say_access(v, run(v), port, read);
	} else if (!strcmp(op, "reset_vcpu")) {
		reset_vcpu(line);
	} else if (!strcmp(op, "get_nested_state")) {
		v = the_vcpu(line);
		answer_ret(save_place(v, the_state(word(line, "state"), true)));
	} else if (!strcmp(op, "set_nested_state")) {
		struct place *place = the_state(word(line, "state"), false);

		v = the_vcpu(line);
		answer_ret(restore_place(v, place, has_word(line, "run_pending") ?
					 !strcmp(word(line, "run_pending"), "true") : -1));
	} else if (!strcmp(op, "migrate")) {
		migrate(line);
	} else if (!strcmp(op, "rdmsr") || !strcmp(op, "wrmsr")) {
		u32 port;

		v = the_vcpu(line);
		settle(v);
		port = v->port;
		if (op[0] == 'r')
			say_access(v, perform(v, RDMSR, number(line, "msr"), 0), port, true);
		else
			say_access(v, perform(v, WRMSR, number(line, "msr"), number(line, "value")), port, false);
	} else if (!strcmp(op, "nested_enter")) {
		nested_enter(line, rest);
	} else if (!strcmp(op, "nested_exit")) {
		nested_exit(line);
	} else if (!strcmp(op, "init")) {
		init(line);
	} else if (!strcmp(op, "vmxoff")) {
		vmxoff(line);
	} else if (!strcmp(op, "smi")) {
		smi(line);
	} else if (!strcmp(op, "rsm")) {
		rsm(line);
	} else if (!strcmp(op, "exit")) {
		exit_to_host(line);
	} else if (!strcmp(op, "host_write")) {
		wrmsr_host(MSR_SPEC_CTRL, number(line, "value"));
	} else if (!strcmp(op, "observe")) {
		observe(line);
	} else {
		unsupported("no %s here", op);
	}
}
