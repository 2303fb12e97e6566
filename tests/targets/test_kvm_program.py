"""The mini VMM's parts that need no /dev/kvm: numbers and structures, the guest's machine code, the time limit."""

import re
import shutil
import signal
import struct
import subprocess
import threading
import time
from pathlib import Path

import pytest

from specctrl.targets.kvm import ioctls
from specctrl.targets.kvm.bounds import TimeLimit
from specctrl.targets.kvm.guest_program import LONG_MODE, REAL_MODE, RECORD, Line, assemble, listing
from specctrl.targets.kvm.minivmm import bitmap

IOCTLS = {
    "GET_API_VERSION": 0xAE00, "CREATE_VM": 0xAE01, "GET_MSR_INDEX_LIST": 0xC004AE02, "CHECK_EXTENSION": 0xAE03,
    "GET_VCPU_MMAP_SIZE": 0xAE04, "GET_SUPPORTED_CPUID": 0xC008AE05, "GET_MSR_FEATURE_INDEX_LIST": 0xC004AE0A,
    "CREATE_VCPU": 0xAE41, "SET_USER_MEMORY_REGION": 0x4020AE46, "SET_BOOT_CPU_ID": 0xAE78,
    "SIGNAL_MSI": 0x4020AEA5, "X86_SET_MSR_FILTER": 0x4188AEC6, "RUN": 0xAE80, "GET_REGS": 0x8090AE81,
    "SET_REGS": 0x4090AE82, "GET_SREGS": 0x8138AE83, "SET_SREGS": 0x4138AE84, "GET_MSRS": 0xC008AE88,
    "SET_MSRS": 0x4008AE89, "GET_LAPIC": 0x8400AE8E, "SET_LAPIC": 0x4400AE8F, "SET_CPUID2": 0x4008AE90,
    "GET_CPUID2": 0xC008AE91, "SET_MP_STATE": 0x4004AE99, "GET_VCPU_EVENTS": 0x8040AE9F,
    "SET_VCPU_EVENTS": 0x4040AEA0, "ENABLE_CAP": 0x4068AEA3,
}
LAYOUT = {
    "sizeof(struct kvm_msr_filter)": len(ioctls.msr_filter(False, [])),
    "sizeof(struct kvm_enable_cap)": len(ioctls.enable_cap(188, [])),
    "sizeof(struct kvm_userspace_memory_region)": len(ioctls.memory_region(0, 0)),
    "sizeof(struct kvm_msi)": len(ioctls.msi(0, 0)),
    "sizeof(struct kvm_segment)": ioctls.SEGMENT.size,
    "sizeof(struct kvm_dtable)": ioctls.TABLE.size,
    "sizeof(struct kvm_cpuid_entry2)": ioctls.CPUID_ENTRY.size,
    "offsetof(struct kvm_run, exit_reason)": ioctls.RUN_EXIT_REASON,
    "offsetof(struct kvm_run, io.port)": ioctls.RUN_IO_PORT,
    "offsetof(struct kvm_run, msr)": ioctls.RUN_MSR_AT,
    "offsetof(struct kvm_run, msr.data) - offsetof(struct kvm_run, msr)": 16,
    "offsetof(struct kvm_sregs, gdt)": 192,
    "offsetof(struct kvm_sregs, cr0)": 224,
    "offsetof(struct kvm_sregs, efer)": 264,
    "KVM_EXIT_IO": ioctls.EXIT_IO,
    "KVM_EXIT_X86_RDMSR": ioctls.EXIT_RDMSR,
    "KVM_EXIT_X86_WRMSR": ioctls.EXIT_WRMSR,
    "KVM_CAP_SPLIT_IRQCHIP": ioctls.CAP_SPLIT_IRQCHIP,
    "KVM_CAP_MAX_VCPU_ID": ioctls.CAP_MAX_VCPU_ID,
    "KVM_MSR_FILTER_MAX_RANGES": ioctls.FILTER_RANGES,
}


class TestInterface:
    """Numbers and structures."""

    def test_the_numbers_are_the_kernels(self) -> None:
        assert {name: getattr(ioctls, name) for name in IOCTLS} == IOCTLS

    def test_the_kernels_header_agrees_where_there_is_one(self, tmp_path: Path) -> None:
        compiler = shutil.which("cc")
        if compiler is None or not Path("/usr/include/linux/kvm.h").is_file():
            pytest.skip("no C compiler with linux/kvm.h")
        expected = {**{f"KVM_{name}": number for name, number in IOCTLS.items()}, **LAYOUT}
        prints = "".join(f'printf("%lu\\n", (unsigned long)({name}));' for name in expected)
        source = f"#include <linux/kvm.h>\n#include <stddef.h>\n#include <stdio.h>\nint main(void) {{ {prints} }}"
        (tmp_path / "numbers.c").write_text(source)
        subprocess.run([compiler, "-o", tmp_path / "numbers", tmp_path / "numbers.c"], check=True)
        said = subprocess.run([tmp_path / "numbers"], check=True, capture_output=True, text=True).stdout
        assert dict(zip(expected, map(int, said.split()), strict=True)) == expected

    def test_a_filter_is_packed_as_the_kernel_reads_it(self) -> None:
        packed = ioctls.msr_filter(True, [(3, 10, 0x12340, 0xABCDEF)])
        assert struct.unpack_from("<I", packed)[0] == 1
        assert struct.unpack_from("<IIIIQ", packed, 8) == (3, 10, 0x12340, 0, 0xABCDEF)
        assert not any(packed[32:])

    def test_a_bitmap_has_the_first_msr_in_bit_0(self) -> None:
        assert bitmap((True, False, True) + (False,) * 5 + (True,)) == b"\x05\x01"
        assert bitmap(()) == b""


