"""The command line as documents: everything that the parsers have, whatever the terminal."""

import argparse
import re
import shutil
import subprocess

import pytest

from specctrl.cli.main import make_parser
from specctrl.cli.manual import man_page, pages


def parsers(parser):
    """Every command's parser with its name."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield command
                yield from parsers(command)


class TestPages:
    def test_every_command_has_a_page_and_no_other(self):
        assert [command.prog for command in parsers(make_parser())] == [page.name for page in pages(make_parser())]

    def test_every_option_of_every_command_is_on_its_page_with_what_it_does(self):
        shown = {page.name: page for page in pages(make_parser())}
        for command in parsers(make_parser()):
            for action in command._actions:
                for name in set(action.option_strings) - {"-h", "--help"}:
                    page = shown[command.prog]
                    assert any(name in option.written.split() for option in page.options), (command.prog, name)
                    assert name in page.synopsis
            assert all(option.help for option in shown[command.prog].options), command.prog

    def test_the_terminal_makes_no_difference(self, monkeypatch):
        before = man_page(make_parser())
        monkeypatch.setenv("COLUMNS", "40")
        assert before == man_page(make_parser())

    def test_alternatives_stand_together_and_what_is_required_without_brackets(self):
        parser = argparse.ArgumentParser(prog="top")
        inner = parser.add_subparsers().add_parser("inner", help="does it")
        group = inner.add_mutually_exclusive_group(required=True)
        group.add_argument("--one", action="store_true")
        group.add_argument("--two", metavar="N", help="at most %(default)s", default=3)
        inner.add_argument("--need", required=True)
        inner.add_argument("file", nargs="*")
        page, = pages(parser)
        assert "top inner (--one | --two N) --need NEED [file...]" == page.synopsis
        assert ["", "at most 3", "", ""] == [option.help for option in page.options]
        assert "Does it." == page.summary


class TestManPage:
    def test_no_line_is_taken_for_a_request_but_those_meant(self):
        requests = set(re.findall(r"^([.'].\w*)", man_page(make_parser()), re.MULTILINE))
        assert requests <= {".TH", ".SH", ".SS", ".TP", ".B", ".I", ".PP", ".nf", ".fi"}

    def test_every_command_is_a_part_of_it(self):
        text = man_page(make_parser())
        for page in pages(make_parser()):
            assert f".SS {page.name}".replace("-", "\\-") + "\n" in text

    @pytest.mark.skipif(not shutil.which("groff"), reason="no groff here: the manual page was not formatted")
    def test_groff_formats_it_without_a_warning(self):
        done = subprocess.run(["groff", "-man", "-Tutf8", "-ww"], input=man_page(make_parser()), text=True,
                              capture_output=True, check=True)
        assert "" == done.stderr
        assert "--max-unsupported" in re.sub(".\b|\x1b\\[\\d*m", "", done.stdout)
