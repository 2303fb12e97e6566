/* SPDX-License-Identifier: GPL-2.0-only */
/* L1's VMCS for L2, VM entry and VM exit. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "vmm.h"

static u32 control(u32 msr, u32 want)
{
	struct { struct kvm_msrs head; struct kvm_msr_entry entry; } m = { { 1 }, { msr, 0, 0 } };

	if (ioctl(kvm, KVM_GET_MSRS, &m) != 1)
		unsupported("KVM offers no VMX");
	return (want | (u32)m.entry.data) & m.entry.data >> 32;
}

static struct { u64 field, value; } *row;
static void vmwrite(u32 field, u64 value)
{
	row->field = field;
	row->value = value;
	row++;
}

static void write_area(struct vcpu *v, u32 at, const struct list *list)
{
	u32 i;

	for (i = 0; i < list->count; i++) {
		put64(v->block + at + 16 * i, list->msr[i]);
		put64(v->block + at + 16 * i + 8, list->value[i]);
	}
}

static void set_bitmap(struct vcpu *v, const char *text)
{
	u8 *bitmap = vm.memory + v->block + BITMAP;

	memset(bitmap, 0, 4096);
	while (*text) {
		char *end;
		u32 msr = strtoull(text, &end, 0), at = (msr & 0x1fff) + (msr >= 0xc0000000 ? 0x400 * 8 : 0);
		size_t length = strcspn(end, ",");

		if (msr < 0x2000 || (msr >= 0xc0000000 && msr < 0xc0002000)) {
			if (memchr(end, 'r', length))
				bitmap[at / 8] |= 1 << at % 8;
			if (memchr(end, 'w', length))
				bitmap[0x800 + at / 8] |= 1 << at % 8;
		}
		text = end + length + (end[length] == ',');
	}
}

/* The fields of vmcs12, written by L1 at each entry. */
static u32 vmcs12_table(struct vcpu *v, bool use_bitmap)
{
	static const u16 null_selectors[] = { 0x800, 0x804, 0x806, 0x808, 0x80a, 0x80c };
	u32 b = v->block, i;
	u64 *start = (u64 *)(vm.memory + b + TABLE);

	row = (void *)start;
	vmwrite(0x4000, control(0x48d, 0));
	vmwrite(0x4002, control(0x48e, use_bitmap ? 1 << 28 : 0));
	vmwrite(0x400c, control(0x48f, 1 << 9));
	vmwrite(0x4012, control(0x490, 1 << 9));
	vmwrite(0x2004, b + BITMAP);
	vmwrite(0x2006, b + EXIT_STORE);
	vmwrite(0x2008, b + EXIT_LOAD);
	vmwrite(0x200a, b + ENTRY_LOAD);
	vmwrite(0x400e, v->stores.count);
	vmwrite(0x4010, v->loads.count);
	vmwrite(0x4004, 0);				/* exception bitmap */
	vmwrite(0x4016, 0);				/* event injection */
	vmwrite(0x2800, ~0ull);				/* link pointer */
	vmwrite(0x2802, 0);				/* DEBUGCTL */
	for (i = 0; i < sizeof(null_selectors) / 2; i++)
		vmwrite(null_selectors[i], null_selectors[i] == 0x80c ? 0 : 16);
	vmwrite(0x802, 8);
	vmwrite(0x80e, 24);
	for (i = 0; i < 6; i++) {			/* ES, CS, SS, DS, FS, GS */
		vmwrite(0x4800 + 2 * i, 0xffffffff);
		vmwrite(0x4814 + 2 * i, i == 1 ? 0xa09b : 0xc093);
		vmwrite(0x6806 + 2 * i, 0);
	}
	vmwrite(0x480c, 0);				/* LDTR: unusable */
	vmwrite(0x4820, 0x10000);
	vmwrite(0x6812, 0);
	vmwrite(0x480e, 0x67);				/* TR */
	vmwrite(0x4822, 0x8b);
	vmwrite(0x6814, b + TSS);
	vmwrite(0x4810, 0x2f);
	vmwrite(0x6816, b + GDT);
	vmwrite(0x4812, 0xfff);
	vmwrite(0x6818, b + IDT);
	vmwrite(0x4824, 0);
	vmwrite(0x4826, 0);
	vmwrite(0x6800, 0x80000031);
	vmwrite(0x6802, b + PML4);
	vmwrite(0x6804, 0x2020);
	vmwrite(0x6000, 0);				/* guest/host masks */
	vmwrite(0x6002, 0);
	vmwrite(0x681a, 0x400);
	vmwrite(0x681c, b + STACK_L2 - 8);
	vmwrite(0x681e, b + CODE);
	vmwrite(0x6820, 0x202);				/* IF: see README.md, Limits */
	vmwrite(0x6822, 0);
	vmwrite(0x482a, 0);
	vmwrite(0x6824, 0);
	vmwrite(0x6826, 0);
	vmwrite(0xc00, 16);				/* host selectors */
	vmwrite(0xc02, 8);
	vmwrite(0xc04, 16);
	vmwrite(0xc06, 16);
	vmwrite(0xc08, 16);
	vmwrite(0xc0a, 16);
	vmwrite(0xc0c, 24);
	vmwrite(0x6c00, 0x80000031);
	vmwrite(0x6c02, b + PML4);
	vmwrite(0x6c04, 0x2020);
	vmwrite(0x6c06, 0);
	vmwrite(0x6c08, 0);
	vmwrite(0x6c0a, b + TSS);
	vmwrite(0x6c0c, b + GDT);
	vmwrite(0x6c0e, b + IDT);
	vmwrite(0x4c00, 0);
	vmwrite(0x6c10, 0);
	vmwrite(0x6c12, 0);
	vmwrite(0x6c14, b + STACK_L1 - 8);
	vmwrite(0x6c16, b + CODE + (guest_exit - guest_code));
	return ((u64 *)row - start) / 2;
}

