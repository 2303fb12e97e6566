"""Whole programs on the machine for the series in a real kernel: what they must print, and what they did."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from specctrl.targets.kernel_record import Change, programs_identity, since
from specctrl.vectors.upstream.rows import msrs_rows

FOLDER = Path(__file__).parents[1] / "reference" / "linux"


@pytest.fixture(scope="module", autouse=True)
def found() -> Iterator[None]:
    """The machine's modules can be imported."""
    sys.path.insert(0, str(FOLDER))
    yield
    sys.path.remove(str(FOLDER))


def host(control: bool) -> Any:
    from programs import Ran

    return Ran("with the control" if control else "without it", "", 0, []).host


class TestRows:
    def test_every_exported_row_is_one(self) -> None:
        from tables import rows

        assert len(rows()) == sum(line.startswith("MSR_TEST") for line in msrs_rows().splitlines()) > 5

    def test_without_the_control_all_pass(self) -> None:
        from tables import predicted_rows, rows

        assert set(predicted_rows(host(False), rows()).values()) == {"pass"}

    def test_with_it_a_second_value_of_the_view_is_not_read_back(self) -> None:
        from tables import predicted_rows, rows

        ends = predicted_rows(host(True), rows())
        assert list(ends.values()) == ["pass", "Wanted 0x2 from RDMSR(0x48), got 0x0"]
        assert [predicted_rows(host(True), [row]) for row in rows()] == [{str(row): "pass"} for row in rows()]

    def test_a_row_that_expects_too_much_stops_it(self) -> None:
        from tables import Row, predicted_rows

        for row, why in ((Row("MSR_IA32_SPEC_CTRL", 1, 1 << 2, "SPEC_CTRL", "SPEC_CTRL"),
                          "Wanted #GP on WRMSR(0x48, 0x4), got no exception"),
                         (Row("MSR_IA32_SPEC_CTRL", 1 << 9, 1 << 63, "SPEC_CTRL", "SPEC_CTRL"),
                          "Unexpected #GP on WRMSR(0x48, 0x200)")):
            assert predicted_rows(host(False), [row]) == {str(row): why}

    def test_what_the_program_says(self) -> None:
        from tables import said_of_rows

        lines = ["==== Test Assertion Failure ====", "  Wanted 0x2 from RDMSR(0x48), got 0x0", "row MSR_TSC_AUX 0x1",
                 "row MSR_IA32_SPEC_CTRL 0x1", "row MSR_IA32_SPEC_CTRL 0x2, one reg"]
        assert said_of_rows(lines[2:], 0) == {"MSR_IA32_SPEC_CTRL 0x1": "pass", "MSR_IA32_SPEC_CTRL 0x2": "pass"}
        assert said_of_rows(lines, 254)["MSR_IA32_SPEC_CTRL 0x2"] == "Wanted 0x2 from RDMSR(0x48), got 0x0"
        assert said_of_rows([], -1) == {"no row": "status -1"}


class TestLines:
    def test_without_the_control_every_value_is_read_back(self) -> None:
        from tables import predicted_lines

        ends = predicted_lines(host(False), None)
        assert {name: (len(each), all(each)) for name, each in ends.items()} == {
            "MSR_VIRTUAL_MITIGATION_CTRL": (5, True), "SPEC_CTRL": (1024, True)}

    def test_with_it_only_what_the_shadow_has_is(self) -> None:
        from tables import predicted_lines

        ends = predicted_lines(host(True), (0x400, 0x400))["SPEC_CTRL"]
        assert [value for value, holds in enumerate(ends) if holds] == [0, 1]

    def test_what_the_program_says(self) -> None:
        from tables import said_of_lines

        ours, others, failed = said_of_lines([
            "PASS: MSR_EFER", "FAIL: MSR_STAR", "testing SPEC_CTRL: output = 0:0 expected = 0:0x2", "FAIL: SPEC_CTRL",
            "PASS: Expected #GP on WRMSR(MSR_VIRTUAL_MITIGATION_CTRL, 0x8000000000000000), got vector 13",
            "PASS: Expected #GP on RDMSR(PRED_CMD), got vector 13"])
        assert ours == {"MSR_VIRTUAL_MITIGATION_CTRL": [True], "SPEC_CTRL": [False]}
        assert (others, failed) == ({"pass": 2, "fail": 1}, ["MSR_STAR"])


