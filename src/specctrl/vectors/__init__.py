"""Generated scenarios: one of each transition class, and those that notice what no other scenario notices.

``specctrl vectors generate`` writes them; the same sources give the same files.
"""
