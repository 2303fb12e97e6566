"""The published vectors: each is a test of its own, run on the emulator."""

import pytest

from published_files import DOCUMENTS, FILES, GENERATED, HAND, ROOT
from specctrl.model.variants import VARIANTS
from specctrl.rules import load_rules
from specctrl.scenario import PASS, EmulatorTarget, loads, run_one
from specctrl.scenario.format import OPERATIONS

PAGES = sorted((ROOT / "spec").glob("*.md"))

each = pytest.mark.parametrize("path", HAND, ids=[path.stem for path in HAND])


class TestEachVector:
    """One file that was written by hand."""

    @each
    def test_it_passes_on_the_emulator_of_its_profile(self, path):
        scenario = loads(path.read_bytes(), str(path))
        if scenario.profile not in VARIANTS:
            pytest.skip(f"no emulator of {scenario.profile} in this version")
        result = run_one(scenario, EmulatorTarget(scenario.profile))
        assert (PASS, "") == (result.status, result.why)

    @each
    def test_its_name_is_its_id(self, path):
        assert path.stem == DOCUMENTS[path]["id"]

    @each
    def test_it_says_what_it_shows_and_why_and_which_rules_it_checks(self, path):
        document = DOCUMENTS[path]
        assert document["title"]
        assert document["why"]
        assert document["rules"]
        assert len(document["rules"]) == len(set(document["rules"]))

    @each
    def test_it_expects_something(self, path):
        assert any("expect" in step for step in DOCUMENTS[path]["steps"])

    @each
    def test_a_step_stands_on_a_line_of_its_own(self, path):
        lines = path.read_text().splitlines()
        assert len(DOCUMENTS[path]["steps"]) == sum(line.lstrip().startswith('{"op": ') for line in lines)


class TestGenerated:
    """The others: too many for a test each."""

    def test_they_pass_on_the_emulator(self):
        target = EmulatorTarget("spec")
        results = [run_one(loads(path.read_bytes(), str(path)), target) for path in GENERATED]
        assert [] == [(result.scenario.id, result.why) for result in results if result.status != PASS]

    def test_they_say_what_they_show_why_and_where_to_look(self):
        for path in GENERATED:
            document = DOCUMENTS[path]
            assert document["title"], path
            assert document["why"], path
            assert 1 <= len(set(document["rules"])) == len(document["rules"]) <= 3, path

    def test_each_ends_with_what_its_last_event_must_show(self):
        for path in GENERATED:
            assert DOCUMENTS[path]["steps"][-1].get("expect"), path


class TestAllVectors:
    """The collection."""

    def test_there_are_enough_and_none_has_the_id_of_another(self):
        assert 400 <= len(FILES)
        assert len({document["id"] for document in DOCUMENTS.values()}) == len(FILES)

    @pytest.mark.skipif(not PAGES, reason="the chapters are not there")
    def test_every_rule_that_a_vector_names_exists(self):
        named = {rule for document in DOCUMENTS.values() for rule in document["rules"]}
        assert set() == named - set(load_rules(ROOT / "spec"))

    def test_every_operation_and_every_outcome_occurs(self):
        steps = [step for document in DOCUMENTS.values() for step in document["steps"]]
        assert set(OPERATIONS) == {step["op"] for step in steps}
        outcomes = {"errno", "fault", "exit", "fail", "abort", "reflected", "blocked"}
        assert set() == outcomes - {key for step in steps for key in step.get("expect", {})}

    def test_every_errno_of_every_ioctl_occurs(self):
        expected = {
            ("enable_cap", "EINVAL"), ("create_vcpu", "EINVAL"), ("create_vcpu", "EEXIST"),
            ("set_msr_filter", "EINVAL"),
            ("get_supported_force_spec_ctrl", "ENOTTY"), ("get_supported_force_spec_ctrl", "EFAULT"),
            ("set_nested_state", "EINVAL"), ("migrate", "EINVAL"),
        }
        seen = {
            (step["op"], step["expect"]["errno"])
            for document in DOCUMENTS.values() for step in document["steps"] if "errno" in step.get("expect", {})
        }
        assert expected == seen

    def test_all_three_exit_reasons_occur(self):
        reasons = {
            step["expect"]["exit"]["reason"]
            for document in DOCUMENTS.values() for step in document["steps"] if "exit" in step.get("expect", {})
        }
        assert {"INVAL", "UNKNOWN", "FILTER"} == reasons
