"""Postings of the series: what is read, and what does not fit the rules."""

from dataclasses import replace
from pathlib import Path

import pytest

from specctrl.rules import load_rules
from specctrl.site.review import Hunk, Posting, ReviewError, problems, read_posting

ROOT = Path(__file__).parents[2]
FILE = ROOT / "spec" / "postings" / "rfc-v3.toml"
RULES = load_rules(ROOT / "spec")
HUNK = 'title = "x"\n[[patch]]\nnumber = 1\n[[patch.hunk]]\nplace = "p"'


def with_hunk(hunk: Hunk) -> Posting:
    """The posting with one more hunk in its first patch."""
    posting = read_posting(FILE)
    first = replace(posting.patches[0], hunks=(*posting.patches[0].hunks, hunk))
    return replace(posting, patches=(first, *posting.patches[1:]))


def test_the_posting_fits_the_rules() -> None:
    """The ten patches in their order."""
    posting = read_posting(FILE)
    assert problems(posting, RULES) == []
    assert [patch.number for patch in posting.patches] == list(range(1, 11))
    for patch in posting.patches:
        assert patch.message == f"20240410143446.797262-{patch.number + 1}-chao.gao@intel.com"


@pytest.mark.parametrize(("rules", "verdict", "defects", "why"), [
    (("no.such.rule",), "taken over", (), "no rule is called no.such.rule"),
    (("force.zeros-too",), "repaired", (), "names no defect"),
    (("cap.check.boolean",), "repaired", ("D2",), "no repaired rule"),
    (("force.zeros-too",), "taken over", (), "names a repaired rule"),
    (("cap.check.boolean",), "stated", (), "says not what surprises"),
])
def test_a_verdict_that_does_not_fit_is_found(
    rules: tuple[str, ...], verdict: str, defects: tuple[str, ...], why: str
) -> None:
    """Each check, seen to fail."""
    found = problems(with_hunk(Hunk("here", "something", rules, verdict, defects)), RULES)
    assert len(found) == 1
    assert found[0].startswith("patch 1, here: ")
    assert why in found[0]


def test_a_rule_that_cites_a_patch_and_is_not_there_is_found() -> None:
    """The page would leave it out."""
    posting = read_posting(FILE)
    without = replace(posting, patches=posting.patches[1:])
    assert "patch 1: cap.check.boolean cites it and is not there" in problems(without, RULES)


@pytest.mark.parametrize(("text", "why"), [
    ("subject = 1", "the posting: "),
    ('title = "x"\npatches = []', "patches"),
    (f'{HUNK}\nverdict = "text"\ndoes = 5', "patch 1, p: does is 5: not of type str"),
    (f'{HUNK}\nverdict = "text"\ndoes = ""\nwhy = ""', "unexpected keyword argument 'why'"),
    (f'{HUNK}\nverdict = "fine"\nrules = []\ndoes = ""', "'fine' is no verdict"),
    (HUNK, "patch 1, p: "),
    (HUNK, "'does' and 'verdict'"),
    ("title =", "Invalid value"),
])
def test_what_is_no_posting_is_refused_with_its_file(tmp_path: Path, text: str, why: str) -> None:
    """File, patch and hunk are named."""
    file = tmp_path / "v4.toml"
    file.write_text(text)
    with pytest.raises(ReviewError, match=r"^v4\.toml: ") as refused:
        read_posting(file)
    assert why in str(refused.value)
