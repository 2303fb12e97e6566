"""Which claims carry a rule, and which theorems speak of a function: each claim names its rules itself."""

from functools import cache

from specctrl.evidence.collect import bound_code
from specctrl.evidence.planted import functions
from specctrl.proof.claims import CLAIMS
from specctrl.proof.prove import manifest
from specctrl.proof.theorems import THEOREMS
from specctrl.rules import load_rules


def claims_of(rule: str) -> list[str]:
    """The claims that carry a rule.

    >>> claims_of("migration.any-order")
    ['restoring_commutes']
    """
    return [name for name, claim in CLAIMS.items() if rule in claim.rules]


@cache
def theorems_of() -> dict[str, list[str]]:
    """For each mutant's key the theorems that name a rule which binds the changed function, the quickest first.

    >>> theorems_of()["kvm.entry:VcpuEntry.enter_guest:delete:1"]
    ['entry_loads_the_saved_value']
    """
    paths = manifest()["claims"]
    quickest = sorted(THEOREMS, key=lambda name: paths[name]["paths"])
    bound = {id: bound_code(rule) for id, rule in load_rules().items()}
    code_of = {name: set().union(*(bound[id] for id in THEOREMS[name].rules)) for name in quickest}
    found = {key: [name for name in quickest if function.__code__ in code_of[name]]
             for key, function in functions().items()}
    return {key: names for key, names in found.items() if names}
