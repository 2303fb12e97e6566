"""Guests that roam: every history of a booted guest that moves among some hosts, under one policy.

The guest boots, and then anything may happen to it in any order: moves, writes of IA32_SPEC_CTRL, SMM, nested guests,
CPUs that are brought up again, S3.  The search is breadth first, so what it finds is a shortest history.
"""

import pickle
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from specctrl.exploration.policies import HOSTS, Run
from specctrl.exploration.snapshot import State, forget, take
from specctrl.model.exposure import judge
from specctrl.model.guest import KernelCpu
from specctrl.model.parts import Host, resolve_host
from specctrl.model.registers import IA32_SPEC_CTRL, IBRS, STIBP
from specctrl.model.vmm.policies import GUESTS, POLICIES, Guest, Policy

Event = tuple[str, Callable[[Run], object]]
"""What may happen, and how it is performed; it is skipped where it cannot happen."""


def at_home(run: Run) -> bool:
    """Whether L1 runs, outside SMM and VMX operation."""
    vcpu = run.machine.vcpus[0]
    return vcpu.level == 1 and not vcpu.smm and not vcpu.vmx_operation


def bring_up_again(run: Run) -> None:
    """INIT and SIPI, and the kernel brings the CPU up as a secondary one."""
    if at_home(run):
        run.do("init")
        run.boot(KernelCpu.SECONDARY)


def suspend_and_resume(run: Run) -> None:
    """S3: userspace resets the platform, and the kernel resumes on the boot CPU."""
    if at_home(run):
        run.reset()
        run.boot(KernelCpu.RESUME)


def write(value: int) -> Callable[[Run], object]:
    """The guest writes IA32_SPEC_CTRL."""
    return lambda run: run.do("wrmsr", msr=IA32_SPEC_CTRL, value=value)


def smm(run: Run) -> None:
    """An SMI, in which SMM writes 0; then RSM."""
    if not run.machine.vcpus[0].smm:
        run.do("smi")
        run.do("wrmsr", msr=IA32_SPEC_CTRL, value=0)
        run.do("rsm")


def to_l2(run: Run) -> None:
    """L1 enters its guest."""
    if run.machine.vcpus[0].level == 1:
        run.do("nested_enter")


def to_l1(run: Run) -> None:
    """L2 exits, and L1 leaves VMX operation."""
    if run.machine.vcpus[0].level == 2:
        run.do("nested_exit")
        run.do("vmxoff")


def move(name: str) -> Callable[[Run], object]:
    """The VM moves."""
    return lambda run: run.move(name)


S3 = "S3"
EVENTS: tuple[Event, ...] = (
    ("the host takes an exit", lambda run: run.do("exit")),
    ("the guest writes IBRS", write(IBRS)),
    ("the guest writes IBRS and STIBP", write(IBRS | STIBP)),
    ("SMM writes 0", smm),
    ("L1 enters L2", to_l2),
    ("L2 exits to L1", to_l1),
    ("a CPU comes up again", bring_up_again),
    (S3, suspend_and_resume),
)
"""What may happen on any host; moves come on top."""


@dataclass(slots=True)
class Roamed:
    """What a search found: how much it saw, and for each attack where nothing stopped it, with a shortest history."""

    states: int = 0
    transitions: int = 0
    exposed: dict[str, dict[str, tuple[str, ...]]] = field(default_factory=dict)


def host_name(host: Host) -> str:
    """The name that :data:`specctrl.exploration.policies.HOSTS` has for this host."""
    return next(name for name, spec in HOSTS.items() if resolve_host(spec) == host)


def state_of(run: Run) -> tuple[object, ...]:
    """Everything that what follows depends on."""
    vcpu = run.machine.vcpus[0]
    forget(vcpu)
    state: State = take(vcpu)
    report = run.keeper.contract.report if run.keeper is not None else 0
    return host_name(run.machine.host), state, report, run.vcpu_pair, run.machine.guests.get(0)


def roam(
    policy: str | Policy, guest: str | Guest, hosts: Sequence[str] = tuple(HOSTS), without: Sequence[str] = ()
) -> Roamed:
    """Explore all histories of this guest among these hosts; ``without`` leaves events out, by name.

    >>> found = roam("P2", "linux-current", ["ice-lake-server", "sapphire-rapids"], without=[S3])
    >>> "BHI" in found.exposed, found.exposed["BTI"]["ice-lake-server"]
    (False, ('boot on ice-lake-server', 'SMM writes 0'))
    >>> roam("today", "linux-current", ["ice-lake-server", "sapphire-rapids"]).exposed["BHI"]["sapphire-rapids"]
    ('boot on sapphire-rapids',)
    """
    policy = POLICIES[policy] if isinstance(policy, str) else policy
    guest = GUESTS[guest] if isinstance(guest, str) else guest
    pool = [resolve_host(HOSTS[name]) for name in hosts]
    events = [event for event in EVENTS if event[0] not in without]
    events += [(f"move to {name}", move(name)) for name in hosts]

    found = Roamed()
    seen: set[tuple[object, ...]] = set()
    waiting: deque[tuple[bytes, tuple[str, ...]]] = deque()

    def arrive(run: Run, history: tuple[str, ...]) -> None:
        key = state_of(run)
        if key in seen:
            return
        seen.add(key)
        run.steps.clear()
        waiting.append((pickle.dumps(run), history))
        software = run.machine.guests[0]
        seen_now = run.machine.observe()
        verdict = judge(run.machine.host, int(seen_now["effective"]), software, view=int(seen_now["guest_view"]))
        for attack in verdict.exposed:
            found.exposed.setdefault(attack, {}).setdefault(host_name(run.machine.host), history)

    for name in hosts:
        run = Run(policy, guest, name, pool)
        run.create()
        run.boot()
        arrive(run, (f"boot on {name}",))
    while waiting:
        before, history = waiting.popleft()
        for name, perform in events:
            run = pickle.loads(before)  # a copy, faster than copy.deepcopy
            perform(run)
            found.transitions += 1
            arrive(run, (*history, name))
    found.states = len(seen)
    return found
