"""Check whether ledger and storage agree, and rebuild a ledger from the storage alone."""

import hashlib
import os
import sqlite3
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from sweeper import display
from sweeper.ledger import registry, schema
from sweeper.ledger.reader import Records
from sweeper.ledger.rows import SweepId
from sweeper.ledger.writer import Ingested, Ledger
from trainables import blocks, durable
from trainables.blocks import KEPT, STATE, Manifest
from trainables.config import canonical_json
from trainables.durable import DamagedBlockError
from trainables.errors import InputError
from trainables.layout import Layout, block_of

_DIFFERENCES = """
    WITH differences AS (
        SELECT 'missing from the ledger' AS what, run, metric, step FROM expected
        LEFT JOIN points USING (run, metric, step) WHERE points.time_s IS NULL
        UNION ALL
        SELECT 'changed in the ledger', run, metric, step FROM expected JOIN points USING (run, metric, step)
        WHERE points.value IS NOT expected.value OR points.time_s <> expected.time_s
        UNION ALL
        SELECT 'in no block', run, metric, step FROM points
        LEFT JOIN expected USING (run, metric, step) WHERE expected.time_s IS NULL)
    SELECT what, key, COUNT(*), name, MIN(step) FROM differences
    JOIN runs ON runs.id = run LEFT JOIN metrics ON metrics.id = metric
    GROUP BY what, key ORDER BY key, what"""


def rebuild(path: Path, storage: Path) -> Ingested:
    """Create a new ledger from a storage folder, with everything except the exports.

    Raises:
        InputError: A file exists at the path.
        ConflictError: The storage contradicts itself.
    """
    if path.exists():
        raise InputError(
            f"{path} exists; rebuild does not overwrite it.\nIf it is damaged, move it away and run rebuild again."
        )
    partial = path.with_name(f"{path.name}.partial")
    # A write-ahead log left beside a ledger that was moved away would be replayed into the new one.
    for name in (partial.name, *(f"{p.name}-{part}" for p in (path, partial) for part in ("wal", "shm"))):
        path.with_name(name).unlink(missing_ok=True)
    with Ledger(partial, storage) as ledger:
        ingested = ledger.ingest()
    partial.replace(path)
    durable.sync_folder(path.parent)
    return ingested


def check(path: Path, storage: Path) -> list[str]:
    """Return the differences between a ledger and its storage, one line each that names the file or run.

    Reads every byte that should still exist, about a second per GB. While a driver runs, the differences include blocks that
    have not reached it yet.
    """
    records = Records.open(path)
    try:
        db = records.db
        not_taken = list(_not_taken(db, storage))
        open_attempts = {block_of(path)[0] for path, _ in not_taken}
        return [
            *_check_intentions(db, storage),
            *(line for _, line in not_taken),
            *_check_blocks(records, storage, open_attempts),
            *_check_exports(db, path.parent),
        ]
    finally:
        records.close()


def _check_intentions(db: sqlite3.Connection, storage: Path) -> Iterator[str]:
    """Yield a line for each sweep or attempt that differs between the ledger and its record."""
    bodies, layout = {}, Layout(storage)
    for names in db.execute("SELECT name, scale, label FROM sweeps").fetchall():
        sweep = SweepId(*names)
        bodies[layout.sweep_record(str(sweep))] = registry.sweep_body(db, sweep)
    for (number,) in db.execute("SELECT number FROM attempts").fetchall():
        bodies[layout.attempt_record(number)] = registry.attempt_body(db, number)
    for path in layout.begun_records():
        try:
            body, _ = durable.read_record(path)
        except DamagedBlockError as error:
            yield str(error)
        else:
            if layout.attempt_record(body["number"]) not in bodies:
                yield f"{path} is not in the ledger."
    recorded = {*layout.sweep_records(), *layout.attempt_records()}
    for path in sorted(recorded | set(bodies)):
        try:
            found, _ = durable.read_record(path)
        except DamagedBlockError as error:
            yield str(error)
            continue
        if path not in bodies:
            yield f"{path} is not in the ledger."
        elif canonical_json(found) != canonical_json(bodies[path]):
            yield f"{path} differs from the ledger."


def _not_taken(db: sqlite3.Connection, storage: Path) -> Iterator[tuple[Path, str]]:
    """Yield each manifest that the ledger neither added nor refused, with a line about it."""
    known = set(db.execute("SELECT attempt, number FROM blocks"))
    fences = dict(db.execute("SELECT number, fence FROM attempts WHERE fence IS NOT NULL"))
    for path in Layout(storage).manifests():
        attempt, index = block_of(path)
        if (attempt, index) in known or index >= fences.get(attempt, index + 1):
            continue
        try:
            blocks.read_manifest(path)
        except DamagedBlockError as error:
            yield path, str(error)
        else:
            yield path, f"{path} is not in the ledger yet; the next run reads it."


