"""`make bench`: measures all areas in one run, prints one table, and keeps it in ``history.json``.

No test compares the figures.  ``python bench/bench.py AREA...`` measures some areas and keeps nothing.
"""

import sys

import clusters
import emulator
import explorers
import in_browser
import kvm_exits
import proofs
import site_builds
from figures import Figure, Growth, Missing, keep

AREAS = {"emulator": emulator, "proofs": proofs, "explorer": explorers, "kvm": kvm_exits, "site": site_builds,
         "browser": in_browser, "cluster": clusters}


def main(wanted: list[str]) -> None:
    """Measure these areas, or all of them."""
    measured: list[Figure | Growth] = []
    for area in wanted or AREAS:
        try:
            for each in AREAS[area].measure():
                print(each, flush=True)
                measured.append(each)
        except Missing as why:
            print(f"left out, {area}: needs {why}")
    if not wanted:
        keep(measured)


if __name__ == "__main__":
    main(sys.argv[1:])
