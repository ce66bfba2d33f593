"""The content of an MLflow run: name, status, times, parameters, tags and points.

A run has all its points up to the horizon, with their stored times. A draw has the mean over its seeds for every
metric and step at which all seeds have a value; if a seed diverged, the means end where it did. A mean is dated one
millisecond per seed after the last of its values: the same seeds always give the same point, and more seeds give a
later point, which MLflow shows instead of the old one. `num_seeds` is logged with it. Names with a slash are parts
(`train/loss`, `kl/dim_0`) and are not averaged, since dimension 0 means something else in every seed. At the horizon
the 95 % interval of the mean is logged under `_lower` and `_upper`.

Infinite values become NaN, since MLflow would store 1.8e308. The ledger keeps them.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from sweeper.analysis import pareto
from sweeper.analysis.labels import draw_name
from sweeper.ledger.reader import Records
from sweeper.ledger.rows import PointColumns, RunStatus
from sweeper.tracking.outline import Entry, Outline, Run, ended_at_s, mlflow_status, title
from trainables.config import canonical_json

_MAX_LENGTH = {"name": 250, "param": 6000, "tag": 8000}
"""Maximum lengths of texts; MLflow rejects longer ones or truncates them silently."""

_ENDS: tuple[RunStatus, ...] = ("done", "diverged", "failed")


class MetricPoint(NamedTuple):
    """One value of an MLflow metric."""

    name: str
    step: int
    time_ms: int
    value: float


_Parts = tuple[str, Mapping[str, Any], Mapping[str, Any], str, list[MetricPoint]]


@dataclass(frozen=True)
class Content:
    """The desired content of an MLflow run.

    Attributes:
        name: Name that MLflow shows.
        status: MLflow status.
        start_ms: Start, Unix time.
        end_ms: End, Unix time; None while the run continues.
        params: Parameters, which never change.
        tags: Tags that may change.
        basis: While this stays the same, points are only added.
        points: Points, ordered by step.
    """

    name: str
    status: str
    start_ms: int
    end_ms: int | None
    params: Mapping[str, str]
    tags: Mapping[str, str]
    basis: str
    points: tuple[MetricPoint, ...]


def content(records: Records, outline: Outline, entry: Entry) -> Content:
    """Return the content of an entry, from the points committed so far."""
    name, params, tags, basis, points = _PARTS[entry.level](records, outline, entry)
    begun_s = [run.history.started_at_s for run in entry.runs if run.history.started_at_s is not None]
    end_s = ended_at_s(entry.runs)
    return Content(
        name=_cut(name, "name"),
        status=mlflow_status(entry.runs),
        start_ms=_milliseconds(min(begun_s)),
        end_ms=None if end_s is None else _milliseconds(end_s),
        params={_name(key): _cut(_text(value), "param") for key, value in params.items()},
        tags={_name(key): _cut(_text(value), "tag") for key, value in tags.items()},
        basis=basis,
        points=tuple(sorted(points, key=lambda point: (point.step, point.name, point.time_ms))),
    )


def _of_sweep(records: Records, outline: Outline, entry: Entry) -> _Parts:  # noqa: ARG001
    spec = outline.spec
    statuses = Counter(run.row.status for run in entry.runs)
    description = " ".join(filter(None, (spec.get("question"), spec.get("note"))))
    tags = {
        **({"mlflow.note.content": description} if description else {}),
        "sweeper.num_runs": len(entry.runs),
        **{f"sweeper.num_{status}": statuses[status] for status in _ENDS},
    }
    return title(outline.sweep), {}, tags, "", []


def _of_draw(records: Records, outline: Outline, entry: Entry) -> _Parts:
    row = entry.runs[0].row
    seeds = [run.row.seed for run in entry.runs]
    statuses = Counter(run.row.status for run in entry.runs)
    tags = {
        "sweeper.draw": row.draw,
        "sweeper.num_seeds": len(seeds),
        **{f"sweeper.num_{status}": statuses[status] for status in _ENDS},
    }
    columns = [_up_to(run, records.run_points(run.row.key)) for run in entry.runs]
    values: dict[tuple[int, str], list[tuple[float, float]]] = {}
    for points in columns:
        for name, identity, step, time_s, value in points:
            if "/" not in name:
                shown = outline.names.get((name, identity), name)
                values.setdefault((step, _name(shown)), []).append((value, time_s))
    whole = {place: found for place, found in values.items() if len(found) == len(seeds)}
    horizon = min(run.row.horizon_steps for run in entry.runs)
    return draw_name(row.params, row.draw), row.params, tags, repr(seeds), _means(whole, horizon)


def _means(values: Mapping[tuple[int, str], list[tuple[float, float]]], horizon: int) -> list[MetricPoint]:
    points = []
    last_ms: dict[int, int] = {}
    for (step, name), found in values.items():
        value_S, time_S = np.array(found).T
        mean, lower, upper = map(float, pareto.mean_interval(value_S))
        time_ms = _milliseconds(time_S.max()) + len(found)
        last_ms[step] = max(time_ms, last_ms.get(step, 0))
        points.append(MetricPoint(name, step, time_ms, _finite(mean)))
        if step == horizon and len(found) > 1:
            points.append(MetricPoint(f"{name}_lower", step, time_ms, _finite(lower)))
            points.append(MetricPoint(f"{name}_upper", step, time_ms, _finite(upper)))
    num_seeds = len(next(iter(values.values()), ()))
    points += [MetricPoint("num_seeds", step, time_ms, num_seeds) for step, time_ms in last_ms.items()]
    return points


def _of_run(records: Records, outline: Outline, entry: Entry) -> _Parts:
    (run,) = entry.runs
    row = run.row
    points, identities = [], {}
    for name, identity, step, time_s, value in _up_to(run, records.run_points(row.key)):
        shown = _name(outline.names.get((name, identity), name))
        points.append(MetricPoint(shown, step, _milliseconds(time_s), _finite(value)))
        if identity and "/" not in name:  # a part has the settings of its metric
            identities[f"sweeper.metric.{shown}"] = identity
    tags = {
        "sweeper.draw": row.draw,
        "sweeper.seed": row.seed,
        "sweeper.run_key": row.key,
        "sweeper.status": row.status,
        "sweeper.step": run.step,
        "sweeper.numerics": run.history.numerics or "none",
        "sweeper.code_version": run.history.code_version or "none",
        "sweeper.failure": run.failure or "none",
        **({"sweeper.first_bad_step": row.first_bad_step} if row.status == "diverged" else {}),
        **identities,
    }
    return f"seed {row.seed}, {draw_name(row.params, row.draw)}", _flat(row.spec), tags, "", points


_PARTS = {"sweep": _of_sweep, "draw": _of_draw, "run": _of_run}


def _up_to(run: Run, points: PointColumns) -> list[tuple[str, str, int, float, float]]:
    """Return the points up to the horizon as (metric, identity, step, time, value)."""
    columns = zip(points.name, points.identity, points.step, points.time_s, points.value, strict=True)
    return [point for point in columns if point[2] <= run.row.horizon_steps]


def _flat(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Merge the fields of the model into a run's specification, so that they have the same names as in draws."""
    rest = {name: value for name, value in spec.items() if name != "fields"}
    fields = spec.get("fields", {}).items()
    return rest | {name if name not in rest else f"fields.{name}": value for name, value in fields}


def _name(text: str) -> str:
    """Turn a text into a name that MLflow accepts."""
    return re.sub(r"[^\w./ :-]", "_", text)[: _MAX_LENGTH["name"]]


def _text(value: Any) -> str:
    return value if isinstance(value, str) and value else canonical_json(value)


def _cut(text: str, kind: str) -> str:
    excess = f"... ({len(text)} characters)"
    return text if len(text) <= _MAX_LENGTH[kind] else text[: _MAX_LENGTH[kind] - len(excess)] + excess


def _finite(value: float) -> float:
    return value if math.isfinite(value) else math.nan


def _milliseconds(time_s: float) -> int:
    return round(time_s * 1000)
