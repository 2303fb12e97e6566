"""The plain form of the adapter protocol: words on a line, for adapters without a JSON parser.

Words are separated by one space, each is ``key=value``, the first is ``op=NAME``::

    op=begin host.part=sapphire-rapids host.features=SPEC_CTRL,SSBD host.spec_ctrl_shadow=true … profile=spec
    op=wrmsr vcpu=0 msr=0x48 value=0x400
    op=set_msrs vcpu=0 msrs=0x48:0x1,0x50000002:0x0

* A list has commas, an empty one nothing: ``args=``.  A pair is ``msr:value``.
  The keys of an object follow a dot: ``host.part=…``.
* A range of a filter is ``base:count:rw:allow``, the last with one digit an MSR: ``ranges=0x48:2:rw:10``;
  an interception is ``msr:rw``: ``intercept=0x48:w``, or ``intercept=all``.  ``-`` stands for neither
  read nor write.
* true, false, null; 64-bit quantities and MSRs in hex with 0x, counts and the like in decimal.
  In other text everything but letters, digits and ``# + - . _ ~`` is percent-encoded.

Answers have the same form: ``value=0x1``, ``fault=#GP``, ``exit.kind=rdmsr exit.msr=0x48``.
An empty line or ``ok`` says that the step succeeded and showed nothing.
If a line begins with ``unsupported=`` or ``misuse=``, the rest of the line is the reason, spaces included.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import quote, unquote

from specctrl.scenario.format import HOST, OPERATIONS, PROFILES, SHOWS, No
from specctrl.scenario.kinds import (
    At,
    Choice,
    Either,
    Flag,
    Json,
    Kind,
    Listing,
    Named,
    Null,
    Number,
    Object,
    Pair,
    Text,
)

REASONS = ("unsupported", "misuse")
_SAFE = "#+-._~"


BEGIN_SHOWS: Mapping[str, Kind] = {
    "profiles": Listing(Choice("a profile", PROFILES)), "observes": Listing(Choice("a key", tuple(SHOWS))),
    "unsupported": Text("a reason"),
}
"""What can answer ``begin``; keys of the program's own, which begin with ``x-``, may stand in ``observes`` too."""


def _flat(key: str, kind: Kind) -> Iterator[tuple[str, Kind]]:
    """A key of an answer and the keys that follow a dot, each with the kind of what stands behind its ``=``."""
    match kind:
        case Named():
            yield from _flat(key, kind.kind)
        case Either():
            for each in kind.kinds.values():
                yield from _flat(key, each)
        case Object():
            for inner, each in kind.optional.items():
                yield from _flat(f"{key}.{inner}", each)
        case Null() | No():
            pass  # a word of its own, whatever the key
        case _:
            yield key, kind


KEYS: Mapping[str, Kind] = dict(
    entry for table in (BEGIN_SHOWS, SHOWS) for key, kind in table.items() for entry in _flat(key, kind))
"""What can stand before a ``=`` in an answer, and what behind it."""


def encode(message: Mapping[str, Json]) -> str:
    """A message to an adapter as one line, without the newline.

    >>> encode({"op": "set_msrs", "vcpu": 0, "msrs": [["0x48", "0x1"], ["0x50000002", "0x0"]]})
    'op=set_msrs vcpu=0 msrs=0x48:0x1,0x50000002:0x0'
    """
    return " ".join(f"{key}={text}" for key, text in _words(message))


def _words(message: Mapping[str, Json]) -> list[tuple[str, str]]:
    words: list[tuple[str, str]] = []
    for key, value in message.items():
        if isinstance(value, dict):
            words += [(f"{key}.{inner}", text) for inner, text in _words(value)]
        elif isinstance(value, list):
            words.append((key, ",".join(_item(key, item) for item in value)))
        else:
            words.append((key, _scalar(value)))
    return words


def _item(key: str, item: Json) -> str:
    if isinstance(item, list):
        return ":".join(_scalar(part) for part in item)
    if isinstance(item, dict) and key == "ranges":
        allow = "".join("1" if allowed else "0" for allowed in item["allow"])
        return f"{item['base']}:{item['count']}:{_access(item)}:{allow}"
    if isinstance(item, dict):
        return f"{item['msr']}:{_access(item)}"
    return f"{item}:rw" if key == "intercept" else _scalar(item)


def _access(item: Mapping[str, Json]) -> str:
    return ("r" if item["read"] else "") + ("w" if item["write"] else "") or "-"


def _scalar(value: Json) -> str:
    if isinstance(value, str):
        return quote(value, safe=_SAFE)
    if value is None:
        return "null"
    return str(value).lower()


