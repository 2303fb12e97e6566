"""Which rules are about words, and that each of them is proven."""

import sys

import pytest

from specctrl.evidence.claimed import claims_of
from specctrl.evidence.mutants import PACKAGE, all_mutants
from specctrl.evidence.touching import (
    NUMBERS,
    WORDS,
    function_at,
    functions_of,
    handles_word,
    linked,
    of_words,
    touches_word,
)
from specctrl.model.kvm.variant import SPEC
from specctrl.model.vmm.policies import with_long
from specctrl.model.vmm.pool import advertise
from specctrl.proof.instrumented import instrumented
from specctrl.proof.prove import prove
from specctrl.proof.symbolic import Word
from specctrl.rules import load_rules

RULES = load_rules()
RULE_CODE = tuple(str(PACKAGE / "model" / name) for name in ("words.py", "contract.py", "processor.py", "kvm", "vmm"))


class TestTouching:
    def test_every_rule_about_a_word_is_proven(self):
        about = [id for id, rule in RULES.items() if touches_word(rule)]
        assert {"contract", "mechanism", "guest", "userspace"} == {RULES[id].layer for id in about}
        assert [] == [id for id in about if not claims_of(id)]

    def test_a_function_that_combines_bits_handles_a_word(self):
        assert handles_word(advertise)
        assert not handles_word(with_long)

    def test_words_are_the_masks_values_and_views_and_no_counts(self):
        assert {"force_mask", "user_value", "guest_view", "saved", "spec_ctrl_shadow", "mitigation_ctrl"} < WORDS
        assert set() == WORDS & NUMBERS

    @pytest.mark.parametrize("id", ["filter.limits", "nested.bitmap.when", "cap.enable.failed-vcpu"])
    def test_a_rule_about_filters_bitmaps_or_counts_is_none(self, id):
        assert not touches_word(RULES[id])

    def test_a_class_stands_for_its_methods(self):
        assert "write_view" in [one.__name__ for one in functions_of(RULES["contract.level.one-view"])]

    def test_a_field_that_has_a_default_is_no_function(self):
        assert function_at("processor:Vmcs:flip:1") is None
        assert "processor:Vmcs:flip:1" not in of_words(list(all_mutants()))

    def test_a_claim_is_linked_to_the_functions_of_its_rules(self):
        assert {"fields_need_the_control"} == linked("processor:LogicalProcessor.write_mask:delete:1")

    @pytest.mark.parametrize("name", [
        "with_the_control_wrmsr_merges", "kvm_writes_view_and_merge", "what_is_forced_goes_bit_by_bit",
        "contract_forces_bit_by_bit", "userspace_writes_of_virtual_msrs",
    ])
    def test_whatever_a_proof_hands_a_word_handles_words(self, name):
        handed = set()

        def note(frame, event, _):
            code = frame.f_code
            if event == "call" and code.co_filename.startswith(RULE_CODE) and code.co_name.isidentifier():
                given = [frame.f_locals.get(argument) for argument in code.co_varnames[:code.co_argcount]]
                if any(isinstance(value, Word) for value in given):
                    handed.add((code.co_filename, code.co_qualname))

        instrumented.cache_clear()
        sys.setprofile(note)
        try:
            prove(SPEC, name)
        finally:
            sys.setprofile(None)
        assert handed
        for file, qualname in handed:
            if not qualname.endswith(("__init__", "<lambda>")):
                module = file.removeprefix(f"{PACKAGE}/model/").removesuffix(".py").replace("/", ".")
                assert handles_word(function_at(f"{module}:{qualname}")), qualname
