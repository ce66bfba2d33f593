"""Tidy tables of committed results: runs at their horizon, runs over time, draws over their seeds.

Hyperparameters are columns under their dotted names, with the values of the draw (dtype object). Other columns:
`data` is the recipe of the images; `metric_settings` is the metric's full name, and values are comparable where it is
equal; `numerics` and `code_version` belong to the blocks that trained a run up to its horizon, `mixed` if several.

Shape suffixes: N draws, M objectives, S finished seeds of a draw.
"""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from sweeper.analysis import comparability, pareto, reasons
from sweeper.ledger.reader import Records
from sweeper.ledger.rows import MemberRow, PointColumns, SweepId
from trainables import contracts, plugins
from trainables.config import canonical_json
from trainables.errors import InputError
from trainables.metric_identity import is_current

_SWEEP = ("sweep", "scale", "label", "model")
_RUN = ("draw", "seed", "status")
_VALUE = ("metric", "value", "unit", "metric_settings")
_ORIGIN = ("data", "numerics", "code_version", "step", "run_key")
_COLUMNS = {*_SWEEP, *_RUN, *_VALUE, *_ORIGIN}
_STATISTICS = "train/"


def varying_fields(members: Iterable[MemberRow]) -> set[str]:
    """Return the fields of the models' configurations that differ between runs which have the field."""
    values: dict[str, set[str]] = {}
    alike = {repr(member.spec["fields"]): member.spec["fields"] for member in members}
    for fields in alike.values():
        for name, value in fields.items():
            values.setdefault(name, set()).add(canonical_json(value))
    return {name for name, found in values.items() if len(found) > 1}


def run_tables(records: Records, sweeps: Iterable[SweepId]) -> dict[SweepId, pd.DataFrame]:
    """Return the `run_table` of each sweep, with a column for every field that varies between them."""
    # Read members before points: runs that are done by then have their points, even while a driver writes.
    members = {sweep: records.members(sweep) for sweep in sweeps}
    fields = varying_fields(member for each in members.values() for member in each)
    return {sweep: _run_table(records, sweep, each, fields) for sweep, each in members.items()}


def run_table(records: Records, sweep: SweepId) -> pd.DataFrame:
    """Return one row per run and metric, at the sweep's horizon.

    Every run of the sweep has a row for every metric of the sweep, whatever its status; the value is NaN if none is
    committed at the horizon. If a metric was computed by several versions, the value is from the version that most runs
    have; in a tie, from the current version. Training statistics are not metrics and are left out.

    Args:
        records: The ledger.
        sweep: The sweep.

    Returns:
        Columns sweep, scale, label, model, the hyperparameters, draw, seed, status, metric, value, unit,
        metric_settings, data, numerics, code_version, step (the horizon), run_key; by draw, seed and metric.

    Raises:
        UnknownNameError: The sweep is unknown.
        InputError: A hyperparameter has the name of a column.
    """
    return run_tables(records, [sweep])[sweep]


def _run_table(
    records: Records, sweep: SweepId, members: Sequence[MemberRow], fields: Collection[str]
) -> pd.DataFrame:
    runs, points = _runs(records, sweep, members, fields), _frame_of(records.last_points(sweep))
    last = runs[["run_key", "step"]].drop_duplicates().merge(points, on=["run_key", "step"])
    last = _one_way(last)
    metrics = dict.fromkeys([*records.spec(sweep)["metrics"], *sorted(last["metric"].unique())])
    rows = runs.merge(pd.Series(list(metrics), dtype="str", name="metric"), how="cross")
    return _with_units(rows.merge(last, how="left", on=["run_key", "step", "metric"]))


def curve_table(records: Records, sweep: SweepId) -> pd.DataFrame:
    """Return one row per run, metric and evaluation up to the sweep's horizon; columns and errors as in `run_table`.

    If a metric was computed by several versions at a step, the value is from the version that most points of the sweep
    have, since finished runs are scored by a new version only at their horizon.
    """
    members = records.members(sweep)
    runs, points = _runs(records, sweep, members, varying_fields(members)), _frame_of(records.points(sweep))
    rows = runs.rename(columns={"step": "horizon"}).merge(points, on="run_key")
    rows = rows[rows["step"] <= rows["horizon"]].drop(columns="horizon")
    rows = _one_way(rows)
    return _with_units(rows.sort_values(["draw", "seed", "metric", "step"], ignore_index=True))


