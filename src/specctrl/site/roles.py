"""The role ``rule``: a reference to a rule by its id."""

from docutils import nodes
from docutils.nodes import Node, system_message
from sphinx.roles import XRefRole

from specctrl.site.domain import spec_domain


class RuleRole(XRefRole):
    """Refers to a rule without naming its domain."""

    def __init__(self) -> None:
        super().__init__(warn_dangling=True, innernodeclass=nodes.literal)

    def run(self) -> tuple[list[Node], list[system_message]]:
        """Make the reference."""
        self.name = "spec:rule"
        made = super().run()
        spec_domain(self.env).add_mention(self.env.docname, self.target)
        return made
