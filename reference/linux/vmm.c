/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The first program of the test machine, and the VMM in it: performs scenarios on the real KVM.
 *
 * /batch has lines of words as vectors/README.md describes them, and lines "#param PARAMETERS" (kvm_intel loaded anew), "#to PARAMETERS"
 * (where the next move goes), "#posted BITS" (operations as posted) and "#id NAME".  Each question is answered by one line on the debug port 0xe9.
 *
 *	gcc -O2 -static -o init vmm.c
 *
 * A guest is an interpreter of 64-bit code, at L1 and the same at L2, and one of 16-bit code in SMM.  It leaves with OUT, the VMM
 * writes a command into its memory, KVM_RUN goes on.  So the guest is left after each instruction: see README.md.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

typedef uint64_t u64;
typedef uint32_t u32;
typedef uint16_t u16;
typedef uint8_t u8;

#define CAP_FORCE_SPEC_CTRL	252	/* the scenarios' 236, which this kernel has given away */
#define GET_SUPPORTED		_IOR(KVMIO, 0xe4, __u64)

#define MSR_SPEC_CTRL		0x48
#define MSR_ARCH_CAPABILITIES	0x10a
#define MODELLED		(1ull << 63 | 1ull << 20 | 1ull << 19)
#define MSR_MITIGATION_CTRL	0x50000002
#define MSR_TEST_EFFECTIVE	0x500000f0	/* the test-only patch's window */
#define MSR_TEST_SAVED		0x500000f1
#define MSR_TEST_PLACE		0x500000f2
#define MSR_TEST_MASK		0x500000f3
#define MSR_TEST_SHADOW		0x500000f4
#define MSR_TEST_HELD		0x500000f5

static void say(const char *format, ...)
{
	static char text[1 << 16];
	va_list arguments;
	int length, i;

	va_start(arguments, format);
	length = vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	for (i = 0; i < length; i++)
		outb(text[i], 0xe9);
}

/* ---- the guest's code --------------------------------------------------------------------------------- */

enum { NOP, RDMSR, WRMSR, VMENTER, VMCALL, VMXOFF, RSM };
enum { PORT_L1 = 0x10, PORT_L2 = 0x12, PORT_SMM = 0x14, PORT_RESET = 0x16 };

struct command {
	u32 op, msr;
	u64 value;		/* 8 */
	u32 fault, status;	/* 16, 20 */
	u32 port, launched;	/* 24, 28 */
	u64 table, count;	/* 32, 40: VMWRITEs */
	u64 vmxon, vmcs;	/* 48, 56: addresses of their addresses; 0 if not needed */
	u64 reason, qualification;	/* 64, 72 */
};

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
    "7:	mov 56(%r15), %rax\n	test %rax, %rax\n	jz 8f\n	vmclear (%rax)\n	jbe 9f\n	vmptrld (%rax)\n	jbe 9f\n"
    "8:	mov 32(%r15), %rsi\n	mov 40(%r15), %rcx\n"
    "10:	mov (%rsi), %rax\n	mov 8(%rsi), %rbx\n	vmwrite %rbx, %rax\n	jbe 9f\n	add $16, %rsi\n	dec %rcx\n	jnz 10b\n"
    "	cmpl $0, 28(%r15)\n	jne 11f\n	vmlaunch\n	jmp 9f\n"
    "11:	vmresume\n"
    "9:	mov $0x4400, %eax\n	vmread %rax, %rbx\n	mov %rbx, 72(%r15)\n	mov %rsi, 64(%r15)\n	movl $1, 20(%r15)\n	jmp 1b\n"
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

