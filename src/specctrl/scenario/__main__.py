"""Print the JSON Schema of scenarios: ``python -m specctrl.scenario > vectors/scenario.schema.json``."""

from specctrl.scenario.schema import schema_text

print(schema_text(), end="")
