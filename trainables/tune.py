"""The Ray Tune adapter: one trial is one attempt at a pack, one training iteration is one committed block.

A result carries the path of a manifest and how far it goes; what is true is in the storage.
"""

import gc
import socket
import sys
import time
from pathlib import Path
from typing import Any

from ray.tune import Trainable

from trainables import blocks
from trainables.config import Schedule, spec_of
from trainables.durable import DamagedBlockError

WORK_PER_WRITE = 20.0
"""Seconds of training per second of writing, at least: blocks grow longer where a disk is slow or a pack large."""


class PackTrainable(Trainable):
    """Works on a pack until every run has ended.

    The configuration is a dictionary with
        attempt: Number of the attempt.
        storage: Folder of the blocks, absolute.
        specs: Specification of each run, as the ledger keeps it.
        schedule: Fields of `trainables.config.Schedule`.
        starts: For each run the blocks that hold its newest states, newest first, as (step, manifest path, slice).
        block_s: Seconds of work to commit at once.
        threads: CPU threads.
        gpus: Share of a GPU, 0 for none.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Import torch, load the images, restore the runs."""
        from trainables import arithmetic, engine
        from trainables.attempt import Attempt

        self._blocks_folder, self._block_s = Path(config["storage"]), config["block_s"]
        if not self._blocks_folder.exists():
            raise FileNotFoundError(
                f"{self._blocks_folder} is not there on {socket.gethostname()}: machines that train need a folder that"
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
        self._attempt = Attempt(config["attempt"], runs, schedule, images, _start(config["starts"]))

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take on another pack in the same process, which has imported torch already."""
        # Two packs would not fit the share of a GPU that one fills.
        del self._attempt
        gc.collect()
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Work one block and commit it."""
        block = self._attempt.work(self._block_s)
        begun = time.perf_counter()
        path = blocks.write_block(self._blocks_folder, block.manifest, block.blobs)
        self._block_s = max(self._block_s, WORK_PER_WRITE * (time.perf_counter() - begun))
        blocks.prune(path.parent)
        # A fenced attempt's blocks are refused: its driver is gone, or has given the runs to a newer attempt.
        is_over = self._attempt.is_done or blocks.is_fenced(path.parent)
        start = block.manifest.start_step
        return {
            "manifest": str(path),
            "run_steps": sum(run.step - start for run in block.manifest.runs),
            "done": is_over,
        }


def _start(candidates: list[list[tuple[int, str, dict[str, Any]]]]) -> Any:
    """The newest step at which every run's state is intact."""
    from trainables.attempt import Start

    by_step = [{step: (path, part) for step, path, part in run} for run in candidates]
    shared = set.intersection(*(set(run) for run in by_step)) if by_step else set()
    for step in sorted(shared, reverse=True):
        try:
            blobs = [
                blocks.read_slice(Path(path).parent, blocks.Slice(**part))
                for path, part in (run[step] for run in by_step)
            ]
        except DamagedBlockError as error:
            print(f"{error} Going back to an older block.", file=sys.stderr)
            continue
        return Start(step, tuple(map(blocks.unpack_arrays, blobs)))
    if any(candidates):
        print("No state is left that all of these runs have: they start over.", file=sys.stderr)
    return Start()
