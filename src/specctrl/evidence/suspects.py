"""Which rules a failing implementation may have got wrong: those whose code, changed, does what it did.

Each mutant of the rule code that ran is planted alone.  One with which the scenario goes as it went, the wrong step
included, points at the function that it changes, and at the rules that bind that function.
"""

from collections import Counter
from functools import partial
from types import CodeType

from specctrl.evidence.collect import bound_code
from specctrl.evidence.planted import functions, on_mutant
from specctrl.evidence.run_pages import calls
from specctrl.model.outcomes import Misuse
from specctrl.rules import load_rules
from specctrl.scenario import Result, differences
from specctrl.scenario.format import OUTCOMES
from specctrl.scenario.machine import Machine
from specctrl.scenario.running import normalised

MOST = 3
"""So many rules are named at most."""

SECONDS = 0.3
"""So much processor time may a scenario take with a mutant; there are some without end."""


def suspects(result: Result) -> tuple[str, ...]:
    """The rules that a failure points at, those with the most reasons first; none if no mutant does what was seen.

    Those that the scenario names come first.  Nothing is said of a scenario that the emulator fails too.
    """
    if result.step is None or result.observed is None:
        return ()
    with calls() as called:
        wrong = wrong_at(result)
    if wrong != []:
        return ()
    reasons: Counter[CodeType] = Counter()
    for key, function in functions().items():
        if function.__code__ in called and on_mutant(key, partial(goes_wrong_alike, result), SECONDS):
            reasons[function.__code__] += 1
    bound = {id: code for id, rule in load_rules().items() if (code := bound_code(rule))}
    shares = {id: sum(reasons[each] for each in code) / len(code) for id, code in bound.items()}
    found = [id for id, share in shares.items() if share]
    return tuple(sorted(found, key=lambda id: (id not in result.scenario.rules, -shares[id], id))[:MOST])


def wrong_at(result: Result) -> list[str] | None:
    """What the emulator shows wrong at the step that failed; None if it does not get there, or cannot perform it."""
    assert result.step is not None
    failing, observed = result.scenario.steps[result.step], result.observed or {}
    hidden = {key for key in failing.expect if key not in observed and key not in OUTCOMES}
    machine = Machine(result.scenario.host, assume=result.scenario.assume, record=False)
    wrong: list[str] = []
    for step in result.scenario.steps[:result.step + 1]:
        if wrong:
            return None
        try:
            wrong = differences(step, normalised(machine.perform(step.call())), hidden if step is failing else ())
        except Misuse:
            if not step.expect.get("misuse"):
                return None
    return wrong


def goes_wrong_alike(result: Result) -> bool:
    """Whether the emulator, as it is now, goes wrong at the same step in the same way."""
    return result.why != "" and "; ".join(wrong_at(result) or []) == result.why
