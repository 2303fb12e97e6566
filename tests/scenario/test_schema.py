"""The checker and the published schema accept the same files: drawn from either, with numbers in every notation."""

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from published_files import ROOT
from scenario_samples import scenario, write
from specctrl.scenario import Invalid, Problem, json_schema, loads, read
from specctrl.scenario.format import MOST_STEPS
from specctrl.scenario.reading import DEEPEST, LARGEST


def pattern(_validator: Any, wanted: str, value: Any, _schema: Any) -> Iterator[jsonschema.ValidationError]:
    """A pattern as JSON Schema means it: its $ is the end, where Python's is also before a last newline."""
    if isinstance(value, str) and not re.search(wanted.replace("$", r"\Z"), value):
        yield jsonschema.ValidationError(f"{value!r} does not match {wanted!r}")


DOCUMENT = json_schema()
SCHEMA = jsonschema.validators.extend(jsonschema.Draft202012Validator, {"pattern": pattern})(DOCUMENT)
BEYOND = ("entries for", "no earlier", "bits that this host refuses", "on a host without SPEC_CTRL")
"""Parts of the reasons that no schema can give: lengths, references between steps, what a host cannot run with."""
VECTORS = [json.loads(Path(each.file).read_bytes()) for each in read([ROOT / "vectors"])[::20]]
NUMBERS = st.sampled_from([
    0, -0.0, 0.0, 1, 1.0, -1, -1.0, 0.5, 1e3, 1e300, 5e-324, 3.0, 4.0, 72.0, (1 << 32) - 1, 1 << 32, 4294967295.0,
    4294967296.0, (1 << 53) + 1, 9007199254740992.0, (1 << 64) - 1, 1 << 64, 18446744073709549568.0,
    18446744073709551616.0, 10**39, 10**40, -(10**40), 10**400, True, False])
WORDS = st.sampled_from([
    "", "0x", "0x1", "0X1", "0x1\n", "0x00000000000000000001", "0xffffffffffffffff", "0x1ffffffffffffffff",
    "0x100000000", "IA32_SPEC_CTRL", "IA32_SPEC_CTRL\n", "sapphire-rapids", "spec", "a.b", "a.b\n", "a..b",
    "0x\u0661", "\u0661", "0x1g", "all", "vm", "vcpu", "allow", "EINVAL", "E\n", "#GP", "#gp", "#GP\n", "cpuid",
    "rdmsr", "\u00e9", "\n", "\u2028"])
VALUES = st.recursive(
    st.one_of(st.none(), NUMBERS, WORDS, st.integers(-2, 1 << 65), st.floats(allow_nan=False, allow_infinity=False)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(WORDS, inner, max_size=2)), max_leaves=4)


def of_checker(text: str) -> list[Problem]:
    """What the checker finds wrong with a file."""
    try:
        loads(text)
    except Invalid as invalid:
        return invalid.problems
    return []


