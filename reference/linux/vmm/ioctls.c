/* SPDX-License-Identifier: GPL-2.0-only */
/* The ioctls of KVM's that a scenario names. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vmm.h"

struct saved states[8];

void close_fds(void)
{
	u32 i;

	for (i = 0; i < vm.nr; i++) {
		munmap(vm.vcpus[i].run, ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0));
		close(vm.vcpus[i].fd);
	}
	if (vm.fd > 0)
		close(vm.fd);
}

void close_vm(void)
{
	close_fds();
	if (vm.memory) {
		munmap(vm.memory, MEMORY);
		munmap(vm.reset, 4096);
	}
	memset(&vm, 0, sizeof(vm));
}

/* A VM with this memory; fresh memory if NULL. */
void open_vm(u8 *memory, u8 *reset)
{
	struct kvm_userspace_memory_region slot = { .memory_size = MEMORY };
	struct kvm_userspace_memory_region smm = { .slot = 1 << 16, .memory_size = MEMORY };	/* what SMM sees */
	struct kvm_userspace_memory_region top = { .slot = 1, .guest_phys_addr = RESET_PAGE, .memory_size = 4096 };

	memset(&vm, 0, sizeof(vm));
	vm.fd = ioctl(kvm, KVM_CREATE_VM, 0);
	if (vm.fd < 0)
		unsupported("KVM_CREATE_VM: %s", strerror(errno));
	vm.moved = memory;
	if (!memory) {
		memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		reset = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		memcpy(reset + 0xff0, reset_code, 4);
	}
	vm.memory = memory;
	vm.reset = reset;
	slot.userspace_addr = smm.userspace_addr = (unsigned long)memory;
	top.userspace_addr = (unsigned long)reset;
	ioctl(vm.fd, KVM_SET_TSS_ADDR, 0xfffbd000);
	if (ioctl(vm.fd, KVM_CREATE_IRQCHIP, 0) < 0 || ioctl(vm.fd, KVM_SET_USER_MEMORY_REGION, &slot) < 0 ||
	    ioctl(vm.fd, KVM_SET_USER_MEMORY_REGION, &smm) < 0 || ioctl(vm.fd, KVM_SET_USER_MEMORY_REGION, &top) < 0)
		unsupported("a VM cannot be set up: %s", strerror(errno));
}

