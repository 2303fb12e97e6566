#!/usr/bin/env python3
"""An adapter to start from, in Python: the levels "processor" and "force" on a small model of its own.

    specctrl run VECTORS --level processor --level force --target 'cmd:python3 adapter.py'

Replace the class Hypervisor by calls of yours: it has one method for each operation.  What it has no method for is
answered with "unsupported", so begin with few.  Needs Python 3.8 and nothing else.
"""
import json
import sys

VIEW, CAPABILITIES, ENUMERATION, OFFER, REPORT = 0x48, 0x10A, 0x50000000, 0x50000001, 0x50000002
VALID = {CAPABILITIES: (1 << 64) - 1, ENUMERATION: 1, OFFER: 3, REPORT: 3}  # what userspace may set
FIELDS = {"SPEC_CTRL": 1 << 0, "STIBP": 1 << 1, "SSBD": 1 << 2, "IPRED_CTRL": 3 << 3, "RRSBA_CTRL": 3 << 5,
          "PSFD": 1 << 7, "DDPD_U": 1 << 8, "BHI_CTRL": 1 << 10}
OBSERVES = ["ret", "value", "values", "errno", "fault", "host_spec_ctrl", "effective", "guest_view", "level", "smm"]


class Host:
    """What `begin` and `migrate` say of a host."""

    def __init__(self, host):
        self.features = set(host["features"])
        self.writable = sum(bits for feature, bits in FIELDS.items() if feature in self.features)
        self.spec_ctrl = int(host["host_spec_ctrl"], 16)
        forcible = self.asks_for(3) & ~(1 << 10) | self.writable & 0x407  # RRSBA_DIS_S; BHI_DIS_S, SSBD, STIBP, IBRS
        self.forcible = forcible if host["spec_ctrl_shadow"] else 0
        known = {"RRSBA": 1 << 19, "BHI_NO": 1 << 20} if "ARCH_CAPABILITIES" in self.features else {}
        self.capabilities = 1 << 63 | sum(bit for feature, bit in known.items() if feature in self.features)

    def asks_for(self, report):
        """The bits that a guest's report needs here."""
        bhi = "BHI_CTRL" in self.features and "BHI_NO" not in self.features
        rrsba = {"RRSBA_CTRL", "RRSBA"} <= self.features
        return (1 << 10 if report & 1 and bhi else 0) | (1 << 6 if report & 2 and rrsba else 0)


