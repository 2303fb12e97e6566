"""One pair for all vCPUs of a VM, changed while it runs, and for the vCPUs that are created later."""

from collections.abc import Callable
from dataclasses import dataclass, field

from specctrl.model.outcomes import Errno


@dataclass(slots=True)
class SharedPair:
    """The mask and value that a VMM forces on every vCPU of a VM.

    KVM gives each new vCPU ``vm_pair``, that of the capability on the VM fd, which the first vCPU froze.
    ``force`` is KVM_ENABLE_CAP of KVM_CAP_FORCE_SPEC_CTRL on one vCPU's fd (proposed), with its mask and value.

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
    pair: tuple[int, int] = field(init=False)  # what the vCPUs have now
    vcpus: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.pair = self.vm_pair

    def created(self, vcpu: int) -> None:
        """After each KVM_CREATE_VCPU, before that vCPU's first KVM_RUN."""
        if self.pair != self.vm_pair:
            self.force(vcpu, *self.pair)
        self.vcpus.append(vcpu)

    def change(self, mask: int, value: int) -> None:
        """Force another pair on every vCPU that exists, and on those to come.

        Errno if a vCPU refuses it, as one may whose view has a bit that only the old mask made harmless; the vCPUs
        that had it already are given the old pair back.
        """
        for done, vcpu in enumerate(self.vcpus):
            try:
                self.force(vcpu, mask, value)
            except Errno:
                for earlier in self.vcpus[:done]:
                    self.force(earlier, *self.pair)
                raise
        self.pair = (mask, value)
