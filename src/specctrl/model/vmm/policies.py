"""The policies that were proposed for a guest whose BHB-clearing sequence stops working when it moves.

A policy is a pair: what the host does, and what a guest that cooperates does.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from specctrl.model.contract import ReportKeptBy, can_force
from specctrl.model.guest import BhbSequence, BhiDisS, Kernel, Os, SpectreBhi
from specctrl.model.parts import Features, Host
from specctrl.model.registers import BHI_DIS_S


@dataclass(frozen=True, slots=True)
class Guest:
    """A guest kernel, and whether its owner installs a kernel that follows a policy that asks for one."""

    name: str
    title: str
    kernel: Kernel
    can_follow: bool


GUESTS: dict[str, Guest] = {
    guest.name: guest
    for guest in (
        Guest("linux-current", "Linux with the short loop, kept up to date", Kernel(reports=True), can_follow=True),
        Guest("linux-old", "Linux with the short loop, as it was", Kernel(), can_follow=False),
        Guest("linux-long", "Linux with the long loop, reporting as RFC v3 does",
              Kernel(reports=True, sequence=BhbSequence.LONG), can_follow=True),
        Guest("linux-retpoline", "Linux with retpoline, reporting", Kernel(reports=True, retpoline=True),
              can_follow=True),
        Guest("linux-off", "Linux whose owner switched the mitigation off",
              Kernel(reports=True, spectre_bhi=SpectreBhi.OFF), can_follow=True),
        Guest("other-os", "An OS with the long sequence that suffers under BHI_DIS_S and reports",
              Kernel(os=Os.WINDOWS_LIKE, reports=True, sequence=BhbSequence.LONG, bhi_dis_s=BhiDisS.NEVER),
              can_follow=False),
    )
}
"""The guests that the policies are compared for, by name."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Today's kernel: the host forces nothing and offers nothing, and a guest is on its own.

    The other policies override what they do otherwise.
    """

    name: str
    title: str
    host_does: str
    guest_does: str
    kept_by: ReportKeptBy = ReportKeptBy.NOBODY  # who keeps a report; NOBODY: there are no virtual MSRs

    def pair(self, host: Host, cpuid: Features) -> tuple[int, int]:
        """The mask and value that userspace forces on this host, of its own accord, on a guest with this CPUID."""
        return (0, 0)

    def kernel(self, guest: Guest, cpuid: Features, pool: Sequence[Host]) -> Kernel:
        """The kernel that this guest runs under this policy; ``pool`` is every host that it may run on."""
        return guest.kernel

    def kernel_alone(self, guest: Guest, cpuid: Features) -> Kernel:
        """The kernel that it runs on a hypervisor that has never heard of this policy."""
        return guest.kernel


def short_is_adequate(host: Host) -> bool:
    """Whether a guest with the short sequence needs no help on this host."""
    return host.short_sequence_works or host.features.bhi_no


class AlwaysForce(Policy):
    """P1: BHI_DIS_S for every guest that is not shown BHI_CTRL."""

    def pair(self, host: Host, cpuid: Features) -> tuple[int, int]:
        """BHI_DIS_S, where the short sequence may not work and the host can force it."""
        if cpuid.bhi_ctrl or short_is_adequate(host) or not can_force(host, BHI_DIS_S, BHI_DIS_S):
            return (0, 0)
        return (BHI_DIS_S, BHI_DIS_S)


class AsXen(Policy):
    """P1 as Xen ships it: wherever it uses BHI_DIS_S itself, also on Atom-only parts."""

    def pair(self, host: Host, cpuid: Features) -> tuple[int, int]:
        """BHI_DIS_S, where the processor does not report BHI_NO and the host can force it."""
        if cpuid.bhi_ctrl or host.features.bhi_no or not can_force(host, BHI_DIS_S, BHI_DIS_S):
            return (0, 0)
        return (BHI_DIS_S, BHI_DIS_S)


def with_long(kernel: Kernel) -> Kernel:
    """The same kernel with the long sequence instead of the short one."""
    if kernel.sequence is BhbSequence.SHORT:
        return replace(kernel, sequence=BhbSequence.LONG)
    return kernel


class ShortAdequateBit(Policy):
    """P4: a bit of the hypervisor's says that the short sequence is adequate; without it a guest uses the long one."""

    def kernel(self, guest: Guest, cpuid: Features, pool: Sequence[Host]) -> Kernel:
        """Long, unless every host of the pool is one for which the bit may be set."""
        if guest.can_follow and not all(short_is_adequate(host) for host in pool):
            return with_long(guest.kernel)
        return guest.kernel


    def kernel_alone(self, guest: Guest, cpuid: Features) -> Kernel:
        """Long: a bit that nobody sets is not set."""
        return with_long(guest.kernel) if guest.can_follow and not cpuid.bhi_ctrl else guest.kernel


