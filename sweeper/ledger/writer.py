"""The writer of the ledger: what was asked for, and an index over the committed blocks.

One driver writes the ledger, on a local disk; `Records` reads it. Everything in it except the exports can be made again from
the storage folder, of which several homes may have a ledger; its lease says which driver may begin attempts.
"""

import contextlib
import hashlib
import os
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sweeper.ledger import registry, schema
from sweeper.ledger.ingest import take_back, take_in
from sweeper.ledger.lease import Lease
from sweeper.ledger.reader import Records
from sweeper.ledger.registry import Draw, Member
from sweeper.ledger.rows import SweepId, SweepSpec
from trainables import blocks, durable
from trainables.durable import ConflictError, DamagedBlockError
from trainables.errors import InputError
from trainables.layout import Layout, block_of

__all__ = ["ConflictError", "Draw", "Ingested", "Ledger", "Member"]

_OPEN_ATTEMPTS = (
    "SELECT number FROM attempts JOIN attempt_runs ON attempt = number WHERE run = ? AND fence IS NULL"
)

_BEHIND_THE_FENCE = (
    "SELECT attempts.number, fence, COUNT(*) AS taken FROM attempts JOIN blocks ON attempt = attempts.number"
    " WHERE fence IS NOT NULL GROUP BY attempts.number HAVING taken > fence"
)


@dataclass(frozen=True)
class Ingested:
    """The result of `Ledger.ingest`.

    Attributes:
        num_taken: Blocks that are new in the ledger.
        num_stale: Blocks refused because a newer attempt had begun.
        problems: One line for each file that is not valid; later blocks of its attempt are skipped, too.
    """

    num_taken: int
    num_stale: int
    problems: tuple[str, ...]


