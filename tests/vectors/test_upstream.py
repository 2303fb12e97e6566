"""The shapes for upstream trees: what they say is the specification's, and the C of them runs here."""

import os
import random
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

import planted_c
from specctrl.cli.main import main
from specctrl.model.parts import PARTS, resolve_host
from specctrl.model.registers import REGISTERS
from specctrl.rules import load_rules
from specctrl.scenario import EmulatorTarget, load, read, run_one
from specctrl.scenario.selection import Selection
from specctrl.targets.c import CannotBuild, compiler
from specctrl.targets.c_reference import folder as c_folder
from specctrl.vectors.upstream.api_rst import ALSO_ON_THE_VM, api_rst
from specctrl.vectors.upstream.cases import (
    CONTROL,
    HOST_FEATURES,
    PER_VCPU,
    VIRTUAL_MSRS,
    Left,
    case_of,
    cases,
    host_object,
    host_with,
    present,
    with_exits,
)
from specctrl.vectors.upstream.rows import msrs_rows, reserved_bit, unit_test_rows
from specctrl.vectors.upstream.selftest import HARNESS, filled, selftest

ROOT = Path(__file__).parents[2]
UPSTREAM = ROOT / "reference" / "upstream"
STAND_IN = UPSTREAM / "stand-in"
STRICT = ("-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror")
PUBLISHED = read([ROOT / "vectors"])
SCENARIOS = {each.id: each for each in PUBLISHED}
SPEC = EmulatorTarget("spec")


def _can_compile():
    """Whether a C compiler, the kernel's own headers and <ucontext.h> are here."""
    try:
        command = compiler()
    except CannotBuild:
        return False
    program = "#include <linux/kvm.h>\n#include <ucontext.h>\nint main(void) { return 0; }"
    done = subprocess.run([*command, "-xc", "-", "-o", os.devnull], input=program, text=True, check=False,
                          capture_output=True)
    return done.returncode == 0


needs_c = pytest.mark.skipif(
    not _can_compile(), reason="no C compiler with linux/kvm.h here: the generated selftest was not compiled or run")


def document(*steps, host="sapphire-rapids"):
    return load({"schema": "specctrl/scenario/1", "id": "a.case", "host": host, "steps": list(steps)})


CREATE = {"op": "create_vcpu"}
SUPPORTED = {"op": "get_supported_force_spec_ctrl", "expect": {"value": "0x447"}}


@pytest.fixture(scope="module")
def made():
    """Every case, and how many scenarios are left out for which reason."""
    return cases(PUBLISHED)


@pytest.fixture(scope="module")
def every(made):
    """Every case."""
    return made[0]


def on_host(case, host):
    """What the emulator makes of a case on a host."""
    tried = replace(SCENARIOS[case.id], steps=with_exits(case.steps), host=host_object(host))
    return run_one(tried, SPEC).status


def fits(case, host):
    has = present(host) | {VIRTUAL_MSRS} | ({PER_VCPU} if host.spec_ctrl_shadow else set())
    return set(case.needs) <= has and not set(case.lacks) & has


def random_hosts(number, seed=1):
    """Hosts that have some of everything."""
    chooser = random.Random(seed)
    for _ in range(number):
        has = {name for name in (*HOST_FEATURES, CONTROL) if chooser.random() < 0.6}
        yield host_with(has, chooser.getrandbits(11))


