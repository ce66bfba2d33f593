"""One process that has torch, lent to the commands that a test process runs one after another.

Starting it takes three seconds of a core, what most commands ask of it a tenth of that. It measures a pack for less
long than one that a driver starts, `tests/sweeper/machines/test_probe.py` asks one of those.
"""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import pytest

from sweeper.machines.probe import Probe
from trainables.errors import InputError

NOT_READ = ("PYTEST_", "SWEEPER_", "RAY_", "MLFLOW_", "_MLFLOW_", "KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK")
"""What variables begin with that change no answer of a process that has torch; MLflow and scikit-learn set some."""

PROGRAM = "from trainables import measuring, probe; measuring.MEASURE_S = 0.1; probe.main()"

Where = tuple[Path, Mapping[str, str]]
"""What a process takes over from the one that starts it: working folder and environment."""


class Lender:
    """Starts a probe, lends it to one borrower at a time, and replaces it where it would answer otherwise."""

    def __init__(self) -> None:
        self._begin, self._end = Probe.__init__, Probe.__exit__
        self._process: subprocess.Popen[str] | None = None
        self._where: Where | None = None
        self._borrower: Probe | None = None

    def lend(self, patch: pytest.MonkeyPatch) -> None:
        """Until the patch is undone, a `Probe` borrows its process; a second one at the same time starts its own."""
        patch.setattr(Probe, "__init__", lambda probe: self._borrow(probe))
        patch.setattr(Probe, "__exit__", lambda probe, *how: self._take_back(probe, *how))

    def close(self) -> None:
        """End the process."""
        if self._process:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _borrow(self, probe: Probe) -> None:
        if self._borrower:
            self._begin(probe)
            return
        if self._process is None or self._process.poll() is not None or self._where != where():
            self.close()
            self._process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            self._where = where()
        probe._process, self._borrower = self._process, probe
        probe.learn()

    def _take_back(
        self,
        probe: Probe,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if probe is not self._borrower:
            self._end(probe, kind, error, trace)
            return
        self._borrower = None
        if error and not isinstance(error, InputError):
            self.close()  # its answer may still be under way


def where() -> Where:
    """Where a process would be started now; without the variables that only pytest, drivers, Ray and MLflow read."""
    names = {name for name in os.environ if not name.startswith(NOT_READ)} - {"PATH"}
    return Path.cwd(), {name: os.environ.get(name, "") for name in names | {"SWEEPER_DATA"}}
