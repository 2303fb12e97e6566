"""A history performed step by step, for a page: JSON in, JSON out, and the emulator itself in between.

After each step it says what was seen, every vCPU's registers, which functions changed something and the rules that
bind them, and all rules whose code ran.  It also says which properties of the exploration the step violates, from
which posted operations that comes, and what the same step shows under the specification.  What a scenario expects
stands beside what was seen.  A history can be taken back, and saved as a scenario whose ``expect`` is what was
observed.
"""

from collections.abc import Mapping
from types import CodeType
from typing import Any

from specctrl.evidence.collect import bound_code
from specctrl.exploration.along import Along, Causes, Looked
from specctrl.exploration.properties import PROPERTIES
from specctrl.model.outcomes import Misuse
from specctrl.model.parts import PARTS
from specctrl.model.variants import VARIANTS
from specctrl.rules import Rule, load_rules
from specctrl.scenario import Invalid, Scenario, json_schema, load
from specctrl.scenario.format import ASSUMPTIONS, MOST_STEPS, OPERATIONS, PROFILES, SCHEMA
from specctrl.scenario.observation import Hex, Observation
from specctrl.scenario.reading import MAKERS
from specctrl.scenario.running import differences, normalised, written
from specctrl.site.changes import Changes

Json = dict[str, Any]

ID = "playground.history"
"""The id of a scenario that was not given one."""

EXPLAINED: dict[str, tuple[str, str]] = {
    "effective": (
        "The processor's IA32_SPEC_CTRL while the guest runs: now, or after the next VM entry",
        "glossary.html#term-effective-value",
    ),
    "register": (
        "The processor's IA32_SPEC_CTRL at this moment; while the host runs, the host's own value",
        "glossary.html#term-host-s-value",
    ),
    "guest_view": ("What the guest reads from IA32_SPEC_CTRL, and last wrote", "glossary.html#term-guest-view"),
    "mask": (
        "The MASK field of the loaded VMCS: bits that a guest's write leaves as they are; null without the control",
        "glossary.html#term-mask-field",
    ),
    "shadow": (
        "The SHADOW field of the loaded VMCS: what a guest reads without an exit; null without the control",
        "glossary.html#term-shadow",
    ),
    "saved": (
        "What KVM loads into IA32_SPEC_CTRL at the next VM entry; stale while the guest runs",
        "glossary.html#term-saved-value",
    ),
    "intercepted": ("Whether a guest's write of IA32_SPEC_CTRL causes a VM exit", "glossary.html#term-intercepted"),
    "reads_intercepted": ("Whether a guest's read of it causes a VM exit", "glossary.html#term-intercepted"),
    "level": ("Who runs, or ran last: 1 the guest, 2 its nested guest", "glossary.html#term-L2"),
    "smm": ("Whether the guest is in system management mode", "nested.html#smi-and-rsm"),
    "shut_down": ("Whether the vCPU has shut down after a VMX abort", "nested.html#nested-lists"),
    "exposed": ("The attacks to which the guest is exposed now", "guests.html#exposure"),
    "overhead": ("What the guest pays for and does not need", "guests.html#exposure"),
}
"""What each register of a row is, in the order in which a page lists them, and where that is said in full."""


class Refused(ValueError):
    """A step, or a host, that is not one; the history stays as it was."""


