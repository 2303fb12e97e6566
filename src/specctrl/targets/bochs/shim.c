/*
 * What the wheel of bochscpu-python asks of other libraries and may not find.  Loaded before it, with RTLD_GLOBAL.
 *
 * Compiled as C99, so that the names below stand for the functions of the C library and not for each other.
 */
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

/* The wheel was built with glibc 2.38, where these two are what strtoull and sscanf of C23 are called. */
unsigned long long __isoc23_strtoull(const char *text, char **end, int base)
{
	return strtoull(text, end, base);
}

int __isoc23_sscanf(const char *text, const char *format, ...)
{
	va_list arguments;
	int found;

	va_start(arguments, format);
	found = vsscanf(text, format, arguments);
	va_end(arguments);
	return found;
}

/* bx_pc_system_c::get_enable_a20: VMXON asks whether address bit 20 is there; bochscpu has an assertion in its place. */
bool _ZN14bx_pc_system_c14get_enable_a20Ev(void *system)
{
	(void)system;
	return true;
}
