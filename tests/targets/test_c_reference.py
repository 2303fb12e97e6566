"""The C reference: it compiles strictly, passes every scenario, and agrees with the emulator on random histories."""

import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

import planted
import planted_c
from moves import first_difference
from specctrl.cli.main import main
from specctrl.model.registers import CAPABILITIES, MSR_NUMBERS, REGISTERS
from specctrl.rules import load_rules
from specctrl.scenario import EmulatorTarget, load, read, run_one
from specctrl.scenario.format import OPERATIONS
from specctrl.scenario.machine import Machine
from specctrl.targets import TargetMissing, open_target
from specctrl.targets import c_reference as reference
from specctrl.targets.adapter import AdapterTarget
from specctrl.targets.c import CannotBuild, CTarget, build, cache_folder, compiler
from specctrl.targets.guest_kernels import GuestsAbove
from specctrl.targets.lockstep import ABOVE, Finding, Lockstep, Run, history, shortened
from specctrl.targets.plain import encode

C = reference.folder()
RULES = load_rules()
STRICT = ("-Wall", "-Wextra", "-Wshadow", "-Werror", "-pedantic")
SANITIZE = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
QUICK = ("-std=c99", "-O1")
SLOW = bool(os.environ.get("SPECCTRL_SLOW"))
PERFORMED = {name for name, operation in OPERATIONS.items() if operation.often} | {"boot", "observe"}
"""What the reference performs, and what the guest kernels above it do; tests/scenario/test_operations.py compares."""
EVERY = [scenario for scenario in read([Path(__file__).parents[2] / "vectors"]) if scenario.profile == "spec"]
LEFT_OUT = "contract.report.userspace-init"


def _has(command, *flags):
    """Whether this compiler is here and can do this."""
    if not command or shutil.which(command[0]) is None:
        return False
    program = "int main(void) { return 0; }"
    done = subprocess.run([*command, *flags, "-xc", "-", "-o", os.devnull], input=program, text=True, check=False,
                          capture_output=True)
    return done.returncode == 0


def _compiler():
    try:
        return compiler()
    except CannotBuild:
        return []


CC = _compiler()
needs_c = pytest.mark.skipif(not _has(CC), reason="no C compiler here: the C reference was not compiled or run")
needs_sanitizers = pytest.mark.skipif(
    not _has(CC, *SANITIZE), reason="no C compiler with sanitizers here: the C reference did not run with them")
needs_cxx = pytest.mark.skipif(not _has(["g++"]), reason="no g++ here: specctrl.h was not compiled as C++")


def compiled(source, output, *flags, command=None):
    """Compile one file; the compiler's words if it refuses."""
    done = subprocess.run([*(command or CC), *flags, "-o", str(output), str(source)], text=True, check=False,
                          capture_output=True)
    return done.stderr


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("c")


@pytest.fixture(scope="module")
def sanitized(cache):
    return build(C, ("-std=c99", *STRICT, *SANITIZE), cache)


@pytest.fixture(scope="module")
def program(cache):
    return build(C, cache=cache)


def results(program, scenarios=EVERY):
    """What becomes of scenarios on a program."""
    target = GuestsAbove(AdapterTarget(str(program), plain=True))
    try:
        return [run_one(scenario, target) for scenario in scenarios]
    finally:
        target.close()


def failing(program):
    return [result.scenario.id for result in results(program) if result.status == "fail"]


