"""Generated scenarios: a sample of them is made again; each stands for its class, and notices what it says."""

import json

import pytest

from published_files import DOCUMENTS, GENERATED, HAND, ROOT
from specctrl.cli.main import main
from specctrl.evidence.collect import bound_code
from specctrl.model.outcomes import Misuse
from specctrl.rules import load_rules
from specctrl.scenario import load, read
from specctrl.scenario.published import MANIFEST, is_generated
from specctrl.shards import Workers, carry_out
from specctrl.vectors import generated_files as files
from specctrl.vectors import shortest as walk
from specctrl.vectors.expectations import class_of_last, dress
from specctrl.vectors.generate import called_by_last, of_classes
from specctrl.vectors.titles import title
from specctrl.vectors.transition_classes import event, outcome

EXPLORED = [DOCUMENTS[path] for path in GENERATED if DOCUMENTS[path]["x-generated"] == "exploration"]


def without_rules(document):
    return {**document, "rules": []}


def published(id):
    return without_rules(DOCUMENTS[ROOT / "vectors" / "generated" / f"{id}.json"])


class TestMadeAgain:
    """The whole is `specctrl vectors generate --check`, which takes minutes."""

    def test_what_two_events_reach_is_what_is_published(self):
        made = {document["id"]: document for document in of_classes(depth=2)}
        assert 100 < len(made)
        assert made == {id: published(id) for id in made}

    def test_processes_make_the_same(self):
        def on_two(work, worlds):
            return carry_out(work, worlds, Workers(2))

        assert walk.shortest(depth=2) == walk.shortest(depth=2, carried=on_two)

    def test_a_pair_that_forces_the_highest_bit_to_0_brings_no_further_class(self, monkeypatch):
        explored, high = walk.few_pairs(walk.BITS), 1 << walk.BITS.bit_length() - 1
        assert (high, 0) not in explored
        monkeypatch.setattr(walk, "few_pairs", lambda _: [*explored[:-1], (high, 0), explored[-1]])
        known = {tuple(document["id"].split(".")[1:-1]) for document in EXPLORED}
        found = set(walk.shortest(depth=3))
        assert 300 < len(found)
        assert found <= known


class TestEach:
    def test_its_id_is_the_class_of_its_last_event(self):
        for document in EXPLORED:
            words = class_of_last(document["host"], document["steps"])
            assert document["id"].rsplit(".", 1)[0] == ".".join(["gen", *words])
            assert document["title"] == title(words)

    def test_no_class_has_two_of_the_exploration(self):
        classes = [document["id"].rsplit(".", 1)[0] for document in EXPLORED]
        assert len(set(classes)) == len(classes)

    def test_it_executes_the_code_of_the_rules_that_it_names(self):
        rules = load_rules()
        for path in GENERATED[::10]:
            called = called_by_last(load(DOCUMENTS[path]))
            assert all(bound_code(rules[id]) & called for id in DOCUMENTS[path]["rules"]), path


class TestDress:
    HOST = "sapphire-rapids"
    STEPS = ({"op": "create_vcpu"}, {"op": "wrmsr", "msr": "IA32_SPEC_CTRL", "value": "0x800"})

    def test_what_the_emulator_shows_is_what_must_be_shown(self):
        assert {"host": self.HOST, "steps": [
            {"op": "create_vcpu"},
            {"op": "wrmsr", "msr": "IA32_SPEC_CTRL", "value": "0x800", "expect": {"fault": "#GP"}},
            {"op": "observe", "expect": {"effective": "0x0", "guest_view": "0x0"}},
        ]} == dress(self.HOST, 1, self.STEPS)

    def test_a_history_that_cannot_happen_is_none(self):
        with pytest.raises(Misuse):
            dress(self.HOST, 1, [*self.STEPS, {"op": "rsm"}])

    def test_nothing_is_expected_of_a_vcpu_that_has_shut_down(self):
        load_list = [["MSR_VIRTUAL_ENUMERATION", "0x0"]]
        steps = [self.STEPS[0], {"op": "nested_enter"}, {"op": "nested_exit", "msr_load": load_list}]
        assert {"abort": True} == dress(self.HOST, 1, steps)["steps"][-1]["expect"]


class TestWords:
    @pytest.mark.parametrize(("step", "word"), [
        ({"op": "set_msrs", "msrs": [[0x48, 1]]}, "set-msrs-view"),
        ({"op": "set_msrs", "msrs": [[0x48, 1], [0x10A, 0]]}, "set-msrs"),
        ({"op": "nested_enter", "intercept": "all", "msr_load": [[0x48, 1]]}, "nested-enter-view-list-no-bitmap"),
        ({"op": "nested_state"}, "set-nested-state"),
    ])
    def test_an_event_is_its_operation_and_what_it_is_about(self, step, word):
        assert word == event(step)

    @pytest.mark.parametrize(("step", "seen", "word"), [
        ({"op": "exit"}, {"host_spec_ctrl": 1}, "taken"),
        ({"op": "wrmsr"}, {"exit": {"reason": "FILTER"}}, "exits-filter"),
        ({"op": "enable_cap"}, {"errno": "EINVAL"}, "einval"),
        ({"op": "migrate"}, {"refused": [0x48]}, "refused"),
    ])
    def test_an_outcome_is_a_word(self, step, seen, word):
        assert word == outcome(step, seen)


class TestFiles:
    @pytest.fixture
    def folder(self, tmp_path, monkeypatch):
        first, second = EXPLORED[:2]
        monkeypatch.setattr(files, "generate", lambda written, progress: [json.loads(json.dumps(second))])
        (tmp_path / MANIFEST).write_text('{"released": {}, "withdrawn": {}}')
        (tmp_path / "generated").mkdir()
        (tmp_path / "generated" / f"{first['id']}.json").write_text(files.as_text(first))
        return tmp_path, first["id"], second["id"]

    def test_what_is_generated_no_more_goes_unless_it_was_released(self, folder, capsys):
        path, first, second = folder
        assert 1 == main(["vectors", "--folder", str(path), "generate", "--check"])
        assert [f"new      {second}", f"gone     {first}"] == capsys.readouterr().out.splitlines()[:2]
        assert 0 == main(["vectors", "--folder", str(path), "release", "0.1.0"])
        assert 0 == main(["vectors", "--folder", str(path), "generate"])
        assert {first, second} == {scenario.id for scenario in read([path])}
        assert 0 == main(["vectors", "--folder", str(path), "generate", "--check"])
        assert 0 == main(["vectors", "--folder", str(path), "check"])

    def test_without_a_release_it_goes(self, folder):
        path, _, second = folder
        assert 0 == main(["vectors", "--folder", str(path), "generate"])
        assert [second] == [scenario.id for scenario in read([path])]


def test_ids_tell_generated_from_written():
    assert all(is_generated(path.name) for path in GENERATED)
    assert not any(is_generated(path.name) for path in HAND)
