"""What the index for searching keeps over a build that writes only some pages."""

from pathlib import Path
from types import SimpleNamespace

from specctrl.site.searching import Kept

OLD = ('Search.setIndex({"docnames":["gone","new","old"],'
       '"indexentries":{"mask":[[0,"x",false],[1,"y",false],[2,"term-mask",true]]}})')


def app_of(folder: Path, written: dict) -> SimpleNamespace:
    """What an application is to the index: ``written`` has the entries of the pages that this build wrote."""
    return SimpleNamespace(
        outdir=folder, builder=SimpleNamespace(format="html"),
        env=SimpleNamespace(_search_index_index_entries=written, found_docs={"new", "old"}))


def test_a_page_that_is_not_written_keeps_its_entries_and_no_other_does(tmp_path):
    (tmp_path / "searchindex.js").write_text(OLD)
    written = {"new": [("view", "z", "")]}
    kept, app = Kept(), app_of(tmp_path, written)
    kept.read(app)
    (tmp_path / "searchindex.js").unlink()
    assert [] == kept.give_back(app)
    assert {"new": [("view", "z", "")], "old": [("mask", "term-mask", "main")]} == written


def test_a_first_build_has_nothing_to_keep(tmp_path):
    written = {}
    kept, app = Kept(), app_of(tmp_path, written)
    kept.read(app)
    assert [] == kept.give_back(app)
    assert {} == written
