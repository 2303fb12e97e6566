// SPDX-License-Identifier: (GPL-2.0 OR MIT)
//! The hypervisor: what KVM has to do around the processor, for a VM and each vCPU.
//!
//! Types and functions are named after the kernel's.  "rule:" names what of the specification a function carries out;
//! `specctrl rules show ID` prints the sentence, its source and the page that explains it.

use crate::vmx::{merge, Cpu, Trap, Vmcs, READ, WRITE};
use std::cell::{Cell, RefCell};
use std::{mem::take, rc::Rc};

pub const MSR_IA32_SPEC_CTRL: u32 = 0x48;
pub const MSR_IA32_ARCH_CAPABILITIES: u32 = 0x10a;
pub const MSR_VIRTUAL_ENUMERATION: u32 = 0x5000_0000;
pub const MSR_VIRTUAL_MITIGATION_ENUM: u32 = 0x5000_0001;
pub const MSR_VIRTUAL_MITIGATION_CTRL: u32 = 0x5000_0002;
/// The feature MSRs, and the bits that userspace may set in each.
pub const FEATURE_MSRS: [u32; 3] = [MSR_IA32_ARCH_CAPABILITIES, MSR_VIRTUAL_ENUMERATION, MSR_VIRTUAL_MITIGATION_ENUM];
pub const FEATURE_MSRS_VALID: [u64; 3] = [u64::MAX, VIRT_ENUM_MITIGATION_CTRL_SUPPORT, MITI_CTRL_VALID];

const SPEC_CTRL_IBRS: u64 = 1 << 0;
const SPEC_CTRL_RRSBA_DIS_S: u64 = 1 << 6;
const SPEC_CTRL_BHI_DIS_S: u64 = 1 << 10;
const ARCH_CAP_VIRTUAL_ENUM: u64 = 1 << 63;
const VIRT_ENUM_MITIGATION_CTRL_SUPPORT: u64 = 1 << 0;
const MITI_CTRL_BHB_CLEAR_SEQ_S_USED: u64 = 1 << 0;
const MITI_CTRL_RETPOLINE_S_USED: u64 = 1 << 1;
const MITI_CTRL_VALID: u64 = MITI_CTRL_BHB_CLEAR_SEQ_S_USED | MITI_CTRL_RETPOLINE_S_USED;

