"""Random histories over every operation, and the shortest pieces of them that notice a change of the rule code."""

from collections.abc import Callable, Iterator, Sequence
from random import Random

from specctrl.exploration.events import HostSpec
from specctrl.exploration.histories import spelt_host
from specctrl.exploration.search import HOSTS
from specctrl.model.outcomes import Misuse
from specctrl.model.registers import CAP_NUMBERS, MSR_NUMBERS
from specctrl.scenario import Invalid, Scenario, load
from specctrl.scenario.format import SCHEMA
from specctrl.scenario.kinds import Json
from specctrl.scenario.machine import Machine
from specctrl.vectors.expectations import dress

Step = dict[str, Json]
History = tuple[Json, int, tuple[Step, ...]]
"""A host, how many steps prepare the history, and all of its steps, as a file writes them."""

EVENTS, DRAWN = 14, 60
"""Events of a random history, and how many are drawn at most to find so many that can happen."""

LEGACY: dict[str, HostSpec] = {
    "skylake-server without SPEC_CTRL": {"part": "skylake-server", "without": ["SPEC_CTRL", "STIBP", "SSBD"]},
    "sapphire-rapids without RRSBA_CTRL": {"part": "sapphire-rapids", "without": ["RRSBA_CTRL"]},
}
WHERE: tuple[Json, ...] = tuple(spelt_host(host) for host in (*HOSTS.values(), *LEGACY.values()))
VALUES = ("0x0", "0x1", "0x4", "0x5", "0x40", "0x400", "0x401", "0x800", "0x80000000")
REPORTS = ("0x0", "0x1", "0x2", "0x3", "0x4")
PAIRS = (["0x0", "0x0"], ["0x1", "0x0"], ["0x400", "0x400"], ["0x401", "0x400"], ["0x401", "0x1"], ["0x401", "0x401"],
         ["0x400", "0x0"], ["0x80000000", "0x0"])
VIEW, REPORT = "IA32_SPEC_CTRL", "MSR_VIRTUAL_MITIGATION_CTRL"
MSRS = (VIEW, VIEW, VIEW, REPORT, REPORT, *MSR_NUMBERS)
CAP, USER_SPACE_MSR, _ = CAP_NUMBERS


def random_history(seed: int) -> History:
    """A history that can happen: each next step is drawn until one is possible."""
    random = Random(f"specctrl history {seed}")
    host = random.choice(WHERE)
    setup: list[Step] = []
    if random.random() < 0.4:
        setup.append({"op": "enable_cap", "cap": CAP, "args": random.choice(PAIRS)})
    if random.random() < 0.3:
        setup.append({"op": "enable_cap", "cap": USER_SPACE_MSR, "args": [random.choice(["0x1", "0x2", "0x4", "0x7"])]})
    vcpus = 2 if random.random() < 0.15 else 1
    for number in range(vcpus):
        features = random.choice([None, ["SPEC_CTRL", "ARCH_CAPABILITIES"], ["ARCH_CAPABILITIES"], ["SPEC_CTRL"]])
        setup.append({"op": "create_vcpu", "vcpu": number, **({} if features is None else {"features": features})})
        if random.random() < 0.7:
            setup.append({"op": "set_msrs", "vcpu": number, "msrs": [
                ["MSR_VIRTUAL_ENUMERATION", "0x1"], ["MSR_VIRTUAL_MITIGATION_ENUM", random.choice(["0x1", "0x3"])]]})
    machine = Machine(parsed(host, setup).host, record=False)
    for step in parsed(host, setup).steps:
        machine.perform(step.call())
    makers, *weights = zip(*MAKERS, strict=True)
    events: list[Step] = []
    for make in random.choices(makers, weights[seed % 2], k=DRAWN):
        step = make(random)
        if vcpus == 2 and step["op"] not in ("migrate", "set_msr_filter") and random.random() < 0.5:
            step["vcpu"] = 1
        try:
            seen = machine.perform(parsed(host, [*setup, *events, step]).steps[-1].call())
        except (Misuse, Invalid):
            continue
        events.append(step)
        if "abort" in seen or len(events) == EVENTS:
            break
    return host, len(setup), (*setup, *events)


def parsed(host: Json, steps: Sequence[Step]) -> Scenario:
    """Steps as a scenario without expectations."""
    return load({"schema": SCHEMA, "id": "history", "host": host, "steps": list(steps)})


def _value(random: Random, msr: str) -> str:
    return random.choice(REPORTS if msr != VIEW else VALUES)


def _pairs(random: Random) -> list[Json]:
    chosen = [random.choice(MSRS) for _ in range(random.choice([0, 0, 1, 1, 2]))]
    return [[msr, _value(random, msr)] for msr in chosen]


