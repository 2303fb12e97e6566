// SPDX-License-Identifier: (GPL-2.0 OR MIT)
/* Part 1 of specctrl.h in a toy VMM: userspace forces SSBD to 0, the guest writes 0x5, then reports BHB clearing. */
#include <stdio.h>
#define SPECCTRL_MINIMAL
#include "specctrl.h"

struct toy_vcpu {
	struct specctrl_vcpu spec_ctrl;	/* yours is found from it by container_of() */
	uint64_t mask, shadow;		/* vmcs_write64() and vmcs_read64() in your place */
	bool intercept[2];		/* the MSR bitmap */
};

static uint64_t msr = SPEC_CTRL_IBRS;	/* rdmsr and wrmsr in your place */

#define toy(vcpu) ((struct toy_vcpu *)(vcpu))
static inline uint64_t specctrl_rdmsr(struct specctrl_vcpu *v) { return (void)v, msr; }
static inline void specctrl_wrmsr(struct specctrl_vcpu *v, uint64_t value) { (void)v, msr = value; }
static inline void specctrl_write_mask(struct specctrl_vcpu *v, uint64_t value) { toy(v)->mask = value; }
static inline void specctrl_write_shadow(struct specctrl_vcpu *v, uint64_t value) { toy(v)->shadow = value; }
static inline uint64_t specctrl_read_shadow(struct specctrl_vcpu *v) { return toy(v)->shadow; }
static inline bool specctrl_accepts(const struct specctrl_vcpu *v, uint64_t value)
{ return specctrl_is_subset(value, specctrl_writable_bits(v->host->features)); }
/* There is no nested guest, and no MSR filter. */
static inline bool specctrl_intercepted(const struct specctrl_vcpu *v, bool vmcs02, bool write)
{ return !vmcs02 && toy(v)->intercept[write]; }
static inline void specctrl_intercept(struct specctrl_vcpu *v, bool vmcs02, bool write, bool on)
{ if (!vmcs02) toy(v)->intercept[write] = on; }
static inline bool specctrl_msr_allowed(const struct specctrl_vcpu *v, uint32_t index, bool write)
{ return (void)v, (void)index, (void)write, true; }

/* The guest runs up to its WRMSR; the processor performs it, or the hypervisor after an exit. */
static bool guest_wrmsr(struct toy_vcpu *vcpu, uint64_t value)
{
	bool gp = false;

	specctrl_enter_guest(&vcpu->spec_ctrl);
	if (!vcpu->intercept[true]) {
		vcpu->shadow = value;
		msr = specctrl_merge(value, vcpu->mask, msr);
	}
	specctrl_exit_guest(&vcpu->spec_ctrl);
	if (vcpu->intercept[true])
		gp = specctrl_write_spec_ctrl(&vcpu->spec_ctrl, value) != SPECCTRL_DONE;
	printf("guest reads 0x%x, runs with 0x%x, host has 0x%x\n", (unsigned int)vcpu->spec_ctrl.guest_view,
	       (unsigned int)vcpu->spec_ctrl.saved, (unsigned int)msr);
	return !gp;
}

int main(void)
{
	const struct specctrl_host host = { SPECCTRL_HAS_SPEC_CTRL | SPECCTRL_HAS_SSBD | SPECCTRL_HAS_BHI_CTRL,
					    SPEC_CTRL_IBRS, true, false, false };
	static struct toy_vcpu vcpu;

	specctrl_create(&vcpu.spec_ctrl, &host, host.features, SPEC_CTRL_SSBD, 0);
	if (!guest_wrmsr(&vcpu, 0x5))			/* exits: a new vCPU's MSR is intercepted */
		return 1;
	specctrl_report(&vcpu.spec_ctrl, MITI_CTRL_BHB_CLEAR_SEQ_S_USED);
	return !guest_wrmsr(&vcpu, 0x4);		/* does not exit any more */
}