int create_vcpu(u32 id, const char *features)
{
	struct vcpu *v = &vm.vcpus[vm.nr];
	int fd = ioctl(vm.fd, KVM_CREATE_VCPU, id);
	struct kvm_mp_state runnable = { KVM_MP_STATE_RUNNABLE };

	if (fd < 0)
		return -1;
	if (vm.nr == MAX_VCPUS)
		unsupported("more than %d vCPUs", MAX_VCPUS);
	memset(v, 0, sizeof(*v));
	v->id = id;
	v->fd = fd;
	v->block = v->home = vm.nr * BLOCK;
	v->run = mmap(NULL, ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	snprintf(v->features, sizeof(v->features), "%s", features);
	vm.nr++;
	if (ioctl(fd, KVM_SET_CPUID2, guest_cpuid(features)) < 0)
		unsupported("KVM_SET_CPUID2: %s", strerror(errno));
	if (nested && set_msr(v, 0x3a, 5) != 1)
		unsupported("VMX cannot be enabled");
	if (set_msr(v, 0x9e, v->home + SMBASE) != 1)
		unsupported("SMBASE cannot be set");
	if (id)
		ioctl(fd, KVM_SET_MP_STATE, &runnable);
	if (!vm.moved)
		lay_out(v);
	set_registers(v);
	return 0;
}

static int enable_cap(int fd, u64 cap, const char *line)
{
	struct kvm_enable_cap enable = {
		.cap = cap == 236 ? CAP_FORCE_SPEC_CTRL : cap, .flags = number(line, "flags")
	};
	struct list args = { 0 };
	const char *text = word(line, "args");
	char *end;

	for (; *text && args.count < 4; text = *end == ',' ? end + 1 : end)
		enable.args[args.count++] = strtoull(text, &end, 0);
	return ioctl(fd, KVM_ENABLE_CAP, &enable);
}

void do_enable_cap(const char *line)
{
	u64 cap = number(line, "cap");
	const char *args = word(line, "args"), *second = strchr(args, ',');
	u64 mask = strtoull(args, NULL, 0), value = second ? strtoull(second + 1, NULL, 0) : 0;
	int ret;

	if (!strcmp(word(line, "fd"), "vcpu")) {
		struct vcpu *v = the_vcpu(line);

		ret = enable_cap(v->fd, cap, line);
		if (!ret && cap == 236) {
			v->own_pair = true;
			v->own_mask = mask;
			v->own_value = value;
		}
	} else {
		ret = enable_cap(vm.fd, cap, line);
		if (!ret && cap == 236) {
			vm.mask = mask;
			vm.value = value;
		}
		if (!ret && cap == 188)
			vm.reasons = mask;
	}
	answer_ret(ret);
}

void index_list(u32 request)
{
	static struct { struct kvm_msr_list head; u32 room[1024]; } list;
	u32 i;
	bool first = true;

	list.head.nmsrs = 1024;
	if (ioctl(kvm, request, &list) < 0)
		unsupported("no list: %s", strerror(errno));
	say("contains=");
	for (i = 0; i < list.head.nmsrs; i++) {
		say("%s0x%x", first ? "" : ",", list.head.indices[i]);
		first = false;
	}
}

void get_msrs(int fd, const char *line)
{
	struct list wanted = msr_list(word(line, "msrs"));
	struct { struct kvm_msrs head; struct kvm_msr_entry entry[MAX_LIST]; } m = { { wanted.count } };
	u32 i;
	int done;

	for (i = 0; i < wanted.count; i++)
		m.entry[i].index = wanted.msr[i];
	done = ioctl(fd, KVM_GET_MSRS, &m);
	if (done < 0) {
		answer_ret(done);
		return;
	}
	say("ret=%d values=", done);
	for (i = 0; i < (u32)done; i++)
		say("%s0x%llx", i ? "," : "", m.entry[i].data);
}

int set_msrs(struct vcpu *v, const struct list *list)
{
	struct { struct kvm_msrs head; struct kvm_msr_entry entry[MAX_LIST]; } m = { { list->count } };
	u32 i;

	for (i = 0; i < list->count; i++) {
		m.entry[i].index = list->msr[i];
		m.entry[i].data = list->value[i];
	}
	return ioctl(v->fd, KVM_SET_MSRS, &m);
}

int set_filter(const char *line)
{
	const char *text = word(line, "ranges");
	bool allow = strcmp(word(line, "default"), "deny");
	struct kvm_msr_filter filter = { .flags = allow ? 0 : KVM_MSR_FILTER_DEFAULT_DENY };
	static u8 bits[16][0x600];
	u32 n = 0, i;
	int ret;

	memset(bits, 0, sizeof(bits));
	while (*text) {
		char *end;
		u32 base = strtoull(text, &end, 0), count = strtoull(end + 1, &end, 0), flags = 0;

		if (n == 16)
			unsupported("more than 16 ranges do not fit the ioctl's structure");
		for (end++; *end && *end != ':'; end++)
			flags |= *end == 'r' ? KVM_MSR_FILTER_READ : *end == 'w' ? KVM_MSR_FILTER_WRITE : 0;
		end += *end == ':';
		for (i = 0; *end == '0' || *end == '1'; i++, end++)
			if (*end == '1' && i < 0x600 * 8)
				bits[n][i / 8] |= 1 << i % 8;
		filter.ranges[n] = (struct kvm_msr_filter_range){ flags, count, base, bits[n] };
		n++;
		text = end + (*end == ',');
	}
	ret = ioctl(vm.fd, KVM_X86_SET_MSR_FILTER, &filter);
	if (!ret) {
		memcpy(vm.bitmaps, bits, sizeof(bits));
		vm.filter = filter;
		for (i = 0; i < n; i++)
			vm.filter.ranges[i].bitmap = vm.bitmaps[i];
	}
	return ret;
}

struct place *the_state(const char *name, bool make)
{
	u32 i;

	for (i = 0; i < 8; i++)
		if (states[i].used && !strcmp(states[i].name, name))
			return &states[i].place;
	for (i = 0; make && i < 8; i++) {
		if (!states[i].used) {
			states[i].used = true;
			snprintf(states[i].name, sizeof(states[i].name), "%s", name);
			return &states[i].place;
		}
	}
	unsupported("no nested state of that name");
	return NULL;
}

int save_place(struct vcpu *v, struct place *p)
{
	if (!p->state)
		p->state = calloc(1, 16384);
	p->state->size = 16384;
	ioctl(v->fd, KVM_GET_SREGS, &p->sregs);
	ioctl(v->fd, KVM_GET_REGS, &p->regs);
	ioctl(v->fd, KVM_GET_VCPU_EVENTS, &p->events);
	p->port = v->port;
	p->block = v->block;
	p->home = v->home;
	p->vmx = v->vmx;
	p->launched = v->launched;
	p->stores = v->stores;
	p->loads = v->loads;
	return ioctl(v->fd, KVM_GET_NESTED_STATE, p->state);
}

/* The events that are saved with a nested state: SMM and a pending INIT. */
void restore_events(struct vcpu *v, const struct place *p)
{
	struct kvm_vcpu_events events = p->events;

	events.flags = KVM_VCPUEVENT_VALID_SMM;
	ioctl(v->fd, KVM_SET_VCPU_EVENTS, &events);
}

/* KVM_SET_NESTED_STATE, and the registers of the level that it leads to. */
int restore_place(struct vcpu *v, struct place *p, int run_pending)
{
	u16 flags = p->state->flags;
	struct kvm_vcpu_events now;
	u32 was = v->port;
	int ret;

	if (run_pending >= 0) {
		p->state->flags &= ~KVM_STATE_NESTED_RUN_PENDING;
		if (run_pending)
			p->state->flags |= KVM_STATE_NESTED_RUN_PENDING;
	}
	ioctl(v->fd, KVM_GET_VCPU_EVENTS, &now);
	if (now.smi.smm != p->events.smi.smm || now.smi.latched_init != p->events.smi.latched_init)
		restore_events(v, p);
	ret = nested ? ioctl(v->fd, KVM_SET_NESTED_STATE, p->state) : p->vmx ? (errno = EINVAL, -1) : 0;
	p->state->flags = flags;
	if (ret < 0)
		return ret;
	v->block = p->block;
	v->vmx = p->vmx;
	v->launched = p->launched;
	v->stores = p->stores;
	v->loads = p->loads;
	command(v, PORT_L1)->op = NOP;
	command(v, PORT_L2)->op = NOP;
	if (p->port == PORT_SMM) {
		v->home = p->home;		/* SMM goes on where it was saved, and RSM reads there */
		set_msr(v, 0x9e, v->home + SMBASE);
		ioctl(v->fd, KVM_SET_SREGS, &p->sregs);
		ioctl(v->fd, KVM_SET_REGS, &p->regs);
		v->port = 0;
	} else if (p->port == PORT_L2) {
		ioctl(v->fd, KVM_SET_REGS, &p->regs);
		v->port = 0;
	} else if (was != PORT_L1) {
		set_registers(v);
	}
	return 0;
}
