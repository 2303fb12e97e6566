"""The rule fences: what is accepted, and what each refusal says."""

import re
from pathlib import Path

import pytest

from specctrl.rules import KEYWORDS, RuleError, check_code, data_folder, load_rules, make_rule, resolve, scan

GOOD = """\
# A page

:::{rule} cap.enable.before-vcpus
:status: repaired
:source: v3 p1, #GP: section 7.35
:defect: D2
:layer: mechanism
:code: specctrl.rules.scan, specctrl.rules.Rule.area

KVM MUST refuse the capability
once a vCPU exists.
:::
"""


def folder(tmp_path: Path, **pages: str) -> Path:
    spec = tmp_path / "spec"
    spec.mkdir()
    for name, text in pages.items():
        (spec / f"{name}.md").write_text(text)
    return spec


def refusal(tmp_path: Path, text: str) -> str:
    with pytest.raises(RuleError) as caught:
        load_rules(folder(tmp_path, page=text))
    return str(caught.value)


def test_a_rule_has_every_part_of_its_fence(tmp_path: Path) -> None:
    rule = load_rules(folder(tmp_path, page=GOOD))["cap.enable.before-vcpus"]
    assert (rule.status, rule.layer, rule.defect) == ("repaired", "mechanism", "D2")
    assert rule.source == "v3 p1, #GP: section 7.35"
    assert rule.code == ("specctrl.rules.scan", "specctrl.rules.Rule.area")
    assert rule.text == "KVM MUST refuse the capability once a vCPU exists."
    assert (rule.page, rule.line, rule.area, rule.strength) == ("spec/page.md", 3, "cap", "MUST")


@pytest.mark.parametrize("keyword", KEYWORDS)
def test_each_keyword_is_told_from_its_beginning(tmp_path: Path, keyword: str) -> None:
    (rule,) = load_rules(folder(tmp_path, page=GOOD.replace("MUST", keyword))).values()
    assert rule.strength == keyword


@pytest.mark.parametrize("id", ["cap.enable.before-vcpus+2", "a.b", "msr.48h.report", "nested.l2-exit.view"])
def test_these_are_ids(tmp_path: Path, id: str) -> None:
    assert list(load_rules(folder(tmp_path, page=GOOD.replace("cap.enable.before-vcpus", id)))) == [id]


@pytest.mark.parametrize(
    "id",
    [
        "",
        "cap",
        "Cap.enable",
        "cap..enable",
        "cap.enable-",
        "cap.-enable",
        "cap.en_able",
        "cap.a+1",
        "cap.a+2+2",
        "cap enable",
    ],
)
def test_these_are_no_ids(tmp_path: Path, id: str) -> None:
    said = refusal(tmp_path, GOOD.replace("cap.enable.before-vcpus", id))
    assert said == f"spec/page.md:3: rule {id!r}: not an id: lower case, dots, hyphens inside a word"


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (
            ":status: repaired",
            ":status: fixed",
            "unknown status 'fixed'; known: hardware, posted, repaired, proposed, assumed",
        ),
        (
            ":layer: mechanism",
            ":layer: kernel",
            "unknown layer 'kernel'; known: contract, mechanism, userspace, guest",
        ),
        (
            ":layer: mechanism",
            ":level: mechanism",
            "unknown option 'level'; known: status, source, defect, layer, code",
        ),
        (":status: repaired\n", "", "option 'status' is missing"),
        (":source: v3 p1, #GP: section 7.35\n", "", "option 'source' is missing"),
        (":source: v3 p1, #GP: section 7.35", ":source:", "option 'source' is missing"),
        (":layer: mechanism\n", "", "option 'layer' is missing"),
        (":code: specctrl.rules.scan, specctrl.rules.Rule.area\n", "", "option 'code' is missing"),
        (":defect: D2\n", "", "a repaired rule names its defect"),
        (":defect: D2", ":defect:", "option 'defect' is missing"),
        (":defect: D2", ":defect: 2", "not a defect: '2'; write D2, or D1, D18"),
        (":defect: D2", ":defect: D2\n:defect: D3", "an option is given twice"),
        ("MUST", "must", "no MUST NOT, MUST, SHOULD NOT, SHOULD, MAY in its sentence"),
        (
            "KVM MUST refuse the capability\nonce a vCPU exists.",
            "",
            "no MUST NOT, MUST, SHOULD NOT, SHOULD, MAY in its sentence",
        ),
        (
            "capability\n",
            "capability.\n\n",
            "more than one paragraph; what is not the rule itself stands beside it",
        ),
        ("exists.\n:::", "exists.\n", "the fence is never closed"),
    ],
)
def test_a_refusal_names_the_line_and_the_reason(tmp_path: Path, old: str, new: str, reason: str) -> None:
    assert GOOD.replace(old, new) != GOOD
    assert refusal(tmp_path, GOOD.replace(old, new)) == f"spec/page.md:3: rule 'cap.enable.before-vcpus': {reason}"


