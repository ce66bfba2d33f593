"""What the ledger says, as plain rows; any number of processes may ask while one driver writes."""

import json
import math
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sweeper.ledger import queries, registry, schema
from sweeper.ledger.registry import Draw
from sweeper.ledger.rows import (
    AttemptRow,
    CostRow,
    FailureRow,
    History,
    MemberRow,
    PointColumns,
    RunStatus,
    Standing,
    StoredSlice,
    SweepId,
)
from trainables.blocks import STATE, Slice
from trainables.errors import UnknownNameError

_NUM_STATES = 2


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
        return cls(schema.open_for_reading(path))

    def close(self) -> None:
        """Let go of the file."""
        self.db.close()

    def sweeps(self) -> list[SweepId]:
        """All sweeps by name."""
        rows = self.db.execute("SELECT name, scale, label FROM sweeps ORDER BY name, scale, label")
        return [SweepId(*row) for row in rows]

    def spec(self, sweep: SweepId) -> dict[str, Any]:
        """What a sweep was registered with: question, model, objectives, metrics, data, fields, steps, note.

        Raises:
            UnknownNameError: No such sweep.
        """
        found = self.db.execute("SELECT spec FROM sweeps WHERE id = ?", (self._sweep(sweep),))
        spec: dict[str, Any] = json.loads(found.fetchone()[0])
        return spec

    def check_sweep(self, sweep: SweepId, spec: Mapping[str, Any], draws: Iterable[Draw]) -> None:
        """Refuse what `Ledger.register_sweep` would refuse.

        Raises:
            InputError: A draw or member is known and is another one now, or asks for fewer steps.
        """
        self.db.execute("BEGIN")  # a driver may be registering more of it
        try:
            registry.check_sweep(self.db, sweep, spec, draws)
        finally:
            self.db.execute("ROLLBACK")

    def histories(self, sweep: SweepId) -> dict[tuple[int, int], History]:
        """What the blocks of each run of a sweep say, up to its horizon, by draw and seed.

        Raises:
            UnknownNameError: No such sweep.
        """
        rows = self.db.execute(queries.HISTORIES, (self._sweep(sweep),))
        return {(draw, seed): History(*facts) for draw, seed, *facts in rows}

    def newest_block_s(self, sweep: SweepId) -> float:
        """When the newest block of a sweep was written, 0 before the first; those beyond its horizon are not its own."""
        (written_at_s,) = self.db.execute(queries.NEWEST_BLOCK, (self._sweep(sweep),)).fetchone()
        return float(written_at_s)

    def ambiguous_metrics(self, sweep: SweepId) -> list[tuple[str, str]]:
        """Name and identity of the metrics of a sweep that were computed in several ways, the oldest first."""
        return self.db.execute(queries.AMBIGUOUS_METRICS, (self._sweep(sweep),)).fetchall()

    def identity(self) -> str:
        """What tells this ledger from others."""
        (ledger,) = self.db.execute("SELECT ledger FROM identity").fetchone()
        return str(ledger)

    def members(self, sweep: SweepId) -> list[MemberRow]:
        """Runs of a sweep, by draw and seed.

        Raises:
            UnknownNameError: No such sweep.
        """
        return [_member(*row) for row in self.db.execute(queries.MEMBERS, (self._sweep(sweep),))]

    def finished(self, sweep: SweepId) -> set[str]:
        """Keys of the runs of a sweep that are done, and that no sweep wants further.

        Raises:
            UnknownNameError: No such sweep.
        """
        wanted = {
            row.key
            for each in self.sweeps()
            for row in self.members(each)
            if row.status not in ("done", "diverged")
        }
        return {row.key for row in self.members(sweep) if row.status == "done"} - wanted

    def counts(self, sweep: SweepId) -> Counter[RunStatus]:
        """Number of runs of a sweep by status."""
        return Counter(row[4] for row in self.db.execute(queries.MEMBERS, (self._sweep(sweep),)))

    def standing(self, keys: Iterable[str]) -> dict[str, Standing]:
        """How far runs have come; those that the ledger does not know are left out."""
        query = "SELECT step, first_bad_step FROM run_states WHERE key = ?"
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
        return tuple(_stored(*row) for row in rows)

    def resume_points(self, keys: Iterable[str]) -> dict[str, tuple[StoredSlice, ...]]:
        """Where runs resume: the newest state, then the one before in case that is damaged, or nothing.

        Ask after `begin_attempt`: from then on no earlier attempt can move a run on or delete its states. States
        of diverged runs are not kept, so such a run would start over.
        """
        found: dict[str, tuple[StoredSlice, ...]] = dict.fromkeys(keys, ())
        wanted = "SELECT id FROM runs WHERE key IN (SELECT value FROM json_each(?))"
        for key, stored in self._states(wanted, json.dumps(list(found))):
            found[key] += (stored,)
        return found

    def resume_steps(self, keys: Iterable[str]) -> dict[str, int]:
        """The step of the newest state of each of these runs, 0 where there is none."""
        return {key: found[0].step if found else 0 for key, found in self.resume_points(keys).items()}

    def needed_states(self) -> set[tuple[str, int, int]]:
        """Key, attempt and block of the states that `resume_points` of all runs would name."""
        return {(key, stored.attempt, stored.index) for key, stored in self._states("SELECT id FROM runs")}

    def _states(self, runs: str, *arguments: object) -> list[tuple[str, StoredSlice]]:
        rows = self.db.execute(queries.STATES.format(runs=runs), (STATE, *arguments, _NUM_STATES))
        return [(key, _stored(*row)) for key, *row in rows]

    def _sweep(self, sweep: SweepId) -> int:
        found = self.db.execute(
            "SELECT id FROM sweeps WHERE (name, scale, label) = (?, ?, ?)",
            (sweep.name, sweep.scale, sweep.label),
        ).fetchone()
        if found is None:
            raise UnknownNameError(
                "sweep", str(sweep), map(str, self.sweeps()), "Valid: sweeps that were run in this home."
            )
        return int(found[0])

    def _points(self, runs: str, argument: object) -> PointColumns:
        rows = self.db.execute(queries.POINTS.format(runs=runs), (argument,)).fetchall()
        columns: list[tuple[Any, ...]] = list(zip(*rows, strict=True)) if rows else [()] * 6
        columns[5] = tuple(math.nan if value is None else value for value in columns[5])
        return PointColumns(*columns)


def _stored(step: int, attempt: int, block: int, *part: Any) -> StoredSlice:
    return StoredSlice(step, attempt, block, Slice(*part))


def _member(*row: Any) -> MemberRow:
    values = list(row)
    values[2], values[10] = json.loads(values[2]), json.loads(values[10])
    return MemberRow(*values)
