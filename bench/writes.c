// SPDX-License-Identifier: (GPL-2.0 OR MIT)
/* Guest writes of IA32_SPEC_CTRL on the C reference, as many as asked for: prints how many it made in a second. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "specctrl_cpu.h"

int main(int argc, char **argv)
{
	long writes = argc > 1 ? atol(argv[1]) : 1, i;
	struct specctrl_host host = {
		.features = SPECCTRL_HAS_SPEC_CTRL | SPECCTRL_HAS_BHI_CTRL, .spec_ctrl = 0x401, .has_control = true,
	};
	struct specctrl_vm vm = { .host = &host };
	struct specctrl_model model;
	clock_t begin;

	specctrl_model_create(&model, &vm, host.features);
	if (specctrl_guest_wrmsr(&model, MSR_IA32_SPEC_CTRL, 1) != SPECCTRL_DONE)
		return 1;
	begin = clock();
	for (i = 0; i < writes; i++)
		if (specctrl_guest_wrmsr(&model, MSR_IA32_SPEC_CTRL, i & 1) != SPECCTRL_DONE)
			return 1;
	printf("%f\n", writes / ((double)(clock() - begin) / CLOCKS_PER_SEC));
	return specctrl_effective(&model) > 1;
}