class TestUpToDate:
    """The register header follows the tables, the functions' hashes follow the rules' texts."""

    @pytest.fixture
    def copy(self, tmp_path):
        return Path(shutil.copytree(C, tmp_path / "c"))

    def test_nothing_is_stale(self):
        assert [] == reference.complaints(C, RULES)

    def test_every_number_of_the_tables_is_in_the_register_header(self):
        header = (C / reference.REGISTER_HEADER).read_text()
        for number in (*MSR_NUMBERS.values(), REGISTERS["IA32_SPEC_CTRL_MASK"].number):
            assert f"\t0x{number:08x}\n" in header
        for capability in CAPABILITIES.values():
            assert re.search(rf"#define {capability.name}\t+{capability.number}\n", header)
        for register in REGISTERS.values():
            if register.kind != "VMCS field":
                for field in register:
                    assert re.search(rf"#define \w+_{field.name}\t+\(1ULL << {field.low}\)", header)

    def test_another_number_makes_the_register_header_stale_until_it_is_written(self, copy):
        path = copy / reference.REGISTER_HEADER
        path.write_text(path.read_text().replace("(1ULL << 10)", "(1ULL << 9)"))
        (said,) = reference.complaints(copy, RULES)
        assert said.endswith("specctrl_regs.h: not what the tables give; run specctrl reference --write")
        path.write_text(reference.register_header())
        assert [] == reference.complaints(copy, RULES)

    def test_a_rule_with_another_text_makes_its_functions_stale_until_they_are_reviewed(self, copy):
        id = "force.mask-follows"
        rules = {**RULES, id: replace(RULES[id], text=RULES[id].text.replace("before", "after"))}
        own = reference.own_annotations(copy)
        said = reference.complaints(copy, rules)
        assert [line.split(": ")[1] for line in said] == ["specctrl_update_force", "specctrl_vmcs_loaded"]
        assert all(re.match(rf"reference/c/specctrl.h:\d+: .* the text of {id} has changed", line) for line in said)
        assert 0 == reference.mark_reviewed(copy, own, rules, ["entry.loads-saved"])
        assert 1 == reference.mark_reviewed(copy, own, rules, [id])
        assert [] == reference.complaints(copy, rules)

    def test_each_rule_of_a_list_in_a_comment_is_found_on_its_line(self, tmp_path):
        file = tmp_path / "x.h"
        file.write_text("/*\n * Both.\n * rule: entry.loads-saved, exit.view-taken,\n *\t exit.host-restored\n */\n"
                        "static void both(void)\n")
        found = [(each.line, each.function, each.rule) for each in reference.annotations(file, "x.h")]
        assert found == [(3, "both", "entry.loads-saved"), (3, "both", "exit.view-taken"),
                         (4, "both", "exit.host-restored")]

    def test_a_rule_in_the_table_that_no_function_names_is_said(self, copy):
        table = copy / reference.TABLE
        table.write_text(table.read_text() + f"{LEFT_OUT} 00000000\n")
        (said,) = reference.complaints(copy, RULES)
        assert said == f"reference/c/reviewed.txt: no function names {LEFT_OUT}; its line can go"

    def test_a_line_of_the_table_that_is_none_is_an_error(self, copy):
        table = copy / reference.TABLE
        for line in ("entry.loads-saved", "entry.loads-saved 00000000"):
            table.write_text((C / reference.TABLE).read_text() + f"{line}\n")
            with pytest.raises(ValueError, match=rf"reviewed.txt:\d+: '{line}' is no rule with its hash"):
                reference.complaints(copy, RULES)

    def test_line_ends_in_a_rule_s_text_do_not_matter(self):
        rule = RULES["force.mask-follows"]
        assert reference.text_hash(rule) == reference.text_hash(replace(rule, text=rule.text.replace(" ", "\n  ")))

    def test_a_rule_that_does_not_exist_is_said(self, copy):
        rules = {id: rule for id, rule in RULES.items() if id not in ("entry.loads-saved", LEFT_OUT)}
        assert [line.split(": ", 1)[1] for line in reference.complaints(copy, rules)] == [
            "specctrl_enter_guest: there is no rule entry.loads-saved", f"there is no rule {LEFT_OUT}"]

    def test_a_rule_that_nothing_carries_out_needs_a_reason(self, copy):
        readme = copy / "README.md"
        text = readme.read_text()
        readme.write_text(re.sub(r"\| `contract.report.userspace-init`.*\n", "| `entry.loads-saved` | why |\n", text))
        assert [line.split(": ", 1)[1] for line in reference.complaints(copy, RULES)] == [
            "entry.loads-saved is listed as left out, and carried out",
            "nothing carries out contract.report.userspace-init, and its README.md does not say why"]

    def test_an_annotation_stands_before_a_function(self, copy):
        header = copy / reference.HEADER
        header.write_text(header.read_text() + "/* rule: entry.loads-saved */\nstruct x;\n")
        with pytest.raises(ValueError, match=r"rule entry\.loads-saved stands before no function"):
            reference.complaints(copy, RULES)

    def test_a_rule_that_is_not_in_the_table_is_stale(self, copy):
        table = copy / reference.TABLE
        table.write_text(re.sub(r"entry.loads-saved \w+\n", "", table.read_text()))
        (said,) = reference.complaints(copy, RULES)
        assert "specctrl_enter_guest: the text of entry.loads-saved has changed" in said

    def test_a_copy_elsewhere_can_be_asked_too(self, tmp_path, capsys):
        file = tmp_path / "vmx.c"
        file.write_text("/* rule: entry.loads-saved */\nvoid vmx_enter(struct kvm_vcpu *vcpu)\n{\n}\n")
        assert main(["reference", str(file)]) == 1
        assert capsys.readouterr().out.startswith(f"{file}:1: vmx_enter: the text of entry.loads-saved has changed")
        assert main(["reference", str(file), "--reviewed", "entry.loads-saved"]) == 0
        assert capsys.readouterr().out == "1 hashes changed\n1 rules in 1 functions; 0 complaints\n"
        assert (tmp_path / reference.TABLE).read_text() == (
            f"entry.loads-saved {reference.text_hash(RULES['entry.loads-saved'])}\n")
        assert main(["reference", str(tmp_path / "none.c")]) == 2
        file.write_text("/* rule: entry.loads-saved */\n")
        assert main(["reference", str(file)]) == 1
        assert "stands before no function" in capsys.readouterr().err

    def test_the_command_says_what_is_stale_and_what_to_do(self, copy, monkeypatch, capsys):
        monkeypatch.setattr(reference, "folder", lambda: copy)
        table = copy / reference.TABLE
        table.write_text(re.sub(r"(entry.loads-saved) \w+", r"\1 00000000", table.read_text()))
        (copy / reference.REGISTER_HEADER).unlink()
        assert main(["reference"]) == 1
        assert len(capsys.readouterr().out.splitlines()) == 3
        assert main(["reference", "--write", "--reviewed", "entry.loads-saved"]) == 0
        assert "1 hashes changed\n" in capsys.readouterr().out
        assert main(["reference", "--reviewed", "no.rule"]) == 2
        assert table.read_text() == (C / reference.TABLE).read_text()


