"""A KVM selftest in C: the harness of ``reference/upstream``, with a table of cases from the published scenarios."""

import re
import textwrap
from collections.abc import Iterable, Iterator

from specctrl.model.registers import (
    CAPABILITIES,
    KVM_CAP_FORCE_SPEC_CTRL,
    KVM_GET_SUPPORTED_FORCE_SPEC_CTRL,
    MSR_NUMBERS,
    REGISTERS,
)
from specctrl.rules import data_folder
from specctrl.scenario import Step, read
from specctrl.scenario.selection import Selection
from specctrl.vectors.upstream.cases import CPUID_FEATURES, MAX_MSRS, MAX_VCPUS, NEEDS, Case, cases, hidden

HARNESS = "force_spec_ctrl_test.c"
FOLDER = "reference/upstream"

ALL = Selection()

_MARK = re.compile(r"^(?P<tabs>\t*)/\* @generated: (?P<part>\w+) \*/\n", re.MULTILINE)
_NAMES = {number: f"MSR_{name.removeprefix('MSR_')}" for name, number in MSR_NUMBERS.items()}
_OF_THE_KERNEL = ("MSR_IA32_SPEC_CTRL", "MSR_IA32_ARCH_CAPABILITIES")
"""Names that the kernel's own headers have, the series or not."""
_CAPABILITY_NAMES = {capability.number: capability.name for capability in CAPABILITIES.values()}
_OPS = {
    "check_extension": "CHECK_EXTENSION", "get_supported_force_spec_ctrl": "GET_SUPPORTED",
    "enable_cap": "ENABLE_CAP", "create_vcpu": "OP_CREATE_VCPU", "get_msrs": "GET_MSRS", "set_msrs": "SET_MSRS",
    "get_feature_msrs": "GET_FEATURE_MSRS", "get_msr_index_list": "INDEX_LIST",
    "get_msr_feature_index_list": "FEATURE_INDEX_LIST",
}
_FDS = {"kvm": "ON_KVM", "vm": "ON_VM", "vcpu": "ON_VCPU"}


def selftest(selection: Selection = ALL) -> str:
    """The text of the selftest, with the scenarios of a selection."""
    chosen, _ = cases(selection.of(read([data_folder("vectors")])))
    return filled((data_folder(FOLDER) / HARNESS).read_text("utf-8"), chosen)


def filled(harness: str, chosen: Iterable[Case]) -> str:
    """The harness with its generated parts; ValueError for a mark that nothing fills, or that is missing."""
    parts = {"numbers": _numbers(), "features": _features(), "cpuid": _cpuid(), "cases": "".join(_cases(list(chosen)))}
    marks = [mark["part"] for mark in _MARK.finditer(harness)]
    if sorted(marks) != sorted(parts):
        raise ValueError(f"the harness has the marks {', '.join(marks)}; wanted: {', '.join(parts)}")
    return _MARK.sub(lambda mark: textwrap.indent(parts[mark["part"]], mark["tabs"]), harness)


def msr_name(number: int) -> str:
    """The kernel's name of an MSR, else its number.

    >>> msr_name(0x48), msr_name(0x1234)
    ('MSR_IA32_SPEC_CTRL', '0x1234')
    """
    return _NAMES.get(number, f"{number:#x}")


def _numbers() -> str:
    """Numbers that a tree without the series, or with some of it, lacks."""
    lines = ["/*\n * A tree that has the series has these in its own headers, with its own numbers.\n */\n"]
    ioctl = KVM_GET_SUPPORTED_FORCE_SPEC_CTRL
    defined = {name: f"{number:#x}" for number, name in _NAMES.items() if name not in _OF_THE_KERNEL}
    defined["KVM_CAP_FORCE_SPEC_CTRL"] = str(KVM_CAP_FORCE_SPEC_CTRL)
    defined[ioctl.name] = f"_IOR(KVMIO, {ioctl.nr:#x}, __u64)"
    for name, value in defined.items():
        lines.append(f"#ifndef {name}\n#define {name}\t{value}\n#endif\n")
    return "".join(lines) + f"\n#define MAX_VCPUS\t{MAX_VCPUS}\n#define MAX_MSRS\t{MAX_MSRS}\n"


def _features() -> str:
    lines = [f"#define HAS_{name}\t(1u << {bit})\n" for bit, name in enumerate(NEEDS)]
    arch = REGISTERS["IA32_ARCH_CAPABILITIES"]
    lines.append(f"#define LAST_CPUID_FEATURE\tHAS_{CPUID_FEATURES[-1]}\n\n")
    lines.append("static const char * const feature_names[] = {\n")
    lines += [f'\t"{_SAID.get(name, name)}",\n' for name in NEEDS]
    lines.append("};\n\n/* The bits of MSR_IA32_ARCH_CAPABILITIES that are compared. */\n")
    lines += [f"#define ARCH_CAP_BIT_{name}\t(1ull << {arch.field(name).low})\n" for name in ("RRSBA", "BHI_NO")]
    compared = sum(1 << arch.field(name).low for name in ("RRSBA", "BHI_NO", "VIRTUAL_ENUM"))  # ITS_NO is the host's
    lines.append(f"#define ARCH_CAP_BITS\t\t{compared:#x}ull\n")
    return "".join(lines)


_SAID = {
    "CONTROL": "the control virtualize IA32_SPEC_CTRL", "VIRTUAL_MSRS": "virtual MSRs in KVM",
    "PER_VCPU": "the capability on a vCPU",
}