class TestCases:
    """Which scenarios become cases, and what a case needs."""

    def test_every_scenario_is_a_case_or_is_left_out_for_a_reason(self, made):
        every, left = made
        assert len(PUBLISHED) == len(every) + left.total()
        assert all(number > 0 and why for why, number in left.items())
        assert len(every) > 100

    def test_on_every_host_that_fits_the_emulator_shows_what_a_case_expects(self, every):
        tried = 0
        for host in [*random_hosts(40), *map(resolve_host, PARTS)]:
            for case in every:
                if fits(case, host):
                    tried += 1
                    assert "pass" == on_host(case, host), (case.id, host)
        assert tried > 1000

    def test_what_matters_is_needed_and_nothing_else(self):
        case = case_of(document(SUPPORTED))
        assert {"SPEC_CTRL", "STIBP", "SSBD", "RRSBA_CTRL", "BHI_CTRL", "RRSBA", CONTROL} == set(case.needs)
        assert () == case.lacks

    def test_what_must_be_missing_is_lacked(self):
        gone = {"part": "sapphire-rapids", "without": ["BHI_CTRL"]}
        refused = {"op": "wrmsr", "msr": "IA32_SPEC_CTRL", "value": "0x400", "expect": {"fault": "#GP"}}
        case = case_of(document(CREATE, refused, host=gone))
        assert ("BHI_CTRL",) == case.lacks

    def test_two_features_that_only_together_matter_are_both_needed(self):
        # Either bit alone makes the write fault, so one change is not seen.
        gone = {"part": "sapphire-rapids", "without": ["BHI_CTRL", "SSBD"]}
        refused = {"op": "wrmsr", "msr": "IA32_SPEC_CTRL", "value": "0x404", "expect": {"fault": "#GP"}}
        case = case_of(document(CREATE, refused, host=gone))
        assert {"BHI_CTRL", "SSBD"} <= set(case.lacks)

    def test_what_the_guests_cpuid_shows_is_needed(self):
        shown = {"op": "create_vcpu", "features": ["SPEC_CTRL", "BHI_CTRL", "PSFD"]}
        case = case_of(document(shown, {"op": "rdmsr", "msr": "IA32_SPEC_CTRL", "expect": {"value": 0}}))
        assert {"SPEC_CTRL", "BHI_CTRL", "PSFD"} == set(case.needs)

    def test_after_each_instruction_of_the_guest_its_vcpu_exits(self):
        read = {"op": "rdmsr", "vcpu": 1, "msr": "IA32_SPEC_CTRL"}
        longer = with_exits(document(CREATE, {"op": "create_vcpu", "vcpu": 1}, read).steps)
        assert ["create_vcpu", "create_vcpu", "rdmsr", "exit"] == [step.op for step in longer]
        assert 1 == longer[-1].args["vcpu"]

    def test_the_guests_view_is_read(self):
        write = {"op": "wrmsr", "msr": "IA32_SPEC_CTRL", "value": "0x5"}
        look = {"op": "observe", "expect": {"guest_view": "0x5", "effective": "0x5"}}
        case = case_of(document(CREATE, write, look))
        assert ("rdmsr", {"value": 5}) == (case.steps[-1].op, case.steps[-1].expect)

    @pytest.mark.parametrize(("steps", "why"), [
        ((CREATE, {"op": "observe", "expect": {"effective": "0x0"}}), "inside only"),
        ((CREATE, {"op": "nested_enter"}, {"op": "rdmsr", "msr": "0x48", "expect": {"value": 0}}), "nested_enter"),
        ((CREATE, {"op": "create_vcpu", "vcpu": 1}, {"op": "create_vcpu", "vcpu": 2}, SUPPORTED), "more vCPUs"),
        (({"op": "create_vcpu", "features": ["AMD_SSBD"]}, SUPPORTED), "one of AMD's bits"),
    ])
    def test_what_no_kernel_shows_is_left_out(self, steps, why):
        with pytest.raises(Left, match=why):
            case_of(document(*steps))

    def test_a_refusal_of_the_vcpu_form_on_a_host_without_the_control_is_left_out(self):
        refused = {"op": "enable_cap", "fd": "vcpu", "cap": "KVM_CAP_FORCE_SPEC_CTRL", "args": ["0x4", "0x0"],
                   "expect": {"errno": "EINVAL"}}
        with pytest.raises(Left, match="told from its absence"):
            case_of(document(CREATE, refused, host="ice-lake-server"))


@pytest.fixture(scope="module")
def text(every):
    return filled((UPSTREAM / HARNESS).read_text(), every)


