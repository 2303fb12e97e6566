"""The symbolic executor: it follows rule code for every value, or says that it cannot."""

import pytest

from specctrl.model.outcomes import GP, Errno, Fault
from specctrl.model.processor import LogicalProcessor, Vmcs
from specctrl.model.words import WORD, is_subset, merge
from specctrl.proof.answers import Questions
from specctrl.proof.summaries import summarize, summary_of
from specctrl.proof.symbolic import (
    SymbolicError,
    assume,
    evaluate,
    flag,
    flag_term,
    paths,
    settled,
    word,
    word_term,
)


def run(function):
    """What the function returns on each of its paths."""
    return [result for _, result in paths(function)]


class TestPaths:
    def test_a_test_with_two_answers_makes_two_paths(self):
        assert [False, True] == sorted(run(lambda: bool(word("x"))))

    def test_the_same_test_is_asked_once(self):
        assert [(False, False), (True, True)] == sorted(run(lambda: (bool(word("x") == 1), bool(word("x") == 1))))

    def test_an_answer_that_follows_from_another_makes_no_path(self):
        answers = run(lambda: (bool(word("x") == 1), bool(word("x") == 2)))
        assert [(False, False), (False, True), (True, False)] == sorted(answers)

    def test_the_conditions_of_all_paths_cover_every_value(self):
        def kind():
            if word("x") & 0x1:
                return "odd"
            return "zero" if word("x") == 0 else "even"

        covered = [path.assignment().value(word("x").term) for path, _ in paths(kind)]
        assert 3 == len(set(covered))

    @pytest.mark.parametrize("depth", [2, 3, 4, 6])
    def test_the_answer_of_a_test_that_is_gone_is_given_to_no_other(self, depth):
        """Each path is another run, and its tests are asked anew."""
        def nested():
            for level in range(depth):
                if word(f"x{depth}.{level}") != 1:
                    return level
            return tuple(bool(flag(f"p{depth}.{number}")) for number in range(4))

        found = [result for _, result in paths(nested)]
        assert depth + 2**4 == len(found) == len(set(found))

    def test_an_assumption_restricts_the_path(self):
        def positive():
            assume(word("x") != 0)
            return bool(word("x") == 0)

        assert [False] == run(positive)

    def test_an_assumption_that_nothing_satisfies_leaves_no_path(self):
        def nothing():
            assume(word("x") == 0)
            assume(word("x") == 1)

        assert [] == run(nothing)

    def test_an_exception_of_rule_code_can_end_a_path(self):
        def write():
            try:
                LogicalProcessor(word("writable"), True, False).wrmsr(word("value"))
            except Fault as fault:
                return fault.vector
            return "taken"

        assert [str(GP), "taken"] == sorted(map(str, run(write)))

    def test_an_exception_that_nothing_catches_reaches_the_caller(self):
        def fail():
            raise Errno(22)

        with pytest.raises(Errno):
            run(fail)

    def test_a_run_that_is_not_the_same_twice_is_an_error(self):
        names = iter("abcdefgh")
        with pytest.raises(SymbolicError, match="not the same"):
            run(lambda: bool(word(next(names))))

    def test_rule_code_runs_unchanged_for_every_value(self):
        def write():
            processor = LogicalProcessor(WORD, True, True, spec_ctrl=word("now"))
            vmcs = Vmcs(virtualize_spec_ctrl=True, spec_ctrl_mask=word("mask"), intercept_write=False)
            processor.wrmsr_in_guest(vmcs, word("source"))
            return processor.spec_ctrl

        ((path, register),) = list(paths(write))
        kept = (register.term ^ word("now").term) & word("mask").term == 0
        assert path.failing([kept]) is None
        changed = register.term == word("now").term
        assert path.failing([changed]) is not None


CANNOT = {
    "order": lambda x: x < 1,
    "arithmetic": lambda x: x + 1,
    "conversion to a number": int,
    "formatting or indexing": lambda x: f"{x:#x}",
    "bool": lambda x: x & True,
    "str": lambda x: x == "1",
    "float": lambda x: x | 1.5,
    "0x10000000000000000": lambda x: x | 1 << 64,
    "-0x4": lambda x: x == ~3,
    "bit arithmetic": lambda x: flag("f") & flag("g"),
    "comparison": lambda x: flag("f") == True,  # noqa: E712 - rule code that does so must be refused
}


class TestWhatCannotBeFollowed:
    @pytest.mark.parametrize("message", CANNOT)
    def test_is_an_error_that_says_so(self, message):
        with pytest.raises(SymbolicError, match=message):
            run(lambda: CANNOT[message](word("x")))

    @pytest.mark.parametrize("use", [lambda x: {x: 1}, lambda x: [1, 2][x], lambda x: range(x), lambda x: 1 << x])
    def test_a_word_is_no_key_no_index_and_no_count(self, use):
        with pytest.raises((SymbolicError, TypeError)):
            run(lambda: use(word("x")))

    def test_a_truth_test_outside_a_run(self):
        with pytest.raises(SymbolicError, match="outside"):
            bool(word("x"))

    def test_a_truth_value_is_expected(self):
        with pytest.raises(SymbolicError, match="truth value"):
            flag_term(1)

    def test_only_words_and_flags_have_values_in_a_model(self):
        (path, _), *_ = paths(lambda: bool(word("x")))
        assert evaluate(path.assignment(), 5) == 5
        with pytest.raises(SymbolicError, match="no value"):
            evaluate(path.assignment(), "five")

    def test_the_complement_of_an_int_is_followed_as_the_right_operand_of_and(self):
        assert [True] == run(lambda: bool(word("x") & ~0x3 & 0x3 == 0))


class TestSummaries:
    def test_a_summary_is_the_function(self):
        symbolic = summary_of(is_subset)(word("x"), 0x3)
        assert Questions().failing([], [symbolic.term == (word("x").term & ~word_term(3) == 0)]) is None

    def test_on_numbers_it_is_a_number(self):
        assert (True, False) == (summary_of(is_subset)(0x1, 0x3), summary_of(is_subset)(0x4, 0x3))

    def test_a_formula_without_a_test_stays_as_it_is(self):
        term = summarize(lambda: merge(word("x"), word("m"), word("v")))
        assert Questions().failing([], [term.term == merge(word("x"), word("m"), word("v")).term]) is None

    def test_a_term_in_which_nothing_is_open_is_plain(self):
        assert (5, True) == (settled(word_term(5)), settled(flag_term(True)))
