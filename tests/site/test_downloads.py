"""The archives that the site gives away: they are whole, the same each time, and the pages' commands run on them."""

import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import specctrl
from site_builder import Site
from specctrl.scenario import read
from specctrl.site.downloads import REFERENCE, reference
from specctrl.vectors.archive import ROOT, archive

PROJECT = Path(__file__).parents[2]
CC = next((name for name in ("cc", "gcc", "clang") if shutil.which(name)), None)
needs_c = pytest.mark.skipif(
    CC is None or shutil.which("make") is None, reason="no C compiler or no make here: no download was compiled")


def commands(page: str, heading: str) -> list[str]:
    """The shell lines of the first console block under a heading."""
    under = re.split(rf"^#+ {heading}$", (PROJECT / "spec" / page).read_text(), flags=re.MULTILINE)[1]
    block = re.search(r"^```console\n(.*?)^```", under, re.DOTALL | re.MULTILINE)
    assert block, (page, heading)
    return re.findall(r"^\$ (.+)$", block.group(1), re.MULTILINE)


def unpacked(data: bytes, folder: Path) -> Path:
    """The archive, as the site has it, in an empty folder."""
    with tarfile.open(fileobj=io.BytesIO(data)) as opened:
        opened.extractall(folder, filter="data")
    (inside,) = folder.iterdir()
    return inside


class TestTheReference:
    def test_it_has_every_file_that_its_readme_names_and_the_licence(self, tmp_path):
        folder = unpacked(reference(PROJECT), tmp_path)
        named = set(re.findall(r"^\| `([\w./]+)` \|", (folder / "README.md").read_text(), re.MULTILINE))
        assert {"specctrl.h", "specctrl_regs.h", "proofs/"} <= named
        assert folder.name == REFERENCE
        assert (folder / "LICENSE").is_file()
        assert [] == [name for name in named if "." in name and not (folder / name).is_file()]
        assert list((folder / "proofs").glob("*.c"))

    def test_it_is_the_same_each_time(self):
        assert reference(PROJECT) == reference(PROJECT)

    @needs_c
    def test_the_page_s_commands_run_where_the_project_is_not(self, tmp_path):
        folder = unpacked(reference(PROJECT), tmp_path)
        unpack, check = commands("implementing.md", "Download and compile")
        assert unpack == f"tar xzf {REFERENCE}.tar.gz && cd {REFERENCE}"
        done = subprocess.run(check, shell=True, cwd=folder, capture_output=True, text=True, check=True)
        assert "\nok 1 " in f"\n{done.stdout}"
        assert "\nnot ok" not in done.stdout
        assert (folder / "build" / "selfcheck").is_file()
        assert [folder] == list(tmp_path.iterdir())


class TestTheScenarios:
    @needs_c
    def test_the_page_s_commands_run_and_pass(self, tmp_path, monkeypatch):
        folder = unpacked(archive(PROJECT / "vectors"), tmp_path)
        unpack, compile_, first, level = commands("scenarios.md", "Download and run the first one")
        assert unpack == f"tar xzf {ROOT}.tar.gz && cd {ROOT}"
        monkeypatch.setenv("PATH", os.path.dirname(sys.executable), prepend=os.pathsep)
        subprocess.run(compile_.replace("cc ", f"{CC} ", 1), shell=True, cwd=folder, check=True)
        bare = {each.id for each in read([folder]) if any(step.op == "bare_stay" for step in each.steps)}
        for command, number, left_out in ((first, "1", set()), (level, r"\d\d+", bare)):
            done = subprocess.run(command, shell=True, cwd=folder, capture_output=True, text=True, check=True)
            assert re.search(rf"^{number} scenarios?: (\d+) pass, 0 fail, {len(left_out)} unsupported", done.stdout,
                             re.MULTILINE), done.stdout
            assert set(re.findall(r"^unsupported +([\w.-]+):? ", done.stdout, re.MULTILINE)) == left_out


def test_a_site_has_the_archive_of_what_it_has_the_sources_of(tmp_path):
    site = Site(tmp_path / "site", {"spec/page": "# Page\n"})
    assert site.build() == []
    assert not (site.html / "downloads").exists()
    site.write("LICENSE", "as you like\n")
    site.write("reference/c/toy.h", "int toy;\n")
    site.pages["spec/page"] += "\nMore.\n"
    assert site.build() == []
    (packed,) = (site.html / "downloads").iterdir()
    assert packed.name == f"{REFERENCE}.tar.gz"
    with tarfile.open(packed) as opened:
        assert opened.getnames() == [f"{REFERENCE}/LICENSE", f"{REFERENCE}/toy.h"]


def test_a_site_of_a_package_has_its_wheel(tmp_path):
    site = Site(tmp_path / "site", {"spec/page": "# Page\n"})
    site.write("toy.py", "answer = 42\n")
    site.write("pyproject.toml", """[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "toy"
version = "1.2"
requires-python = ">=3"
""")
    assert site.build() == []
    (wheel,) = (site.html / "downloads").iterdir()
    assert wheel.name == "toy-1.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as opened:
        assert opened.read("toy.py") == b"answer = 42\n"


def test_the_pages_link_to_the_wheel_of_this_version():
    linked = {name for page in ("index.md", "spec/implementing.md", "spec/scenarios.md")
              for name in re.findall(r'href="[./]*downloads/([^"]+\.whl)"', (PROJECT / page).read_text())}
    assert linked == {f"specctrl-{specctrl.__version__}-py3-none-any.whl"}
