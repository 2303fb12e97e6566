"""Every history over a few bits: the rule code, state by state."""
