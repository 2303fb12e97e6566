// SPDX-License-Identifier: (GPL-2.0 OR MIT)
/*
 * The functions of the kernel's selftest library that the generated files use,
 * over the C reference: a VM is a struct, a guest a coroutine, an ioctl a call.
 *
 * The host is read from the environment:
 *   STAND_IN_FEATURES   names with commas: SPEC_CTRL,STIBP,...
 *   STAND_IN_CONTROL    1: the control "virtualize IA32_SPEC_CTRL" is there
 *   STAND_IN_SPEC_CTRL  the value that the host runs with
 */
#include <errno.h>
#include <stdarg.h>
#include <ucontext.h>

#include "kvm_util.h"
#include "processor.h"
#include "specctrl_cpu.h"

#define STACK_SIZE	(64 * 1024)
#define MAX_VCPUS	8

struct guest {
	struct kvm_vcpu vcpu;		/* first: a struct kvm_vcpu is one of these */
	struct specctrl_model ref;
	ucontext_t inside;
	ucontext_t outside;
	struct ucall ucall;
	void *stack;
};

struct kvm_vm {
	struct specctrl_vm ref;
	u32 nr_vcpus;
	struct guest *vcpus[MAX_VCPUS];
};

bool host_cpu_is_intel = true;
static struct guest *running;

/* ---- TAP ---------------------------------------------------------------- */

static unsigned int passed, failed, skipped;

#define SAY(prefix, number, hash, format)			\
	do {							\
		va_list arguments;				\
								\
		printf(prefix " %u " hash, number);		\
		va_start(arguments, format);			\
		vprintf(format, arguments);			\
		va_end(arguments);				\
	} while (0)

void ksft_print_header(void)
{
	printf("TAP version 13\n");
}

void ksft_set_plan(unsigned int plan)
{
	printf("1..%u\n", plan);
}

void ksft_print_msg(const char *format, ...)
{
	va_list arguments;

	printf("# ");
	va_start(arguments, format);
	vprintf(format, arguments);
	va_end(arguments);
}

void ksft_test_result_pass(const char *format, ...)
{
	passed++;
	SAY("ok", passed + failed + skipped, "", format);
}

void ksft_test_result_fail(const char *format, ...)
{
	failed++;
	SAY("not ok", passed + failed + skipped, "", format);
}

void ksft_test_result_skip(const char *format, ...)
{
	skipped++;
	SAY("ok", passed + failed + skipped, "# SKIP ", format);
}

void ksft_exit_skip(const char *format, ...)
{
	va_list arguments;

	printf("1..0 # SKIP ");
	va_start(arguments, format);
	vprintf(format, arguments);
	va_end(arguments);
	exit(4);
}

void ksft_finished(void)
{
	printf("# Totals: pass:%u fail:%u skip:%u\n", passed, failed, skipped);
	exit(failed ? 1 : 0);
}

void stand_in_fail(const char *format, ...)
{
	va_list arguments;

	printf("Bail out! ");
	va_start(arguments, format);
	vprintf(format, arguments);
	va_end(arguments);
	printf("\n");
	exit(254);
}

/* ---- The host ----------------------------------------------------------- */

static const struct {
	const char *name;
	u32 feature;
	u8 subleaf;
	u64 bit;			/* of EDX of CPUID leaf 7; 0: not in CPUID */
} features[] = {
	{ "SPEC_CTRL", SPECCTRL_HAS_SPEC_CTRL, 0, CPUID_7_0_EDX_SPEC_CTRL },
	{ "STIBP", SPECCTRL_HAS_STIBP, 0, CPUID_7_0_EDX_STIBP },
	{ "SSBD", SPECCTRL_HAS_SSBD, 0, CPUID_7_0_EDX_SSBD },
	{ "ARCH_CAPABILITIES", SPECCTRL_HAS_ARCH_CAPABILITIES, 0, CPUID_7_0_EDX_ARCH_CAPABILITIES },
	{ "RRSBA_CTRL", SPECCTRL_HAS_RRSBA_CTRL, 2, CPUID_7_2_EDX_RRSBA_CTRL },
	{ "BHI_CTRL", SPECCTRL_HAS_BHI_CTRL, 2, CPUID_7_2_EDX_BHI_CTRL },
	{ "IPRED_CTRL", SPECCTRL_HAS_IPRED_CTRL, 2, CPUID_7_2_EDX_IPRED_CTRL },
	{ "PSFD", SPECCTRL_HAS_PSFD, 2, CPUID_7_2_EDX_PSFD },
	{ "DDPD_U", SPECCTRL_HAS_DDPD_U, 2, CPUID_7_2_EDX_DDPD_U },
	{ "RRSBA", SPECCTRL_HAS_RRSBA, 0, 0 },
	{ "BHI_NO", SPECCTRL_HAS_BHI_NO, 0, 0 },
};

