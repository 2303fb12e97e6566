"""The mutants of the rule code: their list, what notices them, and the command."""

import ast
import json

import pytest

from specctrl.cli.main import main
from specctrl.evidence.links import theorems_of
from specctrl.evidence.mutants import (
    NO_RULES,
    OPERATORS,
    PACKAGE,
    all_mutants,
    mutants_of,
    rule_modules,
    source_of,
    spread,
    stored,
)
from specctrl.evidence.mutation_table import (
    complaints,
    figures,
    noticed_by,
    one_of_each,
    outdated,
    pair_noticed_by,
    plant_all,
    refute,
    refuted,
    refuted_by,
    survivors,
)
from specctrl.evidence.notices import EVERY
from specctrl.evidence.score import KINDS, levels_of
from specctrl.proof.theorems import THEOREMS
from specctrl.shards import Workers

MUTANTS = all_mutants()
TABLE = stored()
SAMPLE = (
    "processor:LogicalProcessor.wrmsr_in_guest:delete:4",
    "kvm.nested:VcpuNested.set_nested_state:never:2",
    "contract:Contract.read_report:delete:1",
)


class TestList:
    def test_the_table_is_of_this_code_and_every_survivor_is_explained(self):
        assert [] == complaints(TABLE, MUTANTS)

    def test_every_operator_and_every_module_has_mutants(self):
        assert set(OPERATORS) == {mutant.operator for mutant in MUTANTS.values()}
        assert set(rule_modules()) == {mutant.module for mutant in MUTANTS.values()}

    def test_the_modules_are_those_of_the_model_but_for_a_few(self):
        files = {path.relative_to(PACKAGE / "model").with_suffix("") for path in (PACKAGE / "model").rglob("[!_]*.py")}
        assert {".".join(file.parts) for file in files} == set(rule_modules()) | set(NO_RULES)
        assert not set(rule_modules()) & set(NO_RULES)

    def test_a_new_module_is_among_them(self, tmp_path, monkeypatch):
        (tmp_path / "model" / "kvm").mkdir(parents=True)
        for name in ("words", "registers", "kvm/__init__", "kvm/state", "kvm/new"):
            (tmp_path / "model" / f"{name}.py").touch()
        monkeypatch.setattr("specctrl.evidence.mutants.PACKAGE", tmp_path)
        assert ["kvm.new", "words"] == rule_modules()

    @pytest.mark.parametrize("module", rule_modules())
    def test_each_mutant_of_a_module_is_another_program(self, module):
        unchanged = {ast.unparse(each) + "\n" for each in ast.parse(source_of(module).read_text("utf-8")).body}
        texts = {mutant.text for mutant in mutants_of(module)}
        assert texts
        assert set() == texts & unchanged
        assert all(ast.parse(text) for text in texts)

    def test_a_sample_is_evenly_spread(self):
        assert ["a", "c"] == spread(["a", "b", "c", "d"], 2)
        assert ["a"] == spread(["a"], 5)
        assert [] == spread(["a"], 0)


class TestTable:
    def test_a_mutant_that_is_missing_too_many_or_unexplained_is_said(self):
        key, new = "words:merge:swap-bits:1", "words:merge:drop-complement:1"
        nothing = dict.fromkeys(EVERY)
        table = {"mutants": {key: nothing, "gone": {"vectors": "x"}}, "proofs": {key: None, "lost": "c"},
                 "theorems": {"c": "lost"}, "reached": {}, "unseen": {"gone": "y"}, "pairs": {"a + b": None}}
        assert [
            f"{new}: not in the table; run specctrl mutants --all",
            "gone: in the table, but no mutant of the code",
            f"{key}: noticed by no scenario, without an explanation",
            "gone: explained, but noticed by a scenario",
            "a + b: two that no scenario notices together",
            "lost: shown to theorems, but none is linked to the function",
            f"{new}: not shown to the theorems; run specctrl mutants --proofs",
            "c: refutes no mutant",
        ] == complaints(table, [key, new])

    def test_figures_of_the_modules_add_up(self):
        every = [figures(TABLE, module) for module in rule_modules()]
        assert figures(TABLE) == {name: sum(each[name] for each in every) for name in figures(TABLE)}

    def test_each_theorem_refutes_a_mutant_of_a_function_that_it_is_linked_to(self):
        assert list(THEOREMS) == list(TABLE["theorems"])
        assert [] == [name for name, key in TABLE["theorems"].items() if name not in theorems_of()[key]]

    def test_what_no_theorem_refutes_is_noticed_otherwise_or_explained(self):
        missed = {key for key, claim in TABLE["proofs"].items() if not claim}
        assert set() == {key for key in missed if not any(TABLE["mutants"][key].values())} - set(TABLE["unseen"])


