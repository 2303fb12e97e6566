/* SPDX-License-Identifier: GPL-2.0-only */
/* A move of the whole VM to another. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "vmm.h"

static const u32 feature_msrs[] = { MSR_ARCH_CAPABILITIES, 0x50000000, 0x50000001 };

static int force(int fd, u64 mask, u64 value)
{
	struct kvm_enable_cap enable = { .cap = CAP_FORCE_SPEC_CTRL, .args = { mask, value } };

	return ioctl(fd, KVM_ENABLE_CAP, &enable);
}

/* The MSRs in @list one by one; the first that is refused, or 0. */
static u32 set_all(struct vcpu *v, const struct list *list)
{
	u32 i;

	for (i = 0; i < list->count; i++)
		if (set_msr(v, list->msr[i], list->value[i]) != 1)
			return list->msr[i];
	return 0;
}

static u32 get_all(struct vcpu *v, struct list *list)
{
	u32 i;

	for (i = 0; i < list->count; i++)
		if (get_msr(v, list->msr[i], &list->value[i]) != 1)
			return list->msr[i];
	return 0;
}

/* The whole VM goes to a new one, of the same module or of one that is loaded anew; in the model's order. */
void migrate(const char *line)
{
	static struct vm old;
	static struct place places[MAX_VCPUS];
	static struct list features[MAX_VCPUS], state[MAX_VCPUS];
	bool nested_first = strcmp(word(line, "order"), "msrs-first"), keep = strcmp(word(line, "force"), "drop");
	bool anew = strcmp(parameters, destination);
	struct kvm_enable_cap reasons = { .cap = KVM_CAP_X86_USER_SPACE_MSR, .args = { vm.reasons } };
	u32 refused = 0, i, j;
	int failed = 0;

	for (i = 0; i < vm.nr; i++) {
		struct vcpu *v = &vm.vcpus[i];

		save_place(v, &places[i]);
		features[i].count = 3;
		for (j = 0; j < 3; j++)
			features[i].msr[j] = feature_msrs[j];
		if (get_all(v, &features[i]))
			unsupported("a feature MSR cannot be read");
		state[i] = msr_list(has_word(line, "msrs") ? word(line, "msrs") : "0x48,0x50000002");
		if (!refused)
			refused = get_all(v, &state[i]);
	}
	old = vm;
	if (anew) {
		close_fds();
		reload(destination);
		set_parameter("as_posted", posted);
	}
	open_vm(old.memory, old.reset);

	if (keep && (old.mask || old.value)) {
		failed = force(vm.fd, old.mask, old.value);
		vm.mask = old.mask;
		vm.value = old.value;
	}
	if (!failed)
		failed = ioctl(vm.fd, KVM_ENABLE_CAP, &reasons);
	vm.reasons = old.reasons;
	vm.filter = old.filter;
	memcpy(vm.bitmaps, old.bitmaps, sizeof(vm.bitmaps));
	for (i = 0; i < 16; i++)
		vm.filter.ranges[i].bitmap = vm.filter.ranges[i].nmsrs ? vm.bitmaps[i] : NULL;
	if (!failed)
		failed = ioctl(vm.fd, KVM_X86_SET_MSR_FILTER, &vm.filter);
	for (i = 0; !failed && i < old.nr; i++)
		failed = create_vcpu(old.vcpus[i].id, old.vcpus[i].features);

	for (i = 0; !failed && !refused && i < old.nr; i++) {
		struct vcpu *v = &vm.vcpus[i], *from = &old.vcpus[i];
		struct kvm_mp_state runnable = { KVM_MP_STATE_RUNNABLE };

		v->own_pair = from->own_pair;
		v->own_mask = from->own_mask;
		v->own_value = from->own_value;
		if (keep && v->own_pair && (v->own_mask != vm.mask || v->own_value != vm.value))
			failed = force(v->fd, v->own_mask, v->own_value);
		if (!keep)
			v->own_pair = false;
		if (!failed)
			refused = set_all(v, &features[i]);
		if (failed || refused)
			break;
		restore_events(v, &places[i]);
		ioctl(v->fd, KVM_SET_MP_STATE, &runnable);
		ioctl(v->fd, KVM_SET_SREGS, &places[i].sregs);
		ioctl(v->fd, KVM_SET_REGS, &places[i].regs);
		v->port = 0;
		if (!nested_first)
			refused = set_all(v, &state[i]);
		if (!refused)
			failed = restore_place(v, &places[i], -1);
		if (!places[i].port)
			set_registers(v);
		else
			v->port = 0;
		if (!failed && nested_first)
			refused = set_all(v, &state[i]);
	}

	if (!failed && !refused) {
		if (!anew) {
			struct vm new = vm;

			vm = old;
			close_fds();
			vm = new;
		}
		say("ok");
		return;
	}
	i = errno;
	close_fds();
	vm = old;
	if (anew) {
		vm.nr = vm.fd = 0;
		unsupported("a refused move to a module that is loaded anew");
	}
	errno = i;
	if (failed)
		answer_ret(failed);
	else
		say("refused=0x%x", refused);
}
