"""Trains one pack in this process, block by block, whether Ray started the process or not."""

import gc
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from trainables import arithmetic, blocks, engine, plugins
from trainables.assignment import Assignment, Report, StoredState
from trainables.attempt import Attempt, Start
from trainables.committing import Committer
from trainables.config import spec_of
from trainables.durable import DamagedBlockError
from trainables.errors import DamagedStatesError


class PackWorker:
    """Loads the images, restores the runs, and trains them until all have ended.

    Args:
        assignment: What to train.

    Raises:
        FileNotFoundError: The storage does not exist on this machine.
        RuntimeError: The images on this machine differ from the driver's.
        DamagedStatesError: Some of the newest states are damaged.
    """

    def __init__(self, assignment: Assignment) -> None:
        storage = Path(assignment.storage)
        if not storage.exists():
            raise FileNotFoundError(
                f"{storage} does not exist on {socket.gethostname()}: give --storage a folder that all machines"
                " share with the driver."
            )
        plugins.learn(assignment.plugins)
        specs = [spec_of(stored) for stored in assignment.specs]
        arithmetic.set_arithmetic(specs[0].precision, assignment.threads)
        arithmetic.keep_freed_memory()
        runs = engine.resolve_all(specs)
        planned, found = assignment.specs[0]["recipe"], runs[0].source.recipe
        if found != planned:
            raise RuntimeError(
                f"{socket.gethostname()} has the images {found}, but the driver has {planned}: use the same files in"
                " SWEEPER_DATA on all machines."
            )
        images = runs[0].source.load(arithmetic.pick_device(assignment.gpus))
        start = newest_intact([run.key for run in runs], assignment.states)
        attempt = Attempt(assignment.attempt, runs, assignment.schedule, images, start, assignment.size)
        self._committer = Committer(storage, attempt, assignment.block_s, assignment.state_every_s)

    def step(self) -> Report:
        """Train one block and commit it."""
        block = self._committer.commit()
        return Report(
            manifest=str(block.path) if block else "",
            reached=block.reached if block else {},
            has_states=block is not None and block.has_states,
            is_over=self._committer.is_over,
            is_stopped=self._committer.is_stopped,
        )

    def close(self) -> None:
        """Free the memory of the pack: two packs would not fit into the share of a GPU that one fills."""
        del self._committer
        gc.collect()
        arithmetic.return_gpu_memory()


def newest_intact(
    keys: Sequence[str], states: Sequence[Sequence[StoredState]], *, is_together: bool = False
) -> Start:
    """The newest step at which every run has an intact state, with these states; step 0 if there is none.

    Args:
        keys: Keys of the runs.
        states: Stored states of each run.
        is_together: Keep the runs together: if some states are damaged, all runs go back.

    Raises:
        DamagedStatesError: The newest states of some runs are damaged; the other runs need not go back.
    """
    by_step = [{state.step: state for state in run} for run in states]
    shared = set.intersection(*(set(run) for run in by_step)) if by_step else set()
    for step in sorted(shared, reverse=True):
        blobs, damaged = [], []
        for key, run in zip(keys, by_step, strict=True):
            try:
                blobs.append(blocks.read_slice(Path(run[step].manifest).parent, run[step].slice))
            except DamagedBlockError as error:
                print(f"{error} Falling back to an older block.", file=sys.stderr)
                damaged.append(key)
        if damaged and len(damaged) < len(keys) and not is_together:
            raise DamagedStatesError(damaged)
        if not damaged:
            return Start(step, tuple(map(blocks.unpack_arrays, blobs)))
    if any(states) and not is_together:
        print("No state is available for all of these runs; starting over from step 0.", file=sys.stderr)
    return Start()