/* Lists of this nested_enter, and of the nested_exit that ends it: both must be in the VMCS now. */
void nested_enter(const char *line, const char *rest)
{
	struct vcpu *v = the_vcpu(line);
	struct command *c = command(v, PORT_L1);
	struct list entry = msr_list(word(line, "msr_load"));
	char id[32];
	bool all = !strcmp(word(line, "intercept"), "all");
	int ended;

	if (!nested)
		unsupported("no VMX");
	v->stores = msr_list(word(line, "exit_msr_store"));
	v->loads = msr_list(word(line, "exit_msr_load"));
	snprintf(id, sizeof(id), "%u", v->id);
	for (; rest && *rest; rest = strchr(rest, '\n'), rest = rest ? rest + 1 : NULL) {
		char next[4096];

		snprintf(next, sizeof(next), "%.*s", (int)strcspn(rest, "\n"), rest);
		if (!strncmp(next, "op=begin", 8) || next[0] == '#')
			break;
		if (strcmp(word(next, "vcpu"), id))
			continue;
		if (!strncmp(next, "op=nested_enter", 15))
			break;
		if (!strncmp(next, "op=nested_exit", 14)) {
			v->stores = msr_list(word(next, "msr_store"));
			v->loads = msr_list(word(next, "msr_load"));
			break;
		}
	}
	settle(v);
	if (v->port != PORT_L1)
		unsupported("L1 does not run");
	set_bitmap(v, all ? "" : word(line, "intercept"));
	write_area(v, ENTRY_LOAD, &entry);
	write_area(v, EXIT_STORE, &v->stores);
	write_area(v, EXIT_LOAD, &v->loads);
	c->vmxon = c->vmcs = 0;
	if (!v->vmx) {
		u32 revision = 0;
		struct { struct kvm_msrs head; struct kvm_msr_entry entry; } m = { { 1 }, { 0x480, 0, 0 } };

		ioctl(kvm, KVM_GET_MSRS, &m);
		revision = m.entry.data;
		memset(vm.memory + v->block + VMXON, 0, 0x2000);
		memcpy(vm.memory + v->block + VMXON, &revision, 4);
		memcpy(vm.memory + v->block + VMCS12, &revision, 4);
		c->vmxon = v->block + TABLE - 16;
		c->vmcs = v->block + TABLE - 8;
		put64(v->block + TABLE - 16, v->block + VMXON);
		put64(v->block + TABLE - 8, v->block + VMCS12);
		v->launched = false;
	}
	c->table = v->block + TABLE;
	c->count = vmcs12_table(v, !all);
	((u64 *)row)[0] = 0x4014;			/* the VM-entry MSR-load count, last */
	((u64 *)row)[1] = entry.count;
	c->count++;
	c->launched = v->launched;
	ended = perform(v, VMENTER, 0, 0);
	v->vmx = true;
	if (ended == 1)
		unsupported("an MSR exit at VM entry");
	if (ended == 2) {
		say("abort=true");
		return;
	}
	if (v->port == PORT_L2) {
		v->launched = true;
		say("ok");
	} else if (c->status == 2 && (u32)c->reason == 0x80000022) {
		say("fail.reason=MSR_LOAD_FAIL fail.entry=%llu", (unsigned long long)c->qualification);
	} else if (c->status == 2) {
		v->launched = true;
		say("reflected=true");
	} else {
		unsupported("L1's VM entry fails: VM-instruction error %llu", (unsigned long long)c->qualification);
	}
}

static bool same_list(const struct list *written, const char *text)
{
	struct list list = msr_list(text);

	return !memcmp(written, &list, sizeof(list));
}

void nested_exit(const char *line)
{
	struct vcpu *v = the_vcpu(line);
	u32 i;
	int ended;

	settle(v);
	if (v->port != PORT_L2)
		unsupported("L2 does not run");
	if (!same_list(&v->stores, word(line, "msr_store")) || !same_list(&v->loads, word(line, "msr_load")))
		unsupported("L1 had written other lists for this VM exit");
	ended = perform(v, VMCALL, 0, 0);
	if (ended == 2) {
		say("abort=true");
		return;
	}
	if (ended || v->port != PORT_L1)
		unsupported("VMCALL does not come to L1");
	say("stored=");
	for (i = 0; i < v->stores.count; i++)
		say("%s0x%llx", i ? "," : "", *(unsigned long long *)(vm.memory + v->block + EXIT_STORE + 16 * i + 8));
}
