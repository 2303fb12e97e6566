// SPDX-License-Identifier: (GPL-2.0 OR MIT)
/*
 * Test of KVM_CAP_FORCE_SPEC_CTRL and of the virtual MSRs.
 *
 * Each case is a short history of one VM: ioctls, and a guest's RDMSR and WRMSR,
 * each followed by an exit.  The cases are generated from the published scenarios
 * of the executable specification of virtual IA32_SPEC_CTRL, whose ids they keep;
 * only what stands outside the generated part is written by hand.
 *
 * A case runs where the host has what it needs and lacks what it must lack; else
 * it is skipped, with the reason.  What the processor holds while the guest runs
 * (the effective value) cannot be seen from here.
 */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "test_util.h"
#include "kvm_util.h"
#include "processor.h"

/* @generated: numbers */

/* What a host has, as far as a case can depend on it. */
/* @generated: features */

enum operation {
	CHECK_EXTENSION,
	GET_SUPPORTED,
	ENABLE_CAP,
	OP_CREATE_VCPU,
	GET_MSRS,
	SET_MSRS,
	GET_FEATURE_MSRS,
	INDEX_LIST,
	FEATURE_INDEX_LIST,
	OP_RDMSR,
	OP_WRMSR,
};

enum descriptor { ON_VM, ON_KVM, ON_VCPU };

struct msr_value {
	u32 index;
	u64 value;
};

/* One step, and what it must show; what is not named is 0. */
struct step {
	enum operation op;
	enum descriptor fd;
	u32 vcpu;
	u32 cap;
	u32 flags;
	u64 args[4];
	u32 hidden;			/* features that the guest's CPUID does not show */
	u32 nr_msrs;
	struct msr_value msrs[MAX_MSRS];
	bool bad_pointer;

	int err;			/* the errno, 0 for success */
	int ret;			/* otherwise what the ioctl returns */
	bool gp;			/* #GP */
	bool compare;			/* whether a value that is read matters */
	u64 value;
	u32 contains;			/* of msrs: how many must be in the list; the rest must not */
};

#define CREATE_VCPU(id, hide)							\
	{ .op = OP_CREATE_VCPU, .vcpu = id, .hidden = hide }
#define RDMSR(id, msr, want)							\
	{ .op = OP_RDMSR, .vcpu = id, .msrs = { { msr, 0 } }, .compare = true, .value = want }
#define RDMSR_ANY(id, msr)							\
	{ .op = OP_RDMSR, .vcpu = id, .msrs = { { msr, 0 } } }
#define RDMSR_GP(id, msr)							\
	{ .op = OP_RDMSR, .vcpu = id, .msrs = { { msr, 0 } }, .gp = true }
#define WRMSR(id, msr, val)							\
	{ .op = OP_WRMSR, .vcpu = id, .msrs = { { msr, val } } }
#define WRMSR_GP(id, msr, val)							\
	{ .op = OP_WRMSR, .vcpu = id, .msrs = { { msr, val } }, .gp = true }

/* A history, and the features of the host that it needs and that it must lack. */
struct test_case {
	const char *id;
	u32 needs;
	u32 lacks;
	u32 nr_steps;
	const struct step *steps;
};

#define STEPS(...) ((const struct step[]){ __VA_ARGS__ })
#define CASE(name, need, lack, ...)						\
	{									\
		.id = name,							\
		.needs = need,							\
		.lacks = lack,							\
		.nr_steps = sizeof(STEPS(__VA_ARGS__)) / sizeof(struct step),	\
		.steps = STEPS(__VA_ARGS__),					\
	}

/* @generated: cases */

/* ---- The guest ---------------------------------------------------------- */

static struct {
	bool write;
	u32 index;
	u64 value;
} request;

static void guest_code(void)
{
	for (;;) {
		u64 value = READ_ONCE(request.value);
		u8 vector;

		if (READ_ONCE(request.write))
			vector = wrmsr_safe(READ_ONCE(request.index), value);
		else
			vector = rdmsr_safe(READ_ONCE(request.index), &value);
		GUEST_SYNC_ARGS(0, vector, value, 0, 0);
	}
}