def kinds_that_notice(said):
    """Which kinds of evidence notice a mutant; which page or scenario is the first may change with each new one."""
    return [kind for kind, noticed in said.items() if noticed]


def red(key, kind):
    """Pages that fail of any code."""
    return "index" if kind == "pages" else None


class TestStored:
    def test_each_mutant_is_noticed_by_the_scenario_that_the_table_names(self):
        assert [] == outdated(TABLE)

    def test_one_that_passes_on_a_mutant_is_outdated_and_one_that_is_gone_stands_for_any(self):
        key = "words:merge:swap-bits:1"
        assert TABLE["mutants"][key]["vectors"]
        for named, old in (("kvm-abi.check-extension", [key]), ("gone", [])):
            assert old == outdated({"mutants": {key: {"vectors": named, "generated": None}}}, Workers(1))

    def test_scenarios_alone_are_asked_again_and_the_rest_is_kept(self, monkeypatch):
        written = []
        monkeypatch.setattr("specctrl.evidence.mutation_table.noticed_by_scenarios",
                            lambda key: {"vectors": key and "again"})
        monkeypatch.setattr("specctrl.evidence.mutation_table.carry_out",
                            lambda work, shards, *_, **__: map(work, shards))
        monkeypatch.setattr("specctrl.evidence.mutation_table.store", lambda *table: written.append(table))
        main(["mutants", "--scenarios"])
        ((found, proofs, theorems),) = written
        assert {key: said | {"vectors": "again"} for key, said in TABLE["mutants"].items()} == found
        assert (TABLE["proofs"], TABLE["theorems"]) == (proofs, theorems)


class TestScore:
    def test_a_mutant_is_of_the_level_of_its_function_a_field_of_its_records_and_a_constant_of_its_modules(self):
        known = {"processor:Vmcs.write_intercepted": "force", "processor:LogicalProcessor.rdmsr": "processor",
                 "kvm.filters:is_x2apic": "kvm-abi"}
        keys = {"processor:LogicalProcessor.rdmsr:never:1": "processor", "processor:Vmcs:flip:1": "force",
                "kvm.filters:MAX_RANGES:boundary:1": "kvm-abi", "contract:Contract:flip:1": None}
        assert {key: level for key, level in keys.items() if level} == levels_of([MUTANTS[key] for key in keys], known)

    def test_what_a_scenario_of_this_set_executes_is_reached(self):
        assert ("processor", "nested") == (TABLE["reached"]["words:merge"],
                                           TABLE["reached"]["kvm.nested:VcpuNested.nested_enter"])
        assert "guest:enter_kernel" not in TABLE["reached"]

    def test_every_reason_is_of_a_kind(self):
        assert set() == {why.split(":")[0] for why in TABLE["unseen"].values()} - set(KINDS)

    def test_a_pair_of_which_one_alone_is_noticed_is_noticed(self):
        assert pair_noticed_by(("words:merge:swap-bits:1", "kvm.vcpu:Vcpu.rsm:delete:7"))


