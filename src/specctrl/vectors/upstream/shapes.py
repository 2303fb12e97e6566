"""The shapes by the names that the command line and the site give them."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shape:
    """One text for an upstream tree: its file's name, its language for the highlighter, and what makes it."""

    file: str
    language: str
    text: Callable[[], str]


def _selftest() -> str:
    from specctrl.vectors.upstream.selftest import selftest

    return selftest()


def _msrs_rows() -> str:
    from specctrl.vectors.upstream.rows import msrs_rows

    return msrs_rows()


def _unit_test_rows() -> str:
    from specctrl.vectors.upstream.rows import unit_test_rows

    return unit_test_rows()


def _api_rst() -> str:
    from specctrl.vectors.upstream.api_rst import api_rst

    return api_rst()


SHAPES: dict[str, Shape] = {
    "selftest": Shape("force_spec_ctrl_test.c", "c", _selftest),
    "msrs-rows": Shape("msrs_test-rows.h", "c", _msrs_rows),
    "kvm-unit-tests-rows": Shape("kvm-unit-tests-rows.h", "c", _unit_test_rows),
    "api-rst": Shape("api-fragment.rst", "rst", _api_rst),
}
"""What ``specctrl export`` writes, by name."""
