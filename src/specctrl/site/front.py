"""The figures of the front page, counted from what is published."""

import json
from dataclasses import dataclass
from pathlib import Path

import specctrl
from specctrl.rules import data_folder, load_rules
from specctrl.scenario import read


@dataclass(frozen=True, slots=True)
class Figures:
    """What there is of each kind of evidence."""

    rules: int
    repaired: int
    scenarios: int
    claims: int
    states: int
    planted: int
    noticed: int

    def __repr__(self) -> str:
        return "; ".join(f"{name}: {what} {number}" for name, number, what in self.parts())

    def parts(self) -> tuple[tuple[str, int, str], ...]:
        """Each figure: the page that has it, the number, and what it counts."""
        return (
            ("rules", self.rules, f"rules, {self.repaired} of them repair the posted code"),
            ("scenarios", self.scenarios, "scenarios to run on your code (profile spec)"),
            ("claims", self.claims, "claims proven for all 64-bit values and histories"),
            ("explored", self.states, "states explored, no property violated"),
            ("mutants", self.noticed, f"of {self.planted:,} planted errors noticed; the rest are listed"),
        )

    def _repr_html_(self) -> str:
        items = "".join(f"<li><b>{number:,}</b> {what}</li>" for _, number, what in self.parts())
        return f'<ul class="spec-figures">{items}</ul>'


def figures() -> Figures:
    """Count them.

    >>> counted = figures()
    >>> counted.noticed <= counted.planted and counted.repaired <= counted.rules
    True
    """
    package = Path(specctrl.__file__).parent
    rules = load_rules()
    proofs = json.loads((package / "proof" / "proofs.json").read_text("utf-8"))
    explored = json.loads((package / "exploration" / "explored.json").read_text("utf-8"))[0]
    if explored["variant"] != "spec" or explored["found"]["violations"]:
        raise ValueError("explored.json does not begin with an exploration of the specification without a violation")
    mutants = json.loads((package / "evidence" / "mutants.json").read_text("utf-8"))["mutants"]
    return Figures(
        rules=len(rules),
        repaired=sum(rule.status == "repaired" for rule in rules.values()),
        scenarios=sum(one.profile == "spec" for one in read([data_folder("vectors")])),
        claims=len(proofs["claims"]),
        states=explored["found"]["states"],
        planted=len(mutants),
        noticed=sum(any(noticed.values()) for noticed in mutants.values()),
    )
