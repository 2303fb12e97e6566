"""Fuzzes the reader, the adapters, the playground and the API for a time, and prints the counts as JSON.

python bench/fuzz.py reader --seconds 900        # also: adapters, playground, api
python bench/fuzz.py reader --seconds 900 --guided   # inputs are led by coverage: needs the package atheris

A finding is whatever is not the answer that each of them gives to what is wrong; it is printed with the input that
gave it, and the status is 1.
"""

import argparse
import copy
import importlib
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema

from specctrl.model.outcomes import Misuse
from specctrl.scenario import Invalid, json_schema, loads, read
from specctrl.scenario.format import OPERATIONS
from specctrl.scenario.machine import Machine
from specctrl.scenario.running import EmulatorTarget, TargetFailed, run_one
from specctrl.site import playground
from specctrl.targets.adapter import AdapterTarget
from specctrl.targets.program import Broken

ROOT = Path(__file__).resolve().parent.parent
BEYOND = ("entries for", "no earlier", "bits that this host refuses", "on a host without SPEC_CTRL")
"""Parts of the checker's reasons that no schema can give."""
LONGEST = 10.0
"""Seconds that one input may take."""


class Different(Exception):
    """Two that should agree do not."""


class Fuzzer:
    """Random changes of published scenarios, from one seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.scenarios = read([ROOT / "vectors"])
        self.documents = [json.loads(Path(each.file).read_bytes()) for each in self.scenarios]
        self.atoms: list[Any] = [
            None, True, False, 0, -1, 1, 1.0, -0.0, 0.5, 1e300, 1 << 31, 1 << 32, 1 << 64, -(1 << 64), 10**45, "", "0x",
            "0x1", "0x1\n", "0xffffffffffffffff", "0x1ffffffffffffffff", "\u0661", "\x1b[2K", "\u2028", "x" * 10_000,
            [], {}, [[]], [{}], {"part": "skylake-server"}, "all", "vm", "vcpu", "EINVAL", "#GP", "sapphire-rapids"]
        self.schema = jsonschema.Draft202012Validator(json_schema())
        self.guided = False

    def changed(self, document: Any) -> Any:
        """A document with a few things replaced, removed, added or moved."""
        document = copy.deepcopy(document)
        for _ in range(self.random.randint(1, 4)):
            all_places = list(places(document))
            if not all_places:
                return document
            container, key = self.random.choice(all_places)
            match self.random.randrange(6):
                case 0:
                    del container[key]
                case 1 if isinstance(container, dict):
                    container[self.random.choice(["x-a", "vcpu", "op", "msr", "value", "", "a/~b"])] = self.any()
                case 1:
                    container.insert(key, self.any())
                case 2:
                    _, other = self.random.choice(all_places)
                    if isinstance(container, dict) and isinstance(other, str):
                        container[other] = copy.deepcopy(container[key])
                case 3 if isinstance(container[key], int | float) and not isinstance(container[key], bool):
                    container[key] = self.random.choice([float, int, hex_of])(container[key])
                case _:
                    container[key] = self.any()
        return document

    def any(self) -> Any:
        """Any value."""
        which = self.random.randrange(4)
        if which == 0:
            return self.random.getrandbits(self.random.choice([1, 3, 8, 32, 64, 65]))
        if which == 1:
            return f"0x{self.random.getrandbits(self.random.choice([1, 11, 32, 64, 65])):x}"
        return copy.deepcopy(self.random.choice(self.atoms))

    def bytes_of(self, text: str) -> bytes:
        """A text with a few bytes changed, or as it is."""
        data = bytearray(text.encode())
        if self.random.randrange(3) == 0:
            for _ in range(self.random.randint(1, 8)):
                at = self.random.randrange(len(data) + 1)
                match self.random.randrange(3):
                    case 0:
                        data[at:at + self.random.randint(1, 9)] = b""
                    case 1:
                        data[at:at] = bytes([self.random.randrange(256)])
                    case _:
                        some = [b"{", b"[", b'"', b"\\ud800", b"\xff", b"1e999", b"NaN", b"-"]
                        data[at:at + 1] = self.random.choice(some)
        return bytes(data)

    # ---- what is fuzzed; each says what became of one input

    def reader(self) -> tuple[Any, Callable[[], str]]:
        """A file: read or refused with places, by the schema alike; what is read is run."""
        text = self.bytes_of(json.dumps(self.changed(self.random.choice(self.documents)), ensure_ascii=False))
        return text, lambda: self.read(text)

    def read(self, text: bytes) -> str:
        """What becomes of a file."""
        try:
            scenario = loads(text, "file")
        except Invalid as invalid:
            if not invalid.problems or any("\n" in str(problem) for problem in invalid.problems):
                raise Different("no problem, or one of two lines") from None
            reasons = [problem.reason for problem in invalid.problems]
            if b"\\n" in text or not self.comparable(text):
                return "refused"
            valid = self.schema.is_valid(json.loads(text))
            if valid and not all(any(part in reason for part in BEYOND) for reason in reasons):
                raise Different(f"the schema accepts it; {reasons}") from None
            return "refused, compared with the schema"
        if self.comparable(text) and not self.schema.is_valid(json.loads(text)):
            raise Different("the schema refuses it")
        result = run_one(scenario, EmulatorTarget(scenario.profile))
        return f"read, {result.status}"

    def comparable(self, text: bytes) -> bool:
        """Whether it is a JSON document, of which alone the schema speaks; where coverage leads, none is compared."""
        if self.guided:
            return False
        try:
            json.loads(text.decode("utf-8"), parse_constant=int, object_pairs_hook=once)
        except (ValueError, RecursionError):
            return False
        return b"\\ud" not in text.lower()

    def adapters(self) -> tuple[Any, Callable[[], str]]:
        """An answer of a program to a step, in JSON or in words."""
        scenario = self.random.choice(self.scenarios)
        step = self.random.choice(scenario.steps)
        expect = self.changed(step.source.get("expect", {})) if self.random.randrange(8) else self.any()
        text = self.bytes_of(json.dumps(expect, ensure_ascii=False)).decode("utf-8", "replace").replace("\n", " ")
        plain = bool(self.random.randrange(2))
        if plain:
            words = [f"{key}={self.word(value)}" for key, value in (expect if isinstance(expect, dict) else {}).items()]
            text = self.random.choice([text, " ".join(words), "ok", "ok ok", "misuse=", "unsupported=\x1b", "=", "a=,"])

        def asked() -> str:
            try:
                result = run_one(scenario, Scripted(text, plain))
            except TargetFailed as failed:
                if not str(failed).isprintable():
                    raise Different(f"not printable: {failed!s:.200}") from None
                return f"{'words' if plain else 'json'}, nonsense"
            return f"{'words' if plain else 'json'}, {result.status}"

        return (scenario.id, text, plain), asked

    def word(self, value: Any) -> str:
        """A value as words have it, more or less."""
        return self.random.choice([str, json.dumps, repr])(value).replace(" ", "")

    def playground(self) -> tuple[Any, Callable[[], str]]:
        """What an address of the playground, and then its buttons, ask of Python."""
        document = self.changed(self.random.choice(self.documents)) if self.random.randrange(4) else self.any()
        step = self.changed({"op": self.random.choice(list(OPERATIONS)), "vcpu": 0, "msr": "0x48", "value": "0x1"})

        def asked() -> str:
            given = document if isinstance(document, dict) else {"host": document}
            if "schema" in given:
                answer = playground.open_scenario(given)
            else:
                answer = playground.start(given.get("host"), steps=[step])
            json.dumps(answer)
            if playground._play is not None:
                if isinstance(step, dict):
                    json.dumps(playground.perform(step))
                saved = playground.save()
                if "steps" in saved:
                    result = run_one(loads(json.dumps(saved)), EmulatorTarget(saved["profile"]))
                    if result.status != "pass":
                        raise Different(f"what was saved does not pass: {result.why}")
                    if playground._play.rows:
                        json.dumps(playground.undo())
            return "refused" if answer.get("problem") else "performed"

        return (document, step), asked

    def api(self) -> tuple[Any, Callable[[], str]]:
        """Calls of a machine with arguments of any kind: an observation, Misuse, or a wrong argument's error."""
        calls = []
        for _ in range(self.random.randint(1, 12)):
            name = self.random.choice(list(OPERATIONS))
            given = {key: self.argument(key) for key in OPERATIONS[name].args if self.random.randrange(4)}
            calls.append((name, given))
        host = self.random.choice(["sapphire-rapids", "skylake-server", "ice-lake-server"])

        def asked() -> str:
            machine = Machine(host, self.variant(), record=False)
            machine.create_vcpu()
            ends: Counter[str] = Counter()
            for name, given in calls:
                before = json.dumps(machine.registers(), default=str)
                try:
                    getattr(machine, name)(**given)
                    ends["performed"] += 1
                except (Misuse, ValueError, TypeError, KeyError, AttributeError) as refused:
                    ends[type(refused).__name__] += 1
                    if json.dumps(machine.registers(), default=str) != before:
                        raise Different(f"{name}({given}) raised {refused!r} and changed something") from None
            return max(ends, key=ends.__getitem__)

        return (host, calls), asked

    def variant(self) -> str:
        """A variant."""
        return self.random.choice(["spec", "rfc-v3"])

    def argument(self, key: str) -> Any:
        """An argument: what scenarios have, or anything."""
        if key in ("vcpu",) and self.random.randrange(4):
            return 0
        if self.random.randrange(2):
            return self.any()
        some = self.random.sample(self.documents, 20)
        found = [item[key] for document in some for item in document["steps"] if key in item]
        return integers(self.random.choice(found)) if found else self.any()


