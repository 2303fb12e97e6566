"""Which explored properties carry which rules."""

from specctrl.evidence.explored import SHOWS, properties_of
from specctrl.exploration.search import PROPERTIES
from specctrl.rules import load_rules


class TestShows:
    """The table between properties and rules."""

    def test_every_name_is_a_property_and_every_id_a_rule(self):
        assert list(PROPERTIES) == list(SHOWS)
        assert set() == {id for ids in SHOWS.values() for id in ids} - set(load_rules())

    def test_no_rule_stands_twice_beside_a_property(self):
        assert [] == [name for name, ids in SHOWS.items() if len(ids) != len(set(ids))]

    def test_a_rule_names_its_properties(self):
        assert ["saved_is_hardware"] == properties_of("exit.saved-is-hardware")
        assert [] == properties_of("filter.limits")