/// What an operation ends in, if it does not complete.  What was done before stays done.
pub enum Stop {
    Gp,
    HostGp, // of the host's own WRMSR: must not happen
    Errno(&'static str),
    MsrExit(MsrExit),
    VmEntryFailed(usize), // L1's, at this entry of its VM-entry MSR-load list, from 1
    VmxAbort,
    Reflected, // L1 gets a VM exit instead
    Blocked,   // stays pending
}

pub fn ensure<E>(holds: bool, otherwise: E) -> Result<(), E> {
    holds.then_some(()).ok_or(otherwise)
}

/// Why an MSR access is refused: KVM_MSR_EXIT_REASON_*.
#[derive(Clone, Copy, Debug)]
pub enum MsrExitReason {
    Inval = 1,
    Unknown = 2,
    Filter = 4,
}

/// KVM_EXIT_X86_RDMSR, or with data KVM_EXIT_X86_WRMSR.
#[derive(Clone, Copy)]
pub struct MsrExit {
    pub reason: MsrExitReason,
    pub index: u32,
    pub data: Option<u64>,
}

/// Fields of IA32_SPEC_CTRL: the feature that each comes with, its bits, and those of them that can be forced.
const FIELDS: [(&str, u64, u64); 8] = [
    ("SPEC_CTRL", SPEC_CTRL_IBRS, SPEC_CTRL_IBRS),
    ("STIBP", 1 << 1, 1 << 1),
    ("SSBD", 1 << 2, 1 << 2),
    ("IPRED_CTRL", 3 << 3, 0),
    ("RRSBA_CTRL", 3 << 5, 0), // RRSBA_DIS_S can be forced where there is RRSBA: see Host::new
    ("PSFD", 1 << 7, 0),
    ("DDPD_U", 1 << 8, 0),
    ("BHI_CTRL", SPEC_CTRL_BHI_DIS_S, SPEC_CTRL_BHI_DIS_S),
];

/// What of a CPUID decides who may access which MSR, and what else a VMM may compare.
#[derive(Clone, Copy, Default, PartialEq)]
pub struct Cpuid {
    spec_ctrl: bool, // it shows the MSR
    arch_capabilities: bool,
    shown: u64, // its fields, and AMD's bits
}

/// A host: its processor, and how it runs.
#[derive(Default)]
pub struct Host {
    pub writable: u64,          // bits of IA32_SPEC_CTRL that are not reserved
    pub supported: u64,         // what KVM_GET_SUPPORTED_FORCE_SPEC_CTRL says
    pub bhi: u64,               // what a report of a BHB-clearing sequence comes to, if anything
    pub rrsba: u64,             // and one of retpoline
    pub arch_capabilities: u64, // as KVM offers it
    pub cpuid: Cpuid,           // what its guests see unless told otherwise
    pub spec_ctrl: u64,         // what the host itself runs with
    pub has_control: bool,
    pub nested: bool,
    pub legacy_ibrs: bool,
}

impl Host {
    /// rule: cap.supported.set, contract.force.deliverable, virt.feature-msrs
    pub fn new(features: &[&str], has_control: bool) -> Host {
        let has = |feature: &str| features.contains(&feature);
        let bit = |there: bool, bit: u64| if there { bit } else { 0 };
        let rrsba = bit(has("RRSBA_CTRL") && has("RRSBA"), SPEC_CTRL_RRSBA_DIS_S);
        let writable = FIELDS.iter().map(|&(name, bits, _)| bit(has(name), bits)).sum();
        let amd = bit(has("AMD_IBRS"), 1 << 63) | bit(has("AMD_STIBP"), 1 << 62) | bit(has("AMD_SSBD"), 1 << 61);
        let (spec_ctrl, arch) = (has("SPEC_CTRL") || amd != 0, has("ARCH_CAPABILITIES"));
        let forcible: u64 = FIELDS.iter().map(|&(name, _, bits)| bit(has(name), bits)).sum();
        Host {
            writable,
            supported: bit(has_control, SPEC_CTRL_IBRS | forcible | rrsba),
            bhi: bit(has("BHI_CTRL") && !has("BHI_NO"), SPEC_CTRL_BHI_DIS_S),
            rrsba,
            arch_capabilities: ARCH_CAP_VIRTUAL_ENUM
                | bit(arch, bit(has("RRSBA"), 1 << 19) | bit(has("BHI_NO"), 1 << 20)),
            cpuid: Cpuid { spec_ctrl, arch_capabilities: arch, shown: writable | amd },
            has_control,
            ..Host::default()
        }
    }

    /// rule: cap.enable.needs-support, cap.enable.value-supported, cap.enable.value-in-mask, cap.enable.mask-arbitrary
    pub fn can_force(&self, pair: Force) -> bool {
        self.supported != 0 && pair.value & !(self.supported & pair.mask) == 0
    }
}

/// Bits that are not the guest's, and what they hold.
#[derive(Clone, Copy, Default, PartialEq)]
pub struct Force {
    pub mask: u64,
    pub value: u64,
}

impl Force {
    /// With what a report asks for; rule: contract.force.overlay, contract.force.nothing-else, virt.report.silent
    fn overlay(self, report: u64, host: &Host) -> Force {
        let bhi = if report & MITI_CTRL_BHB_CLEAR_SEQ_S_USED != 0 { host.bhi } else { 0 };
        let rrsba = if report & MITI_CTRL_RETPOLINE_S_USED != 0 { host.rrsba } else { 0 };
        Force { mask: self.mask | bhi | rrsba, value: self.value | ((bhi | rrsba) & !self.mask) }
    }

    fn merge(self, guest: u64) -> u64 {
        merge(guest, self.mask, self.value)
    }
}

/// A range of struct kvm_msr_filter.
pub struct MsrFilterRange {
    pub base: u32,
    pub access: [bool; 2],
    pub allow: Vec<bool>,
}

/// struct kvm_msr_filter
#[derive(Default)]
pub struct MsrFilter {
    pub default_deny: bool,
    pub ranges: Vec<MsrFilterRange>,
}

impl MsrFilter {
    /// rule: filter.default-deny-needs-range, filter.limits
    pub fn is_valid(&self) -> bool {
        let used = || self.ranges.iter().filter(|range| !range.allow.is_empty());
        let fits = |range: &MsrFilterRange| range.allow.len() <= 0x3000 && range.access.contains(&true);
        self.ranges.len() <= 16 && used().all(fits) && (!self.default_deny || used().count() > 0)
    }

