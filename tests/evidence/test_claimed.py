"""Which claims carry which rules."""

from specctrl.evidence.claimed import PROVES, claims_of
from specctrl.exploration.search import PROPERTIES
from specctrl.proof.claims import CLAIMS
from specctrl.rules import load_rules


class TestProves:
    """The table between claims and rules."""

    def test_every_name_is_a_claim_and_every_id_a_rule(self):
        rules = load_rules()
        assert set() == set(PROVES) - set(CLAIMS)
        assert set() == {id for ids in PROVES.values() for id in ids} - set(rules)

    def test_a_rule_names_its_claims(self):
        assert ["restoring_commutes"] == claims_of("migration.any-order")
        assert [] == claims_of("filter.limits")

    def test_every_property_that_is_a_claim_says_so(self):
        assert {"forced_is_intercepted"} == set(PROPERTIES) - set(CLAIMS)
