// SPDX-License-Identifier: (GPL-2.0 OR MIT)
/*
 * Performs scenarios on specctrl.h and the processor of specctrl_cpu.h: one line
 * of words in, one line out.
 *
 *   specctrl run vectors --target c
 *   specctrl run vectors --target cmd:./adapter --plain
 *
 * What a scenario needs and the header leaves to its user is here: several
 * vCPUs, MSR filters, L1's bitmaps, labels for saved states, a move of the VM.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <stdbool.h>

static bool init_withdraws_report;	/* an assumption that a scenario can switch */
#define SPECCTRL_INIT_WITHDRAWS_REPORT init_withdraws_report

#include "specctrl_cpu.h"

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

static void die(const char *why, const char *what)
{
	fprintf(stderr, "adapter: %s: %s\n", why, what);
	exit(2);
}

/* ---- Memory: everything of a scenario, let go of at the next begin ------ */

struct chunk {
	struct chunk *next;
};

static struct chunk *chunks;

/* Zeroed memory, also for a count of 0. */
static void *keep(size_t count, size_t size)
{
	struct chunk *chunk = calloc(1, sizeof(*chunk) + (count + 1) * size);

	if (!chunk)
		die("no memory", "keep");
	chunk->next = chunks;
	chunks = chunk;
	return chunk + 1;
}

static void forget(void)
{
	while (chunks) {
		struct chunk *next = chunks->next;

		free(chunks);
		chunks = next;
	}
}

/* ---- Words: key=value --------------------------------------------------- */

#define MAX_WORDS 32

struct word {
	char *key;
	char *value;
};

static struct word words[MAX_WORDS];
static unsigned int nr_words;

/* Take a line apart, in place. */
static void split(char *line)
{
	char *word;

	nr_words = 0;
	for (word = strtok(line, " "); word; word = strtok(NULL, " ")) {
		char *equals = strchr(word, '=');

		if (!equals || nr_words == MAX_WORDS)
			die("no key=value, or too many", word);
		*equals = '\0';
		words[nr_words].key = word;
		words[nr_words].value = equals + 1;
		nr_words++;
	}
}

/* The value of a key; NULL if it is not given. */
static char *text(const char *key)
{
	unsigned int i;

	for (i = 0; i < nr_words; i++) {
		if (!strcmp(words[i].key, key))
			return words[i].value;
	}
	return NULL;
}

static const char *truth(bool holds)
{
	return holds ? "true" : "false";
}

static bool is(const char *key, const char *value)
{
	const char *given = text(key);

	return given && !strcmp(given, value);
}

static uint64_t number_of(const char *digits)
{
	char *end;
	uint64_t number;

	if (!digits)
		die("a number is missing", words[0].value);
	number = strtoull(digits, &end, 0);
	if (end == digits || *end)
		die("not a number", digits);
	return number;
}

/* The number that a key gives, 0 if it is not given. */
static uint64_t number(const char *key)
{
	const char *given = text(key);

	return given ? number_of(given) : 0;
}

/* Cut the first item off a list; NULL at its end. */
static char *next_item(char **list, char comma)
{
	char *item = *list, *end;

	if (!item || !*item)
		return NULL;
	end = strchr(item, comma);
	if (end)
		*end++ = '\0';
	*list = end;
	return item;
}

static uint32_t count_items(const char *list)
{
	uint32_t count = list && *list;

	for (; list && *list; list++)
		count += *list == ',';
	return count;
}

/* A list of MSRs; it is kept. */
static uint32_t *msr_list(const char *key, uint32_t *count)
{
	char *list = text(key), *item;
	uint32_t *msrs = keep(count_items(list), sizeof(*msrs));

	*count = 0;
	while ((item = next_item(&list, ',')))
		msrs[(*count)++] = (uint32_t)number_of(item);
	return msrs;
}

/* A list of msr:value; it is kept. */
static struct specctrl_msr *pair_list(const char *key, uint32_t *count)
{
	char *list = text(key), *item;
	struct specctrl_msr *pairs = keep(count_items(list), sizeof(*pairs));

	*count = 0;
	while ((item = next_item(&list, ','))) {
		pairs[*count].index = (uint32_t)number_of(next_item(&item, ':'));
		pairs[*count].value = number_of(item);
		(*count)++;
	}
	return pairs;
}

/* ---- Answers ------------------------------------------------------------ */

static bool answered;

static void answer(const char *format, ...)
{
	va_list arguments;

	if (answered)
		putchar(' ');
	answered = true;
	va_start(arguments, format);
	vprintf(format, arguments);
	va_end(arguments);
}

static void answer_list(const char *key, const uint64_t *values, uint32_t count)
{
	uint32_t i;

	answer("%s=", key);
	for (i = 0; i < count; i++)
		printf("%s0x%" PRIx64, i ? "," : "", values[i]);
}

static const char *reason_name(enum specctrl_result reason)
{
	return reason == SPECCTRL_MSR_INVAL ? "INVAL" :
	       reason == SPECCTRL_MSR_UNKNOWN ? "UNKNOWN" : "FILTER";
}

/* An outcome; nothing for success.  @vcpu is NULL where none is concerned. */
static void answer_result(const struct specctrl_vcpu *vcpu, enum specctrl_result result)
{
	const struct specctrl_msr_exit *msr_exit = vcpu ? &vcpu->msr_exit : NULL;

	switch (result) {
	case SPECCTRL_DONE:
		break;
	case SPECCTRL_GP:
		answer("fault=#GP");
		break;
	case SPECCTRL_VMX_ABORT:
		answer("abort=true");
		break;
	case SPECCTRL_REFLECTED:
		answer("reflected=true");
		break;
	case SPECCTRL_BLOCKED:
		answer("blocked=true");
		break;
	case SPECCTRL_NESTED_ENTRY_FAILED:
		answer("fail.reason=MSR_LOAD_FAIL fail.entry=%" PRIu32, vcpu->failed_entry);
		break;
	case SPECCTRL_EXIT_TO_USER:
		answer("exit.kind=%s exit.reason=%s exit.msr=0x%" PRIx32,
		       msr_exit->write ? "wrmsr" : "rdmsr", reason_name(msr_exit->reason),
		       msr_exit->index);
		if (msr_exit->write)
			answer("exit.value=0x%" PRIx64, msr_exit->value);
		break;
	case SPECCTRL_EINVAL:
		answer("errno=EINVAL");
		break;
	case SPECCTRL_EEXIST:
		answer("errno=EEXIST");
		break;
	case SPECCTRL_EFAULT:
		answer("errno=EFAULT");
		break;
	case SPECCTRL_ENOTTY:
		answer("errno=ENOTTY");
		break;
	case SPECCTRL_MSR_INVAL:
	case SPECCTRL_MSR_UNKNOWN:
	case SPECCTRL_MSR_FILTER:
		die("KVM must not let this out", "answer_result");
	}
}

