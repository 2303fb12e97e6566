# SPDX-License-Identifier: GPL-2.0-only
# x86/msr.c of kvm-unit-tests with the exported lines, where the comment above them says.
s|^\tif (spec_ctrl_bits) {$|#include "msr-lines.h"\n\n&|
