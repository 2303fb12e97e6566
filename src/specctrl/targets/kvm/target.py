"""The target ``kvm``: performs scenarios on the running kernel, and says what each observation confirms."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from specctrl.model.kvm.filters import FilterRange, MsrFilter
from specctrl.model.kvm.variant import SPEC, Assumptions
from specctrl.model.outcomes import ExitReason, Misuse, MsrRefused
from specctrl.model.parts import Host, guest_features, resolve_host
from specctrl.model.registers import (
    IA32_ARCH_CAPABILITIES,
    IA32_SPEC_CTRL,
    KVM_CAP_X86_USER_SPACE_MSR,
    MSR_NUMBERS,
    MSR_VIRTUAL_ENUMERATION,
    MSR_VIRTUAL_MITIGATION_CTRL,
)
from specctrl.scenario.kinds import Json
from specctrl.scenario.machine import filter_range
from specctrl.scenario.reading import Step
from specctrl.scenario.running import TargetFailed
from specctrl.targets.guest_kernels import GuestsAbove
from specctrl.targets.kvm import ioctls
from specctrl.targets.kvm.bounds import TimeLimit
from specctrl.targets.kvm.minivmm import Access, GuestLost, Kvm, KvmMissing, MsrExit, Vm
from specctrl.targets.kvm.probe import probe
from specctrl.targets.kvm.showable import KEPT, Showable

SECONDS_A_STEP = 2.0
CONFIRMS = {
    "ioctl": "counts, errnos and lists of ioctls",
    "filter": "what an MSR filter refuses to the guest, and which filters are refused",
    "exit": "exits for RDMSR and WRMSR: instruction, reason, MSR, value, and how a reply completes them",
    "fault": "#GP, through the guest's own handler",
    "kept": "what the guest sees of the virtual MSRs that userspace keeps behind a filter",
    "init": "INIT and SIPI, of which userspace sees nothing",
    "move": "a move to a second VM",
}
"""What an observation on the running kernel can confirm."""


class Keeper:
    """The virtual MSRs of one vCPU as userspace keeps them; every answer is the specification's own rule code.

    The record is a vCPU of the emulator of which only MSR accesses are asked: its processor never runs.
    """

    def __init__(self, host: Host, assume: Mapping[str, bool]) -> None:
        chosen = Assumptions(**{name.replace("-", "_"): on for name, on in assume.items()})
        self.vcpu = SPEC.make_vcpu(SPEC.make_vm(host), guest_features(host.features), chosen)

    def answer(self, seen: MsrExit) -> int | None:
        """What userspace replies to an exit: the value read (0 for a write), or None for an error."""
        try:
            if seen.write:
                self.vcpu.write_msr(seen.msr, seen.data, host_initiated=False)
                return 0
            return self.vcpu.read_msr(seen.msr, host_initiated=False)
        except MsrRefused:
            return None

    def moved(self, host: Host, assume: Mapping[str, bool], carried: tuple[int, ...]) -> "Keeper":
        """What a destination keeps: the feature MSRs, and the report if it is among the MSRs carried."""
        there = Keeper(host, assume)
        for msr in KEPT:
            if msr != MSR_VIRTUAL_MITIGATION_CTRL or msr in carried:
                there.vcpu.host_write_msr(msr, self.vcpu.read_msr(msr, host_initiated=True))
        return there


class KvmTarget:
    """The running kernel; :class:`~specctrl.targets.kvm.minivmm.KvmMissing` where it cannot be used.

    Every scenario gets a VM of its own.
    """

    name = "kvm"
    profiles = frozenset(["spec"])
    observes: frozenset[str] | None = None
    max_unsupported: int | None = None

    def __init__(self) -> None:
        self.kvm = Kvm()
        try:
            self.facts = probe(self.kvm)
        except (GuestLost, OSError) as error:
            self.kvm.close()
            raise KvmMissing(f"the probe of this kernel failed: {error}") from error
        except KvmMissing:
            self.kvm.close()
            raise
        self.confirms: Counter[str] = Counter()
        self.vm: Vm | None = None

    # ---- the target's interface

    def begin(self, host: str | dict[str, Any], _profile: str, assume: dict[str, bool]) -> None:
        """A new VM, whose vCPUs come with the scenario's steps."""
        self.host, self.assume = resolve_host(host), assume
        self.showable = Showable(self.facts, self.host, assume)
        self.keepers: dict[int, Keeper] = {}
        self.behind_own_filter = False
        self.confirms = Counter()
        try:
            self.vm = Vm(self.kvm, self.facts.apic)
        except OSError as error:
            raise TargetFailed(f"kvm: a VM cannot be made: {error}") from error

    def step(self, step: Step) -> Mapping[str, Json]:
        """Perform a step that this host can show; Unsupported for every other."""
        self.showable.look(step)
        try:
            with TimeLimit(SECONDS_A_STEP):
                perform: Callable[[dict[str, Any], dict[str, Any]], dict[str, Json]] = getattr(self, f"_{step.op}")
                return perform(step.args, step.expect)
        except (GuestLost, OSError) as error:
            raise TargetFailed(f"kvm: {error}") from error

    def end(self) -> None:
        """Close the scenario's VM."""
        if self.vm is not None:
            self.vm.close()
            self.vm = None

    def close(self) -> None:
        """Close ``/dev/kvm``."""
        self.end()
        self.kvm.close()

    def kill(self) -> None:
        """Close the scenario's VM; it takes no process with it."""
        self.end()

    # ---- ioctls

    @property
    def _vm(self) -> Vm:
        assert self.vm is not None, "begin comes first"
        return self.vm

    def _saw(self, kind: str, seen: dict[str, Json]) -> dict[str, Json]:
        self.confirms[kind] += 1
        return seen

    def _check_extension(self, args: dict[str, Any], _expect: dict[str, Any]) -> dict[str, Json]:
        asked = self._vm if args["fd"] == "vm" else self.kvm
        return self._saw("ioctl", ended(asked.check_extension(args["cap"])))

    def _enable_cap(self, args: dict[str, Any], _expect: dict[str, Any]) -> dict[str, Json]:
        asked = self._vm if args["fd"] == "vm" else self._vm.vcpus[args["vcpu"]]
        return self._saw("ioctl", ended(asked.enable_cap(args["cap"], args["args"], args["flags"])))

    def _create_vcpu(self, args: dict[str, Any], _expect: dict[str, Any]) -> dict[str, Json]:
        result = self._vm.create_vcpu(args["vcpu"])
        if result == 0:
            self.keepers[args["vcpu"]] = Keeper(self.host, self.assume)
        return self._saw("ioctl", ended(result))

    def _get_msrs(self, args: dict[str, Any], _expect: dict[str, Any]) -> dict[str, Json]:
        values = self._vm.vcpus[args["vcpu"]].get_msrs(tuple(args["msrs"]))
        return self._saw("ioctl", {"ret": len(values), "values": list(values)})

    def _set_msrs(self, args: dict[str, Any], expect: dict[str, Any]) -> dict[str, Json]:
        vcpu, pairs = args["vcpu"], tuple((msr, value) for msr, value in args["msrs"])
        if not self.showable.set_in_userspace(args, expect):
            return self._saw("ioctl", {"ret": self._vm.vcpus[vcpu].set_msrs(pairs)})
        taken = self.keepers[vcpu].vcpu.set_msrs(pairs)
        return {} if taken == len(pairs) else {"ret": taken}

    def _get_feature_msrs(self, args: dict[str, Any], _expect: dict[str, Any]) -> dict[str, Json]:
        values = self.kvm.get_msrs(tuple(args["msrs"]))
        return self._saw("ioctl", {"ret": len(values), "values": list(values)})

    def _get_msr_index_list(self, _args: dict[str, Any], _expect: dict[str, Any]) -> dict[str, Json]:
        return self._saw("ioctl", listed(ioctls.index_list(self.kvm.fd, ioctls.GET_MSR_INDEX_LIST)))

    def _get_msr_feature_index_list(self, _args: dict[str, Any], _expect: dict[str, Any]) -> dict[str, Json]:
        return self._saw("ioctl", listed(ioctls.index_list(self.kvm.fd, ioctls.GET_MSR_FEATURE_INDEX_LIST)))

    def _set_msr_filter(self, args: dict[str, Any], _expect: dict[str, Any]) -> dict[str, Json]:
        wanted = MsrFilter(args["default"] == "allow", tuple(map(filter_range, args["ranges"])))
        return self._saw("filter", ended(self._vm.set_msr_filter(wanted)))

    # ---- the guest

    def _rdmsr(self, args: dict[str, Any], _expect: dict[str, Any]) -> dict[str, Json]:
        return self._guest_access(args["vcpu"], args["msr"], write=False, value=0)

    def _wrmsr(self, args: dict[str, Any], _expect: dict[str, Any]) -> dict[str, Json]:
        return self._guest_access(args["vcpu"], args["msr"], write=True, value=args["value"])

    def _guest_access(self, vcpu: int, msr: int, write: bool, value: int) -> dict[str, Json]:
        if self.showable.kept:
            self._hand_over_kept()
        seen = self._vm.vcpus[vcpu].access(msr, write, value)
        if self.showable.kept and isinstance(seen, MsrExit) and seen.msr in KEPT and seen.reason == EXIT_FILTER:
            keeper = self.keepers[vcpu]
            keeper.vcpu.has_run = True
            answer = keeper.answer(seen)
            self._vm.vcpus[vcpu].reply(answer or 0, error=answer is None)
            self.confirms["kept"] += 1
            return self._shown(self._vm.vcpus[vcpu].go_on(), write)
        if not self.showable.msr_filter.allows(msr, write):
            self.confirms["filter"] += 1
        return self._shown(seen, write)

    def _hand_over_kept(self) -> None:
        """From now on a filter of the target's own hands the kept MSRs to userspace."""
        if self.behind_own_filter:
            return
        ranges = (
            FilterRange(IA32_ARCH_CAPABILITIES, 1, True, True, (False,)),
            FilterRange(MSR_VIRTUAL_ENUMERATION, 3, True, True, (False, False, False)),
        )
        done(self._vm.enable_cap(KVM_CAP_X86_USER_SPACE_MSR, [EXIT_FILTER]))
        done(self._vm.set_msr_filter(MsrFilter(True, ranges)))
        self.behind_own_filter = True

    def _shown(self, seen: Access | MsrExit, write: bool) -> dict[str, Json]:
        if isinstance(seen, MsrExit):
            kind = "wrmsr" if seen.write else "rdmsr"
            shown: dict[str, Json] = {"kind": kind, "reason": reason_name(seen.reason), "msr": seen.msr}
            return self._saw("exit", {"exit": {**shown, **({"value": seen.data} if seen.write else {})}})
        if seen.vector:
            return self._saw("fault", {"fault": "#GP"})
        return {} if write else {"value": seen.result}

    def _reply_msr_exit(self, args: dict[str, Any], _expect: dict[str, Any]) -> dict[str, Json]:
        vcpu = self._vm.vcpus[args["vcpu"]]
        was_write = vcpu.exited_for_write()
        error, value = args.get("error", False), args.get("value")
        if value is not None and was_write:
            raise Misuse("a pending WRMSR takes no value")
        if value is None and not was_write and not error:
            raise Misuse("a pending RDMSR needs a value or an error")
        vcpu.reply(value or 0, error)
        return self._saw("exit", self._shown(vcpu.go_on(), was_write))

    def _init(self, args: dict[str, Any], _expect: dict[str, Any]) -> dict[str, Json]:
        self._vm.vcpus[args["vcpu"]].init()
        return self._saw("init", {})

    def _exit(self, _args: dict[str, Any], _expect: dict[str, Any]) -> dict[str, Json]:
        return {}  # each access ended with one already

    def _observe(self, _args: dict[str, Any], _expect: dict[str, Any]) -> dict[str, Json]:
        return {}

    # ---- userspace with more than one ioctl

    def _reset_vcpu(self, args: dict[str, Any], _expect: dict[str, Any]) -> dict[str, Json]:
        self.keepers[args["vcpu"]].vcpu.host_write_msr(MSR_VIRTUAL_MITIGATION_CTRL, 0)
        return {}

    def _migrate(self, args: dict[str, Any], _expect: dict[str, Any]) -> dict[str, Json]:
        source, self.host = self._vm, resolve_host(args["to"])
        there = Vm(self.kvm, self.facts.apic)
        self.vm = there
        try:
            there.memory[:] = source.memory[:]
            done(there.enable_cap(KVM_CAP_X86_USER_SPACE_MSR, [self.showable.reasons]))
            done(there.set_msr_filter(self.showable.msr_filter))
            self.behind_own_filter = False
            for number, vcpu in source.vcpus.items():
                done(there.create_vcpu(number))
                there.vcpus[number].copy_state(vcpu)
                if IA32_SPEC_CTRL in self.facts.takes_zero:
                    values = vcpu.get_msrs((IA32_SPEC_CTRL,))
                    done(there.vcpus[number].set_msrs(((IA32_SPEC_CTRL, values[0]),)) - 1)
                carried = tuple(args.get("msrs", KEPT))
                self.keepers[number] = self.keepers[number].moved(self.host, self.assume, carried)
        finally:
            source.close()
        return self._saw("move", {})


