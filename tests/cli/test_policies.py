"""``specctrl policies``, and the files that the site publishes."""

import csv
import io
import json
from pathlib import Path

import pytest

from specctrl.cli.main import main
from specctrl.exploration.policies import HOSTS, Cell, cell, compare, row
from specctrl.exploration.policy_files import files
from specctrl.model.vmm.policies import GUESTS, POLICIES

ID = "policy.p1.linux-old.ice-lake-server.to.sapphire-rapids"


@pytest.fixture(scope="module")
def cells() -> list[Cell]:
    return list(compare())


class TestCommand:
    """What it prints."""

    def test_the_table_has_a_row_for_each_policy(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["policies", "--from", "cascade-lake", "--to", "sierra-forest"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == "cascade-lake to sierra-forest"
        assert lines[1].split() == list(GUESTS)
        for line, policy in zip(lines[2:], POLICIES, strict=False):
            shown = line.split()[0], *(part.strip() for part in line.split("  ")[1:] if part.strip())
            assert shown == (
                policy, *(cell(policy, guest, "cascade-lake", "sierra-forest").result.value for guest in GUESTS))

    def test_without_hosts_it_is_the_move_that_is_argued_over(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["policies"]) == 0
        assert capsys.readouterr().out.startswith("ice-lake-server to sapphire-rapids\n")

    def test_csv_has_every_cell(self, cells: list[Cell], capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["policies", "--csv"]) == 0
        lines = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
        assert lines == [row(item) for item in cells]

    def test_json_names_what_the_cells_use(self, cells: list[Cell], capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["policies", "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert document["schema"] == "specctrl/policies/1"
        assert document["cells"] == [row(item) for item in cells]
        for key, known in (("policy", "policies"), ("guest", "guests"), ("source", "hosts"), ("result", "results")):
            assert {item[key] for item in document["cells"]} <= set(document[known])
        assert document["hosts"] == HOSTS

    def test_a_cell_is_a_scenario_that_runs(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["policies", "--cell", ID]) == 0
        text = capsys.readouterr().out
        assert json.loads(text)["id"] == ID
        (tmp_path / "cell.json").write_text(text)
        assert main(["run", str(tmp_path / "cell.json")]) == 0
        (tmp_path / "cell.json").write_text(text.replace('"effective": "0x401"', '"effective": "0x1"'))
        assert main(["run", str(tmp_path / "cell.json")]) == 1

    def test_an_unknown_cell_leaves_with_2(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["policies", "--cell", "policy.p9"]) == 2
        assert capsys.readouterr().err == (
            "specctrl: no cell is 'policy.p9'; specctrl policies --csv lists them\n")

    def test_an_unknown_host_leaves_with_2(self) -> None:
        with pytest.raises(SystemExit) as left:
            main(["policies", "--from", "pentium"])
        assert left.value.code == 2


class TestFiles:
    """What stands beside the pages."""

    def test_the_table_leads_to_each_cell_s_scenario(self, cells: list[Cell]) -> None:
        made = files(cells)
        table = json.loads(made["policies.json"])
        by_policy = {name: json.loads(made[about["scenarios"]]) for name, about in table["policies"].items()}
        assert {id for scenarios in by_policy.values() for id in scenarios} == {line["id"] for line in table["cells"]}
        assert all(item.scenario() == by_policy[item.policy][item.id] for item in cells)

    def test_they_are_the_same_each_time(self, cells: list[Cell]) -> None:
        assert files(cells) == files(compare())

    def test_no_download_is_larger_than_a_megabyte(self, cells: list[Cell]) -> None:
        assert max(len(text.encode()) for text in files(cells).values()) < 1 << 20
