"""Userspace: what a VMM does with the hypervisor's interface."""
