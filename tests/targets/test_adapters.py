"""What others start from: adapters that answer ``unsupported`` and never wrongly, skeletons that only do the former."""

import re
import shutil
import subprocess
import sys
from functools import cache

import pytest

from published_files import ROOT
from specctrl.model.outcomes import Unsupported
from specctrl.scenario import PARTLY, PASS, UNSUPPORTED, read, run
from specctrl.scenario.format import OUTCOMES, SHOWS
from specctrl.scenario.reading import Step
from specctrl.scenario.running import normalised
from specctrl.scenario.selection import Selection
from specctrl.targets import open_target
from specctrl.targets.lockstep import ABOVE, history
from specctrl.targets.plain import decode
from specctrl.vectors.skeletons import skeletons

ADAPTERS = ROOT / "vectors" / "adapters"
CC = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
RUSTC = shutil.which("rustc")
EVERY = [each for each in read([ROOT / "vectors"]) if each.profile == "spec"]
COMMANDS = {
    ".c": [CC, "-std=c99", "-O1", "-Wall", "-Wextra", "-Werror", "-pedantic"],
    ".rs": [RUSTC, "--edition", "2021", "-D", "warnings"],
}
MISSING = {".c": "no C compiler here", ".rs": "no rustc here"}


def compiled(source, output):
    """The program of a source; a warning is an error, and no compiler skips the test."""
    command = COMMANDS[source.suffix]
    if command[0] is None:
        pytest.skip(f"{MISSING[source.suffix]}: {source.name} is not tried")
    done = subprocess.run([*command, "-o", str(output), str(source)], text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return output


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """Opens an adapter of the folder by its name, compiled once."""
    folder = tmp_path_factory.mktemp("adapters")
    programs = {}

    def open_it(name, source=None):
        source = source or ADAPTERS / name
        if source.suffix == ".py":
            return open_target(f"cmd:{sys.executable} {source}")
        if source not in programs:
            programs[source] = compiled(source, folder / f"program-{len(programs)}")
        return open_target(f"cmd:{programs[source]}", plain=True)

    return open_it


def results(target, scenarios=EVERY, **wanted):
    """What becomes of scenarios on a target."""
    found = list(run(Selection(**wanted).of(scenarios), lambda _: target))
    target.close()
    return found


def wrong_answer(target, run_):
    """How many steps of a random history were answered before the first ``unsupported``, and the first wrong one."""
    try:
        target.begin(run_.host, "spec", run_.assume)
    except Unsupported:
        return 0, None
    for index, (call, shown) in enumerate(zip(run_.calls, run_.shown, strict=True)):
        try:
            step = Step(call["op"], {key: value for key, value in call.items() if key != "op"}, {}, {})
            answer = {key: value for key, value in normalised(target.step(step)).items() if key not in ABOVE}
        except Unsupported:
            return index, None
        expected = normalised(decode(shown))
        seen = {key: value for key, value in expected.items() if key in target.observes or key in OUTCOMES}
        if answer != seen:
            return index, (run_.seed, index, call, seen, answer)
    return len(run_.calls), None


@cache
def histories():
    """Short random histories: an adapter that has little leaves a long one soon."""
    return [history(f"adapters.{number}", 10) for number in range(1500)]


def compared(target):
    """How many steps of random histories a target answered, and its wrong answers."""
    found = [wrong_answer(target, each) for each in histories()]
    target.close()
    return sum(answered for answered, _ in found), [wrong for _, wrong in found if wrong]


def is_bare(scenario):
    """Whether it asks a processor, not a hypervisor on it."""
    return all(step.op == "bare_stay" for step in scenario.steps)


class TestNeverWrong:
    """What an adapter does not know it says; what it says is right."""

    @pytest.mark.parametrize("name", ["adapter.py", "adapter.c"])
    def test_no_scenario_fails(self, name, opened):
        found = results(opened(name))
        assert [] == [(each.scenario.id, each.why) for each in found if each.status not in (PASS, PARTLY, UNSUPPORTED)]
        assert {PASS, PARTLY, UNSUPPORTED} == {each.status for each in found}

    @pytest.mark.parametrize("name", ["adapter.py", "adapter.c"])
    def test_no_step_of_a_random_history_is_answered_wrongly(self, name, opened):
        answered, wrong = compared(opened(name))
        assert [] == wrong
        assert answered > 500

    def test_an_empty_list_of_features_is_not_the_host_s(self, opened):
        target = opened("adapter.c")
        target.begin("sapphire-rapids", "spec", {})
        with pytest.raises(Unsupported, match="no create_vcpu of this kind"):
            target.step(Step("create_vcpu", {"vcpu": 0, "features": []}, {}, {}))
        target.close()

    @pytest.mark.parametrize(("name", "right", "planted"), [
        ("adapter.c", "	if (merged & ~cpu.writable)", "	if (value & ~cpu.writable)"),
        ("adapter.c", " && !(forced & ~cpu.forcible)", ""),
        ("adapter.py", "need(not self.vcpus, ", "need(True, "),
        ("adapter.py", " and self.can_force(mask, value)", ""),
        ("adapter.py", " and not value & ~VALID[msr] and (not vcpu", " and (not vcpu"),
    ])
    def test_an_adapter_that_guesses_is_caught(self, name, right, planted, opened, tmp_path):
        text = (ADAPTERS / name).read_text()
        assert text.count(right) == 1
        source = tmp_path / name
        source.write_text(text.replace(right, planted))
        failed = [each for each in results(opened(name, source)) if each.status not in (PASS, PARTLY, UNSUPPORTED)]
        assert failed or compared(opened(name, source))[1]


class TestPython:
    """adapter.py, on its own small model."""

    def test_it_passes_what_can_be_seen_from_outside(self, opened):
        found = results(opened("adapter.py"), levels=["processor", "force"])
        generated = [result.status for result in found if result.scenario.id.startswith("gen.")]
        assert generated.count(PASS) > 0.5 * len(generated)

    def test_a_line_that_is_not_json_is_answered(self):
        done = subprocess.run([sys.executable, ADAPTERS / "adapter.py"], input="op=begin profile=spec\n", text=True,
                              capture_output=True, check=True)
        assert done.stdout.startswith('{"unsupported": ')


class TestC:
    """adapter.c, on its own small model."""

    def test_it_passes_the_whole_level_of_the_processor(self, opened):
        found = results(opened("adapter.c"), levels=["processor"])
        assert [] == [(result.scenario.id, result.why) for result in found
                      if result.status != (UNSUPPORTED if is_bare(result.scenario) else PASS)]


@pytest.mark.parametrize("name", ["skeleton.c", "skeleton.rs"])
class TestSkeletons:
    """They compile without a warning, and answer unsupported to everything."""

    def test_no_scenario_passes_or_fails(self, name, opened):
        assert {UNSUPPORTED} == {result.status for result in results(opened(name))}

    def test_nor_does_one_that_claims_to_see_everything(self, name, opened, tmp_path):
        """So that the operations themselves are asked, and not only the keys."""
        source = tmp_path / name
        text = (ADAPTERS / name).read_text()
        assert text.count('"observes="') == 1
        source.write_text(text.replace('"observes="', f'"observes={",".join(SHOWS)}"'))
        found = results(opened(name, source))
        assert {UNSUPPORTED} == {result.status for result in found}
        assert all(re.fullmatch(r"no [a-z_]+ yet", result.why) for result in found)

    def test_it_has_every_operation_with_what_comes_and_what_goes(self, name):
        """If not: ``python -m specctrl.vectors vectors``."""
        file = ADAPTERS / name
        assert file.read_text() == skeletons(ADAPTERS.parent)[file]


FILLED = """
static uint64_t writable, mask, forced, view, effective;

static void create_vcpu(void) { view = 0; effective = forced; puts("ret=0"); }
static void rdmsr(void) { printf("value=0x%llx\\n", (unsigned long long)view); }
static void host_exit(void) { printf("host_spec_ctrl=0x%llx\\n", (unsigned long long)host.spec_ctrl); }

static void enable_cap(void)
{
	const char *comma = strchr(text("args"), ',');

	mask = number("args");
	forced = comma ? strtoull(comma + 1, NULL, 0) : 0;
	puts("ret=0");
}

static void wrmsr(void)
{
	uint64_t merged = (number("value") & ~mask) | (forced & mask);
	int gp = (merged & ~writable) != 0;

	if (!gp) {
		view = number("value");
		effective = merged;
	}
	puts(gp ? "fault=#GP" : "ok");
}

static void observe(void)
{
	printf("effective=0x%llx ", (unsigned long long)effective);
	printf("guest_view=0x%llx level=1 smm=false\\n", (unsigned long long)view);
}

static void begin(void)
{
	static const struct { const char *feature; uint64_t bits; } fields[] = {
		{ "SPEC_CTRL", 1 << 0 }, { "STIBP", 1 << 1 }, { "SSBD", 1 << 2 }, { "IPRED_CTRL", 3 << 3 },
		{ "RRSBA_CTRL", 3 << 5 }, { "PSFD", 1 << 7 }, { "DDPD_U", 1 << 8 }, { "BHI_CTRL", 1 << 10 },
	};
	size_t i;

	writable = mask = forced = 0;
	for (i = 0; i < sizeof(fields) / sizeof(*fields); i++)
		writable |= has("host.features", fields[i].feature) ? fields[i].bits : 0;
"""
"""What a reader of skeleton.c writes in its second step."""


def test_the_skeleton_filled_in_as_it_says_passes_the_level_processor(opened, tmp_path):
    text = (ADAPTERS / "skeleton.c").read_text()
    text = text.replace("static void begin(void)\n{\n", FILLED)
    text = text.replace('"observes="', '"observes=value,fault,ret,host_spec_ctrl,effective,guest_view,level,smm"')
    for op in ("create_vcpu", "wrmsr", "rdmsr", "observe", "enable_cap"):
        text = text.replace(f'"{op}", unsupported', f'"{op}", {op}')
    source = tmp_path / "adapter.c"
    source.write_text(text.replace('"exit", unsupported', '"exit", host_exit'))
    found = results(opened("skeleton.c", source), levels=["processor"])
    unseen = {"mask", "shadow", "saved", "intercepted", "reads_intercepted", "in_guest", "shut_down"}
    assert [] == [(each.scenario.id, each.why) for each in found if each.status not in (PASS, PARTLY, UNSUPPORTED)]
    assert [each.scenario.id for each in found if each.status == PARTLY] == [
        each.scenario.id for each in found
        if any(unseen & {*step.expect} for step in each.scenario.steps) and not is_bare(each.scenario)]
    assert sum(each.status == PASS for each in found) > 25


@pytest.mark.parametrize(("name", "most"), [("adapter.py", 175), ("adapter.c", 190), ("skeleton.c", 150),
                                            ("skeleton.rs", 135)])
def test_it_can_be_read_at_one_sitting(name, most):
    assert len((ADAPTERS / name).read_text().splitlines()) < most