/* AMD's bits, in EBX of leaf 0x80000008: KVM shows each where Intel's is. */
static const struct {
	u8 bit;
	u32 feature, like;
} amd_features[] = {
	{ 14, SPECCTRL_HAS_AMD_IBRS, SPECCTRL_HAS_SPEC_CTRL },
	{ 15, SPECCTRL_HAS_AMD_STIBP, SPECCTRL_HAS_STIBP },
	{ 24, SPECCTRL_HAS_AMD_SSBD, SPECCTRL_HAS_SSBD },
};

static u32 feature_of(struct kvm_x86_cpu_feature wanted)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(amd_features); i++) {
		if (wanted.function == 0x80000008 && wanted.reg == KVM_CPUID_EBX && amd_features[i].bit == wanted.bit)
			return amd_features[i].feature;
	}
	for (i = 0; i < ARRAY_SIZE(features); i++) {
		if (wanted.function == 7 && wanted.reg == KVM_CPUID_EDX &&
		    wanted.index == features[i].subleaf && features[i].bit == 1ull << wanted.bit)
			return features[i].feature;
	}
	stand_in_fail("no such CPUID bit: %u, %u, %u", wanted.function, wanted.index, wanted.bit);
}

static const struct specctrl_host *the_host(void)
{
	static struct specctrl_host host;
	static bool known;
	const char *names = getenv("STAND_IN_FEATURES"), *control = getenv("STAND_IN_CONTROL");
	const char *value = getenv("STAND_IN_SPEC_CTRL");

	if (known)
		return &host;
	while (names && *names) {
		size_t length = strcspn(names, ","), i;

		for (i = 0; i < ARRAY_SIZE(features); i++) {
			if (strlen(features[i].name) == length && !strncmp(features[i].name, names, length))
				break;
		}
		TEST_ASSERT(i < ARRAY_SIZE(features), "no feature at %s", names);
		host.features |= features[i].feature;
		names += length + (names[length] == ',');
	}
	host.has_control = control && *control == '1';
	host.spec_ctrl = value ? strtoull(value, NULL, 0) : 0;
	known = true;
	return &host;
}

/* What KVM can show a guest: what the host has, AMD's bits for it, and IA32_ARCH_CAPABILITIES, which it emulates. */
static u32 kvm_features(void)
{
	u32 shown = the_host()->features | SPECCTRL_HAS_ARCH_CAPABILITIES;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(amd_features); i++) {
		if (the_host()->features & amd_features[i].like)
			shown |= amd_features[i].feature;
	}
	return shown;
}

bool kvm_cpu_has(struct kvm_x86_cpu_feature feature)
{
	return kvm_features() & feature_of(feature);
}

bool kvm_is_ignore_msrs(void)
{
	return false;
}

u64 kvm_get_feature_msr(u64 msr_index)
{
	u64 value;

	TEST_ASSERT(!specctrl_get_msr_feature(the_host(), (u32)msr_index, &value), "no feature MSR");
	return value;
}

static union {
	struct kvm_msr_list list;
	u32 room[8];
} list;

const struct kvm_msr_list *kvm_get_msr_index_list(void)
{
	list.list.nmsrs = specctrl_msr_index_list(the_host(), list.list.indices);
	return &list.list;
}

const struct kvm_msr_list *kvm_get_feature_msr_index_list(void)
{
	u32 all[5], nr = specctrl_msr_index_list(the_host(), all), i;

	list.list.nmsrs = 0;
	for (i = 0; i < nr; i++) {
		if (specctrl_is_feature_msr(all[i]))
			list.list.indices[list.list.nmsrs++] = all[i];
	}
	return &list.list;
}

unsigned int kvm_check_cap(long cap)
{
	return (unsigned int)specctrl_check_extension(the_host(), (u32)cap);
}

int vm_check_cap(struct kvm_vm *vm, long cap)
{
	return specctrl_check_extension(vm->ref.host, (u32)cap);
}

int open_kvm_dev_path_or_exit(void)
{
	return -1;
}

/* ---- VMs and vCPUs ------------------------------------------------------ */

struct kvm_vm *vm_create(u32 nr_runnable_vcpus)
{
	struct kvm_vm *vm = calloc(1, sizeof(*vm));

	TEST_ASSERT(vm && nr_runnable_vcpus <= MAX_VCPUS, "no room");
	vm->ref.host = the_host();
	return vm;
}

static u32 guest_cpuid(void)
{
	return kvm_features() & ~(u32)(SPECCTRL_HAS_RRSBA | SPECCTRL_HAS_BHI_NO);
}

