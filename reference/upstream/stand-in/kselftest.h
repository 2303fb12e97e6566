/* SPDX-License-Identifier: (GPL-2.0 OR MIT) */
/* TAP, as far as the generated files use it; see test_util.h. */
#ifndef STAND_IN_KSELFTEST_H
#define STAND_IN_KSELFTEST_H

void ksft_print_header(void);
void ksft_set_plan(unsigned int plan);
__attribute__((format(printf, 1, 2))) void ksft_print_msg(const char *format, ...);
__attribute__((format(printf, 1, 2))) void ksft_test_result_pass(const char *format, ...);
__attribute__((format(printf, 1, 2))) void ksft_test_result_fail(const char *format, ...);
__attribute__((format(printf, 1, 2))) void ksft_test_result_skip(const char *format, ...);
__attribute__((noreturn, format(printf, 1, 2))) void ksft_exit_skip(const char *format, ...);
__attribute__((noreturn)) void ksft_finished(void);

#endif
