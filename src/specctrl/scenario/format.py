"""The scenario format as data: every operation, who performs it, its level, its arguments, what it can show.

Checker, JSON Schema, comparison, adapters, levels and random histories all read this table, and the machine has a
method of each name.  An argument is required unless it has a default or is marked as optional here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from specctrl.model import parts
from specctrl.model.exposure import Overhead
from specctrl.model.guest import RELEASES, BhbSequence, BhiDisS, Kernel, KernelCpu, Os, SpectreBhi, SpectreV2
from specctrl.model.kvm.variant import Assumptions
from specctrl.model.parts import FEATURES, PARTS, resolve_host
from specctrl.model.registers import CAP_NUMBERS, MSR_NUMBERS
from specctrl.model.vmm.vmms import VMMS
from specctrl.scenario.kinds import (
    Anything,
    At,
    Choice,
    Either,
    Flag,
    Json,
    Kind,
    Listing,
    Named,
    Null,
    Number,
    Object,
    Pair,
    Text,
)

SCHEMA = "specctrl/scenario/1"
PROFILES = ("spec", "rfc-v3")

ASSUMPTIONS: dict[str, bool] = {item.name.replace("_", "-"): bool(item.default) for item in fields(Assumptions)}
"""The switches of listed assumptions, by their names here, with their defaults."""

LEVELS: dict[str, str] = {
    "processor": "one vCPU accesses IA32_SPEC_CTRL, on a processor with the control; mask and value are set once",
    "force": "a hypervisor that forces bits: pairs at any time, reports, interception without the control, INIT, "
    "what userspace saves and restores, moves to another host",
    "nested": "nested virtualization and SMM",
    "kvm-abi": "the ioctls themselves: what they refuse and count, lists of MSRs, MSR filters, exits to userspace",
}
"""The levels, lowest first, and what each needs."""
PROCESSOR, FORCE, NESTED, KVM_ABI = LEVELS

NESTED_FLAGS = ("GUEST_MODE", "RUN_PENDING", "SMM_GUEST_MODE", "SMM_VMXON")
"""The flags of KVM_GET_NESTED_STATE, without ``KVM_STATE_NESTED_``: the state's, then those of what an SMI left."""

OVERHEADS = tuple(item.value for item in Overhead)
"""What ``observe`` can list as ``overhead``: what the guest that booted pays needlessly."""


class HostKind:
    """A part of the catalogue, by name or with overrides; the catalogue decides what is possible."""

    overrides = Object(
        "a host",
        required={"part": Choice("a part of the catalogue", tuple(PARTS))},
        optional={
            "spec_ctrl_shadow": Flag(),
            "host_spec_ctrl": Number("a 64-bit value"),
            "features": Listing(Choice("a feature", tuple(FEATURES))),
            "without": Listing(Choice("a feature", tuple(FEATURES))),
            "nested": Flag(),
        },
    )
    forms = Either("a host: the name of a part, or an object with a part", {
        str: overrides.required["part"], dict: overrides,
    })

    def read(self, value: Json, at: At) -> Any:
        """The value normalised."""
        before = len(at.problems)
        host = self.forms.read(value, at)
        if len(at.problems) == before:
            try:
                resolve_host(host)
            except ValueError as refusal:
                written = "host_spec_ctrl"
                place = at / written if isinstance(value, dict) and written in value else at
                place.refuse(str(refusal))
        return host

    def write(self, value: Any) -> Json:
        """The host resolved: what an adapter is told of it."""
        host = resolve_host(value)
        return {
            "part": value["part"] if isinstance(value, dict) else value,
            "features": list(host.features.names()),
            "spec_ctrl_shadow": host.spec_ctrl_shadow,
            "host_spec_ctrl": f"{host.spec_ctrl:#x}",
            "nested": host.nested,
            "legacy_ibrs": host.legacy_ibrs,
        }

    def schema(self) -> dict[str, Json]:
        """The kind as a JSON Schema."""
        return self.forms.schema()


WORD = Named("quantity", Number("a 64-bit value"))
MSR = Named("msr", Number("an MSR", 32, names=MSR_NUMBERS))
CAP = Named("capability", Number("a capability", 32, names=CAP_NUMBERS, counts=True))
HOST = Named("host", HostKind())
GUEST_FEATURE = Named("guest-feature", Choice(
    "a CPUID bit of a guest", parts.GUEST_FEATURES))