def _intercept(random: Random) -> Step:
    kinds: list[Step] = [
        {}, {}, {}, {"intercept": "all"}, {"intercept": [VIEW]},
        {"intercept": [{"msr": VIEW, "write": True}]}, {"intercept": [{"msr": VIEW, "read": True}]},
        {"intercept": [random.choice(MSRS)]},
    ]
    return random.choice(kinds)


def _lists(random: Random, **names: str) -> Step:
    """MSR lists of an entry or exit; each is absent half of the time."""
    lists: Step = {}
    for name, what in names.items():
        if random.random() < 0.5:
            lists[name] = _pairs(random) if what == "pairs" else [random.choice(MSRS)]
    return lists


def _rdmsr(random: Random) -> Step:
    return {"op": "rdmsr", "msr": random.choice(MSRS)}


def _wrmsr(random: Random) -> Step:
    msr = random.choice(MSRS)
    return {"op": "wrmsr", "msr": msr, "value": _value(random, msr)}


def _set_msrs(random: Random) -> Step:
    return {"op": "set_msrs", "msrs": _pairs(random) or [[VIEW, random.choice(VALUES)]]}


def _get_msrs(random: Random) -> Step:
    return {"op": "get_msrs", "msrs": [random.choice(MSRS), VIEW]}


def _enable_cap(random: Random) -> Step:
    return {"op": "enable_cap", "fd": "vcpu", "cap": CAP, "args": random.choice(PAIRS)}


def _nested_enter(random: Random) -> Step:
    lists = _lists(random, msr_load="pairs", exit_msr_store="msrs", exit_msr_load="pairs")
    return {"op": "nested_enter", **lists, **_intercept(random)}


def _nested_exit(random: Random) -> Step:
    return {"op": "nested_exit", **_lists(random, msr_store="msrs", msr_load="pairs")}


def _set_nested_state(random: Random) -> Step:
    pending: list[Step] = [{}, {}, {"run_pending": True}, {"run_pending": False}]
    return {"op": "set_nested_state", "state": random.choice("ab"), **random.choice(pending)}


def _set_msr_filter(random: Random) -> Step:
    count = random.choice([1, 2])
    base, access = random.choice([VIEW, REPORT, "MSR_VIRTUAL_ENUMERATION"]), random.choice(["read", "write", "both"])
    ranges = [{
        "base": base, "count": count, "allow": [random.random() < 0.3 for _ in range(count)],
        **({"read": True} if access != "write" else {}), **({"write": True} if access != "read" else {}),
    }]
    return {"op": "set_msr_filter", "ranges": ranges if random.random() < 0.8 else []}


def _reply(random: Random) -> Step:
    kinds: list[Step] = [{"value": random.choice(VALUES)}, {"error": False}, {"error": True}]
    return {"op": "reply_msr_exit", **random.choice(kinds)}


def _migrate(random: Random) -> Step:
    carried: list[Step] = [{}, {}, {}, {"msrs": [VIEW]}, {"msrs": [REPORT, VIEW]}, {"force": "drop"}]
    order = random.choice(["nested-first", "msrs-first"])
    return {"op": "migrate", "to": random.choice(WHERE), "order": order, **random.choice(carried)}


def _plain(op: str) -> Callable[[Random], Step]:
    return lambda _: {"op": op}


MAKERS: tuple[tuple[Callable[[Random], Step], int, int], ...] = (
    (_rdmsr, 12, 12), (_wrmsr, 16, 16), (_set_msrs, 8, 6), (_get_msrs, 4, 3), (_enable_cap, 5, 4),
    (_nested_enter, 12, 16), (_nested_exit, 6, 10), (_set_nested_state, 6, 10), (_set_msr_filter, 4, 3),
    (_reply, 10, 30), (_migrate, 8, 4),
    (lambda random: {"op": "get_nested_state", "state": random.choice("ab")}, 7, 6),
    (_plain("exit"), 5, 4), (_plain("init"), 4, 3), (_plain("smi"), 5, 4), (_plain("rsm"), 6, 10),
    (_plain("vmxoff"), 4, 4), (_plain("reset_vcpu"), 3, 2),
)
"""How each kind of step is made, and how often: in histories with an even seed, and in those with an odd one."""


def scenario_of(history: History, looks: Sequence[str]) -> Scenario | None:
    """The scenario of a history; None if it cannot happen."""
    try:
        return load({"schema": SCHEMA, "id": "history", **dress(*history, looks)})
    except (Misuse, Invalid):
        return None


def shorter(history: History) -> Iterator[History]:
    """The history without one of its steps, from the last to the first."""
    host, setup, steps = history
    for index in reversed(range(len(steps))):
        yield host, setup - (index < setup), steps[:index] + steps[index + 1:]


def minimised(history: History, keeps: Callable[[History], bool]) -> History:
    """A part of the history that keeps what it is wanted for, and of which no step can be left out."""
    for part in shorter(history):
        if keeps(part):
            return minimised(part, keeps)
    return history
