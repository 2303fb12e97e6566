// SPDX-License-Identifier: (GPL-2.0 OR MIT)
//! Performs scenarios on kvm.rs: one line of words in, one line of words out.
//!
//!     specctrl run VECTORS --target cmd:./sample --plain
#[path = "../src/kvm.rs"]
mod kvm;
mod vmm;
#[path = "../src/vmx.rs"]
mod vmx;

use kvm::*;
use std::collections::HashMap;
use std::io::{stdin, stdout, Write};
use std::rc::Rc;
use vmx::{READ, WRITE};

const KVM_CAP_X86_USER_SPACE_MSR: u64 = 188;
const KVM_CAP_X86_MSR_FILTER: u64 = 189;
const KVM_CAP_FORCE_SPEC_CTRL: u64 = 236;
const KVM_MAX_VCPU_IDS: u64 = 4096;

/// A line: key=value, separated by spaces.
struct Words<'a>(HashMap<&'a str, &'a str>);

fn number(text: &str) -> u64 {
    let parsed = text.strip_prefix("0x").map_or(text.parse(), |digits| u64::from_str_radix(digits, 16));
    parsed.unwrap_or_else(|_| panic!("{text:?} is no number"))
}

fn entry(text: &str) -> MsrEntry {
    let (msr, value) = text.split_once(':').unwrap_or_else(|| panic!("{text:?} is no msr:value"));
    (number(msr) as u32, number(value))
}

fn access(text: &str) -> [bool; 2] {
    [text.contains('r'), text.contains('w')]
}

impl<'a> Words<'a> {
    fn text(&self, key: &str) -> &'a str {
        self.0.get(key).copied().unwrap_or("")
    }

    fn number(&self, key: &str) -> u64 {
        self.0.get(key).map_or(0, |text| number(text))
    }

    fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    fn is(&self, key: &str, text: &str) -> bool {
        self.text(key) == text
    }

    fn list<T>(&self, key: &str, item: impl Fn(&'a str) -> T) -> Vec<T> {
        self.text(key).split(',').filter(|text| !text.is_empty()).map(item).collect()
    }

    fn msr(&self, key: &str) -> u32 {
        self.number(key) as u32
    }

    fn msrs(&self, key: &str) -> Vec<u32> {
        self.list(key, |text| number(text) as u32)
    }

    /// The host that stands under "host" or "to".
    fn host(&self, role: &str) -> Host {
        let key = |name: &str| format!("{role}.{name}");
        let features = self.list(&key("features"), |text| text);
        Host {
            spec_ctrl: self.number(&key("host_spec_ctrl")),
            nested: self.is(&key("nested"), "true"),
            legacy_ibrs: self.is(&key("legacy_ibrs"), "true"),
            ..Host::new(&features, self.is(&key("spec_ctrl_shadow"), "true"))
        }
    }

    fn msr_filter(&self) -> MsrFilter {
        let range = |text: &str| {
            let part: Vec<&str> = text.split(':').collect();
            let allow = part[3].chars().map(|digit| digit == '1').collect();
            MsrFilterRange { base: number(part[0]) as u32, access: access(part[2]), allow }
        };
        MsrFilter { default_deny: self.is("default", "deny"), ranges: self.list("ranges", range) }
    }

    fn vmcs12(&self) -> Vmcs12 {
        let intercept = |text: &'a str| text.split_once(':').map(|(msr, rw)| (number(msr) as u32, access(rw)));
        Vmcs12 {
            msr_bitmap: self.list("intercept", intercept).into_iter().collect(), // "all" gives None
            exit_msr_store: self.msrs("exit_msr_store"),
            exit_msr_load: self.list("exit_msr_load", entry),
        }
    }
}

fn hex(numbers: impl IntoIterator<Item = u64>) -> String {
    numbers.into_iter().map(|number| format!("{number:#x}")).collect::<Vec<_>>().join(",")
}

fn index_list(contains: &[u32]) -> String {
    let all = [FEATURE_MSRS.as_slice(), &[MSR_IA32_SPEC_CTRL, MSR_VIRTUAL_MITIGATION_CTRL]].concat();
    let lacks = all.iter().filter(|msr| !contains.contains(msr));
    format!("contains={} lacks={}", hex(contains.iter().map(|&msr| msr as u64)), hex(lacks.map(|&msr| msr as u64)))
}

/// Words: what a step showed, or why it did not complete.
type Answer = Result<String, String>;