def test_an_id_is_stated_once_in_all_pages(tmp_path: Path) -> None:
    with pytest.raises(RuleError, match=r"^spec/b\.md:3: .*: stated before, at spec/a\.md:3$"):
        load_rules(folder(tmp_path, a=GOOD, b=GOOD))


def test_rules_come_in_the_order_of_the_pages(tmp_path: Path) -> None:
    two = GOOD + GOOD.replace("before-vcpus", "earlier")
    pages = folder(tmp_path, b=GOOD.replace("cap.enable", "a.last"), a=two)
    assert list(load_rules(pages)) == ["cap.enable.before-vcpus", "cap.enable.earlier", "a.last.before-vcpus"]


def test_a_fence_inside_a_code_fence_is_only_a_picture() -> None:
    assert list(scan(f"````md\n```\n{GOOD}\n````\n", "page.md")) == []


def test_a_rule_inside_another_directive_is_found() -> None:
    (raw,) = scan(f"::::{{admonition}} Title\n{GOOD}\n::::\n", "page.md")
    assert make_rule(raw).line == 4


def test_a_longer_fence_ends_at_its_own_length() -> None:
    (raw,) = scan(GOOD.replace(":::", "::::").replace("refuse the capability\n", "refuse\n:::\n"), "page.md")
    assert raw.text == "KVM MUST refuse\n:::\nonce a vCPU exists."


def test_code_that_exists_is_accepted(tmp_path: Path) -> None:
    (rule,) = load_rules(folder(tmp_path, page=GOOD)).values()
    check_code(rule)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("specctrl.rules.nothing", "specctrl.rules has no 'nothing'"),
        ("specctrl.rules.Rule.nothing", "specctrl.rules.Rule has no 'nothing'"),
        ("specctrl.nothing.at_all", "specctrl has no 'nothing'"),
        ("no_such_package.x", "there is no module 'no_such_package'"),
    ],
)
def test_code_that_does_not_exist_is_refused(tmp_path: Path, name: str, reason: str) -> None:
    (rule,) = load_rules(folder(tmp_path, page=GOOD.replace("specctrl.rules.scan", name))).values()
    with pytest.raises(RuleError, match=rf"^spec/page\.md:3: .*: code '{name}': {reason}$"):
        check_code(rule)


def test_a_module_that_cannot_import_something_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "needs_more.py").write_text("import no_such_package\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        resolve("needs_more.x")


def test_a_field_without_a_default_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "only_fields.py").write_text("class Record:\n    mask: int\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert resolve("only_fields.Record.mask") is None


def test_the_repository_has_its_own_pages() -> None:
    assert data_folder("spec") == Path(__file__).parents[1] / "spec"


def test_an_installed_package_carries_its_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("specctrl.rules.__file__", str(tmp_path / "site-packages" / "specctrl" / "rules.py"))
    assert data_folder("vectors") == tmp_path / "site-packages" / "specctrl" / "_data" / "vectors"


def test_every_rule_of_this_specification_is_well_formed_and_binds_code_that_exists() -> None:
    for rule in load_rules().values():
        check_code(rule)


def test_a_rule_that_a_defect_breaks_says_so():
    text = (data_folder("spec") / "defects.md").read_text()
    broken = {defect.upper(): set(re.findall(r"{rule}`([^`]+)`", line))
              for defect, line in re.findall(r"^\(found-(d\d+)\)=\n.*?^Broken: (.*?)$", text, re.MULTILINE | re.DOTALL)}
    assert len(broken) > 8
    said = {defect: {id for id, rule in load_rules().items() if defect in rule.defect.split(", ")} for defect in broken}
    assert broken == said
