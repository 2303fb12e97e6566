/* SPDX-License-Identifier: GPL-2.0-only */
/* The guest's code, where it lies in memory, and what a vCPU begins with. */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#include "vmm.h"

asm("	.pushsection .rodata\n"
    "	.global guest_code, guest_end, guest_exit, guest_gp, smm_code, smm_gp, smm_end, reset_code\n"
    "	.code64\n"
    "guest_code:\n"			/* RSP points to the address of the command */
    "	mov (%rsp), %r15\n"
    "1:	mov 24(%r15), %dx\n"
    "	out %al, %dx\n"
    "	movl $0, 16(%r15)\n"
    "	mov (%r15), %eax\n"
    "	cmp $1, %eax\n	je 2f\n	cmp $2, %eax\n	je 3f\n	cmp $3, %eax\n	je 4f\n"
    "	cmp $4, %eax\n	je 5f\n	cmp $5, %eax\n	je 6f\n"
    "	jmp 1b\n"
    "2:	mov 4(%r15), %ecx\n	xor %eax, %eax\n	xor %edx, %edx\n	rdmsr\n"
    "	mov %eax, 8(%r15)\n	mov %edx, 12(%r15)\n	jmp 1b\n"
    "3:	mov 4(%r15), %ecx\n	mov 8(%r15), %eax\n	mov 12(%r15), %edx\n	wrmsr\n	jmp 1b\n"
    "4:	mov 48(%r15), %rax\n	test %rax, %rax\n	jz 7f\n	vmxon (%rax)\n	jbe 9f\n"
    "7:	mov 56(%r15), %rax\n	test %rax, %rax\n	jz 8f\n"
    "	vmclear (%rax)\n	jbe 9f\n	vmptrld (%rax)\n	jbe 9f\n"
    "8:	mov 32(%r15), %rsi\n	mov 40(%r15), %rcx\n"
    "10:	mov (%rsi), %rax\n	mov 8(%rsi), %rbx\n	vmwrite %rbx, %rax\n	jbe 9f\n"
    "	add $16, %rsi\n	dec %rcx\n	jnz 10b\n"
    "	cmpl $0, 28(%r15)\n	jne 11f\n	vmlaunch\n	jmp 9f\n"
    "11:	vmresume\n"
    "9:	mov $0x4400, %eax\n	vmread %rax, %rbx\n	mov %rbx, 72(%r15)\n"
    "	mov %rsi, 64(%r15)\n	movl $1, 20(%r15)\n	jmp 1b\n"
    "5:	vmcall\n	jmp 1b\n"
    "6:	vmxoff\n	jmp 1b\n"
    "guest_exit:\n"			/* a VM exit from L2 */
    "	mov (%rsp), %r15\n"
    "	mov $0x4402, %eax\n	vmread %rax, %rbx\n	mov %rbx, 64(%r15)\n"
    "	mov $0x6400, %eax\n	vmread %rax, %rbx\n	mov %rbx, 72(%r15)\n"
    "	movl $2, 20(%r15)\n"
    "	jmp 1b\n"
    "guest_gp:\n"			/* RDMSR and WRMSR are two bytes */
    "	movl $13, 16(%r15)\n	add $8, %rsp\n	addq $2, (%rsp)\n	iretq\n"
    "guest_end:\n"
    "	.code16\n"
    "smm_code:\n"			/* the VMM fills in both immediates */
    "	movl $0x11111111, %ebx\n"
    "	lidtl %cs:(smm_idt - smm_code + 0x8000)\n"
    "	movl $0x22222222, %esp\n"
    "1:	out %al, $0x14\n"
    "	movl $0, 16(%ebx)\n"
    "	movl (%ebx), %eax\n"
    "	cmp $1, %eax\n	je 2f\n	cmp $2, %eax\n	je 3f\n	cmp $6, %eax\n	je 6f\n	jmp 1b\n"
    "2:	movl 4(%ebx), %ecx\n	rdmsr\n	movl %eax, 8(%ebx)\n	movl %edx, 12(%ebx)\n	jmp 1b\n"
    "3:	movl 4(%ebx), %ecx\n	movl 8(%ebx), %eax\n	movl 12(%ebx), %edx\n	wrmsr\n	jmp 1b\n"
    "6:	movl $0, (%ebx)\n	rsm\n"
    "smm_gp:\n"
    "	movl $13, 16(%ebx)\n	mov %esp, %ebp\n	addr32 addw $2, %ss:(%ebp)\n	iret\n"
    "smm_idt:\n"
    "	.word 0x3ff\n	.long 0x33333333\n"
    "smm_end:\n"
    "reset_code:\n"
    "	out %al, $0x16\n	jmp reset_code\n"
    "	.code64\n"
    "	.popsection\n");
