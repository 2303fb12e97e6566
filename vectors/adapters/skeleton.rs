//! An adapter to fill in, in Rust: it reads every operation and answers "unsupported" to each.
//!
//!     rustc --edition 2021 -o adapter skeleton.rs
//!     specctrl run VECTORS --level processor --target cmd:./adapter --plain
//!
//! One line of words comes in, one line goes out: "op=wrmsr vcpu=0 msr=0x48 value=0x401", and "ok" or "fault=#GP".
//! In this order:
//!
//! 1. `begin`: create your host and VM from the line, and forget those before.  Name in its answer what you can see,
//!    for the level processor value,fault,ret,host_spec_ctrl,effective,guest_view,level,smm (without nesting 1 and
//!    false).  Refuse with `unsupported` a host that you cannot be, and an assume.* that is not your behaviour
//!    (assume.bhi-no-suffices is nothing to you).
//! 2. create_vcpu, wrmsr, rdmsr, exit, observe, then enable_cap: write a method for each and call it in `perform` in
//!    the place of `unsupported`.  After each run the command above; what you have not yet is not counted.
//! 3. Go on in the order of `perform`: the levels force, nested, kvm-abi, as far as you have them.
//!
//! What each operation means stands in README.md and spec/scenarios.md.  The project's reference/rust is a whole
//! program of this kind, in the same order of thought.  Needs no crates.
use std::collections::HashMap;
use std::io::Write;

/// The words of a line.
struct Words<'a>(HashMap<&'a str, &'a str>);

impl<'a> Words<'a> {
    /// The value of a key; None if it is absent, which is something else than "".
    fn text(&self, key: &str) -> Option<&'a str> {
        self.0.get(key).copied()
    }

    /// A number: decimal, or hex with 0x; 0 if it is absent.
    fn number(&self, key: &str) -> u64 {
        let text = self.text(key).unwrap_or("0");
        let parsed = text
            .strip_prefix("0x")
            .map_or(text.parse(), |digits| u64::from_str_radix(digits, 16));
        parsed.unwrap_or_else(|_| panic!("{key}: {text} is no number"))
    }

    /// The items of a list, a,b,c.  Of pairs, 0x48:0x1,0x50000002:0x0, an item is one pair.
    fn list(&self, key: &str) -> Vec<&'a str> {
        self.text(key)
            .unwrap_or("")
            .split(',')
            .filter(|item| !item.is_empty())
            .collect()
    }
}

/// TODO: yours.
#[derive(Default)]
#[allow(dead_code)] // until you read them
struct Hypervisor {
    host_spec_ctrl: u64, // what the host runs with
    has_control: bool,   // "virtualize IA32_SPEC_CTRL"
    has_spec_ctrl: bool, // one of its features; each with a bit in README.md's table gives it the MSR
}

impl Hypervisor {
    fn begin(&mut self, words: &Words) -> String {
        *self = Hypervisor {
            host_spec_ctrl: words.number("host.host_spec_ctrl"),
            has_control: words.text("host.spec_ctrl_shadow") == Some("true"),
            has_spec_ctrl: words.list("host.features").contains(&"SPEC_CTRL"),
        };
        "observes=".into() // TODO: the keys that you can see, with commas and without spaces
    }

