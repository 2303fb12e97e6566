/* SPDX-License-Identifier: (GPL-2.0 OR MIT) */
/*
 * Stands in for a header of the kernel's selftests, with only what the generated
 * files use, so that they compile and run without a kernel tree.  Written anew.
 */
#ifndef STAND_IN_TEST_UTIL_H
#define STAND_IN_TEST_UTIL_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kselftest.h"

typedef uint8_t u8;
typedef uint32_t u32;
typedef uint64_t u64;

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))
#define READ_ONCE(x) (*(const volatile __typeof__(x) *)&(x))

__attribute__((noreturn, format(printf, 1, 2)))
void stand_in_fail(const char *format, ...);

#define TEST_FAIL(...) stand_in_fail(__VA_ARGS__)
#define TEST_ASSERT(condition, ...)			\
	do {						\
		if (!(condition))			\
			stand_in_fail(__VA_ARGS__);	\
	} while (0)
#define TEST_REQUIRE(condition)						\
	do {								\
		if (!(condition))					\
			ksft_exit_skip("- Requirement not met: %s\n",	\
				       #condition);			\
	} while (0)

#endif
