"""CONTRIBUTING.md says what is: the table of a vCPU's operations, the files that it names, the commands."""

import re
from pathlib import Path

import pytest

from specctrl.model.kvm.vcpu import Vcpu
from specctrl.model.posted import PostedVcpu

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text("utf-8")


def vcpu_table() -> str:
    """The rows of the table, made from the classes."""
    rows = []
    for owner in reversed(Vcpu.__mro__[:-1]):
        names = [name for name, item in vars(owner).items()
                 if not name.startswith("_") and (callable(item) or isinstance(item, property))]
        said = ", ".join(f"`{name}`" + ("*" if name in vars(PostedVcpu) else "") for name in names)
        file = owner.__module__.removeprefix("specctrl.").replace(".", "/")
        rows.append(f"| `{file}.py` | `{owner.__name__}` | {said} |")
    return "\n".join(rows)


def test_every_operation_of_a_vcpu_stands_in_the_table():
    between = TEXT.split("<!-- vcpu: begin -->\n")[1].split("\n<!-- vcpu: end -->")[0]
    assert vcpu_table() == "\n".join(between.splitlines()[2:])


PATHS = sorted(set(re.findall(r"`((?:src|spec|tests|vectors|reference)/[^`*<> ]*)`", TEXT)))


@pytest.mark.parametrize("path", PATHS)
def test_a_file_that_is_named_exists(path):
    assert (ROOT / path).exists()


def test_files_are_named():
    assert len(PATHS) > 5


def test_every_command_of_make_is_a_target():
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set() == set(re.findall(r"`make ([a-z-]+)`", TEXT)) - set(targets)