class TestSelftest:
    """The text: every case is in it, once, and the harness has the marks that are filled."""

    def test_every_case_is_in_it_once(self, text, every):
        assert [case.id for case in every] == re.findall(r'CASE\("([^"]+)"', text)

    def test_a_selection_chooses(self):
        chosen = selftest(Selection(rules=["cap.enable.before-vcpus"], kind="hand"))
        assert {"cap.enable-after-vcpu", "cap.enable.after-failed-creation"} == set(
            re.findall(r'CASE\("([^"]+)"', chosen))

    def test_a_mark_that_nothing_fills_is_an_error(self, text, every):
        with pytest.raises(ValueError, match="wanted: numbers"):
            filled(text, every)

    def test_the_command_writes_what_the_function_makes(self, tmp_path, capsys):
        assert 0 == main(["export", "msrs-rows"])
        assert msrs_rows() == capsys.readouterr().out
        assert 0 == main(["export", "api-rst", str(tmp_path / "a.rst")])
        assert api_rst() == (tmp_path / "a.rst").read_text()

    def test_a_selection_for_another_shape_and_vectors_without_a_file_are_refused(self, capsys):
        assert 2 == main(["export", "api-rst", "--kind", "hand"])
        assert 2 == main(["export", "vectors"])
        assert "specctrl export vectors FILE" in capsys.readouterr().err


# ---- running it


def build(source, output, *flags, headers=None):
    command = [*compiler(), *STRICT, *flags, "-I", STAND_IN, "-I", headers or c_folder(), "-o", output, source,
               STAND_IN / "stand_in.c"]
    done = subprocess.run([str(word) for word in command], text=True, capture_output=True, check=False)
    assert not done.stderr, done.stderr[:2000]
    return output


def ran(program, host=None):
    """The lines that a program prints on a host."""
    host = host or resolve_host("sapphire-rapids")
    environment = {"STAND_IN_FEATURES": ",".join(name for name in host.features.names() if name != "TSX"),
                   "STAND_IN_CONTROL": str(int(host.spec_ctrl_shadow)), "STAND_IN_SPEC_CTRL": hex(host.spec_ctrl)}
    done = subprocess.run([str(program)], env=environment, text=True, capture_output=True, check=False, timeout=60)
    assert not done.stderr
    return done.returncode, done.stdout.splitlines()


def passed_of(lines):
    """The ids of the cases that ran and passed."""
    return {line.split()[2] for line in lines if line.startswith("ok ") and "# SKIP" not in line}


@pytest.fixture(scope="module")
def source(text, tmp_path_factory):
    path = tmp_path_factory.mktemp("upstream") / HARNESS
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def compiled(source):
    """The selftest without what it is linked to: it knows nothing of the C reference."""
    output = source.with_suffix(".o")
    command = [*compiler(), *STRICT, "-c", "-I", str(STAND_IN), "-o", str(output), str(source)]
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    assert not done.stderr, done.stderr[:2000]
    return output


@pytest.fixture(scope="module")
def program(compiled):
    return build(compiled, compiled.parent / "selftest")


@needs_c
class TestRun:
    """The generated selftest on the stand-in, over the C reference."""

    def test_it_passes_on_every_part_and_on_hosts_made_at_random_and_every_case_runs_somewhere(self, program, every):
        passed = set()
        for host in [*map(resolve_host, PARTS), *random_hosts(40), *(resolve_host(case_host(case)) for case in every)]:
            status, lines = ran(program, host)
            assert 0 == status, [line for line in lines if not line.startswith("ok")]
            assert f"1..{len(every)}" in lines
            passed |= passed_of(lines)
        assert {case.id for case in every} == passed

    def test_what_it_skips_it_skips_with_the_reason(self, program):
        _, lines = ran(program, resolve_host("ice-lake-server"))
        skipped = [line for line in lines if "# SKIP" in line]
        assert any(line.endswith("the host lacks the control virtualize IA32_SPEC_CTRL") for line in skipped)
        assert all(re.search(r": the host (lacks|has) ", line) for line in skipped)

    def test_a_wrong_expectation_of_each_kind_fails(self, text, tmp_path):
        for number, (old, new) in enumerate([
            ("RDMSR(0, MSR_IA32_SPEC_CTRL, 0x1)", "RDMSR(0, MSR_IA32_SPEC_CTRL, 0x3)"),
            ("WRMSR_GP(0, ", "WRMSR(0, "), ("WRMSR(0, ", "WRMSR_GP(0, "), ("RDMSR_GP(0, ", "RDMSR_ANY(0, "),
            (".err = EINVAL", ".err = EEXIST"), (".contains = 1", ".contains = 2"), (".ret = 1", ".ret = 2"),
            (".value = 0x447", ".value = 0x446"), ("if (kvm_cpu_has(amd[i]))", "if (false)"),
        ]):
            assert old in text, old
            path = tmp_path / f"{number}.c"
            path.write_text(text.replace(old, new))
            assert 1 == ran(build(path, tmp_path / str(number)))[0], old


