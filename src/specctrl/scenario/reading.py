"""Reading scenario files: JSON taken strictly, then everything that a file alone shows.

Nothing is run here.  A file yields either a :class:`Scenario` whose numbers are ints and whose
arguments have their defaults, or problems that name file, JSON pointer and reason.
"""

import json
import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from specctrl.scenario.format import MOST_STEPS, OPERATIONS, PROFILES, REQUIRED, SHOWS, TOP, Operation
from specctrl.scenario.kinds import At, Json, Object, Problem, one_of, quoted


@dataclass(frozen=True, slots=True)
class Step:
    """One step: its operation, its arguments and what it must show, normalised; and as written."""

    op: str
    args: dict[str, Any]
    expect: dict[str, Any]
    source: dict[str, Json] = field(repr=False)

    def call(self) -> dict[str, Any]:
        """The step as a target performs it: ``op`` and arguments, numbers as ints, without ``expect``."""
        return {"op": self.op, **self.args}

    def message(self) -> dict[str, Json]:
        """The step as an adapter is sent it: as :meth:`call`, in the format's own notation of numbers."""
        kinds = OPERATIONS[self.op].args
        return {"op": self.op, **{key: kinds[key].write(value) for key, value in self.args.items()}}


@dataclass(frozen=True, slots=True)
class Scenario:
    """A valid scenario."""

    id: str
    host: str | dict[str, Any]
    steps: tuple[Step, ...]
    profile: str = PROFILES[0]
    assume: dict[str, bool] = field(default_factory=dict)
    rules: tuple[str, ...] = ()
    title: str = ""
    why: str = ""
    file: str = ""


class Invalid(Exception):
    """Files that are not valid scenarios; ``problems`` says where and why."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


def read(paths: Iterable[str | os.PathLike[str]]) -> list[Scenario]:
    """The scenarios of files and of directories of files; Invalid, with every problem of every file."""
    problems: list[Problem] = []
    scenarios: list[Scenario] = []
    for file in scenario_files(paths, problems):
        try:
            status = file.stat()
            if not stat.S_ISREG(status.st_mode):
                problems.append(Problem(str(file), "", "is no regular file"))
                continue
            if status.st_size > LARGEST:
                problems.append(Problem(str(file), "", f"has more than {LARGEST} bytes"))
                continue
            scenarios.append(loads(file.read_bytes(), str(file)))
        except OSError as error:
            problems.append(Problem(str(file), "", f"cannot be read: {error.strerror}"))
        except Invalid as invalid:
            problems.extend(invalid.problems)
    first: dict[str, str] = {}
    for scenario in scenarios:
        if scenario.id in first:
            reason = f"the id {quoted(scenario.id)} is also that of {first[scenario.id]}"
            problems.append(Problem(scenario.file, "/id", reason))
        first.setdefault(scenario.id, scenario.file)
    if problems:
        raise Invalid(problems)
    return scenarios


def loads(text: str | bytes, file: str = "scenario") -> Scenario:
    """The scenario in ``text``; Invalid, with every problem of it, each naming ``file``."""
    at = At(file)
    document = parse(text, at)
    scenario = _scenario(document, at) if not at.problems else None
    if at.problems or scenario is None:
        raise Invalid(at.problems)
    return scenario


def load(document: dict[str, Json], file: str = "scenario") -> Scenario:
    """The scenario in a JSON document that is in memory already; Invalid as for a file."""
    return loads(json.dumps(document), file)


NOT_SCENARIOS = ("RELEASED.json", "index.json")
"""Files of a published set that are none of its scenarios."""


def scenario_files(
    paths: Iterable[str | os.PathLike[str]], problems: list[Problem] | None = None
) -> Iterator[Path]:
    """Each file once; of a directory all ``*.json``, except hidden files, schemas and :data:`NOT_SCENARIOS`.

    A directory that cannot be listed, and a path that is empty, go to the ``problems``; without them they raise.
    """
    seen: set[str] = set()
    for path in paths:
        if not os.fspath(path):
            _cannot_be_read("", "an empty path names nothing", problems)
            continue
        for file in _inside(Path(path), problems) if os.path.isdir(path) else [Path(path)]:
            try:
                real = os.path.realpath(file)
            except OSError:  # the current folder is gone
                real = os.fspath(file)
            if real not in seen:
                seen.add(real)
                yield file


def _inside(folder: Path, problems: list[Problem] | None) -> list[Path]:
    """The files of scenarios in a folder and in those below it, as far as these are no links."""
    found = []

    def refuse(error: OSError) -> None:
        _cannot_be_read(str(error.filename), f"cannot be read: {error.strerror}", problems)

    for place, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(place, name) for name in names if _is_scenario(name)]
    return sorted(found, key=lambda file: file.parts)


def _cannot_be_read(path: str, why: str, problems: list[Problem] | None) -> None:
    if problems is None:
        raise OSError(f"{path!r}: {why}")
    problems.append(Problem(path, "", why))


def _is_scenario(name: str) -> bool:
    scenario = name.endswith(".json") and not name.startswith(".")
    return scenario and not name.endswith(".schema.json") and name not in NOT_SCENARIOS


class _Object(dict[str, Json]):
    """A JSON object that remembers which of its keys stood in it twice."""

    def __init__(self, pairs: list[tuple[str, Json]]) -> None:
        super().__init__(pairs)
        counts = Counter(name for name, _ in pairs) if len(self) < len(pairs) else {}
        self.twice = [name for name, count in counts.items() if count > 1]


@dataclass(frozen=True, slots=True)
class _NotJson:
    """Something that Python's reader takes for a number and that is none here."""

    reason: str


