// SPDX-License-Identifier: (GPL-2.0 OR MIT)
//! A move of a VM, as a VMM performs it: what each VMM carries, and what it does with an MSR that KVM refuses.

use crate::kvm::*;
use crate::{Answer, Machine, Words};
use std::cell::Cell;
use std::rc::Rc;

#[derive(PartialEq)]
enum OnRefusal {
    Stop,
    Abort,
    Skip,
}

/// A VMM; of which version, and where that was read, says the emulator's table of the same names.
struct Vmm {
    name: &'static str,
    feature_msrs: &'static [u32],
    state_msrs: &'static [u32],
    on_refusal: OnRefusal,
    compares_cpuid: bool,
    saves_nested: bool,
    drops_unlisted: bool, // what the destination's KVM does not list
}

const STATE_MSRS: &[u32] = &[MSR_IA32_SPEC_CTRL, MSR_VIRTUAL_MITIGATION_CTRL];
const AS_SPECIFIED: Vmm = Vmm {
    name: "as-specified",
    feature_msrs: &FEATURE_MSRS,
    state_msrs: STATE_MSRS,
    on_refusal: OnRefusal::Stop,
    compares_cpuid: true,
    saves_nested: true,
    drops_unlisted: false,
};
const TODAY: Vmm = Vmm {
    feature_msrs: &[MSR_IA32_ARCH_CAPABILITIES],
    state_msrs: &[MSR_IA32_SPEC_CTRL],
    compares_cpuid: false,
    ..AS_SPECIFIED
};
const VMMS: [Vmm; 4] = [
    AS_SPECIFIED,
    Vmm { name: "qemu", on_refusal: OnRefusal::Abort, drops_unlisted: true, ..TODAY },
    Vmm { name: "firecracker", saves_nested: false, ..TODAY },
    Vmm { name: "cloud-hypervisor", on_refusal: OnRefusal::Skip, ..AS_SPECIFIED },
];

/// The whole VM moves; if a step at the destination fails, the source goes on.
/// rule: contract.move.identity, migration.order, migration.force-again, migration.pending-exit, migration.same-cpuid
pub fn migrate(machine: &mut Machine, words: &Words) -> Answer {
    let vmm = VMMS.iter().find(|vmm| vmm.name == words.text("vmm")).unwrap_or(&VMMS[0]);
    ensure(!words.has("vmm") || words.is("vmm", vmm.name), "unsupported=this VMM is not known here")?;
    let can_move = machine.vcpus.iter().all(|(_, vcpu)| vcpu.msr_exit.is_none() && !vcpu.shut_down);
    ensure(can_move, "misuse=a vCPU has an MSR exit pending, or has shut down")?;
    machine.vcpus.iter_mut().for_each(|(_, vcpu)| vcpu.exit_guest());
    let features = words.list("features", |text| text);
    let shown = words.has("features").then(|| Host::new(&features, false).cpuid);
    let other = machine.vcpus.iter().any(|(_, vcpu)| shown.map_or(false, |cpuid| cpuid != vcpu.cpuid));
    ensure(!vmm.compares_cpuid || !other, "refused=cpuid")?;
    let from = &machine.kvm;
    let (keep, pair) = (words.is("force", "keep"), from.force.get());
    let force = Cell::new(if keep { pair } else { Force::default() });
    let (user_space_msr_mask, msr_filter) = (from.user_space_msr_mask.clone(), from.msr_filter.clone());
    let kvm = Rc::new(Kvm { host: words.host("to"), force, user_space_msr_mask, msr_filter });
    ensure(kvm.force.get() == Force::default() || kvm.host.can_force(pair), "errno=EINVAL")?;
    let lists = from.host.writable != 0 && (kvm.host.writable != 0 || !vmm.drops_unlisted);
    let state_msrs = vmm.state_msrs.iter().copied().filter(|&msr| lists || msr != MSR_IA32_SPEC_CTRL);
    let msrs = if words.has("msrs") { words.msrs("msrs") } else { state_msrs.collect() };
    let mut moved = vec![];
    for (id, from) in &mut machine.vcpus {
        let mut to = VcpuVmx::new(&kvm, shown.unwrap_or(from.cpuid), machine.assume);
        if keep && from.user != to.user {
            to.force(from.user)?;
        }
        copy_msrs(from, &mut to, vmm.feature_msrs, vmm)?;
        if words.is("order", "msrs-first") {
            copy_msrs(from, &mut to, &msrs, vmm)?;
        }
        if vmm.saves_nested {
            to.set_nested_state(&from.nested)?;
        }
        if words.is("order", "nested-first") {
            copy_msrs(from, &mut to, &msrs, vmm)?;
        }
        moved.push((*id, to));
    }
    (machine.kvm, machine.vcpus) = (kvm, moved);
    Ok(String::new())
}

/// rule: migration.refused-keeps-source, migration.restorable
fn copy_msrs(from: &mut VcpuVmx, to: &mut VcpuVmx, msrs: &[u32], vmm: &Vmm) -> Result<(), String> {
    let entries: Vec<MsrEntry> = msrs.iter().copied().zip(from.get_msrs(msrs)).collect();
    let mut done = to.set_msrs(&entries);
    while vmm.on_refusal == OnRefusal::Skip && done < entries.len() {
        done += 1 + to.set_msrs(&entries[done + 1..]);
    }
    match msrs.get(done) {
        Some(msr) if vmm.on_refusal == OnRefusal::Stop => Err(format!("refused={msr:#x}")),
        Some(msr) if vmm.on_refusal == OnRefusal::Abort => Err(format!("refused={msr:#x} vmm_aborts=true")),
        _ => Ok(()),
    }
}
