"""``specctrl probe``: what this machine's processor and kernel offer."""

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from specctrl.cli.command import command
from specctrl.model.registers import KVM_CAP_FORCE_SPEC_CTRL, MSR_NUMBERS, REGISTERS

if TYPE_CHECKING:
    from specctrl.targets.kvm.facts import KernelFacts
    from specctrl.targets.kvm.host import HostDescription

EPILOG = """\
Reads files and asks /dev/kvm; needs neither, and says what it could not read.
A guest is started for a moment, to see what becomes of its IA32_SPEC_CTRL.

exit status:
  0

examples:
  specctrl probe
  specctrl probe --json
"""

CAPABILITY_236 = (
    "The answer says nothing of the series: mainline has since given the number to KVM_CAP_PRE_FAULT_MEMORY, which is "
    "1 wherever KVM uses EPT or NPT.")
SERIES = {
    True: "The ioctl ends in {ending}: this kernel does not have the series.",
    False: "The ioctl succeeds: the series may be there, or the number is something else's by now.",
}


def add_probe(commands: Any) -> None:
    """Add the command to the command line."""
    parser = command(commands, "probe", probe_command, "tell what this machine's processor and kernel offer", EPILOG)
    parser.add_argument("--json", action="store_true", help="print a JSON object instead of text")


def probe_command(options: argparse.Namespace) -> int:
    """``specctrl probe``: words, or one JSON object."""
    from specctrl.targets.kvm.host import describe_host

    host = describe_host()
    facts, why = kernel_facts()
    if options.json:
        print(json.dumps(as_json(host, facts, why), indent=1))
    else:
        for label, text in words(host, facts, why):
            print(f"{label:26} {text}".rstrip())
    return 0


def kernel_facts() -> "tuple[KernelFacts | None, str]":
    """What ``/dev/kvm`` shows; None and the reason where it cannot be used."""
    from specctrl.targets.kvm.minivmm import GuestLost, Kvm, KvmMissing
    from specctrl.targets.kvm.probe import probe

    try:
        kvm = Kvm()
    except KvmMissing as missing:
        return None, str(missing)
    try:
        return probe(kvm), ""
    except (KvmMissing, GuestLost, OSError) as error:
        return None, str(error)
    finally:
        kvm.close()


def as_json(host: "HostDescription", facts: "KernelFacts | None", why: str) -> dict[str, Any]:
    """Everything that was found, 64-bit quantities as hex strings."""
    document = asdict(host)
    document["cpuid"] = {leaf: f"{edx:#x}" for leaf, edx in host.cpuid.items()}
    document["msrs"] = {name: f"{value:#x}" for name, value in host.msrs.items()}
    if facts is None:
        return {**document, "kvm": {"usable": False, "why": why}}
    arch = facts.feature_arch_capabilities
    return {**document, "kvm": {
        "usable": True,
        "capabilities": {str(number): answer for number, answer in facts.capabilities.items()},
        "capability_236": CAPABILITY_236,
        "series_ioctl": facts.series_ioctl,
        "series": None if facts.series_ioctl == "0" else False,
        "nested": facts.nested,
        "index_list": {name: number in facts.index_list for name, number in MSR_NUMBERS.items()},
        "feature_index_list": {name: number in facts.feature_index_list for name, number in MSR_NUMBERS.items()},
        "feature_arch_capabilities": None if arch is None else f"{arch:#x}",
        "spec_ctrl": facts.spec_ctrl.value,
        "spec_ctrl_bits": f"{facts.spec_ctrl_bits:#x}",
        "takes_zero": [f"{msr:#x}" for msr in facts.takes_zero],
        "cpuid_offered": {leaf: f"{edx:#x}" for leaf, edx in facts.cpuid_offered.items()},
        "cpuid_kept": {leaf: f"{edx:#x}" for leaf, edx in facts.cpuid_kept.items()},
        "max_vcpu_id": facts.max_vcpu_id,
        "apic": facts.apic,
    }}


def words(host: "HostDescription", facts: "KernelFacts | None", why: str) -> Iterator[tuple[str, str]]:
    """The same as pairs of a label and a text."""
    shown = " ".join(host.processor.get(key, "?") for key in ("vendor", "family", "model", "stepping"))
    yield "processor", f"{shown} ({host.processor.get('name', 'unnamed')}): vendor, family, model, stepping"
    yield "this machine", "a virtual machine itself" if host.virtual else "says nothing of being a virtual machine"
    for leaf, edx in host.cpuid.items():
        yield f"CPUID {leaf} EDX", f"{edx:#x}: {bits(leaf, edx)}"
    for name, value in host.msrs.items():
        yield f"{name}", f"{value:#x} on the host's first processor"
    yield "kernel", host.kernel
    yield "KVM's modules", " ".join(host.modules) or "none"
    if host.ignore_msrs:
        yield "ignore_msrs", host.ignore_msrs
    for name, text in host.vulnerabilities.items():
        yield name, text
    if facts is None:
        yield "/dev/kvm", f"not usable: {why}"
    else:
        yield from _kernel_words(facts)
    for path, reason in host.unread.items():
        yield "not read", f"{path}: {reason}"


def bits(leaf: str, edx: int) -> str:
    """The names of the bits that matter here.

    >>> bits("7.0", 1 << 26 | 1 << 29 | 1)
    'SPEC_CTRL ARCH_CAPABILITIES'
    """
    register = REGISTERS[f"CPUID.({leaf.replace('.', ',')}):EDX"]
    return " ".join(each.name for each in register if edx & each.mask) or "none of the bits that matter here"


def _kernel_words(facts: "KernelFacts") -> Iterator[tuple[str, str]]:
    yield "/dev/kvm", "usable"
    answers = facts.capabilities
    yield "MSR exits, MSR filters", f"capabilities 188 and 189 give {answers[188]} and {answers[189]}"
    yield "capability 236", f"KVM_CHECK_EXTENSION gives {answers[KVM_CAP_FORCE_SPEC_CTRL]}. {CAPABILITY_236}"
    yield "the series", SERIES[facts.series_ioctl != "0"].format(ending=facts.series_ioctl) + (
        " (KVM_GET_SUPPORTED_FORCE_SPEC_CTRL on /dev/kvm)")
    yield "nested virtualization", "offered to guests" if facts.nested else "not offered to guests"
    listed = [name for name, number in MSR_NUMBERS.items() if number in facts.index_list]
    yield "MSR index list", f"{len(facts.index_list)} MSRs, of this specification's: {' '.join(listed) or 'none'}"
    arch = facts.feature_arch_capabilities
    yield "feature MSR 0x10a", "not there" if arch is None else f"{arch:#x}, bit 63 {'set' if arch >> 63 else 'clear'}"
    yield "guest's IA32_SPEC_CTRL", {
        "stored": f"stored: bits {facts.spec_ctrl_bits:#x} can be set and read back",
        "ignored": "ignored: a write is taken and dropped, a read gives 0",
        "refused": "refused: #GP",
    }[facts.spec_ctrl.value]
    for leaf in facts.cpuid_offered:
        yield f"guest's CPUID {leaf} EDX", (
            f"offered: {bits(leaf, facts.cpuid_offered[leaf])}; "
            f"kept when all that matter are asked for: {bits(leaf, facts.cpuid_kept[leaf])}")
    yield "local APICs in the kernel", "yes" if facts.apic else "no: INIT cannot be sent"