@needs_c
class TestCompiles:
    """Without a warning, in every mode that matters."""

    @pytest.mark.parametrize("standard", ["c99", "c11", "gnu17"])
    @pytest.mark.parametrize("name", ["adapter.c", "selfcheck.c", "sample.c"])
    def test_as_c(self, name, standard, tmp_path):
        assert compiled(C / name, tmp_path / "x", f"-std={standard}", "-O2", *STRICT) == ""

    @needs_cxx
    @pytest.mark.parametrize("standard", ["c++11", "c++20"])
    def test_the_header_as_cxx(self, standard, tmp_path):
        source = tmp_path / "x.cpp"
        source.write_text('#include "specctrl_cpu.h"\n'
                          "int main() { specctrl_model model; specctrl_vm vm{}; specctrl_host host{};\n"
                          "vm.host = &host; specctrl_model_create(&model, &vm, 0); return model.vcpu.has_run; }\n")
        flags = (f"-std={standard}", "-O2", *STRICT, f"-I{C}")
        assert compiled(source, tmp_path / "x", *flags, command=["g++"]) == ""
        assert subprocess.run([tmp_path / "x"], check=False).returncode == 0

    def test_the_header_needs_nothing_but_c_s_own_headers(self):
        includes = set(re.findall(r"#include (\S+)", (C / reference.HEADER).read_text()))
        own = {"<stdbool.h>", "<stddef.h>", "<stdint.h>", "<string.h>"}
        kernel = {"<linux/string.h>", "<linux/types.h>"}
        assert includes == own | kernel | {'"specctrl_regs.h"'}

    def test_the_header_stands_in_a_tree_that_has_its_own_words(self, tmp_path):
        """No typedef of its own, and the registers' names from the tree."""
        registers = (C / reference.REGISTER_HEADER).read_text()
        source = tmp_path / "x.c"
        source.write_text(f"{registers}\ntypedef unsigned u64, u32, u8;\n#define SPECCTRL_OWN_REGS\n"
                          '#include "specctrl_cpu.h"\nint main(void) { return 0; }\n')
        assert "typedef" not in "".join((C / name).read_text() for name in reference.HEADERS)
        assert compiled(source, tmp_path / "x", "-std=c99", *STRICT, f"-I{C}") == ""

    def test_the_accessors_can_be_linked_from_elsewhere(self, tmp_path):
        """As a program in another language gives them."""
        source = tmp_path / "x.c"
        source.write_text('#define SPECCTRL_MINIMAL\n#define SPECCTRL_ACCESSOR extern\n#include "specctrl.h"\n'
                          "void enter(struct specctrl_vcpu *vcpu) { specctrl_enter_guest(vcpu); }\n")
        assert compiled(source, tmp_path / "x.o", "-c", "-std=c99", *STRICT, f"-I{C}") == ""

    def test_an_outcome_that_nobody_looks_at_is_a_warning(self, tmp_path):
        source = tmp_path / "x.c"
        source.write_text('#include "specctrl_cpu.h"\n'
                          "void f(struct specctrl_vcpu *vcpu) { specctrl_vcpu_force(vcpu, 0, 0); }\n")
        assert "warn_unused_result" in compiled(source, tmp_path / "x.o", "-c", "-std=c99", *STRICT, f"-I{C}")

    def test_every_function_that_has_an_outcome_must_be_looked_at(self):
        text = "".join((C / name).read_text() for name in reference.HEADERS)
        assert re.findall(r"^static inline enum \w+.*", text, re.MULTILINE) == []
        assert len(re.findall(r"^static inline specctrl_checked\b", text, re.MULTILINE)) > 20

    def test_the_header_is_shorter_than_it_was(self):
        text = (C / reference.HEADER).read_text()
        part_1 = text.partition("end of part 1")[0]
        assert len(text.splitlines()) < 1200
        assert len(part_1.splitlines()) < 600
        assert len((C / "sample.c").read_text().splitlines()) <= 60

    def test_the_sample_shows_what_it_says(self, tmp_path):
        assert compiled(C / "sample.c", tmp_path / "sample", "-std=c99", *STRICT, *SANITIZE) == ""
        done = subprocess.run([tmp_path / "sample"], text=True, check=False, capture_output=True)
        assert (done.returncode, done.stdout.splitlines()) == (0, [
            "guest reads 0x5, runs with 0x1, host has 0x1", "guest reads 0x4, runs with 0x400, host has 0x1"])

    def test_every_file_names_its_licences(self):
        for path in C.glob("*.[ch]"):
            assert "SPDX-License-Identifier: (GPL-2.0 OR MIT)" in path.read_text().splitlines()[0]


