"""The planter: a mutant is there in a copy of this process, and not here."""

import os
from importlib import import_module
from types import CodeType, ModuleType

from specctrl.evidence.mutants import all_mutants, spread
from specctrl.evidence.planted import _find, functions, on_mutant, plant
from specctrl.model.vmm.migration import MsrsRefused
from specctrl.model.words import merge


def both(key, ask):
    """What is answered without the mutant, and with it."""
    return on_mutant(None, ask), on_mutant(key, ask)


def anew(module):
    """A module, as whoever imports it now finds it."""
    return import_module(f"specctrl.{module}")


class TestPlanting:
    def test_a_mutant_is_there_in_the_child_and_not_here(self):
        assert (5, 0) == both("words:merge:swap-bits:1", lambda: merge(4, 3, 1))
        assert 5 == merge(4, 3, 1)

    def test_the_default_of_a_field_is_planted_where_it_is_imported(self):
        assert (False, True) == both(
            "processor:Vmcs:flip:1", lambda: anew("model.processor").Vmcs().virtualize_spec_ctrl)

    def test_what_is_made_while_its_module_is_imported_has_it_too(self):
        assert (True, False) == both(
            "kvm.filters:MsrFilter:flip:1", lambda: anew("model.kvm.filters").ALLOW_ALL.default_allow)
        assert (False, True) == both(
            "guest:Kernel:flip:1", lambda: anew("model.vmm.policies").GUESTS["linux-old"].kernel.reports)

    def test_where_no_module_can_be_made_of_it_an_import_fails(self):
        key = "vmm.policies:OnOldHypervisor:flip:1"
        assert ("specctrl.model.vmm.policies", None) == both(key, lambda: anew("model.vmm.policies").__name__)
        assert 5 == on_mutant(key, lambda: anew("model.words").merge(4, 3, 1))

    def test_a_method_without_its_call_of_super_is_planted(self):
        key = "vmm.migration:MsrsRefused.__init__:delete:1"
        assert [[[1, 2], True], [[1, 2], True]] == list(both(key, lambda: [*MsrsRefused([1, 2], True).args]))
        assert [[1, 2], [1, 2]] == list(both(key, lambda: MsrsRefused((1, 2), False).msrs))

    def test_a_child_that_fails_or_does_not_end_says_nothing(self):
        def never():
            while True:
                pass

        assert on_mutant(None, lambda: 1 / 0) is None
        assert on_mutant(None, never, seconds=0.2) is None
        assert on_mutant(None, lambda: os._exit(3)) is None


def made_of(code):
    """A function's code without its lines."""
    inside = [made_of(each) if isinstance(each, CodeType) else repr(each) for each in code.co_consts]
    return code.co_code, code.co_names, inside


def looks(function):
    return made_of(function.__code__), function.__defaults__, function.__kwdefaults__


class TestEveryMutant:
    def test_those_that_change_no_function_change_a_field(self):
        left_out = set(all_mutants()) - set(functions())
        assert left_out
        assert {"boundary", "flip"} == {key.split(":")[2] for key in left_out}

    def test_each_of_a_function_can_be_planted_and_changes_it(self):
        def unchanged():
            found = []
            for key, function in functions().items():
                kept, before = function.__code__, looks(function)
                plant(all_mutants()[key])
                found += [key] if looks(function) == before else []
                function.__code__, function.__defaults__ = kept, before[1]
            return found

        assert [] == on_mutant(None, unchanged, seconds=300)

    def test_the_function_alone_is_what_the_whole_definition_makes_of_it(self):
        for key in spread(list(functions()), 60):
            mutant, names = all_mutants()[key], key.split(":")[1].split(".")
            module = import_module(functions()[key].__module__)
            made = []
            for code in (compile(mutant.text, "", "exec", dont_inherit=True), mutant.compiled("")):
                namespace = ModuleType("anew")
                vars(namespace).update(vars(module))
                exec(code, vars(namespace))
                made.append(looks(_find(namespace, names)))
            assert made[0] == made[1], key
