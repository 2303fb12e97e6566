"""The site's Sphinx extension: rules, live source, bit layouts and scenarios in the pages."""

from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata

import specctrl.rules
from specctrl.site import evidence, execution, html, layout, permalinks
from specctrl.site.commands import CommandsDirective
from specctrl.site.crosslinks import Crosslinks, leave_type_variable, stale_pages
from specctrl.site.domain import SpecDomain
from specctrl.site.fold import FoldDirective
from specctrl.site.messages import link_messages
from specctrl.site.nodes import (
    depart_disclosure,
    depart_scroller,
    disclosure,
    scroller,
    visit_children_only,
    visit_disclosure,
    visit_scroller,
)
from specctrl.site.postings import PostingDirective
from specctrl.site.rule import RuleDirective, RuleRole, RulesDirective, rules_table, write_json, write_sentences
from specctrl.site.runner import Runner
from specctrl.site.scenario import ScenarioDirective, copy_vectors
from specctrl.site.source import SourceDirective, listing_block, visit_listing


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register everything with Sphinx."""
    app.add_config_value("source_modules", [], "env", list)
    app.add_config_value("source_root", Path(specctrl.rules.__file__).parent, "")
    app.add_config_value("docstring_prompts", True, "", bool)
    app.add_config_value("rule_evidence", False, "env", bool)
    app.add_config_value("spec_commit", "", "html", str)
    app.add_config_value("spec_counts", {}, "html", dict)
    app.add_config_value("page_runner", False, "html", bool)

    for part in ("policies", "c_reference", "downloads", "redirects", "reading", "licences", "content_policy"):
        app.setup_extension(f"specctrl.site.{part}")
    app.add_domain(SpecDomain)
    app.add_role("rule", RuleRole())
    app.add_directive("rule", RuleDirective)
    app.add_directive("rules", RulesDirective)
    app.add_directive("coverage", evidence.CoverageDirective)
    app.add_directive("code-cell", execution.CellDirective)
    app.add_directive("fold", FoldDirective)
    app.add_directive("commands", CommandsDirective)
    app.add_directive("source", SourceDirective)
    app.add_directive("layout", layout.LayoutDirective)
    app.add_directive("scenario", ScenarioDirective)
    app.add_directive("posting", PostingDirective)

    children_only = (visit_children_only, visit_children_only)
    app.add_node(scroller, html=(visit_scroller, depart_scroller), text=children_only, latex=children_only)
    app.add_node(listing_block, html=(visit_listing, None))
    app.add_node(rules_table)
    app.add_node(evidence.rule_evidence)
    app.add_node(evidence.coverage_table)
    app.add_node(disclosure, html=(visit_disclosure, depart_disclosure), text=children_only, latex=children_only)
    app.add_post_transform(Crosslinks)

    runner, making = Runner(), evidence.Making()
    app.connect("config-inited", html.set_commit)
    app.connect("config-inited", html.count_evidence)
    app.connect("builder-inited", execution.run)
    app.connect("builder-inited", making.start)
    app.connect("env-get-outdated", execution.changed)
    app.connect("doctree-read", evidence.name_cells)
    app.connect("builder-inited", runner.gather)
    app.connect("doctree-read", html.drop_noise)
    app.connect("doctree-read", link_messages)
    app.connect("doctree-read", permalinks.add_permalinks)
    app.connect("env-updated", making.take)
    app.connect("env-updated", stale_pages)
    app.connect("missing-reference", leave_type_variable)
    app.connect("write-started", html.resolve_contents)
    app.connect("html-page-context", html.add_contents, priority=400)  # before the theme asks for them
    app.connect("html-page-context", html.add_banner)
    app.connect("html-page-context", html.add_facts)
    app.connect("html-page-context", html.mend, priority=900)  # after the theme's own
    app.connect("html-page-context", layout.add_assets)
    app.connect("html-page-context", runner.add_script)
    app.connect("build-finished", runner.copy)
    app.connect("build-finished", write_json)
    app.connect("build-finished", write_sentences)
    app.connect("build-finished", copy_vectors)
    app.connect("build-finished", layout.write_data)
    app.connect("build-finished", html.keep_search_entries)
    return {"version": "1", "env_version": 2, "parallel_read_safe": True, "parallel_write_safe": True}
