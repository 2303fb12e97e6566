"""``python -m specctrl.vectors vectors``: write what there follows from the operations: schema, README, skeletons."""

import sys
from pathlib import Path

from specctrl.scenario.published import derived
from specctrl.scenario.writing import write_whole
from specctrl.vectors.skeletons import skeletons

if len(sys.argv) != 2:
    sys.exit(__doc__)
folder = Path(sys.argv[1])
for file, text in (derived(folder) | skeletons(folder)).items():
    write_whole(file, text)