extern const u8 guest_code[], guest_end[], guest_exit[], guest_gp[], smm_code[], smm_gp[], smm_end[], reset_code[];

struct command *command(struct vcpu *v, u32 port)
{
	u32 which = port == PORT_L2 ? 1 : port == PORT_SMM ? 2 : 0;
	u32 block = port == PORT_SMM ? v->home : v->block;

	return (struct command *)(vm.memory + block + COMMANDS + 0x100 * which);
}

int set_msr(struct vcpu *v, u32 msr, u64 value)
{
	struct { struct kvm_msrs head; struct kvm_msr_entry entry; } m = { { 1 }, { msr, 0, value } };

	return ioctl(v->fd, KVM_SET_MSRS, &m);
}

int get_msr(struct vcpu *v, u32 msr, u64 *value)
{
	struct { struct kvm_msrs head; struct kvm_msr_entry entry; } m = { { 1 }, { msr, 0, 0 } };
	int done = ioctl(v->fd, KVM_GET_MSRS, &m);

	*value = m.entry.data;
	return done;
}

static void descriptor(u8 *at, u32 base, u32 limit, u32 type, u32 flags)
{
	u64 d = (limit & 0xffff) | (u64)(base & 0xffffff) << 16 | (u64)type << 40 | (u64)(limit >> 16 & 0xf) << 48 |
		(u64)flags << 52 | (u64)(base >> 24) << 56;

	memcpy(at, &d, 8);
}

/* The interpreter's registers: long mode, waiting for its first command. */
void set_registers(struct vcpu *v)
{
	struct kvm_segment code = { 0, 0xfffff, 8, 11, 1, 0, 0, 1, 1, 1, 0, 0, 0 };
	struct kvm_segment data = { 0, 0xfffff, 16, 3, 1, 0, 1, 1, 0, 1, 0, 0, 0 };
	struct kvm_segment tss = { v->block + TSS, 0x67, 24, 11, 1, 0, 0, 0, 0, 0, 0, 0, 0 };
	struct kvm_segment none = { .unusable = 1 };
	struct kvm_regs regs = { .rip = v->block + CODE, .rsp = v->block + STACK_L1 - 8, .rflags = 2 };
	struct kvm_sregs s;

	ioctl(v->fd, KVM_GET_SREGS, &s);
	s.cs = code;
	s.ds = s.es = s.fs = s.gs = s.ss = data;
	s.tr = tss;
	s.ldt = none;
	s.gdt.base = v->block + GDT;
	s.gdt.limit = 0x2f;
	s.idt.base = v->block + IDT;
	s.idt.limit = 0xfff;
	s.cr0 = 0x80000031;
	s.cr3 = v->block + PML4;
	s.cr4 = 0x20 | (nested ? 0x2000 : 0);
	s.efer = 0x500;
	if (ioctl(v->fd, KVM_SET_SREGS, &s) < 0)
		unsupported("KVM_SET_SREGS: %s", strerror(errno));
	ioctl(v->fd, KVM_SET_REGS, &regs);
	v->port = 0;
}

void put64(u32 at, u64 value)
{
	memcpy(vm.memory + at, &value, 8);
}