static struct guest *guest_of(struct kvm_vcpu *vcpu)
{
	return (struct guest *)vcpu;
}

static bool vcpu_exists(const struct kvm_vm *vm, u32 id)
{
	u32 i;

	for (i = 0; i < vm->nr_vcpus; i++) {
		if (vm->vcpus[i]->vcpu.id == id)
			return true;
	}
	return false;
}

struct kvm_vcpu *vm_vcpu_add(struct kvm_vm *vm, u32 vcpu_id, void *guest_code)
{
	struct guest *guest = calloc(1, sizeof(*guest));

	TEST_ASSERT(guest && vm->nr_vcpus < MAX_VCPUS, "no room");
	TEST_ASSERT(!specctrl_vm_count_vcpu(&vm->ref, vcpu_id, vcpu_exists(vm, vcpu_id)),
		    "KVM_CREATE_VCPU failed");
	guest->vcpu.id = vcpu_id;
	guest->vcpu.vm = vm;
	guest->stack = malloc(STACK_SIZE);
	specctrl_model_create(&guest->ref, &vm->ref, guest_cpuid());
	getcontext(&guest->inside);
	guest->inside.uc_stack.ss_sp = guest->stack;
	guest->inside.uc_stack.ss_size = STACK_SIZE;
	guest->inside.uc_link = NULL;
	makecontext(&guest->inside, (void (*)(void))guest_code, 0);
	vm->vcpus[vm->nr_vcpus++] = guest;
	return &guest->vcpu;
}

struct kvm_vm *vm_create_with_vcpus(u32 nr_vcpus, void *guest_code, struct kvm_vcpu *vcpus[])
{
	struct kvm_vm *vm = vm_create(nr_vcpus);
	u32 i;

	for (i = 0; i < nr_vcpus; i++)
		vcpus[i] = vm_vcpu_add(vm, i, guest_code);
	return vm;
}

void kvm_vm_free(struct kvm_vm *vm)
{
	u32 i;

	for (i = 0; i < vm->nr_vcpus; i++) {
		free(vm->vcpus[i]->stack);
		free(vm->vcpus[i]);
	}
	free(vm);
}

#define LEAF_7_2								\
	(SPECCTRL_HAS_PSFD | SPECCTRL_HAS_IPRED_CTRL | SPECCTRL_HAS_RRSBA_CTRL |	\
	 SPECCTRL_HAS_DDPD_U | SPECCTRL_HAS_BHI_CTRL)

/* KVM_SET_CPUID2 after creation, which the model knows as an argument of creation. */
void vcpu_clear_cpuid_feature(struct kvm_vcpu *vcpu, struct kvm_x86_cpu_feature feature)
{
	struct guest *guest = guest_of(vcpu);
	u32 cpuid = guest->ref.vcpu.cpuid & ~feature_of(feature);

	TEST_ASSERT(!guest->ref.vcpu.has_run, "KVM_SET_CPUID2 after KVM_RUN");
	/* The library looks for the entry of the leaf, which a host without such bits has not. */
	TEST_ASSERT(feature.index != 2 || the_host()->features & LEAF_7_2, "no CPUID leaf 7.2");
	specctrl_model_create(&guest->ref, &vcpu->vm->ref, cpuid);
}

u64 vcpu_get_msr(struct kvm_vcpu *vcpu, u64 msr_index)
{
	u32 index = (u32)msr_index;
	u64 value;

	TEST_ASSERT(specctrl_get_msrs(&guest_of(vcpu)->ref.vcpu, &index, 1, &value) == 1, "KVM_GET_MSRS");
	return value;
}

void vcpu_set_msr(struct kvm_vcpu *vcpu, u64 msr_index, u64 value)
{
	struct specctrl_msr msr = { (u32)msr_index, value };

	TEST_ASSERT(specctrl_set_msrs(&guest_of(vcpu)->ref.vcpu, &msr, 1) == 1, "KVM_SET_MSRS");
}

/* ---- ioctls ------------------------------------------------------------- */

static int returned(enum specctrl_result result)
{
	switch (result) {
	case SPECCTRL_DONE:
		return 0;
	case SPECCTRL_EEXIST:
		errno = EEXIST;
		return -1;
	case SPECCTRL_EFAULT:
		errno = EFAULT;
		return -1;
	case SPECCTRL_ENOTTY:
		errno = ENOTTY;
		return -1;
	default:
		errno = EINVAL;
		return -1;
	}
}

static int get_feature_msrs(struct kvm_msrs *msrs)
{
	u32 i;

	for (i = 0; i < msrs->nmsrs; i++) {
		u64 value;

		if (specctrl_get_msr_feature(the_host(), msrs->entries[i].index, &value))
			break;
		msrs->entries[i].data = value;
	}
	return (int)i;
}

