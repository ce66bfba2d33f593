"""The Ray Tune adapter: one trial is one attempt at a pack, one training iteration is one committed block.

A result carries the path of a manifest and how far it goes; what is true is in the storage.
"""

import gc
import socket
import sys
from pathlib import Path
from typing import Any

from ray.tune import Trainable

from trainables import blocks
from trainables.config import Schedule, spec_of
from trainables.durable import DamagedBlockError
from trainables.errors import DamagedStatesError


class PackTrainable(Trainable):
    """Works on a pack until every run has ended.

    The configuration is a dictionary with
        attempt: Number of the attempt.
        storage: Folder of the blocks, absolute.
        specs: Specification of each run, as the ledger keeps it.
        schedule: Fields of `trainables.config.Schedule`.
        starts: For each run the blocks that hold its newest states, newest first, as (step, manifest path, slice).
        block_s: Seconds of work to commit at once.
        state_every_s: Seconds of work between two states to resume from, at least.
        size: Runs that the pack computes, ghosts included.
        threads: CPU threads.
        gpus: Share of a GPU, 0 for none.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Import torch, load the images, restore the runs."""
        from trainables import arithmetic, engine
        from trainables.attempt import Attempt
        from trainables.committing import Committer

        storage = Path(config["storage"])
        if not storage.exists():
            raise FileNotFoundError(
                f"{storage} is not there on {socket.gethostname()}: machines that train need a folder that"
                " they share with the driver, named with --storage."
            )
        specs = [spec_of(stored) for stored in config["specs"]]
        arithmetic.set_arithmetic(specs[0].precision, config["threads"])
        arithmetic.keep_freed_memory()
        runs = engine.resolve_all(specs)
        planned, found = config["specs"][0]["recipe"], runs[0].source.recipe
        if found != planned:
            raise RuntimeError(
                f"{socket.gethostname()} has other images, {found}, than the driver, {planned}: give all machines the"
                " same files in SWEEPER_DATA."
            )
        images = runs[0].source.load(arithmetic.pick_device(config["gpus"]))
        schedule = Schedule(**config["schedule"])
        start = _start([run.key for run in runs], config["starts"])
        attempt = Attempt(config["attempt"], runs, schedule, images, start, config["size"])
        self._committer = Committer(storage, attempt, config["block_s"], config["state_every_s"])

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take on another pack in the same process, which has imported torch already."""
        from trainables import arithmetic

        # Two packs would not fit the share of a GPU that one fills.
        del self._committer
        gc.collect()
        arithmetic.return_gpu_memory()
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Work one block and commit it."""
        block = self._committer.commit()
        return {
            "manifest": str(block.path) if block else "",
            "reached": block.reached if block else {},
            "has_states": block is not None and block.has_states,
            "done": self._committer.is_over,
            "is_stopped": self._committer.is_stopped,
        }


def _start(keys: list[str], candidates: list[list[tuple[int, str, dict[str, Any]]]]) -> Any:
    """The newest step at which every run's state is intact.

    Raises:
        DamagedStatesError: The newest states of some runs are damaged, of others intact: these need not go back.
    """
    from trainables.attempt import Start

    by_step = [{step: (path, part) for step, path, part in run} for run in candidates]
    shared = set.intersection(*(set(run) for run in by_step)) if by_step else set()
    for step in sorted(shared, reverse=True):
        blobs, damaged = [], []
        for key, run in zip(keys, by_step, strict=True):
            path, part = run[step]
            try:
                blobs.append(blocks.read_slice(Path(path).parent, blocks.Slice(**part)))
            except DamagedBlockError as error:
                print(f"{error} Going back to an older block.", file=sys.stderr)
                damaged.append(key)
        if damaged and len(damaged) < len(keys):
            raise DamagedStatesError(damaged)
        if not damaged:
            return Start(step, tuple(map(blocks.unpack_arrays, blobs)))
    if any(candidates):
        print("No state is left that all of these runs have: they start over.", file=sys.stderr)
    return Start()
