"""The chapter for implementers: its commands are right, and its steps go through the whole C reference in order."""

import re
import shlex
from pathlib import Path

from specctrl.cli.main import make_parser
from specctrl.scenario.format import LEVELS
from specctrl.site.c_reference import find_function
from specctrl.targets.c_reference import HEADERS, folder

PAGE = (Path(__file__).parents[2] / "spec" / "implementing.md").read_text()
SHELL = PAGE.replace("\\\n", "")  # as a shell reads it: a backslash at the end of a line joins it with the next
STEPS = SHELL.partition("\n(c-reference)=")[0]
COMMANDS = re.findall(r"^\$ specctrl (.+)$", STEPS, re.MULTILINE)


def test_every_command_is_one_that_the_program_takes():
    assert len(COMMANDS) > 15
    for command in COMMANDS:
        options = make_parser().parse_args(shlex.split(command))
        assert "cmd:./adapter" == options.target


def test_the_steps_are_in_the_order_of_the_levels():
    headings = re.findall(r"^## Level `(.+)`$", PAGE, re.MULTILINE)
    assert list(LEVELS) == headings
    for level, section in zip(headings, re.split(r"^## Level .*$", PAGE, flags=re.MULTILINE)[1:], strict=True):
        named = re.findall(r"--level (\S+)", section.partition("\n(implementing-all)=")[0])
        assert {level} == set(named)


def test_every_step_has_its_state_a_function_a_command_and_a_mistake():
    steps = re.split(r"^### ", PAGE.partition("\n(implementing-all)=")[0], flags=re.MULTILINE)[1:]
    for step in steps:
        assert "```{creference} " in step, step[:40]
        assert step.count("\n$ specctrl run vectors") == 1, step[:40]
        assert step.count("\n**State") == 1, step[:40]
        assert step.count("\n**Mistake:** ") == 1, step[:40]


def test_every_function_is_in_the_header():
    headers = "".join((folder() / name).read_text() for name in HEADERS)
    for name in re.findall(r"^```\{creference\} (\w+)$", PAGE, re.MULTILINE):
        assert f"{name}(" in find_function(headers, name).text
