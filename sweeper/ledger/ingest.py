"""Add a verified block to the tables: it must continue its runs, and a point that exists keeps its value."""

import math
import sqlite3
from collections.abc import Mapping
from pathlib import Path

from sweeper.ledger.registry import add_run
from trainables.blocks import STATE, Manifest
from trainables.config import canonical_json
from trainables.durable import ConflictError

OTHER_BITS = " (other bits)"
"""Appended to the numerics of a block that recomputed a committed point with another value: its runs become `mixed`."""


def take_in(db: sqlite3.Connection, path: Path, manifest: Manifest, dropped: Mapping[str, int]) -> str:
    """Add a block and everything that it commits; the caller holds a transaction.

    A run may resume from a state that is older than its newest points, and then recomputes those points. Within one
    numerics class they are equal; where they differ, the first values are kept.

    Args:
        db: The ledger.
        path: Path of the manifest, for error texts.
        manifest: The next block of its attempt.
        dropped: Run key -> last attempt whose states of the run were dropped.

    Returns:
        A description of the problem if one numerics class gave two results; else an empty string.

    Raises:
        ConflictError: The block does not continue what is committed.
    """
    _add_attempt(db, manifest)
    runs = _check_continues(db, path, manifest)
    is_repeatable = all(_numerics(db, run) in (None, manifest.numerics) for run in runs.values())
    _add_block(db, manifest, runs, dropped)
    difference = _add_points(db, manifest, runs, is_repeatable)
    if difference:
        db.execute(
            "UPDATE blocks SET numerics = numerics || ? WHERE (attempt, number) = (?, ?)",
            (OTHER_BITS, manifest.attempt, manifest.index),
        )
        return f"{path}: {difference}"
    return ""


def take_back(db: sqlite3.Connection, manifest: Manifest) -> None:
    """Remove the newest block of an attempt and what it alone commits; the caller holds a transaction."""
    place = (manifest.attempt, manifest.index)
    for table, number in (("slices", "block"), ("block_runs", "block"), ("blocks", "number")):
        db.execute(f"DELETE FROM {table} WHERE (attempt, {number}) = (?, ?)", place)  # noqa: S608 (of our own words)
    db.executemany(
        "DELETE FROM points WHERE run = (SELECT id FROM runs WHERE key = ?) AND step = ?"
        " AND metric IN (SELECT id FROM metrics WHERE (name, identity) = (?, ?))"
        " AND NOT EXISTS (SELECT 1 FROM block_runs JOIN blocks ON (blocks.attempt, number) = (block_runs.attempt, block)"
        "  WHERE block_runs.run = points.run AND start_step < points.step AND points.step <= block_runs.step)",
        [
            (point.key, point.step, point.name, manifest.metric_identities.get(point.name, ""))
            for point in manifest.points
        ],
    )


def _add_attempt(db: sqlite3.Connection, manifest: Manifest) -> None:
    """Record where the attempt ran; add the whole attempt if no driver recorded it."""
    number = manifest.attempt
    if not db.execute("SELECT 1 FROM attempts WHERE number = ?", (number,)).fetchone():
        started_at_s = manifest.written_at_s - manifest.train_s
        db.execute("INSERT INTO attempts (number, started_at_s) VALUES (?, ?)", (number, started_at_s))
        rows = [(add_run(db, run.key, run.spec), number) for run in manifest.runs]
        db.executemany("INSERT INTO attempt_runs VALUES (?, ?)", rows)
    where = [manifest.provenance.get(name) for name in ("host", "pid")]
    db.execute(
        "UPDATE attempts SET numerics = ?, host = ?, pid = ? WHERE number = ? AND numerics IS NULL",
        (manifest.numerics, *where, number),
    )


