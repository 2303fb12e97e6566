"""``specctrl evidence``: what it prints and the status that it leaves with."""

import json

import pytest

from specctrl.cli.main import main
from specctrl.evidence.collect import EvidenceError, Example, Shown
from specctrl.evidence.records import Evidence
from specctrl.rules import load_rules


class TestEvidence:
    """``specctrl evidence``: what shows each rule."""

    @pytest.fixture(autouse=True)
    def made(self, monkeypatch: pytest.MonkeyPatch) -> Evidence:
        """What is gathered elsewhere: nothing, but for one rule."""
        rules = load_rules()
        shown = {id: Shown() for id in rules}
        shown["force.zeros-too"] = Shown(
            [Example("spec/page.md", 7, "shows-force.zeros-too")], ["entry.force-to-zero.list"], ["claim_name"],
            idle=["spec/page.md:9"], broken_by={"spec/page.md:7": "words:merge:swap-bits:1"}, noticed={"mutants": 3})
        evidence = Evidence(rules, shown, {"claims": {}}, {"properties": {}, "violations": {}})
        monkeypatch.setattr("specctrl.evidence.records.gather", lambda *_: evidence)
        monkeypatch.setattr(Evidence, "complaints", lambda self: [("", "nothing shows the rule 'a.b'")] * self.red)
        monkeypatch.setattr(Evidence, "red", 0, raising=False)
        return evidence

    def test_a_rule_is_listed_with_what_shows_it(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["evidence", "force.zeros-too"]) == 0
        assert capsys.readouterr().out.splitlines() == [
            "example   spec/page.md:7  breaks on words:merge:swap-bits:1",
            "scenario  entry.force-to-zero.list",
            "claim     claim_name  (specctrl prove --claim claim_name)",
            "no        spec/page.md:9  executes none of its code",
            "mutants   3 mutants",
        ]

    def test_all_of_it_as_json(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["evidence", "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert (document["schema"], document["complaints"]) == ("specctrl/evidence/1", [])
        assert document["rules"]["force.zeros-too"]["claims"] == ["claim_name"]

    def test_an_unknown_rule_leaves_with_2(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["evidence", "no.such-rule"]) == 2
        assert "no rule has the id 'no.such-rule'" in capsys.readouterr().err

    def test_a_complaint_leaves_with_1(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(Evidence, "red", 1)
        assert main(["evidence"]) == 1
        assert "nothing shows the rule 'a.b'" in capsys.readouterr().err

    def test_evidence_that_fails_leaves_with_2(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def fails(*_: object) -> None:
            raise EvidenceError("spec/page.md:7: the cell raises AssertionError()")

        monkeypatch.setattr("specctrl.evidence.records.gather", fails)
        assert main(["evidence"]) == 2
        assert "spec/page.md:7: the cell raises" in capsys.readouterr().err
