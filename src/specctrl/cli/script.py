"""The script ``specctrl``: from its first moment on, a signal ends the command and what it started, and says nothing.

The commands are imported here and not before, so that ^C finds somebody who takes it.
"""

import signal
import sys
from typing import NoReturn


def script() -> NoReturn:
    """Leave with the status of :func:`specctrl.cli.main.main`, or with 128 and the number of the signal."""
    try:
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _ended)
        from specctrl.cli.main import main

        status = main()
    except KeyboardInterrupt:
        status = 128 + signal.SIGINT
    sys.exit(status)


def _ended(number: int, _frame: object) -> NoReturn:
    sys.exit(128 + number)
