"""One table says what an operation is; everything that knows operations is driven by it, or agrees with it."""

import inspect
import re
from random import Random

import pytest

from published_files import ROOT
from specctrl.model.kvm.vcpu import Vcpu
from specctrl.model.outcomes import Misuse
from specctrl.scenario.format import GUEST, HOST_SIDE, LEVELS, OPERATIONS, USERSPACE
from specctrl.scenario.kinds import Either, Kind, Listing, Named
from specctrl.scenario.machine import Machine
from specctrl.scenario.published import derived
from specctrl.scenario.random_steps import Chooser
from specctrl.targets.kvm.showable import Showable
from specctrl.targets.kvm.target import KvmTarget
from specctrl.targets.lockstep import message
from specctrl.targets.plain import encode

each = pytest.mark.parametrize("name", OPERATIONS)
RANDOM = {name for name, operation in OPERATIONS.items() if operation.often}
NEVER_SHOWN = (Showable._nested, Showable._smm, Showable._boot, Showable._get_supported_force_spec_ctrl)
"""Where the running kernel's target says that no host can show it."""


def page(name):
    return (ROOT / "spec" / name).read_text("utf-8")


def is_list(kind: Kind) -> bool:
    kind = kind.kind if isinstance(kind, Named) else kind
    return isinstance(kind, Listing) or (isinstance(kind, Either) and list in kind.kinds)


@each
class TestEachOperation:
    def test_somebody_performs_it_at_a_level(self, name):
        assert OPERATIONS[name].who in (USERSPACE, GUEST, HOST_SIDE)
        assert OPERATIONS[name].level in LEVELS

    def test_the_machine_performs_it_with_the_same_arguments_and_defaults(self, name):
        operation, given = OPERATIONS[name], inspect.signature(getattr(Machine, name)).parameters
        assert set(operation.args) == set(given) - {"self", "machine"}
        for argument, default in operation.defaults.items():
            has = given[argument].default
            assert default == (list(has) if isinstance(default, list) else has), argument
        assert all(given[argument].default is inspect.Parameter.empty for argument in operation.required())
        assert all(given[argument].default is not inspect.Parameter.empty for argument in operation.optional)

    def test_random_histories_have_what_the_reference_in_c_performs(self, name):
        """But ``observe``: a look is taken after every step."""
        adapter = (ROOT / "reference" / "c" / "adapter.c").read_text("utf-8")
        performed = re.search(rf'^\t{{ "{name}", (?!NOTHING, boot\b)', adapter, re.MULTILINE)
        assert (performed is not None and name != "observe") == (name in RANDOM)

    def test_the_running_kernels_target_performs_what_it_can_show(self, name):
        decides = getattr(Showable, f"_{name}", None)
        assert hasattr(KvmTarget, f"_{name}") == (decides is not None and decides not in NEVER_SHOWN)

    def test_the_page_of_scenarios_says_what_it_does_with_each_argument_and_what_it_shows(self, name):
        described = dict(re.findall(r"^`([a-z_]+)`\n: (.*?)(?=^\S|^$)", page("scenarios.md"), re.DOTALL | re.MULTILINE))
        for word in {*OPERATIONS[name].args, *OPERATIONS[name].shows} - {"vcpu"}:
            assert f"`{word}`" in described[name], word

    def test_the_page_for_other_hypervisors_says_what_it_means_there(self, name):
        assert re.search(rf"^\| [^|]*`{name}`[^|]* \|", page("implementing.md"), re.MULTILINE)


class TestAllOfThem:
    def test_the_pages_describe_no_other(self):
        listed = re.findall(r"^`([a-z_]+)`\n: ", page("scenarios.md").split("(operations)=")[1], re.MULTILINE)
        assert list(OPERATIONS) == listed

    def test_what_the_published_set_says_of_them_is_up_to_date(self):
        """If not: ``python -m specctrl.vectors vectors``."""
        assert {path: path.read_text("utf-8") for path in derived(ROOT / "vectors")} == derived(ROOT / "vectors")

    def test_the_machine_performs_no_other(self):
        with pytest.raises(Misuse, match="there is no operation 'registers'"):
            Machine().perform({"op": "registers"})

    def test_every_one_that_random_histories_have_happens_and_can_be_said_in_words(self):
        seen = set()
        for seed in range(60):
            chooser = Chooser(Random(seed))
            for call, _, _ in chooser.history(60):
                seen.add(call["op"])
                words = [word.partition("=") for word in encode(message(call)).split(" ")]
                assert all(equals for _, equals, _ in words), call
                assert {key.partition(".")[0] for key, _, _ in words} == set(call)
                for key, _, text in words[1:]:
                    kind = OPERATIONS[call["op"]].args[key.partition(".")[0]]
                    assert is_list(kind) or "." in key or not set(",:") & set(text), (call, key)
        assert RANDOM == seen

    def test_a_step_that_cannot_happen_changes_nothing(self):
        """So a random history can try another instead."""
        chooser, refused = Chooser(Random(5)), 0
        for _ in chooser.setup():
            chooser.machine.perform(_)
        for _ in range(600):
            before = {number: look(vcpu) for number, vcpu in chooser.machine.vcpus.items()}
            try:
                chooser.machine.perform(chooser.any_step())
            except Misuse:
                refused += 1
                assert before == {number: look(vcpu) for number, vcpu in chooser.machine.vcpus.items()}
        assert refused > 100


def look(vcpu: Vcpu) -> str:
    return repr(vcpu)
