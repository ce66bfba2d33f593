"""Rows that the ledger answers with, and what a sweep is called in it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from trainables.blocks import Slice, read_slice
from trainables.errors import InputError
from trainables.layout import Layout

RunStatus = Literal["planned", "running", "done", "failed", "diverged"]


@dataclass(frozen=True)
class SweepId:
    """What a sweep is called in a home; the label tells two versions of a question apart."""

    name: str
    scale: str
    label: str = ""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9._-]*", self.label):
            raise InputError(f"Label '{self.label}': use letters, digits, dots, dashes and underscores only.")

    def __str__(self) -> str:
        return "-".join(filter(None, (self.name, self.scale, self.label)))


@dataclass(frozen=True)
class MemberRow:
    """One run as a member of one sweep.

    Attributes:
        draw: Number of its draw in the sweep.
        status: `done` once a block has come to this sweep's horizon; `diverged` if it stopped being finite before;
            `running` means only that its newest attempt has not ended; `failed` that the driver gave up after its
            newest attempt.
        step: Newest committed step; may be beyond the horizon where another sweep asks for more.
        attempt: Newest attempt.
        numerics: Class of machines that trained it, `mixed` if several, None before the first block.
    """

    key: str
    draw: int
    params: Mapping[str, Any]
    seed: int
    status: RunStatus
    step: int
    horizon_steps: int
    first_bad_step: int | None
    attempt: int | None
    numerics: str | None
    spec: Mapping[str, Any]


@dataclass(frozen=True)
class History:
    """What the blocks of a run up to a sweep's horizon say: that another sweep goes on with it changes nothing.

    Attributes:
        num_points: Committed ones.
        started_at_s: When the first attempt began, None before.
        written_at_s: When the newest block was written, None before the first.
        numerics: Class of machines that trained it, `mixed` if several, empty before the first block.
        code_version: Likewise.
    """

    num_points: int
    started_at_s: float | None
    written_at_s: float | None
    numerics: str
    code_version: str


@dataclass(frozen=True)
class Standing:
    """How far a run has come, whatever sweep asks: the newest committed step, and where it diverged."""

    step: int
    first_bad_step: int | None

    def is_open(self, horizon: int) -> bool:
        """Whether it can and should be trained up to this step."""
        return self.first_bad_step is None and self.step < horizon

    def is_past(self, horizon: int) -> bool:
        """Whether it has come to this step and was finite up to there."""
        return self.step >= horizon


@dataclass(frozen=True)
class AttemptRow:
    """One try at a pack; numerics, host and pid are known from its first block on."""

    number: int
    started_at_s: float
    ended_at_s: float | None
    outcome: str | None
    error: str | None
    numerics: str | None
    host: str | None
    pid: str | None


@dataclass(frozen=True)
class FailureRow:
    """A run that the driver gave up."""

    key: str
    attempt: int
    kind: str
    message: str
    time_s: float


@dataclass(frozen=True)
class CostRow:
    """What the committed blocks of an attempt took; steps recomputed after damage count again."""

    attempt: int
    num_runs: int
    num_steps: int
    train_s: float


@dataclass(frozen=True)
class PointColumns:
    """Committed points as columns of equal length, by run, metric and step."""

    key: tuple[str, ...]
    name: tuple[str, ...]
    identity: tuple[str, ...]
    step: tuple[int, ...]
    time_s: tuple[float, ...]
    value: tuple[float, ...]


@dataclass(frozen=True)
class StoredSlice:
    """A committed slice of a run, and the step and block it is of."""

    step: int
    attempt: int
    index: int
    slice: Slice

    def read(self, storage: Path) -> bytes:
        """Read and verify it.

        Raises:
            DamagedBlockError: The file is missing or changed.
        """
        return read_slice(Layout(storage).manifest(self.attempt, self.index).parent, self.slice)
