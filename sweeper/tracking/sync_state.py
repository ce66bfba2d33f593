"""Record of what MLflow already has, so that following a ledger is cheap; the sync process may drop it at any time."""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, fields
from pathlib import Path

from sweeper.ledger.rows import SweepId

_VERSION = 1
_TIMEOUT_S = 10.0

_TABLE = f"""
CREATE TABLE IF NOT EXISTS deliveries (
    uri TEXT NOT NULL, sweep TEXT NOT NULL, entry TEXT NOT NULL, run_id TEXT NOT NULL, parent_id TEXT NOT NULL,
    status TEXT NOT NULL, state TEXT NOT NULL, basis TEXT NOT NULL, num_points INTEGER NOT NULL,
    last_step INTEGER NOT NULL, artifacts TEXT NOT NULL, PRIMARY KEY (uri, sweep, entry)) WITHOUT ROWID;
PRAGMA user_version = {_VERSION};"""


@dataclass(frozen=True)
class Delivery:
    """Record of what MLflow has of an entry.

    Attributes:
        entry: Id of the entry.
        run_id: Id of the MLflow run.
        parent_id: Id of the parent's MLflow run, empty for none.
        status: MLflow status.
        state: State of the entry when it was delivered completely; empty before, and while one of its files is missing.
        basis: Basis of the points, see `Content`.
        num_points: Number of delivered points: all points of the basis up to `last_step`.
        last_step: Newest delivered step.
        artifacts: File name -> stamp.
    """

    entry: str
    run_id: str
    parent_id: str
    status: str
    state: str
    basis: str
    num_points: int
    last_step: int
    artifacts: Mapping[str, str]

    @classmethod
    def nothing(cls, entry: str, run_id: str, parent_id: str, status: str) -> "Delivery":
        """Return the record of an MLflow run that exists, but of which nothing else is known."""
        return cls(
            entry, run_id, parent_id, status, state="", basis="", num_points=0, last_step=-1, artifacts={}
        )


_COLUMNS = tuple(field.name for field in fields(Delivery))


class Deliveries:
    """The deliveries to one MLflow store, kept in a file of the home; one process writes it.

    Args:
        path: The file; created if it is missing, and replaced if it is unreadable.
        uri: Address of the store.
    """

    def __init__(self, path: Path, uri: str) -> None:
        self._uri = uri
        try:
            self._db = _open(path)
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError:
            path.unlink()
            self._db = _open(path)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def of(self, sweep: SweepId) -> dict[str, Delivery]:
        """Return the deliveries of a sweep by entry."""
        rows = self._db.execute(
            f"SELECT {', '.join(_COLUMNS)} FROM deliveries WHERE (uri, sweep) = (?, ?)",  # noqa: S608
            (self._uri, str(sweep)),
        )
        return {
            values[0]: Delivery(**dict(zip(_COLUMNS, (*values, json.loads(artifacts)), strict=True)))
            for *values, artifacts in rows
        }

    def put(self, sweep: SweepId, delivery: Delivery) -> None:
        """Record a delivery, replacing an earlier one of the same entry."""
        *values, stamps = (getattr(delivery, name) for name in _COLUMNS)
        self._db.execute(
            "INSERT OR REPLACE INTO deliveries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (self._uri, str(sweep), *values, json.dumps(dict(stamps))),
        )

    def forget(self, sweeps: Sequence[SweepId] | None) -> None:
        """Forget all deliveries of the given sweeps, None for all sweeps."""
        if sweeps is None:
            self._db.execute("DELETE FROM deliveries WHERE uri = ?", (self._uri,))
        for sweep in sweeps or ():
            self._db.execute("DELETE FROM deliveries WHERE (uri, sweep) = (?, ?)", (self._uri, str(sweep)))

    def drop(self, sweep: SweepId, entry: str) -> None:
        """Forget the delivery of one entry."""
        self._db.execute(
            "DELETE FROM deliveries WHERE (uri, sweep, entry) = (?, ?, ?)", (self._uri, str(sweep), entry)
        )


def delivered_states(path: Path, uri: str, sweep: SweepId) -> dict[str, str]:
    """Return the delivered state of each entry of a sweep; empty if the file is missing or unreadable."""
    if not path.exists():
        return {}
    try:
        with closing(sqlite3.connect(path, timeout=_TIMEOUT_S)) as db:
            rows = db.execute(
                "SELECT entry, state FROM deliveries WHERE (uri, sweep) = (?, ?)", (uri, str(sweep))
            )
            return dict(rows.fetchall())
    except sqlite3.DatabaseError:
        return {}


def _open(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=_TIMEOUT_S, isolation_level=None)
    try:
        # No write-ahead log: the log of a deleted file would be replayed into its successor.
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version not in (0, _VERSION):
            raise sqlite3.DatabaseError(f"version {version}")
        db.executescript(_TABLE)
    except BaseException:
        db.close()
        raise
    return db