    /// kvm_msr_allowed; rule: filter.direction, filter.first-range, filter.x2apic-exempt
    fn allows(&self, msr: u32, access: usize) -> bool {
        let own = |r: &&MsrFilterRange| r.access[access] && msr < r.base.wrapping_add(r.allow.len() as u32); // 32 bits
        let decided = self.ranges.iter().filter(own).find_map(|r| Some(r.allow[msr.checked_sub(r.base)? as usize]));
        (0x800..=0x8ff).contains(&msr) || decided.unwrap_or(!self.default_deny)
    }
}

/// A VM.
#[derive(Default)]
pub struct Kvm {
    pub host: Host,
    pub force: Cell<Force>, // what vCPUs start with
    pub user_space_msr_mask: Cell<u64>,
    pub msr_filter: RefCell<Rc<MsrFilter>>,
}

/// struct vmx_msr_entry
pub type MsrEntry = (u32, u64);

/// What L1's VMCS for L2 says about MSRs.
#[derive(Clone, Default)]
pub struct Vmcs12 {
    pub msr_bitmap: Option<Vec<(u32, [bool; 2])>>, // what it intercepts; None: there is no bitmap
    pub exit_msr_store: Vec<u32>,
    pub exit_msr_load: Vec<MsrEntry>,
}

impl Vmcs12 {
    /// nested_vmx_exit_handled_msr; rule: nested.virtual-msrs.reflected
    pub fn intercepts(&self, msr: u32, access: usize) -> bool {
        let covered = matches!(msr, 0..=0x1fff | 0xc000_0000..=0xc000_1fff);
        match &self.msr_bitmap {
            Some(bits) if covered => bits.iter().any(|bit| bit.0 == msr && bit.1[access]),
            _ => true,
        }
    }
}

/// What of a vCPU moves beside its MSRs: KVM_GET_NESTED_STATE, and the bits of KVM_GET_VCPU_EVENTS.
/// rule: migration.nested-state.no-msrs
#[derive(Clone, Default)]
pub struct NestedVmx {
    pub vmxon: bool,
    pub guest_mode: bool, // L2 runs: vmcs02 is loaded
    pub run_pending: bool,
    pub vmcs12: Vmcs12,
    pub smm: bool,
    pub smm_vmxon: bool, // where RSM goes back to
    pub smm_guest_mode: bool,
    init_pending: bool,
}

/// What no source states: true here is what a scenario may assume instead of the specification.
#[derive(Clone, Copy, Default)]
pub struct Assume {
    pub init_keeps_report: bool,  // rule: init.report.withdrawn
    pub entry_loads_shadow: bool, // rule: processor.entry.no-load
}

/// struct vcpu_vmx
#[derive(Default)]
pub struct VcpuVmx {
    pub kvm: Rc<Kvm>,
    pub cpu: Cpu,           // the one that runs it
    pub cpuid: Cpuid,       // what the guest sees
    pub vmcs: [Vmcs; 2],    // vmcs01, vmcs02
    pub user: Force,        // userspace's pair: at first the VM's, then its own
    force: Force,           // with the guest's report on top
    pub guest_view: u64,    // what the guest wrote and reads, as of the last exit
    pub saved: u64,         // what the next VM entry loads
    passthrough: bool,      // KVM itself wants no exit for the MSR
    feature_msrs: [u64; 3], // values of FEATURE_MSRS
    report: u64,            // MSR_VIRTUAL_MITIGATION_CTRL
    has_run: bool,
    pub shut_down: bool, // after a VMX abort
    pub msr_exit: Option<MsrExit>,
    pub nested: NestedVmx,
    pub merge_pending: bool, // KVM_REQ_GET_NESTED_STATE_PAGES
    assume: Assume,
}

impl VcpuVmx {
    /// KVM_CREATE_VCPU, KVM_SET_CPUID2; rule: cap.vcpu.starts-with-vm-pair, virt.created-zero
    pub fn new(kvm: &Rc<Kvm>, cpuid: Cpuid, assume: Assume) -> VcpuVmx {
        let Host { writable, has_control, spec_ctrl, arch_capabilities, .. } = kvm.host;
        let Assume { entry_loads_shadow, .. } = assume;
        let cpu = Cpu { writable, has_control, spec_ctrl, entry_loads_shadow, non_root: false };
        let (kvm, user, feature_msrs) = (kvm.clone(), kvm.force.get(), [arch_capabilities, 0, 0]);
        let mut vcpu = VcpuVmx { kvm, cpu, cpuid, user, feature_msrs, assume, ..VcpuVmx::default() };
        vcpu.update_force();
        vcpu
    }

