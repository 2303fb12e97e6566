"""The command line: a file for each command; :mod:`specctrl.cli.main` makes the parser."""
