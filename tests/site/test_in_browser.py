"""What the page's script asks of the package: run a block, show what it gives."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from specctrl.site.in_browser import call, run

ROOT = Path(__file__).parents[2]
LACKED = ("_multiprocessing", "_posixshmem", "resource", "grp", "pwd")
"""Modules of the standard library that Pyodide's Python has not, and that this package could come to need."""
IMPORTING = """
import importlib, sys
for name in sys.argv[1].split(","):
    sys.modules[name] = None
for name in sys.argv[2:]:
    importlib.import_module(name)
"""


def text(answer: dict[str, object]) -> list[str]:
    return [output["data"] for output in answer["outputs"]]  # type: ignore[attr-defined]


def test_blocks_share_a_namespace_until_a_fresh_one_is_asked_for() -> None:
    run("x = 1", "cell 1", fresh=True)
    assert text(run(">>> x + 1\n2\n", "prompts 2")) == [">>> x + 1\n2\n"]
    assert run("x", "cell 3", fresh=True)["error"]["last"] == "NameError: name 'x' is not defined"


def test_a_cell_shows_what_it_prints_and_its_last_value() -> None:
    printing = "import sys\nprint('a')\nprint('b', file=sys.stderr)\n6 * 7"
    assert text(run(printing, "cell 1", fresh=True)) == ["a\nb\n", "42"]
    for silent in ("6 * 7;", "x = 6", "None", "", "# nothing"):
        assert run(silent, "cell 1") == {"outputs": []}


def test_a_wide_value_is_broken_as_the_notebook_kernel_breaks_it() -> None:
    code = "from specctrl import Machine\nmachine = Machine()\n_ = machine.create_vcpu()\nmachine.observe()"
    (shown,) = text(run(code, "cell 1", fresh=True))
    assert shown.splitlines()[:2] == ["{'effective': 0x0,", " 'guest_view': 0x0,"]


def test_a_picture_is_shown_as_a_picture() -> None:
    code = "class Picture:\n    def _repr_html_(self):\n        return '<svg></svg>'\nPicture()"
    assert run(code, "cell 1", fresh=True)["outputs"] == [{"kind": "html", "data": "<svg></svg>"}]


@pytest.mark.parametrize(
    ("code", "last", "where"),
    [
        ("x = 1\nassert x == 2, 'two'", "AssertionError: two", "line 2: assert x == 2, 'two'"),
        ("x = = 1", "SyntaxError: invalid syntax", ""),
        ("raise SystemExit(3)", "SystemExit: 3", "line 1: raise SystemExit(3)"),
        ("import json\njson.loads('{')", None, "line 2: json.loads('{')"),
    ],
)
def test_an_exception_names_the_line_of_the_cell(code: str, last: str | None, where: str) -> None:
    error = run(code, "cell 1", fresh=True)["error"]
    assert error["where"] == where
    assert last in (None, error["last"])
    assert "run_pages.py" not in error["traceback"]


def test_what_was_printed_before_an_exception_is_shown_too() -> None:
    assert text(run("print('a')\n1 / 0", "cell 1", fresh=True)) == ["a\n"]


@pytest.mark.parametrize(
    ("prompts", "same"),
    [
        (">>> {'a': 1}\n{'a': 1}\n", True),
        (">>> print('a b')\na ...\n", True),
        (">>> 1 / 0\nTraceback (most recent call last):\nZeroDivisionError: division by zero\n", True),
        (">>> 1 / 0\nTraceback (most recent call last):\nKeyError: 1\n", False),
        (">>> 1 + 1\n3\n", False),
        (">>> 1 / 0\n", False),
        (">>> for x in (1, 2):\n...     x\n1\n2\n", True),
    ],
)
def test_prompts_are_the_same_if_each_prints_what_stands_beneath_it(prompts: str, same: bool) -> None:
    answer = run(prompts, "prompts 1", fresh=True)
    assert answer["same"] is same
    assert (text(answer) == [prompts]) is same


def test_prompts_that_are_none_are_an_error() -> None:
    assert "inconsistent" in run("  >>> 1\n1\n", "prompts 1", fresh=True)["error"]["last"]


def test_a_call_takes_json_and_gives_json_and_reaches_this_package_alone() -> None:
    answer = json.loads(call("specctrl.site.in_browser", "run", '{"code": "1", "name": "cell 1"}'))
    assert answer["outputs"][0]["data"] == "1"
    with pytest.raises(ValueError, match="os is no module of specctrl"):
        call("os", "getcwd", "{}")


def test_what_a_page_runs_can_be_imported_where_a_browser_runs_it() -> None:
    pages = {page: page.read_text("utf-8") for folder in ("spec", "spec/api") for page in (ROOT / folder).glob("*.md")}
    shown = {name for text in pages.values() for name in re.findall(r"^\.\. automodule:: (\S+)", text, re.M)}
    imported = {name for text in pages.values() for name in re.findall(r"^from (specctrl\S*) import ", text, re.M)}
    assert {"specctrl.shards", "specctrl.proof.prove"} <= shown
    assert "specctrl.exploration.properties" in imported
    command = [sys.executable, "-c", IMPORTING, ",".join(LACKED), *sorted(shown | imported)]
    assert subprocess.run(command, capture_output=True, text=True, check=False).stderr == ""