    /// Whenever userspace's pair or the report changes, all else follows.
    /// rule: cap.vcpu.report-recomputed, force.zeros-too, virt.report.in-force, virt.report.per-vcpu
    fn update_force(&mut self) {
        self.force = self.user.overlay(self.report, &self.kvm.host);
        self.saved = self.force.merge(self.guest_view);
        self.vmwrite_spec_ctrl();
        self.passthrough |= !self.cpu.has_control && self.guest_view != 0;
        self.recalc_intercepts();
    }

    /// MASK and SHADOW of the loaded VMCS; rule: force.mask-follows, nested.mask-both, contract.level.one-view
    fn vmwrite_spec_ctrl(&mut self) {
        if self.cpu.has_control {
            let vmcs = &mut self.vmcs[self.nested.guest_mode as usize];
            (vmcs.mask, vmcs.shadow) = (self.force.mask, self.guest_view);
        }
    }

    /// vmx_recalc_msr_intercepts; rule: intercept.hidden-msr, intercept.without-control, filter.reintercepts
    fn recalc_intercepts(&mut self) {
        self.passthrough &= self.cpuid.spec_ctrl && (self.cpu.has_control || self.force.mask == 0);
        for access in [READ, WRITE] {
            let allowed = self.kvm.msr_filter.borrow().allows(MSR_IA32_SPEC_CTRL, access);
            self.vmcs[0].intercept[access] = !self.passthrough || !allowed;
            self.vmcs[1].intercept[access] |= !self.passthrough; // else at the next merge: filter.l2-until-merge
        }
    }

    pub fn msr_filter_changed(&mut self) {
        self.exit_guest();
        self.recalc_intercepts();
    }

    /// KVM_CAP_FORCE_SPEC_CTRL on the vCPU fd; rule: cap.vcpu.any-time, cap.vcpu.tried-on-host, force.host-accepts
    pub fn force(&mut self, pair: Force) -> Result<(), Stop> {
        self.exit_guest();
        let merged = pair.overlay(self.report, &self.kvm.host).merge(self.guest_view);
        ensure(self.kvm.host.can_force(pair) && self.cpu.accepts(merged), Stop::Errno("EINVAL"))?;
        self.user = pair;
        self.update_force();
        Ok(())
    }

    // ---- VM entry and VM exit

    /// KVM_RUN, unless the guest runs already; rule: entry.loads-saved, entry.by-register, nested.bitmap.when
    pub fn run(&mut self) -> Result<(), Stop> {
        if take(&mut self.merge_pending) && self.nested.guest_mode {
            self.merge_bitmaps();
        }
        if self.cpu.non_root {
            return Ok(());
        }
        let host = &self.kvm.host;
        if host.writable != 0 && (self.saved != host.spec_ctrl || self.saved != self.cpu.spec_ctrl) {
            self.cpu.wrmsr(self.saved).map_err(|_| Stop::HostGp)?;
        }
        self.cpu.vm_entry(&self.vmcs[self.nested.guest_mode as usize]).map_err(|_| Stop::Gp)?;
        self.nested.run_pending = false;
        self.has_run = true;
        Ok(())
    }

    /// A VM exit, unless KVM runs already; rule: exit.saved-from-view, exit.view-taken, exit.host-restored
    pub fn exit_guest(&mut self) {
        let (host, vmcs) = (&self.kvm.host, &self.vmcs[self.nested.guest_mode as usize]);
        if !take(&mut self.cpu.non_root) || host.writable == 0 {
            return;
        }
        let held = if vmcs.intercept[WRITE] && self.saved != host.spec_ctrl { self.saved } else { self.cpu.spec_ctrl };
        if !vmcs.intercept[WRITE] {
            self.guest_view = if self.cpu.has_control { vmcs.shadow } else { held };
            self.saved = self.force.merge(self.guest_view); // rule: exit.saved-is-hardware
        }
        if held != host.spec_ctrl || host.legacy_ibrs {
            self.cpu.wrmsr(host.spec_ctrl).expect("a host can write its own value");
        }
    }

    // ---- MSRs that KVM reads and writes

