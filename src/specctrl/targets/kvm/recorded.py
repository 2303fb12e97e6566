"""A run of the published scenarios on a running kernel, as it is committed and shown.

``python -m specctrl.targets.kvm.recorded vectors`` runs them here and prints the record.
"""

import json
import sys
from collections.abc import Iterable
from datetime import date
from importlib.resources import files
from typing import Any

from specctrl.model.registers import IA32_ARCH_CAPABILITIES, IA32_SPEC_CTRL, MSR_NUMBERS
from specctrl.scenario import PASS, UNSUPPORTED, Report, Result, read, run
from specctrl.targets.kvm.facts import KernelFacts
from specctrl.targets.kvm.host import HostDescription, describe_host
from specctrl.targets.kvm.target import KvmGuests, KvmTarget

TRIED = (IA32_SPEC_CTRL, IA32_ARCH_CAPABILITIES, 0x800, 0x12345)
"""MSRs whose refusals differ between kernels."""


def kind_of_host(facts: KernelFacts, host: HostDescription) -> dict[str, Any]:
    """What decides which scenarios a host can show; two runs can be compared where this is the same."""
    arch = facts.feature_arch_capabilities
    return {
        "vendor": host.processor.get("vendor", "unknown"),
        "virtual": host.virtual,
        "modules": host.modules,
        "capabilities": {str(number): answer for number, answer in facts.capabilities.items()},
        "index_list": [name for name, msr in MSR_NUMBERS.items() if msr in facts.index_list],
        "feature_index_list": [name for name, msr in MSR_NUMBERS.items() if msr in facts.feature_index_list],
        "feature_arch_capabilities": None if arch is None else f"{arch:#x}",
        "spec_ctrl": facts.spec_ctrl.value,
        "spec_ctrl_bits": f"{facts.spec_ctrl_bits:#x}",
        "takes_zero": [f"{msr:#x}" for msr in facts.takes_zero],
        "cpuid_kept": {leaf: f"{edx:#x}" for leaf, edx in facts.cpuid_kept.items()},
        "series_ioctl": facts.series_ioctl,
        "max_vcpu_id": facts.max_vcpu_id,
        "apic": facts.apic,
        "refusals": {f"{msr:#x}": [facts.refusal(msr, False), facts.refusal(msr, True)] for msr in TRIED},
    }


def record(results: Iterable[Result], kind: dict[str, Any], kernel: str, day: str) -> dict[str, Any]:
    """The record of a run: what passed and what that confirms, and the rest by reason."""
    report = Report(0, None, list(results))
    report.total = len(report.results)
    unsupported: dict[str, list[str]] = {}
    for result in report.results:
        if result.status == UNSUPPORTED:
            unsupported.setdefault(result.why, []).append(result.scenario.id)
    return {
        "date": day,
        "kernel": kernel,
        "host": kind,
        "counts": report.counts(),
        "confirms": report.confirms(),
        "passed": {result.scenario.id: dict(result.confirms) for result in report.results if result.status == PASS},
        "unsupported": dict(sorted(unsupported.items(), key=lambda item: (-len(item[1]), item[0]))),
    }


def recorded() -> dict[str, Any]:
    """The committed record."""
    document: dict[str, Any] = json.loads(files(__package__).joinpath("recorded.json").read_text("utf-8"))
    return document


def as_lines(document: dict[str, Any]) -> str:
    """The record as JSON with one line a scenario's result or list, so that a change is easy to review."""
    lines = []
    for key, value in document.items():
        if isinstance(value, dict):
            inner = ",\n".join(f"  {json.dumps(name)}: {json.dumps(content)}" for name, content in value.items())
            lines.append(f" {json.dumps(key)}: {{\n{inner}\n }}")
        else:
            lines.append(f" {json.dumps(key)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def main(paths: list[str]) -> None:
    """Run the scenarios of ``paths`` and print the record; the kernel's own suffix is left out."""
    scenarios = read(paths)
    target, host = KvmTarget(), describe_host()
    guests = KvmGuests(target)
    try:
        kind = kind_of_host(target.facts, host)
        found = record(run(scenarios, lambda _: guests), kind, host.kernel.split("-")[0], date.today().isoformat())
    finally:
        target.close()
    print(as_lines(found), end="")


if __name__ == "__main__":
    main(sys.argv[1:])
