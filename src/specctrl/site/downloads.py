"""What the site gives away whole, at stable addresses: the scenarios and the C reference, each as one archive."""

import gzip
from pathlib import Path

from sphinx.application import Sphinx

from specctrl.vectors.archive import ROOT, archive, files_of, pack

FOLDER = "downloads"
REFERENCE = "specctrl-c"
"""The folder that everything of the C reference is in."""


def reference(root: Path) -> bytes:
    """The C reference of a project as a tar archive: sources, Makefile, README, proofs, licence."""
    files = {"LICENSE": (root / "LICENSE").read_bytes()} | dict(files_of(root / "reference" / "c"))
    return pack(REFERENCE, sorted(files.items()))


def write(app: Sphinx, exception: Exception | None) -> None:
    """Write both archives beside the pages; a site without their sources has none."""
    if exception is not None or app.builder.format != "html":
        return
    root, target = Path(app.srcdir), Path(app.outdir) / FOLDER
    archives = {}
    if (root / "vectors" / "README.md").is_file():
        archives[ROOT] = archive(root / "vectors")
    if (root / "reference" / "c").is_dir() and (root / "LICENSE").is_file():
        archives[REFERENCE] = reference(root)
    for name, data in archives.items():
        target.mkdir(exist_ok=True)
        (target / f"{name}.tar.gz").write_bytes(gzip.compress(data, mtime=0))


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the archives."""
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