void lay_out(struct vcpu *v)
{
	u32 b = v->block;
	u8 *m = vm.memory + b;
	u16 handler[8] = { 0 };
	u32 gp = b + CODE + (guest_gp - guest_code);
	u32 ivt = b + IVT_SMM, esp = STACK_SMM, at = b + COMMANDS + 0x200;
	u16 vector[2] = { 0x8000 + (smm_gp - smm_code), (b + SMBASE) >> 4 };
	int i;

	memset(m, 0, BLOCK);
	put64(b + PML4, (b + PDPT) | 7);
	put64(b + PDPT, (b + PD) | 7);
	for (i = 0; i < 2; i++)
		put64(b + PD + 8 * i, (u64)i << 21 | 0x87);
	descriptor(m + GDT + 8, 0, 0xfffff, 0x9b, 0xa);
	descriptor(m + GDT + 16, 0, 0xfffff, 0x93, 0xc);
	descriptor(m + GDT + 24, b + TSS, 0x67, 0x8b, 0);
	handler[0] = gp;
	handler[1] = 8;
	handler[2] = 0x8e00;
	handler[3] = gp >> 16;
	memcpy(m + IDT + 13 * 16, handler, 16);
	memcpy(m + CODE, guest_code, guest_end - guest_code);
	put64(b + STACK_L1 - 8, b + COMMANDS);
	put64(b + STACK_L2 - 8, b + COMMANDS + 0x100);
	command(v, PORT_L1)->port = PORT_L1;
	command(v, PORT_L2)->port = PORT_L2;

	memcpy(m + SMBASE + 0x8000, smm_code, smm_end - smm_code);
	memcpy(m + SMBASE + 0x8000 + 2, &at, 4);
	for (i = 0; i <= smm_end - smm_code - 4; i++) {
		u8 *p = m + SMBASE + 0x8000 + i;

		if (!memcmp(p, "\x22\x22\x22\x22", 4)) {
			esp += b;
			esp &= 0xffff;
			memcpy(p, &esp, 4);
		} else if (!memcmp(p, "\x33\x33\x33\x33", 4)) {
			memcpy(p, &ivt, 4);
		}
	}
	memcpy(m + IVT_SMM + 13 * 4, vector, 4);
}

struct kvm_cpuid2 *guest_cpuid(const char *features)
{
	static struct { struct kvm_cpuid2 head; struct kvm_cpuid_entry2 room[256]; } id;
	static const struct { const char *name; u32 function, index, edx; } bits[] = {
		{ "SPEC_CTRL", 7, 0, 1u << 26 }, { "STIBP", 7, 0, 1u << 27 }, { "SSBD", 7, 0, 1u << 31 },
		{ "ARCH_CAPABILITIES", 7, 0, 1u << 29 }, { "PSFD", 7, 2, 1 << 0 }, { "IPRED_CTRL", 7, 2, 1 << 1 },
		{ "RRSBA_CTRL", 7, 2, 1 << 2 }, { "DDPD_U", 7, 2, 1 << 3 }, { "BHI_CTRL", 7, 2, 1 << 4 },
	};
	u32 i, j;

	memset(&id, 0, sizeof(id));
	id.head.nent = 256;
	if (ioctl(kvm, KVM_GET_SUPPORTED_CPUID, &id) < 0)
		unsupported("KVM_GET_SUPPORTED_CPUID: %s", strerror(errno));
	for (i = 0; i < id.head.nent; i++) {
		struct kvm_cpuid_entry2 *e = &id.head.entries[i];

		for (j = 0; j < sizeof(bits) / sizeof(*bits); j++) {
			if (e->function != bits[j].function || e->index != bits[j].index)
				continue;
			e->edx &= ~bits[j].edx;
			if (in_list(features, bits[j].name))
				e->edx |= bits[j].edx;
		}
		if (e->function == 0x80000008) {
			e->ebx &= ~(1u << 12 | 1u << 14 | 1u << 15 | 1u << 24 | 1u << 25);
			e->ebx |= in_list(features, "AMD_IBRS") << 14 | in_list(features, "AMD_STIBP") << 15 |
				  in_list(features, "AMD_SSBD") << 24;
		}
		if (e->function == 1 && nested)
			e->ecx |= 1 << 5;
	}
	return &id.head;
}
