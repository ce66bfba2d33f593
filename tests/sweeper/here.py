"""What processes of MLflow do for a driver, done in the test's own process, or left undone: each would import mlflow for seconds."""

import io
import subprocess
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout

import pytest

from sweeper.tracking import process
from sweeper.tracking.process import Projector


def deliver_here(patch: pytest.MonkeyPatch) -> None:
    """Until the patch is undone, a process that delivers to MLflow, or compares with it, is a call in this one."""
    patch.setattr(process, "_completed", _completed)


def deliver_nothing_meanwhile(patch: pytest.MonkeyPatch) -> None:
    """Until the patch is undone, the process that delivers to MLflow while a driver works delivers nothing."""
    patch.setattr(Projector, "_start", _start)


def _completed(words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    from sweeper.tracking import worker

    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = worker.main(words[3:])
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


def _start(projector: Projector, mode: str) -> subprocess.Popen[bytes]:
    with process._log(projector._home).open(mode) as log:
        return subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=log, start_new_session=True)