/* What an ioctl returns: 0, or its errno. */
static void answer_ioctl(enum specctrl_result result)
{
	if (!result)
		answer("ret=0");
	answer_result(NULL, result);
}

/* ---- MSR filters -------------------------------------------------------- */

#define MAX_RANGES	16
#define MAX_RANGE_MSRS	(0x600 * 8)

struct range {
	uint32_t base;
	uint32_t count;
	bool read;
	bool write;
	const char *allow;		/* a digit for each MSR */
};

struct filter {
	bool default_allow;
	uint32_t nr_ranges;
	struct range *ranges;
};

struct machine_vm {
	struct specctrl_vm vm;		/* first: found by it */
	const struct filter *filter;
};

/*
 * The hook model->msr_allowed: the first range that has the MSR and the direction
 * decides, else the default.  No filter reaches the x2APIC MSRs.
 *
 * rule: filter.direction
 * rule: filter.first-range
 * rule: filter.x2apic-exempt
 */
static bool filter_allows(const struct specctrl_vcpu *vcpu, uint32_t msr, bool write)
{
	const struct filter *filter = ((const struct machine_vm *)vcpu->vm)->filter;
	uint32_t i;

	if (msr >= 0x800 && msr <= 0x8ff)
		return true;
	for (i = 0; i < filter->nr_ranges; i++) {
		const struct range *range = &filter->ranges[i];

		/* in 32 bits, as KVM has it */
		if ((write ? range->write : range->read) && msr >= range->base &&
		    msr < (uint32_t)(range->base + range->count))
			return range->allow[msr - range->base] == '1';
	}
	return filter->default_allow;
}

/*
 * What KVM_X86_SET_MSR_FILTER refuses.
 *
 * rule: filter.default-deny-needs-range
 * rule: filter.limits
 */
static enum specctrl_result check_filter(const struct filter *filter)
{
	bool has_msrs = false;
	uint32_t i;

	if (filter->nr_ranges > MAX_RANGES)
		return SPECCTRL_EINVAL;
	for (i = 0; i < filter->nr_ranges; i++) {
		const struct range *range = &filter->ranges[i];

		if (!range->count)
			continue;
		has_msrs = true;
		if (range->count > MAX_RANGE_MSRS || !(range->read || range->write))
			return SPECCTRL_EINVAL;
	}
	return filter->default_allow || has_msrs ? SPECCTRL_DONE : SPECCTRL_EINVAL;
}

static struct filter *read_filter(void)
{
	struct filter *filter = keep(1, sizeof(*filter));
	char *list = text("ranges"), *item;

	filter->default_allow = is("default", "allow");
	filter->ranges = keep(count_items(list), sizeof(*filter->ranges));
	while ((item = next_item(&list, ','))) {
		struct range *range = &filter->ranges[filter->nr_ranges++];
		const char *access;
		char *allow;

		range->base = (uint32_t)number_of(next_item(&item, ':'));
		range->count = (uint32_t)number_of(next_item(&item, ':'));
		access = next_item(&item, ':');
		range->read = access && strchr(access, 'r');
		range->write = access && strchr(access, 'w');
		allow = keep(range->count, 1);
		if (item && strlen(item) == range->count)
			memcpy(allow, item, range->count);
		else if (range->count)
			die("a range needs a digit for each MSR", "ranges");
		range->allow = allow;
	}
	return filter;
}

/* ---- L1's bitmap -------------------------------------------------------- */

struct intercept {
	uint32_t msr;
	bool read;
	bool write;
};

struct bitmap {
	uint32_t count;
	struct intercept *intercepts;
};

/* The hook model->l1_bitmap. */
static bool bitmap_intercepts(const struct specctrl_vcpu *vcpu, uint32_t msr, bool write)
{
	const struct bitmap *bitmap = vcpu->nested.l1.bitmap;
	uint32_t i;

	for (i = 0; i < bitmap->count; i++) {
		const struct intercept *entry = &bitmap->intercepts[i];

		if (entry->msr == msr && (write ? entry->write : entry->read))
			return true;
	}
	return false;
}

static void read_l1(struct specctrl_l1 *l1)
{
	struct bitmap *bitmap = keep(1, sizeof(*bitmap));
	char *list = text("intercept"), *item;

	l1->use_msr_bitmap = !is("intercept", "all");
	l1->bitmap = bitmap;
	bitmap->intercepts = keep(count_items(list), sizeof(*bitmap->intercepts));
	while (l1->use_msr_bitmap && (item = next_item(&list, ','))) {
		struct intercept *entry = &bitmap->intercepts[bitmap->count++];

		entry->msr = (uint32_t)number_of(next_item(&item, ':'));
		entry->read = item && strchr(item, 'r');
		entry->write = item && strchr(item, 'w');
	}
	l1->exit_store = msr_list("exit_msr_store", &l1->nr_exit_store);
	l1->exit_load = pair_list("exit_msr_load", &l1->nr_exit_load);
}

/* ---- The machine -------------------------------------------------------- */

struct slot {				/* a vCPU, in the order of creation */
	struct slot *next;
	uint32_t id;
	struct specctrl_model model;
};

struct saved {				/* a nested state with its label */
	struct saved *next;
	char *label;
	struct specctrl_nested_state state;
};

static struct {
	struct machine_vm *vm;
	struct slot *slots;
	struct saved *saved;
	bool entry_loads_shadow;
} machine;

