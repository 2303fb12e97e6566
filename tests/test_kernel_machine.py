"""The machine for the series in a real kernel, as far as it needs no kernel: expectations, judging, choosing."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from specctrl.rules import load_rules
from specctrl.scenario import Scenario, load, read

FOLDER = Path(__file__).parents[1] / "reference" / "linux"


@pytest.fixture(scope="module", autouse=True)
def found() -> Iterator[None]:
    """The machine's modules can be imported."""
    sys.path.insert(0, str(FOLDER))
    yield
    sys.path.remove(str(FOLDER))


def scenario(*steps: dict[str, Any], host: Any = "sapphire-rapids", profile: str = "spec") -> Scenario:
    return load({"schema": "specctrl/scenario/1", "id": "here", "host": host, "profile": profile, "steps": list(steps)})


CREATE = {"op": "create_vcpu"}
WRITE = {"op": "wrmsr", "msr": "IA32_SPEC_CTRL", "value": "0x1"}
READ = {"op": "rdmsr", "msr": "IA32_SPEC_CTRL"}
LOOK = {"op": "observe"}


class TestSeries:
    def test_names_rules_that_exist(self) -> None:
        named = {name for file in (FOLDER / "series").iterdir()
                 for name in re.findall(r"rule: ([a-z0-9.-]+)", file.read_text("utf-8"))}
        assert len(named) > 40
        assert named - set(load_rules()) == set()

    def test_has_no_context_of_existing_files(self) -> None:
        for file in (FOLDER / "series").glob("000*.diff"):
            assert [line for line in file.read_text("utf-8").splitlines() if line.startswith(" ")] == [], file.name


class TestExpected:
    def test_second_write_leaves_the_shadow(self) -> None:
        from expected import history

        again = {**WRITE, "value": "0x5"}
        assert history(scenario(CREATE, WRITE, again, READ), "")[-1][1] == {"value": 0x1}

    def test_reserved_bits_are_bochs_own(self) -> None:
        from expected import history

        ddpd = {**WRITE, "value": "0x100"}  # sapphire-rapids has no DDPD_U
        assert history(scenario(CREATE, ddpd), "")[-1][1] == {}
        assert history(scenario(CREATE, {**WRITE, "value": "0x200"}), "")[-1][1] == {"fault": "#GP"}

    def test_guest_is_left_after_each_instruction(self) -> None:
        from expected import history

        seen = history(scenario(CREATE, WRITE, {**WRITE, "value": "0x5"}, LOOK, host="ice-lake-server"), "")[-1][1]
        assert seen["saved"] == 0x5

    def test_every_repair_taken_away_shows_in_some_history_of_its_defect(self) -> None:
        from expected import REPAIRS, history

        seen = set()
        for each in read([FOLDER.parents[1] / "vectors" / "defects", FOLDER / "histories"]):
            defect = next((word.rstrip(":") for word in each.why.split() if word.startswith("D")), "")
            if defect in REPAIRS and history(each, defect) != history(each, ""):
                seen.add(defect)
        assert seen == set(REPAIRS) - {"all"}


class TestJudging:
    def judge(self, *answers: str) -> dict[str, Any]:
        from judging import judge_one

        return judge_one(scenario(CREATE, WRITE, READ), "", ["observes=*", *answers])

    def test_equal(self) -> None:
        assert self.judge("ret=0", "ok", "value=0x1") == {"outcome": "as published"}

    @pytest.mark.parametrize("answers", [
        ("ret=0", "ok", "value=0x5"),
        ("ret=0", "fault=#GP", "value=0x1"),
        ("ret=0", "ok", "ok"),
        ("ret=0", "ok"),
        ("errno=EINVAL", "ok", "value=0x1"),
        ("ret=0", "nonsense", "value=0x1"),
    ])
    def test_differs(self, answers: tuple[str, ...]) -> None:
        assert self.judge(*answers)["outcome"] == "differs"

    def test_unsupported_is_not_shown(self) -> None:
        assert self.judge("ret=0", "unsupported=no such thing") == {"outcome": "not shown", "why": "no such thing"}

    def test_a_known_difference_that_is_gone_fails(self) -> None:
        from judging import KNOWN, declared

        id = next(iter(KNOWN))
        assert declared(id, {"outcome": "differs", "why": "so"}) == {"outcome": "known difference", "why": KNOWN[id]}
        assert declared(id, {"outcome": "as published"})["outcome"] == "differs"
        assert declared("another", {"outcome": "equal"}) == {"outcome": "equal"}

    def test_known_differences_are_of_published_scenarios(self) -> None:
        from judging import KNOWN

        published = {each.id for each in read([FOLDER.parents[1] / "vectors"])}
        assert set(KNOWN) - published == set()