    /// rule: access.cpuid-gate, virt.enumeration.gate, virt.ctrl.gate, virt.refusal.inval
    fn guest_has(&self, msr: u32) -> bool {
        let enumeration = self.cpuid.arch_capabilities && self.feature_msrs[0] & ARCH_CAP_VIRTUAL_ENUM != 0;
        match msr {
            MSR_IA32_SPEC_CTRL => self.cpuid.spec_ctrl,
            MSR_IA32_ARCH_CAPABILITIES => self.cpuid.arch_capabilities,
            MSR_VIRTUAL_ENUMERATION => enumeration,
            _ => enumeration && self.feature_msrs[1] & VIRT_ENUM_MITIGATION_CTRL_SUPPORT != 0,
        }
    }

    /// rule: access.read.view, migration.view-not-effective, msr-exit.x2apic
    fn get_msr(&self, msr: u32) -> Result<u64, MsrExitReason> {
        match (msr, FEATURE_MSRS.iter().position(|&index| index == msr)) {
            (MSR_IA32_SPEC_CTRL, _) => Ok(self.guest_view),
            (MSR_VIRTUAL_MITIGATION_CTRL, _) => Ok(self.report),
            (_, Some(at)) => Ok(self.feature_msrs[at]),
            (0x800..=0x8ff, _) => Err(MsrExitReason::Inval),
            _ => Err(MsrExitReason::Unknown),
        }
    }

    /// A guest's RDMSR that KVM performs; rule: filter.decides-first
    fn emulate_rdmsr(&self, msr: u32, access: usize) -> Result<u64, MsrExitReason> {
        ensure(self.kvm.msr_filter.borrow().allows(msr, access), MsrExitReason::Filter)?;
        let value = self.get_msr(msr)?;
        ensure(self.guest_has(msr), MsrExitReason::Inval).and(Ok(value))
    }

    /// A guest's WRMSR that KVM performs, which has the same gates; rule: virt.read-only, virt.ctrl.offered
    fn emulate_wrmsr(&mut self, msr: u32, value: u64) -> Result<(), MsrExitReason> {
        let newly_set = value & !self.emulate_rdmsr(msr, WRITE)?;
        let offered = msr != MSR_VIRTUAL_MITIGATION_CTRL || newly_set & !self.feature_msrs[2] == 0;
        ensure(offered && !FEATURE_MSRS.contains(&msr), MsrExitReason::Inval)?;
        self.set_msr(msr, value)
    }

    /// rule: virt.host.valid-sets, virt.frozen, virt.ctrl.reserved, virt.ctrl.any-time
    fn set_msr(&mut self, msr: u32, value: u64) -> Result<(), MsrExitReason> {
        let now = self.get_msr(msr)?;
        if msr == MSR_IA32_SPEC_CTRL {
            return self.write_spec_ctrl(value);
        }
        let feature = FEATURE_MSRS.iter().position(|&index| index == msr);
        let valid = feature.map_or(MITI_CTRL_VALID, |at| FEATURE_MSRS_VALID[at]);
        let frozen = feature.is_some() && self.has_run && value != now;
        ensure(value & !valid == 0 && !frozen, MsrExitReason::Inval)?;
        match feature {
            Some(at) => self.feature_msrs[at] = value,
            None => self.report = value,
        }
        self.update_force();
        Ok(())
    }

    /// rule: access.emulated.merged-decides, access.emulated.view-and-saved, contract.write.merged-decides,
    /// contract.view.reads-back, intercept.until-first-nonzero, migration.restorable
    fn write_spec_ctrl(&mut self, value: u64) -> Result<(), MsrExitReason> {
        let merged = self.force.merge(value);
        ensure(self.cpu.accepts(merged), MsrExitReason::Inval)?;
        (self.guest_view, self.saved) = (value, merged);
        self.vmwrite_spec_ctrl();
        self.passthrough |= value != 0;
        self.recalc_intercepts();
        Ok(())
    }

    /// KVM_GET_MSRS: those before the first that is refused; rule: filter.guest-only, set-msrs.stops
    pub fn get_msrs(&mut self, msrs: &[u32]) -> Vec<u64> {
        self.exit_guest();
        msrs.iter().map_while(|&msr| self.get_msr(msr).ok()).collect()
    }

    /// KVM_SET_MSRS: how many came before the first that is refused; rule: migration.any-order
    pub fn set_msrs(&mut self, entries: &[MsrEntry]) -> usize {
        self.exit_guest();
        entries.iter().take_while(|&&(msr, value)| self.set_msr(msr, value).is_ok()).count()
    }

