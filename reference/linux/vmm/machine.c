/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The first program of the test machine, and the VMM in it: performs scenarios on the real KVM.
 *
 * /batch has lines of words as vectors/README.md describes them, each answered by one line on the debug port 0xe9, and
 *	#param PARAMETERS	kvm_intel is loaded anew
 *	#posted BITS		the operations that are as posted
 *	#to PARAMETERS		where the next move goes
 *	#id NAME		a scenario begins
 *	#fatal			it ends in a fault of the host's own
 *	#run PROGRAM WORDS	another program, whole
 *
 *	gcc -O2 -static -o init *.c
 *
 * A guest is an interpreter of 64-bit code, at L1 and the same at L2, and one of 16-bit code in SMM.  It leaves with
 * OUT, the VMM writes a command into its memory, KVM_RUN goes on.  So the guest is left after each instruction.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmm.h"

int kvm, msr_dev;
struct vm vm;
bool nested = true;
char host_features[256];
char parameters[512];
char destination[512];
char posted[32] = "0";
static char load[512];			/* what a scenario begins with */
static u64 host_value;			/* of MSR_SPEC_CTRL, as Linux left it */

u64 rdmsr_host(u32 msr)
{
	u64 value = 0;

	if (pread(msr_dev, &value, 8, msr) != 8)
		unsupported("the host's MSR cannot be read");
	return value;
}

void wrmsr_host(u32 msr, u64 value)
{
	if (pwrite(msr_dev, &value, 8, msr) != 8)
		unsupported("the host's MSR cannot be written");
}

/* Of kvm_intel, while it is loaded. */
void set_parameter(const char *name, const char *value)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "/sys/module/kvm_intel/parameters/%s", name);
	fd = open(path, O_WRONLY);
	if (fd < 0 || write(fd, value, strlen(value)) < 0)
		say("# %s: %s\n", name, strerror(errno));
	close(fd);
}

static int load_module(const char *path, const char *parameters)
{
	int fd = open(path, O_RDONLY);
	int ret = syscall(SYS_finit_module, fd, parameters, 0);

	if (ret)
		say("# %s: %s\n", path, strerror(errno));
	close(fd);
	return ret;
}

/* kvm_intel anew.  What a module made the host run with stays, so the next one puts it back. */
void reload(const char *wanted)
{
	static u64 natural;
	static bool changed;
	bool asked = strstr(wanted, "host_spec_ctrl=");
	char all[600];

	if (kvm > 0)
		close(kvm);
	syscall(SYS_delete_module, "kvm_intel", 0);
	if (!changed)
		natural = host_value;
	snprintf(all, sizeof(all), changed && !asked ? "%s host_spec_ctrl=0x%llx" : "%s", wanted,
		 (unsigned long long)natural);
	if (load_module("/kvm-intel.ko", all))
		say("# kvm_intel does not load\n");
	changed |= asked;
	if (changed)
		host_value = rdmsr_host(MSR_SPEC_CTRL);
	snprintf(parameters, sizeof(parameters), "%s", wanted);
	nested = !strstr(parameters, "nested=0");
	kvm = open("/dev/kvm", O_RDWR);
}

static char *whole(const char *path)
{
	int fd = open(path, O_RDONLY);
	struct stat about;
	char *text;
	ssize_t n, at = 0;

	if (fd < 0 || fstat(fd, &about))
		return NULL;
	text = calloc(1, about.st_size + 1);
	while ((n = read(fd, text + at, about.st_size - at)) > 0)
		at += n;
	close(fd);
	return text;
}

/* The kernel's log since it was last read: the lines of an oops that say what it was. */
static bool host_faulted(void)
{
	static int log = -1;
	char text[8192];
	bool fault = false, entry = false;
	ssize_t n;

	if (log < 0)
		log = open("/dev/kmsg", O_RDONLY | O_NONBLOCK);
	for (;;) {
		n = read(log, text, sizeof(text) - 1);
		if (n < 0 && errno == EPIPE)
			continue;
		if (n <= 0)
			break;
		text[n] = 0;
		if (strstr(text, "general protection fault")) {
			fault = true;
			say("# %s", strchr(text, ';') + 1);
		}
		if (fault && strstr(text, "RIP: ") && strstr(text, "__vmx_vcpu_run")) {
			entry = true;
			say("# %s", strchr(text, ';') + 1);
		}
	}
	return fault && entry;
}

