"""The scenarios of the register's fields: those published, and every wrong set of acceptable bits fails one."""

import io
import runpy
import sys
from dataclasses import replace

import pytest

from published_files import DOCUMENTS, GENERATED, ROOT
from specctrl.model.parts import resolve_host
from specctrl.model.registers import REGISTERS, Field
from specctrl.scenario import PASS, load, run_one
from specctrl.scenario.format import ASSUMPTIONS, HOST
from specctrl.scenario.levels import level
from specctrl.vectors import register_fields as fields

SCENARIOS = [load(document) for document in fields.of_fields()]
ADAPTER = ROOT / "vectors" / "adapters" / "adapter.py"
WIDTH = 64


class Adapter:
    """The published adapter in Python, in this process; ``wrong`` changes which bits its host accepts."""

    name, max_unsupported = "adapter.py", 0
    profiles = frozenset(["spec"])

    def __init__(self, module, wrong=lambda bits: bits):
        self.module, self.wrong, self.observes = module, wrong, frozenset(module["OBSERVES"])

    def begin(self, host, profile, assume):
        told = {**ASSUMPTIONS, **assume}
        self.hypervisor = self.module["Hypervisor"](HOST.write(host), profile, told)
        self.hypervisor.host.writable = self.wrong(self.hypervisor.host.writable)

    def step(self, step):
        message = {key: self.module["numbers"](value) for key, value in step.message().items()}
        return getattr(self.hypervisor, message.pop("op"))(**message) or {}

    def end(self):
        pass


@pytest.fixture
def module(monkeypatch):
    """The names of the adapter, which has read an empty input."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    return runpy.run_path(str(ADAPTER))


def failing(target):
    return {scenario.id for scenario in SCENARIOS if run_one(scenario, target).status != PASS}


class TestPublished:
    def test_what_the_table_gives_is_what_is_published(self):
        of_table = [DOCUMENTS[path] for path in GENERATED if DOCUMENTS[path]["x-generated"] == fields.ORIGIN]
        made = list(fields.of_fields())
        assert sorted(made, key=lambda each: each["id"]) == of_table

    def test_each_asks_for_no_more_than_a_processor(self):
        assert {"processor"} == {level(scenario) for scenario in SCENARIOS}

    def test_their_part_has_every_field(self):
        """Else a bit that comes with a feature of another field is not noticed: take a part that has the new one."""
        assert fields.REGISTER.defined == resolve_host(fields.PART).writable

    def test_a_field_that_the_table_gets_has_its_scenarios_and_the_others_stay(self, monkeypatch):
        before = {scenario.id for scenario in SCENARIOS}
        new = Field("NEW_DIS", 12, "a new one", "nowhere", exists_when="TSX")
        monkeypatch.setattr(fields, "REGISTER", replace(fields.REGISTER, fields=(*fields.REGISTER.fields, new)))
        made = {document["id"]: document for document in fields.of_fields()}
        assert ["gen.field.new-dis.refused", "gen.field.new-dis.taken", "gen.field.no-field.refused"] == sorted(
            id.rsplit(".", 1)[0] for id in made.keys() - before)
        assert ["gen.field.no-field.refused"] == [id.rsplit(".", 1)[0] for id in before - made.keys()]
        (no_field,) = (document for id, document in made.items() if "no-field" in id)
        assert "0x1000" not in [step.get("value") for step in no_field["steps"]]


class TestWrongProcessors:
    """An implementation that accepts a bit too many or too few, on every host."""

    def test_the_adapter_as_it_is_passes_all(self, module):
        assert set() == failing(Adapter(module))

    @pytest.mark.parametrize("bit", range(WIDTH))
    def test_a_bit_that_is_accepted_on_every_host_fails_one(self, module, bit):
        found = failing(Adapter(module, lambda bits: bits | 1 << bit))
        unasked = (0, 1)  # every host with the MSR accepts IBRS, and may ignore STIBP
        assert bool(found) == (bit not in unasked)

    @pytest.mark.parametrize("field", list(REGISTERS["IA32_SPEC_CTRL"]), ids=lambda field: field.name)
    def test_a_field_that_is_refused_on_every_host_fails_one(self, module, field):
        name = field.name.lower().replace("_", "-")
        found = failing(Adapter(module, lambda bits: bits & ~field.mask))
        assert any(id.startswith(f"gen.field.{name}.taken.") for id in found)

    def test_features_that_are_mistaken_for_each_other_fail_some(self, module):
        known = dict(module["FIELDS"])
        for one in known:
            for other in set(known) - {one, "SPEC_CTRL"}:
                module["FIELDS"].update({one: known[one] | known[other]})
                assert failing(Adapter(module)), (one, other)
                module["FIELDS"].update(known)