_LONGEST_NUMBER = 40
"""Digits of an integer that is kept exactly; what is longer has more than 64 bits anyway, and is kept as a double."""

LARGEST = 16 << 20
"""Bytes that a file may have."""

DEEPEST = 100
"""So many objects and lists may lie in one another."""


def _integer(digits: str) -> Json:
    return int(digits) if len(digits) <= _LONGEST_NUMBER else float(digits)


def parse(text: str | bytes, at: At) -> Json:
    """The JSON document in ``text``, taken strictly; what is wrong goes to ``at``."""
    if len(text) > LARGEST:
        at.refuse(f"has more than {LARGEST} bytes")
        return None
    try:
        document = json.loads(
            text.decode("utf-8") if isinstance(text, bytes) else text,
            object_pairs_hook=_Object,
            parse_int=_integer,
            parse_constant=lambda name: _NotJson(f"{name} is not JSON"),
        )
    except UnicodeDecodeError as error:
        at.refuse(f"byte {error.start} is not UTF-8")
    except json.JSONDecodeError as error:
        reason = error.msg[0].lower() + error.msg[1:]
        at.refuse(f"not JSON: line {error.lineno}, column {error.colno}: {reason}")
    except RecursionError:
        at.refuse(_TOO_DEEP)
    else:
        _strict(document, at, DEEPEST)
        return document
    return None


_TOO_DEEP = f"nested too deeply: more than {DEEPEST} objects and lists in one another"


def _strict(value: Json, at: At, deeper: int) -> None:
    """What JSON leaves open and this format does not: no key twice, no NaN, no half characters, no endless depth."""
    if isinstance(value, _Object | list) and not deeper:
        at.refuse(_TOO_DEEP)
    elif isinstance(value, _Object):
        for name in value.twice:
            at.refuse(f"the key {quoted(name)} stands here twice")
        for name, item in value.items():
            _strict(name, at, deeper)
            _strict(item, at / name, deeper - 1)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _strict(item, at / index, deeper - 1)
    elif isinstance(value, _NotJson):
        at.refuse(value.reason)
    elif isinstance(value, str) and re.search("[\ud800-\udfff]", value):
        at.refuse("half of a surrogate pair is no character")


