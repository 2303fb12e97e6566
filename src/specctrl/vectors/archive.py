"""The set of scenarios as one archive, or one folder: the same sources give the same bytes."""

import gzip
import io
import json
import os
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from specctrl import __version__
from specctrl.rules import data_folder
from specctrl.scenario import Invalid
from specctrl.scenario.kinds import Json
from specctrl.scenario.levels import level
from specctrl.scenario.published import content_hash, read_set
from specctrl.scenario.selection import written_by
from specctrl.scenario.writing import write_whole

ROOT = "specctrl-vectors"
"""The folder that everything in an archive is in."""

INDEX = "index.json"

PAGES = ("implementing.md", "scenarios.md")
"""The chapters that the README names: it has to be whole where the project is not."""


def index(folder: Path) -> dict[str, Json]:
    """What a program wants to know of each scenario before it reads one; raises Invalid for a broken set."""
    documents, scenarios, problems = read_set(folder)
    if problems:
        raise Invalid(problems)
    entries = {
        scenario.id: {
            "file": Path(scenario.file).relative_to(folder).as_posix(),
            "level": level(scenario),
            "kind": written_by(scenario),
            "profile": scenario.profile,
            "ops": sorted({step.op for step in scenario.steps}),
            "rules": list(scenario.rules),
            "observes": sorted({key for step in scenario.steps for key in step.expect}),
            "sha256": content_hash(documents[scenario.id]),
        }
        for scenario in scenarios
    }
    return {"schema": "specctrl/vectors-index/1", "version": __version__, "scenarios": dict(sorted(entries.items()))}


def contents(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every file of an export, by name: what the folder has, but for hidden and built files; chapters; the index."""
    files = {INDEX: (json.dumps(index(folder), indent=1) + "\n").encode()}
    files |= {f"spec/{page}": (data_folder("spec") / page).read_bytes() for page in PAGES}
    yield from sorted((files | dict(files_of(folder))).items())


def files_of(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every file of a folder by name, but for hidden and built ones."""
    for path in sorted(folder.rglob("*")):
        inner = path.relative_to(folder)
        if path.is_file() and not any(part.startswith((".", "__")) for part in inner.parts):
            yield inner.as_posix(), path.read_bytes()


def archive(folder: Path) -> bytes:
    """The set as a tar archive."""
    return pack(ROOT, contents(folder))


def pack(root: str, files: Iterable[tuple[str, bytes]]) -> bytes:
    """A tar archive of one folder: in the order given, without times, owners and modes of this machine."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in files:
            entry = tarfile.TarInfo(f"{root}/{name}")
            entry.size, entry.mode, entry.mtime = len(data), 0o644, 0
            tar.addfile(entry, io.BytesIO(data))
    return target.getvalue()


def export(folder: Path, target: Path) -> int:
    """Write the set to an archive (``.tar``, ``.tar.gz``) or a new or empty folder; returns how many files."""
    files = list(contents(folder))
    if target.name.endswith((".tar.gz", ".tgz")):
        write_whole(target, gzip.compress(archive(folder), mtime=0))
    elif target.suffix == ".tar":
        write_whole(target, archive(folder))
    else:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise FileExistsError(f"{target} is there, and not an empty folder; an archive ends in .tar or .tar.gz")
        _write_folder(target, files)
    return len(files)


def _write_folder(target: Path, files: list[tuple[str, bytes]]) -> None:
    """Make a folder of files, or nothing: it is made beside its place, and renamed."""
    place = Path(os.path.realpath(target))
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".specctrl-") as scratch:
        made = Path(scratch, "made")
        made.mkdir()
        for name, data in files:
            path = made / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        made.rename(place)


