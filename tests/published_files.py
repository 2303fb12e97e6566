"""The published vectors, read once for all tests."""

import json
from pathlib import Path
from typing import Any

from specctrl.scenario.published import is_generated
from specctrl.scenario.reading import scenario_files

ROOT = Path(__file__).resolve().parent.parent
FILES = list(scenario_files([ROOT / "vectors"]))
HAND = [path for path in FILES if not is_generated(path.name)]
GENERATED = [path for path in FILES if is_generated(path.name)]
DOCUMENTS: dict[Path, dict[str, Any]] = {path: json.loads(path.read_text()) for path in FILES}
