"""A worker's assignment, and its report after each block; needs no torch, so that a driver can use both."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trainables.blocks import Slice
from trainables.config import Schedule, StoredSpec
from trainables.plugin_files import PluginFile


@dataclass(frozen=True)
class StoredState:
    """A state to resume a run from.

    Attributes:
        step: Updates done.
        manifest: Path of the block's manifest.
        slice: Its place in the files beside the manifest.
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
        states: The newest states of each run, newest first; none if it starts at step 0.
        block_s: Seconds of work to commit at once.
        state_every_s: Seconds of work between two states to resume from, at least.
        size: Runs that the pack computes, ghosts included; None for the smallest size that the device supports.
        threads: CPU threads.
        gpus: Share of a GPU, 0 for none.
        plugins: Files of your own that may be needed, see `plugins.carried`.
    """

    attempt: int
    storage: str
    specs: Sequence[StoredSpec]
    schedule: Schedule
    states: Sequence[Sequence[StoredState]]
    block_s: float
    state_every_s: float
    size: int | None
    threads: int
    gpus: float
    plugins: Sequence[PluginFile] = ()


@dataclass(frozen=True)
class Report:
    """What a worker reports after each block of an attempt.

    Attributes:
        manifest: Path of the block's manifest; empty if the attempt was stopped with nothing new to save.
        reached: The step that each run reached, by key.
        has_states: Whether the block carries states to resume from.
        is_over: Whether the attempt is over.
        is_stopped: Whether it is over although some runs have not ended.
    """

    manifest: str
    reached: Mapping[str, int]
    has_states: bool
    is_over: bool
    is_stopped: bool