class Ledger:
    """The only writer of a home's ledger; each method is one transaction, durable on disk when it returns.

    Args:
        path: File of the ledger on a local disk; created if missing, for a storage with results as an index over them.
        storage: Folder of the blocks; machines may share it.
        lease: Lease of the storage; None for a caller that begins no attempts.

    Attributes:
        complaints: Lines to show at the end: blocks that gave a committed point another value, damaged states.

    Raises:
        InputError: The storage belongs to another ledger, or the file is not a ledger or is from a newer version.
    """

    def __init__(self, path: Path, storage: Path, lease: Lease | None = None) -> None:
        self.path = path
        self.storage = storage
        self._lease = lease
        self._layout = Layout(storage)
        self.complaints: list[str] = []
        self._dropped, _ = registry.dropped_states(storage)
        for folder in (path.parent, self._layout.attempts, self._layout.sweeps):
            durable.make_folder(folder)
        self._db = schema.open_for_writing(path)
        self.records = Records(self._db)
        try:
            self._join()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def check_lease(self) -> None:
        """Make sure that no other driver took the storage over.

        Raises:
            LeaseLostError: One did.
        """
        if self._lease:
            self._lease.check()

    def register_sweep(self, sweep: SweepId, spec: SweepSpec, draws: Iterable[Draw]) -> bool:
        """Add what is new in a sweep: draws, seeds, steps, or a reworded question.

        Returns:
            Whether anything was new.

        Raises:
            InputError: A known draw or member has changed, or asks for fewer steps.
        """
        path = self._layout.sweep_record(str(sweep))
        with schema.transaction(self._db):
            before = self._db.total_changes
            registry.add_sweep(self._db, sweep, spec, draws)
            is_new = self._db.total_changes > before
            if is_new or not path.exists():
                durable.write_record(path, registry.sweep_body(self._db, sweep), is_contended=True)
        return is_new

    def rename_sweep(self, sweep: SweepId, label: str) -> SweepId:
        """Give a sweep another label, and return its new identity.

        Raises:
            InputError: Another sweep has it.
        """
        with schema.transaction(self._db):
            new = registry.rename_sweep(self._db, sweep, label)
            durable.write_record(self._layout.sweep_record(str(new)), registry.sweep_body(self._db, new))
        self._delete_record(sweep)
        return new

    def forget_sweep(self, sweep: SweepId) -> None:
        """Remove a sweep; its runs and their results stay, for other sweeps and for when it is registered again."""
        self._delete_record(sweep)  # first, since a sweep with a record is adopted
        with schema.transaction(self._db):
            registry.remove_sweep(self._db, sweep)

    def _delete_record(self, sweep: SweepId) -> None:
        self._layout.sweep_record(str(sweep)).unlink(missing_ok=True)
        durable.sync_folder(self._layout.sweeps)

    def catch_up(self, keys: Iterable[str]) -> None:
        """Add what the attempts at some runs have committed, as far as they are not fenced off.

        Unlike `ingest`, it looks at the files of these attempts alone, so what it costs does not grow with the storage.

        Raises:
            ConflictError: A block contradicts what is committed.
        """
        self._take_all(self._manifests(self._open_attempts(map(self._run, keys))))

    def begin_attempt(self, keys: Iterable[str]) -> int:
        """Begin an attempt at a pack of registered runs, and fence off earlier attempts at any of them.

        Blocks that those have committed so far are added; their later blocks are refused as a whole.

        Returns:
            The number of the attempt, larger than any earlier one in this storage, and given to nobody else.

        Raises:
            ConflictError: A block contradicts what is committed.
            LeaseLostError: Another driver took the storage over.
        """
        self.check_lease()
        now_s = time.time()
        rows = [self._run(key) for key in keys]
        earlier = self._open_attempts(rows)
        for attempt in earlier:  # what is found below stays until the new attempt is recorded
            self._layout.keep(attempt).touch()
        self._take_all(self._manifests(earlier))
        with schema.transaction(self._db):
            number = self._new_number()
            self._fence_off(earlier, now_s)
            self._db.execute("INSERT INTO attempts (number, started_at_s) VALUES (?, ?)", (number, now_s))
            self._db.executemany("INSERT INTO attempt_runs VALUES (?, ?)", [(row, number) for row in rows])
            if self._lease:
                self._lease.begin(number, registry.begun_body(self._db, number, earlier))
            for attempt in (*earlier, number):
                self._record_attempt(attempt)
        for attempt in earlier:
            self._layout.keep(attempt).unlink(missing_ok=True)
        return number

    def end_attempt(self, number: int, outcome: str, error: str = "") -> None:
        """Record how an attempt ended; only the first record counts.

        Args:
            number: Number of the attempt.
            outcome: One of a few words, for example `done`, `stopped`, `failed`, `out of memory`, `lost`.
            error: Text of the error.
        """
        with schema.transaction(self._db):
            self._db.execute(
                "UPDATE attempts SET ended_at_s = ?, outcome = ?, error = ?"
                " WHERE number = ? AND ended_at_s IS NULL",
                (time.time(), outcome, error, number),
            )
            self._record_attempt(number)

    def record_failure(self, key: str, attempt: int, kind: str, message: str) -> None:
        """Record that a run is given up after an attempt; it counts as failed until another attempt at it begins."""
        with schema.transaction(self._db):
            self._db.execute(
                "INSERT INTO failures VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (self._run(key), attempt, kind, message, time.time()),
            )
            self._record_attempt(attempt)

    def record_export(self, path: Path, kind: str, sweeps: Iterable[SweepId]) -> None:
        """Record a file made from the ledger, with a hash of its bytes; its path is stored relative to the ledger's folder.

        Args:
            path: The file.
            kind: For example `front`.
            sweeps: The sweeps whose results it contains.
        """
        name = os.path.relpath(path, self.path.parent)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        with schema.transaction(self._db):
            self._db.execute("INSERT OR REPLACE INTO exports VALUES (?, ?, ?)", (name, sha256, kind))
            self._db.execute("DELETE FROM export_sweeps WHERE path = ?", (name,))
            self._db.executemany(
                "INSERT INTO export_sweeps SELECT ?, id FROM sweeps WHERE (name, scale, label) = (?, ?, ?)",
                [(name, sweep.name, sweep.scale, sweep.label) for sweep in sweeps],
            )

    def take(self, path: Path) -> Literal["taken", "known", "stale"]:
        """Add a committed block, after the earlier blocks of its attempt.

        Returns:
            `taken` if it was added; `known` if it was there already; `stale` if it is refused, since a newer attempt has begun.

        Raises:
            DamagedBlockError: The manifest, or an earlier one of the attempt, is missing or damaged.
            ConflictError: The block contradicts what is committed.
        """
        attempt, index = block_of(path)
        fence, num_known = self._progress(attempt)
        if fence is not None and index >= fence:
            return "stale"
        if index < num_known:
            self._check_known(attempt, index)
            return "known"
        for number in range(num_known, index + 1):
            self._take(attempt, number)
        return "taken"

    def ingest(self) -> Ingested:
        """Add everything that was committed while no driver listened; a driver calls this before it begins attempts.

        Sweeps and attempts are added, too, if a driver wrote their record and then died.

        Raises:
            ConflictError: A block contradicts what is committed.
        """
        self._dropped, _ = registry.dropped_states(self.storage)
        problems, differing = registry.adopt_all(self._db, self.storage)
        if self._lease:
            for number in differing:
                self._record_attempt(number)
        self._take_back()
        found = self._take_all(self._layout.manifests())
        return Ingested(found.num_taken, found.num_stale, (*problems, *found.problems))

    def prune(self) -> int:
        """Delete states of superseded attempts that no run would resume from; return the number of files.

        A worker prunes its own folder (`blocks.prune`); nothing else prunes the folders of workers that are gone.

        Raises:
            LeaseLostError: Another driver took the storage over.
        """
        self.check_lease()
        needed = {(attempt, block) for _, attempt, block in self.records.needed_states()}
        num_deleted = 0
        for path in self._layout.states():
            attempt, index = block_of(path)
            fence, num_known = self._progress(attempt)
            if (attempt, index) not in needed and (index < num_known or fence is not None):
                path.unlink(missing_ok=True)
                num_deleted += 1
        return num_deleted

    def drop_states(self, keys: Iterable[str]) -> int:
        """Delete all states of runs for good, so that further training starts over; return the number of files.

        A file that also holds states of other runs is kept until those are dropped, too.
        """
        keys, newest = set(keys), self._newest_attempt()
        registry.drop_states(self.storage, keys, newest)
        with schema.transaction(self._db):
            registry.forget_states(self._db, dict.fromkeys(keys, newest))
        self._dropped |= dict.fromkeys(keys, newest)
        return self.prune()

    def _join(self) -> None:
        """Check that ledger and storage belong together; a ledger in which nothing is planned joins any storage.

        The identity is that of the storage, of which there may be several ledgers.
        """
        marker = self._layout.marker
        self._db.execute(
            "INSERT INTO identity SELECT ? WHERE NOT EXISTS (SELECT * FROM identity)", (uuid.uuid4().hex,)
        )
        (identity,) = self._db.execute("SELECT ledger FROM identity").fetchone()
        if not marker.exists() and self._newest_attempt() == 0:
            durable.create_record(marker, {"ledger": identity})
        owner = durable.read_record(marker)[0]["ledger"] if marker.exists() else None
        if owner == identity:
            return
        if owner is None or self._newest_attempt() or self.records.sweeps():
            raise InputError(
                f"Storage {self.storage} belongs to another ledger than {self.path}.\n"
                "Choose the right one with --storage, or another home with --home."
            )
        self._db.execute("UPDATE identity SET ledger = ?", (owner,))

    def _newest_attempt(self) -> int:
        (number,) = self._db.execute("SELECT COALESCE(MAX(number), 0) FROM attempts").fetchone()
        return int(number)

    def _new_number(self) -> int:
        """Return a new number of an attempt by creating its folder: of several drivers that try, one succeeds."""
        number = max(self._newest_attempt(), self._layout.newest_attempt())
        while True:
            number += 1
            try:
                self._layout.attempt(number).mkdir()
            except FileExistsError:
                continue
            durable.sync_folder(self._layout.attempts)
            return number

    def _run(self, key: str) -> int:
        found = self._db.execute("SELECT id FROM runs WHERE key = ?", (key,)).fetchone()
        if found is None:
            raise ValueError(f"Run {key} is in no registered sweep.")
        return int(found[0])

    def _fence_off(self, attempts: Iterable[int], now_s: float) -> None:
        """Prevent open attempts from committing more."""
        self._db.executemany(
            "UPDATE attempts SET fence = (SELECT COUNT(*) FROM blocks WHERE attempt = attempts.number),"
            " ended_at_s = COALESCE(ended_at_s, ?), outcome = COALESCE(outcome, 'lost') WHERE number = ?",
            [(now_s, attempt) for attempt in attempts],
        )

    def _record_attempt(self, number: int) -> None:
        """Write the record of an attempt, with what other drivers recorded of it, above all that they fenced it off.

        A driver that lost its lease leaves the record to the one that has it.
        """
        if self._lease and not self._lease.is_held:
            return
        path = self._layout.attempt_record(number)
        with contextlib.suppress(DamagedBlockError):  # none yet, or it is replaced
            registry.adopt_attempt(self._db, durable.read_record(path)[0])
        body = registry.attempt_body(self._db, number)
        durable.write_record(path, body, is_contended=True)

    def _progress(self, attempt: int) -> tuple[int | None, int]:
        """Return the first refused block of an attempt, if any, and the number of blocks that were added."""
        fence = self._db.execute("SELECT fence FROM attempts WHERE number = ?", (attempt,)).fetchone()
        taken = self._db.execute("SELECT COUNT(*) FROM blocks WHERE attempt = ?", (attempt,)).fetchone()
        return fence[0] if fence else None, taken[0]

    def _manifests(self, attempts: Iterable[int]) -> Iterator[Path]:
        """Yield the manifests of attempts, in order within each."""
        return (path for attempt in attempts for path in self._layout.manifests(attempt))

    def _open_attempts(self, rows: Iterable[int]) -> list[int]:
        """Return the attempts at some runs that are not fenced off."""
        return sorted({attempt for row in rows for (attempt,) in self._db.execute(_OPEN_ATTEMPTS, (row,))})

    def _take_all(self, paths: Iterable[Path]) -> Ingested:
        """Add the committed blocks that are new, in order within each attempt."""
        known = dict(self._db.execute("SELECT attempt, COUNT(*) FROM blocks GROUP BY attempt"))
        outcomes: Counter[str] = Counter()
        problems: dict[int, str] = {}
        for path in paths:
            attempt, index = block_of(path)
            if index < known.get(attempt, 0) or attempt in problems:
                continue
            try:
                outcomes[self.take(path)] += 1
            except DamagedBlockError as error:
                problems[attempt] = str(error)
            except ConflictError as error:
                if not problems:
                    raise
                problems[attempt] = f"{error} It is left out, like the damaged blocks that it may follow."
        return Ingested(outcomes["taken"], outcomes["stale"], tuple(problems.values()))

    def _take_back(self) -> None:
        """Remove blocks that were added before another home's driver was found to have fenced off their attempt earlier."""
        for attempt, fence, num_known in self._db.execute(_BEHIND_THE_FENCE).fetchall():
            with schema.transaction(self._db):
                for index in reversed(range(fence, num_known)):
                    manifest = blocks.read_manifest(self._layout.manifest(attempt, index))
                    take_back(self._db, manifest)

    def _take(self, attempt: int, index: int) -> None:
        path = self._layout.manifest(attempt, index)
        manifest = blocks.read_manifest(path)
        with schema.transaction(self._db):
            complaint = take_in(self._db, path, manifest, self._dropped)
            self.complaints += [complaint] if complaint else []
            if self._lease and not self._layout.attempt_record(attempt).exists():
                self._record_attempt(attempt)

    def _check_known(self, attempt: int, index: int) -> None:
        path = self._layout.manifest(attempt, index)
        known = self._db.execute(
            "SELECT sha256 FROM blocks WHERE (attempt, number) = (?, ?)", (attempt, index)
        )
        if known.fetchone() != (blocks.read_manifest(path).sha256,):
            raise ConflictError(f"{path} was rewritten after the ledger had read it.")
