------------------------------ MODULE SpecCtrl ------------------------------
(***************************************************************************)
(* A second opinion on virtual IA32_SPEC_CTRL, written from the rules of   *)
(* the specification, which are named where used; its variables are those  *)
(* fields of the emulator that can differ in the fragment, and its author  *)
(* had read the rule code.                                                 *)
(*                                                                         *)
(* The fragment: one vCPU on a host with the control "virtualize           *)
(* IA32_SPEC_CTRL", BHI_CTRL and RRSBA (sapphire-rapids), no pair of       *)
(* userspace.  L1 intercepts nothing and has no MSR lists.  Only L1        *)
(* reports, 0 or BHB_CLEAR_SEQ_S_USED.  INIT comes outside VMX operation.  *)
(* No SMM, no access by userspace, no migration.                           *)
(*                                                                         *)
(* Words are sets of bit names.  The host accepts every bit in Bits, so    *)
(* no write faults.                                                        *)
(***************************************************************************)
EXTENDS Naturals

CONSTANT Bits  \* the bits of IA32_SPEC_CTRL that the guest writes

VARIABLES
  view,            \* what the guest wrote, as of the last VM exit
  saved,           \* what the next VM entry loads
  passthrough,     \* whether KVM wants the guest to access the MSR without an exit
  forceMask, forceValue,
  report,          \* MSR_VIRTUAL_MITIGATION_CTRL
  loaded,          \* which VMCS is loaded, so which level runs
  hasRun,          \* there was a VM entry
  vmx,             \* L1 is in VMX operation
  register,        \* the processor's IA32_SPEC_CTRL
  inGuest,         \* the processor is in VMX non-root operation
  mask, shadow,    \* of each VMCS, with what is unobservable left out: see Only
  interceptRead, interceptWrite  \* of each VMCS's bitmap

kvm == <<view, saved, passthrough, forceMask, forceValue, report, hasRun>>
vmcs == <<mask, shadow, interceptRead, interceptWrite>>
vars == <<kvm, vmcs, loaded, vmx, register, inGuest>>

ASSUME {"IBRS", "BHI_DIS_S"} \subseteq Bits

HostValue == {"IBRS", "BHI_DIS_S"}
L1 == 1
L2 == 2
VMCS == {L1, L2}

(* The VMCS that is not loaded: nested.mask-both has MASK and SHADOW       *)
(* written before the guest runs on it, so what they hold is no matter.    *)
Forgotten == {"forgotten"}
Only(which, word) == [v \in VMCS |-> IF v = which THEN word ELSE Forgotten]

\* contract.effective.merge
Merge(guest, m, value) == (guest \ m) \cup (value \cap m)

\* contract.force.deliverable; without a pair of userspace it is mask and value alike
Asked(r) == IF r = 1 THEN {"BHI_DIS_S"} ELSE {}

-----------------------------------------------------------------------------
(* VM entry and VM exit                                                    *)

\* entry.loads-saved, processor.entry.no-load
Entered(value, before) == IF value # HostValue THEN value ELSE before

\* the register once the guest runs
Running == IF inGuest THEN register ELSE Entered(saved, register)

\* What a VM exit of the running guest leaves: exit.saved-is-hardware, exit.view-taken, exit.host-restored.
CouldWrite == ~interceptWrite[loaded]
LeftSaved == IF CouldWrite THEN Running ELSE saved
LeftView == IF CouldWrite THEN shadow[loaded] ELSE view
LeftRegister == IF LeftSaved # HostValue THEN HostValue ELSE Running

\* the same if the vCPU may be in root operation already
Left == /\ view' = IF inGuest THEN LeftView ELSE view
        /\ saved' = IF inGuest THEN LeftSaved ELSE saved
        /\ register' = IF inGuest THEN LeftRegister ELSE register
        /\ inGuest' = FALSE

\* the guest runs on, after an exit, with what KVM saved
RunsOn == /\ inGuest' = TRUE
          /\ hasRun' = TRUE
          /\ register' = Entered(saved', LeftRegister)

-----------------------------------------------------------------------------
(* virt.created-zero: a new vCPU, intercepted, nothing forced              *)

Created ==
  /\ view = {} /\ saved = {} /\ passthrough = FALSE
  /\ forceMask = {} /\ forceValue = {} /\ report = 0
  /\ loaded = L1 /\ hasRun = FALSE /\ vmx = FALSE
  /\ register = HostValue /\ inGuest = FALSE
  /\ mask = Only(L1, {}) /\ shadow = Only(L1, {})
  /\ interceptRead = [v \in VMCS |-> TRUE]
  /\ interceptWrite = [v \in VMCS |-> TRUE]

-----------------------------------------------------------------------------
(* Events                                                                  *)

\* The guest runs, and an interrupt brings the host back.
HostExit ==
  /\ view' = LeftView /\ saved' = LeftSaved /\ register' = LeftRegister
  /\ inGuest' = FALSE /\ hasRun' = TRUE
  /\ UNCHANGED <<passthrough, forceMask, forceValue, report, vmcs, loaded, vmx>>

\* WRMSR without an exit: processor.wrmsr.masked-kept, processor.wrmsr.shadow-unmodified.
WritesItself(value) ==
  /\ ~interceptWrite[loaded]
  /\ register' = Merge(value, mask[loaded], Running)
  /\ shadow' = Only(loaded, value)
  /\ inGuest' = TRUE /\ hasRun' = TRUE
  /\ UNCHANGED <<view, saved, passthrough, forceMask, forceValue, report>>
  /\ UNCHANGED <<mask, interceptRead, interceptWrite, loaded, vmx>>

\* access.emulated.view-and-saved, nested.l0-intercept.emulated, intercept.until-first-nonzero.
\* What ends is the interception at L1; L2's follows with the next merge (nested.bitmap.when).
WrittenByKvm(value) ==
  /\ interceptWrite[loaded]
  /\ view' = value
  /\ saved' = Merge(value, forceMask, forceValue)
  /\ shadow' = Only(loaded, value)
  /\ IF value = {}
     THEN UNCHANGED <<passthrough, interceptRead, interceptWrite>>
     ELSE /\ passthrough' = TRUE
          /\ interceptRead' = [interceptRead EXCEPT ![L1] = FALSE]
          /\ interceptWrite' = [interceptWrite EXCEPT ![L1] = FALSE]
  /\ RunsOn
  /\ UNCHANGED <<forceMask, forceValue, report, mask, loaded, vmx>>

\* virt.report.in-force, force.mask-follows.  With the control a report does not touch interception.
Report(r) ==
  /\ loaded = L1
  /\ report' = r
  /\ forceMask' = Asked(r) /\ forceValue' = Asked(r)
  /\ view' = LeftView
  /\ saved' = Merge(LeftView, Asked(r), Asked(r))
  /\ mask' = Only(L1, Asked(r))
  /\ RunsOn
  /\ UNCHANGED <<passthrough, shadow, interceptRead, interceptWrite, loaded, vmx>>

\* nested.mask-both, nested.entry.view, nested.exit.view: the guest's view goes along.
Load(which) ==
  /\ loaded' = which
  /\ view' = LeftView /\ saved' = LeftSaved
  /\ mask' = Only(which, forceMask)
  /\ shadow' = Only(which, LeftView)
  /\ RunsOn
  /\ UNCHANGED <<passthrough, forceMask, forceValue, report>>

\* nested.bitmap.merged: L1 intercepts nothing here.
NestedEnter ==
  /\ loaded = L1
  /\ vmx' = TRUE
  /\ interceptRead' = [interceptRead EXCEPT ![L2] = interceptRead[L1]]
  /\ interceptWrite' = [interceptWrite EXCEPT ![L2] = interceptWrite[L1]]
  /\ Load(L2)

NestedExit ==
  /\ loaded = L2
  /\ UNCHANGED <<vmx, interceptRead, interceptWrite>>
  /\ Load(L1)

\* init.view-zero, init.report.withdrawn, init.interception-stays; INIT runs nothing.
INIT ==
  /\ ~vmx
  /\ view' = {} /\ saved' = {}
  /\ report' = 0 /\ forceMask' = {} /\ forceValue' = {}
  /\ mask' = Only(L1, {}) /\ shadow' = Only(L1, {})
  /\ register' = IF inGuest THEN LeftRegister ELSE register
  /\ inGuest' = FALSE
  /\ UNCHANGED <<passthrough, hasRun, interceptRead, interceptWrite, loaded, vmx>>

VMXOFF ==
  /\ vmx /\ loaded = L1
  /\ vmx' = FALSE
  /\ Left
  /\ UNCHANGED <<passthrough, forceMask, forceValue, report, hasRun, vmcs, loaded>>

Next ==
  \/ HostExit
  \/ \E value \in SUBSET Bits : WritesItself(value) \/ WrittenByKvm(value)
  \/ \E r \in {0, 1} : Report(r)
  \/ NestedEnter
  \/ NestedExit
  \/ INIT
  \/ VMXOFF

-----------------------------------------------------------------------------
(* Invariants                                                              *)

TypeOK ==
  /\ {view, saved, forceMask, forceValue, register} \subseteq SUBSET Bits
  /\ {mask[loaded], shadow[loaded]} \subseteq SUBSET Bits
  /\ \A v \in VMCS \ {loaded} : mask[v] = Forgotten /\ shadow[v] = Forgotten
  /\ loaded = L2 => vmx

\* exit.host-restored: in root operation, and after the VM exit that may come now.
HostValueAfterExit ==
  /\ ~inGuest => register = HostValue
  /\ inGuest => LeftRegister = HostValue

\* exit.saved-is-hardware: at the VM exit that may come now.
SavedIsHardware == inGuest => LeftSaved = register

\* virt.report.in-force: at L1 and at L2.
ReportInForce == inGuest /\ report = 1 => "BHI_DIS_S" \in register

\* contract.effective.merge, contract.force.nothing-else
NothingElseIsForced == inGuest => register = Merge(LeftView, forceMask, forceValue)

=============================================================================