def cpuid_bit(feature: str) -> tuple[int, int]:
    """The subleaf of CPUID leaf 7 and the bit of EDX that shows a feature.

    >>> cpuid_bit("BHI_CTRL")
    (2, 4)
    """
    for subleaf in (0, 2):
        for field in REGISTERS[f"CPUID.(7,{subleaf}):EDX"]:
            if field.name == feature:
                return subleaf, field.low
    raise KeyError(feature)


def _cpuid() -> str:
    lines = []
    for name in CPUID_FEATURES:
        subleaf, bit = cpuid_bit(name)
        lines.append(f"case HAS_{name}:\n\treturn KVM_X86_CPU_FEATURE(0x7, {subleaf}, EDX, {bit});\n")
    return "".join(lines)


# ---- the table


def _cases(chosen: list[Case]) -> Iterator[str]:
    yield f"/* ---- {len(chosen)} cases, generated: do not edit " + "-" * 26 + " */\n\n"
    yield "static const struct test_case cases[] = {\n"
    for case in chosen:
        yield _comment(case.title) if case.title else ""
        flags = f"{_flags(case.needs)}, {_flags(case.lacks)}"
        yield f'\tCASE("{case.id}",\n' + _wrapped(flags + ",", "\t     ")
        yield ",\n".join(_wrapped(_step(step), "\t     ").rstrip("\n") for step in case.steps) + "),\n"
    yield "};\n"


def _comment(text: str) -> str:
    line = f"\t/* {text} */\n"
    return line if len(line) <= 90 else "\t/*\n" + textwrap.fill(
        text, 84, initial_indent="\t * ", subsequent_indent="\t * ") + "\n\t */\n"


def _wrapped(text: str, indent: str) -> str:
    """Text broken behind commas and before bars only, and in no innermost pair of braces."""
    kept = re.sub(r"\{[^{}]{,60}\}", lambda inner: inner[0].replace(" ", "\0"), text)
    kept = re.sub(r"(?<!,) (?!\|)", "\0", kept)
    lines = textwrap.wrap(kept, 78, initial_indent=indent, subsequent_indent=indent + "  ", break_long_words=False,
                          break_on_hyphens=False)
    return "\n".join(lines).replace("\0", " ") + "\n"


def _flags(names: Iterable[str]) -> str:
    return " | ".join(f"HAS_{name}" for name in names) or "0"


def _step(step: Step) -> str:
    """One step, with the harness's macro where it has one for what the step shows."""
    args, expect = step.args, step.expect
    if step.op in ("rdmsr", "wrmsr"):
        access = f"{args['vcpu']}, {msr_name(args['msr'])}"
        wrote = f", {_word(args['value'])}" if step.op == "wrmsr" else ""
        if "fault" in expect:
            return f"{step.op.upper()}_GP({access}{wrote})"
        if step.op == "wrmsr":
            return f"WRMSR({access}{wrote})"
        return f"RDMSR({access}, {_word(expect['value'])})" if "value" in expect else f"RDMSR_ANY({access})"
    if step.op == "create_vcpu" and not expect:
        return f"CREATE_VCPU({args['vcpu']}, {_flags(hidden(step))})"
    return f"{{ {', '.join([f'.op = {_OPS[step.op]}', *_arguments(step), *_expected(step)])} }}"


def _arguments(step: Step) -> Iterator[str]:
    args = step.args
    if args.get("fd", "vm") != "vm":
        yield f".fd = {_FDS[args['fd']]}"
    if args.get("vcpu"):
        yield f".vcpu = {args['vcpu']}"
    if "cap" in args:
        yield f".cap = {_CAPABILITY_NAMES.get(args['cap'], args['cap'])}"
    if args.get("flags"):
        yield f".flags = {args['flags']:#x}"
    if any(args.get("args", ())):
        yield f".args = {{ {', '.join(_word(word) for word in args['args'])} }}"
    if args.get("bad_pointer"):
        yield ".bad_pointer = true"


def _expected(step: Step) -> Iterator[str]:
    """What a step must show; with it the MSRs of a list, which carry the values that are read."""
    expect = step.expect
    if "errno" in expect:
        yield f".err = {expect['errno']}"
    if "msrs" in step.args:
        yield from _listed(step)
    elif "contains" in expect or "lacks" in expect:
        contained = expect.get("contains", ())
        yield from _entries([(msr, 0) for msr in (*contained, *expect.get("lacks", ()))])
        yield f".contains = {len(contained)}"
    elif expect.get("ret"):
        yield f".ret = {expect['ret']}"
    if "value" in expect:
        yield ".compare = true"
        yield f".value = {_word(expect['value'])}"


def _listed(step: Step) -> Iterator[str]:
    asked = [entry if isinstance(entry, int) else entry[0] for entry in step.args["msrs"]]
    values = [0 if isinstance(entry, int) else entry[1] for entry in step.args["msrs"]]
    seen = step.expect.get("values", ())
    if step.op != "set_msrs":
        values = [*seen, *[0] * (len(asked) - len(seen))]
    yield from _entries(list(zip(asked, values, strict=True)))
    yield f".ret = {step.expect.get('ret', len(asked))}"
    if "values" in step.expect:
        yield ".compare = true"


def _entries(entries: list[tuple[int, int]]) -> Iterator[str]:
    inner = ", ".join(f"{{ {msr_name(msr)}, {_word(value)} }}" for msr, value in entries)
    yield f".nr_msrs = {len(entries)}"
    yield f".msrs = {{ {inner} }}"


def _word(value: int) -> str:
    return f"{value:#x}ull" if value >> 31 else f"{value:#x}"


