"""Faults that somebody made: what an implementer got wrong, and what reviewers planted by hand.

They are no mutants of an operator: each is a mistake of its own kind, in one function or in two.  Most of them were
noticed by no published scenario when they were written down, or by one alone.  They are planted as mutants are.
"""

import ast
from dataclasses import dataclass

from specctrl.evidence.mutants import Mutant, names_of, source_of

Change = tuple[str, str, str, str]
"""A module of the model, a function in it, text that stands there once, and what replaces it."""


@dataclass(frozen=True)
class Fault:
    """One fault; ``scenario``: one that notices it; ``changes``: what is planted together."""

    name: str
    scenario: str
    says: str
    changes: tuple[Change, ...]

    def mutants(self) -> list[Mutant]:
        """The changes as mutants."""
        return [changed(self.name, *change) for change in self.changes]


def changed(name: str, module: str, function: str, old: str, new: str) -> Mutant:
    """A mutant that replaces one text in one function; ValueError unless it stands there once.

    >>> changed("example", "words", "newly_set", "new & ~old", "new").text.splitlines()[-1]
    '    return new'
    """
    source = source_of(module).read_text("utf-8")
    top, *inner = function.split(".")
    outermost = next(each for each in ast.parse(source).body if top in names_of(each))
    node: ast.stmt = outermost
    for part in inner:
        assert isinstance(node, ast.ClassDef)
        node = next(each for each in node.body if part in names_of(each))
    lines = source.splitlines(keepends=True)
    text = "".join(lines[node.lineno - 1:node.end_lineno])
    if text.count(old) != 1:
        raise ValueError(f"{name}: {text.count(old)} times in {module}, {function}: {old}")
    decorators = outermost.decorator_list if isinstance(outermost, ast.ClassDef | ast.FunctionDef) else []
    first = min([outermost.lineno, *(each.lineno for each in decorators)])
    whole = "".join([*lines[first - 1:node.lineno - 1], text.replace(old, new),
                     *lines[node.end_lineno:outermost.end_lineno]])
    return Mutant(f"{module}:{function}:fault:{name}", module, "fault", old, new, whole)


_ENTRY, _MSRS, _NESTED, _VCPU = "kvm.entry", "kvm.msrs", "kvm.nested", "kvm.vcpu"
_WRITES = "l1_intercepts(self.controls, msr, write=True)"
_REFLECT = f"        if self.level == 2 and {_WRITES}:\n            self.reflect_and_resume()\n"
_FILTER = """\
        if self.level == 2 and not self.vm.msr_filter.allows(msr, write=True):
            try:
                self.emulate_wrmsr(msr, value)
            except MsrRefused as refusal:
                self.hand_over(PendingExit(ExitKind.WRMSR, refusal.reason, msr, value))
"""