/* A vCPU's block of guest memory. */
#define BLOCK		0x80000
#define BLOCKS		8
#define PML4		0x0000
#define PDPT		0x1000
#define PD		0x2000
#define GDT		0x3000
#define TSS		0x3800
#define IDT		0x4000
#define COMMANDS	0x5000	/* L1, L2, SMM; 0x100 apart */
#define TABLE		0x5800
#define CODE		0x6000
#define STACK_L1	0xb000
#define STACK_L2	0xd000
#define STACK_SMM	0xf000
#define IVT_SMM		0x10000
#define VMXON		0x11000
#define VMCS12		0x12000
#define BITMAP		0x13000
#define ENTRY_LOAD	0x14000
#define EXIT_STORE	0x15000
#define EXIT_LOAD	0x16000
#define SMBASE		0x20000
#define MEMORY		(BLOCK * BLOCKS)
#define RESET_PAGE	0xfffff000u

/* ---- scenarios ---------------------------------------------------------------------------------------- */

static jmp_buf give_up;
static char why[256];

static void unsupported(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(why, sizeof(why), format, arguments);
	va_end(arguments);
	longjmp(give_up, 1);
}

#define MAX_VCPUS 8
#define MAX_LIST 16
struct list { u32 count; u32 msr[MAX_LIST]; u64 value[MAX_LIST]; };

struct vcpu {
	u32 id;
	int fd;
	u32 block;		/* of guest memory; with another vCPU's nested state comes its block */
	u32 home;		/* its own, where SMM is */
	struct kvm_run *run;
	u32 port;		/* of the last OUT: the level that waits */
	bool vmx, launched, ran, msr_pending, shut_down;
	u64 own_mask, own_value;
	bool own_pair;
	char features[256];
	struct list loads, stores;	/* L1's VM-exit lists */
};

struct vm {
	int fd;
	u8 *memory, *reset;
	u32 nr;
	struct vcpu vcpus[MAX_VCPUS];
	bool moved;		/* the memory is that of the VM that it was */
	u64 mask, value, reasons;
	struct kvm_msr_filter filter;
	u8 bitmaps[16][0x600];
};

static int kvm, msr_dev;
static struct vm vm;
static bool nested = true;
static char host_features[256];

/* Where a vCPU is: everything that moves but MSRs, KVM's state and the VMM's. */
struct place {
	struct kvm_nested_state *state;
	struct kvm_sregs sregs;
	struct kvm_regs regs;
	struct kvm_vcpu_events events;
	u32 port, block, home;
	bool vmx, launched;
	struct list stores;
};
static struct saved { char name[64]; bool used; struct place place; } states[8];
static char parameters[512];	/* of kvm_intel */
static char destination[512];	/* of the next move */
static char load[512], posted[32] = "0";	/* what a scenario begins with */
static u64 host_value;			/* of MSR_SPEC_CTRL, as Linux left it */

static u64 rdmsr_host(u32 msr)
{
	u64 value = 0;

	if (pread(msr_dev, &value, 8, msr) != 8)
		unsupported("the host's MSR cannot be read");
	return value;
}

static void wrmsr_host(u32 msr, u64 value)
{
	if (pwrite(msr_dev, &value, 8, msr) != 8)
		unsupported("the host's MSR cannot be written");
}

/* Of kvm_intel, while it is loaded. */
static void set_parameter(const char *name, const char *value)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "/sys/module/kvm_intel/parameters/%s", name);
	fd = open(path, O_WRONLY);
	if (fd < 0 || write(fd, value, strlen(value)) < 0)
		say("# %s: %s\n", name, strerror(errno));
	close(fd);
}

static struct command *command(struct vcpu *v, u32 port)
{
	u32 which = port == PORT_L2 ? 1 : port == PORT_SMM ? 2 : 0;
	u32 block = port == PORT_SMM ? v->home : v->block;

	return (struct command *)(vm.memory + block + COMMANDS + 0x100 * which);
}

static int set_msr(struct vcpu *v, u32 msr, u64 value)
{
	struct { struct kvm_msrs head; struct kvm_msr_entry entry; } m = { { 1 }, { msr, 0, value } };

	return ioctl(v->fd, KVM_SET_MSRS, &m);
}

static int get_msr(struct vcpu *v, u32 msr, u64 *value)
{
	struct { struct kvm_msrs head; struct kvm_msr_entry entry; } m = { { 1 }, { msr, 0, 0 } };
	int done = ioctl(v->fd, KVM_GET_MSRS, &m);

	*value = m.entry.data;
	return done;
}

