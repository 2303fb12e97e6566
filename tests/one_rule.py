"""A specification of one rule, and what shows it."""

RULE = """
:::{rule} word.merge
:status: posted
:layer: mechanism
:source: v3 p1
:code: specctrl.model.words.merge

A word MUST be merged.
:::
"""
CELL = """
```{code-cell} ipython3
from specctrl.model.words import is_subset, merge
assert %s
# rule: %s
```
"""
SCENARIO = {
    "schema": "specctrl/scenario/1",
    "id": "word.shown",
    "host": "sapphire-rapids",
    "rules": ["word.merge"],
    "steps": [{"op": "create_vcpu", "vcpu": 0}, {"op": "observe", "expect": {"effective": "0x0"}}],
}
