"""Records of evidence: what they depend on, what is red, and that a wrong one is not used."""

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from specctrl.digest import CORE, PACKAGE
from specctrl.evidence import records
from specctrl.evidence.collect import Example, Shown
from specctrl.evidence.links import claims_of
from specctrl.evidence.records import Evidence, RecordError, gather, lacks, obtain
from specctrl.exploration.properties import PROPERTIES
from specctrl.proof.claims import CLAIMS
from specctrl.rules import load_rules

ROOT = PACKAGE.parents[1]
PROOFS = json.loads((PACKAGE / "proof" / "proofs.json").read_text())
EXPLORED = json.loads((PACKAGE / "exploration" / "explored.json").read_text())[0]["found"]


@pytest.fixture
def green():
    """Evidence that nothing is wrong with."""
    rules = load_rules()
    claims = {name: {**counts, "refuted": [], "rules": list(CLAIMS[name].rules)}
              for name, counts in PROOFS["claims"].items()}
    shown = {id: Shown([Example("spec/page.md", 1, f"shows-{id}")]) for id in rules}
    properties = {name: dict.fromkeys(one.rules, "") for name, one in PROPERTIES.items()}
    return Evidence(rules, shown, {"claims": claims}, {**EXPLORED, "properties": properties})


class TestComplaints:
    """What fails the build."""

    def test_there_are_none_of_what_is_whole(self, green):
        assert [] == green.complaints()

    def test_a_must_without_evidence(self, green):
        green.shown["force.zeros-too"] = Shown(claims=["zero_forced_bits_never_set"])
        assert [("force.zeros-too", "nothing shows the rule 'force.zeros-too'")] == green.complaints()

    def test_a_must_whose_evidence_breaks_on_no_mutant(self, green):
        rule = green.rules["force.zeros-too"]
        said = lacks(rule, Shown(unmoved=["spec/page.md:1"], idle=["a.b"]))
        assert "nothing shows the rule 'force.zeros-too': no mutant of its code breaks spec/page.md:1" in said
        assert "a.b execute none of its code" in said
        assert "" == lacks(replace(rule, text="KVM MAY do so."), Shown())

    def test_a_claim_that_is_refuted(self, green):
        green.proof["claims"]["view_survives"]["refuted"] = ["VM entry: guest_view"]
        assert [("", "the claim view_survives is refuted: VM entry: guest_view")] == green.complaints()

    def test_a_claim_with_other_counts_than_stored(self, green):
        green.proof["claims"]["view_survives"]["paths"] += 1
        ((_, said),) = green.complaints()
        assert said.startswith("the claim view_survives has {'paths':")

    def test_a_claim_that_was_not_run(self, green):
        del green.proof["claims"]["first_state"]
        assert "the claim first_state has no counts" in green.complaints()[0][1]

    def test_a_property_that_is_violated(self, green):
        green.explored["violations"] = {"userspace_wins": 3}
        said = [text for _, text in green.complaints()]
        assert "the property userspace_wins is violated after 3 events" in said

    def test_other_counts_of_the_exploration(self, green):
        green.explored["states"] += 1
        assert "in explored.json it is" in green.complaints()[0][1]

    def test_a_claim_or_a_property_that_names_no_rule(self, green):
        green.proof["claims"]["view_survives"]["rules"].append("no.such-rule")
        green.explored["properties"]["userspace_wins"]["no.such-rule"] = ""
        assert [
            ("", "the claim view_survives names the rule 'no.such-rule', which no page states"),
            ("", "the property userspace_wins names the rule 'no.such-rule', which no page states"),
        ] == green.complaints()


@pytest.fixture
def runs(monkeypatch):
    """A kind of evidence that runs here, and counts its runs."""
    made = []

    def run(_root):
        made.append(1)
        return {"made": len(made)}

    class Here:
        def __init__(self, *_):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def submit(self, function, *arguments):
            outcome = function(*arguments)
            return type("Done", (), {"result": lambda _: outcome})()

    monkeypatch.setattr(records, "workers", Here)
    monkeypatch.setattr(records, "RECORDS", {"shown": (lambda root: (root / "source").read_text(), run)})
    return made


