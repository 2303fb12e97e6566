/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Runs a program of kvm-unit-tests on one vCPU, as QEMU would: enters it as a multiboot loader does, and has the ports
 * that its library uses: of text, of the configuration, and of the end.  The library must be built without USE_SERIAL, so
 * that a string is one exit.
 *
 *	gcc -O2 -static -o run_unit unit.c
 *	run_unit PROGRAM [MASK VALUE]	the ELF file before it becomes .flat; a pair that the VM forces
 *
 * Ends with the program's own status.
 */
#include "vm.h"

#define CAP_FORCE_SPEC_CTRL	252
#define INFORMATION		0x1000	/* the multiboot structure */
#define ARGUMENTS		0x1800
#define MULTIBOOT_MAGIC		0x2badb002

#define CONFIG_RAM_SIZE		3
#define CONFIG_CPUS		5

static void force(const char *mask, const char *value)
{
	struct kvm_enable_cap enable = {
		.cap = CAP_FORCE_SPEC_CTRL, .args = { strtoull(mask, NULL, 16), strtoull(value, NULL, 16) }
	};

	if (ioctl(vm, KVM_ENABLE_CAP, &enable))
		fail("KVM_ENABLE_CAP");
}

static void enter(int cpu, uint64_t entry)
{
	struct kvm_segment code = { 0, 0xffffffff, 8, 11, 1, 0, 1, 1, 0, 1, 0, 0, 0 };
	struct kvm_segment data = { 0, 0xffffffff, 16, 3, 1, 0, 1, 1, 0, 1, 0, 0, 0 };
	struct kvm_regs regs = { .rip = entry, .rax = MULTIBOOT_MAGIC, .rbx = INFORMATION, .rflags = 2 };
	uint32_t *information = (uint32_t *)(memory + INFORMATION);
	struct kvm_sregs s;

	information[0] = 1 | 4;			/* memory and arguments */
	information[1] = 640;
	information[2] = (MEMORY >> 10) - 1024;
	information[4] = ARGUMENTS;
	strcpy((char *)memory + ARGUMENTS, "unit");
	ioctl(cpu, KVM_GET_SREGS, &s);
	s.cs = code;
	s.ds = s.es = s.fs = s.gs = s.ss = data;
	s.cr0 = 0x11;
	if (ioctl(cpu, KVM_SET_SREGS, &s) < 0 || ioctl(cpu, KVM_SET_REGS, &regs) < 0)
		fail("KVM_SET_SREGS");
}

/* The next byte of what the guest asked the configuration port for. */
static uint8_t configured(int key, unsigned int byte)
{
	uint64_t value = key == CONFIG_RAM_SIZE ? MEMORY : key == CONFIG_CPUS ? 1 : 0;

	return byte < 8 ? value >> 8 * byte : 0;
}

int main(int argc, char **argv)
{
	struct kvm_run *run;
	int cpu, key = 0;
	unsigned int byte = 0;

	if (argc != 2 && argc != 4)
		return 2;
	create_vm();
	if (argc == 4)
		force(argv[2], argv[3]);
	cpu = create_cpu(0, 1, "", &run);
	enter(cpu, load_elf(argv[1]));
	for (;;) {
		uint8_t *data;

		if (ioctl(cpu, KVM_RUN, 0) < 0)
			fail("KVM_RUN");
		if (run->exit_reason != KVM_EXIT_IO) {
			printf("exit reason %u, suberror %u\n", run->exit_reason, run->internal.suberror);
			return 1;
		}
		data = (uint8_t *)run + run->io.data_offset;
		if (run->io.direction == KVM_EXIT_IO_IN) {
			memset(data, 0xff, run->io.size * run->io.count);
			if (run->io.port == 0x511)
				*data = configured(key, byte++);
		} else if (run->io.port == 0xf1) {
			fwrite(data, run->io.size, run->io.count, stdout);
		} else if (run->io.port == 0x510) {
			key = *(uint16_t *)data;
			byte = 0;
		} else if (run->io.port == 0xf4) {
			return *data;
		}
	}
}
