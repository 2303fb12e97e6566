"""Words: every line of every operation says what its JSON says."""

import json
import re

import pytest

from published_files import ROOT
from specctrl.scenario.format import OPERATIONS
from specctrl.scenario.kinds import At, Either, Listing, Named, Number, Object, Pair
from specctrl.scenario.running import normalised
from specctrl.targets.plain import KEYS, answers, decode, encode, requests

NAMES = pytest.mark.parametrize("name", OPERATIONS)
WORD = r"[a-z_-]+(\.[a-z0-9_]+)?=([A-Za-z0-9#+\-._~%]|[,:])*"


@NAMES
def test_every_argument_of_every_operation_is_sent_in_some_line(name):
    operation = OPERATIONS[name]
    sent = requests(name)
    assert {*operation.args} == {key for message in sent for key in message} - {"op"}
    for message in sent:
        at = At(name)
        assert {*operation.required()} <= {*message}
        for key in message.keys() - {"op", "to"}:
            operation.args[key].read(message[key], at / key)
        assert at.problems == []
        assert all(re.fullmatch(WORD, word) for word in encode(message).split(" "))


@NAMES
def test_every_answer_is_the_same_in_words_as_in_json(name):
    found = answers(name)
    assert OPERATIONS[name].shows == tuple(key for answer in found for key in answer)
    for answer in found:
        words = encode(answer)
        assert normalised(decode(words)) == normalised(json.loads(json.dumps(answer)))
        assert {word.partition("=")[0] for word in words.split(" ")} <= KEYS.keys()


@pytest.mark.parametrize("line", ["value=401", "value=0", "values=0x1,2", "contains=72", "wrote=0x48:1", "wrote=72:0x1",
                                  "exit.msr=72", "exit.kind=wrmsr exit.value=5", "mask=4", "shadow=0"])
def test_a_64_bit_quantity_without_0x_is_refused(line):
    with pytest.raises(ValueError, match=r"^\d+ is no number here: .* is written in hex, with 0x$"):
        decode(line)


def test_counts_are_decimal_and_the_rest_of_the_words_is_as_before():
    assert decode("ret=2 level=1 fail.entry=2") == {"ret": 2, "level": 1, "fail": {"entry": 2}}
    assert decode("mask=null shadow=null intercepted=false") == {"mask": None, "shadow": None, "intercepted": False}
    assert decode("observes=ret,value,x-cycles profiles=spec") \
        == {"observes": ["ret", "value", "x-cycles"], "profiles": ["spec"]}
    assert decode("x-cycles=12") == {"x-cycles": 12}


def numbers(kind):
    """The numbers in a value of a kind."""
    match kind:
        case Named():
            yield from numbers(kind.kind)
        case Listing():
            yield from numbers(kind.item)
        case Pair():
            yield from (*numbers(kind.first), *numbers(kind.second))
        case Either():
            for each in kind.kinds.values():
                yield from numbers(each)
        case Object():
            for each in (*kind.required.values(), *kind.optional.values()):
                yield from numbers(each)
        case Number():
            yield kind


def test_the_page_s_grammar_names_every_number_that_is_written_in_decimal():
    page = (ROOT / "spec" / "scenarios.md").read_text()
    said = re.search(r"\| decimal digits +(.*)", page)[1].split(", ")
    in_ranges = {"count"}
    args = [each.args for each in OPERATIONS.values()]
    kinds = {**KEYS, **{key: kind for each in args for key, kind in each.items() if key != "ranges"}}
    decimal = {key for key, kind in kinds.items() if any(each.counts or not each.hexadecimal for each in numbers(kind))}
    assert decimal | in_ranges == {*said}
    assert any(not each.hexadecimal for each in numbers(OPERATIONS["set_msr_filter"].args["ranges"]))
