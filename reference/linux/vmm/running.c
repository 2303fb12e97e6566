/* SPDX-License-Identifier: GPL-2.0-only */
/* Running a vCPU: a command to its guest, and what comes of it; INIT and SMM. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/time.h>

#include "vmm.h"

/* Run until the guest waits for a command (0), or an MSR exit (1), or a shutdown (2). */
int run(struct vcpu *v)
{
	int turns;

	v->ran = true;
	for (turns = 0; turns < 50; turns++) {
		struct itimerval limit = { { 0, 0 }, { 20, 0 } }, off = { { 0, 0 }, { 0, 0 } };
		int ret;

		setitimer(ITIMER_REAL, &limit, NULL);
		ret = ioctl(v->fd, KVM_RUN, 0);
		setitimer(ITIMER_REAL, &off, NULL);
		if (ret < 0 && errno == EAGAIN)
			continue;
		if (ret < 0)
			unsupported("KVM_RUN: %s", strerror(errno));
		switch (v->run->exit_reason) {
		case KVM_EXIT_IO:
			v->port = v->run->io.port;
			return 0;
		case KVM_EXIT_X86_RDMSR:
		case KVM_EXIT_X86_WRMSR:
			v->msr_pending = true;
			return 1;
		case KVM_EXIT_SHUTDOWN:
			v->shut_down = true;
			return 2;
		case KVM_EXIT_IRQ_WINDOW_OPEN:
		case KVM_EXIT_INTR:
			continue;
		default: {
			struct kvm_regs r = { 0 };

			ioctl(v->fd, KVM_GET_REGS, &r);
			unsupported("KVM_RUN: exit reason %u, suberror %u (%llx %llx), RIP %llx, port %x",
				    v->run->exit_reason, v->run->internal.suberror, v->run->internal.data[0],
				    v->run->internal.data[1], r.rip, v->port);
		}
		}
	}
	unsupported("KVM_RUN does not come to an end");
	return 0;
}

/* Get the guest to where it waits for a command. */
void settle(struct vcpu *v)
{
	if (v->shut_down)
		unsupported("the vCPU has shut down");
	if (!v->port && run(v))
		unsupported("the guest does not come to its first command");
}

int perform(struct vcpu *v, u32 op, u32 msr, u64 value)
{
	struct command *c;

	settle(v);
	c = command(v, v->port);
	c->op = op;
	c->msr = msr;
	c->value = value;
	c->status = 0;
	command(v, PORT_L1)->status = 0;
	return run(v);
}

struct vcpu *the_vcpu(const char *line)
{
	u32 id = number(line, "vcpu"), i;

	for (i = 0; i < vm.nr; i++)
		if (vm.vcpus[i].id == id)
			return &vm.vcpus[i];
	unsupported("there is no vCPU %u", id);
	return NULL;
}

static void say_msr_exit(struct vcpu *v)
{
	struct kvm_run *r = v->run;
	const char *reason = r->msr.reason == KVM_MSR_EXIT_REASON_INVAL ? "INVAL" :
			     r->msr.reason == KVM_MSR_EXIT_REASON_UNKNOWN ? "UNKNOWN" : "FILTER";

	if (r->exit_reason == KVM_EXIT_X86_RDMSR)
		say("exit.kind=rdmsr exit.reason=%s exit.msr=0x%x", reason, r->msr.index);
	else
		say("exit.kind=wrmsr exit.reason=%s exit.msr=0x%x exit.value=0x%llx", reason, r->msr.index,
		    r->msr.data);
}

/* What became of an RDMSR or WRMSR at level @port. */
void say_access(struct vcpu *v, int ended, u32 port, bool read)
{
	struct command *c = command(v, port);

	if (ended == 1)
		say_msr_exit(v);
	else if (ended == 2)
		say("abort=true");
	else if (v->port != port)
		say("reflected=true");
	else if (c->fault)
		say("fault=#GP");
	else if (read)
		say("value=0x%llx", (unsigned long long)c->value);
	else
		say("ok");
}

/* An INIT becomes pending; nothing else of the events changes. */
static void pend_init(struct vcpu *v)
{
	struct kvm_vcpu_events events;

	ioctl(v->fd, KVM_GET_VCPU_EVENTS, &events);
	events.smi.latched_init = 1;
	events.flags = KVM_VCPUEVENT_VALID_SMM;
	if (ioctl(v->fd, KVM_SET_VCPU_EVENTS, &events) < 0)
		unsupported("KVM_SET_VCPU_EVENTS: %s", strerror(errno));
}

static void after_reset(struct vcpu *v)
{
	v->vmx = false;
	v->launched = false;
	set_registers(v);
	settle(v);
}

void init(const char *line)
{
	struct vcpu *v = the_vcpu(line);
	u32 before;

	settle(v);
	before = v->port;
	pend_init(v);
	if (v->id) {
		struct kvm_mp_state state;

		if (before != PORT_L1 || v->vmx)
			unsupported("INIT of an application processor in VMX operation or SMM");
		ioctl(v->fd, KVM_GET_MP_STATE, &state);
		if (state.mp_state != KVM_MP_STATE_INIT_RECEIVED)
			unsupported("INIT leaves MP state %u", state.mp_state);
		state.mp_state = KVM_MP_STATE_RUNNABLE;
		ioctl(v->fd, KVM_SET_MP_STATE, &state);
		after_reset(v);
		say("ok");
		return;
	}
	switch (perform(v, NOP, 0, 0)) {
	case 2:
		say("abort=true");
		return;
	case 1:
		unsupported("an MSR exit at INIT");
	}
	if (v->port == PORT_RESET) {
		after_reset(v);
		say("ok");
	} else if (before == PORT_L2 && v->port == PORT_L1) {
		say("reflected=true");
	} else {
		say("blocked=true");
	}
}

void vmxoff(const char *line)
{
	struct vcpu *v = the_vcpu(line);

	settle(v);
	if (v->port != PORT_L1)
		unsupported("L1 does not run");
	if (perform(v, VMXOFF, 0, 0))
		unsupported("VMXOFF does not complete");
	v->vmx = false;
	if (v->port == PORT_RESET)
		after_reset(v);
	say("ok");
}

void smi(const char *line)
{
	struct vcpu *v = the_vcpu(line);

	settle(v);
	if (v->home > BLOCK)
		unsupported("SMM of a third vCPU");
	command(v, v->port)->op = NOP;
	if (ioctl(v->fd, KVM_SMI, 0) < 0)
		unsupported("KVM_SMI: %s", strerror(errno));
	run(v);
	if (v->port != PORT_SMM)
		unsupported("the SMI does not come to SMM: port %x", v->port);
	say("ok");
}

void rsm(const char *line)
{
	struct vcpu *v = the_vcpu(line);
	int ended;

	settle(v);
	command(v, PORT_L1)->op = NOP;
	command(v, PORT_L2)->op = NOP;
	ended = perform(v, RSM, 0, 0);
	if (ended == 2) {
		say("abort=true");
		return;
	}
	if (ended || v->port == PORT_SMM)
		unsupported("RSM does not complete");
	if (v->port == PORT_RESET)
		after_reset(v);
	say(command(v, PORT_L1)->status == 2 && v->port == PORT_L1 ? "reflected=true" : "ok");
}