def hyperparameters(runs: pd.DataFrame) -> list[str]:
    """Return the names of the hyperparameter columns of a table of runs, sorted."""
    return sorted(set(runs.columns) - _COLUMNS)


def tuples_of(table: pd.DataFrame) -> list[tuple[Any, ...]]:
    """Return the rows of a table, with unchanged values; of columns of strings `itertuples` takes ten times as long."""
    return list(zip(*(table[name].to_numpy(dtype=object) for name in table.columns), strict=True))


def stack(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Concatenate tables of runs of several sweeps; a hyperparameter that a sweep does not have is NaN."""
    return _tidy(pd.concat(tables, ignore_index=True))


def directions(objectives: Sequence[str]) -> tuple[pareto.Direction, ...]:
    """Return whether each objective is minimized or maximized, as its metric defines.

    Raises:
        UnknownNameError: A metric is unknown.
    """
    return tuple(contracts.metric(name).DIRECTION for name in objectives)


def ranges(objectives: Sequence[str]) -> np.ndarray:
    """Return the lowest and highest possible value of each objective, (2, M).

    Raises:
        UnknownNameError: A metric is unknown.
    """
    return np.array([contracts.metric(name).RANGE for name in objectives]).T


def seed_values(runs: pd.DataFrame, objectives: Sequence[str]) -> dict[tuple[str, str, int], np.ndarray]:
    """Return the objectives of the finished runs of each draw, by seed.

    Returns:
        (sweep, label, draw) -> (S, M); draws without a finished run are left out.
    """
    found: dict[tuple[str, str, int], dict[int, dict[str, float]]] = {}
    columns = ["sweep", "label", "draw", "seed", "metric", "value"]
    for *place, seed, metric, value in tuples_of(runs.loc[runs["status"] == "done", columns]):
        sweep, label, draw = place
        found.setdefault((sweep, label, draw), {}).setdefault(seed, {})[metric] = value
    return {
        place: np.array([[seeds[seed][name] for name in objectives] for seed in sorted(seeds)])
        for place, seeds in found.items()
    }


def each_run_once(runs: pd.DataFrame) -> pd.DataFrame:
    """Drop the rows of a `stack` whose run an earlier sweep has at the same step."""
    sweep = runs["sweep"] + "\0" + runs["label"]
    first = sweep.groupby([runs["run_key"], runs["step"]]).transform("first")
    return runs[sweep == first].reset_index(drop=True)


def distinct_draws(runs: pd.DataFrame) -> dict[tuple[str, str, int], int]:
    """Number the draws of several sweeps; draws that share a finished run are the same setting and get the same number.

    Returns:
        (sweep, label, draw) -> number; draws without a finished run are left out.
    """
    number_of: dict[tuple[str, str, int], int] = {}
    places_of_run: dict[str, tuple[str, str, int]] = {}
    done = runs.loc[runs["status"] == "done", ["sweep", "label", "draw", "run_key"]].drop_duplicates()
    for sweep, label, draw, key in tuples_of(done):
        place = (sweep, label, draw)
        number = number_of.setdefault(place, len(number_of))
        other = number_of[places_of_run.setdefault(key, place)]
        if other != number:
            number_of |= {each: min(number, other) for each, n in number_of.items() if n in (number, other)}
    return number_of


def draw_table(
    runs: pd.DataFrame, objectives: Sequence[str], allow_diverged: bool = False
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Summarize draws over their finished seeds, and list the draws that are incomplete or off the fronts.

    A draw with a finished seed is in the first table, judged by the seeds that are done. It is off the fronts if one
    of its seeds diverged, since the mean of the others is too optimistic, or if a mean is not finite. The second table
    lists, with the reason, draws with seeds that are not done and draws that are off the fronts.

    Args:
        runs: A `run_table`, or a `stack` of several.
        objectives: Metrics; their directions are defined in `trainables.metrics`.
        allow_diverged: Judge draws with diverged seeds by their finished ones.

    Returns:
        First, columns sweep, scale, label, model, the hyperparameters, draw, num_seeds (finished), num_diverged; for
        each objective the mean under its name, its 95 % t interval under `_lower` and `_upper`, NaN for one seed;
        is_eligible, on_front, on_model_front; data, metric_settings, numerics, code_version. Second, the same up to
        num_diverged, then num_planned and the reason. Both are sorted by sweep, then by hyperparameters as numbers.

    Raises:
        UnknownNameError: A metric is unknown, or a sweep has not computed it.
        InputError: The runs are not comparable: they differ in scale, data, metric settings, or horizon in the same kind
            of step.
    """
    sense, names = directions(objectives), hyperparameters(runs)
    comparability.check_computed(runs, objectives)
    runs = runs[runs["metric"].isin(objectives)]
    comparability.refuse_mixed(runs)
    groups = [group for _, group in runs.groupby(["sweep", "label", "draw"])]
    rows = in_order([_draw(group, objectives, allow_diverged) for group in groups], names)
    shown = _with_fronts([row for row in rows if row["num_seeds"]], objectives, sense)
    common = [*_SWEEP, *names, "draw", "num_seeds", "num_diverged"]
    estimates = [f"{name}{limit}" for name in objectives for limit in ("", "_lower", "_upper")]
    fronts = ["is_eligible", "on_front", "on_model_front"]
    origin = ["data", "metric_settings", "numerics", "code_version"]
    left_out = [row for row in rows if row["reason"]]
    return (
        _frame(shown, [*common, *estimates, *fronts, *origin], names),
        _frame(left_out, [*common, "num_planned", "reason"], names),
    )


def in_order(rows: Iterable[dict[str, Any]], names: Sequence[str]) -> list[dict[str, Any]]:
    """Sort rows by sweep, then by hyperparameters (numbers as numbers); equal rows keep their order."""
    return sorted(rows, key=lambda row: (row["sweep"], row["label"], *(_rank(row[name]) for name in names)))


def _rank(value: Any) -> tuple[int, Any]:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return 0, 0
    return (1, value) if isinstance(value, int | float) else (2, str(value))


def _runs(
    records: Records, sweep: SweepId, members: Sequence[MemberRow], fields: Collection[str]
) -> pd.DataFrame:
    """Return one row per run of a sweep, with the horizon as its step, and with columns for fields, see `run_table`."""
    shown = {name for member in members for name in fields if name in member.spec["fields"]}
    names = sorted({name for member in members for name in member.params} | shown)
    if clashes := _COLUMNS.union(records.spec(sweep)["metrics"]).intersection(names):
        raise InputError(
            f"Hyperparameter '{min(clashes)}' of sweep {sweep} has the name of a column or metric.\n"
            "Rename the field of the model."
        )
    histories = records.histories(sweep)
    columns = [*_SWEEP, *names, *_RUN, *_ORIGIN]
    rows = []
    for member in members:
        place = (sweep.name, sweep.scale, sweep.label, plugins.shown(contracts.MODELS, member.spec["model"]))
        known = {**member.spec["fields"], **member.params}
        params = [known.get(name, math.nan) for name in names]
        run = (member.draw, member.seed, member.status, member.spec["recipe"])
        history = histories[member.draw, member.seed]
        by = history.numerics, history.code_version
        values = (*place, *params, *run, *by, member.horizon_steps, member.key)
        rows.append(dict(zip(columns, values, strict=True)))
    kinds = {"draw": "int64", "seed": "int64", "step": "int64", "run_key": "str"}
    return _frame(rows, columns, names).astype(kinds)


def _frame_of(points: PointColumns) -> pd.DataFrame:
    """Return a table of points without training statistics."""
    columns = {
        "run_key": pd.Series(points.key, dtype="str"),
        "metric": pd.Series(points.name, dtype="str"),
        "metric_settings": pd.Series(points.identity, dtype="str"),
        "step": pd.Series(points.step, dtype="int64"),
        "time_s": pd.Series(points.time_s, dtype="float64"),
        "value": pd.Series(points.value, dtype="float64"),
    }
    return pd.DataFrame(columns).loc[lambda table: ~table["metric"].str.startswith(_STATISTICS)]


def _one_way(points: pd.DataFrame) -> pd.DataFrame:
    """Keep one point per run, metric and step, in order: of the version with the most points, then the current one.

    So the other runs stay comparable to a run that cannot be scored again because its encoding is damaged.
    """
    if not points.duplicated(["run_key", "metric", "step"]).any():
        return points.sort_index().drop(columns="time_s")
    rank_N = pd.Series(0, points.index)
    for way, alike in points.groupby(["metric", "metric_settings"], sort=False):
        rank_N.loc[alike.index] = 2 * len(alike) + is_current(*map(str, way))
    best = points.assign(rank=rank_N).sort_values(["rank", "time_s"], kind="stable")
    best = best.drop_duplicates(["run_key", "metric", "step"], keep="last")
    return best.sort_index().drop(columns=["rank", "time_s"])


def _with_units(rows: pd.DataFrame) -> pd.DataFrame:
    units = rows["metric"].map({name: _unit(name) for name in rows["metric"].unique()})
    return _tidy(rows.assign(unit=units, metric_settings=rows["metric_settings"].fillna("")))


def _unit(metric: str) -> str:
    """Return the unit of a metric, or of the metric that it is a part of; empty for a metric that no longer exists."""
    name = metric.partition("/")[0]
    is_known = name in contracts.metric_names()
    return contracts.metric(name).UNIT if is_known else ""


def _tidy(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[[*_SWEEP, *hyperparameters(rows), *_RUN, *_VALUE, *_ORIGIN]]


def _frame(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], names: Sequence[str]) -> pd.DataFrame:
    """Build a table whose hyperparameters keep their types: an integer beside a missing value does not become a float."""
    table = pd.DataFrame(list(rows), columns=list(columns), dtype=object)
    return table.astype(table.drop(columns=list(names)).infer_objects().dtypes.to_dict())


def _one(words: pd.Series) -> str:
    """Return the word that all entries share, ignoring empty ones; `mixed` if they differ, empty if all are empty."""
    distinct = set(words.unique()) - {""}
    return "mixed" if len(distinct) > 1 else "".join(distinct)


def metric_settings(runs: pd.DataFrame, metric: str) -> str:
    """Return the full name of a metric in a table of comparable runs; empty if no run is scored."""
    return _one(runs.loc[runs["metric"] == metric, "metric_settings"])


def _draw(group: pd.DataFrame, objectives: Sequence[str], allow_diverged: bool) -> dict[str, Any]:
    """Return the row of one draw, with the columns of both tables except the fronts."""
    runs, done = group.drop_duplicates("seed"), group[group["status"] == "done"]
    statuses = Counter(runs["status"].to_list())
    settings = [_one(done.loc[done["metric"] == name, "metric_settings"]) for name in objectives]
    row: dict[str, Any] = {str(name): value for name, value in runs.iloc[0].items()}
    row |= {
        "num_seeds": statuses["done"],
        "num_planned": len(runs),
        "num_diverged": statuses["diverged"],
        "metric_settings": "; ".join(settings),
        "numerics": _one(done["numerics"]),
        "code_version": _one(done["code_version"]),
    }
    unknown = ""
    for values_SM in seed_values(group, objectives).values():
        unknown = reasons.not_finite(values_SM, objectives, settings)
        for name, *interval in zip(objectives, *pareto.mean_interval(values_SM), strict=True):
            row |= dict(zip((name, f"{name}_lower", f"{name}_upper"), interval, strict=True))
    is_eligible = not unknown and (allow_diverged or not statuses["diverged"])
    return row | {"is_eligible": is_eligible, "reason": reasons.words(statuses, unknown, is_eligible)}


def _with_fronts(
    rows: list[dict[str, Any]], objectives: Sequence[str], sense: Sequence[pareto.Direction]
) -> list[dict[str, Any]]:
    """Add to each draw whether it is on the front of all draws, and on the front of its model."""
    means_NM = np.array([[row[name] for name in objectives] for row in rows]).reshape(-1, len(objectives))
    losses_NM = pareto.to_losses(means_NM, sense)
    losses_NM[[not row["is_eligible"] for row in rows]] = np.nan
    models = np.array([row["model"] for row in rows])
    own_front_N = np.zeros(len(rows), dtype=bool)
    for model in set(models):
        own_front_N[models == model] = pareto.is_non_dominated(losses_NM[models == model])
    marks = zip(rows, pareto.is_non_dominated(losses_NM).tolist(), own_front_N.tolist(), strict=True)
    return [row | {"on_front": on_front, "on_model_front": on_own} for row, on_front, on_own in marks]