/* ---- words -------------------------------------------------------------------------------------------- */

static const char *word(const char *line, const char *key)
{
	static char value[8][4096];
	static int turn;
	size_t length = strlen(key);
	char *into = value[turn = (turn + 1) % 8];

	while (line) {
		if (!strncmp(line, key, length) && line[length] == '=') {
			snprintf(into, sizeof(value[0]), "%.*s", (int)strcspn(line + length + 1, " \n"), line + length + 1);
			return into;
		}
		line = strchr(line, ' ');
		line = line ? line + 1 : NULL;
	}
	return "";
}

static bool has_word(const char *line, const char *key)
{
	char with[64];

	snprintf(with, sizeof(with), " %s=", key);
	return strstr(line, with);
}

static u64 number(const char *line, const char *key)
{
	return strtoull(word(line, key), NULL, 0);
}

static bool in_list(const char *list, const char *name)
{
	size_t length = strlen(name);

	for (; list; list = strchr(list, ','), list = list ? list + 1 : NULL)
		if (!strncmp(list, name, length) && (list[length] == ',' || !list[length]))
			return true;
	return false;
}

static struct list msr_list(const char *text)
{
	struct list list = { 0 };
	char *end;

	while (*text) {
		if (list.count == MAX_LIST)
			unsupported("a list of more than %d MSRs", MAX_LIST);
		list.msr[list.count] = strtoull(text, &end, 0);
		if (*end == ':')
			list.value[list.count] = strtoull(end + 1, &end, 0);
		list.count++;
		text = *end == ',' ? end + 1 : end;
	}
	return list;
}

static const char *errno_name(int number)
{
	return number == EINVAL ? "EINVAL" : number == ENOTTY ? "ENOTTY" : number == EFAULT ? "EFAULT" :
	       number == EEXIST ? "EEXIST" : number == ENOMEM ? "ENOMEM" : number == EBUSY ? "EBUSY" : "EIO";
}

static void answer_ret(int ret)
{
	if (ret < 0)
		say("errno=%s", errno_name(errno));
	else
		say("ret=%d", ret);
}

/* ---- making a vCPU ------------------------------------------------------------------------------------ */

static void descriptor(u8 *at, u32 base, u32 limit, u32 type, u32 flags)
{
	u64 d = (limit & 0xffff) | (u64)(base & 0xffffff) << 16 | (u64)type << 40 | (u64)(limit >> 16 & 0xf) << 48 |
		(u64)flags << 52 | (u64)(base >> 24) << 56;

	memcpy(at, &d, 8);
}

/* The interpreter's registers: long mode, waiting for its first command. */
static void set_registers(struct vcpu *v)
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

static void put64(u32 at, u64 value)
{
	memcpy(vm.memory + at, &value, 8);
}

static void lay_out(struct vcpu *v)
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

static struct kvm_cpuid2 *guest_cpuid(const char *features)
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

/* ---- running ------------------------------------------------------------------------------------------ */

static void alarmed(int signal)
{
}

/* Run until the guest waits for a command (0), or an MSR exit (1), or a shutdown (2). */
static int run(struct vcpu *v)
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
			unsupported("KVM_RUN: exit reason %u, suberror %u (%llx %llx), RIP %llx, port %x", v->run->exit_reason,
				    v->run->internal.suberror, v->run->internal.data[0], v->run->internal.data[1], r.rip,
				    v->port);
		}
		}
	}
	unsupported("KVM_RUN does not come to an end");
	return 0;
}

/* Get the guest to where it waits for a command. */
static void settle(struct vcpu *v)
{
	if (v->shut_down)
		unsupported("the vCPU has shut down");
	if (!v->port && run(v))
		unsupported("the guest does not come to its first command");
}

static int perform(struct vcpu *v, u32 op, u32 msr, u64 value)
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

