"""What is committed, as tidy tables: runs at their horizon, runs over time, draws over their seeds.

Hyperparameters are columns under their dotted names that hold the values as they were drawn (dtype object). Others
that need a word: `data` is the recipe of the images; `metric_settings` the metric's full name, values are comparable
where it is equal; `numerics` and `code_version` are those of the blocks that trained a run up to its horizon,
`mixed` if several.

Shape suffixes: N draws, M objectives, S finished seeds of a draw.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from sweeper.analysis import pareto
from sweeper.ledger.reader import Records
from sweeper.ledger.rows import SweepId
from trainables import plugins
from trainables.errors import InputError, UnknownNameError
from trainables.metric_identity import is_current

_SWEEP = ("sweep", "scale", "label", "model")
_RUN = ("draw", "seed", "status")
_VALUE = ("metric", "value", "unit", "metric_settings")
_ORIGIN = ("data", "numerics", "code_version", "step", "run_key")
_COLUMNS = {*_SWEEP, *_RUN, *_VALUE, *_ORIGIN}
_STATISTICS = "train/"


def run_table(records: Records, sweep: SweepId) -> pd.DataFrame:
    """One row per run and metric, at the sweep's horizon.

    Every run of the sweep is there with every metric of the sweep, whatever its status; the value is NaN where
    none is committed at the horizon. A metric that was computed in several ways, by older versions of it, is what most
    runs have, and of equally many that of today. Training statistics are not metrics and are left out.

    Returns:
        Columns sweep, scale, label, model, the hyperparameters, draw, seed, status, metric, value, unit,
        metric_settings, data, numerics, code_version, step (the horizon), run_key; by draw, seed and metric.

    Raises:
        UnknownNameError: No such sweep.
        InputError: A hyperparameter is called like a column.
    """
    # Members before points: what is done by then has its points, even while a driver writes.
    runs, points = _runs(records, sweep), _points(records, sweep)
    last = runs[["run_key", "step"]].drop_duplicates().merge(points, on=["run_key", "step"])
    last = _one_way(last)
    metrics = dict.fromkeys([*records.spec(sweep)["metrics"], *sorted(last["metric"])])
    rows = runs.merge(pd.Series(list(metrics), dtype="str", name="metric"), how="cross")
    return _with_units(rows.merge(last, how="left", on=["run_key", "step", "metric"]))


def curve_table(records: Records, sweep: SweepId) -> pd.DataFrame:
    """One row per run, metric and evaluation up to the sweep's horizon; columns and errors as of `run_table`.

    A metric that was computed in several ways at a step is what most points of the sweep are, since finished runs are
    scored in a new way at their horizon alone.
    """
    runs, points = _runs(records, sweep).rename(columns={"step": "horizon"}), _points(records, sweep)
    rows = runs.merge(points, on="run_key")
    rows = rows[rows["step"] <= rows["horizon"]].drop(columns="horizon")
    rows = _one_way(rows)
    return _with_units(rows.sort_values(["draw", "seed", "metric", "step"], ignore_index=True))


def hyperparameters(runs: pd.DataFrame) -> list[str]:
    """The hyperparameter columns of a table of runs, sorted."""
    return sorted(set(runs.columns) - _COLUMNS)


def stack(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Tables of runs of several sweeps under one another; what is no hyperparameter of a sweep is NaN there."""
    return _tidy(pd.concat(tables, ignore_index=True))


def directions(objectives: Sequence[str]) -> tuple[pareto.Direction, ...]:
    """Whether each objective is minimized or maximized, as its metric says.

    Raises:
        UnknownNameError: No such metric.
    """
    return tuple(plugins.load("trainables.metrics", name, "metric").DIRECTION for name in objectives)


def ranges(objectives: Sequence[str]) -> np.ndarray:
    """Lowest and highest possible value of each objective, (2, M).

    Raises:
        UnknownNameError: No such metric.
    """
    return np.array([plugins.load("trainables.metrics", name, "metric").RANGE for name in objectives]).T


