"""Record attempts at packs in the ledger: what each begins with, which blocks it committed, how it ended."""

import contextlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from sweeper import display
from sweeper.ledger.rows import StoredSlice
from sweeper.ledger.writer import Ledger
from sweeper.machines.resources import Machine
from sweeper.scheduling.packing import PackPlan
from trainables import plugins
from trainables.assignment import Assignment, Report, StoredState
from trainables.errors import damaged_runs
from trainables.layout import Layout

STOP_S = 60.0
"""Longest time for packs that were asked to stop to write their states."""

Progress = Callable[[int], None]
"""Function that is called with the number of newly committed run-steps."""


class LedgerAttempts:
    """Records attempts in the ledger as packs come and go; see `pack_queue.Attempts`.

    Args:
        ledger: Ledger to record in.
        machine: Where packs train.
        progress: Called with the number of newly committed run-steps.
        packs: Packs to train.
    """

    def __init__(
        self, ledger: Ledger, machine: Machine, progress: Progress, packs: Sequence[PackPlan]
    ) -> None:
        self._ledger, self._machine, self._progress = ledger, machine, progress
        self._open: set[int] = set()
        self._reached = {run.key: run.step for pack in packs for run in pack.runs}

    def begin(self, pack: PackPlan) -> tuple[int, PackPlan, Assignment] | None:
        """Begin an attempt at what is left of a pack; None if nothing is left."""
        self._ledger.catch_up(run.key for run in pack.runs)
        left = self._left(pack)
        if not left.runs:
            return None
        keys = [run.key for run in left.runs]
        number = self._ledger.begin_attempt(keys)
        self._open.add(number)
        starts = self._ledger.records.resume_points(keys)
        first = left.runs[0]
        assignment = Assignment(
            attempt=number,
            storage=str(self._ledger.storage),
            specs=[run.spec for run in left.runs],
            schedule=first.schedule,
            states=[[self._state(stored) for stored in starts[key]] for key in keys],
            block_s=first.block_s,
            # A pack that failed writes states sooner; otherwise it might always fail before its first state.
            state_every_s=self._machine.state_every_s / 4**left.num_failures,
            size=left.size,
            threads=self._machine.threads,
            gpus=self._machine.gpus_per_pack or 0.0,
            plugins=plugins.carried(),
        )
        return number, left, assignment

    def _left(self, pack: PackPlan) -> PackPlan:
        standing = self._ledger.records.standing(run.key for run in pack.runs)
        left = [run for run in pack.runs if standing[run.key].is_open(run.schedule.steps)]
        steps = self._ledger.records.resume_steps(run.key for run in left)
        return replace(pack, runs=tuple(replace(run, step=steps[run.key]) for run in left))

    def _state(self, stored: StoredSlice) -> StoredState:
        path = Layout(self._ledger.storage).manifest(stored.attempt, stored.index)
        return StoredState(stored.step, str(path), stored.slice)

    def take(self, report: Report) -> bool:
        """Add a block to the ledger; return whether it counts, which is not so once a newer attempt has begun.

        Raises:
            LeaseLostError: Another driver took the storage over.
        """
        self._ledger.check_lease()
        # The ledger knows it already if `begin` added all blocks that were there.
        is_true = self._ledger.take(Path(report.manifest)) != "stale"
        if is_true:
            self._progress(sum(self._advance(key, step) for key, step in report.reached.items()))
        return is_true

    def _advance(self, key: str, step: int) -> int:
        """Return the steps that a run had not done before."""
        before = self._reached[key]
        self._reached[key] = max(before, step)
        return self._reached[key] - before

    def end(self, number: int, outcome: str, error: str) -> None:
        """Record how an attempt ended."""
        if damaged := damaged_runs(error):
            self._ledger.complaints.append(
                f"States of {display.runs(len(damaged))} are damaged ({', '.join(sorted(damaged))}): these runs resume from"
                " older states, or from step 0; the other runs of their pack are not affected."
            )
        self._open.discard(number)
        self._ledger.end_attempt(number, outcome, error)

    def give_up(self, pack: PackPlan, number: int, kind: str, message: str) -> None:
        """Record the unfinished runs of a pack as failed."""
        for run in self._left(pack).runs:
            self._ledger.record_failure(run.key, number, kind, message)

    def ask_to_stop(self) -> None:
        """Ask the packs that are training to write their states and end."""
        if self._open:
            words = f"Stopping: packs are saving their states (at most {STOP_S:.0f} s). Press Ctrl-C again to stop at once."
            print(words, file=sys.stderr, flush=True)
        for number in sorted(self._open):
            with contextlib.suppress(OSError):  # the disk is full: they are ended later
                Layout(self._ledger.storage).stop(number).touch()

    def close(self) -> None:
        """End the attempts that are still open when training stops early, after adding what they committed meanwhile."""
        if self._open:
            self._ledger.ingest()
        for number in sorted(self._open):
            self._ledger.end_attempt(number, "stopped")
        for path in Layout(self._ledger.storage).stops():
            path.unlink(missing_ok=True)
