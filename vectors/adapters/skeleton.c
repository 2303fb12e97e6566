/*
 * An adapter to fill in, in C: it reads every operation and answers "unsupported" to each.
 *
 *	cc -o adapter skeleton.c
 *	specctrl run VECTORS --level processor --target cmd:./adapter --plain
 *
 * One line of words comes in, one line goes out: "op=wrmsr vcpu=0 msr=0x48 value=0x401", and "ok" or "fault=#GP".
 * In this order:
 *
 * 1. begin: create your host and VM from the line, and forget those before.  Name in its answer what you can see, for
 *    the level processor value,fault,ret,host_spec_ctrl,effective,guest_view,level,smm (without nesting 1 and false).
 *    Refuse with unsupported() a host that you cannot be, and an assume.* that is not your behaviour
 *    (assume.bhi-no-suffices is nothing to you).
 * 2. create_vcpu, wrmsr, rdmsr, exit, observe, then enable_cap: write a function for each and put its name into the
 *    table in the place of "unsupported".  After each run the command above; what you have not yet is not counted.
 * 3. Go on in the order of the table: the levels force, nested, kvm-abi, as far as you have them.
 *
 * What each operation means stands in README.md and spec/scenarios.md.  Needs C99 and nothing else.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the words of the line that came ---- */

static char line[1 << 16];	/* its words, each ended by a zero */
static size_t length;

/* The value of a key; NULL if it is absent, which is something else than "". */
static char *text(const char *key)
{
	size_t size = strlen(key);
	char *word;

	for (word = line; word < line + length; word += strlen(word) + 1)
		if (!strncmp(word, key, size) && word[size] == '=')
			return word + size + 1;
	return NULL;
}

static int is(const char *key, const char *value)
{
	const char *given = text(key);

	return given && !strcmp(given, value);
}

/* A number: decimal, or hex with 0x; 0 if it is absent. */
static uint64_t number(const char *key)
{
	const char *given = text(key);

	return given ? strtoull(given, NULL, 0) : 0;
}

