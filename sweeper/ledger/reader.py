"""The contents of the ledger as plain rows; any number of processes may read while one driver writes."""

import json
import math
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from functools import cache
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
    PaceRow,
    PointColumns,
    RunStatus,
    Standing,
    StoredSlice,
    SweepId,
    SweepSpec,
)
from trainables.blocks import STATE, Slice
from trainables.errors import UnknownNameError

_NUM_STATES = 2


class Records:
    """Queries to an open ledger; each reads what is committed at that moment."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self.db = db

    @classmethod
    def open(cls, path: Path) -> "Records":
        """Open a ledger for reading.

        Raises:
            InputError: The file does not exist, is not a ledger, or is from a newer version.
        """
        return cls(schema.open_for_reading(path))

    def close(self) -> None:
        """Close the file."""
        self.db.close()

    def sweeps(self) -> list[SweepId]:
        """Return all sweeps, by name."""
        rows = self.db.execute("SELECT name, scale, label FROM sweeps ORDER BY name, scale, label")
        return [SweepId(*row) for row in rows]

    def spec(self, sweep: SweepId) -> SweepSpec:
        """Return what a sweep was registered with: question, model, objectives, metrics, data, fields, steps, note.

        Raises:
            UnknownNameError: The sweep is unknown.
        """
        found = self.db.execute("SELECT spec FROM sweeps WHERE id = ?", (self._sweep(sweep),))
        spec: SweepSpec = json.loads(found.fetchone()[0])
        return spec

    def check_sweep(self, sweep: SweepId, spec: SweepSpec, draws: Iterable[Draw]) -> None:
        """Reject what `Ledger.register_sweep` would reject.

        Raises:
            InputError: A known draw or member has changed, or asks for fewer steps.
        """
        self.db.execute("BEGIN")  # a driver may be adding to the sweep
        try:
            registry.check_sweep(self.db, sweep, spec, draws)
        finally:
            self.db.execute("ROLLBACK")

    def histories(self, sweep: SweepId) -> dict[tuple[int, int], History]:
        """Return the history of each run of a sweep up to the sweep's horizon, by draw and seed.

        Raises:
            UnknownNameError: The sweep is unknown.
        """
        rows = self.db.execute(queries.HISTORIES, (self._sweep(sweep),))
        return {(draw, seed): History(*facts) for draw, seed, *facts in rows}

    def newest_block_s(self, sweep: SweepId) -> float:
        """Return when the newest block of a sweep was written, 0 before the first; blocks beyond its horizon do not count."""
        (written_at_s,) = self.db.execute(queries.NEWEST_BLOCK, (self._sweep(sweep),)).fetchone()
        return float(written_at_s)

    def ambiguous_metrics(self, sweep: SweepId) -> list[tuple[str, str]]:
        """Return name and identity of the metrics of a sweep that were computed in several ways, oldest first."""
        return self.db.execute(queries.AMBIGUOUS_METRICS, (self._sweep(sweep),)).fetchall()

    def exports(self, sweep: SweepId) -> dict[Path, tuple[SweepId, ...]]:
        """Return the exports with results of a sweep, relative to the ledger's folder, and all sweeps that they are of.

        Raises:
            UnknownNameError: The sweep is unknown.
        """
        if schema.has_export_sweeps(self.db):
            rows = self.db.execute("SELECT sweep, path FROM export_sweeps").fetchall()
        else:  # no program of today has written to it
            rows = schema.exports_by_name(self.db)
        names = {
            row: SweepId(*rest) for row, *rest in self.db.execute("SELECT id, name, scale, label FROM sweeps")
        }
        own, found = self._sweep(sweep), defaultdict(list)
        for row, path in sorted(rows):
            found[path].append(row)
        return {Path(path): tuple(map(names.__getitem__, of)) for path, of in found.items() if own in of}

    def identity(self) -> str:
        """Return the id that distinguishes this ledger from others."""
        (ledger,) = self.db.execute("SELECT ledger FROM identity").fetchone()
        return str(ledger)

    def members(self, sweep: SweepId) -> list[MemberRow]:
        """Return the runs of a sweep, by draw and seed.

        Raises:
            UnknownNameError: The sweep is unknown.
        """
        params = cache(json.loads)  # a draw's are those of all its seeds
        return [
            MemberRow(key, draw, params(text), *rest)
            for key, draw, text, *rest in self.db.execute(queries.MEMBERS, (self._sweep(sweep),))
        ]

    def finished(self, sweep: SweepId) -> set[str]:
        """Return the keys of the runs of a sweep that are done and that no sweep wants to train further.

        Raises:
            UnknownNameError: The sweep is unknown.
        """
        wanted = {
            row.key
            for each in self.sweeps()
            for row in self.members(each)
            if row.status not in ("done", "diverged")
        }
        return {row.key for row in self.members(sweep) if row.status == "done"} - wanted

    def counts(self, sweep: SweepId) -> Counter[RunStatus]:
        """Return the number of runs of a sweep by status."""
        return Counter(row[4] for row in self.db.execute(queries.MEMBERS, (self._sweep(sweep),)))

    def pace(self, sweep: SweepId) -> tuple[int, float] | None:
        """Return the run-steps that open attempts at a sweep have committed, and when the first of them began, if any has."""
        num_steps, begun_s = self.db.execute(queries.PACE, (self._sweep(sweep),)).fetchone()
        return None if num_steps is None else (num_steps, begun_s)

    def standing(self, keys: Iterable[str]) -> dict[str, Standing]:
        """Return the progress of runs; runs that the ledger does not know are left out."""
        query = (
            "SELECT run_states.key, run_states.step, first_bad_step"
            " FROM json_each(?) AS asked JOIN run_states ON run_states.key = asked.value"
        )
        rows = self.db.execute(query, (json.dumps(list(keys)),))
        return {key: Standing(*row) for key, *row in rows}

    def computed(self, horizons: Mapping[str, int], names: Iterable[str]) -> dict[str, set[tuple[str, str]]]:
        """Return which metrics runs have at a step: name and identity of each.

        Args:
            horizons: The step by the run's key.
            names: Names of the metrics to look for.
        """
        found: dict[str, set[tuple[str, str]]] = {key: set() for key in horizons}
        arguments = (json.dumps(dict(horizons)), json.dumps(list(names)))
        for key, *metric in self.db.execute(queries.COMPUTED, arguments):
            found[key].add((metric[0], metric[1]))
        return found

    def points(self, sweep: SweepId) -> PointColumns:
        """Return the points of all runs of a sweep, including those beyond its horizon.

        Raises:
            UnknownNameError: The sweep is unknown.
        """
        runs = "SELECT run FROM members JOIN draws ON draws.id = draw WHERE sweep = ?"
        return self._points(queries.POINTS.format(runs=runs), self._sweep(sweep))

    def last_points(self, sweep: SweepId) -> PointColumns:
        """Return the points of all runs of a sweep at its horizon.

        Raises:
            UnknownNameError: The sweep is unknown.
        """
        return self._points(queries.LAST_POINTS, self._sweep(sweep))

    def run_points(self, key: str) -> PointColumns:
        """Return the points of one run; none if the run is unknown."""
        return self._points(queries.POINTS.format(runs="SELECT id FROM runs WHERE key = ?"), key)

    def attempts(self) -> list[AttemptRow]:
        """Return all attempts, by number."""
        rows = self.db.execute(
            "SELECT number, started_at_s, ended_at_s, outcome, error, numerics, host, pid FROM attempts"
            " ORDER BY number"
        )
        return [AttemptRow(*row) for row in rows]

    def failures(self) -> list[FailureRow]:
        """Return all failures by attempt, including those of runs that were tried again."""
        rows = self.db.execute(
            "SELECT key, attempt, kind, message, time_s FROM failures JOIN runs ON runs.id = run"
            " ORDER BY attempt, key"
        )
        return [FailureRow(*row) for row in rows]

    def costs(self) -> list[CostRow]:
        """Return the cost of each attempt with a committed block."""
        rows = self.db.execute(
            "SELECT attempt, (SELECT COUNT(*) FROM attempt_runs WHERE attempt_runs.attempt = blocks.attempt),"
            " SUM(end_step - start_step), SUM(train_s) FROM blocks GROUP BY attempt ORDER BY attempt"
        )
        return [CostRow(*row) for row in rows]

    def paces(self, keys: Iterable[str]) -> list[PaceRow]:
        """Return what the newest blocks in which any of these runs trained took, at most a thousand."""
        rows = self.db.execute(
            "SELECT end_step - start_step, train_s, numerics,"
            " (SELECT COUNT(*) FROM block_runs WHERE attempt = blocks.attempt AND block = blocks.number)"
            " FROM blocks WHERE start_step < end_step AND EXISTS (SELECT 1 FROM block_runs JOIN runs ON runs.id = run"
            " WHERE attempt = blocks.attempt AND block = blocks.number"
            " AND key IN (SELECT value FROM json_each(?)))"
            " ORDER BY written_at_s DESC LIMIT 1000",
            (json.dumps(list(keys)),),
        )
        return [PaceRow(*row) for row in rows]

    def slices(self, key: str, name: str, limit: int = 1) -> tuple[StoredSlice, ...]:
        """Return the newest committed slices of a run with a name, newest first."""
        rows = self.db.execute(
            "SELECT step, attempt, block, file, offset, length, sha256 FROM slices"
            " JOIN block_runs USING (run, attempt, block)"
            " WHERE run = (SELECT id FROM runs WHERE key = ?) AND name = ?"
            " ORDER BY attempt DESC, block DESC LIMIT ?",
            (key, name, limit),
        )
        return tuple(_stored(*row) for row in rows)

    def resume_points(self, keys: Iterable[str]) -> dict[str, tuple[StoredSlice, ...]]:
        """Return where runs resume: the newest state, then the one before in case the newest is damaged, or nothing.

        Call this after `begin_attempt`: from then on no earlier attempt can advance a run or delete its states. States
        of diverged runs are not kept, so such a run would start over.
        """
        found: dict[str, tuple[StoredSlice, ...]] = dict.fromkeys(keys, ())
        wanted = "SELECT id FROM runs WHERE key IN (SELECT value FROM json_each(?))"
        for key, stored in self._states(wanted, json.dumps(list(found))):
            found[key] += (stored,)
        return found

    def resume_steps(self, keys: Iterable[str]) -> dict[str, int]:
        """Return the step of the newest state of each run, 0 if it has none."""
        return {key: found[0].step if found else 0 for key, found in self.resume_points(keys).items()}

    def needed_states(self) -> set[tuple[str, int, int]]:
        """Return key, attempt and block of the states that `resume_points` would return for all runs."""
        return {(key, stored.attempt, stored.index) for key, stored in self._states("SELECT id FROM runs")}

    def _states(self, runs: str, *arguments: object) -> list[tuple[str, StoredSlice]]:
        rows = self.db.execute(
            queries.STATES.format(runs=runs), (STATE, *arguments, _NUM_STATES, _NUM_STATES)
        )
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

    def _points(self, query: str, argument: object) -> PointColumns:
        rows = self.db.execute(query, (argument,)).fetchall()
        columns: list[tuple[Any, ...]] = list(zip(*rows, strict=True)) if rows else [()] * 6
        columns[5] = tuple(math.nan if value is None else value for value in columns[5])
        return PointColumns(*columns)


def _stored(step: int, attempt: int, block: int, *part: Any) -> StoredSlice:
    return StoredSlice(step, attempt, block, Slice(*part))
