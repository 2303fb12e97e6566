"""An executable specification of virtual IA32_SPEC_CTRL: KVM_CAP_FORCE_SPEC_CTRL, Intel's virtual MSRs, nesting."""

from specctrl.model.parts import PARTS
from specctrl.model.posted import RFC_V3
from specctrl.model.registers import REGISTERS
from specctrl.scenario.machine import Machine
from specctrl.scenario.observation import Observation

__all__ = ["PARTS", "REGISTERS", "RFC_V3", "Machine", "Observation"]
__version__ = "0.1.0"