static const struct specctrl_host *the_host(void)
{
	return machine.vm->vm.host;
}

static const struct {
	const char *name;
	uint32_t feature;
} features[] = {
	{ "SPEC_CTRL", SPECCTRL_HAS_SPEC_CTRL },
	{ "STIBP", SPECCTRL_HAS_STIBP },
	{ "SSBD", SPECCTRL_HAS_SSBD },
	{ "RRSBA_CTRL", SPECCTRL_HAS_RRSBA_CTRL },
	{ "BHI_CTRL", SPECCTRL_HAS_BHI_CTRL },
	{ "IPRED_CTRL", SPECCTRL_HAS_IPRED_CTRL },
	{ "PSFD", SPECCTRL_HAS_PSFD },
	{ "DDPD_U", SPECCTRL_HAS_DDPD_U },
	{ "ARCH_CAPABILITIES", SPECCTRL_HAS_ARCH_CAPABILITIES },
	{ "RRSBA", SPECCTRL_HAS_RRSBA },
	{ "BHI_NO", SPECCTRL_HAS_BHI_NO },
	{ "AMD_IBRS", SPECCTRL_HAS_AMD_IBRS },
	{ "AMD_STIBP", SPECCTRL_HAS_AMD_STIBP },
	{ "AMD_SSBD", SPECCTRL_HAS_AMD_SSBD },
	{ "TSX", 0 },			/* of interest to guest kernels only */
};

#define NOT_IN_CPUID (SPECCTRL_HAS_RRSBA | SPECCTRL_HAS_BHI_NO)

static uint32_t read_features(const char *key)
{
	char *list = text(key), *item;
	uint32_t bits = 0;

	while ((item = next_item(&list, ','))) {
		size_t i;

		for (i = 0; i < ARRAY_SIZE(features); i++) {
			if (!strcmp(features[i].name, item))
				break;
		}
		if (i == ARRAY_SIZE(features))
			die("no such feature", item);
		bits |= features[i].feature;
	}
	return bits;
}

/* A host; @role is "host" or "to". */
static const struct specctrl_host *read_host(const char *role)
{
	struct specctrl_host *host = keep(1, sizeof(*host));
	char key[32];

#define KEY(name) (snprintf(key, sizeof(key), "%s." name, role), key)
	host->features = read_features(KEY("features"));
	host->has_control = is(KEY("spec_ctrl_shadow"), "true");
	host->spec_ctrl = number(KEY("host_spec_ctrl"));
	host->nested = is(KEY("nested"), "true");
	host->legacy_ibrs = is(KEY("legacy_ibrs"), "true");
#undef KEY
	return host;
}

static struct machine_vm *make_vm(const struct specctrl_host *host)
{
	struct machine_vm *vm = keep(1, sizeof(*vm));
	struct filter *allow_all = keep(1, sizeof(*allow_all));

	allow_all->default_allow = true;
	vm->vm.host = host;
	vm->filter = allow_all;
	return vm;
}

/* A new vCPU, behind all others of a list. */
static void make_vcpu(struct slot **slots, struct machine_vm *vm, uint32_t id, uint32_t cpuid)
{
	struct slot *slot = keep(1, sizeof(*slot));

	slot->id = id;
	specctrl_model_create(&slot->model, &vm->vm, cpuid);
	slot->model.cpu.entry_loads_shadow = machine.entry_loads_shadow;
	slot->model.msr_allowed = filter_allows;
	slot->model.l1_bitmap = bitmap_intercepts;
	while (*slots)
		slots = &(*slots)->next;
	*slots = slot;
}

static struct specctrl_model *find_vcpu(uint32_t id)
{
	struct slot *slot;

	for (slot = machine.slots; slot; slot = slot->next) {
		if (slot->id == id)
			return &slot->model;
	}
	return NULL;
}

/* ---- Operations: what userspace does ------------------------------------ */

/* Each returns NULL, or why the step is misuse. */
typedef const char *operation(struct specctrl_model *model);

static const char *begin(struct specctrl_model *model)
{
	(void)model;
	forget();
	memset(&machine, 0, sizeof(machine));
	init_withdraws_report = !is("assume.init-withdraws-report", "false");
	machine.entry_loads_shadow = is("assume.vm-entry-loads-shadow", "true");
	machine.vm = make_vm(read_host("host"));
	answer("profiles=spec observes=ret,value,values,stored,contains,lacks,refused,errno,fault,"
	       "host_fault,exit,fail,abort,reflected,blocked,vmm_aborts,host_spec_ctrl,effective,"
	       "guest_view,mask,shadow,intercepted,reads_intercepted,saved,level,smm,in_guest,"
	       "shut_down,nested_flags,vm_error,entry_failed,guest_field,misuse");
	return NULL;
}

static const char *check_extension(struct specctrl_model *model)
{
	(void)model;
	answer("ret=%d", specctrl_check_extension(the_host(), (uint32_t)number("cap")));
	return NULL;
}

static const char *get_supported_force_spec_ctrl(struct specctrl_model *model)
{
	enum specctrl_result result;
	uint64_t bits = 0;

	(void)model;
	result = specctrl_get_supported(the_host(), is("fd", "vm"),
					is("bad_pointer", "true") ? NULL : &bits);
	answer_ioctl(result);
	if (!result)
		answer("value=0x%" PRIx64, bits);
	return NULL;
}

static const char *enable_cap(struct specctrl_model *model)
{
	uint32_t cap = (uint32_t)number("cap"), flags = (uint32_t)number("flags");
	struct specctrl_vm *vm = &machine.vm->vm;
	char *list = text("args"), *item;
	uint64_t args[4] = { 0 };
	size_t i = 0;

	while (i < ARRAY_SIZE(args) && (item = next_item(&list, ',')))
		args[i++] = number_of(item);
	if (is("fd", "vm")) {
		answer_ioctl(specctrl_vm_enable_cap(vm, cap, flags, args[0], args[1]));
		return NULL;
	}
	if (!model)
		return "there is no such vCPU";
	specctrl_guest_exit(model);
	answer_ioctl(specctrl_vcpu_enable_cap(&model->vcpu, cap, flags, args[0], args[1]));
	return NULL;
}

