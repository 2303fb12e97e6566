"""What upstream trees take: a KVM selftest, rows of their tables, a fragment of their documentation.

Everything here is generated from the rules, the register tables and the published scenarios.
"""
