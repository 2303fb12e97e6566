"""The policies compared: each guest, under each policy, booted on one host and moved to another.

Every cell is a run of the emulator, kept step by step, so that it is a scenario too.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from specctrl.model.contract import ReportKeptBy
from specctrl.model.exposure import Overhead, Verdict, judge
from specctrl.model.guest import KernelCpu, boot
from specctrl.model.outcomes import ExitKind, Fault
from specctrl.model.parts import Host, resolve_host
from specctrl.model.vmm.keeper import FILTER_EXITS, VIRTUAL_MSR_FILTER, ReportKeeper, keep_report
from specctrl.model.vmm.policies import GUESTS, POLICIES, Guest, Policy
from specctrl.model.vmm.pool import Advertised, advertise
from specctrl.scenario.machine import Machine
from specctrl.scenario.observation import Observation

HOSTS: dict[str, str | dict[str, Any]] = {
    "cascade-lake": "cascade-lake",
    "ice-lake-server": "ice-lake-server",
    "sapphire-rapids": "sapphire-rapids",
    "sapphire-rapids-no-control": {"part": "sapphire-rapids", "spec_ctrl_shadow": False},
    "sierra-forest": "sierra-forest",
    "diamond-rapids": "diamond-rapids",
}
"""The hosts of the comparison, by name, as the scenario format writes them."""


class Result(Enum):
    """What becomes of one guest on one host; the value is the word that tables show."""

    PROTECTED = "protected"
    PAYS_MORE = "pays more than needed"  # protected, and by something dearer than what would do
    PAYS_TWICE = "pays twice"  # protected, and BHI_DIS_S and a software sequence are both at work
    CANNOT_OPT_OUT = "cannot opt out"  # BHI_DIS_S is in effect although its owner wants no mitigation
    BY_CHOICE = "exposed by choice"  # exposed, as its owner wants it
    EXPOSED = "exposed"
    REFUSED = "refused"  # the move fails; the guest stays where it was


def classify(verdict: Verdict, wants_bhi: bool) -> Result:
    """One word for a verdict; an exposure outweighs a cost.

    >>> from specctrl.model.guest import Software
    >>> classify(judge(resolve_host("sapphire-rapids"), 0x1, Software()), wants_bhi=False)
    <Result.BY_CHOICE: 'exposed by choice'>
    """
    unwanted = verdict.exposed and (wants_bhi or verdict.exposed != ("BHI",))
    if unwanted:
        return Result.EXPOSED
    if Overhead.BHI_DIS_S_OPTED_OUT in verdict.overhead:
        return Result.CANNOT_OPT_OUT
    if verdict.exposed:
        return Result.BY_CHOICE
    twice = Overhead.SEQUENCE_INEFFECTIVE, Overhead.BHI_DIS_S_AND_SEQUENCE
    if any(item in verdict.overhead for item in twice):
        return Result.PAYS_TWICE
    return Result.PAYS_MORE if verdict.overhead else Result.PROTECTED


@dataclass(frozen=True, slots=True)
class Cell:
    """One guest under one policy, booted on ``source`` and moved to ``destination``."""

    policy: str
    guest: str
    source: str
    destination: str
    title: str
    before: Result  # at the source, where the guest booted
    result: Result  # at the destination
    verdict: Verdict  # at the host where the guest runs in the end
    effective: int  # IA32_SPEC_CTRL in effect there
    steps: tuple[dict[str, Any], ...]  # what was done, as a scenario's steps

    @property
    def id(self) -> str:
        """The id of the cell's scenario."""
        return f"policy.{self.policy.lower()}.{self.guest}.{self.source}.to.{self.destination}"

    def scenario(self) -> dict[str, Any]:
        """The cell as a scenario, with what the run showed as its expectation."""
        return {
            "schema": "specctrl/scenario/1",
            "id": self.id,
            "title": self.title,
            "why": f"at the source: {self.before.value}; at the destination: {self.result.value}",
            "host": HOSTS[self.source],
            "steps": list(self.steps),
        }