class Hypervisor:
    """TODO: yours.  Numbers are ints here; a method returns the observation, or nothing."""

    def __init__(self, host, profile, assume):
        need(not assume["vm-entry-loads-shadow"], "such a processor")
        self.host, self.pair, self.vcpus = Host(host), (0, 0), {}
        self.init_withdraws = assume["init-withdraws-report"]

    def effective(self, vcpu, view):
        mask, value = vcpu["pair"]
        asked = self.host.asks_for(vcpu[REPORT]) & ~mask  # userspace comes first
        return view & ~(mask | asked) | value | asked

    def shows(self, vcpu, msr):
        """Whether the guest can access the MSR."""
        if msr == VIEW:
            return bool(vcpu["cpuid"] & {"SPEC_CTRL", "AMD_IBRS", "AMD_STIBP", "AMD_SSBD"})
        there = msr == CAPABILITIES or (vcpu[CAPABILITIES] >> 63 and (msr == ENUMERATION or vcpu[ENUMERATION] & 1))
        return msr in vcpu and "ARCH_CAPABILITIES" in vcpu["cpuid"] and there

    def write(self, vcpu, msr, value, guest):
        """Whether the write is taken."""
        if msr == VIEW:
            taken = self.host.writable and not self.effective(vcpu, value) & ~self.host.writable
        elif msr == REPORT:
            taken = not value & ~VALID[msr] and not (guest and value & ~vcpu[msr] & ~vcpu[OFFER])
        else:  # nobody but userspace, before the guest runs
            taken = not guest and msr in vcpu and not value & ~VALID[msr] and (not vcpu["ran"] or vcpu[msr] == value)
        if taken and (not guest or self.shows(vcpu, msr)):
            vcpu[msr] = value
            return True
        return False

    def can_force(self, mask, value):
        return self.host.forcible and not value & ~(self.host.forcible & mask)

    def enable_cap(self, fd, cap, args, flags, vcpu=0):
        mask, value, *_ = [*args, 0, 0]
        need(cap == 236 and not flags and self.can_force(mask, value), f"KVM_ENABLE_CAP of {cap} with these arguments")
        if fd == "vm":
            need(not self.vcpus, "refusal of a pair for the VM when a vCPU exists")
            self.pair = mask, value
        else:  # the proposed form: no part of the series as posted
            new = {**self.vcpus[vcpu], "pair": (mask, value)}
            need(not self.effective(new, new[VIEW]) & ~self.host.writable, "refusal of a pair that uncovers a bit")
            self.vcpus[vcpu] = new
        return {"ret": 0}

    def create_vcpu(self, vcpu, features=None):
        need(vcpu < 4096 and vcpu not in self.vcpus, "refusal of this number")
        self.vcpus[vcpu] = {
            VIEW: 0, CAPABILITIES: self.host.capabilities, ENUMERATION: 0, OFFER: 0, REPORT: 0, "pair": self.pair,
            "cpuid": self.host.features if features is None else set(features), "ran": False}
        return {"ret": 0}

    def rdmsr(self, vcpu, msr):
        self.vcpus[vcpu]["ran"] = True
        return {"value": self.vcpus[vcpu][msr]} if self.shows(self.vcpus[vcpu], msr) else {"fault": "#GP"}

    def wrmsr(self, vcpu, msr, value):
        self.vcpus[vcpu]["ran"] = True
        return {} if self.write(self.vcpus[vcpu], msr, value, guest=True) else {"fault": "#GP"}

    def set_msrs(self, vcpu, msrs):
        refused = (n for n, pair in enumerate(msrs) if not self.write(self.vcpus[vcpu], *pair, guest=False))
        return {"ret": next(refused, len(msrs))}

    def get_msrs(self, vcpu, msrs):
        known = msrs[:next((n for n, msr in enumerate(msrs) if msr not in self.vcpus[vcpu]), len(msrs))]
        return {"ret": len(known), "values": [self.vcpus[vcpu][msr] for msr in known]}

    def init(self, vcpu):
        self.vcpus[vcpu].update({VIEW: 0, **({REPORT: 0} if self.init_withdraws else {})})

    def reset_vcpu(self, vcpu):
        self.vcpus[vcpu].update({VIEW: 0, REPORT: 0})
        return {"ret": 0}

    def migrate(self, to, order, force, msrs=(VIEW, REPORT), features=None, vmm="as-specified"):
        need(set(msrs) == {VIEW, REPORT} and vmm == "as-specified", "move without some of the state")
        need(features is None, "CPUID of the destination to compare")
        source, self.host = self.host, Host(to)
        for vcpu in [{"pair": self.pair}, *self.vcpus.values()]:
            vcpu.update({"ran": False} if force == "keep" else {"ran": False, "pair": (0, 0)})
            need(not any(vcpu["pair"]) or self.can_force(*vcpu["pair"]), "refusal of a move")
        self.pair = self.pair if force == "keep" else (0, 0)
        for vcpu in self.vcpus.values() if source.writable else ():
            fits = self.host.writable and not self.effective(vcpu, vcpu[VIEW]) & ~self.host.writable
            need(fits, "refusal of a move")

    def exit(self, vcpu, nmi_leaves=None):
        need(nmi_leaves is None, "NMI")
        self.vcpus[vcpu]["ran"] = True
        return {"host_spec_ctrl": self.host.spec_ctrl}

    def observe(self, vcpu):
        now = self.vcpus[vcpu]
        return {"effective": self.effective(now, now[VIEW]), "guest_view": now[VIEW], "level": 1, "smm": False}


def need(holds, what):
    """Stop a scenario, for something that is not written yet, rather than answer it wrongly."""
    if not holds:
        raise NotImplementedError(f"there is no {what} yet")


def numbers(value):
    """Hex strings as ints."""
    if isinstance(value, list):
        return [numbers(item) for item in value]
    return int(value, 16) if isinstance(value, str) and value.startswith("0x") else value


def written(key, value):
    """64-bit quantities as hex strings."""
    words = ("value", "host_spec_ctrl", "effective", "guest_view")
    return [hex(item) for item in value] if key == "values" else hex(value) if key in words else value


def main():
    hypervisor = None
    for line in sys.stdin:
        try:
            step = json.loads(line)
            op = step.pop("op")
            if op == "begin":
                hypervisor, seen = Hypervisor(**step), {"observes": OBSERVES}
            else:
                need(hasattr(hypervisor, op), op)
                seen = getattr(hypervisor, op)(**{key: numbers(value) for key, value in step.items()}) or {}
        except (NotImplementedError, json.JSONDecodeError) as why:
            seen = {"unsupported": str(why)}
        print(json.dumps({key: written(key, item) for key, item in seen.items()}), flush=True)


main()