GUEST_FEATURES = Listing(GUEST_FEATURE)
_MAY_BE_NULL = Named(WORD.name, Number("a 64-bit value", or_else=", or null (no control on this host),"))
WORD_OR_NULL = Either("a 64-bit value or null", {str: _MAY_BE_NULL, int: _MAY_BE_NULL, type(None): Null()})
VCPU = Number("a vCPU's number", 32, hexadecimal=False)
COUNT = Number("a count", 32, hexadecimal=False)
LABEL = Text("a label")
MSRS = Listing(MSR)
WORDS = Listing(WORD)
PAIRS = Named("pairs", Listing(Pair(MSR, WORD)))
LOAD_CONTROLS = Listing(Choice("a control that loads the MSR", ("entry", "exit")))
FD_KVM_VM = Choice("a file descriptor of this ioctl", ("kvm", "vm"))


def _allow_is_count_long(entry: dict[str, Any], at: At) -> None:
    allow, count = entry["allow"], entry["count"]
    if isinstance(count, int) and len(allow) != count:
        (at / "allow").refuse(f"{len(allow)} entries for {count} MSRs")


def _reads_or_writes(entry: dict[str, Any], at: At) -> None:
    """An access that is not named is not meant; at least one has to be named."""
    if "read" not in entry and "write" not in entry:
        at.refuse('neither "read" nor "write" is given')
    entry.setdefault("read", False)
    entry.setdefault("write", False)


def _range(entry: dict[str, Any], at: At) -> None:
    _allow_is_count_long(entry, at)
    _reads_or_writes(entry, at)


_NAMED_ACCESS = {"anyOf": [{"required": ["read"]}, {"required": ["write"]}]}

RANGE = Named("filter-range", Object(
    "a range of a filter",
    required={"base": MSR, "count": COUNT, "allow": Listing(Flag())},
    optional={"read": Flag(), "write": Flag()},
    more=_range,
    more_schema=_NAMED_ACCESS,
))
INTERCEPTED = Object(
    "an interception",
    required={"msr": MSR},
    optional={"read": Flag(), "write": Flag()},
    more=_reads_or_writes,
    more_schema=_NAMED_ACCESS,
)
INTERCEPT = Named("intercept", Either('a list of interceptions or "all"', {
    str: Choice("an interception", ("all",)),
    list: Listing(Either("an MSR or an interception", {str: MSR, int: MSR, dict: INTERCEPTED})),
}))
def _kernel(kernel: dict[str, Any], at: At) -> None:
    try:
        Kernel.from_keys(kernel)
    except ValueError as why:
        at.refuse(str(why))


KERNEL = Named("kernel", Object("a kernel", required={
    "os": Choice("an operating system", tuple(item.value for item in Os)),
}, optional={
    "version": Choice("a version of Linux", tuple(RELEASES)),
    "reports": Flag(),
    "sequence": Choice("a BHB-clearing sequence", tuple(item.value for item in BhbSequence)),
    "retpoline": Flag(),
    "spectre_v2": Choice("a setting of spectre_v2", tuple(item.value for item in SpectreV2)),
    "bhi_dis_s": Choice("a use of BHI_DIS_S", tuple(item.value for item in BhiDisS)),
    "spectre_bhi": Choice("a setting of spectre_bhi", tuple(item.value for item in SpectreBhi)),
}, more=_kernel, more_schema={"if": {"properties": {"retpoline": {"const": True}}, "required": ["retpoline"]}, "then": {
    "properties": {"spectre_v2": {"enum": ["auto", "retpoline", "eibrs,retpoline"]}}}}))


class No:
    """false, said of an outcome that has more to it than true or false."""

    def read(self, value: Json, at: At) -> Any:
        """The value normalised."""
        if value is not False:
            at.refuse("true does not say which")
        return False

    def write(self, _value: Any) -> Json:
        """A normalised value as JSON."""
        return False

    def schema(self) -> dict[str, Json]:
        """The kind as a JSON Schema."""
        return {"const": False}


class RefusedName:
    """An MSR by name, or ``cpuid``."""

    def read(self, value: Json, at: At) -> Any:
        """The value normalised."""
        return value if value == "cpuid" else MSR.read(value, at)

    def write(self, value: Any) -> Json:
        """A normalised value as JSON."""
        return value if value == "cpuid" else MSR.write(value)

    def schema(self) -> dict[str, Json]:
        """The kind as a JSON Schema."""
        return {"anyOf": [{"const": "cpuid"}, MSR.schema()]}


