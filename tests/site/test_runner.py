"""What runs code in the page: fetched whole or not at all, packed alike each time, left out with a reason."""

import io
import json
import subprocess
import tarfile
import tomllib
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from site_builder import NOTEBOOK, Site
from specctrl.site import runner as page_runner
from specctrl.site.runner import DATA, LACKS_Z3, Runner, imports, pack

ROOT = Path(__file__).resolve().parents[2]
CELL = f"{NOTEBOOK}# Toy\n\n```{{code-cell}} ipython3\nprint(1)\n```\n"


@pytest.fixture
def npm(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A registry of our own: what ``npm pack`` brings; ``asked`` counts the calls."""
    package = io.BytesIO()
    with tarfile.open(fileobj=package, mode="w:gz") as archive:
        for name in (*page_runner.CORE, page_runner.LOCK, "console.html"):
            lock = {"info": {"python": "3.14"}, "packages": {"a": {"file_name": "https://elsewhere/a.whl"}}}
            content = json.dumps(lock).encode() if name == page_runner.LOCK else name.encode()
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    registry: dict[str, Any] = {"asked": [], "package": package.getvalue(), "error": None}

    def run(command: list[str], **given: Any) -> None:
        registry["asked"].append(command)
        if registry["error"]:
            raise registry["error"]
        (Path(given["cwd"]) / f"pyodide-{page_runner.PYODIDE}.tgz").write_bytes(registry["package"])

    errors = {"CalledProcessError": subprocess.CalledProcessError, "TimeoutExpired": subprocess.TimeoutExpired}
    monkeypatch.setattr(page_runner, "subprocess", SimpleNamespace(run=run, **errors))
    monkeypatch.setattr(page_runner, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(page_runner, "check", lambda file, integrity: None)
    return registry


def test_only_the_core_is_kept_and_the_lock_names_no_package(npm: dict[str, Any], tmp_path: Path) -> None:
    folder = page_runner.core_of(tmp_path / "cache")
    assert sorted(file.name for file in folder.iterdir()) == sorted((*page_runner.CORE, page_runner.LOCK))
    assert json.loads((folder / page_runner.LOCK).read_text()) == {"info": {"python": "3.14"}, "packages": {}}
    page_runner.core_of(tmp_path / "cache")
    assert len(npm["asked"]) == 1, "what is in the cache is not fetched again"
    assert "--ignore-scripts" in npm["asked"][0]


def test_a_package_that_is_not_the_pinned_one_is_refused(
    npm: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # the digest is checked again
    file = tmp_path / "page_runner.tgz"
    file.write_bytes(npm["package"])
    with pytest.raises(page_runner.Tampered, match="not the pinned file: sha512-"):
        page_runner.check(file, page_runner.PYODIDE_INTEGRITY)


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (subprocess.CalledProcessError(1, "npm", stderr="network"), "npm cannot fetch it"),
        (subprocess.TimeoutExpired("npm", 180), "npm had not fetched it after 180 seconds"),
    ],
)
def test_what_cannot_be_fetched_is_left_out_and_leaves_nothing(
    npm: dict[str, Any], tmp_path: Path, error: Exception, why: str
) -> None:
    npm["error"] = error
    with pytest.raises(page_runner.NotHere, match=why):
        page_runner.core_of(tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_what_another_build_has_put_there_meanwhile_stays(tmp_path: Path) -> None:
    place = tmp_path / "cache" / "python"
    for content in ("first", "second"):
        made = tmp_path / "made"
        made.mkdir()
        (made / "file").write_text(content, "ascii")
        page_runner._put(made, place)
    assert [file.name for file in place.parent.iterdir()] == ["python"]
    assert [file.name for file in place.iterdir()] == ["file"]
    assert (place / "file").read_text("ascii") == "first"


def test_a_wheel_with_another_digest_is_refused(npm: dict[str, Any], tmp_path: Path) -> None:
    said = "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE."
    npm["error"] = subprocess.CalledProcessError(1, "pip", stderr=said)
    with pytest.raises(page_runner.Tampered, match="DO NOT MATCH"):
        page_runner.z3_wheel(tmp_path / "cache")


def test_the_package_is_packed_alike_each_time_with_what_it_reads_and_without_sphinx(tmp_path: Path) -> None:
    package = tmp_path / "src" / "toy"
    for name in ("toy/a.py", "toy/in/b.json", "toy/site/c.py", "toy/__pycache__/d.json"):
        (tmp_path / "src" / name).parent.mkdir(parents=True, exist_ok=True)
        text = "from sphinx.application import Sphinx\n" if name == "toy/site/c.py" else f"# {name}\n"
        (tmp_path / "src" / name).write_text(text)
    for name in ("spec/p.md", "spec/_static/x.css", "vectors/cap/v.json", "vectors/adapters/a.c", "reference/c/x.h"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    pack(package, tmp_path, tmp_path / "one.zip")
    (package / "a.py").touch()
    pack(package, tmp_path, tmp_path / "two.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    names = zipfile.ZipFile(tmp_path / "one.zip").namelist()
    data = ["reference/c/x.h", "spec/p.md", "vectors/adapters/a.c", "vectors/cap/v.json"]
    assert names == [*(f"toy/_data/{name}" for name in data), "toy/a.py", "toy/in/b.json"]


def test_what_the_wheel_carries_the_page_has_too() -> None:
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert set(DATA) == set(wheel["force-include"])


def test_a_page_that_proves_needs_z3_and_one_that_runs_a_history_does_not() -> None:
    assert not imports(["from specctrl import Machine\nimport json"], "z3")
    assert imports(["x = 1", "import z3"], "z3")
    assert imports(["from specctrl.proof.prove import prove"], "z3")


def test_without_z3_a_page_that_needs_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "core").mkdir()
    (tmp_path / "core" / "python").write_bytes(b"x" * 1_000_000)
    package = tmp_path / "specctrl.zip"
    package.write_bytes(b"x" * 500_000)
    runner = Runner(tmp_path / "core", None, package)
    assert runner.attributes(needs_z3=True) == {"data-lacks": LACKS_Z3}
    assert runner.attributes(needs_z3=False)["data-megabytes"] == "1.5"
    runner.z3 = tmp_path / "z3.whl"
    runner.z3.write_bytes(b"x" * 1_000_000)
    assert runner.attributes(needs_z3=True)["data-megabytes"] == "2.5"
    assert runner.attributes(needs_z3=False)["data-megabytes"] == "1.5"


def test_without_npm_the_site_is_built_and_has_no_button(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_runner, "which", lambda name: None)
    site = Site(tmp_path / "site", {"spec/toy": CELL}, {"page_runner": True})
    assert site.build() == []
    assert "runner" not in site.page("spec/toy")
    assert not (tmp_path / "site" / "_build" / "html" / "_static" / "python").exists()


def test_where_python_can_be_had_a_page_with_code_has_the_script_and_no_other(
    npm: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_runner, "z3_wheel", lambda cache: (_ for _ in ()).throw(page_runner.NotHere("no network")))
    site = Site(tmp_path / "site", {"spec/toy": CELL, "spec/plain": "# Plain\n"}, {"page_runner": True})
    assert site.build() == []
    assert 'type="module"' in site.page("spec/toy")
    assert "data-megabytes" in site.page("spec/toy")
    assert "runner" not in site.page("spec/plain")
