"""Sees to it that pages are executed: one with cells that did not run to the end is no page of this site."""

from pathlib import Path
from typing import Any

from jupyter_cache import get_cache
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

from specctrl.rules import blocks

logger = logging.getLogger(__name__)


def create_cache(app: Sphinx) -> None:
    """Create the notebook cache before the pages are read in parallel: two readers cannot both create it."""
    if app.config.nb_execution_mode == "cache" and app.config.nb_execution_cache_path:
        cache = get_cache(app.config.nb_execution_cache_path)
        cache.get_cache_limit()  # writes its default at the first call
        cache.db.dispose()  # the readers are forked, and must not share a connection


def check(app: Sphinx, env: BuildEnvironment) -> None:
    """Warn of each page whose cells have no recorded execution."""
    metadata: dict[str, dict[str, Any]] = getattr(env, "nb_metadata", {})
    for docname in sorted(env.found_docs):
        path = Path(env.doc2path(docname))
        if path.suffix != ".md":
            continue
        cells = [block for block in blocks(path.read_text("utf-8")) if block.kind == "cell"]
        if not cells:
            continue
        run = metadata.get(docname, {}).get("exec_data")
        if not run or not run["succeeded"]:
            why = "were not run" if not run else f"stopped at {run['error'] or 'an error'}"
            logger.warning(
                "%d code cells of this page %s",
                len(cells),
                why,
                location=docname,
                type="spec",
                subtype="executed",
            )
