"""The explorer: flat states, every history over a few bits, shortest histories, the command."""

import json
import os
from copy import copy
from dataclasses import fields, replace

import pytest

from published_files import ROOT
from specctrl.cli import main as cli
from specctrl.cli.explore import PAIRS, Bar
from specctrl.exploration.compiled.explorer import search as compiled_search
from specctrl.exploration.defects import CASES, document, search_case, shortest
from specctrl.exploration.events import CPUID, RESERVED, all_events, pairs_of, subsets
from specctrl.exploration.histories import Exploration, as_text
from specctrl.exploration.properties import PROPERTIES
from specctrl.exploration.search import (
    BITS,
    HOSTS,
    MANIFEST,
    Search,
    all_pairs,
    bits_of,
    explore,
    few_pairs,
    search,
    worlds,
)
from specctrl.exploration.snapshot import ALL_FIELDS, CONSTANT, FIELDS, POISON, forget, put, take
from specctrl.exploration.spread import explore_spread
from specctrl.model.contract import Contract
from specctrl.model.kvm.state import Loaded, VcpuState
from specctrl.model.kvm.variant import SPEC, Assumptions, Variant
from specctrl.model.kvm.vcpu import Vcpu
from specctrl.model.parts import Features, resolve_host
from specctrl.model.posted import RFC_V3
from specctrl.model.registers import BHI_DIS_S, IBRS
from specctrl.model.variants import VARIANTS
from specctrl.scenario import PASS, EmulatorTarget, loads, run_one
from specctrl.scenario.machine import Machine
from specctrl.shards import Workers

TWO = IBRS | BHI_DIS_S
SPR = HOSTS["sapphire-rapids"]
EXPLORED = json.loads(MANIFEST.read_text())


def new_vcpu(variant: Variant = SPEC) -> Vcpu:
    return variant.make_vcpu(variant.make_vm(resolve_host("sapphire-rapids")), CPUID, Assumptions())


class TestFlatStates:
    """One list of fields takes a state and puts it back."""

    def test_every_field_of_a_vcpu_is_in_the_state_or_constant(self):
        assert {name.split(".")[0] for name in ALL_FIELDS} == {field.name for field in fields(VcpuState)}
        assert set(FIELDS) | CONSTANT == set(ALL_FIELDS)
        assert set(FIELDS).isdisjoint(CONSTANT)

    def test_a_state_that_is_put_back_is_the_same_state_and_behaves_the_same(self):
        vcpu = new_vcpu()
        before = take(vcpu)
        vcpu.wrmsr(0x48, 0x401)
        vcpu.smi()
        after = take(vcpu)
        put(vcpu, before)
        assert before == take(vcpu)
        assert vcpu.loaded is Loaded.VMCS01
        vcpu.wrmsr(0x48, 0x401)
        vcpu.smi()
        assert after == take(vcpu)

    @pytest.mark.parametrize("variant", [SPEC, RFC_V3], ids=["spec", "rfc-v3"])
    def test_no_event_changes_a_constant_field(self, variant):
        (world,) = worlds(TWO, [SPR], [(0, 0)])
        searched = Search(variant, world, all_events(world, TWO, []), depth=3)
        (vcpu,) = searched.vcpus

        def constants():
            values = {}
            for name in CONSTANT:
                record, _, inner = name.rpartition(".")
                values[name] = getattr(getattr(vcpu, record) if record else vcpu, inner)
            return {**values, "vm": copy(vcpu.vm)}  # what an event changes in it, it changes in place

        before = constants()
        searched.run()
        assert before == constants()

    def test_what_is_forgotten_is_the_vmcs_that_is_not_loaded(self):
        vcpu = new_vcpu()
        forget(vcpu)
        assert (POISON, POISON) == (vcpu.vmcs02.spec_ctrl_mask, vcpu.vmcs02.spec_ctrl_shadow)
        assert POISON not in (vcpu.vmcs01.spec_ctrl_mask, vcpu.vmcs01.spec_ctrl_shadow)
        vcpu.load_vmcs(Loaded.VMCS02)
        forget(vcpu)
        assert (POISON, POISON) == (vcpu.vmcs01.spec_ctrl_mask, vcpu.vmcs01.spec_ctrl_shadow)

    def test_forgetting_hides_nothing(self):
        class KeepsShadow(Vcpu):
            __slots__ = ()

            def load_vmcs(self, which: Loaded) -> None:
                self.loaded = which
                if self.cpu.has_control:
                    self.cpu.write_mask(self.vmcs, self.force_mask)

        (world,) = worlds(TWO, [SPR], [(0, 0)])
        events = all_events(world, TWO, [])
        wanted = frozenset(["guest_reads_what_it_wrote"])
        for forgets in (False, True):
            variant = Variant("keeps-shadow", vcpu=KeepsShadow)
            found = Search(variant, world, events, wanted, forgets=forgets).run()
            assert wanted <= set(found.violations)