def _check_continues(db: sqlite3.Connection, path: Path, manifest: Manifest) -> dict[str, int]:
    """Return the ids of the block's runs, after checking that each is, or once was, at the step where the block starts."""
    known = dict(
        db.execute(
            "SELECT key, id FROM attempt_runs JOIN runs ON id = run WHERE attempt = ?", (manifest.attempt,)
        )
    )
    for run in manifest.runs:
        if run.key not in known:
            raise ConflictError(f"{path}: run {run.key} is not one of attempt {manifest.attempt}.")
        if manifest.index > 0:
            found = db.execute(
                "SELECT 1 FROM block_runs WHERE (run, attempt, block, step, status) = (?, ?, ?, ?, 'running')",
                (known[run.key], manifest.attempt, manifest.index - 1, manifest.start_step),
            ).fetchone()
        else:
            found = (
                manifest.start_step == 0
                or db.execute(
                    "SELECT 1 FROM block_runs WHERE (run, step) = (?, ?)",
                    (known[run.key], manifest.start_step),
                ).fetchone()
            )
        if not found:
            raise ConflictError(
                f"{path}: run {run.key} continues from step {manifest.start_step}, at which no block ends."
            )
    return {run.key: known[run.key] for run in manifest.runs}


def _numerics(db: sqlite3.Connection, run: int) -> str | None:
    (numerics,) = db.execute("SELECT numerics FROM run_states WHERE id = ?", (run,)).fetchone()
    return numerics if numerics is None else str(numerics)


def _add_block(
    db: sqlite3.Connection, manifest: Manifest, runs: dict[str, int], dropped: Mapping[str, int]
) -> None:
    place = (manifest.attempt, manifest.index)
    db.execute(
        "INSERT INTO blocks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *place,
            manifest.sha256,
            manifest.start_step,
            manifest.end_step,
            manifest.train_s,
            manifest.written_at_s,
            manifest.numerics,
            manifest.code_version,
            canonical_json(dict(manifest.provenance)),
        ),
    )
    for run in manifest.runs:
        db.execute(
            "INSERT INTO block_runs VALUES (?, ?, ?, ?, ?, ?)",
            (runs[run.key], *place, run.step, run.status, run.first_bad_step),
        )
        db.executemany(
            "INSERT INTO slices VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (runs[run.key], *place, name, part.file, part.offset, part.length, part.sha256)
                for name, part in run.slices.items()
                if name != STATE or manifest.attempt > dropped.get(run.key, 0)
            ],
        )


def _add_points(db: sqlite3.Connection, manifest: Manifest, runs: dict[str, int], is_repeatable: bool) -> str:
    """Add the points that are new; a point that exists keeps its value and time.

    Args:
        db: The ledger.
        manifest: The block.
        runs: Run key -> id.
        is_repeatable: Whether recomputed points must be equal, since one numerics class computed all of them.

    Returns:
        A description of the first point that should be equal and is not; empty if all are equal.
    """
    metrics = {}
    for name in {point.name for point in manifest.points}:
        identity = (name, manifest.metric_identities.get(name, ""))
        db.execute("INSERT INTO metrics (name, identity) VALUES (?, ?) ON CONFLICT DO NOTHING", identity)
        found = db.execute("SELECT id FROM metrics WHERE (name, identity) = (?, ?)", identity)
        (metrics[name],) = found.fetchone()
    rows = [(runs[p.key], metrics[p.name], p.step, p.value, p.time_s) for p in manifest.points]
    added = db.executemany("INSERT INTO points VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", rows)
    if added.rowcount == len(rows) or not is_repeatable:
        return ""
    for point, (*where, value, _) in zip(manifest.points, rows, strict=True):
        # SQLite stores NaN as NULL, also if it is an argument, and IS NOT compares NULL as a value.
        other = db.execute(
            "SELECT value FROM points WHERE (run, metric, step) = (?, ?, ?) AND value IS NOT ?",
            (*where, value),
        ).fetchone()
        if other is not None:
            committed = math.nan if other[0] is None else other[0]
            return (
                f"run {point.key}, {point.name} at step {point.step} was {committed!r} and is {value!r} when computed"
                " again within one numerics class: the code changed without a new version, or the hardware is faulty."
                " The first value is kept, and the run's numerics are 'mixed'."
            )
    return ""