/* Let the guest execute one RDMSR or WRMSR: the vector of its fault, or 0. */
static u8 guest_access(struct kvm_vcpu *vcpu, bool write, u32 index, u64 *value)
{
	struct ucall uc;

	request.write = write;
	request.index = index;
	request.value = *value;
	sync_global_to_guest(vcpu->vm, request);

	vcpu_run(vcpu);
	switch (get_ucall(vcpu, &uc)) {
	case UCALL_SYNC:
		*value = uc.args[3];
		return uc.args[2];
	case UCALL_ABORT:
		REPORT_GUEST_ASSERT(uc);
	default:
		TEST_FAIL("Unexpected ucall %lu", (unsigned long)uc.cmd);
	}
}

/* ---- The host ----------------------------------------------------------- */

static int kvm_fd;

static struct kvm_x86_cpu_feature cpuid_feature(u32 feature)
{
	switch (feature) {
	/* @generated: cpuid */
	default:
		TEST_FAIL("Feature 0x%x is no bit of CPUID", feature);
	}
}

static bool lists_msr(const struct kvm_msr_list *list, u32 index)
{
	u32 i;

	for (i = 0; i < list->nmsrs; i++) {
		if (list->indices[i] == index)
			return true;
	}
	return false;
}

static int force_on_vcpu(struct kvm_vcpu *vcpu, u64 mask, u64 value)
{
	struct kvm_enable_cap cap = {
		.cap = KVM_CAP_FORCE_SPEC_CTRL,
		.args = { mask, value },
	};

	return __vcpu_ioctl(vcpu, KVM_ENABLE_CAP, &cap);
}

/* The form for one vCPU: it is there if it takes a pair that forces nothing. */
static bool has_vcpu_form(void)
{
	struct kvm_vm *vm = vm_create(1);
	struct kvm_vcpu *vcpu = vm_vcpu_add(vm, 0, guest_code);
	bool has = !force_on_vcpu(vcpu, 0, 0);

	kvm_vm_free(vm);
	return has;
}

static u32 host_features(u64 supported)
{
	u32 has = 0, feature;

	for (feature = 1; feature <= LAST_CPUID_FEATURE; feature <<= 1) {
		if (kvm_cpu_has(cpuid_feature(feature)))
			has |= feature;
	}
	if (has & HAS_ARCH_CAPABILITIES) {
		u64 arch_cap = kvm_get_feature_msr(MSR_IA32_ARCH_CAPABILITIES);

		if (arch_cap & ARCH_CAP_BIT_RRSBA)
			has |= HAS_RRSBA;
		if (arch_cap & ARCH_CAP_BIT_BHI_NO)
			has |= HAS_BHI_NO;
	}
	if (supported)
		has |= HAS_CONTROL;
	if (lists_msr(kvm_get_msr_index_list(), MSR_VIRTUAL_MITIGATION_CTRL))
		has |= HAS_VIRTUAL_MSRS;
	if (has_vcpu_form())
		has |= HAS_PER_VCPU;
	return has;
}

/* ---- Steps -------------------------------------------------------------- */

struct machine {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpus[MAX_VCPUS];
};

static struct kvm_vcpu *find_vcpu(struct machine *m, u32 id)
{
	u32 i;

	for (i = 0; i < MAX_VCPUS; i++) {
		if (m->vcpus[i] && m->vcpus[i]->id == id)
			return m->vcpus[i];
	}
	TEST_FAIL("No vCPU %u", id);
}

static bool wrong(const char *what, u64 want, u64 got)
{
	ksft_print_msg("%s: wanted 0x%llx, got 0x%llx\n", what, (unsigned long long)want,
		       (unsigned long long)got);
	return false;
}

/* An ioctl that returned @ret and left @error in errno. */
static bool ioctl_ok(const struct step *step, int ret, int error)
{
	if (ret >= 0)
		error = 0;
	if (error != step->err)
		return wrong("errno", step->err, error);
	if (!error && ret != step->ret)
		return wrong("return value", step->ret, ret);
	return true;
}

static bool value_ok(const struct step *step, u32 index, u64 want, u64 got)
{
	u64 bits = index == MSR_IA32_ARCH_CAPABILITIES ? ARCH_CAP_BITS : ~0ull;

	if (step->compare && ((want ^ got) & bits))
		return wrong("value", want & bits, got & bits);
	return true;
}

