"""The list of statements that age, against the pages that make them."""

import re
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from specctrl.rules import data_folder
from specctrl.site.statements import Statement, StatementError, ageing, own_pages, problems, prose, read_statements

FILE = data_folder("spec") / "statements.toml"
STATEMENTS = read_statements(FILE)
PAGES = own_pages()
ONE = Statement("linux.not-in", "It is not in Linux.", ("page.md",), ("7.3.4",), "the tree", date(2026, 11, 30), "grep")


def test_every_ageing_word_of_the_pages_is_listed_and_every_entry_is_mentioned() -> None:
    assert problems(STATEMENTS, PAGES) == []


def test_the_pages_of_the_repository_are_all_looked_at() -> None:
    assert {"index.md", "README.md", "capability.md", "userspace.md"} <= set(PAGES)
    assert {page for statement in STATEMENTS for page in statement.pages} <= set(PAGES)


def test_the_newest_check_is_the_day_as_of_which_the_sources_page_speaks() -> None:
    newest = max(statement.checked for statement in STATEMENTS)
    assert f"as of {newest.day} {newest:%B %Y}, and what could not be read" in PAGES["unknowns.md"]


@pytest.mark.parametrize("word", ["7.3.5", "v6.9-rc3", "10.2.3", "252", "0xe4", "1 December 2026", "c447b7308b"])
def test_a_word_that_no_entry_has_is_found(word: str) -> None:
    text = PAGES["glossary.md"] + f"\nThis holds as of {word}.\n"
    assert problems(STATEMENTS, {**PAGES, "glossary.md": text}) == [f"glossary.md: {word} is in no statement of it"]


def test_an_entry_that_no_page_mentions_is_found() -> None:
    assert problems([ONE], {"page.md": "Nothing is said."}) == [
        "linux.not-in: page.md mentions none of 7.3.4", "linux.not-in: no page mentions 7.3.4"]
    assert problems([ONE], {"page.md": "Not in 7.3.4."}) == []


def test_an_entry_for_a_page_that_is_not_there_is_found() -> None:
    assert problems([replace(ONE, pages=("page.md", "gone.md"))], {"page.md": "Not in 7.3.4."}) == [
        "linux.not-in: there is no page gone.md"]


def test_code_is_no_prose() -> None:
    text = "Said.\n```python\n# read in 7.3.5\n```\n````{note}\n```\n252\n````\nSaid again.\n"
    assert (prose(text), ageing(text)) == ("Said.\nSaid again.", set())


@pytest.mark.parametrize(("text", "found"), [
    ("a leaf 7.2, api.rst 7.35, sections after 4.145 and 7.47, issue 252", set()),
    ("Posted on 10 April 2024 and 24 June 2026.", set()),
    ("SDM 29.3.2.1 and 30.5.1", set()),
    ("kernels before 6.19, and QEMU 10.2.2", {"6.19", "10.2.2"}),
    ("Read on 20 August 2026 at c447b7308b.", {"20 August 2026", "c447b7308b"}),
])
def test_what_ages_is_told_from_what_does_not(text: str, found: set[str]) -> None:
    assert ageing(text) == found


@pytest.mark.parametrize(("change", "reason"), [
    (('source = "both as', 'sauce = "both as'), "sauce"),
    (('mentions = ["10.2.2"]', "mentions = []"), "mentions is ()"),
    (("checked = 2026-11-23", 'checked = "soon"'), "checked is 'soon'"),
    (('id = "bochs.shadow"', 'id = "trees.days"'), "twice: trees.days"),
    (('id = "bochs.shadow"', "id = "), "Invalid value"),
])
def test_a_list_that_cannot_be_read_is_refused_by_name(tmp_path: Path, change: tuple[str, str], reason: str) -> None:
    text = FILE.read_text("utf-8")
    assert change[0] in text
    bad = tmp_path / "statements.toml"
    bad.write_text(text.replace(*change, 1), "utf-8")
    with pytest.raises(StatementError, match=rf"statements\.toml.*{re.escape(reason)}"):
        read_statements(bad)


def test_a_list_that_is_missing_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(StatementError, match=r"statements\.toml"):
        read_statements(tmp_path / "statements.toml")
