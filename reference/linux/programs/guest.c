/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Boots a Linux guest whose kernel has 0005-guest-report.diff, on two vCPUs, and says what it has reported at each stage
 * that its first program (init.c) announces; then takes the report away, as a suspend to RAM would.
 *
 *	gcc -O2 -static -o boot_guest vmm.c
 *	boot_guest FEATURES COMMAND LINE	7.2 features that the guest's CPUID hides, - for none
 *
 * /vmlinux is entered at its 64-bit entry, /guest is its initial RAM disk.  One thread runs the vCPUs in turn.
 */
#define _GNU_SOURCE
#include <asm/bootparam.h>
#include <errno.h>
#include <signal.h>
#include <sys/time.h>

#include "vm.h"

#define INITRD		(40u << 20)
#define PAGES		0x9000		/* page tables */
#define PARAMETERS	0x10000
#define COMMAND_LINE	0x20000
#define MP_TABLE	0xf0000
#define CPUS		2
#define SLICE		4000		/* microseconds of a vCPU */

#define MSR_SPEC_CTRL		0x48
#define MSR_MITIGATION_CTRL	0x50000002
#define MSR_TEST_EFFECTIVE	0x500000f0

static int cpus[CPUS];
static struct kvm_run *runs[CPUS];

/* ---- what is in memory when the guest begins ------------------------------------------------------------ */

static void boot_parameters(const char *command_line)
{
	struct boot_params *p = (void *)(memory + PARAMETERS);
	size_t size;
	uint8_t *disk = whole("/guest", &size);

	memcpy(memory + INITRD, disk, size);
	strcpy((char *)memory + COMMAND_LINE, command_line);
	p->hdr.boot_flag = 0xaa55;
	p->hdr.header = 0x53726448;
	p->hdr.type_of_loader = 0xff;
	p->hdr.cmd_line_ptr = COMMAND_LINE;
	p->hdr.cmdline_size = strlen(command_line);
	p->hdr.ramdisk_image = INITRD;
	p->hdr.ramdisk_size = size;
	p->e820_entries = 2;
	p->e820_table[0] = (struct boot_e820_entry){ 0, 0x9fc00, 1 };
	p->e820_table[1] = (struct boot_e820_entry){ 1 << 20, MEMORY - (1 << 20), 1 };
}

static void checksum(uint8_t *at, int length, uint8_t *into)
{
	uint8_t sum = 0;

	while (length--)
		sum -= *at++;
	*into = sum;
}

/* The table of the MultiProcessor Specification 1.4: two processors, one I/O APIC, the ISA interrupts. */
static void processors(void)
{
	uint8_t *floating = memory + MP_TABLE, *table = floating + 16, *at = table + 44;
	int i, entries = 0;

	memcpy(floating, "_MP_", 4);
	*(uint32_t *)(floating + 4) = MP_TABLE + 16;
	floating[8] = 1;
	floating[9] = 4;
	for (i = 0; i < CPUS; i++, entries++, at += 20) {
		at[1] = i;
		at[2] = 0x14;
		at[3] = i ? 1 : 3;
	}
	at[0] = 1;
	memcpy(at + 2, "ISA   ", 6);
	at += 8;
	at[0] = 2;
	at[1] = CPUS;
	at[2] = 0x11;
	at[3] = 1;
	*(uint32_t *)(at + 4) = 0xfec00000;
	at += 8;
	entries += 2;
	for (i = 0; i < 16; i++, entries++, at += 8) {
		at[0] = 3;
		at[5] = i;
		at[6] = CPUS;
		at[7] = i ? i : 2;
	}
	memcpy(table, "PCMP", 4);
	*(uint16_t *)(table + 4) = at - table;
	table[6] = 4;
	memcpy(table + 8, "SPECCTRLTWO VCPUS   ", 20);
	*(uint16_t *)(table + 34) = entries;
	*(uint32_t *)(table + 36) = 0xfee00000;
	checksum(table, at - table, table + 7);
	checksum(floating, 16, floating + 10);
}

/* ---- the vCPUs ------------------------------------------------------------------------------------------ */

