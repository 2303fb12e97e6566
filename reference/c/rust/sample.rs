// SPDX-License-Identifier: (GPL-2.0 OR MIT)
//! Part 1 of specctrl.h in a toy VMM in Rust: what sample.c does, through the face that bindgen generates.
//! The guest writes 0x5 while userspace forces SSBD to 0, then reports BHB clearing.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

#[allow(dead_code, non_camel_case_types, non_upper_case_globals)]
mod face {
    include!(env!("FACE"));
}
use face::*;

/// What specctrl.h is given is a pointer to the first field; an accessor finds the rest from it.
#[repr(C)]
struct ToyVcpu {
    spec_ctrl: specctrl_vcpu,
    mask: u64, // vmcs_write64() and vmcs_read64() in your place
    shadow: u64,
    intercept: [bool; 2], // the MSR bitmap
}

/// rdmsr and wrmsr in your place.
static MSR: AtomicU64 = AtomicU64::new(SPEC_CTRL_IBRS as u64);

/// The accessors, which specctrl.h calls; each pointer is one that `ToyVcpu::pointer` gave.
mod accessors {
    use super::*;

    #[no_mangle]
    extern "C" fn specctrl_rdmsr(_: *mut specctrl_vcpu) -> u64 {
        MSR.load(Relaxed)
    }
    #[no_mangle]
    extern "C" fn specctrl_wrmsr(_: *mut specctrl_vcpu, value: u64) {
        MSR.store(value, Relaxed)
    }
    #[no_mangle]
    unsafe extern "C" fn specctrl_accepts(vcpu: *const specctrl_vcpu, value: u64) -> bool {
        specctrl_is_subset(value, specctrl_writable_bits((*(*vcpu).host).features))
    }
    #[no_mangle]
    unsafe extern "C" fn specctrl_write_mask(vcpu: *mut specctrl_vcpu, value: u64) {
        (*vcpu.cast::<ToyVcpu>()).mask = value
    }
    #[no_mangle]
    unsafe extern "C" fn specctrl_write_shadow(vcpu: *mut specctrl_vcpu, value: u64) {
        (*vcpu.cast::<ToyVcpu>()).shadow = value
    }
    #[no_mangle]
    unsafe extern "C" fn specctrl_read_shadow(vcpu: *mut specctrl_vcpu) -> u64 {
        (*vcpu.cast::<ToyVcpu>()).shadow
    }
    #[no_mangle]
    unsafe extern "C" fn specctrl_intercepted(vcpu: *const specctrl_vcpu, vmcs02: bool, write: bool) -> bool {
        !vmcs02 && (*vcpu.cast::<ToyVcpu>()).intercept[write as usize]
    }
    #[no_mangle]
    unsafe extern "C" fn specctrl_intercept(vcpu: *mut specctrl_vcpu, vmcs02: bool, write: bool, on: bool) {
        if !vmcs02 {
            (*vcpu.cast::<ToyVcpu>()).intercept[write as usize] = on
        }
    }
    #[no_mangle]
    extern "C" fn specctrl_msr_allowed(_: *const specctrl_vcpu, _index: u32, _write: bool) -> bool {
        true
    }
}

impl ToyVcpu {
    fn pointer(&mut self) -> *mut specctrl_vcpu {
        (self as *mut ToyVcpu).cast() // of the whole, so that accessors may reach all of it
    }

    /// The guest runs up to its WRMSR; the processor performs it, or the hypervisor after an exit.
    fn guest_wrmsr(&mut self, value: u64) {
        let vcpu = self.pointer();
        unsafe { specctrl_enter_guest(vcpu) };
        let exits = self.intercept[true as usize];
        if !exits {
            self.shadow = value;
            MSR.store(unsafe { specctrl_merge(value, self.mask, MSR.load(Relaxed)) }, Relaxed);
        }
        let vcpu = self.pointer();
        unsafe { specctrl_exit_guest(vcpu) };
        if exits {
            assert_eq!(unsafe { specctrl_write_spec_ctrl(vcpu, value) }, SPECCTRL_DONE, "the guest takes #GP");
        }
        let (view, saved) = (self.spec_ctrl.guest_view, self.spec_ctrl.saved);
        println!("guest reads 0x{view:x}, runs with 0x{saved:x}, host has 0x{:x}", MSR.load(Relaxed));
    }
}

fn main() {
    let host = specctrl_host {
        features: SPECCTRL_HAS_SPEC_CTRL | SPECCTRL_HAS_SSBD | SPECCTRL_HAS_BHI_CTRL,
        spec_ctrl: SPEC_CTRL_IBRS as u64,
        has_control: true,
        nested: false,
        legacy_ibrs: false,
    };
    // SAFETY: zeros are a valid struct of integers, bool and a pointer; specctrl_create fills in the rest.
    let mut vcpu: ToyVcpu = unsafe { std::mem::zeroed() };
    unsafe { specctrl_create(vcpu.pointer(), &host, host.features, SPEC_CTRL_SSBD as u64, 0) };
    vcpu.guest_wrmsr(0x5); // exits: a new vCPU's MSR is intercepted
    unsafe { specctrl_report(vcpu.pointer(), MITI_CTRL_BHB_CLEAR_SEQ_S_USED as u64) };
    vcpu.guest_wrmsr(0x4); // does not exit any more
}