def agree(text: str) -> bool:
    """Whether both accept it, or neither, or the checker alone for reasons that no schema can give."""
    problems = of_checker(text)
    if SCHEMA.is_valid(json.loads(text, parse_int=lambda digits: int(digits[:100]))):  # longer ones are as wrong
        return all(any(part in problem.reason for part in BEYOND) for problem in problems)
    return bool(problems)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in a document: container and key."""
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield value, key
        yield from places(item)


def drawn(schema: Any) -> st.SearchStrategy[Any]:
    """Whatever a schema accepts, for the words of JSON Schema that this one uses; conditions are left to luck."""
    if schema is True or not schema:
        return VALUES
    if "$ref" in schema:
        return st.deferred(lambda: drawn(DOCUMENT["$defs"][schema["$ref"].rpartition("/")[2]]))
    if "enum" in schema or "const" in schema:
        return st.sampled_from(schema.get("enum", [schema.get("const")]))
    if "anyOf" in schema and "properties" not in schema and "type" not in schema:
        return st.one_of([drawn(form) for form in schema["anyOf"]])
    kind = schema.get("type", "object")
    if kind == "string":
        return st.from_regex(schema["pattern"].replace("$", r"\Z")) if schema["pattern"] != r"^[\s\S]*$" else WORDS
    if kind == "integer":
        exact = st.integers(schema["minimum"], schema["maximum"])
        return exact | exact.map(float)
    if kind in ("boolean", "null"):
        return st.booleans() if kind == "boolean" else st.none()
    if kind == "array":
        if "prefixItems" in schema:
            return st.tuples(*map(drawn, schema["prefixItems"])).map(list)
        return st.lists(drawn(schema["items"]), min_size=schema.get("minItems", 0), max_size=3)
    assert kind == "object", schema
    required = {key: drawn(schema["properties"][key]) for key in schema.get("required", ())}
    optional = {key: drawn(form) for key, form in schema["properties"].items() if key not in required}
    return st.fixed_dictionaries(required, optional=optional)


STEP = st.sampled_from([name for name in DOCUMENT["$defs"] if name.startswith("op-")]).flatmap(
    lambda name: drawn(DOCUMENT["$defs"][name]).map(lambda step: {**step, "op": name[3:].replace("-", "_")}))
HEAD = drawn({**DOCUMENT, "properties": {key: form for key, form in DOCUMENT["properties"].items() if key != "steps"},
              "required": [key for key in DOCUMENT["required"] if key != "steps"]})


@given(st.data())
def test_a_changed_vector_is_refused_by_both_or_by_neither(data: st.DataObject) -> None:
    document = copy.deepcopy(data.draw(st.sampled_from(VECTORS)))
    for _ in range(data.draw(st.integers(1, 3))):
        container, key = data.draw(st.sampled_from(list(places(document))))
        match data.draw(st.sampled_from(["replace", "replace", "remove", "add"])):
            case "replace":
                container[key] = data.draw(VALUES)
            case "remove":
                del container[key]
            case "add" if isinstance(container, dict):
                key = data.draw(st.sampled_from(["x-a", "vcpu", "op", "value", "expect", "msr"]))
                container[key] = data.draw(VALUES)
            case _:
                container.insert(key, data.draw(VALUES))
        if not document:
            return
    assert agree(json.dumps(document)), of_checker(json.dumps(document))


@given(HEAD, st.lists(STEP, min_size=1, max_size=3))
def test_what_is_drawn_from_the_schema_is_accepted_by_both_or_by_neither(head: Any, steps: Any) -> None:
    text = json.dumps({**head, "steps": [{"op": "create_vcpu"}, *steps]})
    assert agree(text), of_checker(text)


@pytest.mark.parametrize(("number", "value"), [
    ("1", 1), ("1.0", 1), ("-0.0", 0), ("-0", 0), ("1e3", 1000), ("10.0e-1", 1), ("1E+2", 100), ("1.5", None),
    ("1e400", None), ("-1.0", None), ("18446744073709551616.0", None), ("1" + "0" * 40, None),
    ("-1" + "0" * 5000, None)])
def test_a_number_is_an_integer_by_its_value_and_not_by_its_notation(number: str, value: int | None) -> None:
    text = json.dumps(scenario(write("NUMBER"))).replace('"NUMBER"', number)
    assert agree(text)
    if value is None:
        assert of_checker(text)
    else:
        assert loads(text).steps[1].args["value"] == value


@pytest.mark.parametrize("value", ["1.5", "-0.0", "1" * 5000, "-" + "1" * 41, "1e400", '[{"a": 0.1}]', "null", '"\\n"'])
def test_an_ignored_key_may_hold_anything(value: str) -> None:
    text = json.dumps(scenario()).replace("{", f'{{"x-own": {value}, ', 1)
    assert of_checker(text) == []
    SCHEMA.validate(json.loads(text, parse_int=float))


def test_there_is_room_for_so_many_steps() -> None:
    def steps(count: int) -> str:
        return json.dumps({**scenario(), "steps": [{"op": "create_vcpu"}] + [{"op": "exit"}] * (count - 1)})

    assert of_checker(steps(MOST_STEPS)) == []
    [problem] = of_checker(steps(MOST_STEPS + 1))
    assert (problem.pointer, problem.reason) == ("/steps", "10001 steps, where there is room for 10000")
    assert not SCHEMA.is_valid(json.loads(steps(MOST_STEPS + 1)))


@pytest.mark.parametrize("depth", [DEEPEST, *range(980, 1000), 100_000])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_what_is_nested_too_deeply_is_refused(depth: int, opening: str, closing: str) -> None:
    text = f'{{"x-a": {opening * depth}0{closing * depth}}}'
    assert any(problem.reason == "nested too deeply: more than 100 objects and lists in one another"
               for problem in of_checker(text))
    fits = f'{{"x-a": {opening * (DEEPEST - 1)}0{closing * (DEEPEST - 1)}}}'
    assert not any("nested" in problem.reason for problem in of_checker(fits))


def test_a_file_that_is_too_large_is_refused_before_it_is_read(tmp_path: Any) -> None:
    with (tmp_path / "large.json").open("wb") as file:
        file.truncate(LARGEST + 1)
    with pytest.raises(Invalid, match="has more than 16777216 bytes"):
        read([tmp_path])
    assert [problem.reason for problem in of_checker(" " * (LARGEST + 1))] == ["has more than 16777216 bytes"]
