"""Compiled explorations find what plain ones find, state by state; and a wrong kernel is noticed."""

import re
from dataclasses import replace

import pytest

from specctrl.cli import main as cli
from specctrl.exploration.compiled import explorer
from specctrl.exploration.compiled.columns import Columns, Indistinct
from specctrl.exploration.compiled.kernels import CONTRACT_FLAGS, CONTRACT_WORDS
from specctrl.exploration.search import HOSTS, Search, bits_of, few_pairs, of_world, quick, worlds
from specctrl.exploration.snapshot import FIELDS
from specctrl.model.kvm.state import Loaded
from specctrl.model.kvm.variant import SPEC
from specctrl.model.posted import RFC_V3
from specctrl.proof.terms import variable
from specctrl.targets.c import CannotBuild, compiler

try:
    compiler()
except CannotBuild as missing:
    pytest.skip(str(missing), allow_module_level=True)

TWO = bits_of(["IBRS", "BHI_DIS_S"])
THREE = bits_of(["IBRS", "RRSBA_DIS_S", "BHI_DIS_S"])


def plainly(search: Search) -> list[explorer.Found]:
    """Every state that the rule code finds, in order."""
    search.run()
    number = {node: index for index, node in enumerate(search.parents)}
    found = []
    for (host, at, state), parent in search.parents.items():
        contract = search.expected[at]
        own = dict(zip(FIELDS, state, strict=True))
        flags = {name: getattr(contract, name) for name in CONTRACT_FLAGS}
        flags |= {"level": contract.level == 2, "controls": contract.controls.use_msr_bitmap}
        found.append(explorer.Found(
            host,
            {name: getattr(contract, name) for name in CONTRACT_WORDS} | flags,
            own | {"loaded": own["loaded"] == Loaded.VMCS02.value},
            -1 if parent is None else number[parent[0]],
            0 if parent is None else search.events.index(parent[1])))
    return found


def both(variant, world, bits, depth=None) -> tuple:
    """A world explored by the rule code and by the program."""
    return of_world(variant, world, bits, depth).run(), explorer.run(of_world(variant, world, bits, depth))


class TestTheSame:
    """States, transitions, depth, violations and histories."""

    @pytest.mark.parametrize("world", quick()[1], ids=lambda world: str(world.pair))
    def test_every_state_of_two_bits_and_the_step_that_finds_it(self, world):
        bits, _ = quick()
        assert plainly(of_world(SPEC, world, bits)) == list(explorer.states(of_world(SPEC, world, bits)))

    @pytest.mark.parametrize("world", worlds(TWO, None, few_pairs(TWO)), ids=lambda world: str(world.pair))
    def test_two_bits_on_every_host(self, world):
        plain, compiled = both(SPEC, world, TWO)
        assert plain == compiled
        assert compiled.states > 1000

    @pytest.mark.parametrize("world", worlds(THREE, None, few_pairs(THREE)), ids=lambda world: str(world.pair))
    def test_a_sample_of_three_bits(self, world):
        plain, compiled = both(SPEC, world, THREE, depth=3)
        assert plain == compiled

    @pytest.mark.parametrize("world", quick()[1], ids=lambda world: str(world.pair))
    def test_the_shortest_histories_of_the_posted_series(self, world):
        plain, compiled = both(RFC_V3, world, TWO, depth=3)
        assert plain == compiled
        assert compiled.violations


class TestWhatIsWrongIsNoticed:
    """Planted unsoundnesses."""

    world = worlds(TWO, [HOSTS["sapphire-rapids"]], [(0, 0)])[0]

    def test_an_edge_of_a_kernel_that_leads_elsewhere(self, monkeypatch):
        search = of_world(SPEC, self.world, TWO)
        good = explorer.program_for(search)
        edge = r"static unsigned step_(\d+)_011\(.*?\n}\n"
        for body in re.finditer(edge, good.text, re.DOTALL):
            swapped = re.sub(r"= (t\d+) \? (t\d+) : (t\d+);", r"= \1 ? \3 : \2;", body[0])  # each of its edges
            if swapped != body[0]:
                break
        text = good.text.replace(body[0], swapped)
        monkeypatch.setattr(explorer, "program_for", lambda _: replace(good, text=text))
        assert text != good.text
        assert explorer.run(of_world(SPEC, self.world, TWO)) != of_world(SPEC, self.world, TWO).run()

    def test_bits_that_are_merged_although_a_constant_tells_them_apart(self, monkeypatch):
        right = explorer.columns_of

        def wrong(search, names):
            columns = right(search, names)
            first, second, *others = columns.masks
            columns.masks = (first | second, *others)
            return columns

        monkeypatch.setattr(explorer, "columns_of", wrong)
        with pytest.raises(Indistinct):
            explorer.run(of_world(SPEC, self.world, TWO))

    def test_a_word_that_the_columns_cannot_write(self):
        with pytest.raises(Indistinct, match="0x1 tells apart"):
            Columns([0x3]).packed(0x1)

    def test_a_search_that_has_not_enough_memory(self):
        with pytest.raises(explorer.SearchFailed, match="memory"):
            explorer.run(of_world(SPEC, worlds(THREE, None, [(0, 0)])[0], THREE), memory=5_000_000)

    def test_terms_that_are_not_bit_by_bit(self):
        from specctrl.exploration.compiled.as_c import CannotWrite, Function, Names

        with pytest.raises(CannotWrite, match="not bit by bit"):
            Function(Names()).value(variable("v0", wide=True) - 1)


class TestTheCommand:
    """``specctrl explore --compiled``."""

    def test_it_prints_the_same(self, capsys):
        arguments = ["explore", "--depth", "3", "--host", "sapphire-rapids", "--json"]
        assert cli.main(arguments) == 0
        plain = capsys.readouterr().out
        assert cli.main([*arguments, "--compiled", "--jobs", "2"]) == 0
        assert plain == capsys.readouterr().out

    def test_without_a_compiler_the_rule_code_runs(self, capsys, monkeypatch):
        monkeypatch.setenv("CC", "none-such")
        assert cli.main(["explore", "--depth", "1", "--bits", "IBRS", "--compiled"]) == 0
        printed = capsys.readouterr()
        assert "the rule code runs: a C compiler is needed" in printed.err
        assert "0 of 13 properties violated" in printed.out
