"""A second copy of the emulator in the same process, with one mutant planted: what a scenario says of it."""

import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from types import ModuleType
from typing import Any

from specctrl.evidence.mutants import Mutant
from specctrl.model.outcomes import Misuse, Unsupported
from specctrl.scenario import PASS, Scenario, run_one
from specctrl.scenario.reading import Step
from specctrl.scenario.running import EmulatorTarget

PACKAGE = __name__.partition(".")[0]


class _Planted(MetaPathFinder, Loader):
    """Finds one module, whose source is the mutant's."""

    def __init__(self, mutant: Mutant) -> None:
        self.name = f"{PACKAGE}.model.{mutant.module}"
        self.text = mutant.text

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        return spec_from_loader(name, self) if name == self.name else None

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self.text, self.name, "exec", dont_inherit=True), vars(module))


@contextmanager
def _apart() -> Iterator[None]:
    """The package's modules put aside meanwhile, so that an import makes new ones."""
    kept = {name: module for name, module in sys.modules.items() if name.split(".")[0] == PACKAGE}
    for name in kept:
        del sys.modules[name]
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == PACKAGE]:
            del sys.modules[name]
        sys.modules.update(kept)


class Twin(EmulatorTarget):
    """The emulator of profile ``spec`` with a mutant planted; raises whatever importing the mutant raises."""

    def __init__(self, mutant: Mutant) -> None:
        super().__init__("spec")
        finder = _Planted(mutant)
        with _apart():
            sys.meta_path.insert(0, finder)
            try:
                self._module = importlib.import_module(f"{PACKAGE}.scenario.machine")
            finally:
                sys.meta_path.remove(finder)

    def begin(self, host: str | dict[str, Any], _profile: str, assume: dict[str, bool]) -> None:
        """Make a fresh machine of the twin."""
        self.machine = self._module.Machine(host=host, assume=assume, record=False)

    def step(self, step: Step) -> Mapping[str, Any]:
        """Perform the step; the twin's own exceptions become those of this copy."""
        try:
            return super().step(step)
        except Exception as error:
            for known in (Misuse, Unsupported):
                if type(error).__name__ == known.__name__:
                    raise known(str(error)) from None
            raise

    def notices(self, scenario: Scenario) -> bool:
        """Whether the scenario, which passes on the emulator, does not pass on the twin."""
        try:
            return run_one(scenario, self).status != PASS
        except Exception:  # whatever a mutant does
            return True
