"""Trains one pack in this process, block by block: what a worker does, whoever started it."""

import gc
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from trainables import arithmetic, blocks, engine
from trainables.assignment import Assignment, Report, StoredState
from trainables.attempt import Attempt, Start
from trainables.committing import Committer
from trainables.config import spec_of
from trainables.durable import DamagedBlockError
from trainables.errors import DamagedStatesError


class PackWorker:
    """Loads the images, restores the runs, and works on them until all have ended.

    Args:
        assignment: What to train.

    Raises:
        FileNotFoundError: This machine does not have the storage.
        RuntimeError: It has other images than the driver.
        DamagedStatesError: Of the newest states some are damaged.
    """

    def __init__(self, assignment: Assignment) -> None:
        storage = Path(assignment.storage)
        if not storage.exists():
            raise FileNotFoundError(
                f"{storage} is not there on {socket.gethostname()}: machines that train need a folder that"
                " they share with the driver, named with --storage."
            )
        specs = [spec_of(stored) for stored in assignment.specs]
        arithmetic.set_arithmetic(specs[0].precision, assignment.threads)
        arithmetic.keep_freed_memory()
        runs = engine.resolve_all(specs)
        planned, found = assignment.specs[0]["recipe"], runs[0].source.recipe
        if found != planned:
            raise RuntimeError(
                f"{socket.gethostname()} has other images, {found}, than the driver, {planned}: give all machines the"
                " same files in SWEEPER_DATA."
            )
        images = runs[0].source.load(arithmetic.pick_device(assignment.gpus))
        start = newest_intact([run.key for run in runs], assignment.states)
        attempt = Attempt(assignment.attempt, runs, assignment.schedule, images, start, assignment.size)
        self._committer = Committer(storage, attempt, assignment.block_s, assignment.state_every_s)

    def step(self) -> Report:
        """Work one block and commit it."""
        block = self._committer.commit()
        return Report(
            manifest=str(block.path) if block else "",
            reached=block.reached if block else {},
            has_states=block is not None and block.has_states,
            is_over=self._committer.is_over,
            is_stopped=self._committer.is_stopped,
        )

    def close(self) -> None:
        """Give back the memory of the pack: two would not fit the share of a GPU that one fills."""
        del self._committer
        gc.collect()
        arithmetic.return_gpu_memory()


def newest_intact(
    keys: Sequence[str], states: Sequence[Sequence[StoredState]], *, is_together: bool = False
) -> Start:
    """The newest step at which every run's state is intact; the beginning where there is none.

    Args:
        keys: Of the runs.
        states: Of each run.
        is_together: The runs stay together: where some states are damaged all go back.

    Raises:
        DamagedStatesError: The newest states of some runs are damaged, of others intact: these need not go back.
    """
    by_step = [{state.step: state for state in run} for run in states]
    shared = set.intersection(*(set(run) for run in by_step)) if by_step else set()
    for step in sorted(shared, reverse=True):
        blobs, damaged = [], []
        for key, run in zip(keys, by_step, strict=True):
            try:
                blobs.append(blocks.read_slice(Path(run[step].manifest).parent, run[step].slice))
            except DamagedBlockError as error:
                print(f"{error} Going back to an older block.", file=sys.stderr)
                damaged.append(key)
        if damaged and len(damaged) < len(keys) and not is_together:
            raise DamagedStatesError(damaged)
        if not damaged:
            return Start(step, tuple(map(blocks.unpack_arrays, blobs)))
    if any(states) and not is_together:
        print("No state is left that all of these runs have: they start over.", file=sys.stderr)
    return Start()