    // ---- what the guest executes

    /// The guest goes on, with what came of its instruction.
    fn resume<T>(&mut self, result: Result<T, Stop>) -> Result<T, Stop> {
        if !self.shut_down {
            self.run()?;
        }
        result
    }

    /// RDMSR, or with data WRMSR; rule: nested.reflect, nested.l0-intercept.emulated, msr-exit.reasons
    pub fn access_msr(&mut self, index: u32, data: Option<u64>) -> Result<u64, Stop> {
        self.run()?;
        let vmcs = &mut self.vmcs[self.nested.guest_mode as usize];
        let executed = match data {
            _ if index != MSR_IA32_SPEC_CTRL => Err(Trap::VmExit),
            Some(value) => self.cpu.guest_wrmsr(vmcs, value).and(Ok(0)),
            None => self.cpu.guest_rdmsr(vmcs),
        };
        match executed {
            Ok(value) => return Ok(value),
            Err(Trap::Gp) => return Err(Stop::Gp),
            Err(Trap::VmExit) => self.exit_guest(),
        }
        if self.nested.guest_mode && self.nested.vmcs12.intercepts(index, data.map_or(READ, |_| WRITE)) {
            return self.reflect();
        }
        let performed = match data {
            Some(value) => self.emulate_wrmsr(index, value).and(Ok(0)),
            None => self.emulate_rdmsr(index, READ),
        };
        match performed {
            Err(reason) if self.kvm.user_space_msr_mask.get() & reason as u64 != 0 => {
                let exit = MsrExit { reason, index, data };
                self.msr_exit = Some(exit);
                Err(Stop::MsrExit(exit))
            }
            _ => self.resume(performed.map_err(|_| Stop::Gp)),
        }
    }

    /// KVM_RUN after an exit for an MSR; rule: msr-exit.completes
    pub fn complete_msr_exit(&mut self, error: bool) -> Result<(), Stop> {
        self.msr_exit = None;
        self.resume(ensure(!error, Stop::Gp))
    }

    // ---- nested virtualization

    /// nested_vmx_prepare_msr_bitmap; rule: nested.bitmap.merged
    fn merge_bitmaps(&mut self) {
        for access in [READ, WRITE] {
            let vmcs12 = self.nested.vmcs12.intercepts(MSR_IA32_SPEC_CTRL, access);
            self.vmcs[1].intercept[access] = self.vmcs[0].intercept[access] || vmcs12;
        }
    }

    /// prepare_vmcs02; rule: nested.entry.view, nested.no-control-for-l1
    fn enter_guest_mode(&mut self) {
        self.merge_bitmaps();
        self.nested.guest_mode = true;
        self.vmwrite_spec_ctrl();
    }

    /// vmx_leave_nested; rule: nested.exit.view, nested.failed-entry.view, nested.set-state.no-lists, nested.smi.no-lists
    fn leave_guest_mode(&mut self) {
        self.nested.run_pending = false;
        self.nested.guest_mode = false;
        self.vmwrite_spec_ctrl();
    }

    /// Which entry was refused, from 1, or 0; rule: nested.lists.guest-writes, msr-exit.lists-never-exit
    fn load_msrs(&mut self, entries: &[MsrEntry]) -> usize {
        entries.iter().position(|&(msr, value)| self.emulate_wrmsr(msr, value).is_err()).map_or(0, |at| at + 1)
    }

    /// Back in L1, once its lists were performed; rule: nested.lists.abort
    fn load_host_msrs(&mut self, stored: bool, load: &[MsrEntry]) -> Result<(), Stop> {
        self.leave_guest_mode();
        self.shut_down = !stored || self.load_msrs(load) != 0;
        ensure(!self.shut_down, Stop::VmxAbort)
    }

    /// L1's VMLAUNCH or VMRESUME; rule: nested.bitmap.when, nested.lists.fail-half, nested.init.delivered
    pub fn vmlaunch(&mut self, vmcs12: Vmcs12, entry_msr_load: &[MsrEntry]) -> Result<(), Stop> {
        self.run()?;
        self.exit_guest();
        let exit_msr_load = vmcs12.exit_msr_load.clone();
        self.nested = NestedVmx { vmxon: true, run_pending: true, vmcs12, ..self.nested.clone() };
        self.enter_guest_mode();
        let entered = match self.load_msrs(entry_msr_load) {
            0 => self.deliver_init(),
            failed => self.load_host_msrs(true, &exit_msr_load).and(Err(Stop::VmEntryFailed(failed))),
        };
        self.resume(entered)
    }