class Scripted(AdapterTarget):
    """An adapter whose program says the same to every step, so that no process is needed."""

    def __init__(self, text: str, plain: bool) -> None:
        super().__init__("scripted", plain=plain)
        self.text = text
        self.began_once = False
        if not plain:
            self._encode = json.dumps

    def exchange(self, messages: Any) -> list[str]:
        """The answers."""
        if messages[0]["op"] == "begin":
            return ["ok" if self._encode is not json.dumps else "{}"]
        if not self.text:
            raise Broken(f"{self.name} ended with status 7 instead of answering")
        return [self.text for _ in messages]


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys are different; ValueError otherwise."""
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a key stands here twice")
    return dict(pairs)


def integers(value: Any) -> Any:
    """Hex strings as numbers, as the machine takes them."""
    if isinstance(value, list):
        return [integers(item) for item in value]
    if isinstance(value, dict):
        return {key: integers(item) for key, item in value.items()}
    try:
        return int(value, 16) if isinstance(value, str) and value.startswith("0x") else value
    except ValueError:
        return value


def hex_of(number: Any) -> Any:
    """A number as a hex string."""
    return f"{int(number):#x}"


def places(value: Any) -> Any:
    """Every place in a document: container and key."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in list(items):
        yield value, key
        yield from places(item)