static const char *create_vcpu(struct specctrl_model *model)
{
	uint32_t cpuid = the_host()->features & ~NOT_IN_CPUID, id = (uint32_t)number("vcpu");
	enum specctrl_result result;

	if (text("features"))
		cpuid = read_features("features");
	result = specctrl_vm_count_vcpu(&machine.vm->vm, id, model);
	if (!result)
		make_vcpu(&machine.slots, machine.vm, id, cpuid);
	answer_ioctl(result);
	return NULL;
}

static const char *get_msrs(struct specctrl_model *model)
{
	struct specctrl_vcpu *vcpu = &model->vcpu;
	uint32_t count, done;
	uint32_t *msrs = msr_list("msrs", &count);
	uint64_t *values = keep(count, sizeof(*values));

	done = specctrl_get_msrs(vcpu, msrs, count, values);
	answer("ret=%" PRIu32, done);
	answer_list("values", values, done);
	return NULL;
}

static const char *set_msrs(struct specctrl_model *model)
{
	struct specctrl_vcpu *vcpu = &model->vcpu;
	uint32_t count;
	struct specctrl_msr *msrs = pair_list("msrs", &count);

	answer("ret=%" PRIu32, specctrl_set_msrs(vcpu, msrs, count));
	return NULL;
}

static const char *get_feature_msrs(struct specctrl_model *model)
{
	uint32_t count, done;
	uint32_t *msrs = msr_list("msrs", &count);
	uint64_t *values = keep(count, sizeof(*values));

	(void)model;
	for (done = 0; done < count; done++) {
		if (specctrl_get_msr_feature(the_host(), msrs[done], &values[done]))
			break;
	}
	answer("ret=%" PRIu32, done);
	answer_list("values", values, done);
	return NULL;
}

static const uint32_t known[] = {
	MSR_IA32_SPEC_CTRL, MSR_IA32_ARCH_CAPABILITIES, MSR_VIRTUAL_ENUMERATION,
	MSR_VIRTUAL_MITIGATION_ENUM, MSR_VIRTUAL_MITIGATION_CTRL,
};

/* Which of the known MSRs are in a list, and which are not. */
static void answer_index_list(const uint32_t *msrs, uint32_t count)
{
	uint64_t contained[ARRAY_SIZE(known)], lacking[ARRAY_SIZE(known)];
	uint32_t i, k, nr_lacking = 0;

	for (i = 0; i < count; i++)
		contained[i] = msrs[i];
	for (k = 0; k < ARRAY_SIZE(known); k++) {
		for (i = 0; i < count && msrs[i] != known[k]; i++)
			;
		if (i == count)
			lacking[nr_lacking++] = known[k];
	}
	answer_list("contains", contained, count);
	answer_list("lacks", lacking, nr_lacking);
}

static const char *get_msr_index_list(struct specctrl_model *model)
{
	uint32_t msrs[ARRAY_SIZE(known)];

	(void)model;
	answer_index_list(msrs, specctrl_msr_index_list(the_host(), msrs));
	return NULL;
}

static const char *get_msr_feature_index_list(struct specctrl_model *model)
{
	uint32_t msrs[ARRAY_SIZE(known)], count = 0;
	size_t i;

	(void)model;
	for (i = 0; i < ARRAY_SIZE(known); i++) {
		if (specctrl_is_feature_msr(known[i]))
			msrs[count++] = known[i];
	}
	answer_index_list(msrs, count);
	return NULL;
}

static const char *set_msr_filter(struct specctrl_model *model)
{
	const struct filter *filter = read_filter();
	enum specctrl_result result = check_filter(filter);
	struct slot *slot;

	(void)model;
	if (!result) {
		machine.vm->filter = filter;
		for (slot = machine.slots; slot; slot = slot->next) {
			specctrl_guest_exit(&slot->model);
			specctrl_update_interception(&slot->model.vcpu);
		}
	}
	answer_ioctl(result);
	return NULL;
}

static const char *reply_msr_exit(struct specctrl_model *model)
{
	struct specctrl_vcpu *vcpu = &model->vcpu;
	bool error = is("error", "true"), write = vcpu->msr_exit.write;
	enum specctrl_result result;

	if (!vcpu->msr_exit.pending)
		return "no exit is pending";
	if (text("value") && write)
		return "a pending WRMSR takes no value";
	if (!text("value") && !write && !error)
		return "a pending RDMSR needs a value or an error";
	result = specctrl_guest_resume(model, specctrl_complete_msr_exit(vcpu, error));
	answer_result(vcpu, result);
	if (!result && !write)
		answer("value=0x%" PRIx64, number("value"));
	return NULL;
}

static const char *reset_vcpu(struct specctrl_model *model)
{
	struct specctrl_vcpu *vcpu = &model->vcpu;
	if (vcpu->msr_exit.pending)
		return "an MSR exit is pending; reply first";
	answer_ioctl(specctrl_platform_reset(vcpu));
	return NULL;
}

static struct saved *find_saved(const char *label)
{
	struct saved *saved;

	for (saved = machine.saved; saved; saved = saved->next) {
		if (label && !strcmp(saved->label, label))
			return saved;
	}
	return NULL;
}

static void answer_nested_flags(const struct specctrl_nested_state *state)
{
	const struct {
		const char *name;
		bool holds;
	} flags[] = {
		{ "GUEST_MODE", state->level2 },
		{ "RUN_PENDING", state->nested.run_pending },
		{ "SMM_GUEST_MODE", state->nested.smm_left_level2 },
		{ "SMM_VMXON", state->nested.smm_left_vmx },
	};
	const char *comma = "";
	size_t i;

	answer("nested_flags=");
	for (i = 0; i < ARRAY_SIZE(flags); i++) {
		if (!flags[i].holds)
			continue;
		printf("%s%s", comma, flags[i].name);
		comma = ",";
	}
}

