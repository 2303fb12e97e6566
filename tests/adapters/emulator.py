"""A complete adapter: it forwards every operation to the emulator.  ``--plain``: words instead of JSON."""

import json
import re
import sys
from typing import Any

from specctrl.model.outcomes import Misuse, Unsupported
from specctrl.scenario.machine import Machine

LISTS = {"features", "args", "msrs", "msr_load", "msr_store", "exit_msr_store", "exit_msr_load", "ranges", "intercept",
         "offers"}


def numbers(value: Any) -> Any:
    """The same message with its hex strings as ints."""
    if isinstance(value, dict):
        return {key: numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [numbers(item) for item in value]
    return int(value, 16) if isinstance(value, str) and re.fullmatch("0x[0-9a-f]+", value) else value


def host(message: dict[str, Any]) -> dict[str, Any]:
    """The host that ``begin`` or ``migrate`` describes, as the emulator takes it."""
    return {key: value for key, value in message.items() if key != "legacy_ibrs"}


def from_words(line: str) -> dict[str, Any]:
    """A message in the plain form."""
    message: dict[str, Any] = {}
    for word in line.split():
        key, _, text = word.partition("=")
        outer, _, inner = key.partition(".")
        into = message.setdefault(outer, {}) if inner else message
        name = inner or outer
        into[name] = [item(name, part) for part in text.split(",") if part] if name in LISTS else scalar(text)
    return {**message, "intercept": "all"} if message.get("intercept") == ["all"] else message


def item(name: str, text: str) -> Any:
    """One entry of a list."""
    parts = text.split(":")
    if name == "ranges":
        base, count, access, allow = parts
        return {"base": base, "count": int(count), "read": "r" in access, "write": "w" in access,
                "allow": [digit == "1" for digit in allow]}
    if name == "intercept" and len(parts) == 2:
        return {"msr": parts[0], "read": "r" in parts[1], "write": "w" in parts[1]}
    return parts if len(parts) == 2 else text


def scalar(text: str) -> Any:
    """One value."""
    if text in ("true", "false"):
        return text == "true"
    return int(text) if text.isdigit() else text.replace("%20", " ")


def to_words(answer: dict[str, Any]) -> str:
    """An answer in the plain form."""
    if "unsupported" in answer or "misuse" in answer:
        return " ".join(f"{key}={value}" for key, value in answer.items())
    return " ".join(f"{key}={word(value)}" for key, value in flat(answer)) or "ok"


def flat(answer: dict[str, Any]) -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for key, value in answer.items():
        if isinstance(value, dict):
            pairs += [(f"{key}.{inner}", part) for inner, part in value.items()]
        else:
            pairs.append((key, value))
    return pairs


def word(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(":".join(map(word, part)) if isinstance(part, list) else word(part) for part in value)
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def main() -> None:
    plain = "--plain" in sys.argv
    machine = Machine()
    for line in sys.stdin:
        message = numbers(from_words(line) if plain else json.loads(line))
        answer: dict[str, Any] = {}
        try:
            if message["op"] == "begin":
                machine = Machine(host(message["host"]), assume=message["assume"])
            else:
                answer = machine.perform({**message, **({"to": host(message["to"])} if "to" in message else {})})
        except Unsupported as why:
            answer = {"unsupported": str(why)}
        except Misuse as why:
            answer = {"misuse": str(why)}
        print(to_words(answer) if plain else json.dumps(answer), flush=True)


main()
