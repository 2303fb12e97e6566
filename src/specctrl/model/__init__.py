"""The rule code: what is proven, explored, mutated and shown in the pages.

From the bottom up: words, registers, outcomes and parts; the contract and the processor; the hypervisor in
:mod:`specctrl.model.kvm`; guest kernels, exposure and userspace; the posting and the variants.
"""