def decode(line: str) -> dict[str, Json]:
    """An adapter's line as an answer; ValueError if it is none.

    >>> decode("ret=2 values=0x1,0x0")
    {'ret': 2, 'values': ['0x1', '0x0']}
    """
    for reason in REASONS:
        if line.startswith(f"{reason}="):
            return {reason: line.removeprefix(f"{reason}=").strip()}
    if line.strip() in ("", "ok"):
        return {}
    answer: dict[str, Json] = {}
    for word in line.split():
        key, equals, text = word.partition("=")
        if not equals or not re.fullmatch(r"[a-z_x-]+(\.[a-z_]+)?", key):
            raise ValueError(f"{word!r} is not key=value")
        outer, _, inner = key.partition(".")
        into = answer if not inner else answer.setdefault(outer, {})
        last = inner or outer
        if not isinstance(into, dict) or last in into:
            raise ValueError(f"{key!r} is given twice")
        into[last] = _value(text, KEYS.get(key))
    return answer


def _value(text: str, kind: Kind | None) -> Json:
    """What stands behind a ``=``; ValueError for a number that this kind writes in another way."""
    match kind:
        case Named():
            return _value(text, kind.kind)
        case Listing():
            return [_value(item, kind.item) for item in text.split(",")] if text else []
        case Pair() if ":" in text:
            first, _, second = text.partition(":")
            return [_value(first, kind.first), _value(second, kind.second)]
        case Either():
            return _value(text, kind.kinds.get(int))
    if text in _WORDS:
        return _WORDS[text]
    if not re.fullmatch("[0-9]{1,20}", text):
        return unquote(text)
    if isinstance(kind, Number) and kind.hexadecimal and not kind.counts:
        raise ValueError(f"{text} is no number here: {kind.what} is written in hex, with 0x")
    return int(text)


_WORDS: Mapping[str, Json] = {"true": True, "false": False, "null": None}


# ---- every line that there is, by example

def requests(name: str) -> list[dict[str, Json]]:
    """What an operation is sent: with every argument that may be absent, and without; else with one of them.

    >>> requests("smi"), requests("reply_msr_exit")[0]
    ([{'op': 'smi', 'vcpu': 0}], {'op': 'reply_msr_exit', 'vcpu': 0, 'value': '0x1'})
    """
    operation = OPERATIONS[name]
    everything = _request(name, operation.optional)
    some = [everything] if everything else [_request(name, [key]) for key in operation.optional]
    found = [*some, _request(name, [])]
    return [message for at, message in enumerate(found) if message is not None and message not in found[:at]]


def _request(name: str, optional: Iterable[str]) -> dict[str, Json] | None:
    """A message with these of the arguments that may be absent; None if they do not go together."""
    operation = OPERATIONS[name]
    kinds = {key: kind for key, kind in operation.args.items() if key not in operation.optional or key in optional}
    for choice in range(2):
        args = {key: example(kind, choice) for key, kind in kinds.items()}
        at = At(name)
        if operation.more is not None:
            operation.more({**args}, at)
        if not at.problems:
            return {"op": name, **args}
    return None


def answers(name: str) -> list[dict[str, Json]]:
    """What an operation can be answered with, one key each; what shows together is answered together.

    >>> answers("create_vcpu")
    [{'ret': 0}, {'errno': 'EINVAL'}]
    """
    return [{key: example(SHOWS[key])} for key in OPERATIONS[name].shows]


def example(kind: Kind, choice: int = 0) -> Json:
    """A value of a kind as a line has it; ``choice``: which name of a list of names."""
    match kind:
        case Named():
            return example(kind.kind, choice)
        case Number():
            first = next(iter(kind.names.values()), 1 if kind.hexadecimal and not kind.counts else kind.low)
            return kind.write(first)
        case Choice():
            return kind.names[min(choice, len(kind.names) - 1)]
        case Text():
            return next(text for text in ("a", "EINVAL", "#GP") if re.fullmatch(kind.pattern, text))
        case Flag():
            return True
        case Listing():
            return [example(kind.item, choice)]
        case Pair():
            return [example(kind.first), example(kind.second)]
        case Object():
            value = {key: example(each, choice) for key, each in {**kind.required, **kind.optional}.items()}
            return {**value, "count": 1} if "allow" in value else value
        case Either():
            richest = next(each for each in (dict, list, int, str, bool) if each in kind.kinds)
            return example(kind.kinds[richest], choice)
        case _:
            return HOST.write("sapphire-rapids")