def _outcome(form: type, kind: Kind) -> Kind:
    """An outcome, or false or null, which say that it must not happen."""
    return Either("an outcome, false or null", {bool: No(), form: kind, type(None): Null()})


OUTCOMES: Mapping[str, Kind] = {
    "errno": _outcome(str, Text("the name of an error, such as EINVAL", "E[A-Z0-9]+")),
    "fault": _outcome(str, Text("a fault, such as #GP", "#[A-Z]{2}")),
    "exit": _outcome(dict, Object("an exit to userspace", optional={
        "kind": Choice("an instruction", ("rdmsr", "wrmsr")),
        "reason": Choice("a reason", ("INVAL", "UNKNOWN", "FILTER")),
        "msr": MSR,
        "value": WORD,
    })),
    "fail": _outcome(dict, Object("a failed VM entry", optional={
        "reason": Choice("a reason", ("MSR_LOAD_FAIL",)),
        "entry": Number("the number of an entry", 32, hexadecimal=False, low=1),
    })),
    "host_fault": _outcome(str, Text("a fault, such as #GP", "#[A-Z]{2}")),
    "abort": _outcome(bool, Flag()),
    "reflected": _outcome(bool, Flag()),
    "blocked": _outcome(bool, Flag()),
    "vmm_aborts": _outcome(bool, Flag()),
    "vm_error": _outcome(int, Number("a VM-instruction error", 32, hexadecimal=False, low=1)),
    "entry_failed": _outcome(bool, Flag()),
    "misuse": _outcome(bool, Flag()),
}
"""What fails a step that does not name it; false or null says that it must not happen."""

VALUES: Mapping[str, Kind] = {
    "ret": Number("what an ioctl returns", counts=True),
    "value": WORD,
    "values": WORDS,
    "stored": WORDS,
    "wrote": PAIRS,
    "contains": MSRS,
    "lacks": MSRS,
    "refused": Listing(Either("an MSR or cpuid", {str: RefusedName(), int: MSR})),
    "host_spec_ctrl": WORD,
    "effective": WORD,
    "guest_view": WORD,
    "mask": WORD_OR_NULL,
    "shadow": WORD_OR_NULL,
    "intercepted": Flag(),
    "reads_intercepted": Flag(),
    "saved": WORD,
    "level": Number("a level", 2, hexadecimal=False, low=1),
    "smm": Flag(),
    "in_guest": Flag(),
    "shut_down": Flag(),
    "exposed": Listing(Choice("an exposure", ("BHI", "RRSBA", "BTI"))),
    "overhead": Listing(Choice("an overhead", OVERHEADS)),
    "nested_flags": Listing(Choice("a flag of KVM_GET_NESTED_STATE", NESTED_FLAGS)),
    "guest_field": WORD_OR_NULL,
}
"""What a step can show besides outcomes; not checked unless it is named."""

SHOWS: Mapping[str, Kind] = {**OUTCOMES, **VALUES}
"""Everything that an ``expect`` can name, and an observation hold."""

SETS = ("exposed", "overhead", "refused", "nested_flags")
"""Lists whose order does not matter."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation: who performs it, the level that it needs at least if it succeeds, its arguments, what it can show.

    ``often``: how often a random history has it, beside the others; never, if the reference in C does not perform it.
    A default stands for an argument that a file leaves out.
    """

    who: str
    level: str
    often: float
    args: Mapping[str, Kind]
    shows: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    more: Callable[[dict[str, Any], At], None] | None = None
    more_schema: Mapping[str, Json] = field(default_factory=dict)

    def required(self) -> tuple[str, ...]:
        """The arguments that a step must give."""
        return tuple(name for name in self.args if name not in self.optional and name not in self.defaults)

    def expectable(self) -> tuple[str, ...]:
        """What an ``expect`` can name: what the operation shows, and that it cannot happen now."""
        return (*self.shows, "misuse")


def _vcpu_goes_with_its_fd(args: dict[str, Any], at: At) -> None:
    if args["fd"] == "vcpu":
        args.setdefault("vcpu", 0)
    elif "vcpu" in args:
        (at / "vcpu").refuse('"vcpu" goes with "fd": "vcpu" only')


def _value_or_error(args: dict[str, Any], at: At) -> None:
    if "value" not in args and "error" not in args:
        at.refuse('neither "value" (to answer an RDMSR) nor "error" is given')
    elif "value" in args and args.get("error") is True:
        at.refuse('"value" is given, and "error" is true')


