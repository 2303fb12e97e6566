"""What this machine says of its processor and kernel outside KVM; whatever cannot be read is named with the reason."""

import os
import platform
import struct
from dataclasses import dataclass, field
from pathlib import Path

from specctrl.model.registers import IA32_ARCH_CAPABILITIES, IA32_SPEC_CTRL

CPUINFO_KEYS = {"vendor_id": "vendor", "cpu family": "family", "model": "model", "stepping": "stepping",
                "model name": "name"}
HOST_MSRS = {"IA32_SPEC_CTRL": IA32_SPEC_CTRL, "IA32_ARCH_CAPABILITIES": IA32_ARCH_CAPABILITIES}


@dataclass(slots=True)
class HostDescription:
    """The processor, the kernel, what Linux says of vulnerabilities; and what could not be read."""

    processor: dict[str, str] = field(default_factory=dict)
    cpuid: dict[str, int] = field(default_factory=dict)  # EDX of leaves 7.0 and 7.2 of the first processor
    virtual: bool = False  # whether the processor says that it is a virtual machine's
    kernel: str = ""
    modules: list[str] = field(default_factory=list)
    ignore_msrs: str = ""
    vulnerabilities: dict[str, str] = field(default_factory=dict)
    msrs: dict[str, int] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)


def describe_host(root: Path = Path("/")) -> HostDescription:
    """What the files under ``root`` say; ``root`` is another folder in tests only."""
    found = HostDescription(kernel=platform.release())
    for line in _text(found, root / "proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if not line.strip():
            break  # the first processor is enough
        if key.strip() in CPUINFO_KEYS:
            found.processor[CPUINFO_KEYS[key.strip()]] = value.strip()
        if key.strip() == "flags":
            found.virtual = "hypervisor" in value.split()
    for subleaf in (0, 2):
        answer = _bytes(found, root / "dev/cpu/0/cpuid", 16, 7 | subleaf << 32)
        if answer is not None:
            found.cpuid[f"7.{subleaf}"] = struct.unpack("<4I", answer)[3]
    found.modules = sorted(path.name for path in (root / "sys/module").glob("kvm*"))
    if "kvm" in found.modules:
        found.ignore_msrs = _text(found, root / "sys/module/kvm/parameters/ignore_msrs").strip()
    folder = root / "sys/devices/system/cpu/vulnerabilities"
    if not folder.is_dir():
        found.unread[str(folder)] = "there is no such folder"
    for path in sorted(folder.glob("*")):
        found.vulnerabilities[path.name] = _text(found, path).strip()
    for name, number in HOST_MSRS.items():
        answer = _bytes(found, root / "dev/cpu/0/msr", 8, number)
        if answer is not None:
            found.msrs[name] = struct.unpack("<Q", answer)[0]
    return found


def _text(found: HostDescription, path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError as error:
        found.unread[str(path)] = str(error.strerror)
        return ""


def _bytes(found: HostDescription, path: Path, size: int, position: int) -> bytes | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        found.unread[str(path)] = str(error.strerror)
        return None
    try:
        answer = os.pread(fd, size, position)
    except OSError as error:
        found.unread[f"{path} at {position:#x}"] = str(error.strerror)
        return None
    finally:
        os.close(fd)
    if len(answer) == size:
        return answer
    found.unread[f"{path} at {position:#x}"] = f"{len(answer)} bytes of {size}"
    return None
