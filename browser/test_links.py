"""Every link and every address of the built pages; these need no browser."""

import base64
import hashlib
import json
import re
from functools import cache
from html.parser import HTMLParser
from urllib.parse import unquote, urljoin, urlsplit

from built import HTML

LOADS = {"img": "src", "script": "src", "iframe": "src", "source": "src", "use": "href"}


class Page(HTMLParser):
    """What one page names and what it links to."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        self.ids: list[str] = []
        self.links: list[tuple[str, str]] = []
        self.scripts: list[str] = []
        self.policy = ""
        self._in_script = False
        self.feed((HTML / path).read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what this element names or links to."""
        given = {name: value or "" for name, value in attrs}
        if "id" in given:
            self.ids.append(given["id"])
        for name in ("href", "src"):
            if given.get(name):
                self.links.append((tag, given[name]))
        if given.get("http-equiv") == "Content-Security-Policy":
            self.policy = given["content"]
        self._in_script = tag == "script" and "src" not in given

    def handle_endtag(self, tag: str) -> None:
        """Leave a script."""
        self._in_script = False

    def handle_data(self, data: str) -> None:
        """Note a script that stands in the page."""
        if self._in_script and data.strip():
            self.scripts.append(data)


@cache
def parsed(path: str) -> Page:
    return Page(path)


def where(link: str, path: str) -> tuple[str, str]:
    """The file and the fragment that a link of a page means."""
    parts = urlsplit(urljoin(f"/{path}", link))
    file = unquote(parts.path).lstrip("/")
    return (file + "index.html" if file.endswith("/") or not file else file), unquote(parts.fragment)


def test_each_link_leads_somewhere(path: str) -> None:
    broken = []
    for _, link in parsed(path).links:
        if urlsplit(link).scheme or link.startswith("//"):
            continue
        file, fragment = where(link, path)
        if not (HTML / file).is_file():
            broken.append(f"{link}: no file")
        elif fragment and file.endswith(".html") and fragment not in parsed(file).ids:
            broken.append(f"{link}: no such place")
    assert broken == []


def test_no_two_places_have_one_address(path: str) -> None:
    ids = parsed(path).ids
    assert sorted({id for id in ids if ids.count(id) > 1}) == []


def test_nothing_is_loaded_from_elsewhere(path: str) -> None:
    loaded = [link for tag, link in parsed(path).links if tag in LOADS or tag == "link"]
    assert [link for link in loaded if urlsplit(link).scheme not in ("", "data") or link.startswith("//")] == []


def test_the_policy_knows_each_script_in_the_page(path: str) -> None:
    page = parsed(path)
    digests = [hashlib.sha256(script.encode()).digest() for script in page.scripts]
    unknown = [digest for digest in digests if f"'sha256-{base64.b64encode(digest).decode()}'" not in page.policy]
    assert page.scripts  # the theme has one
    assert unknown == []
    assert "'unsafe-inline'" not in re.search(r"script-src[^;]*", page.policy)[0]  # type: ignore[index]  # a policy without it is an error here


def test_the_file_of_rules_names_what_is_there() -> None:
    rules = json.loads((HTML / "rules.json").read_text("utf-8"))["rules"]
    assert len(rules) > 100
    for rule in rules:
        file, fragment = where(rule["url"], "rules.json")
        assert fragment in parsed(file).ids, rule["id"]
