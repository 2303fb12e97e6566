"""The mutants of the rule code: their list, what notices them, and the command."""

import ast
import json

import pytest

from specctrl.cli.main import main
from specctrl.evidence.mutants import MODULES, OPERATORS, all_mutants, mutants_of, source_of, spread
from specctrl.evidence.mutation_table import KINDS, PROOF, Bench, complaints, figures, run_all, stored, survivors
from specctrl.evidence.refuting import BUDGET, other_proofs, proofs_of_links, refuted_by
from specctrl.evidence.touching import linked
from specctrl.proof.prove import manifest
from specctrl.proof.theorems import THEOREMS

MUTANTS = all_mutants()
TABLE = stored()
SAMPLE = (
    "words:overlay:swap-bits:3",
    "processor:LogicalProcessor.wrmsr_in_guest:delete:4",
    "kvm.entry:VcpuEntry.load_vmcs:swap-field:1",
    "kvm.msrs:VcpuMsrs.write_spec_ctrl:swap-field:2",
    "kvm.nested:VcpuNested.set_nested_state:never:2",
    "contract:Contract.read_report:delete:1",
)


class TestList:
    def test_the_table_is_of_this_code_and_every_survivor_is_explained(self):
        assert [] == complaints(TABLE, MUTANTS)

    def test_every_operator_and_every_module_has_mutants(self):
        assert set(OPERATORS) == {mutant.operator for mutant in MUTANTS.values()}
        assert set(MODULES) == {mutant.module for mutant in MUTANTS.values()}

    @pytest.mark.parametrize("module", MODULES)
    def test_each_mutant_of_a_module_is_another_program(self, module):
        unchanged = ast.unparse(ast.parse(source_of(module).read_text("utf-8"))) + "\n"
        texts = [mutant.text for mutant in mutants_of(module)]
        assert unchanged not in texts
        assert all(ast.parse(text) for text in texts)

    def test_a_sample_is_evenly_spread(self):
        assert ["a", "c"] == spread(["a", "b", "c", "d"], 2)
        assert ["a"] == spread(["a"], 5)
        assert [] == spread(["a"], 0)


class TestTable:
    def test_a_mutant_that_is_missing_too_many_or_unexplained_is_said(self):
        key, new = "words:merge:swap-bits:1", "words:merge:drop-complement:1"
        nothing = dict.fromkeys(KINDS)
        table = {"mutants": {key: nothing, "gone": {"vectors": "x"}}, "proofs": {key: None, "lost": "c"},
                 "theorems": {"c": "lost"}, "survivors": {"gone": "y"}}
        assert [
            f"{new}: not in the table; run specctrl mutants --all",
            "gone: in the table, but no mutant of the code",
            f"{key}: survives without an explanation",
            "gone: explained, but noticed",
            "lost: shown to the theorems, but no mutant of a function that handles a word",
            f"{new}: not shown to the theorems; run specctrl mutants --proofs",
            "c: refutes no mutant",
        ] == complaints(table, [key, new])

    def test_figures_of_the_modules_add_up(self):
        every = [figures(TABLE, module) for module in MODULES]
        assert figures(TABLE) == {name: sum(each[name] for each in every) for name in figures(TABLE)}

    def test_each_theorem_refutes_a_mutant_of_a_function_that_it_is_linked_to(self):
        assert list(THEOREMS) == list(TABLE["theorems"])
        assert [] == [name for name, key in TABLE["theorems"].items() if name not in linked(key)]

    def test_what_no_theorem_refutes_is_noticed_otherwise_or_explained(self):
        missed = {key for key, claim in TABLE["proofs"].items() if not claim}
        assert set() == {key for key in missed if not any(TABLE["mutants"][key].values())} - set(TABLE["survivors"])


def kinds_that_notice(said):
    """Which kinds of evidence notice a mutant; which page or scenario is the first may change with each new one."""
    return [kind for kind, noticed in said.items() if noticed]


class TestRun:
    def test_the_project_as_it_is_is_noticed_by_nothing(self, tmp_path):
        kinds = ("vectors", "generated", "pages")
        assert dict.fromkeys(kinds) == Bench(tmp_path / "copy").run(None, kinds)

    def test_a_sample_gives_what_is_stored(self):
        found = dict(run_all([MUTANTS[key] for key in SAMPLE]))
        stored = {key: TABLE["mutants"][key] for key in SAMPLE}
        assert {key: kinds_that_notice(said) for key, said in stored.items()} == {
            key: kinds_that_notice(said) for key, said in found.items()}
        assert [] == survivors(found)

    @pytest.mark.parametrize("name", ["with_the_control_wrmsr_merges", "new_vcpu_starts_with_the_vms_pair"])
    def test_a_theorem_refutes_the_mutant_that_the_table_names(self, name):
        key = TABLE["theorems"][name]
        task = ("theorem", name)
        assert task in proofs_of_links(key)
        assert {key: {PROOF: name}} == dict(run_all([MUTANTS[key]], 1, (PROOF,), lambda _: (task,)))

    def test_the_unchanged_code_is_refuted_by_nothing(self):
        assert refuted_by([("theorem", "fields_need_the_control")]) is None

    def test_other_proofs_are_those_that_run_the_function_within_the_budget(self):
        key = "kvm.entry:VcpuEntry.enter_guest:delete:1"
        known = {"kvm.entry:VcpuEntry.enter_guest": list(THEOREMS)}
        chosen = [name for _, name in other_proofs(key, known)]
        assert chosen
        assert "entry_loads_the_saved_value" not in chosen
        assert sum(manifest()["claims"][name]["paths"] for name in chosen) <= BUDGET


class TestCommand:
    def test_only_some_are_run_again_and_the_rest_is_kept(self, monkeypatch):
        ran, written = [], []

        def noticed(mutants, _jobs):
            for mutant in mutants:
                ran.append(mutant.key)
                yield mutant.key, {"vectors": "again"}

        def refute(mutants, _jobs, kept):
            assert not set(ran) & (set(kept["proofs"]) | set(kept["theorems"].values()))
            return TABLE["proofs"], TABLE["theorems"]

        gone = {**TABLE, "mutants": {**TABLE["mutants"], "gone:function:flip:1": {"vectors": "x"}}}
        monkeypatch.setattr("specctrl.evidence.mutation_table.stored", lambda: gone)
        monkeypatch.setattr("specctrl.evidence.mutation_table.run_all", noticed)
        monkeypatch.setattr("specctrl.evidence.mutation_table.refuting", refute)
        monkeypatch.setattr("specctrl.evidence.mutation_table.store", lambda *table: written.append(table))
        main(["mutants", "--only", "words:overlay"])
        assert [key for key in MUTANTS if key.startswith("words:overlay")] == ran
        ((found, _, _),) = written
        assert list(MUTANTS) == list(found)
        assert [key for key in found if found[key] != TABLE["mutants"][key]] == ran

    def test_without_options_the_table_is_summed_up(self, capsys):
        assert 0 == main(["mutants"])
        assert f"{len(MUTANTS):5}  mutants" in capsys.readouterr().out.splitlines()

    def test_a_sample_is_run_and_compared(self, capsys, monkeypatch):
        def noticed(mutants, _jobs):
            return ((mutant.key, {"vectors": "x"}) for mutant in mutants)

        monkeypatch.setattr("specctrl.evidence.mutation_table.run_all", noticed)
        assert 1 == main(["mutants", "--sample", "2", "--json"])
        document = json.loads(capsys.readouterr().out)
        assert spread(list(MUTANTS), 2) == list(document["run"])
        assert 2 == len(document["wrong"])
