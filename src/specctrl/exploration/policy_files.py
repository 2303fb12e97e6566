"""The comparison as files: what the site publishes, and the command prints."""

import json
from collections.abc import Iterable
from typing import Any

from specctrl.exploration.policies import HOSTS, Cell, Result, as_csv, row
from specctrl.model.vmm.policies import GUESTS, POLICIES

SCHEMA = "specctrl/policies/1"
"""What the key ``schema`` of the JSON file says."""


def scenarios_path(policy: str) -> str:
    """Where the scenarios of one policy stand, beside the table.

    >>> scenarios_path("P1")
    'policies/P1.json'
    """
    return f"policies/{policy}.json"


def as_document(cells: Iterable[Cell]) -> dict[str, Any]:
    """The table with the names that it uses, for JSON."""
    return {
        "schema": SCHEMA,
        "policies": {
            name: {"title": policy.title, "host": policy.host_does, "guest": policy.guest_does,
                   "scenarios": scenarios_path(name)}
            for name, policy in POLICIES.items()
        },
        "guests": {name: {"title": guest.title, "kernel": guest.kernel.as_keys(), "follows": guest.can_follow}
                   for name, guest in GUESTS.items()},
        "hosts": HOSTS,
        "results": [result.value for result in Result],
        "cells": [row(cell) for cell in cells],
    }


def files(cells: Iterable[Cell]) -> dict[str, str]:
    """Every published file, path to text: the table as CSV and JSON, and each policy's scenarios by id.

    >>> from specctrl.exploration.policies import cell
    >>> one = cell("P1", "linux-old", "ice-lake-server", "sapphire-rapids")
    >>> sorted(files([one]))
    ['policies.csv', 'policies.json', 'policies/P1.json']
    """
    found = list(cells)
    made = {"policies.csv": as_csv(found), "policies.json": compact(as_document(found))}
    for policy in dict.fromkeys(cell.policy for cell in found):
        made[scenarios_path(policy)] = compact({cell.id: cell.scenario() for cell in found if cell.policy == policy})
    return made


def compact(document: Any) -> str:
    """JSON without spaces, in one order, with a newline at its end.

    >>> compact({"b": 1, "a": [1, 2]})
    '{"b":1,"a":[1,2]}\\n'
    """
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False) + "\n"
