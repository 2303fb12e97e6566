"""``python -m specctrl.scenario vectors``: write the files there that follow from others, schema and README."""

import sys
from pathlib import Path

from specctrl.scenario.published import derived
from specctrl.scenario.writing import write_whole

if len(sys.argv) != 2:
    sys.exit(__doc__)
for file, text in derived(Path(sys.argv[1])).items():
    write_whole(file, text)
