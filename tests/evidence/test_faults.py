"""The faults that somebody made: the published scenarios notice each, but for those that none can."""

import pytest

from published_files import DOCUMENTS
from specctrl.evidence.breaks import passes
from specctrl.evidence.draw import Changed, draw
from specctrl.evidence.faults import FAULTS, changed
from specctrl.evidence.mutants import all_mutants
from specctrl.evidence.planted import on_mutant, on_mutants
from specctrl.scenario import load
from specctrl.scenario.format import SHOWS

PUBLISHED = {document["id"]: document for document in DOCUMENTS.values()}


class TestFaults:
    @pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
    def test_the_scenario_that_is_named_notices_it(self, fault):
        scenario = load(PUBLISHED[fault.scenario])
        assert (True, False) == (on_mutant(None, lambda: passes(scenario)),
                                 on_mutants(fault.mutants(), lambda: passes(scenario)))

    def test_each_has_a_name_of_its_own(self):
        assert len(FAULTS) == len({fault.name for fault in FAULTS})

    def test_a_text_that_stands_there_twice_or_not_at_all_is_refused(self):
        with pytest.raises(ValueError, match="example: 0 times in words, newly_set: nothing"):
            changed("example", "words", "newly_set", "nothing", "new")
        with pytest.raises(ValueError, match="example: 2 times in words, merge: mask"):
            changed("example", "words", "merge", "mask)", "value)")


class TestDraw:
    def test_a_short_history_is_drawn_for_a_mutant(self):
        found = draw([all_mutants()["kvm.nested:VcpuNested.abandon_entry:delete:1"]])
        assert found is not None
        assert len(found.run.calls) <= 8
        assert "nested_flags: expected [], observed [RUN_PENDING]" in found.observed

    def test_two_mutants_are_planted_together(self):
        keys = ("words:merge:swap-bits:1", "kvm.vcpu:Vcpu.vmxoff:delete:2")
        found = draw([all_mutants()[key] for key in keys])
        assert found is not None

    def test_the_code_as_it_is_shows_nothing(self):
        assert draw([], outside=False, events=500) is None

    def test_what_stands_inside_is_not_compared_from_outside(self):
        observes = Changed([], outside=True).begun.removeprefix("observes=").split(",")
        inside = {"mask", "shadow", "saved", "intercepted", "reads_intercepted", "in_guest", "exposed", "overhead"}
        assert inside == set(SHOWS) - set(observes)

    def test_a_mutant_that_does_not_end_is_a_finding(self, monkeypatch):
        monkeypatch.setattr("specctrl.evidence.draw.SECONDS", 0.3)
        found = draw([changed("endless", "kvm.vcpu", "Vcpu.smi", "self.smm = True", "while True: pass")])
        assert found is not None
        assert ("ends", "smi") == (found.observed, found.run.calls[-1]["op"])
