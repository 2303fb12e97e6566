"""``python -m specctrl.cli``: the command line without its script."""

from specctrl.cli.script import script

script()
