/* SPDX-License-Identifier: (GPL-2.0 OR MIT) */
/* VMs, vCPUs and ucalls, as far as the generated files use them; see test_util.h. */
#ifndef STAND_IN_KVM_UTIL_H
#define STAND_IN_KVM_UTIL_H

#include <linux/kvm.h>
#include <sys/ioctl.h>

#include "test_util.h"

struct kvm_vm;

struct kvm_vcpu {
	u32 id;
	struct kvm_vm *vm;
};

struct kvm_vm *vm_create(u32 nr_runnable_vcpus);
struct kvm_vm *vm_create_with_vcpus(u32 nr_vcpus, void *guest_code, struct kvm_vcpu *vcpus[]);
struct kvm_vcpu *vm_vcpu_add(struct kvm_vm *vm, u32 vcpu_id, void *guest_code);
void kvm_vm_free(struct kvm_vm *vm);
void vcpu_run(struct kvm_vcpu *vcpu);

unsigned int kvm_check_cap(long cap);
int vm_check_cap(struct kvm_vm *vm, long cap);
int open_kvm_dev_path_or_exit(void);

/* The library refuses an argument whose size is not the ioctl's; so does this. */
#define STAND_IN_CHECKED(cmd, arg)						\
	_Static_assert(!_IOC_SIZE(cmd) || sizeof(*(arg)) == _IOC_SIZE(cmd),	\
		       "the argument has another size than the ioctl's")
#define __kvm_ioctl(fd, cmd, arg)						\
	({ STAND_IN_CHECKED(cmd, arg); stand_in_kvm_ioctl(fd, cmd, arg); })
#define __vm_ioctl(vm, cmd, arg)						\
	({ STAND_IN_CHECKED(cmd, arg); stand_in_vm_ioctl(vm, cmd, arg); })
#define __vcpu_ioctl(vcpu, cmd, arg)						\
	({ STAND_IN_CHECKED(cmd, arg); stand_in_vcpu_ioctl(vcpu, cmd, arg); })
int stand_in_kvm_ioctl(int fd, unsigned long cmd, void *arg);
int stand_in_vm_ioctl(struct kvm_vm *vm, unsigned long cmd, void *arg);
int stand_in_vcpu_ioctl(struct kvm_vcpu *vcpu, unsigned long cmd, void *arg);

/* The guest is a coroutine of the same program. */
#define sync_global_to_guest(vm, variable) ((void)(vm), (void)&(variable))

enum { UCALL_NONE, UCALL_SYNC, UCALL_ABORT, UCALL_PRINTF, UCALL_DONE };

struct ucall {
	u64 cmd;
	u64 args[7];
};

void stand_in_ucall(u64 cmd, u64 stage, u64 arg1, u64 arg2, u64 arg3, u64 arg4);
u64 get_ucall(struct kvm_vcpu *vcpu, struct ucall *uc);
#define GUEST_SYNC_ARGS(stage, arg1, arg2, arg3, arg4) \
	stand_in_ucall(UCALL_SYNC, stage, arg1, arg2, arg3, arg4)
#define GUEST_SYNC(stage) stand_in_ucall(UCALL_SYNC, stage, 0, 0, 0, 0)
#define REPORT_GUEST_ASSERT(uc) TEST_FAIL("guest assert, ucall %lu", (unsigned long)(uc).cmd)

#endif
