"""The Sphinx domain ``spec``: every rule and every source listing of the site, and the links between them."""

from collections.abc import Iterable, Iterator, Set
from typing import Any, NamedTuple, cast

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.builders import Builder
from sphinx.domains import Domain, ObjType
from sphinx.environment import BuildEnvironment
from sphinx.roles import XRefRole
from sphinx.util import logging
from sphinx.util.nodes import make_refnode

from specctrl.model.registers import REGISTERS
from specctrl.rules import Rule
from specctrl.site.definitions import unshown

logger = logging.getLogger(__name__)


class Stated(NamedTuple):
    """A rule, where it is stated, and the names under which the source defines its code."""

    rule: Rule
    docname: str
    code: tuple[str, ...]

    @property
    def anchor(self) -> str:
        """The permalink's fragment."""
        return f"rule-{self.rule.id}"


class Shown(NamedTuple):
    """A definition that a page shows; ``whole`` is false when only the head of a class is shown."""

    name: str
    docname: str
    whole: bool

    @property
    def anchor(self) -> str:
        """The listing's fragment."""
        return f"source-{self.name}"


class Laid(NamedTuple):
    """A register, and where its layout stands."""

    name: str
    docname: str

    @property
    def anchor(self) -> str:
        """The layout's fragment."""
        return f"register-{self.name}"

    def field_anchor(self, field: str) -> str:
        """Return the fragment of a field's row."""
        return f"field-{self.name}-{field}"


