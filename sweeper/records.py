"""What the ledger says, as plain rows; any number of processes may ask while one driver writes."""

import json
import math
import re
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sweeper import _schema
from trainables.blocks import STATE, Slice, manifest_path, read_slice
from trainables.errors import InputError, UnknownNameError

_NUM_STATES = 2

RunStatus = Literal["planned", "running", "done", "failed", "diverged"]


@dataclass(frozen=True)
class SweepId:
    """What a sweep is called in a home; the label tells two versions of a question apart."""

    name: str
    scale: str
    label: str = ""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9._-]*", self.label):
            raise InputError(f"Label '{self.label}': letters, digits, dots, dashes and underscores only.")

    def __str__(self) -> str:
        return "-".join(filter(None, (self.name, self.scale, self.label)))


@dataclass(frozen=True)
class MemberRow:
    """One run as a member of one sweep.

    Attributes:
        draw: Number of its draw in the sweep.
        status: `done` once a block says so at or beyond this sweep's horizon; `running` means only that its
            newest attempt has not ended; `failed` that the driver gave up after its newest attempt.
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
class Standing:
    """How far a run has come, whatever sweep asks: newest step, newest step at which it was done, else 0."""

    step: int
    done_step: int
    first_bad_step: int | None

    def is_open(self, horizon: int) -> bool:
        """Whether it can and should be trained up to this step."""
        return self.first_bad_step is None and self.done_step < horizon


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
        return read_slice(manifest_path(storage, self.attempt, self.index).parent, self.slice)


_MEMBERS = """
    SELECT key, draws.number, params, seed,
        CASE WHEN done_step >= horizon_steps THEN 'done'
            WHEN first_bad_step < horizon_steps THEN 'diverged'
            WHEN EXISTS (SELECT 1 FROM failures WHERE failures.run = run_states.id
                AND failures.attempt = run_states.attempt) THEN 'failed'
            WHEN EXISTS (SELECT 1 FROM attempts WHERE attempts.number = run_states.attempt
                AND ended_at_s IS NULL) THEN 'running'
            ELSE 'planned' END,
        step, horizon_steps, first_bad_step, attempt, numerics, run_states.spec
    FROM members JOIN draws ON draws.id = draw JOIN run_states ON run_states.id = run
    WHERE sweep = ? ORDER BY draws.number, seed"""

_POINTS = """
    SELECT key, name, identity, step, time_s, value
    FROM points JOIN runs ON runs.id = points.run JOIN metrics ON metrics.id = metric
    WHERE points.run IN ({runs}) ORDER BY points.run, name, identity, step"""


class Records:
    """Questions to an open ledger. Each answers from what is committed at that moment."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self.db = db

    @classmethod
    def open(cls, path: Path) -> "Records":
        """Open a ledger to read.

        Raises:
            InputError: There is none, the file is no ledger, or that of a newer version.
        """
        return cls(_schema.open_for_reading(path))

    def close(self) -> None:
        """Let go of the file."""
        self.db.close()

    def sweeps(self) -> list[SweepId]:
        """All sweeps by name."""
        rows = self.db.execute("SELECT name, scale, label FROM sweeps ORDER BY name, scale, label")
        return [SweepId(*row) for row in rows]

    def members(self, sweep: SweepId) -> list[MemberRow]:
        """Runs of a sweep, by draw and seed.

        Raises:
            UnknownNameError: No such sweep.
        """
        return [_member(*row) for row in self.db.execute(_MEMBERS, (self._sweep(sweep),))]

    def counts(self, sweep: SweepId) -> Counter[RunStatus]:
        """Number of runs of a sweep by status."""
        return Counter(row[4] for row in self.db.execute(_MEMBERS, (self._sweep(sweep),)))

    def standing(self, keys: Iterable[str]) -> dict[str, Standing]:
        """How far runs have come; those that the ledger does not know are left out."""
        query = "SELECT step, COALESCE(done_step, 0), first_bad_step FROM run_states WHERE key = ?"
        rows = {key: self.db.execute(query, (key,)).fetchone() for key in keys}
        return {key: Standing(*row) for key, row in rows.items() if row}

    def points(self, sweep: SweepId) -> PointColumns:
        """Points of all runs of a sweep, those beyond its horizon included.

        Raises:
            UnknownNameError: No such sweep.
        """
        runs = "SELECT run FROM members JOIN draws ON draws.id = draw WHERE sweep = ?"
        return self._points(runs, self._sweep(sweep))

    def run_points(self, key: str) -> PointColumns:
        """Points of one run; none if the run is unknown."""
        return self._points("SELECT id FROM runs WHERE key = ?", key)

    def attempts(self) -> list[AttemptRow]:
        """All attempts by number."""
        rows = self.db.execute(
            "SELECT number, started_at_s, ended_at_s, outcome, error, numerics, host, pid FROM attempts"
            " ORDER BY number"
        )
        return [AttemptRow(*row) for row in rows]

    def failures(self) -> list[FailureRow]:
        """All failures by attempt, those of runs that were tried again included."""
        rows = self.db.execute(
            "SELECT key, attempt, kind, message, time_s FROM failures JOIN runs ON runs.id = run"
            " ORDER BY attempt, key"
        )
        return [FailureRow(*row) for row in rows]

    def costs(self) -> list[CostRow]:
        """What each attempt with a committed block took."""
        rows = self.db.execute(
            "SELECT attempt, (SELECT COUNT(*) FROM attempt_runs WHERE attempt_runs.attempt = blocks.attempt),"
            " SUM(end_step - start_step), SUM(train_s) FROM blocks GROUP BY attempt ORDER BY attempt"
        )
        return [CostRow(*row) for row in rows]

    def slices(self, key: str, name: str, limit: int = 1) -> tuple[StoredSlice, ...]:
        """Newest committed slices of a run under a name, newest first."""
        rows = self.db.execute(
            "SELECT step, attempt, block, file, offset, length, sha256 FROM slices"
            " JOIN block_runs USING (run, attempt, block)"
            " WHERE run = (SELECT id FROM runs WHERE key = ?) AND name = ?"
            " ORDER BY attempt DESC, block DESC LIMIT ?",
            (key, name, limit),
        )
        return tuple(StoredSlice(step, attempt, block, Slice(*part)) for step, attempt, block, *part in rows)

    def resume_points(self, keys: Iterable[str]) -> dict[str, tuple[StoredSlice, ...]]:
        """Where runs resume: the newest state, then the one before in case that is damaged, or nothing.

        Ask after `begin_attempt`: from then on no earlier attempt can move a run on or delete its states. States
        of diverged runs are not kept, so such a run would start over.
        """
        return {
            key: () if self._has_diverged(key) else self.slices(key, STATE, limit=_NUM_STATES) for key in keys
        }

    def needed_states(self) -> set[tuple[int, int]]:
        """Attempt and index of the blocks that hold one of the two newest states of a run that may go on."""
        return set(
            self.db.execute(
                "SELECT attempt, block FROM (SELECT run, attempt, block, ROW_NUMBER() OVER"
                " (PARTITION BY run ORDER BY attempt DESC, block DESC) AS age FROM slices WHERE name = ?)"
                " WHERE age <= ? AND run NOT IN (SELECT run FROM block_runs WHERE status = 'diverged')",
                (STATE, _NUM_STATES),
            )
        )

    def _has_diverged(self, key: str) -> bool:
        found = self.db.execute(
            "SELECT 1 FROM block_runs JOIN runs ON id = run WHERE key = ? AND status = 'diverged'", (key,)
        )
        return found.fetchone() is not None

    def _sweep(self, sweep: SweepId) -> int:
        found = self.db.execute(
            "SELECT id FROM sweeps WHERE (name, scale, label) = (?, ?, ?)",
            (sweep.name, sweep.scale, sweep.label),
        ).fetchone()
        if found is None:
            raise UnknownNameError(
                "sweep", str(sweep), map(str, self.sweeps()), "Valid are those run in this home."
            )
        return found[0]

    def _points(self, runs: str, argument: object) -> PointColumns:
        rows = self.db.execute(_POINTS.format(runs=runs), (argument,)).fetchall()
        columns: list[tuple[Any, ...]] = list(zip(*rows, strict=True)) if rows else [()] * 6
        columns[5] = tuple(math.nan if value is None else value for value in columns[5])
        return PointColumns(*columns)


def _member(*row: Any) -> MemberRow:
    values = list(row)
    values[2], values[10] = json.loads(values[2]), json.loads(values[10])
    return MemberRow(*values)
