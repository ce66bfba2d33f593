"""Train packs by a fresh Ray Tune experiment, as many at once as the machine holds.

Tune's own state is never read again: what is true is in the storage and the ledger, so its folder is scratch.
"""

import contextlib
import logging
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper import display
from sweeper.ledger.rows import StoredSlice
from sweeper.ledger.writer import Ledger
from sweeper.machines.resources import Machine, exact_share
from sweeper.scheduling.packing import PackPlan
from trainables import blocks
from trainables.errors import damaged_runs

if TYPE_CHECKING:
    from sweeper.scheduling.pack_queue import StopEarly

STOP_S = 60.0
"""How long packs that were asked to stop may take to write their states."""

Progress = Callable[[int], None]
"""Told how many more run-steps were committed."""


def train(
    ledger: Ledger, packs: Sequence[PackPlan], machine: Machine, num_slots: int, progress: Progress
) -> None:
    """Train packs to their horizon; returns when each has ended or was given up.

    Raises:
        OSError: The ledger or the storage could not be written; running packs were stopped.
        KeyboardInterrupt: The user asked to stop; what is committed stays.
    """
    from ray import tune

    from sweeper.scheduling.pack_queue import BlockListener, PackQueue, StopEarly
    from trainables.tune import PackTrainable

    dispatch = _Dispatch(ledger, machine, progress, packs)
    queue = PackQueue(packs, dispatch.begin, dispatch.give_up, dispatch.end)
    stop = StopEarly(queue, dispatch.ask_to_stop, STOP_S)
    scratch = tempfile.mkdtemp(prefix="sweeper-tune-")
    share = exact_share(machine.gpus_per_pack or 0.0)
    tuner = tune.Tuner(
        tune.with_resources(PackTrainable, {"cpu": machine.threads, "gpu": share}),
        tune_config=tune.TuneConfig(
            search_alg=queue, num_samples=-1, max_concurrent_trials=num_slots, reuse_actors=True
        ),
        run_config=tune.RunConfig(
            name="packs",
            storage_path=scratch,
            callbacks=[BlockListener(queue, dispatch.take)],
            stop=stop,
            failure_config=tune.FailureConfig(max_failures=0),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            verbose=0,
        ),
    )
    # Failures are recorded and shown by us; Tune would print each traceback twice.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    try:
        with _stop_on_signals(stop):
            tuner.fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        dispatch.close()
    if queue.error:
        raise queue.error
    if stop.is_asked:
        raise KeyboardInterrupt


class _Dispatch:
    """Begins and ends attempts in the ledger as packs come and go."""

    def __init__(
        self, ledger: Ledger, machine: Machine, progress: Progress, packs: Sequence[PackPlan]
    ) -> None:
        self._ledger, self._machine, self._progress = ledger, machine, progress
        self._open: set[int] = set()
        self._reached = {run.key: run.step for pack in packs for run in pack.runs}

    def begin(self, pack: PackPlan) -> tuple[int, PackPlan, dict[str, Any]] | None:
        """Begin an attempt at what is left of a pack; None if nothing is."""
        self._ledger.ingest()
        left = self._left(pack)
        if not left.runs:
            return None
        keys = [run.key for run in left.runs]
        number = self._ledger.begin_attempt(keys)
        self._open.add(number)
        starts = self._ledger.records.resume_points(keys)
        first = left.runs[0]
        config = {
            "attempt": number,
            "storage": str(self._ledger.storage),
            "specs": [run.spec for run in left.runs],
            "schedule": asdict(first.schedule),
            "starts": [[self._start(stored) for stored in starts[key]] for key in keys],
            "block_s": first.block_s,
            # A pack that failed keeps what it learns sooner: else it might fail for ever before its first state.
            "state_every_s": self._machine.state_every_s / 4**left.num_failures,
            "size": left.size,
            "threads": self._machine.threads,
            "gpus": self._machine.gpus_per_pack or 0.0,
        }
        return number, left, config

    def _left(self, pack: PackPlan) -> PackPlan:
        standing = self._ledger.records.standing(run.key for run in pack.runs)
        left = [run for run in pack.runs if standing[run.key].is_open(run.schedule.steps)]
        steps = self._ledger.records.resume_steps(run.key for run in left)
        return replace(pack, runs=tuple(replace(run, step=steps[run.key]) for run in left))

    def _start(self, stored: StoredSlice) -> tuple[int, str, dict[str, Any]]:
        path = blocks.manifest_path(self._ledger.storage, stored.attempt, stored.index)
        return stored.step, str(path), asdict(stored.slice)

    def take(self, result: dict[str, Any]) -> bool:
        """Take the block of a result into the ledger; returns whether it is true."""
        # It is known already where `begin` took in all that there was.
        is_true = self._ledger.take(Path(result["manifest"])) != "stale"
        if is_true:
            self._progress(sum(self._advance(key, step) for key, step in result["reached"].items()))
        return is_true

    def _advance(self, key: str, step: int) -> int:
        """Steps of a run that it had not done before."""
        before = self._reached[key]
        self._reached[key] = max(before, step)
        return self._reached[key] - before

    def end(self, number: int, outcome: str, error: str) -> None:
        """Record how an attempt ended."""
        if damaged := damaged_runs(error):
            self._ledger.complaints.append(
                f"States of {display.runs(len(damaged))} are damaged ({', '.join(sorted(damaged))}): they go back to older"
                " ones, or to step 0; the others of their pack go on where they stood."
            )
        self._open.discard(number)
        self._ledger.end_attempt(number, outcome, error)

    def give_up(self, pack: PackPlan, number: int, kind: str, message: str) -> None:
        """Record the runs of a pack as failed."""
        for run in self._left(pack).runs:
            self._ledger.record_failure(run.key, number, kind, message)

    def ask_to_stop(self) -> None:
        """Have the packs that are trained write their states and end."""
        if self._open:
            words = f"Stopping: packs write what they go on from, at most {STOP_S:.0f} s; once more to stop at once."
            print(words, file=sys.stderr, flush=True)
        for number in self._open:
            with contextlib.suppress(OSError):  # a full disk: Tune ends them later
                blocks.stop_path(self._ledger.storage, number).touch()

    def close(self) -> None:
        """End what is still open when training stops early, with what it committed meanwhile."""
        if self._open:
            self._ledger.ingest()
        for number in sorted(self._open):
            self._ledger.end_attempt(number, "stopped")
        for path in (self._ledger.storage / "attempts").glob("*.stop"):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _stop_on_signals(stop: "StopEarly") -> Iterator[None]:
    """The first SIGINT or SIGTERM has the packs write their states and end; a second one acts at once."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(*_: object) -> None:
        stop.is_asked = True
        for each in before:
            signal.signal(each, signal.default_int_handler)

    for number in before:
        signal.signal(number, ask)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