class Run:
    """One VM with one vCPU under one policy; performs steps, and keeps them with what they showed."""

    def __init__(
        self,
        policy: Policy,
        guest: Guest,
        source: str,
        pool: list[Host],
        assume: Mapping[str, bool] | None = None,
        tell_rrsba: bool = False,
    ) -> None:
        self.policy = policy
        self.guest = guest
        self.pool = pool
        virtual_msrs = policy.kept_by is not ReportKeptBy.NOBODY
        self.shown: Advertised = advertise(pool, virtual_msrs, tell_rrsba)
        self.cpuid = self.shown.cpuid
        self.machine = Machine(HOSTS[source], assume=assume, record=False)
        self.keeper: ReportKeeper | None = None
        if policy.kept_by is ReportKeptBy.USERSPACE:
            self.keeper = keep_report(self.machine.host, self.cpuid, self.shown.mitigation_enum)
        self.vcpu_pair = (0, 0)
        self.steps: list[dict[str, Any]] = []

    def do(self, op: str, **arguments: Any) -> Observation:
        """Perform one step and keep it; its outcome becomes its expectation."""
        seen = self.machine.perform({"op": op, **arguments})
        step: dict[str, Any] = {"op": op, **_written(arguments)}
        if seen:
            step["expect"] = _written(seen)
        self.steps.append(step)
        return seen

    # ---- what userspace does

    def create(self) -> None:
        """The VM, its vCPU, and what the guest is shown."""
        pair = self.policy.pair(self.machine.host, self.cpuid)
        if pair != (0, 0):
            self.do("enable_cap", cap="KVM_CAP_FORCE_SPEC_CTRL", args=list(pair))
            self.vcpu_pair = pair
        if self.keeper is not None:
            self.do("enable_cap", cap="KVM_CAP_X86_USER_SPACE_MSR", args=[FILTER_EXITS])
            self.do("set_msr_filter", ranges=VIRTUAL_MSR_FILTER)
        self.do("create_vcpu", features=list(self.cpuid.names()))
        msrs = [["IA32_ARCH_CAPABILITIES", self.shown.arch_capabilities]]
        if self.policy.kept_by is ReportKeptBy.KVM:
            msrs.append(["MSR_VIRTUAL_ENUMERATION", self.shown.virtual_enumeration])
            msrs.append(["MSR_VIRTUAL_MITIGATION_ENUM", self.shown.mitigation_enum])
        self.do("set_msrs", msrs=msrs)

    def move(self, destination: str) -> bool:
        """Migrate; then force what the policy forces there.  False if the move was refused."""
        seen = self.do("migrate", to=HOSTS[destination], force="drop")
        if seen:
            return False
        self.vcpu_pair = (0, 0)
        if self.keeper is not None:
            self.keeper.arrive(self.machine.host)
        self.force_anew()
        return True

    def reset(self) -> None:
        """A platform reset, which takes back the report that userspace keeps too."""
        self.do("reset_vcpu")
        if self.keeper is not None:
            self.keeper.reset()
            self.force_anew()

    def force_anew(self) -> None:
        """Force what the policy, or the report that userspace keeps, asks for here."""
        if self.keeper is None:
            self.force(*self.policy.pair(self.machine.host, self.cpuid))
        else:
            self.force(*self.keeper.pair())

    def force(self, mask: int, value: int) -> None:
        """Put a pair on the vCPU, unless it has that pair."""
        if self.vcpu_pair != (mask, value):
            self.do("enable_cap", fd="vcpu", cap="KVM_CAP_FORCE_SPEC_CTRL", args=[mask, value])
            self.vcpu_pair = (mask, value)

    # ---- what the guest does

    def boot(self, which: KernelCpu = KernelCpu.BOOT) -> None:
        """The guest kernel boots; with a keeper in userspace access by access, since some of them exit."""
        kernel = self.policy.kernel(self.guest, self.cpuid, self.pool)
        if self.keeper is None:
            self.do("boot", kernel=kernel.as_keys(), **({} if which is KernelCpu.BOOT else {"cpu": which.value}))
        else:
            self.machine.guests[0] = boot(kernel, self, which)

    def rdmsr(self, msr: int) -> int:
        """RDMSR of the guest, answered by userspace if it exits."""
        seen = self.answer(self.do("rdmsr", msr=msr))
        return int(seen["value"])

    def wrmsr(self, msr: int, value: int) -> None:
        """WRMSR of the guest, answered by userspace if it exits; a report takes effect before the guest goes on."""
        self.answer(self.do("wrmsr", msr=msr, value=value))

    def answer(self, seen: Observation) -> Observation:
        """What the instruction shows in the end; Fault if it faults."""
        if "exit" in seen and self.keeper is not None:
            left = seen["exit"]
            reply = self.keeper.complete(ExitKind(left["kind"]), left["msr"], left.get("value", 0), self.force)
            seen = self.do("reply_msr_exit", **reply)
        if "fault" in seen:
            raise Fault(13)
        return seen

    # ---- what is seen

    def look(self) -> Verdict:
        """The verdict now; the step that shows it is kept."""
        seen = self.machine.observe()
        shown = ["effective"] if self.keeper is not None else ["effective", "exposed", "overhead"]
        expect = {key: seen[key] for key in shown}
        self.steps.append({"op": "observe", "expect": _written(expect)})
        software = self.machine.guests[0]
        return judge(self.machine.host, int(seen["effective"]), software, self.machine.assume.bhi_no_suffices)