def case_host(case):
    """The host of the scenario that a case comes from."""
    return SCENARIOS[case.id].host


CHANGES = {
    "the posted series' D3": planted_c.DEFECTS["D3"],
    "the posted series' D8": planted_c.DEFECTS["D8"],
    "the posted series' D10": planted_c.DEFECTS["D10"],
    "the posted series' D10Offered": planted_c.DEFECTS["D10Offered"],
    "the pair may change after a vCPU": (("vm->created_vcpus || !specctrl_can_force", "!specctrl_can_force"),),
    "a value outside the mask": ((" && specctrl_is_subset(value, mask);", " && (mask || !mask);"),),
    "a value outside the supported set": (("supported && specctrl_is_subset(value, supported) &&", "supported &&"),),
    "no control is needed": (("return supported && specctrl_is", "return specctrl_is"),),
    "the capability answers its bits": (("static inline bool specctrl_check_extension",
                                         "static inline uint64_t specctrl_check_extension"),),
    "the ioctl of a VM's fd": (("	if (vm_fd)\n		return SPECCTRL_ENOTTY;\n", "	(void)vm_fd;\n"),),
    "a bad pointer is EINVAL": (("		return SPECCTRL_EFAULT;", "		return SPECCTRL_EINVAL;"),),
    "flags of the VM's form": (("	if (!flags && cap == KVM_CAP_", "	if (cap == KVM_CAP_"),),
    "a failed vCPU counts": (("	if (id >= SPECCTRL_MAX_VCPU_ID)\n", "	vm->created_vcpus++;\n"
                              "	if (id >= SPECCTRL_MAX_VCPU_ID)\n"),),
    "the guest reads what is forced": (("		return &vcpu->guest_view;\n", "		return &vcpu->saved;\n"),),
    "the shadow keeps the merge": (("	vmcs->shadow = source;\n", "	vmcs->shadow = cpu->spec_ctrl;\n"),),
    "a refused entry is passed over": ((
        "		if (specctrl_do_set_msr(vcpu, msrs[i].index, msrs[i].value))\n			break;\n",
        "		if (specctrl_do_set_msr(vcpu, msrs[i].index, msrs[i].value))\n			continue;\n"),),
    "feature MSRs are never frozen": (("	if (vcpu->has_run && specctrl_is_feature_msr(msr)) {",
                                       "	if (0 && vcpu->has_run) {"),),
    "reserved bits of a report": (("	if (!specctrl_is_subset(value, MITI_CTRL_VALID))\n"
                                   "		return SPECCTRL_MSR_INVAL;\n", ""),),
    "a hidden MSR is shown": (("		return vcpu->cpuid & SPECCTRL_SHOW_MSR;\n", "		return true;\n"),),
    "the report is in no list": (("	msrs[nmsrs++] = MSR_VIRTUAL_MITIGATION_ENUM;\n", ""),),
    "a report stays": (("	vcpu->mitigation_ctrl = report;\n", "	vcpu->mitigation_ctrl |= report;\n"),),
}
"""Defects of the C reference that show in an ioctl or in the guest: what each is, and the text to replace."""

