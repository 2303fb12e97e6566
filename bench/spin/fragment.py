"""The fragment of ``tla/SpecCtrl.tla`` in Promela, for SPIN; written from that model, and it shares no code with ours.

One vCPU on a host with the control, no pair of userspace.  Words have one bit for each bit of IA32_SPEC_CTRL that is
explored.  A field of the VMCS that is not loaded does not count, so there is one MASK and one SHADOW.
"""

from collections.abc import Sequence

HOST_VALUE = ("IBRS", "BHI_DIS_S")

HEAD = """\
byte view, saved, force_mask, force_value, msr = HOST_VALUE, mask, shadow;
bit report, level2, has_run, vmx, in_guest, passthrough;
bit reads1 = 1, writes1 = 1, reads2 = 1, writes2 = 1;  /* intercepted */
hidden byte running, left_view, left_saved, left_msr;
hidden byte intercepted;

/* what a VM exit of the guest, which runs first if it does not, would leave */
inline left() {
	intercepted = (level2 -> writes2 : writes1);
	running = (in_guest -> msr : (saved != HOST_VALUE -> saved : msr));
	left_saved = (intercepted -> saved : running);
	left_view = (intercepted -> view : shadow);
	left_msr = (left_saved != HOST_VALUE -> HOST_VALUE : running)
}

inline runs_on() {
	in_guest = 1; has_run = 1;
	msr = (saved != HOST_VALUE -> saved : left_msr)
}

inline loads(which) {
	level2 = which; view = left_view; saved = left_saved; mask = force_mask; shadow = left_view; runs_on()
}

inline checks() {
	assert(in_guest || msr == HOST_VALUE);
	assert(!(in_guest && report) || msr & BHI_DIS_S)
}

active proctype guest() {
	do
"""

STEPS = """\
	:: d_step { true -> left(); view = left_view; saved = left_saved; msr = left_msr;
		in_guest = 0; has_run = 1; checks() }
	:: d_step { !level2 -> left(); vmx = 1; reads2 = reads1; writes2 = writes1; loads(1); checks() }
	:: d_step { level2 -> left(); loads(0); checks() }
	:: d_step { !vmx -> left(); msr = (in_guest -> left_msr : msr); in_guest = 0;
		view = 0; saved = 0; report = 0; force_mask = 0; force_value = 0; mask = 0; shadow = 0; checks() }
	:: d_step { vmx && !level2 -> left(); view = (in_guest -> left_view : view);
		saved = (in_guest -> left_saved : saved); msr = (in_guest -> left_msr : msr);
		in_guest = 0; vmx = 0; checks() }
"""

WRITE = """\
	:: d_step { !(level2 -> writes2 : writes1) -> left(); msr = ({value} & ~mask) | (running & mask);
		shadow = {value}; in_guest = 1; has_run = 1; checks() }}
	:: d_step {{ (level2 -> writes2 : writes1) -> left(); view = {value};
		saved = ({value} & ~force_mask) | (force_value & force_mask); shadow = {value}; {passes} runs_on(); checks() }}
"""

REPORT = """\
	:: d_step {{ !level2 -> left(); report = {report}; force_mask = {asked}; force_value = {asked};
		view = left_view; saved = (left_view & ~{asked}) | {asked}; mask = {asked}; runs_on(); checks() }}
"""


def model(names: Sequence[str]) -> str:
    """The fragment over these bits."""
    bit = {name: 1 << place for place, name in enumerate(names)}
    host_value = sum(bit[name] for name in HOST_VALUE)
    parts = [f"#define HOST_VALUE {host_value}\n#define BHI_DIS_S {bit['BHI_DIS_S']}\n", HEAD, STEPS]
    for value in range(1 << len(names)):
        passes = "passthrough = 1; reads1 = 0; writes1 = 0;" if value else ""
        parts.append(WRITE.replace("d_step { ", "d_step {{ ").format(value=value, passes=passes))
    parts += [REPORT.format(report=report, asked="BHI_DIS_S" if report else "0") for report in (0, 1)]
    return "".join([*parts, "\tod\n}\n"])