static struct vcpu *the_vcpu(const char *line)
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
		say("exit.kind=wrmsr exit.reason=%s exit.msr=0x%x exit.value=0x%llx", reason, r->msr.index, r->msr.data);
}

/* What became of an RDMSR or WRMSR at level @port. */
static void say_access(struct vcpu *v, int ended, u32 port, bool read)
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

/* ---- L1's VMCS for L2 --------------------------------------------------------------------------------- */

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
	vmwrite(0x6820, 2);
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

/*
 * An INIT that is pending as L2 is entered goes to L1 before L2's first instruction: KVM asks for an exit at once.  Bochs lets L2
 * execute up to its OUT all the same, so L2 is let run once more.
 */
static void late_init(struct vcpu *v)
{
	struct kvm_vcpu_events events;

	ioctl(v->fd, KVM_GET_VCPU_EVENTS, &events);
	if (v->port == PORT_L2 && events.smi.latched_init)
		perform(v, NOP, 0, 0);
}

/* Lists of this nested_enter, and of the nested_exit that ends it: both must be in the VMCS now. */
static void nested_enter(const char *line, const char *rest)
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
	if (!ended)
		late_init(v);
	if (v->shut_down)
		ended = 2;
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

static void nested_exit(const char *line)
{
	struct vcpu *v = the_vcpu(line);
	u32 i;
	int ended;

	settle(v);
	if (v->port != PORT_L2)
		unsupported("L2 does not run");
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

/* ---- INIT, SMM ---------------------------------------------------------------------------------------- */

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

static void init(const char *line)
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

static void vmxoff(const char *line)
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

static void smi(const char *line)
{
	struct vcpu *v = the_vcpu(line);

	settle(v);
	if (v->home > BLOCK)
		unsupported("SMM of a third vCPU");
	command(v, v->port)->op = NOP;
	if (ioctl(v->fd, KVM_SMI, 0) < 0)
		unsupported("KVM_SMI: %s", strerror(errno));
	if (!run(v) && v->port != PORT_SMM)
		perform(v, NOP, 0, 0);		/* late, as an INIT may be */
	if (v->port != PORT_SMM)
		unsupported("the SMI does not come to SMM: port %x", v->port);
	say("ok");
}

static void rsm(const char *line)
{
	struct vcpu *v = the_vcpu(line);
	int ended;

	settle(v);
	command(v, PORT_L1)->op = NOP;
	command(v, PORT_L2)->op = NOP;
	ended = perform(v, RSM, 0, 0);
	if (!ended)
		late_init(v);
	if (v->shut_down)
		ended = 2;
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

/* ---- ioctls ------------------------------------------------------------------------------------------- */

static void close_fds(void)
{
	u32 i;

	for (i = 0; i < vm.nr; i++) {
		munmap(vm.vcpus[i].run, ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0));
		close(vm.vcpus[i].fd);
	}
	if (vm.fd > 0)
		close(vm.fd);
}

static void close_vm(void)
{
	close_fds();
	if (vm.memory) {
		munmap(vm.memory, MEMORY);
		munmap(vm.reset, 4096);
	}
	memset(&vm, 0, sizeof(vm));
}

/* A VM with this memory; fresh memory if NULL. */
static void open_vm(u8 *memory, u8 *reset)
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

static int create_vcpu(u32 id, const char *features)
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
	struct kvm_enable_cap enable = { .cap = cap == 236 ? CAP_FORCE_SPEC_CTRL : cap, .flags = number(line, "flags") };
	struct list args = { 0 };
	const char *text = word(line, "args");
	char *end;

	for (; *text && args.count < 4; text = *end == ',' ? end + 1 : end)
		enable.args[args.count++] = strtoull(text, &end, 0);
	return ioctl(fd, KVM_ENABLE_CAP, &enable);
}

static void do_enable_cap(const char *line)
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

static void index_list(u32 request)
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

static void get_msrs(int fd, const char *line)
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