@needs_sanitizers
class TestSelfCheck:
    """The program that needs nothing but a compiler."""

    def run(self, source, tmp_path):
        assert compiled(source / "selfcheck.c", tmp_path / "selfcheck", "-std=c99", *STRICT, *SANITIZE) == ""
        return subprocess.run([tmp_path / "selfcheck"], text=True, check=False, capture_output=True)

    def test_every_check_holds(self, tmp_path):
        done = self.run(C, tmp_path)
        lines = done.stdout.splitlines()
        assert (done.returncode, done.stderr) == (0, "")
        assert lines[-1] == f"1..{len(lines) - 1}"
        assert all(line.startswith(f"ok {number} - ") for number, line in enumerate(lines[:-1], 1))
        assert f"| {len(lines) - 1} checks that need nothing" in (C / "README.md").read_text()

    def test_a_defect_in_the_header_is_noticed(self, tmp_path):
        source = planted_c.plant("D1", C, tmp_path / "d1")
        done = self.run(source, tmp_path)
        assert done.returncode == 1
        assert "not ok" in done.stdout


@needs_sanitizers
class TestVectors:
    """Every scenario of the profile passes."""

    def test_all_pass(self, sanitized):
        found = {result.scenario.id: (result.status, result.why) for result in results(sanitized)}
        assert {id: said for id, said in found.items() if said != ("pass", "")} == {}
        assert len(found) == len(EVERY) > 700


