"""Differences between MLflow and the ledger, as lines of text and as MLflow runs to replace."""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sweeper.ledger.reader import Records
from sweeper.tracking.artifacts import artifacts, outdated
from sweeper.tracking.content import Content, MetricPoint, content
from sweeper.tracking.outline import Entry, Outline, draw_of
from sweeper.tracking.store import Found, Store


def by_worth(runs: Iterable[Found]) -> list[Found]:
    """Sort duplicate runs of an entry, the one to keep first: the one with most metrics, then the lowest id."""
    return sorted(runs, key=lambda run: (-len(run.metrics), run.run_id))


def differences(records: Records, storage: Path, shown: Outline, store: Store) -> list[str]:
    """Compare a sweep in the ledger with the same sweep in MLflow.

    Args:
        records: The ledger.
        storage: Folder of the blocks.
        shown: The sweep as MLflow should have it.
        store: MLflow.

    Returns:
        One line for each MLflow run that is missing, duplicated, not in the ledger, under the wrong parent or with the
        wrong status; for missing or surplus points; and for each file that is missing, out of date, or of the wrong
        size (if its size is known without making it).
    """
    experiment = store.experiment(shown.sweep) if shown.entries else None
    by_entry = defaultdict(list)
    for run in store.runs(experiment, shown.ledger) if experiment else ():
        by_entry[run.entry].append(run)
    ids = {entry: by_worth(runs)[0].run_id for entry, runs in by_entry.items()} | {"": ""}
    lines = []
    for entry in shown.entries:
        runs = by_worth(by_entry.pop(entry.id, []))
        what = content(records, shown, entry)
        problems = list(_problems(what, entry, runs, ids.get(entry.parent), store))
        for run in runs[:1]:
            problems += _file_problems(records, storage, shown, entry, run.run_id, store)
        lines += [f"{shown.sweep}, {entry.level} '{what.name}': {problem}" for problem in problems]
    return lines + [f"{shown.sweep}: '{entry}' is in MLflow but not in the ledger." for entry in by_entry]


def uncommitted(records: Records, shown: Outline, found: Iterable[Found], store: Store) -> list[Found]:
    """Return the MLflow runs that contain points that are not in the ledger; MLflow cannot delete single points.

    The draw of such a run is returned as well, since its means were computed from the run's points. It comes before its
    runs, so that a deletion that is interrupted finds both again.

    Args:
        records: The ledger.
        shown: The sweep as MLflow should have it.
        found: The sweep as MLflow has it.
        store: MLflow.
    """
    entries, found = {entry.id: entry for entry in shown.entries}, list(found)
    wrong = {
        run.entry
        for run in found
        if run.entry not in entries
        or _has_excess(content(records, shown, entries[run.entry]), entries[run.entry], run, store)
    }
    wrong |= {draw_of(entry) for entry in wrong}
    return sorted(
        (run for run in found if run.entry in wrong), key=lambda run: run.entry != draw_of(run.entry)
    )


def _has_excess(what: Content, entry: Entry, run: Found, store: Store) -> bool:
    """Return whether a run has points that are not in the ledger, or a draw has a point that hides a mean."""
    found = _history(run, run.metrics, store)
    if entry.level == "run":
        return not _rows(found) <= _rows(what.points)
    return not _rows(what.points) <= _rows(_latest([*what.points, *found]))


def _problems(
    what: Content, entry: Entry, runs: Sequence[Found], parent_id: str | None, store: Store
) -> Iterator[str]:
    if not runs:
        yield "missing in MLflow."
    if len(runs) > 1:
        yield f"{len(runs)} copies in MLflow: {', '.join(run.run_id for run in runs)}."
    for run in runs[:1]:
        if run.status != what.status:
            yield f"{run.status} in MLflow, but {what.status} in the ledger (run {run.run_id})."
        if run.parent_id != parent_id:
            yield f"not under its parent in MLflow (run {run.run_id})."
        found = _history(run, {point.name for point in what.points}.union(run.metrics), store)
        expected, there = _rows(what.points), _rows(_latest(found) if entry.level == "draw" else found)
        if absent := expected - there:
            yield f"points missing in MLflow: {len(absent)} of {len(expected)} (run {run.run_id})."
        if entry.level == "run" and (excess := there - expected):
            yield f"points in MLflow that are not in the ledger: {len(excess)} (run {run.run_id})."


def _file_problems(
    records: Records, storage: Path, shown: Outline, entry: Entry, run_id: str, store: Store
) -> Iterator[str]:
    expected = artifacts(records, storage, shown, entry)
    if not expected and entry.level != "sweep":
        return
    there = store.artifacts(run_id)
    for artifact in expected:
        num_bytes = there.get(artifact.name)
        if num_bytes is None:
            yield f"{artifact.name} is missing in MLflow (run {run_id})."
        elif artifact.num_bytes not in (None, num_bytes):
            yield f"{artifact.name} has {num_bytes} bytes in MLflow, but {artifact.num_bytes} here (run {run_id})."
    for name in outdated(there, shown, entry):
        yield f"{name} in MLflow is out of date (run {run_id})."


def _history(run: Found, names: Iterable[str], store: Store) -> list[MetricPoint]:
    return [point for name in names for point in store.history(run.run_id, name)]


def _latest(points: Iterable[MetricPoint]) -> Iterable[MetricPoint]:
    """Return the points that MLflow shows; older means, over fewer seeds, stay in the history with earlier dates."""
    return {point[:2]: point for point in sorted(points, key=lambda point: point.time_ms)}.values()


def _rows(points: Iterable[MetricPoint]) -> set[tuple[Any, ...]]:
    """Return points as tuples that compare equal even where values are NaN."""
    return {(*point[:3], None if math.isnan(point.value) else point.value) for point in points}
