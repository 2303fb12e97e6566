"""Which claims and properties carry which rules, and which theorems are shown a mutant."""

import pytest

from specctrl.evidence.links import claims_of, theorems_of
from specctrl.exploration.properties import PROPERTIES
from specctrl.proof.claims import CLAIMS
from specctrl.rules import load_rules


class TestClaimsAndProperties:
    @pytest.mark.parametrize("stated", [CLAIMS, PROPERTIES], ids=["claims", "properties"])
    def test_every_id_that_one_names_is_a_rule_and_none_stands_twice(self, stated):
        assert set() == {id for one in stated.values() for id in one.rules} - set(load_rules())
        assert [] == [name for name, one in stated.items() if len(one.rules) != len(set(one.rules))]

    def test_the_claims_of_a_rule_are_those_that_name_it(self):
        assert ["restoring_commutes"] == claims_of("migration.any-order")
        assert [] == claims_of("filter.limits")

    def test_every_property_that_is_a_claim_says_so(self):
        assert {"forced_is_intercepted"} == set(PROPERTIES) - set(CLAIMS)


class TestTheorems:
    def test_one_is_linked_to_the_functions_that_its_rules_bind(self):
        assert ["fields_need_the_control"] == theorems_of()["processor:LogicalProcessor.write_mask:delete:1"]

    def test_none_is_linked_to_a_default_or_to_a_function_of_other_rules(self):
        assert "processor:Vmcs:flip:1" not in theorems_of()
        assert not any(key.startswith("kvm.filters:MsrFilter.first_match:") for key in theorems_of())