class TestChooser:
    """Random histories reach what there is to reach."""

    def test_every_operation_and_every_outcome_occurs(self):
        runs = [history(f"1.{number}") for number in range(250)]
        assert PERFORMED - {"boot"} == {call["op"] for run in runs for call in run.calls}
        words = {word for run in runs for shown in run.shown for word in shown.split()}
        assert {"errno=EINVAL", "errno=ENOTTY", "errno=EFAULT", "errno=EEXIST", "fault=#GP", "abort=true",
                "reflected=true", "blocked=true", "exit.reason=INVAL", "exit.reason=UNKNOWN", "exit.reason=FILTER",
                "exit.kind=rdmsr", "exit.kind=wrmsr", "fail.entry=1", "fail.entry=2", "refused=0x48", "refused=cpuid",
                "level=2", "smm=true", "shut_down=true", "mask=null", "intercepted=true", "intercepted=false"} <= words
        assert not {word for word in words if word.startswith("host_fault")}

    def test_a_seed_gives_one_history_and_another_seed_another(self):
        assert history("1.1").messages() == history("1.1").messages()
        assert history("1.1").messages() != history("1.2").messages()

    def test_a_look_is_written_as_any_other_answer(self):
        for host in ("sapphire-rapids", "ice-lake-server"):
            machine = Machine(host, record=False)
            machine.create_vcpu()
            run = Run("1.1", host, {})
            run.look(machine)
            seen = {key: value for key, value in machine.observe().items() if key not in ABOVE}
            assert (run.calls[-1], run.shown[-1]) == ({"op": "observe", "vcpu": 0}, encode(seen))


@pytest.fixture
def compared():
    """Compares a program: the comparison, and a finding or how many events were compared."""
    targets = []

    def compare(program, events, seed=0):
        targets.append(AdapterTarget(str(program), plain=True))
        lockstep = Lockstep(targets[-1])
        *_, last = lockstep.compare(events, seed)
        return lockstep, last

    yield compare
    for target in targets:
        target.kill()


