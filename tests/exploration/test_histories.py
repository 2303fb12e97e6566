"""Properties that hold in every history, checked on random ones against a plain record of what the guest wrote."""

from copy import deepcopy
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import ALL_BITS, MC, ME, SC, VE
from specctrl.model.contract import Contract, ReportKeptBy, can_force, supported_force_spec_ctrl
from specctrl.model.kvm.variant import Variant
from specctrl.model.kvm.vcpu import Vcpu
from specctrl.model.outcomes import Fault
from specctrl.model.parts import features_from_names, guest_features, resolve_host
from specctrl.model.words import WORD, is_subset
from specctrl.scenario.machine import Machine

words = st.integers(0, WORD)
ORDINARY = (0, 0x1, 0x4, 0x5, 0x40, 0x400, 0x401)
TELLING = (0x80, 0x200, 0x441, 0x800, 1 << 31, 1 << 63, ALL_BITS, ALL_BITS ^ 0x400)
ordinary, telling = st.sampled_from(ORDINARY), st.sampled_from(TELLING)
values = st.one_of(ordinary, ordinary, telling, words)  # most words are refused: histories would stand still

HOSTS = tuple(resolve_host(host) for host in (
    "sapphire-rapids", "ice-lake-server", "skylake-server", "diamond-rapids", "clearwater-forest",
    {"part": "sapphire-rapids", "spec_ctrl_shadow": False}, {"part": "sapphire-rapids", "host_spec_ctrl": 0},
    {"part": "sapphire-rapids", "without": ["BHI_CTRL"]},
    {"part": "ice-lake-server", "spec_ctrl_shadow": True, "host_spec_ctrl": 0x4},
    {"part": "ice-lake-server", "features": []},
))
CPUIDS = (None, ("SPEC_CTRL",), ("ARCH_CAPABILITIES",), ())


class WatchedVcpu(Vcpu):
    """A vCPU that checks, at every exit, what KVM believes of the processor before the host goes on."""

    __slots__ = ()

    def restore_host_spec_ctrl(self, held: int) -> None:
        assert self.saved == self.cpu.spec_ctrl, "saved is not what the processor holds"
        Vcpu.restore_host_spec_ctrl(self, held)
        assert self.host.spec_ctrl == self.cpu.spec_ctrl, "the host did not get its value back"


msr_value = st.tuples(st.sampled_from([SC, SC, SC, MC]), values) | st.tuples(st.just(MC), st.integers(0, 4))
pairs = st.lists(msr_value | st.just((VE, 0)), max_size=3)
stores = st.sampled_from([(), (), (SC,)])
intercepts = st.sampled_from([(), (), (), "all", ("read",), ("write",), ("read", "write")])
bools = st.booleans()

operations = st.one_of(
    st.tuples(st.just("write"), msr_value), st.tuples(st.just("write"), msr_value),
    st.tuples(st.just("read"), st.sampled_from([SC, SC, MC])),
    st.tuples(st.just("host_exit")),
    st.tuples(st.just("set_msrs"), st.lists(msr_value, min_size=1, max_size=3)),
    st.tuples(st.just("enter"), pairs, intercepts, stores, pairs),
    st.tuples(st.just("enter"), st.just([]), st.just(()), st.just(()), st.just([])),
    st.tuples(st.just("leave"), stores, pairs),
    st.tuples(st.sampled_from(["init", "vmxoff", "smi", "rsm", "smi", "rsm", "reset"])),
    st.tuples(st.just("force"), values, values, bools),
    st.tuples(st.just("filter"), bools, bools), st.tuples(st.just("nested_state"), bools),
    st.tuples(st.just("migrate"), st.sampled_from(HOSTS), st.sampled_from(["nested-first", "msrs-first"]),
              st.permutations([SC, MC]), st.sampled_from(["keep", "keep", "keep", "drop"])),
)