_KEYS = Object(
    "a scenario",
    required={key: TOP[key] for key in REQUIRED},
    optional={key: kind for key, kind in TOP.items() if key not in REQUIRED},
    prefix="x-",
)


def _scenario(document: Json, at: At) -> Scenario | None:
    top = _KEYS.read(document, at)
    steps = _steps(top["steps"], at / "steps") if "steps" in top else []
    if at.problems:
        return None
    return Scenario(
        id=top["id"],
        host=top["host"],
        steps=tuple(steps),
        profile=top.get("profile", PROFILES[0]),
        assume=top.get("assume", {}),
        rules=tuple(top.get("rules", ())),
        title=top.get("title", ""),
        why=top.get("why", ""),
        file=at.file,
    )


def _steps(value: Json, at: At) -> list[Step]:
    if not isinstance(value, list) or not value:
        at.refuse("the steps are a list with at least one step")
        return []
    if len(value) > MOST_STEPS:
        at.refuse(f"{len(value)} steps, where there is room for {MOST_STEPS}")
        return []
    created: set[int] = set()
    saved: set[str] = set()
    steps = []
    for index, item in enumerate(value):
        step = _step(item, at / index)
        if step is not None:
            _references(step, created, saved, at / index)
            steps.append(step)
    return steps


def _step(value: Json, at: At) -> Step | None:
    if not isinstance(value, dict):
        at.refuse(f"{quoted(value)} is not a step: an object is wanted")
        return None
    if "op" not in value:
        at.refuse('a step needs "op"')
        return None
    name = value["op"]
    if not isinstance(name, str) or name not in OPERATIONS:
        (at / "op").refuse(f"{quoted(name)} is not an operation; {one_of(OPERATIONS, str(name))}")
        return None
    operation = OPERATIONS[name]
    args = _arguments(name, operation, value, at)
    expect = _expectations(name, operation, value.get("expect", {}), at / "expect")
    return Step(name, args, expect, dict(value))


def _arguments(name: str, operation: Operation, value: dict[str, Json], at: At) -> dict[str, Any]:
    required = {key: operation.args[key] for key in operation.required()}
    optional = {key: kind for key, kind in operation.args.items() if key not in required}
    given = {key: item for key, item in value.items() if key not in ("op", "expect")}
    before = len(at.problems)
    args = Object(name, required, optional).read(given, at)
    args = {**operation.defaults, **args}
    if operation.more is not None and len(at.problems) == before:
        operation.more(args, at)
    return {key: args[key] for key in operation.args if key in args}


def _expectations(name: str, operation: Operation, value: Json, at: At) -> dict[str, Any]:
    if not isinstance(value, dict):
        at.refuse(f"{quoted(value)} is not an object")
        return {}
    result = {}
    for key, item in value.items():
        if key in operation.expectable():
            result[key] = SHOWS[key].read(item, at / key)
        elif not operation.shows:
            (at / key).refuse(f"{name} shows nothing")
        else:
            (at / key).refuse(f"{name} cannot show {quoted(key)}; it can show {', '.join(operation.expectable())}")
    return result


MAKERS = ("create_vcpu", "get_nested_state")
"""The operations that make what a later step may speak of: a vCPU, a saved state."""


def _references(step: Step, created: set[int], saved: set[str], at: At) -> None:
    """A step speaks only of vCPUs and saved states that an earlier step made."""
    vcpu = step.args.get("vcpu")
    if step.op == "create_vcpu" and isinstance(vcpu, int):
        created.add(vcpu)
    elif vcpu is not None and vcpu not in created:
        place = at / "vcpu" if "vcpu" in step.source else at
        place.refuse(f"no earlier step creates vCPU {vcpu}")
    state = step.args.get("state")
    if not isinstance(state, str):
        return  # there is none, or it is no label, which was said
    if step.op == "get_nested_state":
        saved.add(state)
    elif state not in saved:
        (at / "state").refuse(f"no earlier get_nested_state saves {quoted(state)}")