static const char *get_nested_state(struct specctrl_model *model)
{
	struct specctrl_vcpu *vcpu = &model->vcpu;
	const char *label = text("state");
	struct saved *saved = find_saved(label);

	if (!label)
		return "a label is missing";
	if (!saved) {
		saved = keep(1, sizeof(*saved));
		saved->label = keep(strlen(label), 1);
		strcpy(saved->label, label);
		saved->next = machine.saved;
		machine.saved = saved;
	}
	specctrl_get_nested_state(vcpu, &saved->state);
	answer("ret=0");
	answer_nested_flags(&saved->state);
	return NULL;
}

static const char *set_nested_state(struct specctrl_model *model)
{
	struct specctrl_vcpu *vcpu = &model->vcpu;
	const struct saved *saved = find_saved(text("state"));
	struct specctrl_nested_state state;

	if (!saved)
		return "no nested state was saved under this label";
	state = saved->state;
	if (text("run_pending"))
		state.nested.run_pending = is("run_pending", "true");
	answer_ioctl(specctrl_set_nested_state(vcpu, &state));
	return NULL;
}

/* ---- A move of the VM --------------------------------------------------- */

/*
 * What VMMs carry, and what they do with an MSR that KVM refuses; of which version
 * each line is, and where it was read, says the emulator's table of the same names.
 */
static const struct vmm {
	const char *name;
	uint32_t feature_msrs[3], nr_feature_msrs;
	uint32_t state_msrs[2], nr_state_msrs;
	enum { STOP, ABORT, SKIP } on_refusal;
	bool compares_cpuid;
	bool saves_nested;
	bool drops_unlisted;		/* what the destination's KVM does not list */
} vmms[] = {
	{ "as-specified", { MSR_IA32_ARCH_CAPABILITIES, MSR_VIRTUAL_ENUMERATION,
			    MSR_VIRTUAL_MITIGATION_ENUM }, 3,
	  { MSR_IA32_SPEC_CTRL, MSR_VIRTUAL_MITIGATION_CTRL }, 2, STOP, true, true, false },
	{ "qemu", { MSR_IA32_ARCH_CAPABILITIES }, 1, { MSR_IA32_SPEC_CTRL }, 1,
	  ABORT, false, true, true },
	{ "firecracker", { MSR_IA32_ARCH_CAPABILITIES }, 1, { MSR_IA32_SPEC_CTRL }, 1,
	  STOP, false, false, false },
	{ "cloud-hypervisor", { MSR_IA32_ARCH_CAPABILITIES, MSR_VIRTUAL_ENUMERATION,
				MSR_VIRTUAL_MITIGATION_ENUM }, 3,
	  { MSR_IA32_SPEC_CTRL, MSR_VIRTUAL_MITIGATION_CTRL }, 2, SKIP, true, true, false },
};

struct plan {
	const struct vmm *vmm;
	bool nested_first;
	bool keep_force;
	bool other_cpuid;		/* the destination shows this CPUID */
	uint32_t cpuid;
	const uint32_t *msrs;
	uint32_t nr_msrs;
};

/*
 * KVM_SET_MSRS at the destination of what KVM_GET_MSRS gave; false, and the MSR
 * is said, if one of them stops and the VMM does not go on without it.
 *
 * rule: migration.refused-keeps-source
 * rule: migration.restorable
 */
static bool copy_msrs(struct specctrl_vcpu *from, struct specctrl_vcpu *to, const uint32_t *msrs,
		      uint32_t count, const struct vmm *vmm)
{
	struct specctrl_msr *entries = keep(count, sizeof(*entries));
	uint64_t *values = keep(count, sizeof(*values));
	uint32_t i, done, read = specctrl_get_msrs(from, msrs, count, values);

	for (i = 0; i < read; i++) {
		entries[i].index = msrs[i];
		entries[i].value = values[i];
	}
	done = specctrl_set_msrs(to, entries, read);
	if (vmm->on_refusal == SKIP) {
		while (done < read)
			done += 1 + specctrl_set_msrs(to, entries + done + 1, read - done - 1);
		return true;
	}
	if (done < count)
		answer("refused=0x%" PRIx32, msrs[done]);
	if (done < count && vmm->on_refusal == ABORT)
		answer("vmm_aborts=true");
	return done == count;
}

/*
 * Give a vCPU at the destination what its source had; false if an ioctl fails.
 *
 * rule: migration.force-again
 * rule: migration.order
 */
static bool restore_vcpu(struct specctrl_vcpu *from, struct specctrl_vcpu *to,
			 const struct plan *plan)
{
	const struct vmm *vmm = plan->vmm;
	enum specctrl_result result = SPECCTRL_DONE;
	struct specctrl_nested_state state;

	if (plan->keep_force &&
	    (from->user_mask != to->user_mask || from->user_value != to->user_value))
		result = specctrl_vcpu_enable_cap(to, KVM_CAP_FORCE_SPEC_CTRL, 0, from->user_mask,
						  from->user_value);
	answer_result(NULL, result);
	if (result || !copy_msrs(from, to, vmm->feature_msrs, vmm->nr_feature_msrs, vmm))
		return false;
	if (!plan->nested_first && !copy_msrs(from, to, plan->msrs, plan->nr_msrs, vmm))
		return false;
	if (vmm->saves_nested) {
		specctrl_get_nested_state(from, &state);
		result = specctrl_set_nested_state(to, &state);
		answer_result(NULL, result);
	}
	if (result)
		return false;
	return !plan->nested_first || copy_msrs(from, to, plan->msrs, plan->nr_msrs, vmm);
}

/* The MSRs that a VMM restores as state: those that KVM lists. */
static void state_msrs(struct plan *plan, const struct specctrl_host *to)
{
	uint32_t *msrs = keep(ARRAY_SIZE(plan->vmm->state_msrs), sizeof(*msrs)), i;

	for (i = 0; i < plan->vmm->nr_state_msrs; i++) {
		uint32_t msr = plan->vmm->state_msrs[i];

		if (msr != MSR_IA32_SPEC_CTRL ||
		    (specctrl_host_has_msr(the_host()) &&
		     (specctrl_host_has_msr(to) || !plan->vmm->drops_unlisted)))
			msrs[plan->nr_msrs++] = msr;
	}
	plan->msrs = msrs;
}