def seed_values(runs: pd.DataFrame, objectives: Sequence[str]) -> dict[tuple[str, str, int], np.ndarray]:
    """Objectives of the finished runs of each draw, by seed.

    Returns:
        (sweep, label, draw) -> (S, M); draws without a finished run are not there.
    """
    found: dict[tuple[str, str, int], dict[int, dict[str, float]]] = {}
    columns = ["sweep", "label", "draw", "seed", "metric", "value"]
    for *place, seed, metric, value in runs.loc[runs["status"] == "done", columns].itertuples(index=False):
        sweep, label, draw = place
        found.setdefault((sweep, label, draw), {}).setdefault(seed, {})[metric] = value
    return {
        place: np.array([[seeds[seed][name] for name in objectives] for seed in sorted(seeds)])
        for place, seeds in found.items()
    }


def each_run_once(runs: pd.DataFrame) -> pd.DataFrame:
    """Rows of a `stack` without those of runs that an earlier sweep has at the same step."""
    sweep = runs["sweep"] + "\0" + runs["label"]
    first = sweep.groupby([runs["run_key"], runs["step"]]).transform("first")
    return runs[sweep == first].reset_index(drop=True)


def distinct_draws(runs: pd.DataFrame) -> dict[tuple[str, str, int], int]:
    """Number the draws of several sweeps; draws that share a finished run are one hyperparameter setting and get one number.

    Returns:
        (sweep, label, draw) -> number; draws without a finished run are not there.
    """
    number_of: dict[tuple[str, str, int], int] = {}
    places_of_run: dict[str, tuple[str, str, int]] = {}
    done = runs.loc[runs["status"] == "done", ["sweep", "label", "draw", "run_key"]].drop_duplicates()
    for sweep, label, draw, key in done.itertuples(index=False):
        place = (sweep, label, draw)
        number = number_of.setdefault(place, len(number_of))
        other = number_of[places_of_run.setdefault(key, place)]
        if other != number:
            number_of |= {each: min(number, other) for each, n in number_of.items() if n in (number, other)}
    return number_of


