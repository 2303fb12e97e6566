"""Kinds of values in a scenario: each reads one, writes one, and says its JSON Schema.

A kind is the single description of a value.  The checker, the published schema, the comparison of
what is seen with what is expected, and the messages to adapters are all made from it.
"""

import difflib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

Json: TypeAlias = Any
"""Whatever a JSON document can hold."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a file is not a valid scenario: the file, a JSON pointer into it, and one sentence."""

    file: str
    pointer: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file}: #{self.pointer}: {self.reason}"


@dataclass(frozen=True, slots=True)
class At:
    """A place in a JSON document; what is wrong there goes to the list that all places of it share."""

    file: str
    pointer: str = ""
    problems: list[Problem] = field(default_factory=list)

    def __truediv__(self, key: str | int) -> "At":
        escaped = str(key).replace("~", "~0").replace("/", "~1")
        return At(self.file, f"{self.pointer}/{escaped}", self.problems)

    def refuse(self, reason: str) -> None:
        """Note a problem here."""
        self.problems.append(Problem(self.file, self.pointer, reason))


def quoted(value: Json, most: int = 60) -> str:
    """A JSON value as it would stand in the file, cut to a length that fits a sentence."""
    text = json.dumps(value, default=str)
    return text if len(text) <= most else text[: most - 3] + "..."


def one_of(names: Mapping[str, object] | tuple[str, ...], wrong: str) -> str:
    """The end of a sentence about an unknown name: the nearest name, or all of them."""
    near = difflib.get_close_matches(wrong, list(names), n=1)
    return f"did you mean {quoted(near[0])}?" if near else f"known: {', '.join(names) or 'none'}"


class Kind(Protocol):
    """What a value may be."""

    def read(self, value: Json, at: At, /) -> Any:
        """The value normalised (numbers as ints); what is wrong with it goes to ``at``."""

    def write(self, value: Any, /) -> Json:
        """A normalised value as JSON (64-bit quantities as hex strings)."""

    def schema(self) -> dict[str, Json]:
        """The kind as a JSON Schema."""


_HEX = "0x0*[0-9a-fA-F]{1,16}"