static void read_plan(struct plan *plan, const struct specctrl_host *to)
{
	size_t i;

	memset(plan, 0, sizeof(*plan));
	plan->vmm = &vmms[0];
	for (i = 0; i < ARRAY_SIZE(vmms); i++) {
		if (is("vmm", vmms[i].name))
			plan->vmm = &vmms[i];
	}
	if (text("vmm") && !is("vmm", plan->vmm->name))
		die("no such VMM", text("vmm"));
	plan->nested_first = is("order", "nested-first");
	plan->keep_force = is("force", "keep");
	plan->other_cpuid = text("features") != NULL;
	plan->cpuid = read_features("features");
	if (text("msrs"))
		plan->msrs = msr_list("msrs", &plan->nr_msrs);
	else
		state_msrs(plan, to);
}

/*
 * The whole VM moves; if a step at the destination fails, the source goes on.
 *
 * rule: contract.move.identity
 * rule: migration.force-again
 * rule: migration.order
 * rule: migration.pending-exit
 * rule: migration.refused-keeps-source
 */
static const char *migrate(struct specctrl_model *model)
{
	struct machine_vm *from = machine.vm, *vm;
	struct slot *slots = NULL, *slot, *new_slot;
	enum specctrl_result result = SPECCTRL_DONE;
	struct plan plan;

	(void)model;
	for (slot = machine.slots; slot; slot = slot->next) {
		if (slot->model.vcpu.msr_exit.pending || slot->model.vcpu.shut_down)
			return "a vCPU has an MSR exit pending, or has shut down";
		specctrl_guest_exit(&slot->model);
	}
	vm = make_vm(read_host("to"));
	read_plan(&plan, vm->vm.host);
	for (slot = machine.slots; slot; slot = slot->next) {
		if (plan.other_cpuid && plan.vmm->compares_cpuid &&
		    plan.cpuid != slot->model.vcpu.cpuid) {
			answer("refused=cpuid");
			return NULL;
		}
	}
	if (plan.keep_force && (from->vm.user_mask || from->vm.user_value))
		result = specctrl_vm_enable_cap(&vm->vm, KVM_CAP_FORCE_SPEC_CTRL, 0,
						from->vm.user_mask, from->vm.user_value);
	vm->vm.exit_reasons = from->vm.exit_reasons;
	vm->filter = from->filter;
	for (slot = machine.slots; slot && !result; slot = slot->next) {
		result = specctrl_vm_count_vcpu(&vm->vm, slot->id, false);
		make_vcpu(&slots, vm, slot->id,
			  plan.other_cpuid ? plan.cpuid : slot->model.vcpu.cpuid);
	}
	answer_result(NULL, result);
	if (result)
		return NULL;
	new_slot = slots;
	for (slot = machine.slots; slot; slot = slot->next) {
		if (!restore_vcpu(&slot->model.vcpu, &new_slot->model.vcpu, &plan))
			return NULL;
		new_slot = new_slot->next;
	}
	machine.vm = vm;
	machine.slots = slots;
	return NULL;
}

/* ---- Operations: what the guest does ------------------------------------ */

static const char *rdmsr(struct specctrl_model *model)
{
	struct specctrl_vcpu *vcpu = &model->vcpu;
	uint64_t value = 0;
	enum specctrl_result result = specctrl_guest_rdmsr(model, (uint32_t)number("msr"), &value);

	answer_result(vcpu, result);
	if (!result)
		answer("value=0x%" PRIx64, value);
	return NULL;
}

static const char *wrmsr(struct specctrl_model *model)
{
	struct specctrl_vcpu *vcpu = &model->vcpu;
	answer_result(vcpu, specctrl_guest_wrmsr(model, (uint32_t)number("msr"), number("value")));
	return NULL;
}

static const char *nested_enter(struct specctrl_model *model)
{
	struct specctrl_vcpu *vcpu = &model->vcpu;
	struct specctrl_msr *load;
	struct specctrl_l1 l1;
	uint32_t nr_load;

	if (!the_host()->nested)
		return "this host offers no VMX to guests";
	if (vcpu->level2)
		return "L2 runs already";
	if (vcpu->nested.smm)
		return "SMM cannot enter L2";
	read_l1(&l1);
	load = pair_list("msr_load", &nr_load);
	answer_result(vcpu, specctrl_guest_vmlaunch(model, &l1, load, nr_load));
	return NULL;
}

static const char *nested_exit(struct specctrl_model *model)
{
	struct specctrl_vcpu *vcpu = &model->vcpu;
	enum specctrl_result result;
	struct specctrl_msr *load;
	uint32_t nr_store, nr_load;
	uint64_t *stored;
	uint32_t *store;

	if (!vcpu->level2)
		return "L2 does not run";
	store = msr_list("msr_store", &nr_store);
	load = pair_list("msr_load", &nr_load);
	stored = keep(nr_store, sizeof(*stored));
	result = specctrl_guest_vmcall(model, store, nr_store, stored, load, nr_load);
	answer_result(vcpu, result);
	if (!result)
		answer_list("stored", stored, nr_store);
	return NULL;
}

/* What an event of the vCPU ends in; L1 runs on if it gets a VM exit. */
static void answer_event(struct specctrl_model *model, enum specctrl_result result)
{
	answer_result(&model->vcpu, result == SPECCTRL_REFLECTED ?
		      specctrl_guest_resume(model, result) : result);
}

static const char *init(struct specctrl_model *model)
{
	specctrl_guest_exit(model);
	answer_event(model, specctrl_init(&model->vcpu));
	return NULL;
}

static const char *vmxoff(struct specctrl_model *model)
{
	struct specctrl_vcpu *vcpu = &model->vcpu;
	if (vcpu->level2)
		return "VMXOFF is L1's; L2 runs";
	if (vcpu->nested.smm || !vcpu->nested.vmx_operation)
		return "L1 is not in VMX operation";
	specctrl_guest_exit(model);
	answer_event(model, specctrl_vmxoff(vcpu));
	return NULL;
}

static const char *smi(struct specctrl_model *model)
{
	struct specctrl_vcpu *vcpu = &model->vcpu;
	if (vcpu->nested.smm)
		return "SMM blocks a second SMI";
	specctrl_guest_exit(model);
	specctrl_smi(vcpu);
	return NULL;
}

