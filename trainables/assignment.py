"""What a worker is told to train, and what it answers after each block; needs no torch, so that a driver can write it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainables.blocks import Slice
from trainables.config import Schedule


@dataclass(frozen=True)
class StoredState:
    """A state to resume a run from.

    Attributes:
        step: Updates that it has behind it.
        manifest: Path of the block's manifest.
        slice: Where it lies in the files beside that.
    """

    step: int
    manifest: str
    slice: Slice


@dataclass(frozen=True)
class Assignment:
    """One attempt at a pack.

    Attributes:
        attempt: Number of the attempt.
        storage: Folder of the blocks, absolute.
        specs: Specification of each run, as the ledger keeps it.
        schedule: When to report, evaluate and end.
        states: Of each run the newest ones, newest first; none where it starts at step 0.
        block_s: Seconds of work to commit at once.
        state_every_s: Seconds of work between two states to resume from, at least.
        size: Runs that the pack computes, ghosts included; None for as few as the device takes.
        threads: CPU threads.
        gpus: Share of a GPU, 0 for none.
    """

    attempt: int
    storage: str
    specs: Sequence[Mapping[str, Any]]
    schedule: Schedule
    states: Sequence[Sequence[StoredState]]
    block_s: float
    state_every_s: float
    size: int | None
    threads: int
    gpus: float


@dataclass(frozen=True)
class Report:
    """A block of an attempt.

    Attributes:
        manifest: Path of its manifest; empty where the attempt was stopped with nothing new to keep.
        reached: The step that each run came to, by key.
        has_states: Whether it carries states to resume from.
        is_over: Whether the attempt is over.
        is_stopped: Whether it is over before every run has ended.
    """

    manifest: str
    reached: Mapping[str, int]
    has_states: bool
    is_over: bool
    is_stopped: bool
