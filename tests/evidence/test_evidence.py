"""Which examples and scenarios show which rule."""

import json

import pytest

from one_rule import CELL, RULE, SCENARIO
from specctrl.evidence.collect import EvidenceError, Example, bound_code, collect, missing
from specctrl.evidence.run_pages import calls
from specctrl.model.words import is_subset, merge
from specctrl.rules import load_rules


def site(folder, cell, scenario=None):
    """A specification of one page, and of one scenario if given."""
    (folder / "spec").mkdir()
    (folder / "vectors").mkdir()
    (folder / "spec" / "words.md").write_text(RULE + cell)
    if scenario is not None:
        (folder / "vectors" / "word.shown.json").write_text(json.dumps(scenario))
    rules = load_rules(folder / "spec")
    return rules, collect(rules, folder / "spec", folder / "vectors")


class TestCollect:
    """Evidence is run, and counts only if it executes the code that the rule binds."""

    def test_a_cell_that_runs_the_code_counts(self, tmp_path):
        rules, found = site(tmp_path, CELL % ("merge(1, 2, 2) == 3", "word.merge"))
        assert [Example("spec/words.md", 12, "shows-word.merge")] == found["word.merge"].examples
        assert [] == missing(rules, found)

    def test_a_second_cell_of_a_page_has_a_fragment_of_its_own(self, tmp_path):
        _, found = site(tmp_path, (CELL % ("merge(1, 2, 2) == 3", "word.merge")) * 2)
        assert ["shows-word.merge", "shows-word.merge-2"] == [one.anchor for one in found["word.merge"].examples]

    def test_a_cell_that_runs_other_code_does_not_count(self, tmp_path):
        rules, found = site(tmp_path, CELL % ("is_subset(1, 3)", "word.merge"))
        assert ["spec/words.md:12"] == found["word.merge"].idle
        assert ["word.merge"] == missing(rules, found)

    def test_a_scenario_counts_when_it_passes(self, tmp_path):
        _, found = site(tmp_path, "", SCENARIO)
        assert ["word.shown"] == found["word.merge"].scenarios

    def test_a_scenario_that_fails_is_an_error(self, tmp_path):
        wrong = {**SCENARIO, "steps": [SCENARIO["steps"][0], {"op": "observe", "expect": {"effective": "0x1"}}]}
        with pytest.raises(EvidenceError, match=r"word\.shown does not pass"):
            site(tmp_path, "", wrong)

    def test_a_cell_that_fails_is_an_error(self, tmp_path):
        with pytest.raises(EvidenceError, match=r"words.md:12: the cell raises AssertionError"):
            site(tmp_path, CELL % ("merge(1, 2, 2) == 4", "word.merge"))

    def test_an_unknown_rule_is_an_error(self, tmp_path):
        with pytest.raises(EvidenceError, match=r"words.md:12 names the rule 'word.other'"):
            site(tmp_path, CELL % ("merge(1, 2, 2) == 3", "word.other"))


class TestTheSpecification:
    """This specification's own rules."""

    def test_each_must_is_shown(self):
        rules = load_rules()
        assert [] == missing(rules, collect(rules))

    def test_each_rule_binds_code_that_can_be_executed(self):
        assert [] == [id for id, rule in load_rules().items() if not bound_code(rule)]


class TestCalls:
    """The record of called functions."""

    def test_it_has_what_was_called_and_nothing_else(self):
        with calls() as called:
            merge(1, 2, 3)
        assert merge.__code__ in called
        assert is_subset.__code__ not in called