class History:
    """A machine, the contract beside it, and a plain record of what the guest must read."""

    def __init__(self, host: Any, cpuid: Any, mask: int, value: int, offer: tuple[int, int], assume: dict, exits: int):
        self.machine = Machine(host, assume=assume, record=False)
        self.machine.variant = Variant("watched", vcpu=WatchedVcpu)
        self.vm_pair = (0, 0)
        if supported_force_spec_ctrl(host):
            self.vm_pair = (mask, value & mask & supported_force_spec_ctrl(host))
            assert {"ret": 0} == self.machine.enable_cap(cap=236, args=self.vm_pair)
        assert {"ret": 0} == self.machine.enable_cap(cap=188, args=[exits])
        assert {"ret": 0} == self.machine.create_vcpu(features=cpuid)
        assert {"ret": 2} == self.machine.set_msrs(msrs=[(VE, offer[0]), (ME, offer[1])])
        shown = guest_features(host.features) if cpuid is None else features_from_names(list(cpuid))
        self.contract = Contract(
            host, shown, ReportKeptBy.KVM, offered=offer[1],
            announced=shown.arch_capabilities and bool(offer[0]),
            init_withdraws_report=assume["init-withdraws-report"])
        self.contract.user_mask, self.contract.user_value = self.vm_pair
        self.view = 0
        self.denied = {"read": False, "write": False}
        self.vmx = self.smm = self.init_pending = False
        self.back_to = (1, False)
        self.intercepts: Any = ()
        self.exit_lists: tuple[Any, Any] = ((), [])
        self.check()

    # ---- what the guest may do, from the contract and the filter alone

    def guest_write(self, msr: str, value: int) -> bool:
        """Whether a write that KVM performs for the guest takes place; if so it is recorded."""
        try:
            if msr == SC and not self.denied["write"]:
                self.contract.write_view(value)
                self.view = value
                return True
            if msr == MC:
                self.contract.write_report(value)
                return True
        except Fault:
            pass
        return False

    def exit_to_l1(self, store: Any, load: Any) -> dict[str, Any]:
        """A VM exit to L1 with its lists: nothing, or an abort that userspace answers with a reset."""
        self.contract.level = 1
        failed = bool(store) and (self.denied["read"] or not self.contract.cpuid.spec_ctrl)
        for msr, value in () if failed else load:
            failed = failed or not self.guest_write(msr, value)
        return {"abort": True} if failed else {}

    def after(self, seen: dict[str, Any]) -> None:
        """An aborted vCPU is reset."""
        if seen.get("abort"):
            self.reset()

    def instruction(self, seen: dict[str, Any]) -> dict[str, Any]:
        """An exit to userspace is answered with an error: the guest sees a fault."""
        return self.machine.reply_msr_exit(error=True) if "exit" in seen else seen

    def is_reflected(self, msr: str, direction: str) -> bool:
        covered = self.intercepts == "all" or (msr == SC and direction in self.intercepts)
        return self.contract.level == 2 and (msr == MC or covered)

    def reflected(self, seen: dict[str, Any]) -> None:
        assert (self.exit_to_l1(*self.exit_lists) or {"reflected": True}) == seen
        self.after(seen)

    # ---- operations

    def write(self, pair: tuple[str, int]) -> None:
        msr, value = pair
        reflected = self.is_reflected(msr, "write")
        seen = self.instruction(self.machine.wrmsr(msr=msr, value=value))
        if reflected:
            self.reflected(seen)
        elif self.denied["write"] and msr == SC and self.contract.level == 2 and seen == {}:
            self.contract.write_view(value)  # L2's bitmap was merged before the filter
            self.view = value
        else:
            assert ({} if self.guest_write(msr, value) else {"fault": "#GP"}) == seen

    def read(self, msr: str) -> None:
        reflected = self.is_reflected(msr, "read")
        seen = self.instruction(self.machine.rdmsr(msr=msr))
        if reflected:
            self.reflected(seen)
        elif msr == MC:
            assert ({"value": self.contract.report} if self.contract.announced else {"fault": "#GP"}) == seen
        elif not self.contract.cpuid.spec_ctrl or (self.denied["read"] and self.contract.level == 1):
            assert {"fault": "#GP"} == seen
        elif not (self.denied["read"] and seen == {"fault": "#GP"}):
            assert {"value": self.view} == seen

    def host_exit(self) -> None:
        assert {"host_spec_ctrl": self.contract.host.spec_ctrl} == self.machine.exit()

    def set_msrs(self, wanted: list[tuple[str, int]]) -> None:
        done = 0
        for msr, value in wanted:
            if not (self.contract.restore_view(value) if msr == SC else self.contract.restore_report(value)):
                break
            done += 1
        self.view = self.contract.guest_view
        assert {"ret": done} == self.machine.set_msrs(msrs=wanted)

    def enter(self, load: Any, intercept: Any, store: Any, exit_load: Any) -> None:
        if self.contract.level == 2 or self.smm:
            return
        self.vmx = True
        self.intercepts = intercept
        self.exit_lists = (store, exit_load)
        wanted = [{"msr": SC, "read": "read" in intercept, "write": "write" in intercept}] if intercept else []
        seen = self.machine.nested_enter(
            msr_load=load, intercept="all" if intercept == "all" else wanted,
            exit_msr_store=store, exit_msr_load=exit_load)
        self.contract.level = 2
        expected: dict[str, Any] = {}
        for entry, (msr, value) in enumerate(load, start=1):
            if not self.guest_write(msr, value):
                expected = self.exit_to_l1((), exit_load) or {"fail": {"reason": "MSR_LOAD_FAIL", "entry": entry}}
                break
        else:
            if self.init_pending:
                self.init_pending = False
                expected = self.exit_to_l1(store, exit_load) or {"reflected": True}
        assert expected == seen
        self.after(seen)

    def leave(self, store: Any, load: Any) -> None:
        if self.contract.level == 1:
            return
        seen = self.machine.nested_exit(msr_store=store, msr_load=load)
        stored = {"stored": [self.view for _ in store]}
        expected = self.exit_to_l1(store, load) or stored
        assert expected == ({"stored": [], **seen} if expected is stored else seen)
        self.after(seen)

    def reset_by_init(self) -> None:
        self.init_pending = False
        self.contract.init()
        self.view = 0

    def init(self) -> None:
        seen = self.machine.init()
        if self.smm or (self.vmx and self.contract.level == 1):
            assert {"blocked": True} == seen
            self.init_pending = True
        elif self.contract.level == 2:
            self.reflected(seen)
        else:
            assert {} == seen
            self.reset_by_init()

    def vmxoff(self) -> None:
        if not self.vmx or self.smm or self.contract.level == 2:
            return
        assert {} == self.machine.vmxoff()
        self.vmx = False
        if self.init_pending:
            self.reset_by_init()

    def smi(self) -> None:
        if self.smm:
            return
        assert {} == self.machine.smi()
        self.back_to = (self.contract.level, self.vmx)
        self.smm, self.vmx, self.contract.level = True, False, 1

    def rsm(self) -> None:
        if not self.smm:
            return
        seen = self.machine.rsm()
        self.smm = False
        self.contract.level, self.vmx = self.back_to
        if self.init_pending and self.contract.level == 2:
            self.init_pending = False
            assert (self.exit_to_l1(*self.exit_lists) or {"reflected": True}) == seen
            self.after(seen)
        elif self.init_pending and not self.vmx:
            self.reset_by_init()

    def reset(self) -> None:
        assert {"ret": 0} == self.machine.reset_vcpu()
        self.contract.guest_view = self.contract.report = self.view = 0
        self.contract.level = 1
        self.vmx = self.smm = self.init_pending = False

    def force(self, mask: int, value: int, valid: bool) -> None:
        if valid:
            value &= mask & supported_force_spec_ctrl(self.contract.host)
        done = self.contract.userspace_force(mask, value)
        seen = self.machine.enable_cap(fd="vcpu", vcpu=0, cap=236, args=[mask, value])
        assert ({"ret": 0} if done else {"errno": "EINVAL"}) == seen

    def filter(self, read: bool, write: bool) -> None:
        self.denied = {"read": read, "write": write}
        ranges = [{"base": SC, "count": 1, "allow": [False], **self.denied}] if read or write else []
        assert {"ret": 0} == self.machine.set_msr_filter(ranges=ranges)

    def nested_state(self, pending: bool) -> None:
        left_level, left_vmx = self.back_to if self.smm else (1, False)
        mode = {"GUEST_MODE": self.contract.level == 2, "SMM_GUEST_MODE": left_level == 2, "SMM_VMXON": left_vmx}
        seen = self.machine.get_nested_state(state="here")
        flags = {*seen.pop("nested_flags")} - {"RUN_PENDING"}  # whether the guest ran since is not followed here
        assert (flags, seen) == ({flag for flag, is_set in mode.items() if is_set}, {"ret": 0})
        legal = self.contract.level == 2 or not pending
        seen = self.machine.set_nested_state(state="here", run_pending=pending)
        assert ({"ret": 0} if legal else {"errno": "EINVAL"}) == seen

    def migrate(self, host: Any, order: str, msrs: list[str], force: str) -> None:
        there = deepcopy(self.contract)
        if force == "drop":
            there.user_mask = there.user_value = 0
        possible = force == "drop" or self.vm_pair == (0, 0) or can_force(host, *self.vm_pair)
        possible = possible and there.move(host)
        listed = [msr for msr in msrs if msr == MC or self.contract.host.has_spec_ctrl]
        seen = self.machine.migrate(to=host, order=order, msrs=listed, force=force)
        assert possible is (seen == {}), seen
        if possible:
            self.contract = there
            self.vm_pair = (0, 0) if force == "drop" else self.vm_pair

    # ---- what must hold after every step

    def check(self) -> None:
        vcpu, contract = self.machine.vcpus[0], self.contract
        seen = self.machine.observe()
        mask, value = contract.force()
        assert self.view == contract.guest_view == seen["guest_view"]
        assert (contract.level, self.smm, contract.report) == (seen["level"], seen["smm"], vcpu.mitigation_ctrl)
        assert (mask, value) == (vcpu.force_mask, vcpu.force_value), "forced is what the pair and the report ask for"
        if seen["mask"] is not None:
            assert mask == seen["mask"]
        if contract.host.has_spec_ctrl:
            assert contract.effective() == seen["effective"]
            assert value & mask == seen["effective"] & mask
            assert is_subset(seen["effective"], contract.host.writable)
        if not vcpu.in_guest:
            assert contract.host.spec_ctrl == vcpu.cpu.spec_ctrl

    def perform(self, operation: tuple[Any, ...]) -> None:
        name, *arguments = operation
        getattr(self, name)(*arguments)
        self.check()


