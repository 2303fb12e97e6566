"""The comparison of the policies: every cell, and the table."""

import csv
import io

import pytest

from specctrl.exploration.policies import COLUMNS, HOSTS, Cell, Result, as_csv, cell, compare, row
from specctrl.model.vmm.policies import GUESTS, POLICIES
from specctrl.scenario import EmulatorTarget, run_one
from specctrl.scenario.reading import load


@pytest.fixture(scope="module")
def cells() -> list[Cell]:
    return list(compare())


class TestComparison:
    """Every cell."""

    def test_there_is_one_for_each_combination(self, cells: list[Cell]) -> None:
        assert len(cells) == len({item.id for item in cells}) == len(POLICIES) * len(GUESTS) * len(HOSTS) ** 2
        assert len(POLICIES) >= 7
        assert len(GUESTS) >= 6
        assert len(HOSTS) >= 6

    def test_each_cell_is_a_scenario_that_shows_what_the_table_says(self, cells: list[Cell]) -> None:
        target = EmulatorTarget("spec")
        for item in cells:
            result = run_one(load(item.scenario(), item.id), target)
            assert result.status == "pass", (item.id, result.why)
            last = item.scenario()["steps"][-1]["expect"]
            assert last["effective"] == f"{item.effective:#x}"
            if "exposed" in last:
                assert tuple(last["exposed"]) == item.verdict.exposed

    def test_a_cell_alone_is_the_cell_of_the_table(self, cells: list[Cell]) -> None:
        for item in cells[:: len(cells) // 50]:
            assert cell(item.policy, item.guest, item.source, item.destination) == item

    def test_every_result_but_a_refusal_occurs(self, cells: list[Cell]) -> None:
        """A pool shows only what every host has, so no move is refused."""
        assert {item.result for item in cells} == set(Result) - {Result.REFUSED}

    def test_as_csv_every_cell_is_a_line(self, cells: list[Cell]) -> None:
        lines = list(csv.DictReader(io.StringIO(as_csv(cells))))
        assert lines == [row(item) for item in cells]
        assert set(lines[0]) == set(COLUMNS)
