/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the two VMMs of whole programs share: one VM with KVM's interrupt controllers, an ELF file in its memory, and a
 * vCPU that sees the CPUID that KVM offers and has the virtual MSRs announced.
 */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MEMORY		(64u << 20)

#define MSR_ARCH_CAPABILITIES	0x10a
#define MSR_VIRTUAL_ENUMERATION	0x50000000
#define MSR_MITIGATION_ENUM	0x50000001

static uint8_t *memory;
static int kvm, vm;

static void fail(const char *what)
{
	printf("failed: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint8_t *whole(const char *path, size_t *size)
{
	int fd = open(path, O_RDONLY);
	struct stat about;
	uint8_t *at;

	if (fd < 0 || fstat(fd, &about))
		fail(path);
	*size = about.st_size;
	at = mmap(NULL, *size, PROT_READ, MAP_PRIVATE, fd, 0);
	close(fd);
	return at == MAP_FAILED ? (fail(path), NULL) : at;
}

static uint64_t get_msr(int cpu, uint32_t msr)
{
	struct { struct kvm_msrs head; struct kvm_msr_entry entry; } m = { { 1 }, { msr } };

	if (ioctl(cpu, KVM_GET_MSRS, &m) != 1)
		fail("KVM_GET_MSRS");
	return m.entry.data;
}

static void set_msr(int cpu, uint32_t msr, uint64_t value)
{
	struct { struct kvm_msrs head; struct kvm_msr_entry entry; } m = { { 1 }, { msr, 0, value } };

	if (ioctl(cpu, KVM_SET_MSRS, &m) != 1)
		fail("KVM_SET_MSRS");
}

/* Puts an ELF file where it wants to be; returns its entry. */
static uint64_t load_elf(const char *path)
{
	size_t size;
	uint8_t *file = whole(path, &size);
	Elf64_Ehdr *head = (Elf64_Ehdr *)file;
	Elf64_Phdr *part = (Elf64_Phdr *)(file + head->e_phoff);
	int i;

	for (i = 0; i < head->e_phnum; i++)
		if (part[i].p_type == PT_LOAD)
			memcpy(memory + part[i].p_paddr, file + part[i].p_offset, part[i].p_filesz);
	return head->e_entry;
}

static void create_vm(void)
{
	struct kvm_userspace_memory_region slot = { .memory_size = MEMORY };
	struct kvm_pit_config pit = { 0 };

	kvm = open("/dev/kvm", O_RDWR);
	vm = ioctl(kvm, KVM_CREATE_VM, 0);
	memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	slot.userspace_addr = (unsigned long)memory;
	ioctl(vm, KVM_SET_TSS_ADDR, 0xfffbd000);
	if (vm < 0 || ioctl(vm, KVM_CREATE_IRQCHIP, 0) < 0 || ioctl(vm, KVM_CREATE_PIT2, &pit) < 0 ||
	    ioctl(vm, KVM_SET_USER_MEMORY_REGION, &slot) < 0)
		fail("a VM");
}

/* Of count vCPUs.  Words in hidden take features of CPUID leaf 7.2 away. */
static int create_cpu(int id, int count, const char *hidden, struct kvm_run **run)
{
	static struct { struct kvm_cpuid2 head; struct kvm_cpuid_entry2 room[256]; } cpuid;
	int cpu = ioctl(vm, KVM_CREATE_VCPU, id);
	uint32_t i;

	if (cpu < 0)
		fail("KVM_CREATE_VCPU");
	*run = mmap(NULL, ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), PROT_READ | PROT_WRITE, MAP_SHARED, cpu, 0);
	cpuid.head.nent = 256;
	if (ioctl(kvm, KVM_GET_SUPPORTED_CPUID, &cpuid) < 0)
		fail("KVM_GET_SUPPORTED_CPUID");
	for (i = 0; i < cpuid.head.nent; i++) {
		struct kvm_cpuid_entry2 *e = &cpuid.head.entries[i];

		if (e->function == 1)
			e->ebx = (e->ebx & 0xffff) | id << 24 | count << 16;
		if (e->function == 0xb || e->function == 0x1f)
			e->edx = id;
		if (e->function == 7 && e->index == 2 && strstr(hidden, "BHI_CTRL"))
			e->edx &= ~(1u << 4);
		if (e->function == 0x40000001)
			e->eax = 0;		/* no clock of KVM's */
	}
	if (ioctl(cpu, KVM_SET_CPUID2, &cpuid) < 0)
		fail("KVM_SET_CPUID2");
	set_msr(cpu, MSR_ARCH_CAPABILITIES, get_msr(cpu, MSR_ARCH_CAPABILITIES) | 1ull << 63);
	set_msr(cpu, MSR_VIRTUAL_ENUMERATION, 1);
	set_msr(cpu, MSR_MITIGATION_ENUM, 3);
	return cpu;
}
