"""Warns when the C reference is stale: a rule's text or a register table has changed since."""

from sphinx.application import Sphinx
from sphinx.util import logging

from specctrl.rules import RuleError, load_rules
from specctrl.targets import c_reference as reference

LOG = logging.getLogger(__name__)


def check(app: Sphinx) -> None:
    """One warning for each complaint, which fails the build; nothing for a site of other pages."""
    folder = app.srcdir / reference.FOLDER
    if not (folder / reference.HEADER).is_file():
        return
    try:
        complaints = reference.complaints(folder, load_rules(app.srcdir / "spec"))
    except RuleError:
        return  # the pages themselves say so
    except ValueError as error:
        complaints = [str(error)]
    for complaint in complaints:
        LOG.warning(complaint, type="spec", subtype="reference")
