"""The record of what ran in a real kernel: what it is of, and what has changed since."""

import json
from pathlib import Path
from typing import Any

import pytest

from specctrl.rules import data_folder, load_rules
from specctrl.scenario import load, read
from specctrl.targets.kernel_record import ENDINGS, Change, identity, recorded, scenario_hash, since, source_hash


@pytest.fixture(scope="module")
def now() -> dict[str, dict[str, str]]:
    return identity()


@pytest.fixture(scope="module")
def record() -> dict[str, Any]:
    return recorded()


class TestRecorded:
    def test_the_series_that_ran_is_the_one_that_is_here(self, record, now):
        """A change of the series needs another run; comments do not count."""
        assert since(record, now)["series"] == Change((), (), ())

    def test_every_scenario_of_that_day_has_one_ending(self, record):
        endings = {ending: ids if isinstance(ids, list) else [id for each in ids.values() for id in each]
                   for ending, ids in record["outcomes"].items()}
        assert tuple(endings) == ENDINGS
        all_of_them = [id for ids in endings.values() for id in ids] + list(record["repairs taken away"])
        published = [id for id in all_of_them if not id.startswith("rig.")]
        assert sorted(published) == sorted(record["of"]["scenarios"])

    def test_nothing_differs_that_is_not_declared(self, record):
        assert record["outcomes"]["differs"] == {}

    def test_published_scenarios_are_never_gone(self, record, now):
        assert since(record, now)["scenarios"].gone == ()


class TestSince:
    def test_what_is_new_and_what_has_changed_is_named(self, now):
        then = json.loads(json.dumps(now))
        then["rules"]["contract.effective.merge"] = "00000000"
        del then["rules"]["force.zeros-too"]
        del then["scenarios"]["cap.supported"]
        then["series"]["series/0009-gone.diff"] = "00000000"
        changes = since({"of": then}, now)
        assert changes["rules"] == Change(("force.zeros-too",), ("contract.effective.merge",), ())
        assert changes["scenarios"] == Change(("cap.supported",), (), ())
        assert changes["series"] == Change((), (), ("series/0009-gone.diff",))
        assert str(changes["rules"]) == "1 new, 1 changed"
        assert not changes["machine"]
        assert str(changes["machine"]) == "as they were"

    def test_identity_is_of_everything(self, now):
        assert now["scenarios"].keys() == {each.id for each in read([data_folder("vectors")])}
        assert now["rules"].keys() == load_rules().keys()
        series = {"series/0001-capability-and-control.diff", "series/force_spec_ctrl.c", "series/test-only.diff"}
        machine = {"rig.py", "expected.py", "judging.py", "vmm/nested.c", "histories/rig.host-write.faults.json"}
        assert series <= now["series"].keys()
        assert machine <= now["machine"].keys()


class TestHashes:
    @pytest.fixture
    def scenario(self) -> dict[str, Any]:
        return {"schema": "specctrl/scenario/1", "id": "here", "title": "one", "host": "sapphire-rapids",
                "steps": [{"op": "create_vcpu"}, {"op": "exit", "expect": {"host_spec_ctrl": "0x401"}}]}

    def test_a_title_does_not_count(self, scenario):
        before = scenario_hash(load(scenario))
        scenario["title"] = "two"
        assert scenario_hash(load(scenario)) == before

    @pytest.mark.parametrize("change", [
        {"host": "ice-lake-server"},
        {"steps": [{"op": "create_vcpu"}]},
        {"steps": [{"op": "create_vcpu"}, {"op": "exit", "expect": {"host_spec_ctrl": "0x1"}}]},
        {"assume": {"init-withdraws-report": False}},
    ])
    def test_what_is_done_and_expected_does(self, scenario, change):
        assert scenario_hash(load({**scenario, **change})) != scenario_hash(load(scenario))

    def test_of_sources_only_the_code_counts(self, tmp_path: Path):
        file = tmp_path / "one.c"
        file.write_text("/* rule: a */\n#define A 1\nint f(void)\n{\n\treturn 1;\n}\n")
        before = source_hash(file)
        file.write_text("/* rule: b */\n#define A 1\n\nint f(void) { return 1; }\n")
        assert source_hash(file) == before
        file.write_text("/* rule: b */\n#define A 2\n\nint f(void) { return 1; }\n")
        assert source_hash(file) != before