impl From<Stop> for String {
    fn from(stop: Stop) -> String {
        match stop {
            Stop::Gp => "fault=#GP".into(),
            Stop::HostGp => "host_fault=#GP".into(),
            Stop::Errno(name) => format!("errno={name}"),
            Stop::VmEntryFailed(entry) => format!("fail.reason=MSR_LOAD_FAIL fail.entry={entry}"),
            Stop::VmxAbort => "abort=true".into(),
            Stop::Reflected => "reflected=true".into(),
            Stop::Blocked => "blocked=true".into(),
            Stop::MsrExit(MsrExit { reason, index, data }) => {
                let reason = format!("{reason:?}").to_uppercase();
                let words = |kind| format!("exit.kind={kind} exit.reason={reason} exit.msr={index:#x}");
                data.map_or(words("rdmsr"), |value| format!("{} exit.value={value:#x}", words("wrmsr")))
            }
        }
    }
}

/// One host and its VM.
#[derive(Default)]
struct Machine {
    kvm: Rc<Kvm>,
    vcpus: Vec<(u64, VcpuVmx)>, // in the order of their creation
    saved: HashMap<String, NestedVmx>,
    assume: Assume,
}

const OK: &str = "ret=0";
const OBSERVES: &str =
    "ret,value,values,stored,contains,lacks,refused,errno,fault,host_fault,exit,fail,abort,reflected,\
     blocked,vmm_aborts,host_spec_ctrl,effective,guest_view,mask,shadow,intercepted,reads_intercepted,saved,level,smm,\
     in_guest,shut_down,nested_flags,vm_error,entry_failed,guest_field,misuse";

impl Machine {
    fn begin(&mut self, words: &Words) -> Answer {
        let assume = Assume {
            init_keeps_report: words.is("assume.init-withdraws-report", "false"),
            entry_loads_shadow: words.is("assume.vm-entry-loads-shadow", "true"),
        };
        let kvm = Rc::new(Kvm { host: words.host("host"), ..Kvm::default() });
        *self = Machine { kvm, assume, ..Machine::default() };
        Ok(format!("profiles=spec observes={OBSERVES}"))
    }

    fn perform(&mut self, words: &Words) -> Answer {
        let host = &self.kvm.host;
        match words.text("op") {
            "begin" => self.begin(words),
            "check_extension" => match words.number("cap") {
                KVM_CAP_FORCE_SPEC_CTRL => Ok(format!("ret={}", (host.supported != 0) as u32)), // cap.check.boolean
                KVM_CAP_X86_USER_SPACE_MSR | KVM_CAP_X86_MSR_FILTER => Ok("ret=1".into()),
                _ => Ok(OK.into()),
            },
            // rule: cap.supported.ioctl-fd, cap.supported.bad-pointer
            "get_supported_force_spec_ctrl" if words.is("fd", "vm") => Err("errno=ENOTTY".into()),
            "get_supported_force_spec_ctrl" if words.is("bad_pointer", "true") => Err("errno=EFAULT".into()),
            "get_supported_force_spec_ctrl" => Ok(format!("ret=0 value={:#x}", host.supported)),
            "enable_cap" => self.enable_cap(words),
            "create_vcpu" => self.create_vcpu(words),
            "get_feature_msrs" => {
                let offered = [host.arch_capabilities, FEATURE_MSRS_VALID[1], FEATURE_MSRS_VALID[2]];
                let value = |msr| FEATURE_MSRS.iter().position(|index| index == msr).map(|at| offered[at]);
                let values: Vec<u64> = words.msrs("msrs").iter().map_while(value).collect();
                Ok(format!("ret={} values={}", values.len(), hex(values)))
            }
            "get_msr_index_list" => Ok(index_list(&self.msr_index_list())),
            "get_msr_feature_index_list" => Ok(index_list(&FEATURE_MSRS)),
            "set_msr_filter" => {
                let filter = words.msr_filter();
                ensure(filter.is_valid(), "errno=EINVAL")?;
                *self.kvm.msr_filter.borrow_mut() = Rc::new(filter);
                self.vcpus.iter_mut().for_each(|(_, vcpu)| vcpu.msr_filter_changed());
                Ok(OK.into())
            }
            "migrate" => vmm::migrate(self, words),
            "boot" => Err("unsupported=a guest kernel stands above what this describes".into()),
            "bare_stay" => Err("unsupported=the processor is below what this describes".into()),
            _ => self.perform_on_vcpu(words),
        }
    }

    /// rule: virt.index-list
    fn msr_index_list(&self) -> Vec<u32> {
        let spec_ctrl = [MSR_IA32_SPEC_CTRL].into_iter().filter(|_| self.kvm.host.writable != 0);
        spec_ctrl.chain(FEATURE_MSRS).chain([MSR_VIRTUAL_MITIGATION_CTRL]).collect()
    }

