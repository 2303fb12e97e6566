"""The generated scenarios as files: what is written, what changes, what stays because it was released."""

from collections.abc import Mapping
from pathlib import Path

from specctrl.exploration.histories import as_text
from specctrl.scenario import read
from specctrl.scenario.published import PREFIX, read_documents, read_manifest
from specctrl.scenario.writing import write_whole
from specctrl.vectors.generate import generate
from specctrl.vectors.shortest import Carried

FOLDER = "generated"
"""The folder of generated scenarios."""


def generated(folder: Path, carried: Carried = map) -> dict[str, str]:
    """The text of every generated scenario, by its id; those that were released stay, generated again or not."""
    written = [scenario for scenario in read([folder]) if scenario.id.split(".")[0] != PREFIX]
    texts = {document["id"]: as_text(document) for document in generate(written, carried)}
    released = read_manifest(folder).released
    for id in read_documents(folder).keys() & released.keys():
        if id.startswith(f"{PREFIX}."):
            texts[id] = (folder / FOLDER / f"{id}.json").read_text("utf-8")
    return texts


def differences(folder: Path, texts: Mapping[str, str]) -> list[str]:
    """Which files are new, gone or changed."""
    before = {file.stem: file.read_text("utf-8") for file in (folder / FOLDER).glob("*.json")}
    return [
        *(f"new      {id}" for id in sorted(texts.keys() - before.keys())),
        *(f"gone     {id}" for id in sorted(before.keys() - texts.keys())),
        *(f"changed  {id}" for id in sorted(texts.keys() & before.keys()) if texts[id] != before[id]),
    ]


def write(folder: Path, texts: Mapping[str, str]) -> None:
    """Write the files, and remove those that are generated no more."""
    target = folder / FOLDER
    target.mkdir(exist_ok=True)
    for file in target.glob("*.json"):
        if file.stem not in texts:
            file.unlink()
    for id, text in texts.items():
        write_whole(target / f"{id}.json", text)