IMPLEMENTER = (
    Fault("restore-by-view", "entry.host-value.no-control",
          "the host's value is not restored where the guest's view is that value", (
        (_ENTRY, "VcpuEntry.restore_host_spec_ctrl", "if held != self", "if self.guest_view != self"),)),
    Fault("reads-for-writes", "nested.bitmap.l1-reads",
          "whether L1 intercepts reads decides about L2's writes", (
        (_NESTED, "VcpuNested.merge_bitmap", "IA32_SPEC_CTRL, write=True)", "IA32_SPEC_CTRL, write=False)"),
        (_VCPU, "Vcpu.wrmsr", _WRITES, _WRITES.replace("True", "False")))),
    Fault("refused-pair-stored", "cap.vcpu.refused-pair.later",
          "a pair for one vCPU that is refused is stored, and counts at the next change", (
        (_ENTRY, "VcpuEntry.force_spec_ctrl", "        if not can_force",
         "        self.user_mask, self.user_value = mask, value\n        if not can_force"),)),
    Fault("runs-after-abort", "nested.lists.abort-ends-vcpu",
          "a VMX abort does not end the vCPU", (
        (_NESTED, "VcpuNested.nested_exit", "self.shut_down = True", "pass"),
        (_NESTED, "VcpuNested.perform_exit_load", "self.shut_down = True", "pass"))),
    Fault("run-pending-left", "nested.state.after-reflected-init",
          "an entry of L1 that ends in the reflection of an INIT stays pending", (
        (_NESTED, "VcpuNested.nested_exit", "self.nested_run_pending = False", "pass"),)),
    Fault("report-not-recomputed", "migration.three-vcpus",
          "a report that userspace restores forces nothing", (
        (_MSRS, "VcpuMsrs.write_mitigation_ctrl", "        self.update_force()",
         "        if not host_initiated:\n            self.update_force()"),)),
    Fault("init-leaves-shadow", "init.outside-vmx",
          "INIT does not reach the SHADOW field", (
        (_VCPU, "Vcpu.init_reset", "self.cpu.write_shadow(self.vmcs, 0)", "pass"),)),
    Fault("edx-dropped", "access.first-write.merged",
          "WRMSR takes 32 bits", (
        (_VCPU, "Vcpu.wrmsr", "        self.run()\n        if msr ==",
         "        value = value & 0xFFFF_FFFF\n        self.run()\n        if msr =="),)),
    Fault("set-msrs-counts-nothing", "access.set-msrs.stops",
          "KVM_SET_MSRS that stops says that it took none", (
        (_VCPU, "Vcpu.set_msrs", "return count", "return 0"),)),
    Fault("offer-binds-host", "field.cpuid.not-compared",
          "what the guest is not offered, userspace cannot set either", (
        (_MSRS, "VcpuMsrs.write_mitigation_ctrl", "if not host_initiated:", "if True:"),)),
    Fault("no-gate", "kvm-abi.kept.bit-63",
          "bit 63 of IA32_ARCH_CAPABILITIES is not asked", (
        (_MSRS, "VcpuMsrs.shows_enumeration", " and bool(self.arch_capabilities & ARCH_CAP_VIRTUAL_ENUM)", ""),)),
    Fault("loads-before-stores", "nested.lists.abort-store",
          "L1's VM-exit store list comes after its load list", (
        (_NESTED, "VcpuNested.nested_exit", "        stored = []\n",
         "        self.load_vmcs(Loaded.VMCS01)\n        self.perform_exit_load(msr_load)\n"
         "        msr_load, stored = (), []\n"),)),
    Fault("init-survives-reset", "init.userspace-reset.smm",
          "a platform reset leaves an INIT pending", (
        (_VCPU, "Vcpu.platform_reset", "self.init_pending = False", "pass"),)),
    # what only the author of another program got wrong: noticed by random histories, and by no scenario then
    Fault("pair-after-view", "migration.vcpu-pair.before-view",
          "a vCPU's own pair is set after the view that only it covers", (
        ("vmm.migration", "restore_vcpu", "    if plan.keep_force and own_pair",
         "    early = state_msrs(source.host, target.host, plan)\n"
         "    set_all(target, early, source.get_msrs(early), plan.vmm)\n    if plan.keep_force and own_pair"),)),
    Fault("own-pair-not-dropped", "migration.vcpu-pair.dropped",
          "a move that leaves the pairs behind takes a vCPU's own along", (
        ("vmm.migration", "restore_vcpu", "if plan.keep_force and own_pair",
         "if (plan.keep_force or own_pair != (source.vm.user_mask, source.vm.user_value)) and own_pair"),)),
    Fault("interception-moves", "migration.intercepted-anew",
          "that accesses were passed through moves with the vCPU", (
        ("vmm.migration", "restore_vcpu", "    features = plan",
         "    target.passthrough = source.passthrough and target.may_pass_through()\n"
         "    target.update_interception()\n    features = plan"),)),
    Fault("run-pending-lost", "migration.run-pending",
          "an entry of L1 that is pending is lost by a move", (
        ("vmm.migration", "restore_vcpu", "        target.restore_nested(source.save_nested())\n",
         "        target.restore_nested(source.save_nested())\n        target.nested_run_pending = False\n"),)),
    Fault("init-unfreezes", "virt.frozen.init",
          "INIT unfreezes the feature MSRs", (
        (_VCPU, "Vcpu.init_reset", "self.init_pending = False", "self.init_pending = self.has_run = False"),)),
    Fault("frozen-shut-in-l2", "virt.frozen.in-l2",
          "while L2 is loaded a frozen MSR refuses the value that it has", (
        (_MSRS, "VcpuMsrs.host_write_msr", "bool(self.read_msr(msr, host_initiated=True) == value)",
         "self.level == 1 and bool(self.read_msr(msr, host_initiated=True) == value)"),)),
    Fault("state-revives", "nested.lists.abort-ends-vcpu.state",
          "KVM_SET_NESTED_STATE brings a vCPU back that has shut down", (
        (_NESTED, "VcpuNested.set_nested_state", "        self.leave_nested()\n",
         "        self.leave_nested()\n        self.shut_down = False\n"),)),
    Fault("init-outlives-abort", "init.in-l2.aborts",
          "an INIT whose exit from L2 is a VMX abort waits on", (
        (_VCPU, "Vcpu.deliver_init", "            self.init_pending = False\n            self.reflect_and_resume()\n",
         "            try:\n                self.reflect_and_resume()\n            finally:\n"
         "                self.init_pending = self.shut_down\n"),)),
)
"""What may go wrong in an implementation that is written from the published material alone."""

