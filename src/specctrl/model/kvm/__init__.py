"""The hypervisor: the three file descriptors of KVM and what stands behind them.

state, filters < system, vm < entry < msrs < nested < vcpu.  A vCPU is one class built in four floors,
so that each file holds one subject and a variant can override one operation.
"""
