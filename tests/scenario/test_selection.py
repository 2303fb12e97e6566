"""Choosing scenarios, and counting results by rule and level."""

import json
from xml.etree import ElementTree

import pytest

from published_files import ROOT
from specctrl.cli.main import main
from specctrl.scenario import read
from specctrl.scenario.selection import Selection

VECTORS = str(ROOT / "vectors")
ALL = read([VECTORS])
RULE = "exit.host-restored"


class TestSelection:
    def test_nothing_given_is_all(self):
        assert ALL == Selection().of(ALL)

    def test_both_kinds_are_all_and_no_scenario_is_both(self):
        hand, generated = (Selection(kind=kind).of(ALL) for kind in ("hand", "generated"))
        assert len(ALL) == len(hand) + len(generated)
        assert all(each.file.rsplit("/", 2)[1] == "generated" for each in generated)

    def test_of_several_one_must_fit_and_of_different_options_each(self):
        found = Selection(rules=[RULE, "init.view-zero"], ops=["init"], levels=["force"]).of(ALL)
        assert found
        for each in found:
            assert {RULE, "init.view-zero"} & set(each.rules)
            assert "init" in {step.op for step in each.steps}


class TestList:
    def test_it_prints_level_id_and_title(self, capsys):
        assert 0 == main(["vectors", "list", "--level", "processor", "--kind", "hand"])
        output = capsys.readouterr()
        assert all(line.startswith("processor  ") for line in output.out.splitlines())
        assert f"{len(output.out.splitlines())} scenarios\n" == output.err

    def test_json_is_the_index_of_those(self, capsys):
        assert 0 == main(["vectors", "list", "--rule", RULE, "--json"])
        document = json.loads(capsys.readouterr().out)
        assert {each.id for each in ALL if RULE in each.rules} == set(document)

    @pytest.mark.parametrize(("option", "value", "why"), [
        ("--rule", "exit.host-restore", "did you mean"), ("--op", "wrmrs", 'did you mean "wrmsr"'),
        ("--level", "xen", "invalid choice")])
    def test_an_unknown_name_is_refused(self, option, value, why, capsys):
        with pytest.raises(SystemExit):
            main(["vectors", "list", option, value])
        assert why in capsys.readouterr().err


class TestRun:
    def test_only_the_chosen_ones_run(self, capsys):
        assert 0 == main(["run", VECTORS, "--level", "processor", "--kind", "hand", "--by", "level"])
        lines = capsys.readouterr().out.splitlines()
        number = sum(line.startswith("pass ") for line in lines)
        assert ["level", "pass", "fail", "unsupported"] == lines[-3].split()
        assert ["processor", str(number), "0", "0"] == lines[-2].split()
        assert lines[-1].startswith(f"{number} scenarios: {number} pass")

    def test_nothing_chosen_is_nothing_run(self):
        assert 3 == main(["run", VECTORS, "--level", "processor", "--op", "smi"])

    def test_json_counts_by_rule_and_level_and_fails_where_it_fails(self, capsys, tmp_path):
        wrong = {"schema": "specctrl/scenario/1", "id": "a", "host": "sapphire-rapids", "rules": [RULE],
                 "steps": [{"op": "create_vcpu"}, {"op": "exit", "expect": {"host_spec_ctrl": "0x0"}}]}
        (tmp_path / "a.json").write_text(json.dumps(wrong))
        assert 1 == main(["run", str(tmp_path), "--json"])
        document = json.loads(capsys.readouterr().out)
        assert {RULE: {"pass": 0, "fail": 1, "unsupported": 0}} == document["rules"]
        assert {"processor": {"pass": 0, "fail": 1, "unsupported": 0}} == document["levels"]

    def test_the_counts_by_level_add_up_to_all(self, capsys):
        assert 0 == main(["run", VECTORS, "--json"])
        document = json.loads(capsys.readouterr().out)
        passed = sum(row["pass"] for row in document["levels"].values())
        assert document["counts"]["pass"] == passed == len(ALL)

    def test_junit_names_the_rules_of_each_case(self, tmp_path):
        file = tmp_path / "out.xml"
        assert 0 == main(["run", VECTORS, "--rule", RULE, "--kind", "hand", "--junit", str(file)])
        cases = list(ElementTree.parse(file).iter("testcase"))
        assert cases
        for case in cases:
            assert RULE in [each.get("value") for each in case.iter("property") if each.get("name") == "rule"]
