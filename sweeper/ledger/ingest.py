"""How one verified block enters the tables: it must go on where its runs stand; a point that is there keeps its value."""

import math
import sqlite3
from collections.abc import Mapping
from pathlib import Path

from sweeper.ledger.registry import add_run
from trainables.blocks import STATE, Manifest
from trainables.config import canonical_json
from trainables.durable import ConflictError

OTHER_BITS = " (other bits)"
"""Added to the class of a block that computed a committed point again and got another value: its runs are `mixed`."""


def take_in(db: sqlite3.Connection, path: Path, manifest: Manifest, dropped: Mapping[str, int]) -> str:
    """Add a block and all that became true with it. The caller holds a transaction.

    A resume goes on from a state that may be older than the newest points, and computes those again. Inside one class of
    numerics they are equal; where they are not, the first ones stand.

    Args:
        db: The ledger.
        path: The manifest's, for the text of errors.
        manifest: The next block of its attempt.
        dropped: Up to which attempt the states of a run were dropped, by key.

    Returns:
        What is wrong where one class of numerics gave two results; else nothing.

    Raises:
        ConflictError: It does not continue what is committed.
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


def _add_attempt(db: sqlite3.Connection, manifest: Manifest) -> None:
    """Note where the attempt ran; add it whole if no driver recorded it."""
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
    """Ids of the block's runs, each of which stands, or once stood, where the block starts."""
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
    """Add the points that are new; one that is there keeps its value and time.

    Args:
        db: The ledger.
        manifest: The block.
        runs: Ids by key.
        is_repeatable: Whether a point computed again must be equal: one class of numerics throughout.

    Returns:
        The first point that must be equal and is not, in words; empty if there is none.
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
        # SQLite stores NaN as NULL, also as an argument, and IS NOT compares it.
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
