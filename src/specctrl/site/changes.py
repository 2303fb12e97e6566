"""Which functions changed a vCPU or its VM while something ran, and which fields.

A change is put down to the innermost function in which it happened.  What was changed and changed back is no change:
an exit to the host and the entry that follows it leave most of a vCPU as it was.
"""

import sys
from collections.abc import Collection
from dataclasses import fields
from operator import attrgetter
from types import CodeType, FrameType, TracebackType
from typing import Any

from specctrl.exploration.snapshot import ALL_FIELDS
from specctrl.model.kvm.state import VcpuState
from specctrl.model.kvm.vm import Vm

NAMES: dict[type[VcpuState] | type[Vm], tuple[str, ...]] = {
    VcpuState: tuple(name for name in ALL_FIELDS if name not in ("vm", "cpuid")),
    Vm: tuple(item.name for item in fields(Vm) if item.name != "host"),
}
"""What is looked at of a record."""
TAKE = {record: attrgetter(*names) for record, names in NAMES.items()}


def values(record: VcpuState | Vm) -> dict[str, Any]:
    """What is looked at of a record, by the dotted names of its fields."""
    kind = Vm if isinstance(record, Vm) else VcpuState
    return dict(zip(NAMES[kind], TAKE[kind](record), strict=True))


class Changes:
    """Notes, while it is entered, which functions ran, and which of those asked for changed what.

    >>> from specctrl import Machine
    >>> from specctrl.model.kvm.vm import Vm
    >>> machine = Machine("sapphire-rapids")
    >>> code = Vm.force_spec_ctrl.__code__
    >>> with Changes({code}, [machine.vm]) as changes:
    ...     machine.enable_cap(cap="KVM_CAP_FORCE_SPEC_CTRL", args=[0x400, 0x0])
    {'ret': 0}
    >>> code in changes.called, changes.by_code()[code]
    (True, ['user_mask'])
    """

    def __init__(self, asked: Collection[CodeType], records: Collection[VcpuState | Vm]) -> None:
        self.asked = asked
        self.called: set[CodeType] = set()
        self._watched: list[VcpuState | Vm] = list(records)
        self._first = [values(record) for record in self._watched]
        self._last = list(self._first)
        self._stack: list[CodeType] = []
        self._noted: list[tuple[CodeType, int, str]] = []
        self._before: Any = None

    def __enter__(self) -> "Changes":
        self._before = sys.getprofile()
        sys.setprofile(self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        sys.setprofile(self._before)

    def by_code(self) -> dict[CodeType, list[str]]:
        """The functions that changed something, in the order of their first change, each with the fields."""
        found: dict[CodeType, list[str]] = {}
        for code, number, name in self._noted:
            names = found.setdefault(code, [])
            if self._first[number][name] != self._last[number][name] and name not in names:
                names.append(name)
        return {code: names for code, names in found.items() if names}

    def _note(self, frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call":
            self.called.add(code)
        if code not in self.asked:
            return
        if event == "call":
            self._look()
            self._watch(frame.f_locals.get("self"))
            self._stack.append(code)
        elif event == "return":
            self._look()
            self._stack.pop()

    def _watch(self, record: object) -> None:
        """A record that the history did not have before: a vCPU that is being made, one on another host."""
        if isinstance(record, VcpuState | Vm) and not any(record is known for known in self._watched):
            self._watched.append(record)
            self._first.append(values(record))
            self._last.append(self._first[-1])

    def _look(self) -> None:
        for number, record in enumerate(self._watched):
            now, last = values(record), self._last[number]
            if now != last:
                self._last[number] = now
                if self._stack:
                    self._noted += [(self._stack[-1], number, name) for name in now if now[name] != last[name]]
