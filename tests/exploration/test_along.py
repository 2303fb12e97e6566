"""The properties along one history: the posted defects violate some, the specification none."""

import pytest

from published_files import ROOT
from specctrl.exploration.along import Along, Causes
from specctrl.exploration.properties import PROPERTIES
from specctrl.model.outcomes import Misuse
from specctrl.model.variants import VARIANTS
from specctrl.scenario import read

PUBLISHED = read([ROOT / "vectors"])
POSTED = {each.id: each for each in PUBLISHED if each.profile == "rfc-v3"}


def violated(scenario, variant):
    """What each step violates, up to one that cannot be asked."""
    along = Along(scenario.host, VARIANTS[variant], scenario.assume)
    found = []
    for step in scenario.steps:
        try:
            found.append(along.perform(step.call()).violated)
        except Misuse:
            break
    return found


@pytest.mark.parametrize("scenario", [each for each in PUBLISHED if each.profile == "spec"], ids=lambda each: each.id)
def test_the_specification_violates_nothing(scenario):
    assert {names for names in violated(scenario, "spec") if names} == set()


@pytest.mark.parametrize("id", sorted(POSTED))
def test_each_posted_defect_violates_a_property_that_is_one(id):
    names = {name for names in violated(POSTED[id], "rfc-v3") for name in names}
    assert names
    assert names <= set(PROPERTIES)


@pytest.mark.parametrize(("id", "property", "operations"), [
    ("defect.failed-entry.host-unprotected", "host_value_after_exit",
     {"abandon_entry": ("D5",), "restore_host_spec_ctrl": ("D1", "D2", "D18")}),
    ("defect.init.report-stays", "reset_leaves_userspace", {"init_reset": ("D9",)}),
    ("defect.mask.host-unprotected", "host_value_after_exit",
     {"restore_host_spec_ctrl": ("D1", "D2", "D18"), "write_mitigation_ctrl": ("D10", "D21", "D3", "D1")}),
])
def test_a_violation_comes_from_the_operations_without_which_it_is_gone(id, property, operations):
    scenario = POSTED[id]
    steps = [step.call() for step in scenario.steps]
    along = Along(scenario.host, VARIANTS["rfc-v3"], scenario.assume)
    upto = next(at for at, step in enumerate(steps, 1) if property in along.perform(step).violated)
    assert Causes(scenario.host, VARIANTS["rfc-v3"], scenario.assume).of(steps[:upto], property) == operations