class TestRun:
    def test_the_project_as_it_is_is_noticed_by_nothing(self):
        assert {None} == set(noticed_by(None).values())

    def test_a_sample_gives_what_is_stored(self):
        found = dict(plant_all(SAMPLE))
        stored = {key: TABLE["mutants"][key] for key in SAMPLE}
        assert {key: kinds_that_notice(said) for key, said in stored.items()} == {
            key: kinds_that_notice(said) for key, said in found.items()}
        assert [] == survivors(found)

    def test_where_the_unchanged_code_is_noticed_no_mutant_is_planted(self, monkeypatch, capsys):
        monkeypatch.setattr("specctrl.evidence.mutation_table.EVERY", {"pages": None, "vectors": None})
        monkeypatch.setattr("specctrl.evidence.mutation_table.noticed", red)
        assert 2 == main(["mutants", "--sample", "1", "--jobs", "1"])
        assert "fails, and would notice each: pages: index" in capsys.readouterr().err

    @pytest.mark.parametrize("name", ["with_the_control_wrmsr_merges", "new_vcpu_starts_with_the_vms_pair"])
    def test_a_theorem_refutes_the_mutant_that_the_table_names(self, name):
        key = TABLE["theorems"][name]
        assert name in theorems_of()[key]
        assert name == refuted_by(key, [name])

    def test_the_unchanged_code_is_refuted_by_nothing(self):
        assert refuted(["fields_need_the_control"]) is None

    def test_a_mutant_is_shown_to_the_theorems_that_are_linked_and_to_no_other(self, monkeypatch):
        monkeypatch.setattr("specctrl.evidence.mutation_table.refuted", str)
        key = "kvm.entry:VcpuEntry.enter_guest:delete:1"
        assert {key: "['entry_loads_the_saved_value']"} == dict(refute([key, "processor:Vmcs:flip:1"], Workers(1)))

    def test_a_theorem_that_was_first_at_no_mutant_is_shown_alone(self, monkeypatch):
        shown = []

        def alone(key, theorems):
            shown.append((key, *theorems))
            return theorems[0] if len(shown) == 2 else None

        monkeypatch.setattr("specctrl.evidence.mutation_table.refuted_by", alone)
        known = {name: "known" for name in THEOREMS if name != "fields_need_the_control"}
        found = one_of_each({}, known)
        linked = [key for key, names in theorems_of().items() if "fields_need_the_control" in names]
        assert [(key, "fields_need_the_control") for key in linked[:2]] == shown
        assert known | {"fields_need_the_control": linked[1]} == found


class TestCommand:
    def test_only_some_are_run_again_and_the_rest_is_kept(self, monkeypatch):
        ran, written = [], []

        def noticed(keys, *_):
            for key in keys:
                ran.append(key)
                yield key, {"vectors": "again"}

        def refute(keys, *_):
            assert set(keys) == set(ran)
            return ((key, None) for key in keys if key in theorems_of())

        def one_of_each(proofs, known):
            assert not set(ran) & set(known.values())
            return dict.fromkeys(THEOREMS, proofs and "words:merge:swap-bits:1")

        gone = {**TABLE, "mutants": {**TABLE["mutants"], "gone:function:flip:1": {"vectors": "x"}}}
        monkeypatch.setattr("specctrl.evidence.mutants.stored", lambda: gone)
        monkeypatch.setattr("specctrl.evidence.mutation_table.plant_all", noticed)
        monkeypatch.setattr("specctrl.evidence.mutation_table.refute", refute)
        monkeypatch.setattr("specctrl.evidence.mutation_table.one_of_each", one_of_each)
        monkeypatch.setattr("specctrl.evidence.mutation_table.store", lambda *table: written.append(table))
        main(["mutants", "--only", "words:overlay"])
        assert [key for key in MUTANTS if key.startswith("words:overlay")] == ran
        ((found, proofs, *_),) = written
        assert [key for key in MUTANTS if key in theorems_of()] == list(proofs)
        assert list(MUTANTS) == list(found)
        assert [key for key in found if found[key] != TABLE["mutants"][key]] == ran

    def test_without_options_the_table_is_summed_up(self, capsys):
        assert 0 == main(["mutants"])
        assert f"{len(MUTANTS):5}  mutants" in capsys.readouterr().out.splitlines()

    def test_a_sample_is_run_and_compared(self, capsys, monkeypatch):
        def noticed(keys, *_):
            return ((key, {"vectors": "x"}) for key in keys)

        monkeypatch.setattr("specctrl.evidence.mutation_table.plant_all", noticed)
        assert 1 == main(["mutants", "--sample", "2", "--json"])
        document = json.loads(capsys.readouterr().out)
        assert spread(list(MUTANTS), 2) == list(document["run"])
        assert 2 == len(document["wrong"])
