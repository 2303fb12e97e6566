"""The published set: ids, what is released, what the check refuses."""

import json
import re
import shutil
from collections import Counter
from itertools import product

import pytest

from published_files import ROOT
from specctrl.cli.main import main
from specctrl.model.parts import PARTS, writable_bits
from specctrl.model.registers import MSR_NUMBERS, REGISTERS
from specctrl.scenario import EmulatorTarget, Invalid, loads
from specctrl.scenario.format import ASSUMPTIONS, HOST, OPERATIONS
from specctrl.scenario.machine import Machine
from specctrl.scenario.published import (
    MANIFEST,
    NotPossible,
    check,
    content_hash,
    create,
    digits,
    read_manifest,
    read_set,
    release,
)
from specctrl.scenario.running import written

VECTORS = ROOT / "vectors"
FIRST = "processor.masked-bit-set"


@pytest.fixture
def kit(tmp_path):
    """A small set, in which everything is well."""
    (tmp_path / "processor").mkdir()
    shutil.copy(VECTORS / "processor" / f"{FIRST}.json", tmp_path / "processor")
    generated = min((VECTORS / "generated").glob("*.json"))
    (tmp_path / "generated").mkdir()
    shutil.copy(generated, tmp_path / "generated")
    (tmp_path / MANIFEST).write_text('{"released": {}, "withdrawn": {}}')
    return tmp_path


def change(path, **changes):
    document = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps(document))
    return document


def reasons(kit):
    return [problem.reason for problem in check(kit)]


class TestPublished:
    def test_the_published_set_is_in_order(self):
        assert [] == check(VECTORS)

    def test_the_command_says_so(self, capsys):
        assert 0 == main(["vectors", "check"])
        assert "all is well" in capsys.readouterr().out


class TestHash:
    def test_layout_and_prose_do_not_count_and_steps_and_notation_do(self, kit):
        document = json.loads((kit / "processor" / f"{FIRST}.json").read_text())
        same = {key: document[key] for key in reversed(document)} | {"title": "x", "why": "x", "rules": [], "id": "x"}
        assert content_hash(document) == content_hash(same)
        for other in ({"host": "ice-lake-server"}, {"profile": "rfc-v3"}, {"steps": document["steps"][:-1]}):
            assert content_hash(document) != content_hash({**document, **other})


class TestCheck:
    def test_a_wrong_file_name_is_refused(self, kit):
        (kit / "processor" / f"{FIRST}.json").rename(kit / "processor" / "other.json")
        assert [f"the file of {FIRST} is called {FIRST}.json"] == reasons(kit)

    def test_an_id_used_twice_is_refused(self, kit):
        (kit / "other").mkdir()
        shutil.copy(kit / "processor" / f"{FIRST}.json", kit / "other")
        assert [f"{FIRST} is also the id of another file"] == reasons(kit)

    def test_a_generated_id_must_be_of_its_content(self, kit):
        (path,) = (kit / "generated").glob("*.json")
        document = change(path, host="clearwater-forest")
        assert [f"the content of {document['id']} has the digits {digits(document)}"] == reasons(kit)

    def test_a_generated_scenario_says_so_and_no_other_does(self, kit):
        (path,) = (kit / "generated").glob("*.json")
        document = json.loads(path.read_text())
        del document["x-generated"]
        path.write_text(json.dumps(document))
        change(kit / "processor" / f"{FIRST}.json", **{"x-generated": "by hand"})
        first, second = sorted(reasons(kit))
        assert first.endswith('does not say from what: "x-generated"')
        assert second == f"{FIRST} is generated, and its id does not begin with gen"

    def test_an_id_that_counts_is_refused(self, kit):
        path = kit / "processor" / "processor.masked.2.json"
        (kit / "processor" / f"{FIRST}.json").rename(path)
        change(path, id="processor.masked.2")
        assert ["processor.masked.2 ends in a number, and ids are never renumbered: use a word"] == reasons(kit)

    def test_a_file_that_is_no_scenario_is_said_with_its_place(self, kit, capsys):
        (kit / "broken.json").write_text("[]")
        assert 1 == main(["vectors", "--folder", str(kit), "check"])
        assert "broken.json: #: [] is not an object" in capsys.readouterr().out

    @pytest.mark.parametrize("text", ["", "[]", '{"released": {}}', '{"released": {"a": {}}, "withdrawn": {}}'])
    def test_a_manifest_that_is_none_is_no_empty_one(self, kit, text, capsys):
        (kit / MANIFEST).write_text(text)
        assert 2 == main(["vectors", "--folder", str(kit), "check"])
        said = capsys.readouterr().err
        assert ("not a manifest" if text else "RELEASED.json: #: not JSON: line 1, column 1") in said

    def test_a_set_without_a_manifest_cannot_be_checked(self, kit):
        (kit / MANIFEST).unlink()
        with pytest.raises(Invalid, match="cannot be read"):
            check(kit)