    /// rule: cap.enable.flags-zero, cap.enable.before-vcpus, cap.enable.replaces, msr-exit.caps
    fn enable_cap(&mut self, words: &Words) -> Answer {
        let args = words.list("args", number);
        let arg = |at| args.get(at).copied().unwrap_or(0);
        let pair = Force { mask: arg(0), value: arg(1) };
        let (cap, vm) = (words.number("cap"), words.is("fd", "vm"));
        if !vm {
            self.vcpu(words)?.exit_guest(); // as every ioctl of a vCPU
        }
        ensure(words.number("flags") == 0, "errno=EINVAL")?;
        match cap {
            KVM_CAP_FORCE_SPEC_CTRL if !vm => self.vcpu(words)?.force(pair)?,
            KVM_CAP_FORCE_SPEC_CTRL if self.vcpus.is_empty() && self.kvm.host.can_force(pair) => {
                self.kvm.force.set(pair)
            }
            KVM_CAP_X86_USER_SPACE_MSR if vm && arg(0) <= 7 => self.kvm.user_space_msr_mask.set(arg(0)),
            _ => return Err("errno=EINVAL".into()),
        }
        Ok(OK.into())
    }

    /// rule: cap.enable.failed-vcpu
    fn create_vcpu(&mut self, words: &Words) -> Answer {
        let id = words.number("vcpu");
        ensure(id < KVM_MAX_VCPU_IDS, "errno=EINVAL")?;
        ensure(self.vcpus.iter().all(|(other, _)| *other != id), "errno=EEXIST")?;
        let features = words.list("features", |text| text);
        let cpuid = if words.has("features") { Host::new(&features, false).cpuid } else { self.kvm.host.cpuid };
        self.vcpus.push((id, VcpuVmx::new(&self.kvm, cpuid, self.assume)));
        Ok(OK.into())
    }

    /// The vCPU of a step; it may wait for userspace, or have shut down.
    fn vcpu(&mut self, words: &Words) -> Result<&mut VcpuVmx, &'static str> {
        let id = words.number("vcpu");
        let found = self.vcpus.iter_mut().find(|(other, _)| *other == id);
        found.map(|(_, vcpu)| vcpu).ok_or("misuse=there is no such vCPU")
    }

    fn perform_on_vcpu(&mut self, words: &Words) -> Answer {
        let (op, label) = (words.text("op"), words.text("state").to_string());
        let saved = self.saved.get(&label).cloned();
        let vcpu = self.vcpu(words)?;
        let pending = vcpu.msr_exit;
        match op {
            "get_msrs" => {
                let values = vcpu.get_msrs(&words.msrs("msrs"));
                return Ok(format!("ret={} values={}", values.len(), hex(values)));
            }
            "set_msrs" => return Ok(format!("ret={}", vcpu.set_msrs(&words.list("msrs", entry)))),
            "get_nested_state" => {
                vcpu.exit_guest();
                let state = vcpu.nested.clone();
                let flags = [
                    ("GUEST_MODE", state.guest_mode),
                    ("RUN_PENDING", state.run_pending),
                    ("SMM_GUEST_MODE", state.smm_guest_mode),
                    ("SMM_VMXON", state.smm_vmxon),
                ];
                let set: Vec<&str> = flags.iter().filter(|flag| flag.1).map(|flag| flag.0).collect();
                self.saved.insert(label, state);
                return Ok(format!("ret=0 nested_flags={}", set.join(",")));
            }
            "set_nested_state" => {
                let mut state = saved.ok_or("misuse=no nested state was saved under this label")?;
                if words.has("run_pending") {
                    state.run_pending = words.is("run_pending", "true");
                }
                vcpu.set_nested_state(&state)?;
                return Ok(OK.into());
            }
            "reply_msr_exit" => {
                let exit = pending.ok_or("misuse=no exit is pending")?;
                let error = words.is("error", "true");
                let fits = if exit.data.is_some() { !words.has("value") } else { error || words.has("value") };
                ensure(fits, "misuse=a pending RDMSR needs a value or an error, a WRMSR takes no value")?;
                vcpu.complete_msr_exit(error)?;
                return Ok(exit.data.map_or(format!("value={:#x}", words.number("value")), |_| String::new()));
            }
            "observe" => return Ok(observe(vcpu)),
            _ => ensure(pending.is_none(), "misuse=an MSR exit is pending; reply first")?,
        }
        if op == "reset_vcpu" {
            vcpu.platform_reset();
            return Ok(OK.into());
        }
        ensure(!vcpu.shut_down, "misuse=the vCPU has shut down")?;
        let NestedVmx { vmxon, guest_mode, smm, .. } = vcpu.nested;
        let possible = match op {
            "nested_enter" => vcpu.kvm.host.nested && !guest_mode && !smm,
            "nested_exit" => guest_mode,
            "vmxoff" => vmxon && !guest_mode,
            "smi" => !smm,
            "rsm" => smm,
            _ => true,
        };
        ensure(possible, "misuse=it cannot happen at this level, in SMM or on this host")?;
        match op {
            "rdmsr" => return Ok(format!("value={:#x}", vcpu.access_msr(words.msr("msr"), None)?)),
            "wrmsr" => vcpu.access_msr(words.msr("msr"), Some(words.number("value"))).map(|_| ())?,
            "nested_enter" => vcpu.vmlaunch(words.vmcs12(), &words.list("msr_load", entry))?,
            "nested_exit" => {
                let stored = vcpu.vmcall(&words.msrs("msr_store"), &words.list("msr_load", entry))?;
                return Ok(format!("stored={}", hex(stored)));
            }
            "init" => vcpu.init()?,
            "vmxoff" => vcpu.vmxoff()?,
            "smi" => vcpu.smi(),
            "rsm" => vcpu.rsm()?,
            "exit" => {
                let nmi_leaves = words.has("nmi_leaves").then(|| words.number("nmi_leaves"));
                let accepted = nmi_leaves.map_or(true, |value| vcpu.cpu.accepts(value));
                ensure(accepted, "misuse=this host's processor refuses what the NMI leaves")?;
                vcpu.run()?;
                vcpu.cpu.spec_ctrl = nmi_leaves.unwrap_or(vcpu.cpu.spec_ctrl); // before KVM has read it
                vcpu.exit_guest();
                return Ok(format!("host_spec_ctrl={:#x}", vcpu.cpu.spec_ctrl));
            }
            "host_write" => {
                ensure(vcpu.cpu.accepts(words.number("value")), "misuse=this host's processor refuses the value")?;
                vcpu.exit_guest();
                vcpu.cpu.spec_ctrl = words.number("value");
            }
            _ => return Err("misuse=there is no such operation".into()),
        }
        Ok(String::new())
    }
}

