"""``python -m specctrl.scenario vectors``: write the files there that follow from others, schema and README."""

import os
import sys
from pathlib import Path

from specctrl.scenario.published import derived

if len(sys.argv) != 2:
    sys.exit(__doc__)
for file, text in derived(Path(sys.argv[1])).items():
    beside = file.with_suffix(".new")
    beside.write_text(text, "utf-8")
    os.replace(beside, file)
