"""An adapter without a program: it performs what it is sent on an emulator, a planted one if wanted."""

import re

import planted
from specctrl.model.outcomes import Misuse
from specctrl.scenario.machine import Machine
from specctrl.targets.adapter import AdapterTarget
from specctrl.targets.lockstep import ABOVE
from specctrl.targets.plain import encode
from specctrl.targets.program import Broken


class InProcess(AdapterTarget):
    """The emulator with a defect; ``begin``: its answer to that; ``lacks``: whether it does not support a message.

    ``breaks``: a message that it does not survive.
    """

    def __init__(self, defect=None, begin="ok", lacks=lambda message: False, breaks=lambda message: False):
        super().__init__("in-process", plain=True)
        self.defect, self.begins, self.lacks, self.breaks = defect, begin, lacks, breaks
        self.sent = []

    def exchange(self, messages):
        answers = []
        for message in messages:
            self.sent.append(message)
            if self.breaks(message):
                raise Broken(f"{self.name} ended with status 7 instead of answering", answers)
            answers.append(self.answered(message))
        return answers

    def answered(self, message):
        if message["op"] == "begin":
            self.machine = Machine(_numbers(message["host"]), assume=message["assume"], record=False)
            if self.defect is not None:
                self.machine.variant = planted.planted(self.defect)
                self.machine.vm = self.machine.variant.make_vm(self.machine.host)
            return self.begins
        if self.lacks(message):
            return f"unsupported=no {message['op']} of this kind"
        try:
            seen = self.machine.perform(_numbers(message))
        except Misuse as why:
            return f"misuse={why}"
        return encode({key: value for key, value in seen.items() if key not in ABOVE}) or "ok"


def _numbers(value):
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    if isinstance(value, dict):
        return {key: _numbers(item) for key, item in value.items() if key != "legacy_ibrs"}
    return int(value, 16) if isinstance(value, str) and re.fullmatch("0x[0-9a-f]+", value) else value
