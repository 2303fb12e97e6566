/* SPDX-License-Identifier: (GPL-2.0 OR MIT) */
/* What the proofs share: values that may be anything, for ESBMC. */
#ifndef ANY_H
#define ANY_H

#include <assert.h>
#include <stdbool.h>

/* ESBMC's own <stdbool.h> makes bool an int, which keeps what a conversion to bool would drop. */
#undef bool
#define bool _Bool

#include "../specctrl_cpu.h"

/* A function without a body returns any value of its type, another one at each call. */
extern void __ESBMC_assume(_Bool);
extern bool nondet_bool(void);
extern uint32_t nondet_u32(void);
extern uint64_t nondet_u64(void);
extern struct specctrl_host nondet_host(void);
extern struct specctrl_vm nondet_vm(void);
extern struct specctrl_vmcs nondet_vmcs(void);
extern struct specctrl_cpu nondet_cpu(void);
extern struct specctrl_model nondet_model(void);

#define assume __ESBMC_assume

/*
 * The case that a proof is about does occur: its assumptions do not exclude
 * each other.  With -DREACH this is refuted, and must be.
 */
#ifdef REACH
#define reachable(condition) assert(!(condition))
#else
#define reachable(condition) ((void)0)
#endif

/* Bit @nr of a word, so that a claim about words can be made bit by bit. */
static inline bool bit(uint64_t word, uint32_t nr)
{
	return (word >> nr) & 1;
}

static inline uint32_t any_bit_number(void)
{
	uint32_t nr = nondet_u32();

	assume(nr < 64);
	return nr;
}

#endif /* ANY_H */