static bool check_extension(struct machine *m, const struct step *step)
{
	int ret = step->fd == ON_KVM ? (int)kvm_check_cap(step->cap) :
				       vm_check_cap(m->vm, step->cap);

	return ret == step->ret || wrong("return value", step->ret, ret);
}

static bool get_supported(struct machine *m, const struct step *step)
{
	u64 bits = 0, *pointer = step->bad_pointer ? NULL : &bits;
	int ret;

	if (step->fd == ON_KVM)
		ret = __kvm_ioctl(kvm_fd, KVM_GET_SUPPORTED_FORCE_SPEC_CTRL, pointer);
	else
		ret = __vm_ioctl(m->vm, KVM_GET_SUPPORTED_FORCE_SPEC_CTRL, pointer);
	return ioctl_ok(step, ret, errno) && (ret || value_ok(step, 0, step->value, bits));
}

static bool enable_cap(struct machine *m, const struct step *step)
{
	struct kvm_enable_cap cap = { .cap = step->cap, .flags = step->flags };
	int ret;

	memcpy(cap.args, step->args, sizeof(cap.args));
	if (step->fd == ON_VCPU)
		ret = __vcpu_ioctl(find_vcpu(m, step->vcpu), KVM_ENABLE_CAP, &cap);
	else
		ret = __vm_ioctl(m->vm, KVM_ENABLE_CAP, &cap);
	return ioctl_ok(step, ret, errno);
}

static bool create_vcpu(struct machine *m, const struct step *step)
{
	/* AMD's bits open the MSR too, and KVM shows them on Intel hosts; no case has them. */
	const struct kvm_x86_cpu_feature amd[] = {
		KVM_X86_CPU_FEATURE(0x80000008, 0, EBX, 14),	/* IBRS */
		KVM_X86_CPU_FEATURE(0x80000008, 0, EBX, 15),	/* STIBP */
		KVM_X86_CPU_FEATURE(0x80000008, 0, EBX, 24),	/* SSBD */
	};
	struct kvm_vcpu *vcpu;
	u32 i, feature;

	if (step->err) {
		int ret = __vm_ioctl(m->vm, KVM_CREATE_VCPU, (void *)(unsigned long)step->vcpu);

		return ioctl_ok(step, ret, errno);
	}
	vcpu = vm_vcpu_add(m->vm, step->vcpu, guest_code);
	for (feature = 1; feature <= LAST_CPUID_FEATURE; feature <<= 1) {
		/* A leaf that the host has not cannot be changed. */
		if ((step->hidden & feature) && kvm_cpu_has(cpuid_feature(feature)))
			vcpu_clear_cpuid_feature(vcpu, cpuid_feature(feature));
	}
	for (i = 0; i < ARRAY_SIZE(amd); i++) {
		if (kvm_cpu_has(amd[i]))
			vcpu_clear_cpuid_feature(vcpu, amd[i]);
	}
	for (i = 0; m->vcpus[i]; i++)
		;
	m->vcpus[i] = vcpu;
	return true;
}

/* Of MSR_IA32_ARCH_CAPABILITIES the bits that are not compared stay as they are. */
static u64 value_to_set(struct machine *m, const struct step *step, const struct msr_value *msr)
{
	struct {
		struct kvm_msrs header;
		struct kvm_msr_entry entry;
	} now = { .header.nmsrs = 1, .entry.index = msr->index };

	if (msr->index != MSR_IA32_ARCH_CAPABILITIES ||
	    __vcpu_ioctl(find_vcpu(m, step->vcpu), KVM_GET_MSRS, &now.header) != 1)
		return msr->value;
	return msr->value | (now.entry.data & ~ARCH_CAP_BITS);
}

/* KVM_GET_MSRS and KVM_SET_MSRS, on a vCPU; KVM_GET_MSRS of feature MSRs, on /dev/kvm. */
static bool access_msrs(struct machine *m, const struct step *step)
{
	struct {
		struct kvm_msrs header;
		struct kvm_msr_entry entries[MAX_MSRS];
	} list = { .header.nmsrs = step->nr_msrs };
	int ret, i;

	for (i = 0; i < (int)step->nr_msrs; i++) {
		list.entries[i].index = step->msrs[i].index;
		if (step->op == SET_MSRS)
			list.entries[i].data = value_to_set(m, step, &step->msrs[i]);
	}
	if (step->op == GET_FEATURE_MSRS)
		ret = __kvm_ioctl(kvm_fd, KVM_GET_MSRS, &list.header);
	else if (step->op == GET_MSRS)
		ret = __vcpu_ioctl(find_vcpu(m, step->vcpu), KVM_GET_MSRS, &list.header);
	else
		ret = __vcpu_ioctl(find_vcpu(m, step->vcpu), KVM_SET_MSRS, &list.header);
	if (!ioctl_ok(step, ret, errno))
		return false;
	for (i = 0; step->op != SET_MSRS && i < ret; i++) {
		if (!value_ok(step, step->msrs[i].index, step->msrs[i].value, list.entries[i].data))
			return false;
	}
	return true;
}

