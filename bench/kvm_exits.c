/*
 * MSR exits a second in C: the same guest, the same filter and the same work for each exit as in kvm_exits.py.
 *
 * usage: kvm_exits STATE SECONDS
 * STATE: struct kvm_sregs, struct kvm_regs, then the guest's memory.  Prints how many exits a second it answered.
 */
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define MEMORY 0x200000
#define MSR 0x50000002

static void check(int ok, const char *what)
{
	if (!ok) {
		perror(what);
		exit(1);
	}
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}

int main(int argc, char **argv)
{
	int kvm = open("/dev/kvm", O_RDWR), file = argc == 3 ? open(argv[1], O_RDONLY) : -1;
	unsigned char denied = 0;
	struct kvm_msr_filter filter = {
		.ranges[0] = { KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE, 1, MSR, &denied },
	};
	struct kvm_enable_cap cap = { .cap = KVM_CAP_X86_USER_SPACE_MSR, .args = { KVM_MSR_EXIT_REASON_FILTER } };
	struct kvm_sregs sregs;
	struct kvm_regs regs;
	struct kvm_run *run;
	unsigned long exits = 0;
	double begin, end;
	void *memory;
	int vm, vcpu;

	check(kvm >= 0 && file >= 0, "kvm_exits STATE SECONDS");
	memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	check(memory != MAP_FAILED, "memory");
	check(read(file, &sregs, sizeof(sregs)) == sizeof(sregs) && read(file, &regs, sizeof(regs)) == sizeof(regs) &&
	      read(file, memory, MEMORY) == MEMORY, "STATE");

	struct kvm_userspace_memory_region region = { .memory_size = MEMORY, .userspace_addr = (unsigned long)memory };

	vm = ioctl(kvm, KVM_CREATE_VM, 0);
	check(vm >= 0 && !ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region), "VM");
	check(!ioctl(vm, KVM_ENABLE_CAP, &cap) && !ioctl(vm, KVM_X86_SET_MSR_FILTER, &filter), "filter");
	vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
	check(vcpu >= 0, "vCPU");
	run = mmap(NULL, ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	check(run != MAP_FAILED && !ioctl(vcpu, KVM_SET_SREGS, &sregs) && !ioctl(vcpu, KVM_SET_REGS, &regs), "state");

	begin = now();
	end = begin + atof(argv[2]);
	while (now() < end) {
		check(!ioctl(vcpu, KVM_RUN, 0), "KVM_RUN");
		if (run->exit_reason != KVM_EXIT_X86_RDMSR || run->msr.index != MSR) {
			fprintf(stderr, "exit reason %u\n", run->exit_reason);
			return 1;
		}
		run->msr.data = exits++;
		run->msr.error = 0;
	}
	printf("%.0f\n", exits / (now() - begin));
	return 0;
}
