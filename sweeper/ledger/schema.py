"""The tables of the ledger, and how its file is opened.

Tables hold facts, written once; what follows from the facts (such as a run's step) is a view. Ids are integers, so that
millions of points stay small. Attempts and blocks are identified by their numbers.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainables.errors import InputError

VERSION = 1
"""Version of the tables below."""

_BUSY_TIMEOUT_S = 30.0

_TABLES = """
BEGIN;
CREATE TABLE identity (ledger TEXT NOT NULL);
CREATE TABLE sweeps (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, scale TEXT NOT NULL, label TEXT NOT NULL, spec TEXT NOT NULL,
    UNIQUE (name, scale, label));
CREATE TABLE draws (
    id INTEGER PRIMARY KEY, sweep INTEGER NOT NULL REFERENCES sweeps, number INTEGER NOT NULL,
    params TEXT NOT NULL, UNIQUE (sweep, number));
CREATE TABLE runs (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, spec TEXT NOT NULL);
CREATE TABLE members (
    draw INTEGER NOT NULL REFERENCES draws, seed INTEGER NOT NULL, run INTEGER NOT NULL REFERENCES runs,
    horizon_steps INTEGER NOT NULL, PRIMARY KEY (draw, seed)) WITHOUT ROWID;
CREATE TABLE attempts (
    number INTEGER PRIMARY KEY, started_at_s REAL NOT NULL, ended_at_s REAL, outcome TEXT, error TEXT,
    fence INTEGER, -- blocks from this index on are refused
    numerics TEXT, host TEXT, pid TEXT); -- known from the first block on
CREATE TABLE attempt_runs (
    run INTEGER NOT NULL REFERENCES runs, attempt INTEGER NOT NULL REFERENCES attempts,
    PRIMARY KEY (run, attempt)) WITHOUT ROWID;
CREATE INDEX runs_of_attempt ON attempt_runs (attempt);
CREATE TABLE failures (
    run INTEGER NOT NULL, attempt INTEGER NOT NULL, kind TEXT NOT NULL, message TEXT NOT NULL,
    time_s REAL NOT NULL, PRIMARY KEY (run, attempt), FOREIGN KEY (run, attempt) REFERENCES attempt_runs);
CREATE TABLE blocks (
    attempt INTEGER NOT NULL REFERENCES attempts, number INTEGER NOT NULL, sha256 TEXT NOT NULL,
    start_step INTEGER NOT NULL, end_step INTEGER NOT NULL, train_s REAL NOT NULL,
    written_at_s REAL NOT NULL, numerics TEXT NOT NULL, code_version TEXT NOT NULL, provenance TEXT NOT NULL,
    PRIMARY KEY (attempt, number)) WITHOUT ROWID;
CREATE TABLE block_runs (
    run INTEGER NOT NULL REFERENCES runs, attempt INTEGER NOT NULL, block INTEGER NOT NULL,
    step INTEGER NOT NULL, status TEXT NOT NULL, first_bad_step INTEGER,
    PRIMARY KEY (run, attempt, block), FOREIGN KEY (attempt, block) REFERENCES blocks) WITHOUT ROWID;
CREATE INDEX runs_of_block ON block_runs (attempt, block);
CREATE TABLE slices (
    run INTEGER NOT NULL, attempt INTEGER NOT NULL, block INTEGER NOT NULL, name TEXT NOT NULL,
    file TEXT NOT NULL, offset INTEGER NOT NULL, length INTEGER NOT NULL, sha256 TEXT NOT NULL,
    PRIMARY KEY (run, attempt, block, name),
    FOREIGN KEY (run, attempt, block) REFERENCES block_runs) WITHOUT ROWID;
CREATE TABLE metrics (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, identity TEXT NOT NULL, UNIQUE (name, identity));
CREATE TABLE points (
    run INTEGER NOT NULL REFERENCES runs, metric INTEGER NOT NULL REFERENCES metrics, step INTEGER NOT NULL,
    value REAL, -- NULL is NaN
    time_s REAL NOT NULL, PRIMARY KEY (run, metric, step)) WITHOUT ROWID;
CREATE TABLE exports (path TEXT PRIMARY KEY, sha256 TEXT NOT NULL, kind TEXT NOT NULL);

CREATE VIEW run_states AS SELECT
    runs.id, runs.key, runs.spec,
    (SELECT MAX(attempt) FROM attempt_runs WHERE run = runs.id) AS attempt,
    (SELECT COALESCE(MAX(step), 0) FROM block_runs WHERE run = runs.id) AS step,
    (SELECT MAX(step) FROM block_runs WHERE run = runs.id AND status = 'done') AS done_step,
    (SELECT MIN(first_bad_step) FROM block_runs WHERE run = runs.id) AS first_bad_step,
    (SELECT {numerics}
        FROM block_runs JOIN blocks ON blocks.attempt = block_runs.attempt AND blocks.number = block
        WHERE run = runs.id AND start_step < end_step) AS numerics
