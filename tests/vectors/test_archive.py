"""The set as an archive: the same bytes each time, and all of it."""

import gzip
import hashlib
import io
import json
import os
import re
import shlex
import shutil
import sys
import tarfile

import pytest

from published_files import DOCUMENTS
from published_files import ROOT as PROJECT
from specctrl.cli.main import main
from specctrl.scenario import Invalid, read
from specctrl.scenario.published import content_hash
from specctrl.vectors.archive import INDEX, ROOT, archive, export

VECTORS = PROJECT / "vectors"


@pytest.fixture(scope="module")
def tar():
    """The published set as an archive."""
    return archive(VECTORS)


@pytest.fixture(scope="module")
def exported(tar):
    """Its files by their names, without the folder."""
    with tarfile.open(fileobj=io.BytesIO(tar)) as opened:
        return {name.removeprefix(f"{ROOT}/"): opened.extractfile(name).read() for name in opened.getnames()}


class TestArchive:
    def test_two_exports_of_equal_trees_are_the_same_bytes(self, tmp_path, tar):
        copy = tmp_path / "copy"
        shutil.copytree(VECTORS, copy)
        for number, path in enumerate(sorted(copy.rglob("*.json"))):
            os.utime(path, (number, number))
            path.chmod(0o600)
        assert tar == archive(copy)

    def test_a_compressed_one_is_the_same_bytes_too(self, tmp_path, monkeypatch):
        monkeypatch.setattr("specctrl.vectors.archive.archive", lambda folder: b"x" * 1000)
        monkeypatch.setattr("specctrl.vectors.archive.contents", lambda folder: [])
        written = []
        for now in (1, 1_000_000_000):
            monkeypatch.setattr("time.time", lambda now=now: now)
            export(VECTORS, tmp_path / "a.tar.gz")
            written.append((tmp_path / "a.tar.gz").read_bytes())
        assert written[0] == written[1]
        assert b"x" * 1000 == gzip.decompress(written[0])

    def test_names_are_sorted_and_say_nothing_of_this_machine(self, tar):
        with tarfile.open(fileobj=io.BytesIO(tar)) as opened:
            entries = opened.getmembers()
        names = [entry.name for entry in entries]
        assert sorted(names) == names
        assert {(0, 0, "", "", 0o644, 0)} == {
            (entry.uid, entry.gid, entry.uname, entry.gname, entry.mode, entry.mtime) for entry in entries}
        for name in ("README.md", "scenario.schema.json", INDEX, "RELEASED.json", "adapters/adapter.py"):
            assert f"{ROOT}/{name}" in names

    def test_every_file_that_the_readme_names_is_in_it(self, exported):
        named = set(re.findall(r"`([\w/.-]+\.(?:md|json|py|c))`", exported["README.md"].decode()))
        assert {"spec/scenarios.md", "spec/implementing.md", "adapters/adapter.c", "RELEASED.json"} <= named
        assert set() == named - exported.keys()

    def test_its_commands_run_from_its_folder(self, tmp_path, monkeypatch, capsys):
        export(VECTORS, tmp_path / "kit")
        monkeypatch.chdir(tmp_path / "kit")
        monkeypatch.setenv("PATH", os.path.dirname(sys.executable), prepend=os.pathsep)
        commands = re.findall(r"^ +specctrl (run .*python3.*)$", (tmp_path / "kit" / "README.md").read_text(), re.M)
        assert 1 == len(commands)
        assert 0 == main(shlex.split(commands[0]))
        assert " 0 fail, " in capsys.readouterr().out

    def test_the_index_is_of_what_is_there(self, exported):
        entries = json.loads(exported[INDEX])["scenarios"]
        assert {document["id"] for document in DOCUMENTS.values()} == set(entries)
        for path, document in DOCUMENTS.items():
            entry = entries[document["id"]]
            assert path.relative_to(VECTORS).as_posix() == entry["file"]
            assert (content_hash(document), document["rules"]) == (entry["sha256"], entry["rules"])
            assert {step["op"] for step in document["steps"]} == set(entry["ops"])
            assert document["profile"] == entry["profile"]

    def test_the_hash_can_be_made_from_the_file_alone(self, exported):
        """As the README says it, without this project."""
        for entry in json.loads(exported[INDEX])["scenarios"].values():
            document = json.loads(exported[entry["file"]])
            keys = ("schema", "profile", "assume", "host", "steps")
            content = {key: document[key] for key in keys if key in document}
            text = json.dumps(content, sort_keys=True, separators=(",", ":"))
            assert entry["sha256"] == hashlib.sha256(text.encode("ascii")).hexdigest()


class TestFolder:
    def test_it_can_be_run_as_it_is(self, tmp_path, capsys):
        target = tmp_path / "kit"
        assert 0 == main(["export", "vectors", str(target)])
        assert f"files in {target}" in capsys.readouterr().out
        assert len(DOCUMENTS) == len(read([target]))

    def test_a_folder_with_something_in_it_is_left_alone(self, tmp_path, capsys):
        (tmp_path / "mine").write_text("")
        assert 2 == main(["export", "vectors", str(tmp_path)])
        assert "not an empty folder" in capsys.readouterr().err
        assert ["mine"] == [path.name for path in tmp_path.iterdir()]


def test_a_broken_set_is_not_exported(tmp_path):
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(Invalid):
        archive(tmp_path)
