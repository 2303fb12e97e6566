"""The floors of the house: each room imports only what is below it (``[tool.importlinter]`` in pyproject.toml)."""

import subprocess
import sys
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = {"model", "scenario", "proof", "exploration", "targets", "evidence", "vectors", "cli", "site"}
CORE = ("specctrl.model", "specctrl.rules", "specctrl.scenario")
NOT_IN_A_BROWSER = {
    "ctypes", "fcntl", "mmap", "multiprocessing", "resource", "select", "signal", "socket", "subprocess",
}


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """Check the package in a folder against the contracts of this checkout."""
    return subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()",
         "--no-cache", str(ROOT / "pyproject.toml")],
        cwd=folder, env={"PYTHONPATH": str(folder / "src")}, text=True, capture_output=True, check=False)


def planted(folder: Path, module: str, line: str) -> str:
    """What the check says of a copy of the package in which one module begins with one more import."""
    for file in (ROOT / "src" / "specctrl").rglob("*.py"):
        copy = folder / file.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
    file = folder / "src" / Path(*module.split(".")).with_suffix(".py")
    file.write_text(f"{line}\n{file.read_text('utf-8')}", "utf-8")
    done = lint(folder)
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


def test_the_package_is_nine_rooms_and_five_files():
    inside = {path.name for path in (ROOT / "src" / "specctrl").iterdir() if path.name != "__pycache__"}
    assert ROOMS | {"__init__.py", "digest.py", "processes.py", "rules.py", "shards.py"} == inside


def test_every_contract_holds():
    done = lint(ROOT)
    assert (0, "") == (done.returncode, done.stderr), done.stdout


@pytest.mark.parametrize(("module", "line", "broken"), [
    ("specctrl.model.contract", "import specctrl.scenario.machine", "Each floor imports only what is below it BROKEN"),
    ("specctrl.model.words", "import specctrl.model.contract", "Inside the model, from the page's words up BROKEN"),
    ("specctrl.model.kvm.state", "import specctrl.model.kvm.nested", "A vCPU is built in floors BROKEN"),
    ("specctrl.proof.symbolic", "import specctrl.proof.prove", "Inside the proofs BROKEN"),
    ("specctrl.proof.symbolic", "import z3", "Z3 is asked in one place BROKEN"),
    ("specctrl.cli.command", "import specctrl.cli.main", "No circle anywhere BROKEN"),
    ("specctrl.model.contract", "import z3", "a browser lacks BROKEN"),
    ("specctrl.site.changes", "import docutils", "nothing of Sphinx, and nothing that a browser lacks BROKEN"),
])
def test_a_planted_import_breaks_its_contract(tmp_path, module, line, broken):
    assert broken in " ".join(planted(tmp_path, module, line).split())


def test_the_core_imports_the_standard_library_alone_and_nothing_of_it_that_a_browser_lacks():
    graph = grimp.build_graph("specctrl", include_external_packages=True, cache_dir=None)
    core = {name for name in graph.modules if name.startswith(CORE)}
    outside = {name for module in core for name in graph.find_modules_directly_imported_by(module)
               if not name.startswith("specctrl")}
    assert "dataclasses" in outside  # so they are seen at all
    assert set() == outside - sys.stdlib_module_names
    assert set() == outside & NOT_IN_A_BROWSER


LONGER = {
    "src/specctrl/scenario/format.py": "one table: every operation of the format, once",
    "src/specctrl/scenario/machine.py": "one class: a method for each operation of the format",
    "reference/c/specctrl.h": "one header, so that it is copied as one file; tests keep it under 1,200",
    "reference/c/specctrl_cpu.h": "the model of a processor, which the header is tested on",
    "reference/c/adapter.c": "one program without a library: parser, machine and printing of every operation",
    "reference/rust/src/kvm.rs": "what is copied is one file; tests keep it and vmx.rs within 700",
    "reference/linux/series/force_spec_ctrl.c": "the part of the series that is one file of a kernel",
    "reference/upstream/force_spec_ctrl_test.c": "one selftest, as the kernel's tree has one file for each",
    "reference/upstream/stand-in/stand_in.c": "the kernel's side of that selftest",
    "tests/model/test_vcpu.py": "the tests of one class",
    "tests/scenario/test_scenario.py": "what the reader accepts and refuses, key by key",
    "tests/site/test_directives.py": "every directive of the pages, on sites made for it",
    "tests/targets/test_c_reference.py": "one program, compiled once for all of them",
    "tests/targets/test_kvm_target.py": "one recorded kernel, read once for all of them",
    "tests/vectors/test_upstream.py": "one exported test, made once for all of them",
}
"""The files of more than 400 lines, each with its reason."""


def test_a_file_of_more_than_400_lines_has_a_reason():
    folders = [ROOT / name for name in ("src", "reference", "tests", "browser", "bench")]
    files = [path for folder in folders for path in folder.rglob("*") if path.suffix in (".py", ".c", ".h", ".rs")]
    assert len(files) > 300
    longer = {str(path.relative_to(ROOT)) for path in files if len(path.read_text("utf-8").splitlines()) > 400}
    assert longer == set(LONGER)