static const char *rsm(struct specctrl_model *model)
{
	struct specctrl_vcpu *vcpu = &model->vcpu;
	if (!vcpu->nested.smm)
		return "RSM outside SMM";
	specctrl_guest_exit(model);
	answer_event(model, specctrl_rsm(vcpu));
	return NULL;
}

static const char *boot(struct specctrl_model *model)
{
	(void)model;
	answer("unsupported=a guest kernel stands above what this header describes");
	return NULL;
}

/* ---- Operations: the host, and what can be looked at --------------------- */

static const char *host_exit(struct specctrl_model *model)
{
	struct specctrl_vcpu *vcpu = &model->vcpu;
	enum specctrl_result result;

	if (text("nmi_leaves") && !specctrl_accepts(vcpu, number("nmi_leaves")))
		return "this host's processor refuses what the NMI leaves";
	result = specctrl_guest_run(model);
	answer_result(vcpu, result);
	if (result)
		return NULL;
	if (text("nmi_leaves"))
		specctrl_guest_exit_nmi(model, number("nmi_leaves"));
	else
		specctrl_guest_exit(model);
	answer("host_spec_ctrl=0x%" PRIx64, model->cpu.spec_ctrl);
	return NULL;
}

/* The host's register changes, and the hypervisor is not told. */
static const char *host_write(struct specctrl_model *model)
{
	if (!specctrl_accepts(&model->vcpu, number("value")))
		return "this host's processor refuses the value";
	specctrl_guest_exit(model);
	model->cpu.spec_ctrl = number("value");
	return NULL;
}

static const char *observe(struct specctrl_model *model)
{
	const struct specctrl_vcpu *vcpu = &model->vcpu;
	const struct specctrl_vmcs *vmcs = specctrl_loaded_vmcs(model);

	answer("effective=0x%" PRIx64 " guest_view=0x%" PRIx64, specctrl_effective(model),
	       specctrl_view(model));
	if (model->cpu.has_control)
		answer("mask=0x%" PRIx64 " shadow=0x%" PRIx64, vmcs->mask, vmcs->shadow);
	else
		answer("mask=null shadow=null");
	answer("intercepted=%s reads_intercepted=%s saved=0x%" PRIx64,
	       truth(specctrl_access_exits(model, true)),
	       truth(specctrl_access_exits(model, false)), vcpu->saved);
	answer("level=%d smm=%s in_guest=%s shut_down=%s", vcpu->level2 ? 2 : 1,
	       truth(vcpu->nested.smm), truth(model->cpu.non_root), truth(vcpu->shut_down));
	return NULL;
}

/* What the VMCS of a bare stay has; a field is written only if its value is given. */
static enum specctrl_event read_vmcs(const struct specctrl_cpu *cpu, struct specctrl_vmcs *vmcs)
{
	enum specctrl_event event = SPECCTRL_CPU_DONE;

	memset(vmcs, 0, sizeof(*vmcs));
	vmcs->use_msr_bitmap = true;
	vmcs->virtualize = is("virtualize", "true");
	vmcs->load_on_entry = is("load_on_entry", "true");
	vmcs->load_on_exit = is("load_on_exit", "true");
	vmcs->entry_load = (struct specctrl_area){ text("entry_load"), number("entry_load") };
	vmcs->exit_store.present = is("exit_store", "true");
	vmcs->exit_load = (struct specctrl_area){ text("exit_load"), number("exit_load") };
	if (text("mask"))
		event = specctrl_vmwrite_mask(cpu, vmcs, number("mask"));
	if (!event && text("shadow"))
		event = specctrl_vmwrite_shadow(cpu, vmcs, number("shadow"));
	if (!event && text("guest_field"))
		event = specctrl_vmwrite_guest(cpu, vmcs, number("guest_field"));
	if (!event && text("host_field"))
		event = specctrl_vmwrite_host(cpu, vmcs, number("host_field"));
	return event;
}

/* A stay in a guest without the hypervisor: the processor, and a VMCS that the words give. */
static const char *bare_stay(struct specctrl_model *model)
{
	static const unsigned int vm_errors[] = {
		[SPECCTRL_CPU_VMFAIL_CONTROLS] = 7,
		[SPECCTRL_CPU_VMFAIL_HOST_FIELD] = 8,
		[SPECCTRL_CPU_VMFAIL_FIELD] = 12,
	};
	enum specctrl_event event, fault = SPECCTRL_CPU_DONE;
	struct specctrl_cpu cpu = {
		.writable = specctrl_writable_bits(the_host()->features),
		.has_control = the_host()->has_control,
		.spec_ctrl = the_host()->spec_ctrl,
		.entry_loads_shadow = machine.entry_loads_shadow,
	};
	bool entered, reads = is("read", "true");
	uint64_t value = 0, effective = 0;
	char *offers = text("offers"), *at;
	struct specctrl_vmcs vmcs;

	(void)model;
	while ((at = next_item(&offers, ','))) {
		cpu.has_entry_load |= !strcmp(at, "entry");
		cpu.has_exit_load |= !strcmp(at, "exit");
	}
	event = read_vmcs(&cpu, &vmcs);
	if (!event)
		event = specctrl_cpu_vm_entry(&cpu, &vmcs);
	entered = !event;
	if (entered) {
		if (text("write"))
			fault = specctrl_cpu_guest_wrmsr(&cpu, &vmcs, number("write"));
		if (!fault && reads)
			fault = specctrl_cpu_guest_rdmsr(&cpu, &vmcs, &value);
		effective = cpu.spec_ctrl;
		event = specctrl_cpu_vm_exit(&cpu, &vmcs);
	}
	if (event == SPECCTRL_CPU_UNDEFINED)
		return "the SDM leaves this value of IA32_SPEC_CTRL undefined";
	if (event == SPECCTRL_CPU_VMX_ABORT || event == SPECCTRL_CPU_GP) {
		answer(event == SPECCTRL_CPU_GP ? "fault=#GP" : "abort=true");
		return NULL;
	}
	if (event == SPECCTRL_CPU_ENTRY_FAILED)
		answer("entry_failed=true");
	else if (event)
		answer("vm_error=%u", vm_errors[event]);
	if (fault)
		answer("fault=#GP");
	else if (entered && reads)
		answer("value=0x%" PRIx64, value);
	if (entered)
		answer("effective=0x%" PRIx64, effective);
	answer("host_spec_ctrl=0x%" PRIx64, cpu.spec_ctrl);
	if (cpu.has_control)
		answer("shadow=0x%" PRIx64, vmcs.shadow);
	else
		answer("shadow=null");
	if (cpu.has_entry_load)
		answer("guest_field=0x%" PRIx64, vmcs.guest_spec_ctrl);
	else
		answer("guest_field=null");
	if (entered && vmcs.exit_store.present)
		answer("stored=0x%" PRIx64, vmcs.exit_store.value);
	return NULL;
}

