"""Scenarios of the fields of IA32_SPEC_CTRL, out of the register table: which bits a host accepts."""

from collections.abc import Iterator, Sequence

from specctrl.model.registers import REGISTERS, Field
from specctrl.scenario.format import SCHEMA
from specctrl.scenario.kinds import Json
from specctrl.scenario.published import PREFIX, digits

ORIGIN = "register table"
REGISTER = REGISTERS["IA32_SPEC_CTRL"]
RULE = "processor.wrmsr.fault-on-merged"
PART = "granite-rapids"
"""A part that has every field of the table."""

MSR = "SPEC_CTRL"
"""The feature that the MSR exists with; a host without it has no control, and its guests no MSR."""
IGNORED = "STIBP"
"""A feature without which, by two sources, its bit is ignored where the MSR exists; nothing is asked of such a host."""


def of_fields() -> Iterator[dict[str, Json]]:
    """Two scenarios of each field, taken where its feature is and refused where it is not; one of all other bits.

    Of IBRS, which exists with the MSR itself, and of STIBP (see :data:`IGNORED`) there is the first only.
    """
    for field in REGISTER:
        yield taken(field)
        if field.exists_when not in (MSR, IGNORED):
            yield refused(field)
    yield reserved()


def taken(field: Field) -> dict[str, Json]:
    """The field on a host that has its feature, and no other but the MSR's own."""
    bits = hex(field.mask)
    return _document(
        field, "taken", f"A guest sets {field.name} where the host has {field.exists_when}",
        f"the field exists with {field.exists_when} alone, whatever else the host lacks",
        {"part": PART, "features": list(dict.fromkeys([MSR, field.exists_when]))},
        [_write(bits), _read(bits), _write("0x0"), _look("0x0"), _write(bits), _look(bits)])


def refused(field: Field) -> dict[str, Json]:
    """The field on a host that has every feature but its own."""
    bits = hex(field.mask)
    return _document(
        field, "refused", f"{field.name} is reserved where the host lacks {field.exists_when}",
        "a bit whose feature is missing faults, whatever else the host has; view and register stay",
        {"part": PART, "without": [field.exists_when]},
        [_write(bits, faults=True), _look("0x0"), _write("0x1"), _write(bits, faults=True), _look("0x1")])


def reserved() -> dict[str, Json]:
    """Each bit that no field has, on a host that has every feature."""
    bits = [hex(1 << bit) for bit in range(REGISTER.width) if not REGISTER.defined >> bit & 1]
    return _document(
        None, "refused", "Each bit of IA32_SPEC_CTRL that no field has is reserved",
        "nothing makes such a bit acceptable but a mask that covers it",
        PART, [_write("0x1"), *(_write(bit, faults=True) for bit in bits), _look("0x1")])


def _document(
    field: Field | None, ends: str, title: str, why: str, host: Json, steps: Sequence[Json]
) -> dict[str, Json]:
    document: dict[str, Json] = {
        "schema": SCHEMA, "id": "", "title": title, "why": why, "rules": [RULE], "profile": "spec",
        "x-generated": ORIGIN, "host": host, "steps": [{"op": "create_vcpu"}, *steps],
    }
    name = "no-field" if field is None else field.name.lower().replace("_", "-")
    document["id"] = ".".join([PREFIX, "field", name, ends, digits(document)])
    return document


def _write(value: str, faults: bool = False) -> Json:
    return {"op": "wrmsr", "msr": REGISTER.name, "value": value, **({"expect": {"fault": "#GP"}} if faults else {})}


def _read(value: str) -> Json:
    return {"op": "rdmsr", "msr": REGISTER.name, "expect": {"value": value}}


def _look(value: str) -> Json:
    return {"op": "observe", "expect": {"effective": value, "guest_view": value}}