/* Whether a list, a,b,c, has an item.  Of pairs, 0x48:0x1,0x50000002:0x0, an item is one pair. */
static int has(const char *key, const char *item)
{
	const char *at = text(key);
	size_t size = strlen(item);

	for (; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
		if (!strncmp(at, item, size) && (!at[size] || at[size] == ','))
			return 1;
	return 0;
}

/* ---- operations: each prints one line ---- */

static struct {
	uint64_t spec_ctrl;	/* what the host runs with */
	int has_control;	/* "virtualize IA32_SPEC_CTRL" */
	int has_spec_ctrl;	/* one of its features; each with a bit in README.md's table gives it the MSR */
} host;

static void unsupported(void)
{
	printf("unsupported=no %s yet\n", text("op"));
}

static void begin(void)
{
	host.spec_ctrl = number("host.host_spec_ctrl");
	host.has_control = is("host.spec_ctrl_shadow", "true");
	host.has_spec_ctrl = has("host.features", "SPEC_CTRL");
	puts("observes=");	/* TODO: the keys that you can see, with commas and without spaces */
}

/*
 * What comes -> what goes; [in brackets] what may be absent.  The outcomes fault=#GP, errno=EINVAL, reflected=true,
 * blocked=true, abort=true, fail.reason=MSR_LOAD_FAIL fail.entry=1 and exit.kind=... stand alone in the place of it.
 */
static const struct {
	const char *name;
	void (*perform)(void);
} operations[] = {
	{ "begin", begin },
	/* level processor */
	{ "enable_cap", unsupported },	/* fd=vm [vcpu=0] cap=236 args=0x1 flags=0x1 -> ret=0 */
	{ "create_vcpu", unsupported },	/* vcpu=0 [features=SPEC_CTRL] -> ret=0 */
	{ "rdmsr", unsupported },	/* vcpu=0 msr=0x48 -> value=0x1 */
	{ "wrmsr", unsupported },	/* vcpu=0 msr=0x48 value=0x1 -> ok */
	{ "exit", unsupported },	/* vcpu=0 [nmi_leaves=0x1] -> host_spec_ctrl=0x1 */
	{ "observe", unsupported },	/* vcpu=0 -> effective=0x1 guest_view=0x1 mask=0x1 shadow=0x1 intercepted=true reads_intercepted=true saved=0x1 level=1 smm=true in_guest=true shut_down=true */
	{ "bare_stay", unsupported },	/* offers=entry virtualize=true [mask=0x1] [shadow=0x1] load_on_entry=true [guest_field=0x1] load_on_exit=true [host_field=0x1] [entry_load=0x1] exit_store=true [exit_load=0x1] [write=0x1] read=true -> value=0x1 effective=0x1 host_spec_ctrl=0x1 shadow=0x1 stored=0x1 guest_field=0x1 */
	/* level force */
	{ "get_msrs", unsupported },	/* vcpu=0 msrs=0x48 -> ret=0 values=0x1 */
	{ "set_msrs", unsupported },	/* vcpu=0 msrs=0x48:0x1 -> ret=0 */
	{ "reset_vcpu", unsupported },	/* vcpu=0 -> ret=0 */
	{ "migrate", unsupported },	/* to.*=... order=nested-first [msrs=0x48] force=keep [features=SPEC_CTRL] [vmm=as-specified] -> refused=0x48 */
	{ "init", unsupported },	/* vcpu=0 -> ok */
	{ "boot", unsupported },	/* vcpu=0 kernel.*=... cpu=boot -> wrote=0x48:0x1 */
	{ "host_write", unsupported },	/* vcpu=0 value=0x1 -> ok */
	/* level nested */
	{ "get_nested_state", unsupported },	/* vcpu=0 state=a -> ret=0 nested_flags=GUEST_MODE */
	{ "set_nested_state", unsupported },	/* vcpu=0 state=a [run_pending=true] -> ret=0 */
	{ "nested_enter", unsupported },	/* vcpu=0 [msr_load=0x48:0x1] [intercept=0x48:rw] [exit_msr_store=0x48] [exit_msr_load=0x48:0x1] -> ok */
	{ "nested_exit", unsupported },	/* vcpu=0 [msr_store=0x48] [msr_load=0x48:0x1] -> stored=0x1 */
	{ "vmxoff", unsupported },	/* vcpu=0 -> ok */
	{ "smi", unsupported },	/* vcpu=0 -> ok */
	{ "rsm", unsupported },	/* vcpu=0 -> ok */
	/* level kvm-abi */
	{ "check_extension", unsupported },	/* cap=236 fd=kvm -> ret=0 */
	{ "get_supported_force_spec_ctrl", unsupported },	/* fd=kvm bad_pointer=true -> ret=0 value=0x1 */
	{ "get_feature_msrs", unsupported },	/* msrs=0x48 -> ret=0 values=0x1 */
	{ "get_msr_index_list", unsupported },	/*  -> contains=0x48 lacks=0x48 */
	{ "get_msr_feature_index_list", unsupported },	/*  -> contains=0x48 lacks=0x48 */
	{ "set_msr_filter", unsupported },	/* default=allow ranges=0x48:1:rw:1 -> ret=0 */
	{ "reply_msr_exit", unsupported },	/* vcpu=0 [value=0x1] [error=true] -> value=0x1 */
};

int main(void)
{
	while (fgets(line, sizeof(line), stdin)) {
		size_t i, count = sizeof(operations) / sizeof(*operations);
		char *space;

		length = strcspn(line, "\n");
		line[length] = '\0';
		for (space = line; (space = strchr(space, ' ')); space++)
			*space = '\0';
		for (i = 0; i < count && !is("op", operations[i].name); i++)
			;
		(i < count ? operations[i].perform : unsupported)();
		fflush(stdout);
	}
	return 0;
}
