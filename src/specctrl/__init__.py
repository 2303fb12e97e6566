"""An executable specification of virtual IA32_SPEC_CTRL: KVM_CAP_FORCE_SPEC_CTRL, Intel's virtual MSRs, nesting."""

from specctrl.machine import Machine
from specctrl.observation import Observation
from specctrl.parts import PARTS
from specctrl.posted import RFC_V3
from specctrl.registers import REGISTERS

__all__ = ["PARTS", "REGISTERS", "RFC_V3", "Machine", "Observation"]
__version__ = "0.1.0"
