"""The site's Sphinx extension: rules, live source, bit layouts and scenarios in the pages."""

from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata

import specctrl.rules
from specctrl.site import (
    banner,
    bits,
    evidence,
    execution,
    html,
    index,
    kit,
    permalinks,
    policy,
    prompts,
    quiet,
    searching,
    slim,
    streams,
)
from specctrl.site.coverage import CoverageDirective
from specctrl.site.crosslinks import Crosslinks, leave_type_variable, stale_pages
from specctrl.site.domain import SpecDomain
from specctrl.site.layout import LayoutDirective
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
from specctrl.site.roles import RuleRole
from specctrl.site.rule import RuleDirective, RulesDirective, rules_table, write_json
from specctrl.site.runner import Runner
from specctrl.site.scenario import ScenarioDirective, copy_vectors
from specctrl.site.shown import rule_evidence
from specctrl.site.source import SourceDirective, listing_block, visit_listing


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register everything with Sphinx."""
    app.add_config_value("source_modules", [], "env", list)
    app.add_config_value("source_root", Path(specctrl.rules.__file__).parent, "")
    app.add_config_value("prompt_packages", ["specctrl"], "", list)
    app.add_config_value("rule_evidence", False, "env", bool)
    app.add_config_value("spec_commit", "", "html", str)
    app.add_config_value("spec_counts", {}, "html", dict)
    app.add_config_value("page_runner", False, "html", bool)

    streams.install()
    for part in ("policies", "c_reference", "upstream", "commands", "downloads"):
        app.setup_extension(f"specctrl.site.{part}")
    app.add_domain(SpecDomain)
    app.add_role("rule", RuleRole())
    app.add_directive("rule", RuleDirective)
    app.add_directive("rules", RulesDirective)
    app.add_directive("coverage", CoverageDirective)
    app.add_directive("source", SourceDirective)
    app.add_directive("layout", LayoutDirective)
    app.add_directive("scenario", ScenarioDirective)
    app.add_directive("posting", PostingDirective)

    children_only = (visit_children_only, visit_children_only)
    app.add_node(scroller, html=(visit_scroller, depart_scroller), text=children_only, latex=children_only)
    app.add_node(listing_block, html=(visit_listing, None))
    app.add_node(rules_table)
    app.add_node(rule_evidence)
    app.add_node(disclosure, html=(visit_disclosure, depart_disclosure), text=children_only, latex=children_only)
    app.add_post_transform(Crosslinks)

    runner = Runner()
    app.connect("config-inited", banner.set_commit)
    app.connect("config-inited", banner.count_evidence)
    app.connect("builder-inited", execution.create_cache)
    app.connect("builder-inited", prompts.check)
    app.connect("builder-inited", evidence.bring)
    app.connect("doctree-read", evidence.name_cells)
    app.connect("builder-inited", kit.check)
    app.connect("builder-inited", runner.gather)
    app.connect("doctree-read", quiet.drop_noise)
    app.connect("doctree-read", permalinks.add_permalinks)
    app.connect("env-updated", stale_pages)
    app.connect("missing-reference", leave_type_variable)
    app.connect("env-check-consistency", execution.check)
    kept = searching.Kept()
    app.connect("builder-inited", kept.read)
    app.connect("html-collect-pages", kept.give_back)
    app.connect("html-page-context", banner.add_banner)
    app.connect("html-page-context", banner.add_facts)
    app.connect("html-page-context", policy.add_policy)
    app.connect("html-page-context", html.mend, priority=900)  # after the theme's own
    app.connect("html-page-context", slim.slim, priority=900)
    app.connect("html-page-context", bits.add_assets)
    app.connect("html-page-context", runner.add_script)
    app.connect("build-finished", runner.copy)
    app.connect("build-finished", write_json)
    app.connect("build-finished", copy_vectors)
    app.connect("build-finished", bits.write_data)
    app.connect("build-finished", index.write)
    app.connect("build-finished", slim.slim_styles, priority=900)  # the theme writes it at the end, too
    return {"version": "1", "env_version": 2, "parallel_read_safe": True, "parallel_write_safe": True}
