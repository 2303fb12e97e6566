"""An executable specification of virtual IA32_SPEC_CTRL: KVM_CAP_FORCE_SPEC_CTRL, Intel's virtual MSRs, nesting."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from specctrl.model.parts import PARTS
    from specctrl.model.posted import RFC_V3
    from specctrl.model.registers import REGISTERS
    from specctrl.scenario.machine import Machine
    from specctrl.scenario.observation import Observation

__all__ = ["PARTS", "REGISTERS", "RFC_V3", "Machine", "Observation"]
__version__ = "0.1.0"

_HOMES = {
    "PARTS": "specctrl.model.parts",
    "REGISTERS": "specctrl.model.registers",
    "RFC_V3": "specctrl.model.posted",
    "Machine": "specctrl.scenario.machine",
    "Observation": "specctrl.scenario.observation",
}


def __getattr__(name: str) -> object:
    """What is offered here is imported when it is first asked for: the script starts with nothing, so ^C ends it."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
