"""The JSON Schema of scenarios, made from the table of operations.

``python -m specctrl.vectors vectors`` writes the published copy.
The schema says what one value shows by itself; references between steps, the length of a filter's
``allow``, ids used twice and what a host can run with are checked by ``specctrl run`` only.
It speaks of JSON documents: that a file is UTF-8, has no key twice, no half characters, and is neither too large nor
nested too deeply is found before.
"""

import json

from specctrl.scenario.format import MOST_STEPS, NAMED, OPERATIONS, REQUIRED, SHOWS, TOP, Operation
from specctrl.scenario.kinds import Json

SCHEMA_ID = "urn:specctrl:scenario:1"


def json_schema() -> dict[str, Json]:
    """The schema of a scenario file (JSON Schema 2020-12)."""
    steps = {
        "type": "array",
        "minItems": 1,
        "maxItems": MOST_STEPS,
        "items": {
            "type": "object",
            "properties": {"op": {"enum": list(OPERATIONS)}},
            "required": ["op"],
            "allOf": [
                {
                    "if": {"properties": {"op": {"const": name}}},
                    "then": {"$ref": f"#/$defs/{_reference(name)}"},
                }
                for name in OPERATIONS
            ],
        },
    }
    operations = {_reference(name): _step(name, operation) for name, operation in OPERATIONS.items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        "title": "A scenario: what userspace, guest, host and processor do, and what each step must show",
        "type": "object",
        "properties": {**{key: kind.schema() for key, kind in TOP.items()}, "steps": steps},
        "patternProperties": {"^x-": True},
        "additionalProperties": False,
        "required": list(REQUIRED),
        "$defs": {**{named.name: named.kind.schema() for named in NAMED}, **operations},
    }


def _reference(name: str) -> str:
    return f"op-{name.replace('_', '-')}"


def _step(name: str, operation: Operation) -> dict[str, Json]:
    expect = {
        "type": "object",
        "properties": {key: SHOWS[key].schema() for key in operation.expectable()},
        "additionalProperties": False,
    }
    return {
        "description": f"performed by the {operation.who}",
        "properties": {
            "op": {"const": name},
            **{key: kind.schema() for key, kind in operation.args.items()},
            "expect": expect,
        },
        "additionalProperties": False,
        **({"required": list(operation.required())} if operation.required() else {}),
        **operation.more_schema,
    }


def schema_text() -> str:
    """The schema as the published file has it."""
    return json.dumps(json_schema(), indent=1) + "\n"