class SpecDomain(Domain):
    """Rules (``{rule}`` refers to one) and source listings."""

    name = "spec"
    label = "Specification"
    object_types = {"rule": ObjType("rule", "rule"), "register": ObjType("register"), "field": ObjType("field")}  # noqa: RUF012 - Sphinx declares it so
    roles = {"rule": XRefRole(warn_dangling=True)}  # noqa: RUF012
    dangling_warnings = {  # noqa: RUF012
        "rule": "no rule has the id %(target)r",
        "code": "neither a listing nor an API entry shows %(target)r",
        "api": "%(target)r is public, and has no API entry",
    }
    # each: the page's name -> what it has, in order
    initial_data = {"rules": {}, "sources": {}, "layouts": {}, "mentions": {}}  # noqa: RUF012
    data_version = 2

    @property
    def _rules(self) -> dict[str, list[Stated]]:
        return cast("dict[str, list[Stated]]", self.data["rules"])

    @property
    def _sources(self) -> dict[str, list[Shown]]:
        return cast("dict[str, list[Shown]]", self.data["sources"])

    @property
    def _layouts(self) -> dict[str, list[Laid]]:
        return cast("dict[str, list[Laid]]", self.data["layouts"])

    @property
    def _mentions(self) -> dict[str, list[str]]:
        return cast("dict[str, list[str]]", self.data["mentions"])

    def add_mention(self, docname: str, rule: str) -> None:
        """Note that the text of a page refers to a rule."""
        known = self._mentions.setdefault(docname, [])
        if rule not in known:
            known.append(rule)

    def mentioned(self) -> dict[str, list[str]]:
        """Return for each rule the pages whose text refers to it, apart from its own."""
        own = {id: stated.docname for id, stated in self.rules().items()}
        found: dict[str, list[str]] = {}
        for docname in sorted(self._mentions):
            for id in self._mentions[docname]:
                if own.get(id) != docname:
                    found.setdefault(id, []).append(docname)
        return found

    def add_rule(self, stated: Stated) -> None:
        """Note a rule of a page."""
        self._rules.setdefault(stated.docname, []).append(stated)

    def add_source(self, shown: Shown) -> None:
        """Note a listing of a page."""
        self._sources.setdefault(shown.docname, []).append(shown)

    def add_layout(self, laid: Laid) -> None:
        """Note a register's layout on a page."""
        self._layouts.setdefault(laid.docname, []).append(laid)

    def clear_doc(self, docname: str) -> None:
        """Forget a page that is about to be read again."""
        self._layouts.pop(docname, None)
        self._rules.pop(docname, None)
        self._sources.pop(docname, None)
        self._mentions.pop(docname, None)

    def merge_domaindata(self, docnames: Set[str], otherdata: dict[str, Any]) -> None:
        """Take over what a parallel reader found."""
        for key in self.initial_data:
            for docname in docnames & otherdata[key].keys():
                self.data[key][docname] = otherdata[key][docname]

    def rules(self) -> dict[str, Stated]:
        """Return every rule by id, sorted; of two with one id, the first."""
        found: dict[str, Stated] = {}
        for docname in sorted(self._rules):
            for stated in self._rules[docname]:
                found.setdefault(stated.rule.id, stated)
        return dict(sorted(found.items()))

    def layouts(self) -> dict[str, Laid]:
        """Return where each register's layout stands, by its name; of two places, the first."""
        found: dict[str, Laid] = {}
        for docname in sorted(self._layouts):
            for laid in self._layouts[docname]:
                found.setdefault(laid.name, laid)
        return dict(sorted(found.items()))

    def shown(self) -> dict[str, list[Shown]]:
        """Return the listings of each name, a whole one first."""
        found: dict[str, list[Shown]] = {}
        for docname in sorted(self._sources):
            for shown in self._sources[docname]:
                found.setdefault(shown.name, []).append(shown)
        return {name: sorted(listings, key=lambda shown: not shown.whole) for name, listings in found.items()}

    def listings_of(self, name: str) -> list[Shown]:
        """Return the listings that show ``name``: its own, else its class's."""
        shown = self.shown()
        return shown.get(name) or [one for one in shown.get(name.rpartition(".")[0], []) if one.whole]

    def get_objects(self) -> Iterator[tuple[str, str, str, str, str, int]]:
        """Yield rules, registers and fields for the search index, before the pages that only name them."""
        for id, stated in self.rules().items():
            yield id, id, "rule", stated.docname, stated.anchor, 0
        for name, laid in self.layouts().items():
            yield name, name, "register", laid.docname, laid.anchor, 0
            for number in spellings(REGISTERS[name].number):
                yield number, number, "register", laid.docname, laid.anchor, 1
            for field in REGISTERS[name]:
                dotted = f"{name}.{field.name}"
                yield dotted, dotted, "field", laid.docname, laid.field_anchor(field.name), 1

    def resolve_xref(
        self,
        env: BuildEnvironment,
        fromdocname: str,
        builder: Builder,
        typ: str,
        target: str,
        node: pending_xref,
        contnode: nodes.Element,
    ) -> nodes.reference | None:
        """Link a rule to its statement, code to its listing or else to its API entry."""
        if typ == "code":
            for shown in sorted(self.listings_of(target), key=lambda shown: shown.docname != fromdocname):
                return make_refnode(builder, fromdocname, shown.docname, shown.anchor, contnode, target)
        if typ in ("code", "api"):
            python = env.domains.python_domain
            return python.resolve_xref(env, fromdocname, builder, "obj", target, node, contnode)
        if typ == "listing":
            page, _, anchor = target.partition(" ")
            return make_refnode(builder, fromdocname, page, anchor, contnode)
        stated = self.rules().get(target)
        if stated is None:
            return None
        return make_refnode(builder, fromdocname, stated.docname, stated.anchor, contnode)

    def resolve_any_xref(
        self,
        env: BuildEnvironment,
        fromdocname: str,
        builder: Builder,
        target: str,
        node: pending_xref,
        contnode: nodes.Element,
    ) -> list[tuple[str, nodes.reference]]:
        """Resolve what may be a rule."""
        found = self.resolve_xref(env, fromdocname, builder, "rule", target, node, contnode)
        return [("spec:rule", found)] if found is not None else []

    def check_consistency(self) -> None:
        """Warn of an id stated twice, and of public code that no page shows."""
        first: dict[str, Stated] = {}
        for docname in sorted(self._rules):
            for stated in self._rules[docname]:
                earlier = first.setdefault(stated.rule.id, stated)
                if earlier is not stated:
                    self._warn(
                        f"rule {stated.rule.id!r} was stated before, at {earlier.rule.page}:{earlier.rule.line}",
                        (docname, stated.rule.line),
                    )
        shown = {name: listings[0].whole for name, listings in self.shown().items()}
        for module in self.env.config.source_modules:
            try:
                missing = unshown(module, shown)
            except LookupError as error:
                self._warn(f"source_modules: {error}", None)
                continue
            for name in missing:
                self._warn(f"no page shows {name}: its chapter needs a source directive", None)

    def _warn(self, message: str, location: tuple[str, int] | None) -> None:
        logger.warning("%s", message, location=location, type="spec", subtype="consistency")


def spellings(number: int) -> tuple[str, str]:
    """A number as the kernel writes it, and as the processor's manual does.

    >>> spellings(0x204a)
    ('0x204a', '204AH')
    """
    return f"{number:#x}", f"{number:X}H"


def spec_domain(env: BuildEnvironment) -> SpecDomain:
    """Return this build's domain."""
    return cast(SpecDomain, env.get_domain("spec"))


def rules_by_code(domain: SpecDomain, names: Iterable[str]) -> list[str]:
    """List the ids of the rules that bind one of these names."""
    wanted = set(names)
    return [id for id, stated in domain.rules().items() if wanted & set(stated.code)]