class TestRelease:
    def test_the_releases_of_this_set_are_those_that_the_readme_and_the_changelog_name(self):
        versions = {entry["version"] for entry in read_manifest(VECTORS).released.values()}
        [named] = re.findall(r"^Releases so far: (.*)\.$", (VECTORS / "README.md").read_text("utf-8"), re.M)
        assert versions == set(re.findall(r"\d+\.\d+\.\d+", named))
        changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
        assert all(re.search(rf"release of the vectors, {re.escape(version)}\b", changelog) for version in versions)

    def test_everything_new_is_entered_and_the_rest_stays(self, kit):
        assert FIRST in release(kit, "0.1.0")
        path = create(kit, "entry.new")
        assert ["entry.new"] == release(kit, "0.2.0")
        versions = {id: entry["version"] for id, entry in read_manifest(kit).released.items()}
        assert ("0.1.0", "0.2.0") == (versions[FIRST], versions[path.stem])
        assert [] == check(kit)

    def test_a_changed_content_is_refused_and_a_changed_title_is_not(self, kit):
        release(kit, "0.1.0")
        change(kit / "processor" / f"{FIRST}.json", title="A better title")
        assert [] == check(kit)
        change(kit / "processor" / f"{FIRST}.json", host="granite-rapids")
        assert [f"the content of {FIRST} was released with 0.1.0, and has changed; take a new id"] == reasons(kit)
        with pytest.raises(Invalid):
            release(kit, "0.2.0")

    def test_a_renamed_scenario_is_refused(self, kit):
        release(kit, "0.1.0")
        path = kit / "processor" / "processor.renamed.json"
        (kit / "processor" / f"{FIRST}.json").rename(path)
        change(path, id="processor.renamed")
        assert [f"{FIRST} was released with 0.1.0, and is gone; processor.renamed has its content now, "
                "and an id is never renamed"] == reasons(kit)

    def test_a_withdrawn_one_may_be_gone_and_not_come_back(self, kit):
        release(kit, "0.1.0")
        path = kit / "processor" / f"{FIRST}.json"
        kept = path.read_text()
        path.unlink()
        assert [f"{FIRST} was released with 0.1.0, and is gone"] == reasons(kit)
        manifest = read_manifest(kit)
        manifest.withdrawn[FIRST] = "it was wrong"
        (kit / MANIFEST).write_text(manifest.text())
        assert [] == check(kit)
        path.write_text(kept)
        assert [f"{FIRST} was withdrawn, and its id is in use"] == reasons(kit)

    def test_what_was_never_released_needs_no_withdrawal(self, kit):
        (kit / MANIFEST).write_text('{"released": {}, "withdrawn": {"a.b": "why"}}')
        assert ["a.b was never released: remove its file, that is all"] == reasons(kit)

    def test_a_version_has_three_numbers(self, kit, capsys):
        assert 2 == main(["vectors", "--folder", str(kit), "release", "soon"])
        assert "'soon' is not a version such as 0.1.0" in capsys.readouterr().err
        assert 0 == main(["vectors", "--folder", str(kit), "release", "0.1.0"])
        assert "2 scenarios released with 0.1.0\n" == capsys.readouterr().out


