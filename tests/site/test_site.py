"""What each page of the site carries besides its text: addresses, and what the search knows of it."""

import pickle
import sys
from pathlib import Path

import pytest

from site_builder import API, RULE, TOY, Site
from specctrl.site.permalinks import example_anchor


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "toy.py").write_text(TOY)
    monkeypatch.syspath_prepend(tmp_path / "lib")
    monkeypatch.delitem(sys.modules, "toy", raising=False)
    return Site(tmp_path / "site", {"spec/api": API})


PAGE = """\
# Toy

```{layout} IA32_SPEC_CTRL
```

```python
>>> 1 + 1
2
```

| Error | When |
| --- | --- |
| `EINVAL` | the flags are not 0: see there |
| `EINVAL` | the flags are not 0: and elsewhere |

""" + RULE


class TestAddresses:
    def test_a_register_and_each_of_its_fields_has_one(self, site: Site) -> None:
        site.pages |= {"spec/toy": PAGE}
        assert site.build() == []
        page = site.page("spec/toy")
        assert 'id="register-IA32_SPEC_CTRL"' in page
        assert 'id="field-IA32_SPEC_CTRL-BHI_DIS_S"' in page
        assert 'href="#field-IA32_SPEC_CTRL-BHI_DIS_S" title="Link to this field"' in page

    def test_each_cause_of_an_error_has_one_two_alike_are_told_apart(self, site: Site) -> None:
        site.pages |= {"spec/toy": PAGE}
        site.build()
        page = site.page("spec/toy")
        assert 'id="error-toy-einval-the-flags-are-not-0"' in page
        assert 'id="error-toy-einval-the-flags-are-not-0-2"' in page

    def test_an_example_keeps_its_own_when_another_is_put_before_it(self, site: Site) -> None:
        address = 'id="{}"'.format(example_anchor(">>> 1 + 1\n2"))
        site.pages |= {"spec/toy": PAGE}
        site.build()
        assert address in site.page("spec/toy")
        site.pages |= {"spec/toy": PAGE.replace("```python", "```python\n>>> 2 + 2\n4\n```\n\n```python")}
        site.build()
        assert address in site.page("spec/toy")

    def test_the_search_index_knows_registers_and_fields(self, site: Site) -> None:
        site.pages |= {"spec/toy": PAGE}
        site.build()
        index = (site.html / "searchindex.js").read_text()
        assert "field-IA32_SPEC_CTRL-BHI_DIS_S" in index

    def test_what_the_search_knows_of_a_page_is_stored_for_the_next_build(self, site: Site) -> None:
        site.pages |= {"spec/toy": "# Toy\n\n```{index} ! keepsake\n```\n\nA text.\n"}
        site.build()
        with (site.root / "_build" / "doctrees" / "environment.pickle").open("rb") as stored:
            known = pickle.load(stored)._search_index_index_entries
        assert known["spec/toy"] == [("keepsake", "index-0", "main")]
