"""Evidence counts only if it breaks on a mutant of the code that its rule binds."""

import json
import os
from dataclasses import replace

import pytest

from one_rule import CELL, RULE, SCENARIO
from specctrl.evidence.breaks import break_properties, break_shown, mutants_of_rule, noticed
from specctrl.evidence.collect import EvidenceError, collect
from specctrl.rules import load_rules


def broken(folder, cell, scenario=None):
    """What shows the rule of a specification with one page, after it was shown mutants."""
    for name in ("spec", "vectors"):
        (folder / name).mkdir()
    (folder / "spec" / "words.md").write_text(RULE + cell)
    if scenario is not None:
        (folder / "vectors" / "word.shown.json").write_text(json.dumps(scenario))
    rules = load_rules(folder / "spec")
    found = collect(rules, folder / "spec", folder / "vectors")
    break_shown(rules, found, folder / "spec", folder / "vectors", jobs=1)
    return found["word.merge"]


class TestShown:
    def test_a_cell_that_looks_at_the_result_counts(self, tmp_path):
        shown = broken(tmp_path, CELL % ("merge(1, 2, 2) == 3", "word.merge"))
        assert ["spec/words.md:12"] == [example.place for example in shown.examples]
        assert shown.broken_by["spec/words.md:12"].startswith("words:merge:")

    def test_a_cell_that_calls_the_code_and_looks_elsewhere_does_not(self, tmp_path):
        shown = broken(tmp_path, CELL % ("merge(1, 2, 2) is not None", "word.merge"))
        assert ([], ["spec/words.md:12"], {}) == (shown.examples, shown.unmoved, shown.broken_by)

    def test_a_scenario_that_observes_the_result_counts(self, tmp_path):
        steps = [SCENARIO["steps"][0], {"op": "wrmsr", "msr": "0x48", "value": "0x1"},
                 {"op": "observe", "expect": {"effective": "0x1"}}]
        shown = broken(tmp_path, "", {**SCENARIO, "steps": steps})
        assert (["word.shown"], []) == (shown.scenarios, shown.unmoved)

    def test_a_scenario_that_no_mutant_changes_does_not(self, tmp_path, monkeypatch):
        monkeypatch.setattr("specctrl.evidence.breaks.mutants_of_rule", lambda _: ["words:merge:drop-complement:1"])
        shown = broken(tmp_path, "", SCENARIO)  # of view 0 that mutant makes the same
        assert ([], ["word.shown"]) == (shown.scenarios, shown.unmoved)

    def test_a_cell_that_only_fails_in_a_child_is_an_error(self, tmp_path):
        cell = CELL % (f"merge(1, 2, 2) == 3 and __import__('os').getpid() == {os.getpid()}", "word.merge")
        with pytest.raises(EvidenceError, match=r"words.md:12"):
            broken(tmp_path, cell)


class TestProperties:
    def test_a_property_counts_if_a_history_on_a_mutant_violates_it(self):
        rules = load_rules()
        pairs = [("host_value_after_exit", rules["exit.host-restored"]), ("saved_is_hardware", rules["filter.limits"])]
        broken, not_broken = break_properties(pairs)
        assert broken.startswith("kvm.entry:VcpuEntry.after_exit:")
        assert "" == not_broken


class TestNoticed:
    def test_it_counts_the_mutants_of_the_rules_code(self):
        rules = load_rules()
        counts = noticed(rules["exit.host-restored"])
        assert counts["mutants"] == len(mutants_of_rule(rules["exit.host-restored"])) > 0
        unbound = replace(rules["exit.host-restored"], code=("specctrl.model.guest.Os",))
        assert 0 == noticed(unbound)["mutants"]

    def test_the_code_of_every_rule_has_mutants(self):
        assert [] == [id for id, rule in load_rules().items() if not mutants_of_rule(rule)]