def cell(
    policy: str | Policy,
    guest: str,
    source: str,
    destination: str,
    assume: Mapping[str, bool] | None = None,
    tell_rrsba: bool = False,
) -> Cell:
    """Compute one cell: boot on the source, look, move, look again.

    ``policy`` is a name of ``POLICIES``, or a policy that is not in it.  ``assume`` switches assumptions;
    ``tell_rrsba`` shows RRSBA to the guest if any host of the pool has it.

    >>> cell("today", "linux-old", "ice-lake-server", "sapphire-rapids").result
    <Result.EXPOSED: 'exposed'>
    >>> cell("P1", "linux-old", "ice-lake-server", "sapphire-rapids").verdict.bhi.name
    'BHI_DIS_S'
    """
    chosen = POLICIES[policy] if isinstance(policy, str) else policy
    pool = [resolve_host(HOSTS[name]) for name in dict.fromkeys((source, destination))]
    run = Run(chosen, GUESTS[guest], source, pool, assume, tell_rrsba)
    run.create()
    run.boot()
    wants_bhi = run.machine.guests[0].wants_bhi
    verdict = run.look()
    before = result = classify(verdict, wants_bhi)
    if source != destination:
        if run.move(destination):
            verdict = run.look()
            result = classify(verdict, wants_bhi)
        else:
            result = Result.REFUSED
    effective = int(run.machine.observe()["effective"])
    title = f"{chosen.title}: {GUESTS[guest].title}, {source} to {destination}"
    return Cell(
        chosen.name, guest, source, destination, title, before, result, verdict, effective, tuple(run.steps))


def compare(assume: Mapping[str, bool] | None = None, tell_rrsba: bool = False) -> Iterator[Cell]:
    """Every cell: policies, guests, sources, destinations, in the order of their tables."""
    for policy in POLICIES:
        for guest in GUESTS:
            for source in HOSTS:
                for destination in HOSTS:
                    yield cell(policy, guest, source, destination, assume, tell_rrsba)


COLUMNS = (
    "id", "policy", "guest", "source", "destination", "before", "result", "effective", "exposed", "overhead", "why",
)
"""The columns of the table, for CSV and JSON."""


def row(cell: Cell) -> dict[str, str]:
    """One cell as a row of text."""
    return {
        "id": cell.id,
        "policy": cell.policy,
        "guest": cell.guest,
        "source": cell.source,
        "destination": cell.destination,
        "before": cell.before.value,
        "result": cell.result.value,
        "effective": f"{cell.effective:#x}",
        "exposed": " ".join(cell.verdict.exposed),
        "overhead": " ".join(item.value for item in cell.verdict.overhead),
        "why": cell.verdict.reasons(),
    }


def as_csv(cells: Iterable[Cell]) -> str:
    """The table as CSV, with a header line."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(row(cell) for cell in cells)
    return text.getvalue()


def _written(values: Any) -> Any:
    """Arguments and observations in the format's notation: quantities in hexadecimal."""
    if isinstance(values, dict):
        return {key: value if key in ("ret", "entry", "count", "vcpu") else _written(value)
                for key, value in values.items()}
    if isinstance(values, (list, tuple)):
        return [_written(value) for value in values]
    if isinstance(values, int) and not isinstance(values, bool):
        return f"{int(values):#x}"
    return values