def draw_table(
    runs: pd.DataFrame, objectives: Sequence[str], allow_diverged: bool = False
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Draws summarized over their finished seeds, and what is missing of them.

    A draw with a finished seed is in the first table, judged by the seeds that are done. It is off the fronts if one
    of its seeds diverged, since the mean of the others flatters it, or if a mean is not finite. The second table
    lists, with the reason, the draws none of whose seeds is done, whose seeds are not all done, or off the fronts.

    Args:
        runs: A `run_table`, or a `stack` of several.
        objectives: Metrics, of which `trainables.metrics` says the direction.
        allow_diverged: Judge draws with diverged seeds by their finished ones.

    Returns:
        First, columns sweep, scale, label, model, the hyperparameters, draw, num_seeds (finished), num_diverged; of
        each objective the mean under its name, its 95 % t interval under `_lower` and `_upper`, NaN for one seed;
        is_eligible, on_front, on_model_front; data, metric_settings, numerics, code_version. Second, the same up to
        num_diverged, num_planned, and the reason. Both by sweep, then hyperparameters as numbers.

    Raises:
        UnknownNameError: No such metric, or a sweep has not computed it.
        InputError: The runs are of several scales, data, metric settings, or horizons in the same kind of step: they do
            not compare.
    """
    sense, names = directions(objectives), hyperparameters(runs)
    _check_computed(runs, objectives)
    runs = runs[runs["metric"].isin(objectives)]
    _refuse_mixed(runs)
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
    """Rows by sweep, then hyperparameters, numbers as numbers, then in the order that they had."""
    return sorted(rows, key=lambda row: (row["sweep"], row["label"], *(_rank(row[name]) for name in names)))


def _rank(value: Any) -> tuple[int, Any]:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return 0, 0
    return (1, value) if isinstance(value, int | float) else (2, str(value))


def _runs(records: Records, sweep: SweepId) -> pd.DataFrame:
    """One row per run of a sweep, its horizon as step."""
    members = records.members(sweep)
    names = sorted({name for member in members for name in member.params})
    if clashes := _COLUMNS.union(records.spec(sweep)["metrics"]).intersection(names):
        raise InputError(
            f"Hyperparameter '{min(clashes)}' of sweep {sweep} has the name of a column or metric.\n"
            "Rename the field of the model."
        )
    histories = records.histories(sweep)
    columns = [*_SWEEP, *names, *_RUN, *_ORIGIN]
    rows = []
    for member in members:
        place = (sweep.name, sweep.scale, sweep.label, member.spec["model"])
        params = [member.params.get(name, math.nan) for name in names]
        run = (member.draw, member.seed, member.status, member.spec["recipe"])
        history = histories[member.draw, member.seed]
        by = history.numerics, history.code_version
        values = (*place, *params, *run, *by, member.horizon_steps, member.key)
        rows.append(dict(zip(columns, values, strict=True)))
    kinds = {"draw": "int64", "seed": "int64", "step": "int64", "run_key": "str"}
    return _frame(rows, columns, names).astype(kinds)


def _points(records: Records, sweep: SweepId) -> pd.DataFrame:
    points = records.points(sweep)
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
    """One point per run, metric and step, in the order that they had: of the estimator with most points, then today's.

    So a run that cannot be scored anew, whose encoding is damaged, leaves the others comparable to it.
    """
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
    """Unit of a metric, or of the one that it is a part of; none of a metric that is no longer there."""
    name = metric.partition("/")[0]
    is_known = name in plugins.names("trainables.metrics")
    return plugins.load("trainables.metrics", name, "metric").UNIT if is_known else ""


def _tidy(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[[*_SWEEP, *hyperparameters(rows), *_RUN, *_VALUE, *_ORIGIN]]


def _frame(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], names: Sequence[str]) -> pd.DataFrame:
    """A table whose hyperparameters stay what they are: a whole number beside a missing one is no float."""
    table = pd.DataFrame(list(rows), columns=list(columns), dtype=object)
    return table.astype(table.drop(columns=list(names)).infer_objects().dtypes.to_dict())


def _one(words: Iterable[str]) -> str:
    """The word that all are, empty ones aside; `mixed` if they differ, empty if there is none."""
    distinct = set(words) - {""}
    return "mixed" if len(distinct) > 1 else "".join(distinct)


def computed(runs: pd.DataFrame) -> set[str]:
    """Metrics that all sweeps of a table have."""
    return set.intersection(*(set(group["metric"]) for _, group in runs.groupby(["sweep", "label"])))


def _check_computed(runs: pd.DataFrame, objectives: Sequence[str]) -> None:
    """Every sweep has every objective; without this, a sweep that has not would vanish."""
    known = computed(runs)
    for name in objectives:
        if name not in known:
            raise UnknownNameError("objective", name, known, "Valid is what all of these sweeps computed.")


def _refuse_mixed(runs: pd.DataFrame) -> None:
    """Refuse what does not compare, before a mean or a front hides that it was mixed."""
    _refuse(runs, "scale", "scale", "Compare sweeps of one scale.")
    _refuse(runs, "data", "data", "Compare sweeps on one data set.")
    for unit, trained in _by_step_unit(runs):
        _refuse(trained, "step", f"{unit}s", "Train both to the same step.")
    refuse_mixed_estimators(
        runs, "Score the older ones again: python -m sweeper evaluate SWEEP --metric {metric}"
    )


def refuse_mixed_estimators(runs: pd.DataFrame, remedy: str) -> None:
    """Refuse metrics that were not computed in one way.

    Args:
        runs: Rows of one or several tables.
        remedy: What to do, with `{metric}` in it.

    Raises:
        InputError: A metric was computed in several ways.
    """
    for name, scored in runs[runs["value"].notna()].groupby("metric"):
        _refuse(
            scored,
            "metric_settings",
            f"settings of {name}",
            remedy.format(metric=str(name).partition("/")[0]),
        )


def _by_step_unit(runs: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Runs by what a step of their sweep is; that of a sweep whose module is gone is an update."""
    known = plugins.names("search_spaces")
    units = {
        name: plugins.load("search_spaces", name, "sweep").SWEEP.step if name in known else "update"
        for name in runs["sweep"].unique()
    }
    kinds = runs["sweep"].map(units)
    return [(unit, runs[kinds == unit]) for unit in dict.fromkeys(kinds)]


def metric_settings(runs: pd.DataFrame, metric: str) -> str:
    """The full name of a metric in a table of runs that compare; empty where none is scored."""
    return _one(runs.loc[runs["metric"] == metric, "metric_settings"])


def step_unit(runs: pd.DataFrame) -> str:
    """What is counted as a step by the first of these runs, in the plural, for example `updates`."""
    return f"{_by_step_unit(runs)[0][0]}s"


def training(runs: pd.DataFrame) -> str:
    """How far runs that compare were trained, for example `12,000 updates (beta_vae) and 900 generator updates (gan)`."""
    parts = [
        (f"{trained['step'].iloc[0]:,} {unit}s", ", ".join(sorted(set(trained["model"]))))
        for unit, trained in _by_step_unit(runs)
    ]
    return parts[0][0] if len(parts) == 1 else " and ".join(f"{steps} ({models})" for steps, models in parts)


def _refuse(runs: pd.DataFrame, column: str, what: str, remedy: str) -> None:
    different = runs.drop_duplicates(column).sort_values(column)[[column, "sweep", "label"]]
    if len(different) > 1:
        sides = [
            f"{value} (sweep {f'{sweep} {label}'.strip()})" for value, sweep, label in different.to_numpy()
        ]
        raise InputError(f"Not comparable, {what}: {sides[0]} and {sides[1]}.\n{remedy}")


def _draw(group: pd.DataFrame, objectives: Sequence[str], allow_diverged: bool) -> dict[str, Any]:
    """One draw: everything that either table says of it but the fronts."""
    runs, done = group.drop_duplicates("seed"), group[group["status"] == "done"]
    statuses = Counter(runs["status"])
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
    is_finite = True
    for values_SM in seed_values(group, objectives).values():
        is_finite = bool(np.isfinite(values_SM).all())
        for name, *interval in zip(objectives, *pareto.mean_interval(values_SM), strict=True):
            row |= dict(zip((name, f"{name}_lower", f"{name}_upper"), interval, strict=True))
    is_eligible = is_finite and (allow_diverged or not statuses["diverged"])
    return row | {"is_eligible": is_eligible, "reason": _reason(statuses, is_finite, is_eligible)}


def _reason(statuses: Counter[str], is_finite: bool, is_eligible: bool) -> str:
    """Why a draw is not there, not there whole, or off the fronts; nothing otherwise."""
    others = ", ".join(f"{statuses[status]} {status}" for status in sorted(statuses) if status != "done")
    seeds = f"{statuses['done']} of {statuses.total()} seeds done ({others})" if others else ""
    not_finite = "" if is_finite else "an objective is not finite or not committed"
    off = "off the front" if statuses["done"] and not is_eligible else ""
    return "; ".join(filter(None, (seeds, not_finite, off)))


def _with_fronts(
    rows: list[dict[str, Any]], objectives: Sequence[str], sense: Sequence[pareto.Direction]
) -> list[dict[str, Any]]:
    """Draws with whether each is on the front of all of them, and on that of its model."""
    means_NM = np.array([[row[name] for name in objectives] for row in rows]).reshape(-1, len(objectives))
    losses_NM = pareto.to_losses(means_NM, sense)
    losses_NM[[not row["is_eligible"] for row in rows]] = np.nan
    models = np.array([row["model"] for row in rows])
    own_front_N = np.zeros(len(rows), dtype=bool)
    for model in set(models):
        own_front_N[models == model] = pareto.is_non_dominated(losses_NM[models == model])
    marks = zip(rows, pareto.is_non_dominated(losses_NM).tolist(), own_front_N.tolist(), strict=True)
    return [row | {"on_front": on_front, "on_model_front": on_own} for row, on_front, on_own in marks]
