// SPDX-License-Identifier: (GPL-2.0 OR MIT)
//! The processor: IA32_SPEC_CTRL, and the VM-execution control "virtualize IA32_SPEC_CTRL".
//! It stands for the hardware: a hypervisor has RDMSR, WRMSR, VMREAD, VMWRITE and VM entry in the place of it.

/// `value` where `mask` has a 1, `guest` elsewhere; rule: contract.effective.merge, processor.wrmsr.masked-kept
pub fn merge(guest: u64, mask: u64, value: u64) -> u64 {
    (guest & !mask) | (value & mask)
}

/// What a bitmap or a filter says of reads stands at READ, of writes at WRITE.
pub const READ: usize = 0;
pub const WRITE: usize = 1;

/// What a VMCS says about IA32_SPEC_CTRL.
#[derive(Default)]
pub struct Vmcs {
    pub mask: u64,            // IA32_SPEC_CTRL_MASK, 0x204A
    pub shadow: u64,          // IA32_SPEC_CTRL_SHADOW, 0x204C
    pub intercept: [bool; 2], // the MSR bitmap's bits for the MSR
}

/// What an instruction of the guest comes to, if it does not complete.
#[derive(Debug)]
pub enum Trap {
    Gp,
    VmExit,
}

/// A logical processor.
#[derive(Default)]
pub struct Cpu {
    pub writable: u64,            // the bits that are not reserved; 0 where there is no such MSR
    pub has_control: bool,        // "virtualize IA32_SPEC_CTRL" may be 1, and then it is
    pub entry_loads_shadow: bool, // an assumption, false by default; rule: processor.entry.no-load
    pub non_root: bool,           // guest code runs
    pub spec_ctrl: u64,           // the MSR
}

impl Cpu {
    /// rule: access.no-msr.refused
    pub fn accepts(&self, value: u64) -> bool {
        self.writable != 0 && value & !self.writable == 0
    }

    /// rule: processor.root.real-msr
    pub fn wrmsr(&mut self, value: u64) -> Result<(), Trap> {
        if !self.accepts(value) {
            return Err(Trap::Gp);
        }
        self.spec_ctrl = value;
        Ok(())
    }

    /// rule: processor.intercept.first, processor.rdmsr.shadow, processor.without-control.plain
    pub fn guest_rdmsr(&self, vmcs: &Vmcs) -> Result<u64, Trap> {
        match vmcs.intercept[READ] {
            true => Err(Trap::VmExit),
            false if self.has_control => Ok(vmcs.shadow),
            false => Ok(self.spec_ctrl), // that KVM passes it through says that it exists
        }
    }

    /// rule: processor.intercept.first, processor.wrmsr.fault-on-merged, processor.wrmsr.shadow-unmodified
    pub fn guest_wrmsr(&mut self, vmcs: &mut Vmcs, value: u64) -> Result<(), Trap> {
        if vmcs.intercept[WRITE] {
            return Err(Trap::VmExit);
        }
        if !self.has_control {
            return self.wrmsr(value); // rule: processor.without-control.plain
        }
        self.wrmsr(merge(value, vmcs.mask, self.spec_ctrl))?;
        vmcs.shadow = value;
        Ok(())
    }

    /// VMLAUNCH or VMRESUME.
    pub fn vm_entry(&mut self, vmcs: &Vmcs) -> Result<(), Trap> {
        if self.entry_loads_shadow && self.has_control {
            self.wrmsr(merge(vmcs.shadow, vmcs.mask, self.spec_ctrl))?;
        }
        self.non_root = true;
        Ok(())
    }
}
