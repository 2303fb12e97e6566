"""What several test modules need: hosts, MSR names, and machines that are ready to use."""

from collections.abc import Callable
from typing import Any

import pytest

from specctrl.model.outcomes import Outcome
from specctrl.model.parts import Host, resolve_host
from specctrl.scenario.machine import Machine

SC = "IA32_SPEC_CTRL"
AC = "IA32_ARCH_CAPABILITIES"
VE = "MSR_VIRTUAL_ENUMERATION"
ME = "MSR_VIRTUAL_MITIGATION_ENUM"
MC = "MSR_VIRTUAL_MITIGATION_CTRL"
FORCE = "KVM_CAP_FORCE_SPEC_CTRL"
EXITS = "KVM_CAP_X86_USER_SPACE_MSR"

BIT_63 = 1 << 63
ALL_BITS = (1 << 64) - 1
GP = {"fault": "#GP"}

SPR = resolve_host("sapphire-rapids")
SPR_WITHOUT_CONTROL = resolve_host({"part": "sapphire-rapids", "spec_ctrl_shadow": False})
ICE_LAKE = resolve_host("ice-lake-server")
WITHOUT_MSR = resolve_host({"part": "ice-lake-server", "features": []})


def machine(host: Host = SPR, mask: int = 0, value: int = 0, offer: bool = False, **options: Any) -> Machine:
    """A machine with one vCPU; ``offer`` announces the whole report to its guest."""
    made = Machine(host, **options)
    if mask:
        assert {"ret": 0} == made.enable_cap(cap=FORCE, args=[mask, value])
    assert {"ret": 0} == made.create_vcpu()
    if offer:
        assert {"ret": 2} == made.set_msrs(msrs=[(VE, 1), (ME, 3)])
    return made


def outcome(operation: Callable[..., object], *args: Any) -> Outcome:
    """The outcome that an operation of the rule code ends in."""
    with pytest.raises(Outcome) as caught:
        operation(*args)
    return caught.value


def seen(made: Machine, *keys: str, vcpu: int = 0) -> dict[str, Any]:
    """Some of what ``observe`` shows."""
    everything = made.observe(vcpu=vcpu)
    return {key: everything[key] for key in keys}