@dataclass(frozen=True, slots=True)
class Number:
    """A number from ``low``, of at most ``bits`` bits.

    ``hexadecimal``: it may be a hex string too, and is written as one unless ``counts``; ``names`` stand
    for some numbers.  ``or_else``: what else is possible where this number is, for the message.
    """

    what: str
    bits: int = 64
    hexadecimal: bool = True
    names: Mapping[str, int] = field(default_factory=dict)
    low: int = 0
    counts: bool = False
    or_else: str = ""

    def read(self, value: Json, at: At) -> Any:
        """The value normalised."""
        number = self._number(value, at)
        if number is None:
            return None
        if number < self.low:
            at.refuse(f"{value} is negative" if number < 0 else f"{value} is less than {self.low}")
        elif number >= 1 << self.bits:
            at.refuse(f"{quoted(value)} has more than {self.bits} bits")
        return number

    def _number(self, value: Json, at: At) -> int | None:
        if isinstance(value, int) and not isinstance(value, bool):
            return int(value)
        if isinstance(value, float) and value.is_integer():
            return int(value)  # 1.0 and 1e3 are integers to JSON Schema, and to readers that keep all numbers alike
        if isinstance(value, str) and self.hexadecimal:
            if value in self.names:
                return self.names[value]
            if re.fullmatch(r"0x[0-9a-fA-F]+", value):
                return int(value, 16)
            if self.names and re.fullmatch(r"[A-Z][A-Z0-9_]*", value):
                at.refuse(f"{quoted(value)} is not the name of {self.what}; {one_of(self.names, value)}")
                return None
        named = ", a name" if self.names else ""
        form = f'a hex string such as "0x400"{named} or an integer' if self.hexadecimal else "an integer"
        at.refuse(f"{quoted(value)} is not {self.what}: {form}{self.or_else} is wanted")
        return None

    def write(self, value: Any) -> Json:
        """A normalised value as JSON."""
        return f"{value:#x}" if self.hexadecimal and not self.counts else int(value)

    def schema(self) -> dict[str, Json]:
        """The kind as a JSON Schema."""
        integer = {"type": "integer", "minimum": self.low, "maximum": (1 << self.bits) - 1}
        if not self.hexadecimal:
            return integer
        digits = _HEX if self.bits == 64 else _HEX.replace("16", str(self.bits // 4))
        forms: list[Json] = [{"type": "string", "pattern": f"^{digits}$"}, integer]
        if self.names:
            forms.insert(0, {"enum": list(self.names)})
        return {"anyOf": forms}


@dataclass(frozen=True, slots=True)
class Anything:
    """Whatever JSON can hold; checked elsewhere."""

    def read(self, value: Json, _at: At) -> Any:
        """The value as it is."""
        return value

    def write(self, value: Any) -> Json:
        """The value as it is."""
        return value

    def schema(self) -> dict[str, Json]:
        """The kind as a JSON Schema."""
        return {}


@dataclass(frozen=True, slots=True)
class Flag:
    """true or false."""

    def read(self, value: Json, at: At) -> Any:
        """The value normalised."""
        if not isinstance(value, bool):
            at.refuse(f"{quoted(value)} is neither true nor false")
        return value

    def write(self, value: Any) -> Json:
        """A normalised value as JSON."""
        return bool(value)

    def schema(self) -> dict[str, Json]:
        """The kind as a JSON Schema."""
        return {"type": "boolean"}


@dataclass(frozen=True, slots=True)
class Null:
    """null."""

    def read(self, value: Json, at: At) -> Any:
        """The value normalised."""
        if value is not None:
            at.refuse(f"{quoted(value)} is not null")
        return None

    def write(self, _value: Any) -> Json:
        """A normalised value as JSON."""
        return None

    def schema(self) -> dict[str, Json]:
        """The kind as a JSON Schema."""
        return {"type": "null"}


@dataclass(frozen=True, slots=True)
class Text:
    """A string; with a ``pattern``, one that is ``what``."""

    what: str = "a string"
    pattern: str = r"[\s\S]+"

    def read(self, value: Json, at: At) -> Any:
        """The value normalised."""
        if not isinstance(value, str):
            at.refuse(f"{quoted(value)} is not a string")
        elif not re.fullmatch(self.pattern, value):
            at.refuse(f"{quoted(value)} is not {self.what}")
        return value

    def write(self, value: Any) -> Json:
        """A normalised value as JSON."""
        return str(value)

    def schema(self) -> dict[str, Json]:
        """The kind as a JSON Schema."""
        return {"type": "string", "pattern": f"^{self.pattern}$"}


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a closed list of names."""

    what: str
    names: tuple[str, ...]

    def read(self, value: Json, at: At) -> Any:
        """The value normalised."""
        if not isinstance(value, str):
            at.refuse(f"{quoted(value)} is not {self.what}: known: {', '.join(self.names)}")
        elif value not in self.names:
            at.refuse(f"{quoted(value)} is not {self.what}; {one_of(self.names, value)}")
        return value

    def write(self, value: Any) -> Json:
        """A normalised value as JSON."""
        return str(value)

    def schema(self) -> dict[str, Json]:
        """The kind as a JSON Schema."""
        return {"enum": list(self.names)}


@dataclass(frozen=True, slots=True)
class Listing:
    """A list of values of one kind."""

    item: Kind
    least: int = 0
    most: int | None = None

    def read(self, value: Json, at: At) -> Any:
        """The value normalised."""
        if not isinstance(value, list):
            at.refuse(f"{quoted(value)} is not a list")
            return []
        if len(value) < self.least:
            at.refuse("the list is empty")
        if self.most is not None and len(value) > self.most:
            at.refuse(f"{len(value)} entries, where there is room for {self.most}")
        return [self.item.read(item, at / index) for index, item in enumerate(value)]

    def write(self, value: Any) -> Json:
        """A normalised value as JSON."""
        return [self.item.write(item) for item in value]

    def schema(self) -> dict[str, Json]:
        """The kind as a JSON Schema."""
        least = {"minItems": self.least} if self.least else {}
        most = {} if self.most is None else {"maxItems": self.most}
        return {"type": "array", "items": self.item.schema(), **least, **most}


@dataclass(frozen=True, slots=True)
class Pair:
    """A list of two: an MSR's number and a value."""

    first: Kind
    second: Kind

    def read(self, value: Json, at: At) -> Any:
        """The value normalised."""
        if not isinstance(value, list) or len(value) != 2:
            at.refuse(f"{quoted(value)} is not a pair [number, value]")
            return [None, None]
        return [self.first.read(value[0], at / 0), self.second.read(value[1], at / 1)]

    def write(self, value: Any) -> Json:
        """A normalised value as JSON."""
        return [self.first.write(value[0]), self.second.write(value[1])]

    def schema(self) -> dict[str, Json]:
        """The kind as a JSON Schema."""
        return {
            "type": "array",
            "prefixItems": [self.first.schema(), self.second.schema()],
            "items": False,
            "minItems": 2,
        }


@dataclass(frozen=True, slots=True)
class Object:
    """An object with some keys required and others optional; ``more`` checks what no single value shows."""

    what: str
    required: Mapping[str, Kind] = field(default_factory=dict)
    optional: Mapping[str, Kind] = field(default_factory=dict)
    more: Callable[[dict[str, Any], At], None] | None = None
    more_schema: Mapping[str, Json] = field(default_factory=dict)
    prefix: str = ""

    def read(self, value: Json, at: At) -> Any:
        """The value normalised."""
        if not isinstance(value, dict):
            at.refuse(f"{quoted(value)} is not an object: {self.what} is wanted")
            return {}
        kinds = {**self.required, **self.optional}
        before = len(at.problems)
        result = {}
        for key, item in value.items():
            if key in kinds:
                result[key] = kinds[key].read(item, at / key)
            elif not (self.prefix and key.startswith(self.prefix)):
                (at / key).refuse(f"{self.what} has no {quoted(key)}; {one_of(kinds, key)}")
        missing = [key for key in self.required if key not in value]
        for key in missing:
            at.refuse(f"{self.what} needs {quoted(key)}")
        if self.more is not None and len(at.problems) == before:
            self.more(result, at)
        return result

    def write(self, value: Any) -> Json:
        """A normalised value as JSON."""
        kinds = {**self.required, **self.optional}
        return {key: kinds[key].write(item) for key, item in value.items()}

    def schema(self) -> dict[str, Json]:
        """The kind as a JSON Schema."""
        kinds = {**self.required, **self.optional}
        return {
            "type": "object",
            "properties": {key: kind.schema() for key, kind in kinds.items()},
            **({"patternProperties": {f"^{self.prefix}": True}} if self.prefix else {}),
            "additionalProperties": False,
            **({"required": list(self.required)} if self.required else {}),
            **self.more_schema,
        }


@dataclass(frozen=True, slots=True)
class Either:
    """A value whose JSON type decides of which kind it is."""

    what: str
    kinds: Mapping[type, Kind]

    def _kind(self, value: Any) -> Kind | None:
        number = 0 if isinstance(value, float) else value  # JSON knows one type of numbers
        for kind_of, kind in self.kinds.items():
            if isinstance(number, kind_of):
                return kind
        return None

    def read(self, value: Json, at: At) -> Any:
        """The value normalised."""
        kind = self._kind(value)
        if kind is None:
            at.refuse(f"{quoted(value)} is not {self.what}")
            return None
        return kind.read(value, at)

    def write(self, value: Any) -> Json:
        """A normalised value as JSON."""
        kind = self._kind(value)
        assert kind is not None, value
        return kind.write(value)

    def schema(self) -> dict[str, Json]:
        """The kind as a JSON Schema."""
        forms: list[Json] = []
        for kind in self.kinds.values():
            if kind.schema() not in forms:
                forms.append(kind.schema())
        return {"anyOf": forms}


@dataclass(frozen=True, slots=True)
class Named:
    """A kind that the schema defines once, under a name, and refers to."""

    name: str
    kind: Kind

    def read(self, value: Json, at: At) -> Any:
        """The value normalised."""
        return self.kind.read(value, at)

    def write(self, value: Any) -> Json:
        """A normalised value as JSON."""
        return self.kind.write(value)

    def schema(self) -> dict[str, Json]:
        """The kind as a JSON Schema."""
        return {"$ref": f"#/$defs/{self.name}"}