WITHOUT_CONTROL = {"part": "sapphire-rapids", "spec_ctrl_shadow": False}


@needs_c
@pytest.mark.parametrize("defect", CHANGES)
def test_a_defect_planted_in_the_reference_is_found(defect, compiled, tmp_path):
    copy = Path(shutil.copytree(c_folder(), tmp_path / "c"))
    planted_c.change(copy, *CHANGES[defect])
    program = build(compiled, tmp_path / "selftest", headers=copy)
    hosts = [resolve_host(part) for part in ("sapphire-rapids", "ice-lake-server", WITHOUT_CONTROL)]
    found = [line for host in hosts for line in ran(program, host)[1] if line.startswith("not ok")]
    assert found, defect


LEAF_7_2 = {field.name for field in REGISTERS["CPUID.(7,2):EDX"]}


def rows_for(host):
    """The rows as the comment above them tells to take them."""
    shown = not LEAF_7_2.isdisjoint(host.features.names())
    lines = msrs_rows().splitlines(keepends=True)
    return "".join(line for line in lines if shown or not re.match(rf"MSR_TEST2\(.*, ({'|'.join(LEAF_7_2)}), ", line))


class TestRows:
    """Rows for the table of msrs_test.c: every bit of the register, each with the feature that brings it."""

    def test_the_rows_have_every_bit_of_the_register_once(self):
        found = re.findall(r"^MSR_TEST2?\(MSR_IA32_SPEC_CTRL, (0x[0-9a-f]+)", msrs_rows(), re.M)
        bits = [int(bit, 16) for bit in found]
        assert REGISTERS["IA32_SPEC_CTRL"].defined == sum(bits)

    def test_a_reserved_bit_is_none_that_is_defined(self):
        for register in REGISTERS.values():
            if register.defined.bit_count() < register.width:
                assert 0 == reserved_bit(register) & register.defined

    @needs_c
    @pytest.mark.parametrize(("part", "said"), [
        ("granite-rapids", "9 rows, 9 with the feature"), ("sapphire-rapids", "9 rows, 8 with the feature"),
        ("ice-lake-server", "4 rows, 4 with the feature"), ("skylake-server", "4 rows, 4 with the feature")])
    def test_they_pass_on_the_stand_in(self, part, said, tmp_path):
        host = resolve_host(part)
        assert (0, [said]) == ran(self.program(tmp_path, rows_for(host)), host)

    @needs_c
    def test_where_the_leaf_is_missing_its_rows_end_the_program(self, tmp_path):
        assert 254 == ran(self.program(tmp_path, msrs_rows()), resolve_host("ice-lake-server"))[0]

    @needs_c
    @pytest.mark.parametrize(("old", "new"), [
        ("0x400, 0x8000000000000000", "0x200, 0x8000000000000000"), ("0x1, 0x8000000000000000", "0x1, 0x2"),
        ("0x4, 0x8000000000000000, SSBD, SPEC_CTRL", "0x4, 0x8000000000000000, SSBD, SSBD"),
        ("MSR_TEST(MSR_VIRTUAL_MITIGATION_CTRL,", "MSR_TEST(MSR_VIRTUAL_MITIGATION_CTRL + 1,"),
    ])
    def test_a_wrong_row_fails(self, old, new, tmp_path):
        assert old in msrs_rows()
        program = self.program(tmp_path, msrs_rows().replace(old, new))
        without = resolve_host({"part": "granite-rapids", "without": ["SSBD"]})
        assert {254} & {ran(program, host)[0] for host in (resolve_host("granite-rapids"), without)}

    def program(self, folder, text):
        (folder / "rows.h").write_text(text)
        return build(STAND_IN / "msrs_rows.c", folder / "rows", f'-DROWS="{folder / "rows.h"}"')


