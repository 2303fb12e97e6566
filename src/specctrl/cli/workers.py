"""The options of the commands that carry out shards: how many processes, or which cluster; and how far they are."""

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from specctrl.cli.command import JOBS
from specctrl.rules import data_folder

if TYPE_CHECKING:  # what a browser lacks is imported when a command is carried out
    from specctrl.shards import Workers


def add_workers(parser: argparse.ArgumentParser) -> None:
    """Add the options that say who carries out the shards."""
    parser.add_argument("--jobs", type=JOBS, default=0, metavar="N",
                        help="processes, as many as there are shards and cores at most; default: one for each core")
    parser.add_argument("--oversubscribe", action="store_true", help="start N processes on fewer cores, too")
    parser.add_argument("--scheduler", default="", metavar="ADDRESS",
                        help="let the workers of this dask scheduler do it (extra: cluster); tcp://host:8786")


def workers_of(options: argparse.Namespace, method: str = "spawn") -> "Workers":
    """Who carries out the shards, as the options say."""
    from specctrl.shards import Workers

    return Workers(options.jobs, options.scheduler, options.oversubscribe, method)


def kept_results(name: str) -> Path | None:
    """Where a checkout keeps the shards of a command until it is through; an installed package keeps none."""
    root = data_folder("spec").parent
    return root / "_build" / "shards" / name if (root / "pyproject.toml").is_file() else None


class Progress:
    """How many shards are done, said on standard error: on a terminal in one line, elsewhere every ten seconds."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.start = self.said = time.monotonic()
        self.first = -1

    def __call__(self, done: int, of: int) -> None:
        """So many of so many are done; those that a broken run left are no work of this one."""
        now = time.monotonic()
        if self.first < 0:
            self.first = done
            if done:
                self._say(f"{done} of {of} {self.what} were made before")
        elif done == of or now - self.said >= (0.1 if sys.stderr.isatty() else 10):
            self.said = now
            left = (now - self.start) / (done - self.first) * (of - done)
            self._say(f"{done} of {of} {self.what}, {left:.0f} s to go")

    def _say(self, what: str) -> None:
        print(f"\r{what:<70}" if sys.stderr.isatty() else what,
              end="" if sys.stderr.isatty() else "\n", file=sys.stderr, flush=True)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if sys.stderr.isatty() and self.first >= 0:
            print(file=sys.stderr)
