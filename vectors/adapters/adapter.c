/*
 * An adapter to start from, in C: it performs the vectors of the level "processor" on a model of the
 * VM-execution control "virtualize IA32_SPEC_CTRL" and says "unsupported" to everything else.
 *
 *	cc -o adapter adapter.c
 *	specctrl run VECTORS --level processor --target cmd:./adapter --plain
 *
 * Replace what stands under "the processor" by yours. Below it is the protocol: one line of words is
 * read, one line is answered. Needs C99 and nothing else.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define IA32_SPEC_CTRL		0x48
#define CAP_FORCE_SPEC_CTRL	236

/* ---- the processor: TODO, call your own here ---- */

static struct {
	uint64_t host;		/* what the host runs with */
	uint64_t writable;	/* bits that WRMSR accepts */
	uint64_t forcible;	/* bits that a hypervisor may force to 1 */
	int vcpus;		/* how many were created; this model has one at the most */
	uint64_t mask, forced;	/* bits out of the guest's reach, and what they hold */
	uint64_t shadow;	/* what the guest reads */
	uint64_t effective;	/* what the register holds while the guest runs */
} cpu;

static void power_on(uint64_t host, uint64_t writable, uint64_t forcible)
{
	memset(&cpu, 0, sizeof(cpu));
	cpu.host = host;
	cpu.writable = writable;
	cpu.forcible = forcible & writable;
}

static void create_vcpu(void)
{
	cpu.vcpus = 1;
	cpu.shadow = 0;
	cpu.effective = cpu.forced;
}

/* Returns 0, or -1 for #GP: the merged value must be acceptable. */
static int guest_wrmsr(uint64_t value)
{
	uint64_t merged = (cpu.effective & cpu.mask) | (value & ~cpu.mask);

	if (merged & ~cpu.writable)
		return -1;
	cpu.shadow = value;
	cpu.effective = merged;
	return 0;
}

static uint64_t guest_rdmsr(void)
{
	return cpu.shadow;
}

static uint64_t exit_to_host(void)
{
	return cpu.host;
}

/* ---- the protocol: words on a line ---- */

/* The value of "key=value" in a line, or NULL if there is none; good until the next call. */
static const char *given(const char *line, const char *key)
{
	static char value[1024];
	size_t length = strlen(key);
	const char *at = line;

	while (at) {
		if (!strncmp(at, key, length) && at[length] == '=') {
			snprintf(value, sizeof(value), "%.*s", (int)strcspn(at + length + 1, " \n"), at + length + 1);
			return value;
		}
		at = strchr(at, ' ');
		at = at ? at + 1 : NULL;
	}
	return NULL;
}

static const char *word(const char *line, const char *key)
{
	const char *value = given(line, key);

	return value ? value : "";
}

static int is(const char *line, const char *key, const char *value)
{
	return !strcmp(word(line, key), value);
}

static uint64_t number(const char *line, const char *key)
{
	return strtoull(word(line, key), NULL, 0);
}

/* The bits of the register that come with the features in a list, and those that may be forced to 1. */
static uint64_t bits_of(const char *list, uint64_t *forcible)
{
	static const struct { const char *feature; uint64_t bits, forcible; } fields[] = {
		{ "SPEC_CTRL", 1 << 0, 1 << 0 }, { "STIBP", 1 << 1, 1 << 1 }, { "SSBD", 1 << 2, 1 << 2 },
		{ "IPRED_CTRL", 3 << 3, 0 }, { "RRSBA_CTRL", 3 << 5, 0 }, { "RRSBA", 0, 1 << 6 }, { "PSFD", 1 << 7, 0 },
		{ "DDPD_U", 1 << 8, 0 }, { "BHI_CTRL", 1 << 10, 1 << 10 },
	};
	char features[1024], *feature;
	uint64_t bits = 0;

	*forcible = 0;
	snprintf(features, sizeof(features), "%s", list);
	for (feature = strtok(features, ","); feature; feature = strtok(NULL, ","))
		for (size_t i = 0; i < sizeof(fields) / sizeof(*fields); i++)
			if (!strcmp(feature, fields[i].feature)) {
				bits |= fields[i].bits;
				*forcible |= fields[i].forcible;
			}
	return bits;
}

static uint64_t second_arg(const char *line)
{
	const char *comma = strchr(word(line, "args"), ',');

	return comma ? strtoull(comma + 1, NULL, 0) : 0;
}

/* A pair for the VM, before its vCPU, that is not refused. */
static int can_enable(const char *line)
{
	uint64_t forced = second_arg(line), mask = number(line, "args");

	return number(line, "cap") == CAP_FORCE_SPEC_CTRL && is(line, "fd", "vm") && !number(line, "flags") &&
	       !cpu.vcpus && !(forced & ~mask) && !(forced & ~cpu.forcible);
}

static void answer(const char *line)
{
	uint64_t writable, forcible;
	char op[32];

	snprintf(op, sizeof(op), "%s", word(line, "op"));
	if (!strcmp(op, "begin") && is(line, "host.spec_ctrl_shadow", "true") &&
	    !is(line, "assume.vm-entry-loads-shadow", "true")) {
		writable = bits_of(word(line, "host.features"), &forcible);
		power_on(number(line, "host.host_spec_ctrl"), writable, forcible);
		puts("observes=value,fault,host_spec_ctrl,effective,guest_view,mask,shadow,level,smm,ret");
	} else if (!strcmp(op, "enable_cap") && can_enable(line)) {
		cpu.mask = number(line, "args");	/* stops at the comma */
		cpu.forced = second_arg(line);
		puts("ret=0");
	} else if (!strcmp(op, "create_vcpu") && !cpu.vcpus && !number(line, "vcpu") &&
		   (!given(line, "features") || bits_of(word(line, "features"), &forcible) & 1)) {
		create_vcpu();
		puts("ret=0");
	} else if (!strcmp(op, "rdmsr") && number(line, "msr") == IA32_SPEC_CTRL) {
		printf("value=0x%llx\n", (unsigned long long)guest_rdmsr());
	} else if (!strcmp(op, "wrmsr") && number(line, "msr") == IA32_SPEC_CTRL) {
		puts(guest_wrmsr(number(line, "value")) ? "fault=#GP" : "ok");
	} else if (!strcmp(op, "exit") && !given(line, "nmi_leaves")) {
		printf("host_spec_ctrl=0x%llx\n", (unsigned long long)exit_to_host());
	} else if (!strcmp(op, "observe")) {
		printf("effective=0x%llx guest_view=0x%llx mask=0x%llx shadow=0x%llx level=1 smm=false\n",
		       (unsigned long long)cpu.effective, (unsigned long long)guest_rdmsr(),
		       (unsigned long long)cpu.mask, (unsigned long long)cpu.shadow);
	} else {
		printf("unsupported=this adapter has no %s of this kind\n", op);
	}
	fflush(stdout);
}

int main(void)
{
	static char line[1 << 16];

	while (fgets(line, sizeof(line), stdin))
		answer(line);
	return 0;
}