def random_operation(random: Random) -> tuple[Any, ...]:
    """One operation of a long walk: mostly accesses, the rarer ones often enough to meet."""

    def value() -> int:
        return random.choice(ORDINARY) if random.random() < 0.85 else random.choice(TELLING)

    def pair() -> tuple[str, int]:
        return (SC, value()) if random.random() < 0.7 else (MC, random.randrange(4))

    def pair_list() -> list[tuple[str, int]]:
        return [pair() if random.random() < 0.9 else (VE, 0) for _ in range(random.choice((0, 0, 0, 1, 2)))]

    def store() -> tuple[str, ...]:
        return random.choice(((), (), (SC,)))

    rare = random.random() < 0.1
    name = random.choice(("reset", "filter", "migrate", "force", "force") if rare else (
        "write", "write", "write", "read", "read", "read", "host_exit", "set_msrs", "enter", "enter", "leave",
        "smi", "rsm", "init", "vmxoff", "nested_state"))
    match name:
        case "write":
            return name, pair()
        case "read":
            return name, random.choice((SC, SC, MC))
        case "set_msrs":
            return name, [pair() for _ in range(random.choice((1, 2)))]
        case "enter":
            intercept = random.choice(((), (), (), (), "all", ("read",), ("write",)))
            return name, pair_list(), intercept, store(), pair_list()
        case "leave":
            return name, store(), pair_list()
        case "force":
            return name, value() | value(), value(), True
        case "filter":
            return name, random.random() < 0.2, random.random() < 0.2
        case "nested_state":
            return name, random.random() < 0.3
        case "migrate":
            msrs = [SC, MC] if random.random() < 0.5 else [MC, SC]
            return name, random.choice(HOSTS), random.choice(("nested-first", "msrs-first")), msrs, "keep"
    return (name,)