    /// L2's VMCALL.
    pub fn vmcall(&mut self, store: &[u32], load: &[MsrEntry]) -> Result<Vec<u64>, Stop> {
        self.run()?;
        self.exit_guest();
        let stored = self.nested_vmexit(store, load);
        self.resume(stored)
    }

    /// nested_vmx_vmexit; rule: nested.lists.store-view
    fn nested_vmexit(&mut self, store: &[u32], load: &[MsrEntry]) -> Result<Vec<u64>, Stop> {
        let stored: Vec<u64> = store.iter().map_while(|&msr| self.emulate_rdmsr(msr, READ).ok()).collect();
        self.load_host_msrs(stored.len() == store.len(), load).and(Ok(stored))
    }

    /// An exit of L2 goes to L1, with the lists that L1 gave; rule: nested.reflect
    fn reflect<T>(&mut self) -> Result<T, Stop> {
        let Vmcs12 { exit_msr_store, exit_msr_load, .. } = self.nested.vmcs12.clone();
        let reflected = self.nested_vmexit(&exit_msr_store, &exit_msr_load).and(Err(Stop::Reflected));
        self.resume(reflected)
    }

    /// KVM_SET_NESTED_STATE; rule: migration.any-order, nested.bitmap.when, nested.set-state.no-lists
    pub fn set_nested_state(&mut self, state: &NestedVmx) -> Result<(), Stop> {
        self.exit_guest();
        let vmx = self.kvm.host.nested || !(state.vmxon || state.smm_vmxon);
        ensure(vmx && (state.guest_mode || !state.run_pending), Stop::Errno("EINVAL"))?;
        self.leave_guest_mode();
        self.nested = state.clone();
        self.reenter_guest_mode();
        Ok(())
    }

    /// Without an instruction of L1: the bitmaps are merged again before the next VM entry.
    fn reenter_guest_mode(&mut self) {
        if self.nested.guest_mode {
            self.enter_guest_mode();
            self.merge_pending = true;
        }
    }

    // ---- INIT, SMM, reset

    /// INIT, then SIPI; rule: nested.init.blocked
    pub fn init(&mut self) -> Result<(), Stop> {
        self.exit_guest();
        self.nested.init_pending = true;
        self.deliver_init()?;
        ensure(!self.nested.init_pending, Stop::Blocked)
    }

    /// rule: nested.init.delivered, nested.init.reflected, init.view-zero, init.userspace-stays
    fn deliver_init(&mut self) -> Result<(), Stop> {
        let blocked = self.nested.smm || (self.nested.vmxon && !self.nested.guest_mode);
        if blocked || !take(&mut self.nested.init_pending) {
            return Ok(());
        }
        if self.nested.guest_mode {
            return self.reflect();
        }
        self.guest_view = 0;
        self.report &= if self.assume.init_keeps_report { u64::MAX } else { 0 };
        self.update_force();
        Ok(())
    }

    pub fn vmxoff(&mut self) -> Result<(), Stop> {
        self.exit_guest();
        self.nested.vmxon = false;
        self.deliver_init()
    }

    /// vmx_enter_smm; rule: nested.smi.view
    pub fn smi(&mut self) {
        self.exit_guest();
        self.nested.smm = true;
        self.nested.smm_vmxon = take(&mut self.nested.vmxon);
        self.nested.smm_guest_mode = self.nested.guest_mode;
        self.leave_guest_mode();
    }

    /// vmx_leave_smm; rule: nested.smi.view
    pub fn rsm(&mut self) -> Result<(), Stop> {
        self.exit_guest();
        self.nested.smm = false;
        self.nested.vmxon = take(&mut self.nested.smm_vmxon);
        self.nested.guest_mode = take(&mut self.nested.smm_guest_mode);
        self.reenter_guest_mode();
        self.deliver_init()
    }

    /// What userspace does to reset the platform; rule: reset.userspace
    pub fn platform_reset(&mut self) {
        self.exit_guest();
        self.leave_guest_mode();
        (self.nested, self.shut_down) = (NestedVmx::default(), false);
        self.set_msrs(&[(MSR_IA32_SPEC_CTRL, 0)]); // refused where the host has none
        self.set_msrs(&[(MSR_VIRTUAL_MITIGATION_CTRL, 0)]);
    }
}