static bool index_list(const struct step *step)
{
	const struct kvm_msr_list *list = step->op == INDEX_LIST ?
		kvm_get_msr_index_list() : kvm_get_feature_msr_index_list();
	u32 i;

	for (i = 0; i < step->nr_msrs; i++) {
		if (lists_msr(list, step->msrs[i].index) != (i < step->contains))
			return wrong(i < step->contains ? "not in the list" : "in the list",
				     step->msrs[i].index, 0);
	}
	return true;
}

static bool instruction(struct machine *m, const struct step *step)
{
	u32 index = step->msrs[0].index;
	u64 value = step->msrs[0].value;
	u8 vector = guest_access(find_vcpu(m, step->vcpu), step->op == OP_WRMSR, index, &value);

	if (vector != (step->gp ? GP_VECTOR : 0))
		return wrong("exception", step->gp ? GP_VECTOR : 0, vector);
	return step->op == OP_WRMSR || step->gp || value_ok(step, index, step->value, value);
}

static bool perform(struct machine *m, const struct step *step)
{
	switch (step->op) {
	case CHECK_EXTENSION:
		return check_extension(m, step);
	case GET_SUPPORTED:
		return get_supported(m, step);
	case ENABLE_CAP:
		return enable_cap(m, step);
	case OP_CREATE_VCPU:
		return create_vcpu(m, step);
	case GET_MSRS:
	case SET_MSRS:
	case GET_FEATURE_MSRS:
		return access_msrs(m, step);
	case INDEX_LIST:
	case FEATURE_INDEX_LIST:
		return index_list(step);
	case OP_RDMSR:
	case OP_WRMSR:
		return instruction(m, step);
	}
	return false;
}

/* ---- Cases -------------------------------------------------------------- */

static void run_case(const struct test_case *test)
{
	struct machine m = { .vm = vm_create(MAX_VCPUS) };
	u32 i;

	for (i = 0; i < test->nr_steps; i++) {
		if (!perform(&m, &test->steps[i]))
			break;
	}
	kvm_vm_free(m.vm);
	if (i < test->nr_steps)
		ksft_test_result_fail("%s, step %u\n", test->id, i + 1);
	else
		ksft_test_result_pass("%s\n", test->id);
}

/* The first of some features. */
static const char *first_name(u32 features)
{
	u32 i;

	for (i = 0; i < ARRAY_SIZE(feature_names); i++) {
		if (features & (1u << i))
			return feature_names[i];
	}
	return "nothing";
}

int main(void)
{
	u64 supported;
	u32 i, has;

	kvm_fd = open_kvm_dev_path_or_exit();
	/*
	 * Not KVM_CHECK_EXTENSION: the number of the capability may be another's.
	 * A kernel that does not know the ioctl fails with EINVAL.
	 */
	TEST_REQUIRE(!__kvm_ioctl(kvm_fd, KVM_GET_SUPPORTED_FORCE_SPEC_CTRL, &supported));
	TEST_REQUIRE(host_cpu_is_intel);
	TEST_REQUIRE(!kvm_is_ignore_msrs());
	has = host_features(supported);

	ksft_print_header();
	ksft_set_plan(ARRAY_SIZE(cases));
	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		const struct test_case *test = &cases[i];

		if (test->needs & ~has)
			ksft_test_result_skip("%s: the host lacks %s\n", test->id,
					      first_name(test->needs & ~has));
		else if (test->lacks & has)
			ksft_test_result_skip("%s: the host has %s\n", test->id,
					      first_name(test->lacks & has));
		else
			run_case(test);
	}
	close(kvm_fd);
	ksft_finished();
}
