"""Bochs' processor: beside this specification's, and under the emulator's KVM.

In the process that has it: ``serve``, ``hypervisor``, ``cpu``.  On the other side of the pipe: ``processes``,
``processor``, and on them ``compare`` for ``specctrl processor`` and ``target`` for ``specctrl run``.
"""
