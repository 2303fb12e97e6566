"""``specctrl run``: run scenarios on a target, and compare what happens with what must."""

import argparse
import contextlib
import json
import sys
from dataclasses import asdict, replace
from typing import Any

from specctrl.cli.command import UserError, at_least, command, replacing
from specctrl.scenario import (
    FAIL,
    EmulatorTarget,
    Invalid,
    Report,
    Result,
    Scenario,
    Target,
    TargetFailed,
    as_json,
    as_junit,
    as_text,
    read,
    run,
    summary,
)
from specctrl.scenario.format import PROFILES
from specctrl.scenario.published import released
from specctrl.scenario.report import BY, INVALID, NOTHING_RAN, as_table, in_order, printable, tally
from specctrl.scenario.selection import add_selection, selection
from specctrl.targets import TargetMissing, UnknownTarget, open_target

EXPLAINED = 5
"""Of so many failures it is asked which rules they point at; each takes some seconds."""

EPILOG = """\
Without a PATH the released scenarios are run that come with this package.  They are run by level,
and within a level the shortest first.

targets:
  (none)       each scenario runs on the emulator of its own profile
  spec         the emulator: what this specification requires
  rfc-v3       the emulator: the ten patches as posted
  c            the C reference, compiled with the system's compiler (CC, else cc, gcc or clang)
  kvm          the kernel that runs here, through /dev/kvm: what it cannot show is unsupported, with the
               reason; each pass says what was observed: ioctl (counts, errnos, lists), filter (what an
               MSR filter refuses), exit (exits for RDMSR and WRMSR), fault (#GP in the guest), kept (the
               virtual MSRs, kept in userspace), init, move
  bochs        the emulator's KVM, of the scenario's profile, on the processor of Bochs: needs the package
               bochscpu-python (pip install '.[bochs]') and a C compiler; where its IA32_SPEC_CTRL
               takes a bit that the scenario's host refuses, the scenario is unsupported
  cmd:PROGRAM  a program that performs scenarios: one line on its standard input, one answer line for
               each, within 10 s; PROGRAM may have arguments, in shell quotes.  If it breaks it is started
               again, and the scenario fails.  Guest kernels (boot) are not asked of it

  A program speaks JSON or words, which is found out with the first line (--plain: it speaks words):

  {"op": "begin", "host": {"part": ..., "features": [...], "spec_ctrl_shadow": true,
   "host_spec_ctrl": "0x401", "nested": true, ...}, "profile": "spec", "assume": {...}}
               answered by {}, {"unsupported": "why"} or {"profiles": [...], "observes": [...]}
  {"op": "wrmsr", "vcpu": 0, "msr": "0x48", "value": "0x400"}
               answered by what was seen, {} if nothing, {"unsupported": "why"} or {"misuse": "why"}

  The same as words: op=wrmsr vcpu=0 msr=0x48 value=0x400, answered by fault=#GP, by ok, or by
  unsupported=WHY.  The chapter "Scenarios" has every line of both.

results:
  pass; partly (what the target can observe is as expected, and what it cannot is named); fail;
  unsupported (it cannot perform a step, or sees nothing of what is expected); other-profile (it
  implements another profile; not run).  All are counted and printed
  Of the first failures of a target it is said which rules are suspect: those whose code, changed
  a little in the emulator, goes wrong in the same way.  Below them stand those that the file names

exit status:
  0  at least one scenario ran, and all that ran pass, or pass partly
  1  a mismatch, more unsupported than allowed, or an adapter that broke
  2  a file that is not a valid scenario (nothing is run), or a wrong command line
  3  nothing could run

examples:
  specctrl run
  specctrl run --level processor --target cmd:./my-hypervisor
  specctrl run vectors/cap --target spec --json
  specctrl run vectors --level processor --by rule
  specctrl run vectors --target 'cmd:./my-hypervisor --serve' --junit report.xml
"""


def add_run(commands: Any) -> None:
    """Add ``run`` to the command line."""
    parser = command(
        commands, "run", run_command, "run scenarios and compare what happens with what must", EPILOG)
    parser.add_argument("paths", nargs="*", metavar="PATH",
                        help="a scenario, or a directory of them (default: the released ones)")
    parser.add_argument("--target", metavar="NAME", help="what runs the scenarios (see below)")
    parser.add_argument("--plain", action="store_true", help="cmd:PROGRAM speaks words; do not find out")
    parser.add_argument("--profile", choices=["any"], help="any: run scenarios of other profiles too")
    parser.add_argument("--max-unsupported", type=at_least(0), metavar="N",
                        help="how many may be unsupported (default: 0; any number for kvm, bochs and cmd:)")
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    output.add_argument("--junit", metavar="FILE", help="also write a JUnit file")
    parser.add_argument("--by", choices=list(BY), help="also count the results by rule, or by level")
    add_selection(parser)


def run_command(options: argparse.Namespace) -> int:
    """``specctrl run``: check all files, run them, report."""
    if options.plain and not (options.target or "").startswith("cmd:"):
        raise UserError("--plain goes with --target cmd:PROGRAM only")
    try:
        scenarios = sorted(selection(options).of(read(options.paths) if options.paths else released()), key=in_order)
    except Invalid as invalid:
        return _invalid(invalid, options.json)
    try:
        target = None if options.target is None else open_target(options.target, options.plain)
    except UnknownTarget as error:
        raise UserError(str(error)) from None
    except TargetMissing as missing:
        print(f"specctrl: {missing}", file=sys.stderr)
        return NOTHING_RAN
    with contextlib.nullcontext() if options.junit is None else replacing(options.junit) as put:
        report = _run(scenarios, target, options)
        if put is not None:
            put(as_junit(report))
    if options.json:
        print(json.dumps(as_json(report) | {f"{by}s": tally(report, by) for by in BY}, indent=1))
    else:
        if options.by is not None:
            print(as_table(tally(report, options.by), options.by))
        print(summary(report))
    return report.exit_status()


def _invalid(invalid: Invalid, as_object: bool) -> int:
    if as_object:
        problems = [asdict(problem) for problem in invalid.problems]
        print(json.dumps({"status": INVALID, "problems": problems}, indent=1))
    else:
        for problem in invalid.problems:
            print(printable(str(problem)), file=sys.stderr)
    return INVALID


def _with_suspects(result: Result, report: Report) -> Result:
    """A failure with the rules that it points at, if it is one of the first."""
    if result.status != FAIL or result.scenario.profile != PROFILES[0] or report.counts()[FAIL] >= EXPLAINED:
        return result
    from specctrl.evidence.suspects import suspects

    if not report.counts()[FAIL]:
        print(f"looking for the rules that the first {EXPLAINED} failures point at: seconds for each", file=sys.stderr,
              flush=True)
    return replace(result, suspects=suspects(result))


def _run(scenarios: list[Scenario], target: Target | None, options: argparse.Namespace) -> Report:
    limit = 0 if target is None else target.max_unsupported
    if options.max_unsupported is not None:
        limit = options.max_unsupported
    report = Report(len(scenarios), limit)
    emulators: dict[str, Target] = {}

    def target_of(scenario: Scenario) -> Target:
        return target or emulators.setdefault(scenario.profile, EmulatorTarget(scenario.profile))

    try:
        for each in run(scenarios, target_of, options.profile == "any"):
            result = each if target is None else _with_suspects(each, report)
            report.results.append(result)
            if not options.json:
                print(as_text(result))
        if target is not None:
            target.close()
    except TargetFailed as failure:
        report.broken = str(failure)
    finally:
        if target is not None:
            target.kill()
    return report