class TestComparing:
    """Boots of the rows and of the lines that printed what is predicted, then with one thing changed."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        from programs import BOOTS, LOADS, PAIR, batch
        from tables import predicted_lines, predicted_rows, rows

        (tmp_path / "msr.elf").touch()
        batch(tmp_path, tmp_path)
        out: dict[str, list[str]] = {"program-rows": [], "program-lines": []}
        for title in LOADS:
            control = title == "with the control"
            for line in BOOTS["program-rows"][title]:
                number = line.removeprefix("msrs_test").strip()
                ends = predicted_rows(host(control), [rows()[-int(number)]] if number else rows())
                bad = [why for why in ends.values() if why != "pass"]
                out["program-rows"] += [f"#out {each}" for each in [*bad, *(f"row {row}" for row in ends)]]
                out["program-rows"].append(f"#ran {line} {254 if bad else 0}")
            for line in BOOTS["program-lines"][title]:
                for name, holds in predicted_lines(host(control), PAIR if control else None).items():
                    out["program-lines"] += [f"#out {'PASS' if each else 'FAIL'}: {name}" for each in holds]
                out["program-lines"].append(f"#ran {line} 0")
        for boot, lines in out.items():
            (tmp_path / f"{boot}.answers").write_text("\n".join(lines), "utf-8")
        return tmp_path

    def unlike(self, folder: Path) -> dict[str, list[str]]:
        from programs import compare

        return {title: list(each["unlike the prediction"]) for boot in ("program-rows", "program-lines")
                for title, each in compare(folder, boot).items()}

    def test_as_predicted(self, folder: Path) -> None:
        assert self.unlike(folder) == {
            "msrs_test, with the control": [], "msrs_test, without it": [],
            "kvm-unit-tests' msr, with the control": [], "kvm-unit-tests' msr, without it": []}

    @pytest.mark.parametrize(("before", "after", "where"), [
        ("got 0x0", "got 0x3", "msrs_test, with the control"),
        ("#ran msrs_test 3 0", "#ran msrs_test 3 254", "msrs_test, with the control"),
        ("#out row MSR_VIRTUAL_MITIGATION_CTRL 0x3\n", "", "msrs_test, with the control"),
        ("#out FAIL: SPEC_CTRL\n", "#out PASS: SPEC_CTRL\n", "kvm-unit-tests' msr, with the control"),
        ("#out PASS: SPEC_CTRL\n#ran run_unit msr.elf 0", "#ran run_unit msr.elf 0", "kvm-unit-tests' msr, without it"),
        ("#ran run_unit msr.elf 0x4", "#out FAIL: MSR_EFER\n#ran run_unit msr.elf 0x4",
         "kvm-unit-tests' msr, with the control"),
        ("#out PASS: SPEC_CTRL\n#ran run_unit msr.elf 0", "#out PASS: SPEC_CTRL", "kvm-unit-tests' msr, without it"),
    ])
    def test_what_is_not_as_predicted_is_named(self, folder: Path, before: str, after: str, where: str) -> None:
        answers = folder / f"program-{'lines' if 'unit' in where else 'rows'}.answers"
        said = answers.read_text("utf-8")
        assert before in said
        answers.write_text(said.replace(before, after, 1), "utf-8")
        assert [title for title, names in self.unlike(folder).items() if names] == [where]

    def test_without_a_clone_of_kvm_unit_tests_the_lines_are_left_out(self, tmp_path: Path) -> None:
        from programs import batch

        batch(tmp_path / "batches", tmp_path)
        assert {each.stem for each in (tmp_path / "batches").glob("*.batch")} == {
            "program-selftest", "program-rows", "program-guests"}


@pytest.fixture(scope="module")
def boots() -> dict[str, Any]:
    """What is recorded, by boot."""
    recorded: dict[str, Any] = json.loads((FOLDER / "recorded-programs.json").read_text("utf-8"))
    return recorded


class TestRecorded:
    def test_everything_was_as_predicted(self, boots: dict[str, Any]) -> None:
        assert {title for boot in boots.values() for title, each in boot["programs"].items()
                if each["unlike the prediction"]} == set()

    def test_what_is_recorded_is_a_boot_of_today(self, boots: dict[str, Any]) -> None:
        from programs import BOOTS

        assert set(boots) == set(BOOTS)

    def test_series_and_exported_texts_are_those_that_ran(self, boots: dict[str, Any]) -> None:
        """A change of either needs another run: ``reference/linux/run programs``."""
        from programs import LOADS, exported

        assert not any(word in load for load in LOADS.values() for word in ("hidden=", "host_spec_ctrl="))
        for name, boot in boots.items():
            changes = since(boot, programs_identity(exported(name)))
            assert {changes["series"], changes["texts"]} == {Change((), (), ())}