    /// What comes -> what goes; [in brackets] what may be absent.  The outcomes fault=#GP, errno=EINVAL,
    /// reflected=true, blocked=true, abort=true, fail.reason=MSR_LOAD_FAIL fail.entry=1 and exit.kind=... stand alone
    /// in the place of it.
    fn perform(&mut self, words: &Words) -> String {
        match words.text("op").unwrap_or("") {
            "begin" => self.begin(words),
            // level processor
            "enable_cap" => unsupported(words), // fd=vm [vcpu=0] cap=236 args=0x1 flags=0x1 -> ret=0
            "create_vcpu" => unsupported(words), // vcpu=0 [features=SPEC_CTRL] -> ret=0
            "rdmsr" => unsupported(words), // vcpu=0 msr=0x48 -> value=0x1
            "wrmsr" => unsupported(words), // vcpu=0 msr=0x48 value=0x1 -> ok
            "exit" => unsupported(words), // vcpu=0 [nmi_leaves=0x1] -> host_spec_ctrl=0x1
            "observe" => unsupported(words), // vcpu=0 -> effective=0x1 guest_view=0x1 mask=0x1 shadow=0x1 intercepted=true reads_intercepted=true saved=0x1 level=1 smm=true in_guest=true shut_down=true
            "bare_stay" => unsupported(words), // offers=entry virtualize=true [mask=0x1] [shadow=0x1] load_on_entry=true [guest_field=0x1] load_on_exit=true [host_field=0x1] [entry_load=0x1] exit_store=true [exit_load=0x1] [write=0x1] read=true -> value=0x1 effective=0x1 host_spec_ctrl=0x1 shadow=0x1 stored=0x1 guest_field=0x1
            // level force
            "get_msrs" => unsupported(words), // vcpu=0 msrs=0x48 -> ret=0 values=0x1
            "set_msrs" => unsupported(words), // vcpu=0 msrs=0x48:0x1 -> ret=0
            "reset_vcpu" => unsupported(words), // vcpu=0 -> ret=0
            "migrate" => unsupported(words), // to.*=... order=nested-first [msrs=0x48] force=keep [features=SPEC_CTRL] [vmm=as-specified] -> refused=0x48
            "init" => unsupported(words), // vcpu=0 -> ok
            "boot" => unsupported(words), // vcpu=0 kernel.*=... cpu=boot -> wrote=0x48:0x1
            "host_write" => unsupported(words), // vcpu=0 value=0x1 -> ok
            // level nested
            "get_nested_state" => unsupported(words), // vcpu=0 state=a -> ret=0 nested_flags=GUEST_MODE
            "set_nested_state" => unsupported(words), // vcpu=0 state=a [run_pending=true] -> ret=0
            "nested_enter" => unsupported(words), // vcpu=0 [msr_load=0x48:0x1] [intercept=0x48:rw] [exit_msr_store=0x48] [exit_msr_load=0x48:0x1] -> ok
            "nested_exit" => unsupported(words), // vcpu=0 [msr_store=0x48] [msr_load=0x48:0x1] -> stored=0x1
            "vmxoff" => unsupported(words), // vcpu=0 -> ok
            "smi" => unsupported(words), // vcpu=0 -> ok
            "rsm" => unsupported(words), // vcpu=0 -> ok
            // level kvm-abi
            "check_extension" => unsupported(words), // cap=236 fd=kvm -> ret=0
            "get_supported_force_spec_ctrl" => unsupported(words), // fd=kvm bad_pointer=true -> ret=0 value=0x1
            "get_feature_msrs" => unsupported(words), // msrs=0x48 -> ret=0 values=0x1
            "get_msr_index_list" => unsupported(words), //  -> contains=0x48 lacks=0x48
            "get_msr_feature_index_list" => unsupported(words), //  -> contains=0x48 lacks=0x48
            "set_msr_filter" => unsupported(words), // default=allow ranges=0x48:1:rw:1 -> ret=0
            "reply_msr_exit" => unsupported(words), // vcpu=0 [value=0x1] [error=true] -> value=0x1
            _ => unsupported(words),
        }
    }
}

fn unsupported(words: &Words) -> String {
    format!(
        "unsupported=no {} yet",
        words.text("op").unwrap_or("operation")
    )
}

fn main() {
    let mut hypervisor = Hypervisor::default();
    for line in std::io::stdin().lines() {
        let line = line.expect("standard input can be read");
        let words = Words(
            line.split(' ')
                .filter_map(|word| word.split_once('='))
                .collect(),
        );
        println!("{}", hypervisor.perform(&words));
        std::io::stdout()
            .flush()
            .expect("somebody reads the answers");
    }
}