class TestRecords:
    """A record is used while what it depends on stays as it was, and never otherwise."""

    def test_it_is_made_once_for_the_same_sources(self, tmp_path, runs):
        (tmp_path / "source").write_text("one")
        said = []
        first = obtain("shown", tmp_path, tmp_path / "kept", said.append)
        assert first == obtain("shown", tmp_path, tmp_path / "kept", said.append)
        assert (1, 1) == (len(runs), len(said))
        (tmp_path / "source").write_text("two")
        assert {"made": 2} == obtain("shown", tmp_path, tmp_path / "kept")
        assert ["shown-one.json", "shown-two.json", "times.json"] == sorted(
            file.name for file in (tmp_path / "kept").glob("[!.]*"))

    def test_two_that_want_it_at_once_make_it_once(self, tmp_path, runs):
        (tmp_path / "source").write_text("one")
        with ThreadPoolExecutor(1) as other:
            with records._alone("shown", tmp_path):
                waiting = other.submit(obtain, "shown", tmp_path, tmp_path)
                with pytest.raises(TimeoutError):
                    waiting.result(timeout=0.3)
                made = {"kind": "shown", "key": "one", "outcome": {"made": "by the first"}}
                records.write_file(tmp_path / "shown-one.json", made)
            assert {"made": "by the first"} == waiting.result()
        assert [] == runs

    def test_times_stand_in_a_file_of_their_own(self, tmp_path, runs):
        (tmp_path / "source").write_text("one")
        obtain("shown", tmp_path, tmp_path)
        assert {"kind": "shown", "key": "one", "outcome": {"made": 1}} == json.loads(
            (tmp_path / "shown-one.json").read_text())
        assert ["shown"] == list(json.loads((tmp_path / "times.json").read_text()))

    def test_where_nothing_can_be_written_it_is_made_and_said(self, tmp_path, runs):
        (tmp_path / "source").write_text("one")
        said = []
        assert {"made": 1} == obtain("shown", tmp_path, tmp_path / "source" / "kept", said.append)
        why = f"and cannot be kept in {tmp_path}/source/kept: Not a directory"
        assert [f"evidence of kind 'shown' is made now, {why}"] == said

    def test_without_a_folder_nothing_is_kept(self, tmp_path, runs):
        (tmp_path / "source").write_text("one")
        assert [{"made": 1}, {"made": 2}] == [obtain("shown", tmp_path, None), obtain("shown", tmp_path, None)]

    @pytest.mark.parametrize(("content", "why"), [
        ('{"kind": "shown", "key": "zero", "outcome": {}}', "stale: it is of shown zero, not of shown one"),
        ('{"kind": "proof", "key": "one", "outcome": {}}', "stale"),
        ('{"kind": "shown", "key": "one"}', "no record of evidence"),
        ('{"kind": "sho', "no record of evidence"),
    ])
    def test_one_that_is_stale_or_damaged_is_an_error(self, tmp_path, runs, content, why):
        (tmp_path / "source").write_text("one")
        (tmp_path / "shown-one.json").write_text(content)
        with pytest.raises(RecordError, match=why):
            obtain("shown", tmp_path, tmp_path)


class TestKeys:
    """What each record depends on."""

    @pytest.mark.parametrize(("module", "rooms"), [
        ("specctrl.proof.prove", ("proof",)), ("specctrl.evidence.breaks", ("exploration", "evidence"))])
    def test_everything_that_a_module_loads_is_in_its_rooms(self, module, rooms):
        """Asked of the interpreter: what is imported, and what is opened."""
        code = (
            "import sys, json; opened = []\n"
            "sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == 'open' else None)\n"
            f"import {module}\n"
            "print(json.dumps([[name for name in sys.modules if name.split('.')[0] == 'specctrl'], opened]))"
        )
        said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
        loaded, opened = json.loads(said.stdout)
        below = {name.removesuffix(".py") for name in (*CORE, *rooms)}
        assert module in loaded
        assert set() == {name.split(".")[1] for name in loaded if "." in name} - below
        own = [file for file in opened if file.startswith(str(PACKAGE)) and "__pycache__" not in file]
        assert own
        assert [] == [file for file in own if file.split("/specctrl/")[-1].split("/")[0] not in (*CORE, *rooms)]

    @pytest.mark.parametrize(("changed", "kinds"), [
        ("model/words.py", {"proof", "explored"}), ("scenario/new.py", {"proof", "explored"}),
        ("rules.py", {"proof", "explored"}), ("proof/steps.py", {"proof"}), ("evidence/mutants.json", {"explored"}),
        ("exploration/explored.json", {"explored"}), ("cli/main.py", set()), ("site/new.py", set()),
    ])
    def test_a_change_changes_the_records_of_the_rooms_above(self, changed, kinds, tmp_path, monkeypatch):
        package = tmp_path / "specctrl"
        shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
        monkeypatch.setattr(records, "PACKAGE", package)
        made = {kind: key for kind, (key, _) in records.RECORDS.items() if kind != "shown"}
        before = {kind: key(ROOT) for kind, key in made.items()}
        with (package / changed).open("a") as file:
            file.write(" ")
        assert kinds == {kind for kind, key in made.items() if key(ROOT) != before[kind]}

    def test_pages_scenarios_and_code_are_in_the_digest_of_examples(self, tmp_path):
        keys = set()
        for path in ("src/a.py", "spec/a.md", "vectors/a.json", "reference/c/a.h", "index.md"):
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text("x")
            keys.add(records.key_of_shown(tmp_path))
        assert 5 == len(keys)


class TestGather:
    """Everything together."""

    def test_what_carries_a_rule_is_put_beside_it(self, tmp_path, monkeypatch):
        broken = {name: dict.fromkeys(one.rules, "") for name, one in PROPERTIES.items()}
        broken["userspace_wins"]["contract.force.overlay"] = "words:overlay:swap-bits:2"
        rows = {id: {"examples": [{"page": "spec/a.md", "line": 1, "anchor": "x"}]} for id in load_rules()}
        claims = {name: {"rules": list(claim.rules)} for name, claim in CLAIMS.items()}
        kept = {"shown": rows, "proof": {"claims": claims}, "explored": {**EXPLORED, "properties": broken}}
        monkeypatch.setattr(records, "obtain", lambda kind, *_: kept[kind])
        evidence = gather(ROOT, tmp_path)
        shown = evidence.shown["contract.force.overlay"]
        assert [Example("spec/a.md", 1, "x")] == shown.examples
        assert {"mechanism_refines_contract", "userspace_wins"} <= set(shown.claims)
        assert shown.claims == claims_of("contract.force.overlay")
        assert (["userspace_wins"], ["report_is_in_force"]) == (shown.properties, shown.unmoved)
        assert "words:overlay:swap-bits:2" == shown.broken_by["userspace_wins"]
        (whole,) = tmp_path.iterdir()
        assert evidence.as_json() == json.loads(whole.read_text())