class LongNeededBit(ShortAdequateBit):
    """P4 the other way round, as it was proposed first: the bit says that the short sequence is *not* adequate."""

    def kernel_alone(self, guest: Guest, cpuid: Features) -> Kernel:
        """Short: a bit that nobody sets is not set."""
        return guest.kernel


class LongUnderHypervisor(Policy):
    """P5: a guest that runs under a hypervisor and sees no BHI_CTRL uses the long sequence."""

    def kernel(self, guest: Guest, cpuid: Features, pool: Sequence[Host]) -> Kernel:
        """Long, whatever the pool."""
        if guest.can_follow and not cpuid.bhi_ctrl:
            return with_long(guest.kernel)
        return guest.kernel

    def kernel_alone(self, guest: Guest, cpuid: Features) -> Kernel:
        """The same: it asks the hypervisor for nothing."""
        return self.kernel(guest, cpuid, ())


class CommandLine(Policy):
    """P6: the guest's owner adds ``spectre_bhi=long`` to its command line."""

    def kernel(self, guest: Guest, cpuid: Features, pool: Sequence[Host]) -> Kernel:
        """Long, where it uses a sequence at all."""
        return with_long(guest.kernel) if guest.can_follow else guest.kernel

    def kernel_alone(self, guest: Guest, cpuid: Features) -> Kernel:
        """The same: it asks the hypervisor for nothing."""
        return self.kernel(guest, cpuid, ())


@dataclass(frozen=True, slots=True)
class OnOldHypervisor(Policy):
    """A guest that follows a policy, on a hypervisor that does not know it: today's, say."""

    follows: Policy = field(kw_only=True)

    def kernel(self, guest: Guest, cpuid: Features, pool: Sequence[Host]) -> Kernel:
        """What the guest runs when the hypervisor says nothing."""
        return self.follows.kernel_alone(guest, cpuid)


def on_old_hypervisor(policy: Policy) -> Policy:
    """The same guests under this policy, where the hypervisor is today's.

    >>> on_old_hypervisor(POLICIES["P2"]).kept_by.name
    'NOBODY'
    """
    name = f"{policy.name}-unknown"
    return OnOldHypervisor(name, f"{policy.title}, unknown to the host", "nothing", policy.guest_does, follows=policy)


POLICIES: dict[str, Policy] = {
    policy.name: policy
    for policy in (
        Policy("today", "Today's kernel", "nothing", "what it sees is what it uses"),
        AlwaysForce("P1", "BHI_DIS_S for guests without BHI_CTRL",
                    "forces BHI_DIS_S where the short sequence may not work", "nothing"),
        AsXen("Xen", "P1 as Xen ships it", "forces BHI_DIS_S where it uses it itself", "nothing"),
        Policy("P2", "Intel's virtual MSRs, in KVM", "forces what the guest's report asks for",
               "reports its sequence and its retpoline", kept_by=ReportKeptBy.KVM),
        Policy("P3", "the virtual MSRs in userspace, behind a filter",
               "userspace forces, with the capability on the vCPU, what the report asks for",
               "reports its sequence and its retpoline", kept_by=ReportKeptBy.USERSPACE),
        ShortAdequateBit("P4", "a bit that says the short sequence is adequate",
                         "sets the bit if that holds in the whole pool", "uses the long sequence without the bit"),
        LongUnderHypervisor("P5", "the long sequence under any hypervisor", "nothing",
                            "uses the long sequence wherever it sees no BHI_CTRL"),
        CommandLine("P6", "spectre_bhi=long on the guest's command line", "nothing",
                    "uses the long sequence because its owner says so"),
    )
}
"""The policies that can be computed, by name."""

NOT_COMPUTED: dict[str, str] = {"P7": "a neutral interface that hypervisor and guest negotiate: never specified"}
"""Policies that say too little to be computed, with the reason."""

LONG_NEEDED = LongNeededBit(
    "P4-needed", "a bit that says the short sequence is not adequate",
    "sets the bit unless the short sequence is adequate in the whole pool", "uses the long sequence with the bit")
"""The form of P4 that was proposed first; on a hypervisor that has it no guest runs otherwise than under P4."""
