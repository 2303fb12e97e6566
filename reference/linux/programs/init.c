/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The first program of the guest: announces that its kernel has booted, lets it go through its suspend and resume path
 * down to the syscore operations (pm_test), announces that, and restarts the machine.
 *
 *	gcc -O2 -static -o init init.c
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/io.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <unistd.h>

static void put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		perror(path);
	close(fd);
}

int main(void)
{
	mkdir("/sys", 0755);
	mount("s", "/sys", "sysfs", 0, 0);
	iopl(3);
	outb(1, 0xf4);
	put("/sys/power/pm_test", "core");
	put("/sys/power/state", "disk");
	outb(2, 0xf4);
	reboot(RB_AUTOBOOT);
	for (;;)
		pause();
}