class TestWorlds:
    """Bits, pairs, hosts."""

    def test_pairs_over_two_bits(self):
        assert [0, 0x1, 0x400, 0x401] == subsets(TWO)
        assert len(pairs_of(TWO)) == 9
        assert all(value & ~mask == 0 for mask, value in pairs_of(TWO))
        assert [*pairs_of(TWO), (RESERVED, 0)] == all_pairs(TWO)
        assert set(few_pairs(TWO)) < set(all_pairs(TWO))

    def test_a_pair_is_explored_on_the_hosts_that_take_it(self):
        by_pair = {world.pair: world for world in worlds(TWO)}
        assert len(by_pair[0, 0].hosts) == len(HOSTS)
        assert all(host.spec_ctrl_shadow for host in by_pair[0x1, 0].hosts)
        assert all(host.features.bhi_ctrl for host in by_pair[0x400, 0x400].hosts)
        assert [] == worlds(TWO, ["ice-lake-server"], [(0x1, 0x1)])

    def test_bits_have_names(self):
        assert TWO == bits_of(["IBRS", "BHI_DIS_S"])
        with pytest.raises(ValueError, match="no bit is named 'PSFD'"):
            bits_of(["PSFD"])


def again(entry: dict) -> Exploration:
    """An exploration of the manifest, made again."""
    bits = bits_of(entry["bits"])
    hosts = [HOSTS[name] for name in entry["hosts"]]
    tasks = worlds(bits, hosts, PAIRS[entry["pairs"]](bits))
    jobs = 2 if len(entry["bits"]) > 2 else 1
    work = compiled_search if len(entry["bits"]) > 2 else search  # test_compiled.py has that they find the same
    workers = Workers(jobs, method="fork")
    return explore_spread(VARIANTS[entry["variant"]], tasks, bits, entry["depth"], workers, work=work)


class TestWhatIsFound:
    """The manifest's explorations, and that nothing is violated in ``spec``."""

    @pytest.mark.parametrize("entry", EXPLORED, ids=lambda entry: f"{entry['variant']}-{len(entry['bits'])}-bits")
    def test_the_figures_are_the_manifests(self, entry):
        if len(entry["bits"]) > 2 and not os.environ.get("SPECCTRL_SLOW"):
            pytest.skip("three bits and more, on every host, take some minutes: SPECCTRL_SLOW=1")
        assert entry["found"] == again(entry).figures()

    def test_nothing_is_violated_in_spec(self):
        own = [entry for entry in EXPLORED if entry["variant"] == "spec"]
        assert [{}] * len(own) == [entry["found"]["violations"] for entry in own]
        assert 5 == max(len(entry["bits"]) for entry in own)

    @pytest.mark.parametrize("hidden", [{"bit_63": False}, {"cpuid": Features(spec_ctrl=True)}, {"offered": 0}])
    def test_nothing_is_violated_where_the_virtual_msrs_are_hidden(self, hidden):
        (world,) = worlds(IBRS, [SPR], [(0, 0)])
        found = search(SPEC, replace(world, **hidden), IBRS)
        assert found.violations == {}
        assert found.transitions > 1000

    def test_every_property_is_violated_in_rfc_v3(self):
        (posted,) = (entry for entry in EXPLORED if entry["variant"] == "rfc-v3")
        assert set(PROPERTIES) == set(posted["found"]["violations"])

    @pytest.mark.parametrize("variant", VARIANTS.values(), ids=list(VARIANTS))
    def test_processes_find_the_same(self, variant):
        tasks = worlds(TWO, [SPR], few_pairs(TWO))
        told = []
        alone = explore(variant, tasks, TWO, depth=2, progress=lambda *figures: told.append(figures))
        pool = Workers(2, oversubscribe=True, method="fork")
        two = explore_spread(variant, tasks, TWO, 2, pool, progress=lambda *figures: told.append(figures))
        assert alone == two  # histories and all
        assert (alone.states, alone.transitions) == told[-1]

    def test_a_search_stops_when_it_has_what_is_wanted(self):
        case = CASES["defect.zeros.guest-sets"]
        assert len(search_case(case, RFC_V3)) == 1
        assert search_case(case, SPEC) is None

    def test_a_host_that_is_not_restored_is_seen_at_the_exit(self):
        class Forgets(Vcpu):
            __slots__ = ()

            def restore_host_spec_ctrl(self, held: int) -> None:
                pass

        (world,) = worlds(TWO, [SPR], [(0, 0)])
        found = search(Variant("forgets", vcpu=Forgets), world, TWO, depth=2)
        assert found.figures()["violations"]["host_value_after_exit"] == 1

    def test_a_reset_that_leads_to_a_known_state_is_looked_at_too(self, monkeypatch):
        """An INIT that resets nothing, for the contract either, leads to the state of a plain exit."""
        class Idle(Vcpu):
            __slots__ = ()

            def init_reset(self) -> None:
                self.init_pending = False

        monkeypatch.setattr(Contract, "init_reset", Idle.init_reset)
        (world,) = worlds(TWO, [SPR], [(0, 0)])
        found = Search(replace(SPEC, vcpu=Idle), world, all_events(world, TWO, []), depth=2).run()
        assert {"reset_leaves_userspace"} == set(found.violations)

    def test_a_host_fault_in_a_migration_is_seen(self):
        class Faults(Vcpu):
            __slots__ = ()

            def restore_nested(self, state) -> None:
                Vcpu.restore_nested(self, state)
                self.saved = RESERVED
                self.enter_guest()

        (world,) = worlds(TWO, [SPR, HOSTS["diamond-rapids"]], [(0, 0)])
        found = search(Variant("faults", vcpu=Faults), world, TWO, depth=1)
        assert found.figures()["violations"]["host_never_faults"] == 1


