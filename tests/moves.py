"""Moves of a VM by each VMM: what other implementations of ``migrate`` are compared with the emulator on."""

from itertools import product

from specctrl.model.vmm.vmms import VMMS
from specctrl.scenario import load
from specctrl.targets.adapter import AdapterTarget
from specctrl.targets.lockstep import Lockstep, Run, replay

HOSTS = {
    "a host like it": "granite-rapids",
    "a host without BHI_CTRL": {"part": "sapphire-rapids", "without": ["BHI_CTRL"]},
    "a host without the MSR": {"part": "skylake-server", "features": ["ARCH_CAPABILITIES"]},
}
PLAIN = ["SPEC_CTRL", "STIBP", "SSBD"]
FULL = [*PLAIN, "ARCH_CAPABILITIES"]
STATES = {
    "nothing": [],
    "a view": [{"op": "wrmsr", "msr": "IA32_SPEC_CTRL", "value": "0x401"}],
    "a report": [{"op": "set_msrs", "msrs": [["MSR_VIRTUAL_ENUMERATION", 1], ["MSR_VIRTUAL_MITIGATION_ENUM", 3]]},
                 {"op": "wrmsr", "msr": "MSR_VIRTUAL_MITIGATION_CTRL", "value": 1}],
    "L2": [{"op": "nested_enter"}],
    "a pair": [{"op": "enable_cap", "fd": "vcpu", "cap": "KVM_CAP_FORCE_SPEC_CTRL", "args": [4, 4]}],
}
"""What the guest or its userspace did before the move, each on a new vCPU."""
VIRTUAL = ["IA32_ARCH_CAPABILITIES", "MSR_VIRTUAL_ENUMERATION", "MSR_VIRTUAL_MITIGATION_ENUM",
           "MSR_VIRTUAL_MITIGATION_CTRL"]
LOOK = [{"op": "observe"}, {"op": "get_msrs", "msrs": VIRTUAL}]


def moved(vmm, order, features, state, to, source="sapphire-rapids", **more):
    """One history: a guest in that state moves, and is looked at where it runs then."""
    move = {"op": "migrate", "to": to, "order": order, "vmm": vmm, **more}
    if features is not None:
        move["features"] = features
    steps = [{"op": "create_vcpu", "features": FULL}, *state, move, *LOOK]
    scenario = load({"schema": "specctrl/scenario/1", "id": "x.y", "host": source, "steps": steps})
    return replay(Run(vmm, scenario.host, {}), [step.call() for step in scenario.steps])


def every_move():
    """By each VMM, in either order, to each host and CPUID, in each state.

    And from a host without the MSR, and with a list of MSRs of which two are refused.
    """
    chosen = product(VMMS, ("nested-first", "msrs-first"), (None, FULL, PLAIN), STATES.values(), HOSTS.values())
    back = [moved(vmm, "nested-first", None, [], "granite-rapids", HOSTS["a host without the MSR"]) for vmm in VMMS]
    twice = [moved(vmm, "msrs-first", None, [*STATES["a report"], *STATES["a view"]], HOSTS["a host without BHI_CTRL"],
                   msrs=["IA32_SPEC_CTRL", "IA32_SPEC_CTRL", "MSR_VIRTUAL_MITIGATION_CTRL"]) for vmm in VMMS]
    return [*(moved(*each) for each in chosen), *back, *twice]


def first_difference(program):
    """The first of these moves that the program makes otherwise than the emulator, or None."""
    target = AdapterTarget(str(program))
    lockstep = Lockstep(target)
    try:
        return next((found for _, found in map(lockstep.performed, every_move()) if found is not None), None)
    finally:
        target.kill()
        assert lockstep.left_out == {}
