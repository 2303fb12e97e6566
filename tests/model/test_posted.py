"""The patches as posted: every override is necessary, and each plantable defect is caught when planted alone."""

from types import FunctionType

import pytest

from helpers import FORCE, SC, machine
from published_files import ROOT
from specctrl.exploration.defects import CASES, search_case
from specctrl.exploration.events import all_events
from specctrl.exploration.search import HOSTS, Search, worlds
from specctrl.model.kvm.variant import Variant
from specctrl.model.kvm.vcpu import Vcpu
from specctrl.model.posted import PostedVcpu
from specctrl.model.registers import BHI_DIS_S, IBRS
from specctrl.model.variants import VARIANTS
from specctrl.scenario import PASS, EmulatorTarget, loads, run_one

HELPERS = {"set_spec_ctrl"}
"""Not an override: what two of them share."""

OVERRIDES = [
    name
    for name, item in vars(PostedVcpu).items()
    if isinstance(item, FunctionType) and not name.startswith("__") and name not in HELPERS
]


def with_overrides(*names: str) -> Variant:
    """This specification with some operations of the patches in their place."""
    methods = {name: vars(PostedVcpu)[name] for name in (*HELPERS, *names)}
    return Variant("planted", vcpu=type("Planted", (Vcpu,), {"__slots__": (), **methods}))


def passes(monkeypatch, id: str, variant: Variant) -> bool:
    """Whether a defect's scenario passes on this variant."""
    scenario = loads((ROOT / "vectors" / "defects" / f"{id}.json").read_text())
    monkeypatch.setitem(VARIANTS, "rfc-v3", variant)
    return run_one(scenario, EmulatorTarget("rfc-v3")).status == PASS


class TestOverrides:
    """Nothing is overridden for nothing."""

    def test_each_replaces_an_operation_of_the_specification(self):
        assert all(hasattr(Vcpu, name) for name in OVERRIDES)
        assert not any(hasattr(Vcpu, name) for name in HELPERS)

    def test_all_of_them_are_the_variant(self, monkeypatch):
        for id in CASES:
            assert passes(monkeypatch, id, with_overrides(*OVERRIDES)), id

    @pytest.mark.parametrize("name", [name for name in OVERRIDES if name != "force_spec_ctrl"])
    def test_without_it_some_defect_is_gone(self, name, monkeypatch):
        without = with_overrides(*(other for other in OVERRIDES if other != name))
        assert not all(passes(monkeypatch, id, without) for id in CASES)

    def test_there_is_no_form_of_the_capability_for_a_vcpu(self):
        arguments = {"fd": "vcpu", "cap": FORCE, "args": [0x400, 0x400]}
        assert machine(variant="rfc-v3").enable_cap(**arguments) == {"errno": "EINVAL"}
        assert machine().enable_cap(**arguments) == {"ret": 0}

    def test_creation_is_this_specifications(self):
        """``power_on`` was once overridden: it would change nothing that can be seen."""
        posted, specified = (machine(mask=0x401, value=0x400, variant=name) for name in ("rfc-v3", "spec"))
        assert posted.observe() == specified.observe()
        assert "power_on" not in OVERRIDES


PLANTED = {
    "defect.mask.guest-unprotected": ("write_mitigation_ctrl",),
    "defect.mask.host-unprotected": ("write_mitigation_ctrl", "save_spec_ctrl", "restore_host_spec_ctrl"),
    "defect.zeros.guest-sets": ("write_spec_ctrl",),
    "defect.zeros.host-keeps": ("write_spec_ctrl", "save_spec_ctrl", "restore_host_spec_ctrl"),
    "defect.no-control.not-forced": ("write_mitigation_ctrl",),
    "defect.no-control.view-lost": ("write_mitigation_ctrl", "write_spec_ctrl", "save_spec_ctrl"),
    "defect.no-control.list": ("update_interception",),
    "defect.shadow-not-pending.smm": ("load_vmcs",),
    "defect.shadow-not-pending.host-unprotected": ("load_vmcs", "save_spec_ctrl", "restore_host_spec_ctrl"),
    "defect.failed-entry.view": ("abandon_entry",),
    "defect.failed-entry.host-unprotected": ("abandon_entry", "save_spec_ctrl", "restore_host_spec_ctrl"),
    "defect.report-elsewhere.list": ("write_mitigation_ctrl",),
    "defect.report-elsewhere.restore": ("write_mitigation_ctrl", "save_spec_ctrl", "restore_host_spec_ctrl"),
    "defect.refused-values.first-write": ("write_spec_ctrl",),
    "defect.init.report-stays": ("init_reset",),
    "defect.enumeration.not-offered": ("write_mitigation_ctrl",),
    "defect.enumeration.bit-63-clear": ("shows_mitigation_ctrl",),
    "defect.enumeration.cpuid-hidden": ("shows_enumeration",),
    "defect.saved.computed": ("save_spec_ctrl", "write_mitigation_ctrl"),
    "defect.host-write.faults": ("write_mitigation_ctrl",),
}
"""What of the patches, put into this specification, is enough for a defect."""


class TestPlanted:
    """Each plantable defect, planted in the specification's code, is found."""

    def test_all_plantable_defects_are_planted(self):
        assert {CASES[id].defect for id in PLANTED} == {case.defect for case in CASES.values()}

    @pytest.mark.parametrize("id", PLANTED)
    def test_it_is_found(self, id):
        assert search_case(CASES[id], with_overrides(*PLANTED[id])) is not None

    def test_computing_the_saved_value_is_harmless_where_nothing_else_is_wrong(self):
        bits = IBRS | BHI_DIS_S
        for world in worlds(bits, [HOSTS["sapphire-rapids"]], [(0, 0), (bits, BHI_DIS_S)]):
            events = all_events(world, bits, [])
            computed = with_overrides("save_spec_ctrl", "restore_host_spec_ctrl")
            found = Search(computed, world, events, forgets=True).run()
            assert found.violations == {}


class TestWithoutTheControl:
    """What the patches' two readings of the saved value show."""

    def test_kvm_reads_its_saved_value(self):
        made = machine("ice-lake-server", variant="rfc-v3")
        made.wrmsr(msr=SC, value=0x1)
        assert made.get_msrs(msrs=[SC]) == {"ret": 1, "values": [0x1]}