int stand_in_kvm_ioctl(int fd, unsigned long cmd, void *arg)
{
	enum specctrl_result ret;
	u64 bits;

	(void)fd;
	if (cmd == KVM_GET_MSRS)
		return get_feature_msrs(arg);
	if (cmd != KVM_GET_SUPPORTED_FORCE_SPEC_CTRL)
		return returned(SPECCTRL_EINVAL);
	ret = specctrl_get_supported(the_host(), false, arg ? &bits : NULL);
	if (!ret)
		*(u64 *)arg = bits;
	return returned(ret);
}

int stand_in_vm_ioctl(struct kvm_vm *vm, unsigned long cmd, void *arg)
{
	const struct kvm_enable_cap *cap = arg;
	u64 bits;
	u32 id;

	switch (cmd) {
	case KVM_GET_SUPPORTED_FORCE_SPEC_CTRL:
		return returned(specctrl_get_supported(vm->ref.host, true, arg ? &bits : NULL));
	case KVM_ENABLE_CAP:
		return returned(specctrl_vm_enable_cap(&vm->ref, cap->cap, cap->flags, cap->args[0],
						       cap->args[1]));
	case KVM_CREATE_VCPU:
		id = (u32)(unsigned long)arg;
		return returned(specctrl_vm_count_vcpu(&vm->ref, id, vcpu_exists(vm, id)));
	default:
		return returned(SPECCTRL_ENOTTY);
	}
}

static int access_msrs(struct specctrl_vcpu *ref, struct kvm_msrs *msrs, bool set)
{
	struct specctrl_msr pairs[16];
	u32 indices[16], i, done;
	u64 values[16] = { 0 };

	TEST_ASSERT(msrs->nmsrs <= 16, "a longer list than this stand-in takes");
	for (i = 0; i < msrs->nmsrs; i++) {
		indices[i] = pairs[i].index = msrs->entries[i].index;
		pairs[i].value = msrs->entries[i].data;
	}
	if (set)
		return (int)specctrl_set_msrs(ref, pairs, msrs->nmsrs);
	done = specctrl_get_msrs(ref, indices, msrs->nmsrs, values);
	for (i = 0; i < done; i++)
		msrs->entries[i].data = values[i];
	return (int)done;
}

int stand_in_vcpu_ioctl(struct kvm_vcpu *vcpu, unsigned long cmd, void *arg)
{
	struct specctrl_vcpu *ref = &guest_of(vcpu)->ref.vcpu;
	const struct kvm_enable_cap *cap = arg;

	switch (cmd) {
	case KVM_ENABLE_CAP:
		return returned(specctrl_vcpu_enable_cap(ref, cap->cap, cap->flags, cap->args[0],
							 cap->args[1]));
	case KVM_GET_MSRS:
	case KVM_SET_MSRS:
		return access_msrs(ref, arg, cmd == KVM_SET_MSRS);
	default:
		return returned(SPECCTRL_EINVAL);
	}
}

/* ---- The guest ---------------------------------------------------------- */

void vcpu_run(struct kvm_vcpu *vcpu)
{
	running = guest_of(vcpu);
	TEST_ASSERT(!specctrl_guest_run(&running->ref), "KVM_RUN: the VM entry fails");
	swapcontext(&running->outside, &running->inside);
	specctrl_guest_exit(&running->ref);
	TEST_ASSERT(!running->ref.host_fault, "KVM_RUN: the host's own WRMSR faults");
}

void stand_in_ucall(u64 cmd, u64 stage, u64 arg1, u64 arg2, u64 arg3, u64 arg4)
{
	struct guest *guest = running;

	guest->ucall = (struct ucall){ cmd, { 0, stage, arg1, arg2, arg3, arg4, 0 } };
	swapcontext(&guest->inside, &guest->outside);
}

u64 get_ucall(struct kvm_vcpu *vcpu, struct ucall *uc)
{
	*uc = guest_of(vcpu)->ucall;
	return uc->cmd;
}

bool this_cpu_has(struct kvm_x86_cpu_feature feature)
{
	return running->ref.vcpu.cpuid & feature_of(feature);
}

static u8 vector_of(enum specctrl_result result)
{
	TEST_ASSERT(result == SPECCTRL_DONE || result == SPECCTRL_GP,
		    "an instruction of the guest ended in %u", (unsigned int)result);
	return result == SPECCTRL_GP ? GP_VECTOR : 0;
}

u8 rdmsr_safe(u32 msr, u64 *value)
{
	return vector_of(specctrl_guest_rdmsr(&running->ref, msr, value));
}

u8 wrmsr_safe(u32 msr, u64 value)
{
	return vector_of(specctrl_guest_wrmsr(&running->ref, msr, value));
}
