"""Where MLflow differs from the ledger, in lines to read."""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from sweeper._contents import Content, MetricPoint, content
from sweeper._delivering import Found, by_worth
from sweeper._entries import Entry, Outline
from sweeper.records import Records

if TYPE_CHECKING:
    from sweeper.tracking import Store


def differences(records: Records, shown: Outline, store: "Store") -> list[str]:
    """Compare a sweep with what MLflow has of it.

    Args:
        records: The ledger.
        shown: The sweep as MLflow should have it.
        store: MLflow.

    Returns:
        A line for each MLflow run that is missing, doubled, not in the ledger, out of its place, or has a wrong
        status, and for points that are missing or too many.
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
        problems = _problems(what, entry, runs, ids.get(entry.parent), store)
        lines += [f"{shown.sweep}, {entry.level} '{what.name}': {problem}" for problem in problems]
    return lines + [f"{shown.sweep}: MLflow has '{entry}', which the ledger has not." for entry in by_entry]


def _problems(
    what: Content, entry: Entry, runs: list[Found], parent_id: str | None, store: Any
) -> Iterator[str]:
    if not runs:
        yield "missing in MLflow."
    if len(runs) > 1:
        yield f"{len(runs)} times in MLflow: {', '.join(run.run_id for run in runs)}."
    for run in runs[:1]:
        if run.status != what.status:
            yield f"{run.status} in MLflow, {what.status} by the ledger (run {run.run_id})."
        if run.parent_id != parent_id:
            yield f"not under its parent in MLflow (run {run.run_id})."
        names = {point.name for point in what.points}.union(run.metrics)
        found = [point for name in names for point in store.history(run.run_id, name)]
        if entry.level == "draw":
            # Means of fewer seeds stay in the history, dated before those that replaced them.
            found = list(
                {point[:2]: point for point in sorted(found, key=lambda point: point.time_ms)}.values()
            )
        expected, there = _rows(what.points), _rows(found)
        if absent := expected - there:
            yield f"{len(absent)} of {len(expected)} points are missing in MLflow (run {run.run_id})."
        if entry.level == "run" and (excess := there - expected):
            yield f"{len(excess)} points in MLflow are not in the ledger (run {run.run_id})."


def _rows(points: Iterable[MetricPoint]) -> set[tuple[Any, ...]]:
    """Points as values that compare, NaN included."""
    return {(*point[:3], None if math.isnan(point.value) else point.value) for point in points}
