"""``python -m specctrl.vectors vectors``: write what there follows from the operations: schema, README, skeletons."""

import os
import sys
from pathlib import Path

from specctrl.scenario.published import derived
from specctrl.vectors.skeletons import skeletons

if len(sys.argv) != 2:
    sys.exit(__doc__)
folder = Path(sys.argv[1])
for file, text in (derived(folder) | skeletons(folder)).items():
    beside = file.with_suffix(".new")
    beside.write_text(text, "utf-8")
    os.replace(beside, file)