def _on_vcpu(who: str, level: str, often: float, shows: tuple[str, ...] = (), **optional: Kind) -> Operation:
    """An operation of one vCPU whose further arguments may all be absent."""
    return Operation(who, level, often, {"vcpu": VCPU, **optional}, shows, tuple(optional), {"vcpu": 0})


_ENTERS = ("host_fault",)
"""What every operation that enters the guest can show: the host's own WRMSR faults, an oops of the host."""

USERSPACE, GUEST, HOST_SIDE = "userspace", "guest", "host"
_INSTRUCTION = ("fault", "exit", "reflected", *_ENTERS)

OPERATIONS: Mapping[str, Operation] = {
    "check_extension": Operation(
        USERSPACE, KVM_ABI, 0.2, {"cap": CAP, "fd": FD_KVM_VM}, ("ret",), defaults={"fd": "vm"}),
    "get_supported_force_spec_ctrl": Operation(
        USERSPACE, KVM_ABI, 0.2, {"fd": FD_KVM_VM, "bad_pointer": Flag()}, ("ret", "value", "errno"),
        defaults={"fd": "kvm", "bad_pointer": False}),
    "enable_cap": Operation(
        USERSPACE, PROCESSOR, 4,
        {"fd": Choice("a file descriptor of this ioctl", ("vm", "vcpu")), "vcpu": VCPU, "cap": CAP,
         "args": Listing(WORD, most=4),
         "flags": Number("a set of flags", 32)},
        ("ret", "errno"),
        optional=("vcpu",), defaults={"fd": "vm", "args": [], "flags": 0},
        more=_vcpu_goes_with_its_fd,
        more_schema={
            "if": {"required": ["vcpu"]},
            "then": {"required": ["fd"], "properties": {"fd": {"const": "vcpu"}}},
        }),
    "create_vcpu": _on_vcpu(USERSPACE, PROCESSOR, 0.1, ("ret", "errno"), features=GUEST_FEATURES),
    "get_msrs": Operation(USERSPACE, FORCE, 2, {"vcpu": VCPU, "msrs": MSRS}, ("ret", "values"), defaults={"vcpu": 0}),
    "set_msrs": Operation(USERSPACE, FORCE, 6, {"vcpu": VCPU, "msrs": PAIRS}, ("ret",), defaults={"vcpu": 0}),
    "get_feature_msrs": Operation(USERSPACE, KVM_ABI, 0.2, {"msrs": MSRS}, ("ret", "values")),
    "get_msr_index_list": Operation(USERSPACE, KVM_ABI, 0.2, {}, ("contains", "lacks")),
    "get_msr_feature_index_list": Operation(USERSPACE, KVM_ABI, 0.1, {}, ("contains", "lacks")),
    "set_msr_filter": Operation(
        USERSPACE, KVM_ABI, 1.2, {"default": Choice("a default", ("allow", "deny")), "ranges": Listing(RANGE)},
        ("ret", "errno"), defaults={"default": "allow", "ranges": []}),
    "reply_msr_exit": Operation(
        USERSPACE, KVM_ABI, 40, {"vcpu": VCPU, "value": WORD, "error": Flag()}, ("value", *_INSTRUCTION),
        optional=("value", "error"), defaults={"vcpu": 0},
        more=_value_or_error,
        more_schema={"anyOf": [
            {"required": ["value"], "properties": {"error": {"const": False}}},
            {"required": ["error"], "not": {"required": ["value"]}},
        ]}),
    "reset_vcpu": _on_vcpu(USERSPACE, FORCE, 0.7, ("ret",)),
    "get_nested_state": Operation(
        USERSPACE, NESTED, 2, {"vcpu": VCPU, "state": LABEL}, ("ret", "errno", "nested_flags"), defaults={"vcpu": 0}),
    "set_nested_state": Operation(
        USERSPACE, NESTED, 2, {"vcpu": VCPU, "state": LABEL, "run_pending": Flag()}, ("ret", "errno"),
        optional=("run_pending",), defaults={"vcpu": 0}),
    "migrate": Operation(
        USERSPACE, FORCE, 1.5,
        {
            "to": HOST,
            "order": Choice("an order", ("nested-first", "msrs-first")),
            "msrs": MSRS,
            "force": Choice("what becomes of the capability's pair", ("keep", "drop")),
            "features": GUEST_FEATURES,
            "vmm": Choice("a VMM", tuple(VMMS)),
        },
        ("errno", "refused", "vmm_aborts"),
        optional=("msrs", "features", "vmm"), defaults={"order": "nested-first", "force": "keep"}),
    "rdmsr": Operation(
        GUEST, PROCESSOR, 8, {"vcpu": VCPU, "msr": MSR}, ("value", "abort", *_INSTRUCTION), defaults={"vcpu": 0}),
    "wrmsr": Operation(
        GUEST, PROCESSOR, 22, {"vcpu": VCPU, "msr": MSR, "value": WORD}, ("abort", *_INSTRUCTION),
        defaults={"vcpu": 0}),
    "nested_enter": _on_vcpu(
        GUEST, NESTED, 9, ("fail", "reflected", "abort", *_ENTERS),
        msr_load=PAIRS, intercept=INTERCEPT, exit_msr_store=MSRS, exit_msr_load=PAIRS),
    "nested_exit": _on_vcpu(GUEST, NESTED, 9, ("stored", "abort", *_ENTERS), msr_store=MSRS, msr_load=PAIRS),
    "init": _on_vcpu(GUEST, FORCE, 1.5, ("reflected", "blocked", "abort", *_ENTERS)),
    "vmxoff": _on_vcpu(GUEST, NESTED, 2, _ENTERS),
    "smi": _on_vcpu(GUEST, NESTED, 2, _ENTERS),
    "rsm": _on_vcpu(GUEST, NESTED, 5, ("reflected", "abort", *_ENTERS)),
    "boot": Operation(
        GUEST, FORCE, 0,
        {"vcpu": VCPU, "kernel": KERNEL, "cpu": Choice("which CPU", tuple(item.value for item in KernelCpu))},
        ("wrote", *_ENTERS), defaults={"vcpu": 0, "cpu": "boot"}),
    "exit": _on_vcpu(HOST_SIDE, PROCESSOR, 6, ("host_spec_ctrl", *_ENTERS), nmi_leaves=WORD),
    "host_write": Operation(HOST_SIDE, FORCE, 1, {"vcpu": VCPU, "value": WORD}, defaults={"vcpu": 0}),
    "observe": _on_vcpu(HOST_SIDE, PROCESSOR, 0, (
        "effective", "guest_view", "mask", "shadow", "intercepted", "reads_intercepted", "saved", "level", "smm",
        "in_guest", "shut_down", "exposed", "overhead")),
    "bare_stay": Operation(
        HOST_SIDE, PROCESSOR, 0.2,
        {
            "offers": LOAD_CONTROLS, "virtualize": Flag(), "mask": WORD, "shadow": WORD,
            "load_on_entry": Flag(), "guest_field": WORD, "load_on_exit": Flag(), "host_field": WORD,
            "entry_load": WORD, "exit_store": Flag(), "exit_load": WORD, "write": WORD, "read": Flag(),
        },
        ("vm_error", "entry_failed", "abort", "fault", "value", "effective", "host_spec_ctrl", "shadow", "stored",
         "guest_field"),
        optional=("mask", "shadow", "guest_field", "host_field", "entry_load", "exit_load", "write"),
        defaults={"offers": [], **dict.fromkeys(
            ("virtualize", "load_on_entry", "load_on_exit", "exit_store", "read"), False)}),
}
"""Every operation of the format."""