REVIEWERS = (
    # hosts without the control
    Fault("reset-needs-control", "init.userspace-reset.no-control",
          "a reset by userspace leaves the view on a host without the control", (
        (_VCPU, "Vcpu.platform_reset", "if self.host.has_spec_ctrl:", "if self.cpu.has_control:"),)),
    Fault("reflects-with-control", "nested.reflect.no-control",
          "L2's write goes to L1, which intercepts it, only on a host with the control", (
        (_VCPU, "Vcpu.wrmsr", "if self.level == 2 and", "if self.cpu.has_control and self.level == 2 and"),)),
    Fault("no-merge-after-restore", "nested.state.bitmap-at-run.no-control",
          "without the control L2's bitmap is not merged anew after KVM_SET_NESTED_STATE", (
        (_NESTED, "VcpuNested.set_nested_state", "self.bitmap_merge_pending = True",
         "self.bitmap_merge_pending = self.cpu.has_control"),)),
    Fault("no-merge-after-rsm", "nested.bitmap.after-rsm.no-control",
          "without the control L2's bitmap is not merged anew after RSM", (
        (_VCPU, "Vcpu.rsm", "self.bitmap_merge_pending = True",
         "self.bitmap_merge_pending = self.cpu.has_control"),)),
    Fault("intercepted-after-l2", "nested.after-l2.no-control",
          "without the control L1 is intercepted after an exit of L2", (
        (_NESTED, "VcpuNested.nested_exit", "        stored = []\n",
         "        stored = []\n        if not self.cpu.has_control:\n"
         "            self.passthrough = False\n            self.update_interception()\n"),)),
    Fault("intercepted-after-vmxoff", "nested.after-l2.no-control",
          "without the control L1 is intercepted after VMXOFF", (
        (_VCPU, "Vcpu.vmxoff", "        self.vmx_operation = False\n",
         "        self.vmx_operation = False\n        if not self.cpu.has_control:\n"
         "            self.passthrough = False\n            self.update_interception()\n"),)),
    # migration
    Fault("refusal-lost", "field.microcode-withdrawn",
          "a host without the MSR takes a view that it cannot keep, and the move goes on", (
        ("vmm.migration", "set_all", "if vmm.on_refusal is not",
         "if target.host.has_spec_ctrl and vmm.on_refusal is not"),)),
    Fault("third-vcpu", "migration.three-vcpus",
          "the third vCPU arrives with the first one's pair", (
        ("vmm.migration", "migrate", "        restore_vcpu(vcpu, new_vcpus[number], plan)\n",
         "        restore_vcpu(vcpu, new_vcpus[number], plan)\n        if number > 1 and plan.keep_force:\n"
         "            first = next(iter(vcpus.values()))\n"
         "            pair = first.user_mask, first.user_value\n"
         "            new_vcpus[number].enable_cap(KVM_CAP_FORCE_SPEC_CTRL, 0, *pair)\n"),)),
    # L2 and SMM
    Fault("filter-before-l1", "nested.bitmap.l1-first",
          "KVM's filter is asked about L2's write before L1's interception", (
        (_VCPU, "Vcpu.wrmsr", _REFLECT, _FILTER + _REFLECT),)),
    Fault("controls-lost-in-smm", "migration.in-smm.controls",
          "L1's controls are lost by a move in SMM", (
        (_NESTED, "VcpuNested.set_nested_state", "self.controls = state.controls",
         "self.controls = L1Controls() if state.smm else state.controls"),)),
    Fault("controls-lost-by-smi", "smm.controls-stay",
          "L1's controls are lost by an SMI", (
        (_VCPU, "Vcpu.smi", "        self.smm = True\n",
         "        self.smm = True\n        self.controls = L1Controls()\n"),)),
    Fault("first-entry-decides", "nested.bitmap.two-entries",
          "of two interceptions of L1 for one MSR only the first counts", (
        (_NESTED, "l1_intercepts",
         "        if intercept.msr == msr and (intercept.write if write else intercept.read):\n"
         "            return True\n",
         "        if intercept.msr == msr:\n            return intercept.write if write else intercept.read\n"),)),
    Fault("failed-entry-pending", "nested.state.after-failed-entry",
          "a VM entry of L1 that fails stays pending", (
        (_NESTED, "VcpuNested.abandon_entry", "self.nested_run_pending = False", "pass"),)),
    Fault("filter-unseen-in-smm", "smm.filter.denies",
          "a filter that changes in SMM does not change what is intercepted", (
        (_ENTRY, "VcpuEntry.msr_filter_changed", "        self.update_interception()\n",
         "        if not self.smm:\n            self.update_interception()\n"),)),
    Fault("half-a-pair", "cap.vcpu.refused-pair.in-l2",
          "a pair that is refused while L2 runs leaves its mask", (
        (_ENTRY, "VcpuEntry.force_spec_ctrl", "        if not self.cpu.accepts(",
         "        if self.level == 2:\n            self.user_mask = mask\n        if not self.cpu.accepts("),)),
    # bounds
    Fault("last-low-msr", "nested.bitmap.ends",
          "MSR 0x1fff counts as outside L1's bitmap", (
        (_NESTED, "l1_intercepts", "msr in BITMAP_LOW", "msr in BITMAP_LOW[:-1]"),)),
    Fault("last-high-msr", "nested.bitmap.ends",
          "MSR 0xc0001fff counts as outside L1's bitmap", (
        (_NESTED, "l1_intercepts", "msr in BITMAP_HIGH", "msr in BITMAP_HIGH[:-1]"),)),
    Fault("longest-range", "filter.limits.longest",
          "a filter range of the greatest length is refused", (
        ("kvm.filters", "check_filter", "entry.count > MAX", "entry.count >= MAX"),)),
    Fault("bytes-for-bits", "filter.limits.longest",
          "entries of a filter range beyond 0x600, the bytes of its bitmap, are not looked at", (
        ("kvm.filters", "MsrFilter.allows", "return entry.allow[msr - entry.base]",
         "return entry.allow[msr - entry.base] if msr - entry.base < 0x600 else self.default_allow"),)),
    Fault("high-ranges", "filter.ends",
          "a filter range whose base is not below 0x600 does not count", (
        ("kvm.filters", "MsrFilter.allows", "covers and entry.base <=",
         "covers and entry.base < 0x600 and entry.base <="),)),
    Fault("last-msr", "filter.last-msr",
          "a filter range has MSRs up to 0xffffffff, where KVM's end of it is 0", (
        ("kvm.filters", "MsrFilter.allows", "(entry.base + entry.count) & 0xFFFF_FFFF",
         "entry.base + entry.count"),)),
    # guests
    Fault("first-value-on-secondary", "guest.boot.secondary.last",
          "a secondary CPU writes the first value of the boot CPU, not the last", (
        ("guest", "boot", "software.spec_ctrl[-1] if", "software.spec_ctrl[0] if"),)),
    Fault("tsx-reported", "guest.report.other-os.tsx",
          "the other OS reports its TSX sequence as the short one", (
        ("guest", "wanted_report", "clears = software.at_entry is BhbSequence.SHORT",
         "clears = software.at_entry in (BhbSequence.SHORT, BhbSequence.TSX)"),)),
    Fault("overhead-by-retpoline", "guest.overhead.rrsba-dis-s",
          "RRSBA_DIS_S counts as needed wherever there is retpoline", (
        ("exposure", "overhead", "if effective & RRSBA_DIS_S and not (software.retpoline and host.features.rrsba):",
         "if effective & RRSBA_DIS_S and not software.retpoline:"),)),
    # switches
    Fault("shadow-never-loaded", "processor.entry.loads-shadow.bare",
          "the assumption that VM entry loads the shadow cannot be switched on", (
        ("processor", "LogicalProcessor.vm_entry", "if self.entry_loads_shadow and", "if False and"),)),
)
"""What reviewers planted: kinds of which no scenario noticed at least one, on the day that they looked."""

FAULTS = (*IMPLEMENTER, *REVIEWERS)