static int set_msrs(struct vcpu *v, const struct list *list)
{
	struct { struct kvm_msrs head; struct kvm_msr_entry entry[MAX_LIST]; } m = { { list->count } };
	u32 i;

	for (i = 0; i < list->count; i++) {
		m.entry[i].index = list->msr[i];
		m.entry[i].data = list->value[i];
	}
	return ioctl(v->fd, KVM_SET_MSRS, &m);
}

static int set_filter(const char *line)
{
	const char *text = word(line, "ranges");
	struct kvm_msr_filter filter = { .flags = strcmp(word(line, "default"), "deny") ? 0 : KVM_MSR_FILTER_DEFAULT_DENY };
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

static struct place *the_state(const char *name, bool make)
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

static int save_place(struct vcpu *v, struct place *p)
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
	return ioctl(v->fd, KVM_GET_NESTED_STATE, p->state);
}

/* The events that are saved with a nested state: SMM and a pending INIT. */
static void restore_events(struct vcpu *v, const struct place *p)
{
	struct kvm_vcpu_events events = p->events;

	events.flags = KVM_VCPUEVENT_VALID_SMM;
	ioctl(v->fd, KVM_SET_VCPU_EVENTS, &events);
}

/* KVM_SET_NESTED_STATE, and the registers of the level that it leads to. */
static int restore_place(struct vcpu *v, struct place *p, int run_pending)
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

/* ---- a move -------------------------------------------------------------------------------------------- */

static void reload(const char *wanted);
static void close_fds(void);
static void open_vm(u8 *memory, u8 *reset);
static int create_vcpu(u32 id, const char *features);

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

/* The whole VM goes to a new one, of the same module or of one that is loaded anew; in the order of vmm/migration.py. */
static void migrate(const char *line)
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
		failed = create_vcpu(old.vcpus[i].id, has_word(line, "features") ? word(line, "features") :
				     old.vcpus[i].features);

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

/*
 * The guest runs with what the window says of it, and leaves; an NMI may have been there before KVM.
 */
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
	say("effective=0x%llx guest_view=0x%llx saved=0x%llx level=%d smm=%s", (unsigned long long)effective,
	    (unsigned long long)view, (unsigned long long)saved, place & 2 ? 2 : 1, events.smi.smm ? "true" : "false");
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

static void perform_step(const char *line, const char *rest)
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
		answer_ret(create_vcpu(number(line, "vcpu"), has_word(line, "features") ? word(line, "features") : host_features));
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

/* ---- the machine -------------------------------------------------------------------------------------- */

static int load_module(const char *path, const char *parameters)
{
	int fd = open(path, O_RDONLY);
	int ret = syscall(SYS_finit_module, fd, parameters, 0);

	if (ret)
		say("# %s: %s\n", path, strerror(errno));
	close(fd);
	return ret;
}

static void reload(const char *wanted)
{
	if (kvm > 0)
		close(kvm);
	syscall(SYS_delete_module, "kvm_intel", 0);
	if (load_module("/kvm-intel.ko", wanted))
		say("# kvm_intel does not load\n");
	snprintf(parameters, sizeof(parameters), "%s", wanted);
	nested = !strstr(parameters, "nested=0");
	kvm = open("/dev/kvm", O_RDWR);
}

static char *whole(const char *path)
{
	int fd = open(path, O_RDONLY);
	struct stat about;
	char *text;
	ssize_t n, at = 0;

	if (fd < 0 || fstat(fd, &about))
		return NULL;
	text = calloc(1, about.st_size + 1);
	while ((n = read(fd, text + at, about.st_size - at)) > 0)
		at += n;
	close(fd);
	return text;
}