class Play:
    """A machine, and the steps that it performed.

    >>> play = Play("sapphire-rapids")
    >>> play.perform({"op": "create_vcpu"})["seen"]
    {'ret': 0}
    >>> row = play.perform({"op": "wrmsr", "msr": "IA32_SPEC_CTRL", "value": "0x1"})
    >>> row["vcpus"]["0"]["register"], "intercept.until-first-nonzero" in row["rules"]
    ('0x1', True)
    >>> row["changed"][-1]["code"], row["changed"][-1]["fields"]
    ('VcpuEntry.update_interception', ['vmcs01.intercept_read', 'vmcs01.intercept_write'])
    >>> play.perform({"op": "vmxoff", "vcpu": 1})
    Traceback (most recent call last):
    specctrl.site.playground.Refused: vcpu: no earlier step creates vCPU 1
    """

    def __init__(
        self, host: str | Json, variant: str = PROFILES[0], assume: Mapping[str, bool] | None = None
    ) -> None:
        self.head: Json = {"schema": SCHEMA, "id": ID, "profile": variant, "host": host, "assume": dict(assume or {})}
        read = self._check({"op": "check_extension", "cap": 0})  # refuses what is no host, before there is a step
        self.variant = VARIANTS[variant]
        self.along = Along(read.host, self.variant, self.head["assume"])
        self.causes: Causes | None = None  # made for the first violation
        self.calls: list[Json] = []
        self.rows: list[Json] = []
        self.made: list[Json] = []  # the steps that a later one may speak of

    def perform(self, step: Json) -> Json:
        """Perform a step; Refused if it is none, or cannot be asked now."""
        bare = {key: value for key, value in step.items() if key != "expect"}
        checked = self._check(step).steps[-1]
        machine = self.along.machine
        changes = Changes(by_code(), [machine.vm, *machine.vcpus.values()])
        try:
            with changes:
                looked = self.along.perform(checked.call())
        except Misuse as misuse:
            if not checked.expect.get("misuse"):
                raise Refused(str(misuse)) from None
            looked = Looked(Observation(misuse=True), Observation(misuse=True), ())
        self.calls.append(checked.call())
        changed = [
            {"code": code.co_qualname, "fields": names, "rules": by_code()[code]}
            for code, names in changes.by_code().items()
        ]
        ran = [id for id, codes in bound().items() if codes & changes.called]
        row: Json = {
            "step": bare,
            "seen": written(normalised(looked.seen)),
            "vcpus": {str(number): plain(row) for number, row in machine.registers().items()},
            "changed": changed,
            "rules": ran,
            "violated": [self._violation(name) for name in looked.violated],
        }
        if "expect" in step:
            row |= {"expect": step["expect"], "unmet": differences(checked, normalised(looked.seen))}
        if self.head["profile"] != PROFILES[0]:
            row["beside"] = self._beside(looked.beside)
        self.rows.append(row)
        if step["op"] in MAKERS and bare not in self.made:
            self.made.append(bare)
        return row

    def _violation(self, name: str) -> Json:
        """A property that the last step violates, and the operations without which it would not."""
        self.causes = self.causes or Causes(self.head["host"], self.variant, self.head["assume"])
        found = self.causes.of(self.calls, name)
        return {"property": name, "text": PROPERTIES[name].text,
                "causes": [{"operation": operation, "defects": list(named)} for operation, named in found.items()]}

    def _beside(self, seen: Mapping[str, Any] | None) -> Json | None:
        """What the last step showed under the specification, and the registers there; None if it cannot be asked."""
        if self.along.other is None or seen is None:
            return None
        registers = self.along.other.registers()
        vcpus = {str(number): plain(row) for number, row in registers.items()}
        return {"seen": written(normalised(seen)), "vcpus": vcpus}

    def scenario(self, id: str = ID, title: str = "") -> Json:
        """The history as a scenario, whose ``expect`` is what was observed; Refused if it has no step."""
        steps = []
        for row in self.rows:
            shows = OPERATIONS[row["step"]["op"]].shows
            expect = {key: value for key, value in row["seen"].items() if key in shows or key == "misuse"}
            steps.append(row["step"] | ({"expect": expect} if expect else {}))
        head = {key: value for key, value in self.head.items() if value or key != "assume"}
        made = head | {"id": id} | ({"title": title} if title else {}) | {"steps": steps}
        try:
            load(made)
        except Invalid as invalid:
            raise Refused("; ".join(problem.reason for problem in invalid.problems)) from None
        return made

    def _check(self, step: Json) -> Scenario:
        """A scenario whose last step this is, after those that it may speak of; Refused with what is wrong with it.

        So a step costs the same, however long the history is.
        """
        if len(getattr(self, "rows", ())) >= MOST_STEPS:
            raise Refused(f"the history has {MOST_STEPS} steps, and a scenario has room for no more")
        steps = getattr(self, "made", [])
        try:
            return load({**self.head, "steps": [*steps, step]})
        except Invalid as invalid:
            last = f"/steps/{len(steps)}"
            said = [(problem.pointer.removeprefix(last).strip("/"), problem.reason) for problem in invalid.problems]
            raise Refused("; ".join(f"{where}: {why}" if where else why for where, why in said)) from None