@needs_c
class TestLockstep:
    """The C reference and the emulator show the same, step by step."""

    def test_on_random_histories(self, program, compared):
        events = 300_000 if SLOW else 20_000
        lockstep, last = compared(program, events, seed=20240410)
        assert last == events, json.dumps(last.document())
        assert lockstep.left_out == {}

    def test_each_vmm_moves_a_vm_as_its_record_says(self, program):
        assert first_difference(program) is None

    @pytest.mark.parametrize(("old", "new"), [
        ("ABORT, false, true, true }", "STOP, false, true, true }"),
        ("ABORT, false, true, true }", "ABORT, false, true, false }"),
        ("STOP, false, false, false }", "STOP, false, true, false }"),
        ("2, SKIP, true, true, false }", "2, SKIP, false, true, false }"),
        ("2, SKIP, true, true, false }", "1, SKIP, true, true, false }"),
        ("while (done < read)", "if (done < read)"),
    ])
    def test_another_record_is_found(self, old, new, cache, tmp_path):
        source = Path(shutil.copytree(C, tmp_path / "c"))
        text = (source / reference.ADAPTER).read_text()
        assert text.count(old) == 1
        (source / reference.ADAPTER).write_text(text.replace(old, new))
        assert first_difference(build(source, QUICK, cache)) is not None

    @pytest.mark.parametrize(("old", "new"), [
        ("vcpu->saved == vcpu->host->spec_ctrl && vcpu->saved == specctrl_rdmsr(vcpu);",
         "vcpu->saved == vcpu->host->spec_ctrl;"),
        ("		vcpu->saved = specctrl_merge(vcpu->guest_view, vcpu->force_mask, vcpu->force_value);\n",
         "		vcpu->saved = held;\n"),
        ("vcpu->host->has_control ? specctrl_read_shadow(vcpu) : held;", "specctrl_read_shadow(vcpu);"),
        ("return (vcpu->cpuid & SPECCTRL_SHOW_MSR) &&", "return (vcpu->cpuid & SPECCTRL_HAS_SPEC_CTRL) &&"),
        ("return vcpu->cpuid & SPECCTRL_SHOW_MSR;", "return vcpu->cpuid & SPECCTRL_HAS_SPEC_CTRL;"),
        ("	if (held != vcpu->host->spec_ctrl || vcpu->host->legacy_ibrs)\n", "	if (vcpu->host->legacy_ibrs)\n"),
    ])
    def test_a_slip_is_found_by_random_histories(self, old, new, cache, tmp_path, compared):
        source = Path(shutil.copytree(C, tmp_path / "c"))
        planted_c.change(source, (old, new))
        assert isinstance(compared(build(source, QUICK, cache), 20_000, seed=2)[1], Finding)

    @needs_sanitizers
    def test_with_sanitizers(self, sanitized, compared):
        assert compared(sanitized, 2_000, seed=1)[1] == 2_000

    @pytest.mark.parametrize("defect", sorted(planted_c.DEFECTS))
    def test_a_defect_is_found_and_shortened_to_a_scenario_that_shows_it(self, defect, cache, tmp_path, compared):
        wrong = build(planted_c.plant(defect, C, tmp_path / defect), QUICK, cache)
        lockstep, found = compared(wrong, 20_000)
        assert isinstance(found, Finding)
        short = shortened(lockstep, found)
        assert len(short.run.calls) <= 8
        scenario = load(short.document())
        assert run_one(scenario, EmulatorTarget("spec")).status == "pass"
        (result,) = results(wrong, [scenario])
        assert (result.status, result.step) == ("fail", len(scenario.steps) - 1)

    def test_the_command(self, program, cache, tmp_path, capsys):
        assert main(["lockstep", "--events", "300", "--seed", "5"]) == 0
        assert capsys.readouterr().out.splitlines()[-1].startswith("300 events, seed 5, level kvm-abi: no difference (")
        wrong = build(planted_c.plant("D1", C, tmp_path / "d1"), QUICK, cache)
        assert main(["lockstep", "--target", f"cmd:{wrong}"]) == 1
        said = capsys.readouterr()
        (tmp_path / "difference.json").write_text(said.out)
        assert "the emulator shows effective=" in said.err.splitlines()[-1]
        assert main(["run", str(tmp_path / "difference.json"), "--target", f"cmd:{wrong}", "--plain"]) == 1
        assert main(["run", str(tmp_path / "difference.json"), "--target", f"cmd:{program}"]) == 0
        assert main(["lockstep", "--target", "spec"]) == 2


@needs_c
class TestDefects:
    """Each plantable defect, planted in the C text, is caught by the scenarios alone."""

    def test_they_are_those_that_are_planted_in_the_emulator(self):
        classes = {name for name in vars(planted) if re.fullmatch(r"D\d+\w*", name)}
        assert classes == set(planted_c.DEFECTS)

    @pytest.mark.parametrize("defect", sorted(planted_c.DEFECTS))
    def test_a_scenario_fails(self, defect, cache, tmp_path):
        assert failing(build(planted_c.plant(defect, C, tmp_path / "c"), QUICK, cache))

    def test_a_restore_by_the_computed_value_shows_alone_only_where_an_nmi_wrote_the_register(self, cache, tmp_path):
        program = build(planted_c.plant("D18", C, tmp_path / "c"), QUICK, cache)
        assert failing(program) == ["entry.nmi.before-first-write", "field.nmi.before-save", "field.nmi.first-exit"]

    def test_and_with_a_drifting_mask_it_leaves_the_host_unprotected(self, cache, tmp_path):
        """As the posted series does, by the scenario that shows it; the drift alone does not reach the host."""
        posted = next(each for each in read([Path(EVERY[0].file).parents[1] / "defects"])
                      if each.id == "defect.mask.host-unprotected")
        seen = {}
        for defect in ("D1", "D18WithDrift"):
            target = AdapterTarget(str(build(planted_c.plant(defect, C, tmp_path / defect), QUICK, cache)), plain=True)
            target.begin(posted.host, posted.profile, posted.assume)
            answers = [target.step(step) for step in posted.steps]
            seen[defect] = [answer["host_spec_ctrl"] for answer in answers if "host_spec_ctrl" in answer]
            target.close()
        assert seen == {"D1": ["0x401"], "D18WithDrift": ["0x1"]}