class TestNew:
    def test_the_skeleton_is_a_scenario_that_passes(self, kit, capsys):
        assert 0 == main(["vectors", "--folder", str(kit), "new", "entry.first-exit"])
        path = kit / "entry" / "entry.first-exit.json"
        assert f"{path}\n" == capsys.readouterr().out
        assert "entry.first-exit" == loads(path.read_bytes()).id
        assert 0 == main(["run", str(path)])

    @pytest.mark.parametrize(
        ("id", "why"),
        [(FIRST, "in use"), ("Entry.x", "not an id"), ("gen.a.b", "generated"), ("entry.exit.2", "renumbered")])
    def test_an_id_that_cannot_be_is_refused(self, kit, id, why):
        with pytest.raises(NotPossible, match=why):
            create(kit, id)

    def test_an_id_that_was_withdrawn_is_not_used_again(self, kit):
        release(kit, "0.1.0")
        (kit / "processor" / f"{FIRST}.json").unlink()
        with pytest.raises(NotPossible, match="in use, or was"):
            create(kit, FIRST)


def test_a_set_is_read_with_its_documents(kit):
    documents, scenarios, problems = read_set(kit)
    assert [] == problems
    assert set(documents) == {scenario.id for scenario in scenarios}


class TestReadme:
    TEXT = (VECTORS / "README.md").read_text()

    def test_it_names_every_folder(self):
        folders = {path.name for path in VECTORS.iterdir() if path.is_dir()} - {"adapters"}
        assert folders <= set(re.findall("`([a-z-]+)`", self.TEXT.split("## What is in a folder")[1]))

    def test_its_formula_is_the_merge_and_decides_what_faults(self):
        (formula,) = re.findall(r"^    (merged = .*)$", self.TEXT, re.MULTILINE)
        for mask, forced in ((0, 0), (0x4, 0), (0x404, 0x400), (1 << 63, 0), (0xFFFFFFFFFFFFFFFF, 0x1)):
            for value in (0, 0x1, 0x5, 0x400, 0x405, 0x100, 0x800, 1 << 63, 1 << 63 | 0x400):
                names = {"value": value, "mask": mask, "forced": forced}
                exec(formula, names)
                machine = Machine("sapphire-rapids", record=False)
                machine.enable_cap(cap=236, args=[mask, forced])
                machine.create_vcpu()
                seen = machine.wrmsr(msr=0x48, value=value)
                faults = names["merged"] & ~writable_bits(PARTS["sapphire-rapids"].features) != 0
                assert seen == ({"fault": "#GP"} if faults else {})
                assert faults or machine.observe()["effective"] == names["merged"]
                assert faults or machine.rdmsr(msr=0x48) == {"value": value}

    def test_its_table_of_bits_is_the_register(self):
        rows = re.findall(r"^\| ([\d, ]+) \| `([A-Z_]+)` \|$", self.TEXT, re.MULTILINE)
        of_readme = {(int(bit), feature) for bits, feature in rows for bit in bits.split(", ")}
        assert of_readme == {(field.low, field.exists_when) for field in REGISTERS["IA32_SPEC_CTRL"]}

    def test_its_six_lines_are_what_reports_and_userspace_force(self):
        (lines,) = re.findall(r"^```python\n(.*?)^```$", self.TEXT, re.MULTILINE | re.DOTALL)
        assert 6 == len(lines.splitlines())
        pairs = [(0, 0), (0x400, 0x400), (0x400, 0), (0x40, 0), (0x44, 0x40)]
        hosts = [*PARTS, {"part": "sapphire-rapids", "spec_ctrl_shadow": False}]
        ran = Counter()
        for host, (mask, forced), report in product(hosts, pairs, range(4)):
            machine = Machine(host, record=False)
            if mask and "errno" in machine.enable_cap(cap=236, args=[mask, forced]):
                continue
            machine.create_vcpu()
            assert {"ret": 2} == machine.set_msrs(msrs=[(0x48, 0x1), (0x50000002, report)])
            has = machine.host.features.names()
            names = {"host": has, "mask": mask, "forced": forced, "report": report, "value": 0x1}
            exec(lines, names)
            assert names["merged"] == machine.observe()["effective"], (host, mask, forced, report)
            ran[mask != 0, machine.host.spec_ctrl_shadow] += 1
        assert min(ran[False, False], ran[False, True], ran[True, True]) >= 16
        assert ran[True, False] == 0  # as the README says

    def test_its_table_of_msrs_is_what_the_emulator_has(self):
        rows = re.findall(r"^\| `(0x[0-9a-f]+)` \| `(\w+)` \| (.*) \| (.*) \| (.*) \|$", self.TEXT, re.MULTILINE)
        assert {int(number, 16): name for number, name, *_ in rows} == {
            number: name for name, number in MSR_NUMBERS.items() if number != 0x48}
        machine = Machine("sapphire-rapids", record=False)
        machine.create_vcpu()
        for number, name, guest, userspace, first in rows:
            value = machine.get_msrs(msrs=[int(number, 16)])["values"][0]
            assert value == (1 << 63 | 1 << 19 if first.startswith("bit 63") else int(first)), name
            taken = [bit for bit in range(64) if machine.set_msrs(msrs=[(name, 1 << bit)]) == {"ret": 1}]
            assert len(taken) == {"any": 64, "bit 0": 1, "bits 0": 2}[re.match("any|bits? 0", userspace)[0]], name
            machine.set_msrs(msrs=[(name, 1 << 63 if "any" in userspace else 1)])
            assert "value" in machine.rdmsr(msr=name)  # the condition holds now, row by row
            frozen = machine.set_msrs(msrs=[(name, 0)]) == {"ret": 0}
            assert frozen == ("until frozen" in userspace), name
            writes = machine.wrmsr(msr=name, value=1) == {}
            assert writes == ("writes" in guest), name
            machine.migrate(to="sapphire-rapids")

    def test_it_names_every_argument_that_may_be_absent(self):
        table = self.TEXT.split("| Argument | Absent |")[1].split("\n\n")[0]
        for name, operation in OPERATIONS.items():
            if operation.optional:
                assert f"`{name}." in table, name
                for argument in operation.optional if f"`{name}.…`" not in table else ():
                    assert re.search(rf"`{name}\.{argument}`|`{name}\.\w+`, `{argument}`", table), (name, argument)

    def test_its_keys_are_those_that_observe_shows(self):
        table = self.TEXT.split("### What to observe")[1].split("###")[0]
        keys = re.findall("`([a-z_]+)`", " ".join(re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)))
        assert sorted(OPERATIONS["observe"].shows) == sorted(keys)

    def test_its_dialogue_is_what_an_adapter_is_sent_and_the_emulator_answers(self):
        lines = re.findall(r"^    ([<>]) (\{.*\})$", self.TEXT, re.MULTILINE)
        asked = [json.loads(text) for mark, text in lines if mark == ">"]
        answered = [json.loads(text) for mark, text in lines if mark == "<"]
        begin = {"op": "begin", "host": HOST.write("sapphire-rapids"), "profile": "spec", "assume": ASSUMPTIONS}
        assert begin == asked[0]
        document = {"schema": "specctrl/scenario/1", "id": "a", "host": "sapphire-rapids", "steps": asked[1:]}
        target = EmulatorTarget("spec")
        target.begin("sapphire-rapids", "spec", {})
        for step, sent, answer in zip(loads(json.dumps(document)).steps, asked[1:], answered[1:], strict=True):
            assert sent == step.message()
            seen = written(target.step(step))
            assert "unsupported" in answer or answer == {key: seen[key] for key in answer}
            assert "unsupported" in answer or answer or not seen
