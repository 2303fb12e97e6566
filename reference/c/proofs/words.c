/* SPDX-License-Identifier: (GPL-2.0 OR MIT) */
/* The arithmetic, for all 64-bit words and all hosts, said bit by bit. */
#include "any.h"

/* A masked bit is the value's, any other the guest's. */
void merge(void)
{
	uint64_t guest = nondet_u64(), mask = nondet_u64(), value = nondet_u64();
	uint64_t merged = specctrl_merge(guest, mask, value);
	uint32_t nr = any_bit_number();

	assert(bit(merged, nr) == (bit(mask, nr) ? bit(value, nr) : bit(guest, nr)));
	assert(specctrl_merge(merged, mask, value) == merged);
	reachable(bit(guest, nr) && bit(mask, nr) && !bit(value, nr));
}

/* Userspace's bits stay as they are; a requested bit beside them is forced to 1, and no other. */
void overlay(void)
{
	uint64_t user_mask = nondet_u64(), user_value = nondet_u64(), requested = nondet_u64();
	uint64_t mask = user_mask, value = user_value;
	uint32_t nr = any_bit_number();

	assume(specctrl_is_subset(user_value, user_mask));
	specctrl_overlay(&mask, &value, requested);
	assert(bit(mask, nr) == (bit(user_mask, nr) || bit(requested, nr)));
	if (bit(user_mask, nr))
		assert(bit(value, nr) == bit(user_value, nr));
	else
		assert(bit(value, nr) == bit(requested, nr));
	reachable(bit(user_mask, nr) && !bit(user_value, nr) && bit(requested, nr));
}

/* What a report asks for: only the two bits, each only with its report, and the MSR has them. */
void requested_bits(void)
{
	struct specctrl_host host = nondet_host();
	uint64_t report = nondet_u64();
	uint64_t bits = specctrl_requested(&host, report);

	assert(specctrl_is_subset(bits, SPEC_CTRL_BHI_DIS_S | SPEC_CTRL_RRSBA_DIS_S));
	assert(!(bits & SPEC_CTRL_BHI_DIS_S) || (report & MITI_CTRL_BHB_CLEAR_SEQ_S_USED));
	assert(!(bits & SPEC_CTRL_RRSBA_DIS_S) || (report & MITI_CTRL_RETPOLINE_S_USED));
	assert(specctrl_is_subset(bits, specctrl_writable_bits(host.features)));
	assert(!specctrl_requested(&host, 0));
	reachable(bits == (SPEC_CTRL_BHI_DIS_S | SPEC_CTRL_RRSBA_DIS_S));
}

/*
 * A pair that may be forced, with any report on top: whatever the guest holds
 * that the processor accepts, the processor accepts the merge.
 */
void can_force(void)
{
	struct specctrl_host host = nondet_host();
	uint64_t mask = nondet_u64(), value = nondet_u64(), guest = nondet_u64(), report = nondet_u64();
	uint64_t writable = specctrl_writable_bits(host.features);
	uint32_t nr = any_bit_number();

	assume(!host.has_control || specctrl_host_has(&host, SPECCTRL_HAS_SPEC_CTRL));
	assume(specctrl_can_force(&host, mask, value));
	assume(specctrl_is_subset(guest, writable));
	assert(host.has_control);
	assert(!bit(value, nr) || (bit(mask, nr) && bit(specctrl_supported(&host), nr)));
	specctrl_overlay(&mask, &value, specctrl_requested(&host, report));
	assert(specctrl_is_subset(value, mask));
	assert(specctrl_is_subset(specctrl_merge(guest, mask, value), writable));
	reachable(mask == ~0ULL && value == specctrl_supported(&host));
}