@pytest.mark.parametrize("id", CASES)
class TestEachDefect:
    """The shortest history of each case, its scenario, and the same history under ``spec``."""

    def test_the_published_scenario_is_what_the_explorer_finds(self, id):
        assert (ROOT / "vectors" / "defects" / f"{id}.json").read_text() == as_text(document(id))

    def test_the_scenario_passes_as_posted_and_not_as_specified(self, id):
        scenario = loads(json.dumps(document(id)))
        assert PASS == run_one(scenario, EmulatorTarget("rfc-v3")).status
        assert PASS != run_one(scenario, EmulatorTarget("spec"), any_profile=True).status

    def test_no_history_of_the_case_violates_spec(self, id):
        assert search_case(CASES[id], SPEC) is None

    def test_no_shorter_history_exists(self, id):
        case = CASES[id]
        (world,) = worlds(case.bits, case.hosts, [case.pair])
        world = replace(world, offered=case.offered, cpuid=case.cpuid, bit_63=case.bit_63)
        events = [event for event in all_events(world, case.bits, []) if case.allowed(event)]
        found = Search(RFC_V3, world, events, depth=len(shortest(id)) - 1).run()
        assert case.violates not in found.violations

    def test_a_replay_has_a_row_for_each_event(self, id):
        history = shortest(id)
        doubled = sum(step["op"] == "nested_state" for step in history.events)
        for variant in ("rfc-v3", "spec"):
            machine = history.replay(variant)
            assert isinstance(machine, Machine)
            assert len(history) + doubled == len(machine.history)


class TestTheCommand:
    """``specctrl explore``."""

    def test_spec_holds_and_the_status_is_0(self, capsys):
        assert cli.main(["explore", "--depth", "2", "--host", "sapphire-rapids", "--bits", "IBRS"]) == 0
        printed = capsys.readouterr().out
        assert all(f"holds     {name}" in printed for name in PROPERTIES)
        assert "0 of 13 properties violated" in printed

    def test_a_violation_is_printed_step_by_step_and_the_status_is_1(self, capsys):
        arguments = ["explore", "--variant", "rfc-v3", "--depth", "1", "--host", "sapphire-rapids"]
        assert cli.main(arguments) == 1
        printed = capsys.readouterr().out
        assert "VIOLATED  zero_forced_bits_never_set, after 1 events" in printed
        assert "          wrmsr msr=IA32_SPEC_CTRL value=0x1" in printed

    def test_json(self, capsys):
        assert cli.main(["explore", "--variant", "rfc-v3", "--depth", "1", "--json"]) == 1
        printed = json.loads(capsys.readouterr().out)
        history = printed["histories"]["userspace_wins"]
        assert history["length"] == printed["violations"]["userspace_wins"] == 1
        assert history["steps"][0]["op"] == "enable_cap"

    @pytest.mark.parametrize("variant", VARIANTS)
    def test_more_processes_print_the_same(self, variant, capsys):
        arguments = ["explore", "--variant", variant, "--depth", "2", "--json"]
        status = cli.main(arguments)
        alone = capsys.readouterr().out
        assert (status, alone) == (cli.main([*arguments, "--jobs", "2"]), capsys.readouterr().out)

    def test_an_unknown_bit(self, capsys):
        assert cli.main(["explore", "--bits", "IBRS,NONE"]) == 2
        assert "no bit is named 'NONE'; known: " + ", ".join(BITS) in capsys.readouterr().err

    @pytest.mark.parametrize("option", ["--depth", "--jobs"])
    def test_counts_are_positive(self, option, capsys):
        with pytest.raises(SystemExit):
            cli.main(["explore", option, "0"])
        assert "is not a number from 1" in capsys.readouterr().err

    def test_the_bar_is_drawn_on_a_terminal_only(self, monkeypatch):
        class Terminal:
            def __init__(self, is_one):
                self.is_one, self.text = is_one, ""

            def isatty(self):
                return self.is_one

            def write(self, text):
                self.text += text

            def flush(self):
                pass

        for is_one in (True, False):
            terminal = Terminal(is_one)
            bar = Bar(terminal)
            bar(1, 2)  # too early
            bar.drawn -= 1
            bar(1_000, 2_000)
            bar.close()
            assert is_one is ("1,000 states, 2,000 transitions" in terminal.text)
            assert "1 states" not in terminal.text
