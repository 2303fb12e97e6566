"""The directive ``scenario``: a published scenario as a table of its steps, with the file to download."""

import json
import shutil
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from specctrl.site.nodes import code, joined, reference, scrolling, table

logger = logging.getLogger(__name__)


class ScenarioDirective(SphinxDirective):
    """Shows ``vectors/**/ID.json``."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Render the scenario."""
        id = self.arguments[0]
        found = sorted((Path(self.env.srcdir) / "vectors").rglob(f"{id}.json"))
        if len(found) != 1:
            return self._refuse(f"{len(found)} files vectors/**/{id}.json")
        self.env.note_dependency(str(found[0]))
        try:
            scenario = json.loads(found[0].read_text("utf-8"))
            return (
                [self._render(scenario)]
                if scenario["id"] == id
                else self._refuse(f"{found[0].name} says {scenario['id']!r}")
            )
        except (ValueError, KeyError, TypeError) as error:
            return self._refuse(f"{found[0].name} is no scenario: {error!r}")

    def _refuse(self, why: str) -> list[nodes.Node]:
        logger.warning(
            "scenario %s: %s",
            self.arguments[0],
            why,
            location=(self.env.docname, self.lineno),
            type="spec",
            subtype="scenario",
        )
        return []

    def _render(self, scenario: dict[str, Any]) -> nodes.Element:
        id = scenario["id"]
        up = "../" * self.env.docname.count("/")
        file = nodes.reference("", "", code(f"{id}.json"), refuri=f"{up}vectors/{id}.json", internal=True)
        file["classes"] = ["spec-download"]
        title = nodes.strong("", scenario.get("title", id))
        play = nodes.reference("", "perform it", refuri=f"{up}spec/playground.html?scenario={id}", internal=True)
        play["classes"] = ["spec-play"]
        separator = nodes.Text(" · ")
        head = nodes.paragraph(
            "", "", title, separator, file, separator.copy(), play, classes=["spec-scenario-head"]
        )
        block = nodes.container("", head, classes=["spec-scenario"], ids=[f"scenario-{id}"])
        if why := scenario.get("why"):
            block += nodes.paragraph("", why, classes=["spec-scenario-why"])
        facts = nodes.paragraph(
            "", "", nodes.Text("Host "), code(_said(scenario["host"])), classes=["spec-scenario-facts"]
        )
        facts += [nodes.Text(" · Profile "), code(scenario.get("profile", "spec"))]
        if assumed := scenario.get("assume"):
            facts += [nodes.Text(" · Assuming "), code(_arguments(assumed))]
        if rules := scenario.get("rules"):
            facts += [
                nodes.Text(" · Rules: "),
                *joined(reference("rule", rule, self.env.docname) for rule in rules),
            ]
        block += facts
        rows = [_row(number, step) for number, step in enumerate(scenario["steps"], 1)]
        block += scrolling(f"Steps of {id}", table(("#", "Step", "Arguments", "Expected"), rows, "spec-steps"))
        self.set_source_info(block)
        return block


def _row(number: int, step: dict[str, Any]) -> list[list[nodes.Node]]:
    arguments = _arguments({key: value for key, value in step.items() if key not in ("op", "expect")})
    expected = step.get("expect")
    shown: list[nodes.Node] = [code(_arguments(expected))] if expected else [nodes.Text("success")]
    return [
        [nodes.Text(str(number))],
        [code(step["op"])],
        [code(arguments)] if arguments else [nodes.Text("")],
        shown,
    ]


def _arguments(values: dict[str, Any]) -> str:
    return " ".join(f"{key}={_said(value)}" for key, value in values.items())


def _said(value: object) -> str:
    """Write a JSON value with as few marks as still tell what it is.

    >>> _said([{"msr": "0x48", "allow": False}, None])
    '[{msr: 0x48, allow: false}, null]'
    """
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_said(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_said(inner) for inner in value) + "]"
    return value if isinstance(value, str) else json.dumps(value)


def copy_vectors(app: Sphinx, exception: Exception | None) -> None:
    """Put every vector beside the pages, at the stable address ``vectors/ID.json``; and what porters start from."""
    if exception is not None or app.builder.format != "html":
        return
    target = Path(app.outdir) / "vectors"
    shutil.rmtree(target, ignore_errors=True)
    for path in sorted((Path(app.srcdir) / "vectors").rglob("*.json")):
        target.mkdir(exist_ok=True)
        if (target / path.name).exists():
            logger.warning("two vectors are called %s", path.name, type="spec", subtype="scenario")
        shutil.copyfile(path, target / path.name)
    starts = ("adapter.py", "adapter.c", "skeleton.c", "skeleton.rs")
    for name in ("README.md", *(f"adapters/{each}" for each in starts)):
        start = Path(app.srcdir) / "vectors" / name
        if start.is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(start, target / name)