static void enter_kernel(int cpu, uint64_t entry)
{
	struct kvm_segment code = { 0, 0xfffff, 8, 11, 1, 0, 0, 1, 1, 1, 0, 0, 0 };
	struct kvm_segment data = { 0, 0xfffff, 16, 3, 1, 0, 1, 1, 0, 1, 0, 0, 0 };
	struct kvm_regs regs = { .rip = entry, .rsi = PARAMETERS, .rflags = 2 };
	struct kvm_sregs s;

	ioctl(cpu, KVM_GET_SREGS, &s);
	s.cs = code;
	s.ds = s.es = s.fs = s.gs = s.ss = data;
	s.cr0 = 0x80000031;
	s.cr3 = PAGES;
	s.cr4 = 0x20;
	s.efer = 0x500;
	if (ioctl(cpu, KVM_SET_SREGS, &s) < 0 || ioctl(cpu, KVM_SET_REGS, &regs) < 0)
		fail("KVM_SET_SREGS");
}

static void say_reports(const char *when)
{
	int i;

	for (i = 0; i < CPUS; i++)
		printf("%s: cpu %d: report 0x%llx, view 0x%llx, effective 0x%llx\n", when, i,
		       (unsigned long long)get_msr(cpus[i], MSR_MITIGATION_CTRL),
		       (unsigned long long)get_msr(cpus[i], MSR_SPEC_CTRL),
		       (unsigned long long)get_msr(cpus[i], MSR_TEST_EFFECTIVE));
	fflush(stdout);
}

/* An access of a port; false if it resets the machine. */
static bool port(struct kvm_run *run)
{
	static char text[512];
	static unsigned int length;
	uint8_t *data = (uint8_t *)run + run->io.data_offset;
	uint16_t number = run->io.port;
	char when[32];
	int i;

	if (run->io.direction == KVM_EXIT_IO_IN) {
		memset(data, number == 0x71 || number == 0x64 ? 0 : number == 0x3fd ? 0x60 : 0xff, run->io.size);
	} else if (number == 0x3f8) {
		if (*data == '\n' || length == sizeof(text) - 1) {
			text[length] = 0;
			printf("guest: %s\n", text);
			fflush(stdout);
			length = 0;
		} else if (*data != '\r') {
			text[length++] = *data;
		}
	} else if (number == 0xf4) {
		snprintf(when, sizeof(when), "stage %d", *data);
		say_reports(when);
		for (i = 0; i < CPUS; i++)
			set_msr(cpus[i], MSR_MITIGATION_CTRL, 0);
	} else if (number == 0x64 && *data == 0xfe) {
		return false;
	}
	return true;
}

static void next_turn(int signal)
{
}

static void run(void)
{
	struct sigaction on_alarm = { .sa_handler = next_turn };
	struct itimerval slice = { { 0, SLICE }, { 0, SLICE } };
	int turns, id;

	sigaction(SIGALRM, &on_alarm, NULL);
	setitimer(ITIMER_REAL, &slice, NULL);
	for (turns = 0; turns < 40000; turns++) {
		id = turns % CPUS;
		while (ioctl(cpus[id], KVM_RUN, 0) == 0) {
			struct kvm_run *at = runs[id];

			if (at->exit_reason == KVM_EXIT_SHUTDOWN)
				return;
			if (at->exit_reason == KVM_EXIT_MMIO)
				memset(at->mmio.data, 0xff, 8);
			else if (at->exit_reason != KVM_EXIT_IO)
				printf("exit reason %u, suberror %u\n", at->exit_reason, at->internal.suberror);
			else if (!port(at))
				return;
		}
		if (errno != EINTR && errno != EAGAIN)
			fail("KVM_RUN");
	}
	printf("the guest does not come to an end\n");
}

int main(int argc, char **argv)
{
	char command_line[512] = "";
	uint64_t entry, *table;
	int i;

	if (argc < 2)
		return 2;
	for (i = 2; i < argc; i++)
		strcat(strcat(command_line, argv[i]), " ");
	create_vm();
	table = (uint64_t *)(memory + PAGES);
	table[0] = (PAGES + 0x1000) | 3;
	table[512] = (PAGES + 0x2000) | 3;
	for (i = 0; i < 512; i++)
		table[1024 + i] = (uint64_t)i << 21 | 0x83;
	entry = load_elf("/vmlinux");
	boot_parameters(command_line);
	processors();
	for (i = 0; i < CPUS; i++)
		cpus[i] = create_cpu(i, CPUS, argv[1], &runs[i]);
	enter_kernel(cpus[0], entry);
	run();
	say_reports("end");
	return 0;
}