/* Whether the host did what its processor refuses, on any vCPU; it must not. */
static void answer_host_fault(void)
{
	struct slot *slot;
	bool fault = false;

	for (slot = machine.slots; slot; slot = slot->next) {
		fault |= slot->model.host_fault;
		slot->model.host_fault = false;
	}
	if (fault)
		answer("host_fault=#GP");
}

/* ---- Lines -------------------------------------------------------------- */

enum needs {
	NOTHING,
	A_VCPU,				/* that exists */
	STOPPED,			/* and leaves its guest first: an ioctl */
	RUNNING,			/* and can run guest code now */
};

static const struct {
	const char *name;
	enum needs needs;
	operation *perform;
} operations[] = {
	{ "begin", NOTHING, begin },
	{ "check_extension", NOTHING, check_extension },
	{ "get_supported_force_spec_ctrl", NOTHING, get_supported_force_spec_ctrl },
	{ "enable_cap", NOTHING, enable_cap },
	{ "create_vcpu", NOTHING, create_vcpu },
	{ "get_msrs", STOPPED, get_msrs },
	{ "set_msrs", STOPPED, set_msrs },
	{ "get_feature_msrs", NOTHING, get_feature_msrs },
	{ "get_msr_index_list", NOTHING, get_msr_index_list },
	{ "get_msr_feature_index_list", NOTHING, get_msr_feature_index_list },
	{ "set_msr_filter", NOTHING, set_msr_filter },
	{ "reply_msr_exit", A_VCPU, reply_msr_exit },
	{ "reset_vcpu", STOPPED, reset_vcpu },
	{ "get_nested_state", STOPPED, get_nested_state },
	{ "set_nested_state", STOPPED, set_nested_state },
	{ "migrate", NOTHING, migrate },
	{ "rdmsr", RUNNING, rdmsr },
	{ "wrmsr", RUNNING, wrmsr },
	{ "nested_enter", RUNNING, nested_enter },
	{ "nested_exit", RUNNING, nested_exit },
	{ "init", RUNNING, init },
	{ "vmxoff", RUNNING, vmxoff },
	{ "smi", RUNNING, smi },
	{ "rsm", RUNNING, rsm },
	{ "boot", NOTHING, boot },
	{ "exit", RUNNING, host_exit },
	{ "host_write", RUNNING, host_write },
	{ "observe", A_VCPU, observe },
	{ "bare_stay", NOTHING, bare_stay },
};

/* Whether a list of features has a name that is not known here. */
static bool has_unknown_feature(const char *key)
{
	const char *list = text(key);

	while (list && *list) {
		size_t length = strcspn(list, ","), i;

		for (i = 0; i < ARRAY_SIZE(features); i++) {
			if (strlen(features[i].name) == length && !strncmp(features[i].name, list, length))
				break;
		}
		if (i == ARRAY_SIZE(features))
			return true;
		list += length + (list[length] == ',');
	}
	return false;
}

/* What the words ask for and this program does not have; NULL if it has everything. */
static const char *lacking(void)
{
	static const char *const lists[] = { "features", "host.features", "to.features" };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(lists); i++) {
		if (has_unknown_feature(lists[i]))
			return "such feature";
	}
	for (i = 0; i < ARRAY_SIZE(operations); i++) {
		if (is("op", operations[i].name))
			return NULL;
	}
	return "such operation";
}

/* Perform what the words say; NULL, or why that is misuse. */
static const char *perform(void)
{
	struct specctrl_model *model = find_vcpu((uint32_t)number("vcpu"));
	const char *misuse;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(operations); i++) {
		if (is("op", operations[i].name))
			break;
	}
	if (!machine.vm && operations[i].perform != begin)
		return "begin comes first";
	if (operations[i].needs >= A_VCPU && !model)
		return "there is no such vCPU";
	if (operations[i].needs == RUNNING && model->vcpu.msr_exit.pending)
		return "an MSR exit is pending; reply first";
	if (operations[i].needs == RUNNING && model->vcpu.shut_down)
		return "the vCPU has shut down";
	if (operations[i].needs == STOPPED)
		specctrl_guest_exit(model);
	misuse = operations[i].perform(model);
	answer_host_fault();
	return misuse;
}

/* A line of any length, without its end; NULL at the end of the input. */
static char *read_line(void)
{
	static char *line;
	static size_t room;
	size_t length = 0;

	for (;;) {
		if (room - length < 2) {
			room = room ? 2 * room : 1024;
			line = realloc(line, room);
			if (!line)
				die("no memory", "read_line");
		}
		if (!fgets(line + length, (int)(room - length), stdin))
			break;
		length += strlen(line + length);
		if (length && line[length - 1] == '\n') {
			line[length - 1] = '\0';
			return line;
		}
	}
	if (length)
		return line;
	free(line);
	return NULL;
}

int main(void)
{
	char *line;

	while ((line = read_line())) {
		const char *misuse, *missing;

		if (*line == '{') {	/* the runner asks whether JSON is understood */
			puts("words");
			fflush(stdout);
			continue;
		}
		split(line);
		answered = false;
		missing = lacking();
		misuse = missing ? NULL : perform();
		if (missing)
			answer("unsupported=no %s here", missing);
		else if (misuse)
			answer("misuse=%s", misuse);
		else if (!answered)
			answer("ok");
		putchar('\n');
		fflush(stdout);
	}
	forget();
	return 0;
}