def fuzz(what: str, seconds: float, seed: int) -> int:
    """Fuzz one of them; 1 if anything was found."""
    fuzzer, began, findings = Fuzzer(seed), time.monotonic(), 0
    counts: Counter[str] = Counter()
    slowest = 0.0
    while time.monotonic() - began < seconds and findings < 50:
        given, ask = getattr(fuzzer, what)()
        start = time.monotonic()
        try:
            counts[ask()] += 1
        except (Exception, RecursionError) as error:
            counts["found"] += 1
            findings += 1
            print(f"{type(error).__name__}: {str(error)[:500]}\n  {given!r:.3000}", file=sys.stderr, flush=True)
        slowest = max(slowest, time.monotonic() - start)
    if slowest > LONGEST:
        findings += 1
    print(json.dumps({"what": what, "seconds": round(time.monotonic() - began), "seed": seed, "inputs": counts.total(),
                      "slowest": round(slowest, 2), "ends": dict(counts.most_common())}), flush=True)
    return 1 if findings else 0


def guided(what: str, seconds: float, seed: int) -> None:
    """Inputs that are led by the coverage of the reader's code; atheris prints what it does."""
    import atheris

    for loaded in [name for name in sys.modules if name.partition(".")[0] == "specctrl"]:
        del sys.modules[loaded]
    with atheris.instrument_imports(include=["specctrl"]):
        globals().update({name: getattr(importlib.import_module(module), name) for module, name in (
            ("specctrl.scenario", "Invalid"), ("specctrl.scenario", "loads"), ("specctrl.scenario", "read"),
            ("specctrl.scenario", "json_schema"), ("specctrl.scenario.running", "EmulatorTarget"),
            ("specctrl.scenario.running", "run_one"))})
    fuzzer = Fuzzer(seed)
    fuzzer.guided = True

    def one(data: bytes) -> None:
        fuzzer.read(data)

    assert what == "reader"
    corpus = ROOT / "_build" / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for scenario in fuzzer.scenarios[::5]:
        (corpus / scenario.id).write_bytes(Path(scenario.file).read_bytes())
    atheris.Setup([sys.argv[0], f"-max_total_time={int(seconds)}", "-timeout=10", "-rss_limit_mb=2048",
                   "-max_len=8192", "-print_final_stats=1", str(corpus)], one)
    atheris.Fuzz()


def main() -> int:
    """Fuzz what is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["reader", "adapters", "playground", "api"])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--guided", action="store_true")
    options = parser.parse_args()
    if options.guided:
        guided(options.what, options.seconds, options.seed)
        return 0
    return fuzz(options.what, options.seconds, options.seed)


if __name__ == "__main__":
    sys.exit(main())
