"""Bring an MLflow store up to date with the ledger: search, create what is missing, send what is new."""

import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from sweeper.home import Home
from sweeper.ledger.reader import Records
from sweeper.ledger.rows import SweepId
from sweeper.tracking.artifacts import artifacts, outdated
from sweeper.tracking.content import Content, MetricPoint, content
from sweeper.tracking.diff import by_worth, uncommitted
from sweeper.tracking.outline import Entry, Outline, outline
from sweeper.tracking.store import ENTRY, LEDGER, PARENT, HeldError, Store
from sweeper.tracking.sync_state import Deliveries, Delivery
from trainables.durable import DamagedBlockError
from trainables.locking import holder, sign, try_lock


@contextmanager
def lock_projection(home: Home) -> Iterator[None]:
    """Hold the sync lock of a home; the kernel releases it however the process ends.

    Raises:
        HeldError: Another process holds it.
    """
    with (home.path / "tracking.lock").open("a+") as file:
        if not try_lock(file):
            raise HeldError(
                f"Home {home.path} is being synced by {holder(file)}: wait until it has finished, then try again."
            )
        sign(file)
        yield


class Projection:
    """Delivers a ledger to one store, as its only writer, until something fails.

    Args:
        home: Home with the files.
        records: The ledger.
        deliveries: Record of what the store has.
        store: The store.
        is_anew: Replace MLflow runs that contain points that are not in the ledger; this reads all of their points.
    """

    def __init__(
        self, home: Home, records: Records, deliveries: Deliveries, store: Store, *, is_anew: bool = False
    ) -> None:
        self._home, self._records, self._deliveries, self._store = home, records, deliveries, store
        self._is_anew = is_anew
        self._known: dict[SweepId, dict[str, Delivery]] = {}
        self._experiments: dict[SweepId, str] = {}
        self._lacking: dict[tuple[SweepId, str], tuple[str, list[str]]] = {}

    def catch_up(self, sweeps: Sequence[SweepId] | None) -> list[str]:
        """Deliver what the ledger has and the store lacks.

        After an error, continue with a new object, which searches the store first.

        Args:
            sweeps: Sweeps to deliver, None for all.

        Returns:
            A line for each file that could not be made. Its entry stays pending and is retried once it changes, or by
            another object: files that are gone from the storage will not be back soon.
        """
        for sweep in self._records.sweeps() if sweeps is None else sweeps:
            self._project(outline(self._records, self._home, sweep))
        return [line for _, lines in self._lacking.values() for line in lines]

    def _project(self, shown: Outline) -> None:
        if not shown.entries:
            return
        if shown.sweep not in self._known:
            self._find(shown)
        known = self._known[shown.sweep]
        for entry in shown.entries:
            if entry.id not in known:
                known[entry.id] = self._create(shown, entry, _id(known, entry.parent))
        # Children first, so that a run that is FINISHED in MLflow is complete.
        for entry in reversed(shown.entries):
            parent_id, delivery = _id(known, entry.parent), known[entry.id]
            tried, _ = self._lacking.get((shown.sweep, entry.id), (delivery.state, []))
            if (tried, delivery.parent_id) != (entry.state, parent_id):
                known[entry.id] = self._deliver(shown, entry, delivery, parent_id)
                self._deliveries.put(shown.sweep, known[entry.id])

    def _find(self, shown: Outline) -> None:
        """Search MLflow for the runs of a sweep; recorded runs that are gone or changed are delivered again."""
        sweep = shown.sweep
        experiment = self._store.experiment(sweep) or self._store.make_experiment(sweep)
        found = self._store.runs(experiment, shown.ledger)
        wrong = uncommitted(self._records, shown, found, self._store) if self._is_anew else []
        for run in wrong:
            self._store.delete(run.run_id)
        by_entry = defaultdict(list)
        for run in found:
            if run not in wrong:
                by_entry[run.entry].append(run)
        recorded, known = self._deliveries.of(sweep), {}
        for entry in recorded.keys() - by_entry.keys():
            self._deliveries.drop(sweep, entry)
        for entry, runs in by_entry.items():
            # Duplicates: a creation whose response was lost may take effect after the search that followed.
            kept, *doubles = by_worth(runs)
            for run in doubles:
                self._store.delete(run.run_id)
            old = recorded.get(entry)
            if old and (old.run_id, old.parent_id, old.status) == (kept.run_id, kept.parent_id, kept.status):
                known[entry] = old
            else:
                known[entry] = Delivery.nothing(entry, kept.run_id, kept.parent_id, kept.status)
                self._deliveries.put(sweep, known[entry])
        self._experiments[sweep], self._known[sweep] = experiment, known

    def _create(self, shown: Outline, entry: Entry, parent_id: str) -> Delivery:
        tags = {LEDGER: shown.ledger, ENTRY: entry.id, "sweeper.sweep": str(shown.sweep)}
        tags |= {"sweeper.level": entry.level, **({PARENT: parent_id} if parent_id else {})}
        what = content(self._records, shown, entry)
        run_id = self._store.create(self._experiments[shown.sweep], what, tags)
        return Delivery.nothing(entry.id, run_id, parent_id, "RUNNING")

    def _deliver(self, shown: Outline, entry: Entry, delivery: Delivery, parent_id: str) -> Delivery:
        what = content(self._records, shown, entry)
        tags = dict(what.tags) | ({PARENT: parent_id} if parent_id else {})
        params = {} if delivery.state else what.params
        self._store.log(delivery.run_id, _new_points(delivery, what), params, tags)
        stamps, lines = self._upload(shown, entry, delivery)
        self._lacking.pop((shown.sweep, entry.id), None)
        if lines:
            self._lacking[shown.sweep, entry.id] = entry.state, lines
        if what.status != delivery.status or what.end_ms is not None:
            self._store.set_status(delivery.run_id, what.status, what.end_ms)
        return Delivery(
            entry=entry.id,
            run_id=delivery.run_id,
            parent_id=parent_id,
            status=what.status,
            state="" if lines else entry.state,
            basis=what.basis,
            num_points=len(what.points),
            last_step=what.points[-1].step if what.points else -1,
            artifacts=stamps,
        )

    def _upload(self, shown: Outline, entry: Entry, delivery: Delivery) -> tuple[dict[str, str], list[str]]:
        """Bring the files up to date; return their stamps and a line for each file that could not be made."""
        stamps, lines = dict(delivery.artifacts), []
        if entry.level == "sweep":
            there = stamps if delivery.state else self._store.artifacts(delivery.run_id)
            for name in outdated(there, shown, entry):
                self._store.remove(delivery.run_id, name)
                stamps.pop(name, None)
        for artifact in artifacts(self._records, self._home.storage, shown, entry):
            if stamps.get(artifact.name) == artifact.stamp:
                continue
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder, artifact.name)
                try:
                    artifact.write(path)
                except DamagedBlockError as error:
                    lines.append(f"Cannot make {artifact.name} for {shown.sweep}, {entry.id}: {error}")
                    continue
                self._store.upload(delivery.run_id, path)
            stamps[artifact.name] = artifact.stamp
        return stamps, lines


def _new_points(delivery: Delivery, what: Content) -> Sequence[MetricPoint]:
    """Return the points after the last delivered step if nothing else is new, else all; MLflow skips known points."""
    if delivery.basis == what.basis:
        late = [point for point in what.points if point.step > delivery.last_step]
        if delivery.num_points + len(late) == len(what.points):
            return late
    return what.points


def _id(known: Mapping[str, Delivery], entry: str) -> str:
    return known[entry].run_id if entry else ""
