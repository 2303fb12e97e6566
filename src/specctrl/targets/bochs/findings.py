"""What a comparison of one model found, and how it is told."""

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(slots=True)
class Tally:
    """What became of the cases of one rule, or of the random sequences."""

    same: int = 0
    declared: int = 0
    """Differences that the declared deviations explain."""
    undeclared: list[str] = field(default_factory=list)
    """Every other difference, told."""

    @property
    def all(self) -> int:
        """How many there were.

        >>> Tally(same=2, declared=1, undeclared=["after wrmsr 0x1: ..."]).all
        4
        """
        return self.same + self.declared + len(self.undeclared)


@dataclass(slots=True)
class Findings:
    """What became of every rule's cases and of the random sequences, on one model."""

    model: str
    rules: dict[str, Tally]
    sequences: Tally
    steps: int
    """Steps of all sequences together."""
    seen: dict[str, int]
    """For each deviation that is declared for the model: how many cases and sequences need it."""

    @property
    def unseen(self) -> list[str]:
        """The deviations that are declared and were not seen."""
        return [name for name, times in self.seen.items() if not times]

    @property
    def undeclared(self) -> list[str]:
        """Every difference that no declared deviation explains, with its rule."""
        tallies = {**self.rules, "random sequences": self.sequences}
        return [f"{name}: {told}" for name, tally in tallies.items() for told in tally.undeclared]

    @property
    def passed(self) -> bool:
        """Whether everything is as expected, declared deviations included."""
        return not self.undeclared and not self.unseen

    def as_json(self) -> dict[str, Any]:
        """As one JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "Findings":
        """The reverse of :meth:`as_json`.

        >>> found = Findings("arrow_lake", {"processor.entry.no-load": Tally(2)}, Tally(1), 100, {"shadow-stays": 1})
        >>> Findings.from_json(found.as_json()) == found
        True
        """
        rules = {rule: Tally(**tally) for rule, tally in document["rules"].items()}
        return cls(**{**document, "rules": rules, "sequences": Tally(**document["sequences"])})

    def as_text(self) -> str:
        """As a table, with the first differences of each rule."""
        lines = [f"  {'':34} {'cases':>6} {'same':>6} {'declared':>9} {'undeclared':>11}"]
        for name, tally in {**self.rules, "random sequences": self.sequences}.items():
            counts = f"{tally.all:6} {tally.same:6} {tally.declared:9} {len(tally.undeclared):11}"
            lines.append(f"  {name:34} {counts}")
            lines += [f"    {told}" for told in tally.undeclared[:3]]
        lines += [f"  declared deviation {name}: seen in {times}" for name, times in self.seen.items() if times]
        lines += [f"  declared deviation {name}: NOT SEEN" for name in self.unseen]
        return "\n".join(lines)
