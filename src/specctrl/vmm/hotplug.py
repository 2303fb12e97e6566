"""One pair for all vCPUs of a VM, changed while it runs, and for the vCPUs that are created later."""

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True)
class SharedPair:
    """The mask and value that a VMM forces on every vCPU of a VM.

    KVM gives each new vCPU ``vm_pair``, that of the capability on the VM fd, which the first vCPU froze.
    ``force`` is KVM_ENABLE_CAP of KVM_CAP_FORCE_SPEC_CTRL on one vCPU's fd (proposed), with its mask and value; what
    it raises is passed on, and the pair is then still the old one.

    >>> given = []
    >>> shared = SharedPair(lambda vcpu, mask, value: given.append((vcpu, hex(mask), hex(value))), (0x400, 0x400))
    >>> shared.created(0)
    >>> shared.change(0x404, 0x400)
    >>> shared.created(1)
    >>> given
    [(0, '0x404', '0x400'), (1, '0x404', '0x400')]
    """

    force: Callable[[int, int, int], object]
    vm_pair: tuple[int, int]
    pair: tuple[int, int] | None = None  # what replaced it on the vCPUs; None: nothing did
    vcpus: list[int] = field(default_factory=list)

    def created(self, vcpu: int) -> None:
        """After each KVM_CREATE_VCPU, before that vCPU's first KVM_RUN."""
        self.vcpus.append(vcpu)
        if self.pair is not None:
            self.force(vcpu, *self.pair)

    def change(self, mask: int, value: int) -> None:
        """Force another pair on every vCPU that exists, and on those to come."""
        for vcpu in self.vcpus:
            self.force(vcpu, mask, value)
        self.pair = (mask, value)
