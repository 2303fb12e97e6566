/* SPDX-License-Identifier: GPL-2.0-only */
/* What is said: lines on the debug port, and the words of a question. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>

#include "vmm.h"

jmp_buf give_up;
char why[256];

void say(const char *format, ...)
{
	static char text[1 << 16];
	va_list arguments;
	int length, i;

	va_start(arguments, format);
	length = vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	for (i = 0; i < length; i++)
		outb(text[i], 0xe9);
}

void unsupported(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(why, sizeof(why), format, arguments);
	va_end(arguments);
	longjmp(give_up, 1);
}

const char *word(const char *line, const char *key)
{
	static char value[8][1 << 15];		/* a filter's range may have 0x3000 bits */
	static int turn;
	size_t length = strlen(key);
	char *into = value[turn = (turn + 1) % 8];

	while (line) {
		if (!strncmp(line, key, length) && line[length] == '=') {
			line += length + 1;
			snprintf(into, sizeof(value[0]), "%.*s", (int)strcspn(line, " \n"), line);
			return into;
		}
		line = strchr(line, ' ');
		line = line ? line + 1 : NULL;
	}
	return "";
}

bool has_word(const char *line, const char *key)
{
	char with[64];

	snprintf(with, sizeof(with), " %s=", key);
	return strstr(line, with);
}

u64 number(const char *line, const char *key)
{
	return strtoull(word(line, key), NULL, 0);
}

bool in_list(const char *list, const char *name)
{
	size_t length = strlen(name);

	for (; list; list = strchr(list, ','), list = list ? list + 1 : NULL)
		if (!strncmp(list, name, length) && (list[length] == ',' || !list[length]))
			return true;
	return false;
}

struct list msr_list(const char *text)
{
	struct list list = { 0 };
	char *end;

	while (*text) {
		if (list.count == MAX_LIST)
			unsupported("a list of more than %d MSRs", MAX_LIST);
		list.msr[list.count] = strtoull(text, &end, 0);
		if (*end == ':')
			list.value[list.count] = strtoull(end + 1, &end, 0);
		list.count++;
		text = *end == ',' ? end + 1 : end;
	}
	return list;
}

static const char *errno_name(int number)
{
	return number == EINVAL ? "EINVAL" : number == ENOTTY ? "ENOTTY" : number == EFAULT ? "EFAULT" :
	       number == EEXIST ? "EEXIST" : number == ENOMEM ? "ENOMEM" : number == EBUSY ? "EBUSY" : "EIO";
}

void answer_ret(int ret)
{
	if (ret < 0)
		say("errno=%s", errno_name(errno));
	else
		say("ret=%d", ret);
}