class KvmGuests(GuestsAbove):
    """The running kernel with guest kernels above it: the guest of the mini VMM executes each access of a boot."""

    def __init__(self, kernel: KvmTarget) -> None:
        super().__init__(kernel)
        self.kernel = kernel

    @property
    def confirms(self) -> Counter[str]:
        """What this scenario's observations confirmed."""
        return self.kernel.confirms

    def boot(self, step: Step) -> Mapping[str, Json]:
        """A kernel brings up a CPU; Unsupported where this host cannot show what it sees."""
        self.kernel.showable.look(step)
        return super().boot(step)


EXIT_FILTER = ExitReason.FILTER.value


def done(result: int) -> None:
    """Nothing if an ioctl that no scenario can expect to fail returned 0; OSError otherwise."""
    if result:
        raise OSError(-result, "userspace's own ioctl was refused")


def ended(result: int) -> dict[str, Json]:
    """How an ioctl ended, in the format's words.

    >>> ended(0), ended(-ioctls.errno.EINVAL)
    ({'ret': 0}, {'errno': 'EINVAL'})
    """
    return {"ret": result} if result >= 0 else {"errno": ioctls.name_of(-result)}


def listed(msrs: tuple[int, ...]) -> dict[str, Json]:
    """An index list, in the format's words."""
    return {"contains": list(msrs), "lacks": [msr for msr in MSR_NUMBERS.values() if msr not in msrs]}


def reason_name(reason: int) -> str:
    """The name of an exit's reason; TargetFailed for none of the three."""
    try:
        return ExitReason(reason).name
    except ValueError:
        raise TargetFailed(f"kvm: an exit has the reason {reason:#x}, which is none of the three") from None