class TestGuestProgram:
    """The machine code."""

    def test_the_64_bit_program_is_these_bytes(self) -> None:
        assert assemble(LONG_MODE).code.hex() == (
            "e6108b4e048b46088b560c803e0174040f32eb020f30894610895614ebe2c746180d0000008f4620"
            "488b1c2448895e28488304240248cf")
        assert assemble(LONG_MODE).labels == {"next": 0, "read": 16, "write": 20, "store": 22, "fault": 30}

    def test_the_real_mode_program_is_these_bytes(self) -> None:
        assert assemble(REAL_MODE).code.hex() == (
            "e610668b4c04668b4408668b540c803c0174040f32eb020f306689441066895414ebddc744180d00"
            "89e58b5e00895c2883460002cf")

    @pytest.mark.parametrize(("lines", "machine"), [(LONG_MODE, "i386:x86-64"), (REAL_MODE, "i8086")])
    def test_a_disassembler_reads_what_each_line_says(
        self, lines: tuple[Line, ...], machine: str, tmp_path: Path
    ) -> None:
        objdump = shutil.which("objdump")
        if objdump is None:
            pytest.skip("no objdump")
        (tmp_path / "code").write_bytes(assemble(lines).code)
        said = subprocess.run(
            [objdump, "-D", "-b", "binary", "-m", machine, "-M", "intel", "--no-show-raw-insn", tmp_path / "code"],
            check=True, capture_output=True, text=True).stdout
        read = [self.words(row.split("\t")[1]) for row in said.splitlines() if re.match(r"\s+[0-9a-f]+:\t", row)]
        labels = assemble(lines).labels
        meant = [self.words(re.sub(f"{line.to}$", hex(labels[line.to]), line.text) if line.to else line.text)
                 for line in lines]
        assert read == meant

    def words(self, text: str) -> str:
        """An instruction in one notation: no blanks, no PTR, hex numbers, out of aliases the usual one."""
        text = re.sub(r"\b(PTR|DS:|SS:)\s*", "", text.split("#")[0], flags=re.IGNORECASE)
        text = re.sub(r"\b\d+\b", lambda number: hex(int(number[0])), text.replace("\t", " "))
        text = re.sub(r"\[bp\+0x0\]", "[bp]", text)
        if re.search(r"\b(e[acd]x|r?bx|al)\b", text):  # a register says how wide the access is
            text = re.sub(r"\b[dq]?word\b|\bbyte\b", "", text, flags=re.IGNORECASE)
        return re.sub(r"\s", "", text).lower()

    def test_a_jump_without_a_goal_or_too_far_away_is_refused(self) -> None:
        with pytest.raises(ValueError, match="there is no label 'away'"):
            assemble((Line("eb", "jmp away", "", to="away"),))
        far = tuple(Line("90", "nop", "") for _ in range(130))
        with pytest.raises(ValueError, match="-132 bytes are too far"):
            assemble((Line("90", "nop", "", label="back"), *far[1:], Line("eb", "jmp back", "", to="back")))

    def test_the_listing_has_every_byte_of_the_program(self) -> None:
        rows = listing(REAL_MODE, 0x8000).splitlines()
        assert len(rows) == len(REAL_MODE)
        assert "".join(row[6:28].replace(" ", "") for row in rows) == assemble(REAL_MODE).code.hex()

    def test_a_record_leaves_room_for_the_stack(self) -> None:
        assert RECORD.size == 48


class TestTimeLimit:
    """The limit on KVM_RUN."""

    def test_limits_do_not_nest(self) -> None:
        with TimeLimit(1), pytest.raises(RuntimeError, match="in force already"), TimeLimit(1):
            pass
        assert TimeLimit.active is None

    def test_it_is_the_main_threads_alone(self) -> None:
        said: list[str] = []

        def elsewhere() -> None:
            try:
                TimeLimit(1).__enter__()
            except RuntimeError as error:
                said.append(str(error))

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert said == ["guests run in the main thread alone: a time limit needs its signals"]

    def test_handler_and_timer_of_whoever_had_them_come_back(self) -> None:
        before = signal.signal(signal.SIGALRM, signal.SIG_IGN)
        try:
            signal.setitimer(signal.ITIMER_REAL, 100)
            with TimeLimit(0.01) as limit:
                time.sleep(0.05)
            assert limit.over
            assert signal.getsignal(signal.SIGALRM) is signal.SIG_IGN
            assert 90 < signal.setitimer(signal.ITIMER_REAL, 0)[0] <= 100
        finally:
            signal.signal(signal.SIGALRM, before)