def _check_blocks(records: Records, storage: Path, open_attempts: set[int]) -> Iterator[str]:
    """Yield a line for each block of the ledger whose files, runs or points differ from what was added."""
    db = records.db
    dropped, damaged = registry.dropped_states(storage)
    yield from damaged
    resumable: defaultdict[tuple[int, int], set[str]] = defaultdict(set)
    for key, *place in records.needed_states():
        resumable[place[0], place[1]].add(key)
    db.execute(
        "CREATE TEMP TABLE expected (run INTEGER, metric INTEGER, step INTEGER, value REAL, time_s REAL,"
        " PRIMARY KEY (run, metric, step)) WITHOUT ROWID"
    )
    unread: set[str] = set()
    for attempt, number, sha256 in db.execute(
        "SELECT attempt, number, sha256 FROM blocks ORDER BY attempt, number"
    ).fetchall():
        path = Layout(storage).manifest(attempt, number)
        entries = _entries(db, attempt, number)
        try:
            manifest = blocks.read_manifest(path)
        except DamagedBlockError as error:
            unread |= {str(entry[0]) for entry in entries}
            yield str(error)
            continue
        # A driver that dropped states may have died before it updated the ledger; the next run does that.
        if manifest.sha256 != sha256 or entries not in (
            set(_rows(manifest, dropped)),
            set(_rows(manifest, {})),
        ):
            yield f"{path} differs from what the ledger read."
        yield from _check_slices(path.parent, manifest, resumable[attempt, number], attempt in open_attempts)
        _expect(db, manifest)
    yield from _check_points(db, unread)


def _entries(db: sqlite3.Connection, attempt: int, number: int) -> set[tuple[object, ...]]:
    """Return the rows of the ledger about the runs and slices of a block."""
    rows = db.execute(
        "SELECT key, step, status, first_bad_step, name, file, offset, length, sha256 FROM block_runs"
        " JOIN runs ON runs.id = block_runs.run LEFT JOIN slices USING (run, attempt, block)"
        " WHERE (attempt, block) = (?, ?)",
        (attempt, number),
    )
    return set(rows)


def _rows(manifest: Manifest, dropped: Mapping[str, int]) -> Iterator[tuple[object, ...]]:
    """Yield the same rows from a manifest, without dropped states."""
    for run in manifest.runs:
        row = (run.key, run.step, run.status, run.first_bad_step)
        is_dropped = manifest.attempt <= dropped.get(run.key, 0)
        slices = {name: part for name, part in run.slices.items() if name != STATE or not is_dropped}
        if not slices:
            yield (*row, *[None] * 5)
        for name, part in slices.items():
            yield (*row, name, part.file, part.offset, part.length, part.sha256)


def _check_slices(
    folder: Path, manifest: Manifest, resumable: Collection[str], is_open: bool
) -> Iterator[str]:
    """Yield a line for each needed slice that is damaged, or missing although nothing should have pruned it.

    Args:
        folder: Folder of the manifest's attempt.
        manifest: Manifest of the block.
        resumable: Keys of the runs that would resume from the block.
        is_open: Whether the attempt's worker may still be pruning states.
    """
    for run in manifest.runs:
        for name, part in run.slices.items():
            is_kept = run.status != "running" and name in KEPT
            is_state = name == STATE and run.key in resumable
            if is_kept or (is_state and (not is_open or (folder / part.file).exists())):
                try:
                    blocks.read_slice(folder, part)
                except DamagedBlockError as error:
                    yield f"{error} It holds '{name}' of run {run.key}."


def _expect(db: sqlite3.Connection, manifest: Manifest) -> None:
    """Record the points of a block that no earlier block has."""
    runs = dict(
        db.execute(
            "SELECT key, id FROM runs JOIN block_runs ON run = id WHERE (attempt, block) = (?, ?)",
            (manifest.attempt, manifest.index),
        )
    )
    metrics = {
        (name, identity): row for row, name, identity in db.execute("SELECT id, name, identity FROM metrics")
    }
    db.executemany(
        "INSERT INTO expected VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        [
            (
                runs[p.key],
                metrics.get((p.name, manifest.metric_identities.get(p.name, "")), 0),
                p.step,
                p.value,
                p.time_s,
            )
            for p in manifest.points
        ],
    )


def _check_points(db: sqlite3.Connection, unread: set[str]) -> Iterator[str]:
    """Yield a line for each run whose points differ from those of its blocks; a run with an unread block may have more."""
    for what, key, count, name, step in db.execute(_DIFFERENCES).fetchall():
        if what != "in no block" or key not in unread:
            yield f"Run {key}: {count} points {what}, the first '{name}' at step {step}."


def _check_exports(db: sqlite3.Connection, home: Path) -> Iterator[str]:
    for name, kind, sha256 in db.execute("SELECT path, kind, sha256 FROM exports ORDER BY path").fetchall():
        path = Path(os.path.normpath(home / name))
        if not path.exists():
            yield f"{path} is missing.{_again(db, home, name, path, kind)}"
        elif hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            yield f"{path} was changed after it was exported."


def _again(db: sqlite3.Connection, home: Path, name: str, path: Path, kind: str) -> str:
    """Return the command that writes an export again, empty if it is not known."""
    rows = "SELECT name, scale, label FROM export_sweeps JOIN sweeps ON id = sweep WHERE path = ? ORDER BY id"
    sweeps = db.execute(rows, (name,)).fetchall() if schema.has_export_sweeps(db) else []
    if not sweeps or len({tuple(where) for _, *where in sweeps}) > 1:
        return ""
    ((scale, label),) = {tuple(where) for _, *where in sweeps}
    where = {"scale": scale, "label": label, "home": home}
    names = [each for each, *_ in sweeps]
    if kind == "runs":
        return f" Write it again: {display.command('export', *names, **where, runs=path)}"
    table = path.with_stem(path.stem.removesuffix("_left_out"))
    file = {"plot": path} if kind == "plot" else {"csv": table}
    return f" Write it again: {display.command('pareto', *names, **where, **file)}"