/* The kernel's log since it was last read: the lines of an oops that say what it was. */
static bool host_faulted(void)
{
	static int log = -1;
	char text[8192];
	bool fault = false, entry = false;
	ssize_t n;

	if (log < 0)
		log = open("/dev/kmsg", O_RDONLY | O_NONBLOCK);
	for (;;) {
		n = read(log, text, sizeof(text) - 1);
		if (n < 0 && errno == EPIPE)
			continue;
		if (n <= 0)
			break;
		text[n] = 0;
		if (strstr(text, "general protection fault")) {
			fault = true;
			say("# %s", strchr(text, ';') + 1);
		}
		if (fault && strstr(text, "RIP: ") && strstr(text, "__vmx_vcpu_run")) {
			entry = true;
			say("# %s", strchr(text, ';') + 1);
		}
	}
	return fault && entry;
}

int main(void)
{
	static char *batch, *line, *next;	/* static: longjmp() leaves them as they are */
	static bool over = true, fatal;
	struct sigaction on_alarm = { .sa_handler = alarmed };

	iopl(3);
	mkdir("/proc", 0755);
	mkdir("/sys", 0755);
	mkdir("/dev", 0755);
	mount("p", "/proc", "proc", 0, 0);
	mount("s", "/sys", "sysfs", 0, 0);
	mount("d", "/dev", "devtmpfs", 0, 0);
	sigaction(SIGALRM, &on_alarm, NULL);
	say("# begins\n");
	load_module("/irqbypass.ko", "");
	load_module("/kvm.ko", "");
	load_module("/msr.ko", "");
	msr_dev = open("/dev/cpu/0/msr", O_RDWR);
	host_value = rdmsr_host(MSR_SPEC_CTRL);
	batch = whole("/batch");
	for (line = batch; line && *line; line = next) {
		next = strchr(line, '\n');
		if (!next)
			break;
		*next++ = 0;
		if (!strncmp(line, "#param ", 7)) {
			close_vm();
			snprintf(load, sizeof(load), "%s", line + 7);
			reload(load);
			say("# host 0x48 %llx 0x10a %llx\n", (unsigned long long)host_value, (unsigned long long)rdmsr_host(0x10a));
		} else if (!strncmp(line, "#posted ", 8)) {
			close_vm();
			snprintf(posted, sizeof(posted), "%s", line + 8);
			set_parameter("as_posted", posted);
		} else if (!strncmp(line, "#to ", 4)) {
			snprintf(destination, sizeof(destination), "%s", line + 4);
		} else if (!strncmp(line, "#id ", 4)) {
			if (fatal)
				_exit(0);
			say("%s\n", line);
		} else if (!strcmp(line, "#fatal")) {
			/* A process of its own, which the kernel's own fault will end. */
			pid_t child = fork();
			bool fault = false;
			int turns;

			if (!child) {
				fatal = true;
				continue;
			}
			for (turns = 0; turns < 100 && !fault; turns++) {
				usleep(100000);
				fault = host_faulted();
				if (waitpid(child, NULL, WNOHANG))
					break;
			}
			say(fault || host_faulted() ? "host_fault=#GP\n" : "unsupported=the host did not fault\n");
			break;		/* KVM cannot be used any more */
		} else if (!strncmp(line, "op=begin ", 9)) {
			u32 i;

			over = false;
			close_vm();
			for (i = 0; i < 8; i++) {
				free(states[i].place.state);
				memset(&states[i], 0, sizeof(states[i]));
			}
			if (strcmp(parameters, load)) {
				reload(load);
				set_parameter("as_posted", posted);
			}
			snprintf(host_features, sizeof(host_features), "%s", word(line, "host.features"));
			if (setjmp(give_up)) {
				over = true;
				say("unsupported=%s\n", why);
				continue;
			}
			wrmsr_host(MSR_SPEC_CTRL, host_value);
			open_vm(NULL, NULL);
			say("observes=*\n");
		} else if (!strncmp(line, "op=", 3)) {
			if (over) {
				say("unsupported=the scenario ended before\n");
				continue;
			}
			if (setjmp(give_up)) {
				over = true;
				say("unsupported=%s\n", why);
				continue;
			}
			perform_step(line, next);
			say("\n");
		}
	}
	if (fatal)
		_exit(0);
	say("# ends\n");
	sync();
	reboot(RB_POWER_OFF);
	for (;;)
		pause();
}
