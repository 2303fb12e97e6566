"""Scenarios: read, check, run, report.

:func:`read` takes files, :func:`loads` a text, :func:`run` performs scenarios on a target and yields
results.  The operations are the table in :mod:`specctrl.scenario.format`.

>>> scenario = loads('''{
...   "schema": "specctrl/scenario/1", "id": "example.first-write", "host": "sapphire-rapids",
...   "steps": [{"op": "create_vcpu"}, {"op": "wrmsr", "msr": "IA32_SPEC_CTRL", "value": "0x1"},
...             {"op": "rdmsr", "msr": "IA32_SPEC_CTRL", "expect": {"value": "0x1"}}]}''')
>>> run_one(scenario, EmulatorTarget("spec")).status
'pass'
"""

from specctrl.scenario.kinds import Problem
from specctrl.scenario.reading import Invalid, Scenario, Step, load, loads, read
from specctrl.scenario.report import Report, as_json, as_junit, as_text, summary
from specctrl.scenario.running import (
    FAIL,
    OTHER_PROFILE,
    PARTLY,
    PASS,
    UNSUPPORTED,
    EmulatorTarget,
    Result,
    Target,
    TargetFailed,
    differences,
    run,
    run_one,
)
from specctrl.scenario.schema import json_schema

__all__ = [
    "FAIL",
    "OTHER_PROFILE",
    "PARTLY",
    "PASS",
    "UNSUPPORTED",
    "EmulatorTarget",
    "Invalid",
    "Problem",
    "Report",
    "Result",
    "Scenario",
    "Step",
    "Target",
    "TargetFailed",
    "as_json",
    "as_junit",
    "as_text",
    "differences",
    "json_schema",
    "load",
    "loads",
    "read",
    "run",
    "run_one",
    "summary",
]
