"""Rows that the ledger returns, and how a sweep is identified in it."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, NotRequired, TypedDict

from trainables.blocks import Slice, read_slice
from trainables.config import StoredSpec, Value
from trainables.errors import InputError
from trainables.layout import Layout

RunStatus = Literal["planned", "running", "done", "failed", "diverged"]


def check_label(label: str, option: str = "--as") -> None:
    """Reject a label, typed for this option, that cannot be part of the name of a file.

    Raises:
        InputError: It has other letters.
    """
    if not re.fullmatch(r"[A-Za-z0-9._-]*", label):
        raise InputError(f"{option} {label}: use only letters, digits, dots, dashes and underscores.")


@dataclass(frozen=True)
class SweepId:
    """The identity of a sweep in a home; the label distinguishes versions of one question."""

    name: str
    scale: str
    label: str = ""

    def __post_init__(self) -> None:
        check_label(self.label)

    def __str__(self) -> str:
        return "-".join(filter(None, (self.name, self.scale, self.label)))


@dataclass(frozen=True)
class MemberRow:
    """A run as a member of a sweep.

    Attributes:
        draw: Number of its draw in the sweep.
        status: `done` once a block has reached this sweep's horizon; `diverged` if it stopped being finite before that;
            `running` means only that its newest attempt has not ended; `failed` means that the driver gave up after its
            newest attempt.
        step: Newest committed step; may be beyond the horizon if another sweep asks for more.
        attempt: Number of the newest attempt.
        numerics: Numerics class that trained it, `mixed` if several, None before the first block.
        spec_json: Its specification as JSON.
    """

    key: str
    draw: int
    params: Mapping[str, Value]
    seed: int
    status: RunStatus
    step: int
    horizon_steps: int
    first_bad_step: int | None
    attempt: int | None
    numerics: str | None
    spec_json: str

    @cached_property
    def spec(self) -> StoredSpec:
        """The run's specification, read when it is first asked for."""
        spec: StoredSpec = json.loads(self.spec_json)
        return spec


class SweepSpec(TypedDict):
    """The content of a sweep as it was registered; what earlier versions did not store may be missing."""

    question: str
    model: str
    objectives: Sequence[str]
    metrics: Sequence[str]
    data: str
    fields: Mapping[str, Value]
    steps: int
    note: str
    num_factors: NotRequired[int]
    report_every: NotRequired[int]
    evaluate_every: NotRequired[int]


@dataclass(frozen=True)
class History:
    """Facts about a run from its blocks up to a sweep's horizon; training for another sweep beyond it changes nothing.

    Attributes:
        num_points: Number of committed points.
        started_at_s: When the first attempt began, None before that.
        written_at_s: When the newest block was written, None before the first.
        numerics: Numerics class that trained it, `mixed` if several, empty before the first block.
        code_version: Version of the code that trained it, likewise.
    """

    num_points: int
    started_at_s: float | None
    written_at_s: float | None
    numerics: str
    code_version: str


@dataclass(frozen=True)
class Standing:
    """The progress of a run, independent of any sweep: the newest committed step, and where it diverged."""

    step: int
    first_bad_step: int | None

    def steps(self, horizon: int) -> tuple[int, int]:
        """Return how many steps up to the horizon are committed, and how many there will be: none after a divergence."""
        end = horizon if self.first_bad_step is None else min(horizon, self.first_bad_step)
        return min(self.step, end), end

    def is_open(self, horizon: int) -> bool:
        """Return whether the run can and should be trained up to this step."""
        return self.first_bad_step is None and self.step < horizon

    def is_past(self, horizon: int) -> bool:
        """Return whether the run has reached this step and was finite up to it."""
        return self.step >= horizon


@dataclass(frozen=True)
class AttemptRow:
    """An attempt at a pack; numerics, host and pid are known from its first block on."""

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
    """A run that the driver gave up, and why."""

    key: str
    attempt: int
    kind: str
    message: str
    time_s: float


@dataclass(frozen=True)
class CostRow:
    """The cost of an attempt's committed blocks; steps recomputed after damage count again."""

    attempt: int
    num_runs: int
    num_steps: int
    train_s: float


@dataclass(frozen=True)
class PaceRow:
    """How long a block trained, evaluations included, and what it trained on."""

    num_steps: int
    train_s: float
    numerics: str
    num_runs: int


@dataclass(frozen=True)
class PointColumns:
    """Committed points as columns of equal length, sorted by run, metric and step."""

    key: tuple[str, ...]
    name: tuple[str, ...]
    identity: tuple[str, ...]
    step: tuple[int, ...]
    time_s: tuple[float, ...]
    value: tuple[float, ...]


@dataclass(frozen=True)
class StoredSlice:
    """A committed slice of a run, with its step and block."""

    step: int
    attempt: int
    index: int
    slice: Slice

    def read(self, storage: Path) -> bytes:
        """Read and verify the slice.

        Raises:
            DamagedBlockError: The file is missing or was changed.
        """
        return read_slice(Layout(storage).manifest(self.attempt, self.index).parent, self.slice)