_play: Play | None = None
_rules: dict[str, Rule] = {}
_bound: dict[str, set[CodeType]] = {}
_by_code: dict[CodeType, list[str]] = {}


def rules() -> dict[str, Rule]:
    """Every rule of the pages, read once."""
    if not _rules:
        _rules.update(load_rules())
    return _rules


def bound() -> dict[str, set[CodeType]]:
    """The code that each rule binds, found once."""
    if not _bound:
        _bound.update({id: bound_code(rule) for id, rule in rules().items()})
    return _bound


def by_code() -> dict[CodeType, list[str]]:
    """The rules that bind each function, the other way round."""
    if not _by_code:
        for id, codes in bound().items():
            for code in codes:
                _by_code.setdefault(code, []).append(id)
    return _by_code


def plain(values: Mapping[str, Any]) -> Json:
    """Registers as JSON: what is shown in hexadecimal as a string of it.

    >>> plain({"mask": Hex(1024), "level": 1, "wrote": [Hex(1)]})
    {'mask': '0x400', 'level': 1, 'wrote': ['0x1']}
    """

    def one(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [one(item) for item in value]
        return f"{value:#x}" if isinstance(value, Hex) else value

    return {key: one(value) for key, value in values.items()}


# ---- what a page calls


def choices() -> Json:
    """What there is to choose from: hosts, variants, assumptions, and every operation with its arguments.

    Arguments are JSON Schemas, whose references are to ``definitions``.

    >>> choices()["operations"]["vmxoff"]
    {'who': 'guest', 'required': [], 'arguments': {'vcpu': {'type': 'integer', 'minimum': 0, 'maximum': 4294967295}}}
    """
    by_code()  # now, while the page says that it loads, and not at the first step
    operations = {
        name: {
            "who": operation.who,
            "required": list(operation.required()),
            "arguments": {argument: kind.schema() for argument, kind in operation.args.items()},
        }
        for name, operation in OPERATIONS.items()
    }
    return {
        "hosts": list(PARTS),
        "variants": list(PROFILES),
        "assumptions": dict(ASSUMPTIONS),
        "operations": operations,
        "definitions": json_schema()["$defs"],
        "registers": {name: {"text": text, "page": page} for name, (text, page) in EXPLAINED.items()},
        "rules": {id: {"page": rule.page, "text": rule.text} for id, rule in rules().items()},
    }


def start(
    host: str | Json,
    variant: str = PROFILES[0],
    assume: Mapping[str, bool] | None = None,
    steps: list[Json] | None = None,
) -> Json:
    """Begin a history, and perform these steps; ``problem`` says why they do not all stand in ``rows``."""
    global _play
    try:
        _play = Play(host, variant, assume)
    except Refused as refused:
        return {"rows": [], "problem": str(refused)}
    try:
        for step in steps or ():
            _play.perform(step)
    except Refused as refused:
        return {"rows": _play.rows, "problem": f"step {len(_play.rows) + 1}: {refused}"}
    return {"rows": _play.rows}


def perform(step: Json) -> Json:
    """Perform one step of the history that was begun: its row, or a ``problem``."""
    try:
        return begun().perform(step)
    except Refused as refused:
        return {"problem": str(refused)}


def undo() -> Json:
    """Take the last step back: the others are performed again."""
    head, rows = begun().head, begun().rows
    steps = [row["step"] | ({"expect": row["expect"]} if "expect" in row else {}) for row in rows[:-1]]
    return start(head["host"], head["profile"], head["assume"], steps)


def save(id: str = ID, title: str = "") -> Json:
    """The history as a scenario, or a ``problem``."""
    try:
        return begun().scenario(id, title)
    except Refused as refused:
        return {"problem": str(refused)}


def open_scenario(scenario: Json) -> Json:
    """Begin with the host and the steps of a scenario; ``head`` is the rest of it, as far as it was read."""
    try:
        read = load(scenario)
    except Invalid as invalid:
        return {"rows": [], "problem": str(invalid)}
    head: Json = {"host": read.host, "variant": read.profile, "assume": read.assume}
    steps = [step.source for step in read.steps]
    return {"head": {**head, "id": read.id, "title": read.title}, **start(steps=steps, **head)}


def begun() -> Play:
    """The history that was begun; Refused if none was."""
    if _play is None:
        raise Refused("no history was begun")
    return _play
