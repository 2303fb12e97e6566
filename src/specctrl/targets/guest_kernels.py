"""Guest kernels on top of a target that has none: the target is the hypervisor, and a guest stands above it.

A target that names ``wrote`` among what it observes boots kernels of its own, and is left alone.

``boot`` becomes the accesses that :func:`specctrl.model.guest.boot` makes, each a step of its own; ``exposed`` and
``overhead`` are what :mod:`specctrl.model.exposure` says of the effective value that the target observes.
"""

from collections.abc import Mapping
from typing import Any

from specctrl.model.exposure import judge
from specctrl.model.guest import Kernel, KernelCpu, Software, boot
from specctrl.model.outcomes import GP, Fault, Misuse, Unsupported
from specctrl.model.parts import GUEST_FEATURES, Features, features_from_names, guest_features, resolve_host
from specctrl.scenario.format import ASSUMPTIONS, SHOWS
from specctrl.scenario.kinds import Json
from specctrl.scenario.reading import Step
from specctrl.scenario.running import Target, normalised

ADDED = ("wrote", "exposed", "overhead")
"""What can be observed besides what the target itself shows."""


class GuestsAbove:
    """A target with guest kernels above it."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.name = target.name
        self.max_unsupported = target.max_unsupported
        self.profiles = target.profiles
        self.observes = target.observes
        self.guests: dict[int, Software] = {}
        self.cpuid: dict[int, Features] = {}

    def begin(self, host: str | dict[str, Any], profile: str, assume: dict[str, bool], /) -> None:
        """Start a scenario; no guest has booted."""
        self.host = resolve_host(host)
        self.bhi_no_suffices = {**ASSUMPTIONS, **assume}["bhi-no-suffices"]
        self.guests.clear()
        self.cpuid.clear()
        self.target.begin(host, profile, assume)
        self.profiles = self.target.profiles
        seen = self.target.observes
        self.boots = seen is None or "wrote" not in seen
        if seen is not None and self.boots:
            seen |= {*ADDED} if "effective" in seen else {"wrote"}
        self.observes = seen

    def step(self, step: Step) -> Mapping[str, Json]:
        """Perform a step; one that is the guest's or about it is made of others."""
        if not self.boots:
            return self.target.step(step)
        if step.op == "boot":
            return self.boot(step)
        seen = self.target.step(step)
        vcpu = step.args.get("vcpu", 0)
        if step.op == "create_vcpu" and "errno" not in seen:
            shown = step.args.get("features")
            self.cpuid[vcpu] = guest_features(self.host.features) if shown is None else cpuid_of(shown)
        elif step.op == "migrate" and not {"errno", "refused"} & set(seen):
            self.host = resolve_host(step.args["to"])
            if "features" in step.args:
                self.cpuid = dict.fromkeys(self.cpuid, cpuid_of(step.args["features"]))
        elif step.op == "reset_vcpu":
            self.guests.pop(vcpu, None)
        elif step.op == "observe" and "effective" in seen:
            known = {key: seen[key] for key in ("effective", "guest_view") if key in seen}
            values = normalised(known, self.name)
            verdict = judge(self.host, values["effective"], self.guests.get(vcpu), self.bhi_no_suffices,
                            values.get("guest_view", 0))
            return {**seen, "exposed": [*verdict.exposed], "overhead": [item.value for item in verdict.overhead]}
        return seen

    def boot(self, step: Step) -> Mapping[str, Json]:
        """A kernel brings up a CPU, access by access; Misuse where it is L2 or SMM that runs."""
        vcpu = step.args["vcpu"]
        if vcpu not in self.cpuid:
            raise Misuse(f"there is no vCPU {vcpu}")
        now = self.target.step(Step("observe", {"vcpu": vcpu}, {}, {}))
        if now.get("level") == 2 or now.get("smm"):
            raise Misuse("a kernel that boots is L1, outside SMM")
        cpu = TargetCpu(self.target, vcpu, self.cpuid[vcpu])
        kept = next((guest.kept for guest in self.guests.values()), 0)
        self.guests[vcpu] = boot(Kernel.from_keys(step.args["kernel"]), cpu, KernelCpu(step.args["cpu"]), kept)
        return {"wrote": SHOWS["wrote"].write(cpu.wrote)}

    def end(self) -> None:
        """Finish the scenario."""
        self.target.end()

    def close(self) -> None:
        """No scenario follows."""
        self.target.close()

    def kill(self) -> None:
        """End the target without further words."""
        self.target.kill()


def cpuid_of(names: list[str]) -> Features:
    """What a guest's CPUID shows, by names."""
    return features_from_names(names, GUEST_FEATURES)


class TargetCpu:
    """One vCPU of a target, as its guest kernel's CPU."""

    def __init__(self, target: Target, vcpu: int, cpuid: Features) -> None:
        self.target = target
        self.vcpu = vcpu
        self.cpuid = cpuid
        self.wrote: list[list[int]] = []

    def rdmsr(self, msr: int) -> int:
        """RDMSR."""
        seen = self.access("rdmsr", msr=msr)
        if "value" not in seen:
            raise Unsupported("a guest kernel needs the value that RDMSR returns")
        return int(seen["value"])

    def wrmsr(self, msr: int, value: int) -> None:
        """WRMSR; one that does not fault is kept."""
        self.access("wrmsr", msr=msr, value=value)
        self.wrote.append([msr, value])

    def access(self, op: str, **arguments: int) -> dict[str, Any]:
        """One access; Fault if it faults, Misuse if it exits to userspace."""
        seen = normalised(self.target.step(Step(op, {"vcpu": self.vcpu, **arguments}, {}, {})), self.target.name)
        if seen.get("fault"):
            raise Fault(GP)
        if seen.get("exit"):
            raise Misuse(f"boot cannot go on over an exit to userspace ({op} of {arguments['msr']:#x})")
        return seen
