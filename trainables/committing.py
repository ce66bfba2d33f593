"""Commits an attempt block by block and decides which blocks carry states to resume from.

Every block carries its points. A state is as large as the run's optimizer, so a pack of FactorVAE runs at the paper's size
would spend more time writing than training: states are written only when losing the work since the last one would cost more.
"""

import time
from dataclasses import dataclass
from pathlib import Path

from trainables import blocks
from trainables.attempt import Attempt
from trainables.blocks import Manifest
from trainables.config import STATE_EVERY_S
from trainables.layout import Layout

STATE_SHARE = 0.02
"""Most of the training time that writing states may take; otherwise they are written more rarely."""

WORK_PER_WRITE = 20.0
"""Least seconds of training per second of writing points: blocks grow longer on a slow disk."""


@dataclass(frozen=True)
class Committed:
    """A committed block, and where its manifest is."""

    path: Path
    manifest: Manifest
    has_states: bool

    @property
    def reached(self) -> dict[str, int]:
        """The step that each run reached, by key."""
        return {run.key: run.step for run in self.manifest.runs}


class Committer:
    """Trains an attempt and commits its blocks.

    Args:
        storage: Folder that holds `attempts/`.
        attempt: The attempt to train.
        block_s: Seconds of training to commit at once.
        state_every_s: Seconds of training between two states, at least.

    Attributes:
        is_over: Whether every run has ended, a newer attempt has begun, or a stop was requested.
    """

    def __init__(
        self, storage: Path, attempt: Attempt, block_s: float, state_every_s: float = STATE_EVERY_S
    ) -> None:
        self._storage, self._attempt = storage, attempt
        self._asked_block_s = self._block_s = block_s
        self._state_every_s = state_every_s
        self._diverged: set[str] = set()
        self._folder = Layout(storage).attempt(attempt.number)
        self._state_step = attempt.pack.step
        self._since_state_s = self._state_cost_s = 0.0
        self.is_over = False

    @property
    def is_stopped(self) -> bool:
        """Whether it is over although some runs have not ended."""
        return self.is_over and not self._attempt.is_done

    def commit(self) -> Committed | None:
        """Train one block and commit it; None if a stop was requested and there is nothing new to save.

        Raises:
            OSError: The disk is full or failing; nothing of the block remains.
        """
        is_stopping = self._is_stopping()
        if is_stopping and self._attempt.pack.step == self._state_step:
            self.is_over = True
            return None
        block = self._attempt.work(
            0.0 if is_stopping else self._block_s, self._is_state_due, self._is_stopping
        )
        begun = time.perf_counter()
        path = blocks.write_block(self._storage, block.manifest, block.blobs)
        has_states = bool(block.blobs)
        self._account(block.manifest, has_states, time.perf_counter() - begun)
        self._diverged |= {run.key for run in block.manifest.runs if run.status == "diverged"}
        blocks.prune(self._folder, without=self._diverged)
        # Blocks of a fenced attempt are refused: its driver is gone, or has given the runs to a newer attempt.
        is_kept = self._state_step == self._attempt.pack.step
        self.is_over = (
            self._attempt.is_done or blocks.is_fenced(self._folder) or (is_kept and self._is_stopping())
        )
        return Committed(path, block.manifest, has_states)

    def _is_state_due(self, seconds: float) -> bool:
        """Whether a block that took this many seconds carries states."""
        wait_s = max(self._state_every_s, self._state_cost_s / STATE_SHARE)
        return self._since_state_s + seconds >= wait_s or self._is_stopping()

    def _account(self, manifest: Manifest, has_states: bool, write_s: float) -> None:
        self._since_state_s += manifest.train_s
        if has_states:
            self._state_step, self._since_state_s, self._state_cost_s = manifest.end_step, 0.0, write_s
        else:
            self._block_s = max(self._asked_block_s, WORK_PER_WRITE * write_s)

    def _is_stopping(self) -> bool:
        return Layout(self._storage).stop(self._attempt.number).exists()