class TestTarget:
    """``specctrl run --target c``."""

    @needs_c
    def test_it_runs_scenarios_of_its_profile(self, capsys):
        target = open_target("c")
        assert isinstance(target, GuestsAbove)
        assert isinstance(target.target, CTarget)
        assert main(["run", EVERY[0].file, "--target", "c"]) == 0
        assert "1 pass" in capsys.readouterr().out

    @needs_c
    def test_guest_kernels_stand_above_it(self):
        kernel = {"os": "linux", "reports": True, "sequence": "short", "retpoline": False, "bhi_dis_s": "auto",
                  "spectre_bhi": "on"}
        scenario = load({"schema": "specctrl/scenario/1", "id": "x.y", "host": "sapphire-rapids",
                         "steps": [{"op": "create_vcpu"}, {"op": "boot", "kernel": kernel}]})
        for target, expected in ((CTarget(), ("unsupported", 1)), (GuestsAbove(CTarget()), ("pass", None))):
            result = run_one(scenario, target)
            target.close()
            assert (result.status, result.step) == expected

    @needs_c
    def test_misuse_is_said(self, program):
        for step, why in (({"op": "nested_exit"}, "L2 does not run"), ({"op": "rsm"}, "RSM outside SMM"),
                          ({"op": "vmxoff"}, "L1 is not in VMX operation"),
                          ({"op": "reply_msr_exit", "value": 1}, "no exit is pending")):
            scenario = load({"schema": "specctrl/scenario/1", "id": "x.y", "host": "sapphire-rapids",
                             "steps": [{"op": "create_vcpu"}, step]})
            (result,) = results(program, [scenario])
            assert (result.status, result.observed) == ("fail", {"misuse": why})

    def test_without_a_compiler_it_says_why_and_leaves_with_3(self, monkeypatch, capsys):
        monkeypatch.setenv("PATH", "/nowhere")
        monkeypatch.delenv("CC", raising=False)
        with pytest.raises(TargetMissing, match="none of cc, gcc, clang is on PATH, and CC is not set"):
            open_target("c")
        for command in (["run", EVERY[0].file, "--target", "c"], ["lockstep"]):
            assert main(command) == 3
            assert capsys.readouterr().err.count("\n") == 1

    def test_the_environment_s_compiler_is_taken(self, monkeypatch):
        monkeypatch.setenv("CC", "/no/such/cc -m64")
        with pytest.raises(CannotBuild, match="CC is '/no/such/cc', which is not there"):
            compiler()
        monkeypatch.setenv("CC", "true --really")
        assert compiler() == ["true", "--really"]

    @needs_c
    def test_a_compiler_that_refuses_is_quoted(self, tmp_path):
        source = Path(shutil.copytree(C, tmp_path / "c"))
        (source / reference.HEADER).write_text("#error no good\n")
        with pytest.raises(CannotBuild, match=r"does not compile it: .*no good"):
            build(source, cache=tmp_path)

    @needs_c
    def test_a_program_is_compiled_once_and_anew_when_its_text_changes(self, tmp_path):
        source = Path(shutil.copytree(C, tmp_path / "c"))
        first = build(source, QUICK, tmp_path)
        made = first.stat().st_mtime_ns
        assert (build(source, QUICK, tmp_path), first.stat().st_mtime_ns) == (first, made)
        header = source / reference.REGISTER_HEADER
        header.write_text(header.read_text() + "\n")
        assert build(source, QUICK, tmp_path) != first

    def test_a_place_where_nothing_can_be_written_is_said(self, tmp_path):
        (tmp_path / "file").write_text("")
        if CC:
            with pytest.raises(CannotBuild, match="file"):
                build(C, cache=tmp_path / "file" / "c")

    def test_programs_are_kept_in_the_build_folder_of_a_checkout(self):
        assert cache_folder() == Path(__file__).parents[2] / "_build" / "c"