FROM runs;
PRAGMA user_version = {version};
COMMIT;
"""

_EXPORT_SWEEPS = """
CREATE TABLE export_sweeps (
    path TEXT NOT NULL, sweep INTEGER NOT NULL REFERENCES sweeps, PRIMARY KEY (path, sweep)) WITHOUT ROWID;
"""
"""Came later than version 1, which programs of that time still read: what they do not know they leave alone."""


def one_or_mixed(column: str) -> str:
    """Return SQL for the common value of a column in a group of rows: `mixed` if values differ, NULL if there are none."""
    return f"CASE WHEN MIN({column}) = MAX({column}) THEN MIN({column}) WHEN COUNT({column}) > 0 THEN 'mixed' END"


def open_for_writing(path: Path) -> sqlite3.Connection:
    """Open a ledger, created if missing; every committed transaction is durable on disk.

    Raises:
        InputError: The file is of another program, or from a newer version.
        sqlite3.DatabaseError: The file is damaged, or not a database.
    """
    db = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None)
    try:
        version = _version(db, path)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA foreign_keys = ON")
        if version == 0:
            db.executescript(_TABLES.format(version=VERSION, numerics=one_or_mixed("numerics")))
        if not has_export_sweeps(db):
            with transaction(db):
                db.execute(_EXPORT_SWEEPS)
                named = [(path, sweep) for sweep, path in exports_by_name(db)]
                db.executemany("INSERT INTO export_sweeps VALUES (?, ?)", named)
    except BaseException:
        db.close()
        raise
    return db


def in_memory() -> sqlite3.Connection:
    """Return an empty ledger in memory, to try out changes on."""
    db = sqlite3.connect(":memory:", isolation_level=None)
    db.executescript(_TABLES.format(version=VERSION, numerics=one_or_mixed("numerics")))
    db.execute(_EXPORT_SWEEPS)
    return db


def open_for_reading(path: Path) -> sqlite3.Connection:
    """Open a ledger that another process may be writing.

    Raises:
        InputError: The file does not exist, is of another program, or is from a newer version.
        sqlite3.DatabaseError: The file is empty, damaged, or not a database.
    """
    if not path.exists():
        raise InputError(
            f"No ledger at {path}.\nNothing has been run in this home; choose another with --home."
        )
    db = connect_for_reading(path)
    try:
        if _version(db, path) == 0:
            raise sqlite3.DatabaseError("the file is empty")
    except BaseException:
        db.close()
        raise
    return db


def connect_for_reading(path: Path) -> sqlite3.Connection:
    """Connect to an existing file, whatever its content, without ever writing to it."""
    log = path.with_name(f"{path.name}-wal")
    is_closed = not os.access(path.parent, os.W_OK) and not (log.exists() and log.stat().st_size)
    # SQLite shares a write-ahead log through files beside it; if it cannot create them, it must be told that nobody writes.
    how = "mode=ro&immutable=1" if is_closed else "mode=ro"
    return sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True, timeout=_BUSY_TIMEOUT_S)


def has_export_sweeps(db: sqlite3.Connection) -> bool:
    """Return whether a ledger keeps which sweeps an export is of."""
    return bool(db.execute("SELECT 1 FROM sqlite_master WHERE name = 'export_sweeps'").fetchone())


def exports_by_name(db: sqlite3.Connection) -> list[tuple[int, str]]:
    """Return sweep and path of the exports of a ledger that does not keep it: files were named after their sweeps."""
    sweeps = db.execute("SELECT id, name, scale, label FROM sweeps").fetchall()
    known = {"-".join(filter(None, names)): row for row, *names in sweeps}
    paths = [path for (path,) in db.execute("SELECT path FROM exports")]
    return [
        (known[name], path)
        for path in paths
        for name in Path(path).stem.removesuffix("_left_out").split("+")
        if name in known
    ]


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Execute all of the statements inside, or none."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _version(db: sqlite3.Connection, path: Path) -> int:
    """Return the version of the tables in a file, 0 for a new file.

    Raises:
        InputError: The tables are those of another program or of a newer version.
        sqlite3.DatabaseError: The file is damaged, or not a database.
    """
    (version,) = db.execute("PRAGMA user_version").fetchone()
    (num_tables,) = db.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
    if version > VERSION:
        raise InputError(
            f"{path} is a ledger of version {version}; this program reads versions up to {VERSION}.\n"
            "Update the program."
        )
    if version == 0 and num_tables > 0:
        raise InputError(f"{path} is a database of another program.\nChoose another home with --home.")
    return int(version)