class TestChoosing:
    def test_one_boot_is_one_host(self) -> None:
        from rig import cannot_show

        legacy = {"op": "migrate", "to": "skylake-server"}
        assert cannot_show(scenario(CREATE, legacy)) == "a move between a host with legacy IBRS and one without"
        assert cannot_show(scenario(CREATE, {"op": "migrate", "to": "sapphire-rapids"})) == ""

    def test_a_move_to_a_host_of_another_boot_is_made_by_parameters(self) -> None:
        from rig import PLAIN, places

        moved = scenario(CREATE, {"op": "migrate", "to": "ice-lake-server"})
        usual = "enable_apicv=0 preemption_timer=0 arch_capabilities_or="
        assert places(moved) == (PLAIN, [
            f"{usual}0x80000 hidden=0x0 host_spec_ctrl=0x401",
            f"{usual}0x0 no_spec_ctrl_virt=1 hidden=0xc host_spec_ctrl=0x1"])

    def test_what_the_vmm_does_not_look_at_is_not_performed(self) -> None:
        from rig import cannot_show

        assert cannot_show(scenario(CREATE, {"op": "exit", "nmi_leaves": "0x0"})) == ""
        assert cannot_show(scenario(CREATE, {"op": "migrate", "to": "sapphire-rapids", "vmm": "qemu"})) == (
            "the machine's VMM does not know migrate with vmm")

    def test_a_host_is_a_command_line_and_parameters(self) -> None:
        from rig import Boot, place

        from specctrl.model.parts import resolve_host

        assert place(resolve_host("ice-lake-server")) == (
            Boot("clearcpuid-363-674", "clearcpuid=363,674"),
            "enable_apicv=0 preemption_timer=0 arch_capabilities_or=0x0 no_spec_ctrl_virt=1")


class TestBatches:
    def test_every_published_scenario_is_in_one_or_is_left_out_for_a_reason(self, tmp_path: Path) -> None:
        from rig import batches

        vectors = FOLDER.parents[1] / "vectors"
        batches(tmp_path, vectors, "", [])
        asked = {id for file in tmp_path.glob("*.batch")
                 for id in re.findall("^#id (.*) -$", file.read_text("utf-8"), re.MULTILINE)}
        not_shown = json.loads((tmp_path / "not-shown.json").read_text("utf-8"))
        published = {each.id for each in read([vectors])}
        assert published <= asked | set(not_shown)
        assert set() == asked & set(not_shown)
        assert all(not_shown.values())
        assert len(asked) > 0.9 * len(published)


class TestComparing:
    """Two scenarios in a batch; the boot answered for the first alone."""

    @pytest.fixture
    def record(self, tmp_path: Path) -> dict[str, Any]:
        from judging import compare
        from rig import batches

        vectors = FOLDER.parents[1] / "vectors" / "cap"
        batches(tmp_path, vectors, "cap.check-extension.no", [])
        batch, = tmp_path.glob("*.batch")
        ids = re.findall("^#id (.*) -$", batch.read_text("utf-8"), re.MULTILINE)
        assert len(ids) == 1
        batch.write_text(batch.read_text("utf-8") + "#id cap.enable.unknown -\n", "utf-8")
        batch.with_suffix(".answers").write_text(f"#id {ids[0]} -\nobserves=*\nnonsense\n", "utf-8")
        return compare(tmp_path, vectors, verbose=False)

    def test_a_scenario_without_an_answer_differs(self, record: dict[str, Any]) -> None:
        from judging import failed

        assert record["outcomes"]["differs"]["the machine stopped before it answered"] == ["cap.enable.unknown"]
        assert failed(record)

    def test_a_repair_taken_away_that_differs_fails(self, record: dict[str, Any]) -> None:
        from judging import failed

        record["outcomes"]["differs"] = {}
        assert not failed(record)
        record["repairs taken away"] = {"here": {"none": {"outcome": "equal"}, "D1": {"outcome": "differs"}}}
        assert failed(record)