class TestUnitLines:
    """Lines for test_mitigation_msrs of kvm-unit-tests: what it has not, and nothing that it has."""

    def test_with_the_three_that_are_there_every_bit_is_tried(self):
        bits = [int(bit, 16) for bit in re.findall(r"spec_ctrl_bits \|= (0x[0-9a-f]+);", unit_test_rows())]
        assert REGISTERS["IA32_SPEC_CTRL"].defined == sum(bits) | 0x7
        assert 0 == sum(bits) & 0x7

    @needs_c
    @pytest.mark.parametrize("part", ["granite-rapids", "sapphire-rapids", "ice-lake-server", "skylake-server"])
    def test_they_pass_on_the_stand_in(self, part, tmp_path):
        host = resolve_host(part)
        values = (1 << host.writable.bit_count()) + 4  # of IA32_SPEC_CTRL, and of the report
        assert (0, [f"{values} values"]) == ran(self.program(tmp_path, unit_test_rows()), host)

    @needs_c
    def test_a_bit_without_the_msr_is_not_tried(self, tmp_path):
        host = resolve_host({"part": "granite-rapids", "without": ["SPEC_CTRL", "STIBP", "SSBD"]})
        assert (0, ["4 values"]) == ran(self.program(tmp_path, unit_test_rows()), host), "the report's alone"
        unguarded = unit_test_rows().replace("if (this_cpu_has(X86_FEATURE_SPEC_CTRL)) {", "{")
        assert 254 == ran(self.program(tmp_path, unguarded), host)[0]

    @needs_c
    @pytest.mark.parametrize(("old", "new"), [
        ("|= 0x400;", "|= 0x200;"), ("X86_FEATURE_IPRED_CTRL))", "X86_FEATURE_PSFD))"),
        ("rdmsr(MSR_VIRTUAL_MITIGATION_ENUM);", "rdmsr(MSR_VIRTUAL_MITIGATION_ENUM) | 0x4;"),
        ('CTRL", 0x8000000000000000', 'CTRL", 0x1'),
    ])
    def test_a_wrong_line_fails(self, old, new, tmp_path):
        assert old in unit_test_rows()
        program = self.program(tmp_path, unit_test_rows().replace(old, new))
        without = resolve_host({"part": "granite-rapids", "without": ["IPRED_CTRL"]})
        assert {254} & {ran(program, host)[0] for host in (resolve_host("granite-rapids"), without)}

    def program(self, folder, text):
        (folder / "lines.h").write_text(text)
        return build(STAND_IN / "unit_lines.c", folder / "lines", f'-DLINES="{folder / "lines.h"}"')


class TestApi:
    """The fragment of api.rst: read without complaint, and made of rules."""

    def test_docutils_reads_it_without_a_complaint(self):
        core = pytest.importorskip("docutils.core", reason="no docutils here: the fragment was not read")
        core.publish_string(api_rst(), settings_overrides={"report_level": 1, "halt_level": 2})

    def test_its_sentences_are_rules(self):
        said = {" ".join(item.split()) for item in re.findall(r"^- (.+?)(?=\n\S|\n\n|\Z)", api_rst(), re.M | re.S)}
        rules = {" ".join(rule.text.replace("`", "``").split()) for rule in load_rules().values()}
        marked = re.compile(r" \((proposed|assumed)\)$")
        assert said
        assert not {marked.sub("", sentence) for sentence in said} - rules

    def test_no_mark_of_the_chapters_is_left(self):
        assert not re.search(r"\{rule\}|\(D\d+\)|emulated|modelled", api_rst())

    def test_every_rule_that_it_names_is_there(self):
        assert set(ALSO_ON_THE_VM) <= load_rules().keys()

    def test_the_ioctl_belongs_to_the_fd_that_the_code_says(self):
        section = api_rst().partition("KVM_GET_SUPPORTED_FORCE_SPEC_CTRL\n")[2].partition("\n\n\n")[0]
        assert ":Type: system ioctl (``/dev/kvm``)\n" in section

    def test_every_ioctl_has_all_its_fields(self):
        fields = re.findall(r"^:(\w+): ", api_rst(), re.M)
        assert 3 * ["Capability", "Architectures", "Type", "Parameters", "Returns"] == fields