/// What holds now; nothing enters or leaves the guest.
fn observe(vcpu: &VcpuVmx) -> String {
    let (cpu, host, nested) = (&vcpu.cpu, &vcpu.kvm.host, &vcpu.nested);
    let vmcs = &vcpu.vmcs[nested.guest_mode as usize];
    // What the processor holds while this guest runs: now, or after the next entry.
    let loads = !cpu.non_root && host.writable != 0;
    let effective = if loads { vcpu.saved } else { cpu.spec_ctrl };
    // What the guest would read: what RDMSR gives, or what KVM would after an exit.
    let direct = cpu.non_root && !vmcs.intercept[WRITE];
    let view = match cpu.has_control {
        true if direct || !vmcs.intercept[READ] => vmcs.shadow,
        false if direct => cpu.spec_ctrl,
        _ => vcpu.guest_view,
    };
    // Whether an access of the guest would exit, after a merge of the bitmaps that still waits.
    let exits = |access: usize| match vcpu.merge_pending && nested.guest_mode {
        true => vcpu.vmcs[0].intercept[access] || nested.vmcs12.intercepts(MSR_IA32_SPEC_CTRL, access),
        false => vmcs.intercept[access],
    };
    let field = |value: u64| if cpu.has_control { format!("{value:#x}") } else { "null".into() };
    let (mask, shadow) = (field(vmcs.mask), field(vmcs.shadow));
    let (saved, level, smm) = (vcpu.saved, 1 + nested.guest_mode as u32, nested.smm);
    format!(
        "effective={effective:#x} guest_view={view:#x} mask={mask} shadow={shadow} intercepted={} \
         reads_intercepted={} saved={saved:#x} level={level} smm={smm} in_guest={} shut_down={}",
        exits(WRITE),
        exits(READ),
        cpu.non_root,
        vcpu.shut_down
    )
}

fn main() {
    let mut machine = Machine::default();
    for line in stdin().lines() {
        let line = line.expect("standard input can be read");
        let words = Words(line.split_whitespace().filter_map(|word| word.split_once('=')).collect());
        let answer = machine.perform(&words).unwrap_or_else(|outcome| outcome);
        println!("{}", if answer.is_empty() { "ok" } else { &answer });
        stdout().flush().expect("somebody reads the answers");
    }
}