COUNTED = tuple(name for name, each in OPERATIONS.items() if "msrs" in each.args and "ret" in each.shows)
"""Operations whose ``ret`` counts how many of ``msrs`` were processed."""


_WORDS = "[a-z0-9]+(-[a-z0-9]+)*"
ID = Text(
    "an id: lower case, dots from general to specific, hyphens inside a word", rf"{_WORDS}(\.{_WORDS})*")
PROSE = Text(pattern=r"[\s\S]*")

TOP: Mapping[str, Kind] = {
    "schema": Choice("the schema of a scenario", (SCHEMA,)),
    "id": ID,
    "title": PROSE,
    "why": PROSE,
    "rules": Listing(Text("the id of a rule")),
    "profile": Choice("a profile", PROFILES),
    "assume": Object("a table of assumptions", optional=dict.fromkeys(ASSUMPTIONS, Flag())),
    "host": HOST,
    "steps": Anything(),
}
"""The keys of a scenario."""

MOST_STEPS = 10_000
"""So many steps may a scenario have."""

REQUIRED = ("schema", "id", "host", "steps")
"""The keys that a scenario must have."""

NAMED: tuple[Named, ...] = (WORD, MSR, CAP, GUEST_FEATURE, HOST, PAIRS, RANGE, INTERCEPT, KERNEL)
"""The kinds that the schema defines by name."""