class TestHistories:
    """Machine, contract and record in lockstep."""

    @given(
        host=st.sampled_from(HOSTS[:1] * 4 + HOSTS), cpuid=st.sampled_from(CPUIDS[:1] * 3 + CPUIDS),
        mask=st.just(0) | values, value=values,
        offer=st.sampled_from([(1, 3), (1, 3), (1, 1), (1, 0), (0, 3)]),
        assume=st.fixed_dictionaries({"init-withdraws-report": bools, "vm-entry-loads-shadow": bools}),
        exits=st.sampled_from([0, 7]),
        history=st.lists(operations, min_size=6, max_size=40),
    )
    def test_what_the_guest_wrote_it_reads_and_what_is_forced_stays_forced(
        self, host, cpuid, mask, value, offer, assume, exits, history
    ):
        run = History(host, cpuid, mask, value, offer, assume, exits)
        for operation in history:
            run.perform(operation)

    @given(host=st.sampled_from(HOSTS), writes=st.lists(values, max_size=8), mask=values, value=values)
    def test_an_exit_between_two_writes_changes_nothing(self, host, writes, mask, value):
        """The guest cannot tell whether an interrupt came: interception and passing through are alike (D8)."""
        calm, busy = (History(host, None, mask, value, (1, 3), {"init-withdraws-report": True}, 0) for _ in range(2))
        for one in writes:
            busy.host_exit()
            assert calm.machine.wrmsr(msr=SC, value=one) == busy.machine.wrmsr(msr=SC, value=one)
            assert calm.machine.observe()["effective"] == busy.machine.observe()["effective"]
            busy.machine.get_msrs(msrs=[SC])
        busy.host_exit()
        assert calm.machine.rdmsr(msr=SC) == busy.machine.rdmsr(msr=SC)

    @pytest.mark.parametrize("host", HOSTS)
    @pytest.mark.parametrize("cpuid", CPUIDS)
    def test_long_walks(self, host, cpuid):
        """The same on a few long histories for each host and each guest; the seeds are fixed."""
        for seed in range(8):
            random = Random(seed)
            mask = random.choice((0, 0x4, 0x400, 0x44 | 1 << 63, ALL_BITS))
            assume = {"init-withdraws-report": seed % 4 != 3, "vm-entry-loads-shadow": seed % 4 == 2}
            offer = random.choice(((1, 3), (1, 3), (1, 1), (1, 0), (0, 3)))
            run = History(host, cpuid, mask, random.choice(ORDINARY), offer, assume, random.choice((0, 7)))
            for _ in range(60 if cpuid else 200):
                run.perform(random_operation(random))
