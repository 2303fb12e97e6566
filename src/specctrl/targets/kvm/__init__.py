"""The running kernel as a target: a mini VMM in Python, whose guest executes a scenario's RDMSR and WRMSR.

Works on an unmodified kernel.  MSRs that the kernel does not have are kept in userspace, behind an MSR filter: the
design on which the list agreed in June 2024.

* :mod:`~specctrl.targets.kvm.ioctls` has the numbers and structures of the interface,
  :mod:`~specctrl.targets.kvm.guest_program` the guest's machine code,
  :mod:`~specctrl.targets.kvm.minivmm` the file descriptors.
* :mod:`~specctrl.targets.kvm.probe` asks what this host has, :mod:`~specctrl.targets.kvm.showable` decides from that
  which steps the host can show, :mod:`~specctrl.targets.kvm.target` performs them.
"""