/* Another program, whole; each line that it prints is one of ours. */
static void run_program(const char *command_line)
{
	char text[1024], line[1024], *words[32], *name = text, *word;
	int ends[2], status = -1, n = 0;
	pid_t child;
	FILE *from;

	snprintf(text, sizeof(text), "/%s", command_line);
	for (word = strtok(text, " "); word && n < 31; word = strtok(NULL, " "))
		words[n++] = word;
	words[n] = NULL;
	if (pipe(ends))
		return;
	child = fork();
	if (!child) {
		dup2(ends[1], 1);
		dup2(ends[1], 2);
		close(ends[0]);
		close(ends[1]);
		execv(name, words);
		_exit(127);
	}
	close(ends[1]);
	from = fdopen(ends[0], "r");
	while (fgets(line, sizeof(line), from))
		say("#out %.*s\n", (int)strcspn(line, "\n"), line);
	fclose(from);
	waitpid(child, &status, 0);
	say("#ran %s %d\n", command_line, WIFEXITED(status) ? WEXITSTATUS(status) : -1);
}

/* KVM_RUN ends with EINTR. */
static void alarmed(int signal)
{
}

int main(void)
{
	static char *batch, *line, *next;	/* static: longjmp() leaves them as they are */
	static bool over = true, fatal;
	struct sigaction on_alarm = { .sa_handler = alarmed };

	iopl(3);
	mkdir("/proc", 0755);
	mkdir("/sys", 0755);
	mkdir("/dev", 0755);
	mount("p", "/proc", "proc", 0, 0);
	mount("s", "/sys", "sysfs", 0, 0);
	mount("d", "/dev", "devtmpfs", 0, 0);
	sigaction(SIGALRM, &on_alarm, NULL);
	say("# begins\n");
	load_module("/irqbypass.ko", "");
	load_module("/kvm.ko", "");
	load_module("/msr.ko", "");
	msr_dev = open("/dev/cpu/0/msr", O_RDWR);
	host_value = rdmsr_host(MSR_SPEC_CTRL);
	batch = whole("/batch");
	for (line = batch; line && *line; line = next) {
		next = strchr(line, '\n');
		if (!next)
			break;
		*next++ = 0;
		if (!strncmp(line, "#param ", 7)) {
			close_vm();
			snprintf(load, sizeof(load), "%s", line + 7);
			reload(load);
			say("# host 0x48 %llx 0x10a %llx\n", (unsigned long long)host_value,
			    (unsigned long long)rdmsr_host(MSR_ARCH_CAPABILITIES));
		} else if (!strncmp(line, "#posted ", 8)) {
			close_vm();
			snprintf(posted, sizeof(posted), "%s", line + 8);
			set_parameter("as_posted", posted);
		} else if (!strncmp(line, "#to ", 4)) {
			snprintf(destination, sizeof(destination), "%s", line + 4);
		} else if (!strncmp(line, "#run ", 5)) {
			close_vm();
			run_program(line + 5);
		} else if (!strncmp(line, "#id ", 4)) {
			if (fatal)
				_exit(0);
			say("%s\n", line);
		} else if (!strcmp(line, "#fatal")) {
			/* A process of its own, which the kernel's own fault will end. */
			pid_t child = fork();
			bool fault = false;
			int turns;

			if (!child) {
				fatal = true;
				continue;
			}
			for (turns = 0; turns < 100 && !fault; turns++) {
				usleep(100000);
				fault = host_faulted();
				if (waitpid(child, NULL, WNOHANG))
					break;
			}
			say(fault || host_faulted() ? "host_fault=#GP\n" : "unsupported=the host did not fault\n");
			break;		/* KVM cannot be used any more */
		} else if (!strncmp(line, "op=begin ", 9)) {
			u32 i;

			over = false;
			close_vm();
			for (i = 0; i < 8; i++) {
				free(states[i].place.state);
				memset(&states[i], 0, sizeof(states[i]));
			}
			if (strcmp(parameters, load)) {
				reload(load);
				set_parameter("as_posted", posted);
			}
			snprintf(host_features, sizeof(host_features), "%s", word(line, "host.features"));
			if (setjmp(give_up)) {
				over = true;
				say("unsupported=%s\n", why);
				continue;
			}
			wrmsr_host(MSR_SPEC_CTRL, host_value);
			open_vm(NULL, NULL);
			say("observes=*\n");
		} else if (!strncmp(line, "op=", 3)) {
			if (over) {
				say("unsupported=the scenario ended before\n");
				continue;
			}
			if (setjmp(give_up)) {
				over = true;
				say("unsupported=%s\n", why);
				continue;
			}
			perform_step(line, next);
			say("\n");
		}
	}
	if (fatal)
		_exit(0);
	say("# ends\n");
	sync();
	reboot(RB_POWER_OFF);
	for (;;)
		pause();
}
