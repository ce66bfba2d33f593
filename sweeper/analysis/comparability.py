"""Whether runs can be compared: same metrics, scale, data, settings and horizon; how far they were trained, in words."""

import contextlib
from collections.abc import Sequence

import pandas as pd

import search_spaces
from trainables.errors import InputError
from trainables.shell import program


def computed(runs: pd.DataFrame) -> set[str]:
    """Return the metrics that all sweeps of a table have."""
    return set.intersection(*(set(group["metric"].unique()) for _, group in runs.groupby(["sweep", "label"])))


def check_computed(runs: pd.DataFrame, objectives: Sequence[str]) -> None:
    """Check that every sweep has every objective; otherwise a sweep that lacks one would vanish."""
    known = sorted(name for name in computed(runs) if "/" not in name)  # without parts, such as kl/dim_0
    for name in objectives:
        if name not in known:
            raise InputError(
                f"The finished runs have no {name}. Compute it with evaluate --metric {name}.\n"
                f"They have: {', '.join(known)}."
            )


def refuse_mixed(runs: pd.DataFrame) -> None:
    """Reject runs that are not comparable, before a mean or a front hides it."""
    _refuse(runs, "scale", "scale", "Compare sweeps of one scale.")
    _refuse(runs, "data", "data", "Compare sweeps on one data set.")
    for unit, trained in _by_step_unit(runs):
        _refuse(trained, "step", f"number of {unit}s", "Train both sweeps to the same step.")
    refuse_mixed_estimators(
        runs, f"Compute the older values again: {program('sweeper')} evaluate NAME --metric {{metric}}"
    )


def refuse_mixed_estimators(runs: pd.DataFrame, remedy: str) -> None:
    """Reject metrics that were computed by several versions or with several settings.

    Args:
        runs: Rows of one or several tables.
        remedy: What to do; `{metric}` is replaced by the metric's name.

    Raises:
        InputError: The full names of a metric differ.
    """
    for name, scored in runs[runs["value"].notna()].groupby("metric"):
        _refuse(
            scored,
            "metric_settings",
            f"settings of {name}",
            remedy.format(metric=str(name).partition("/")[0]),
        )


def step_unit(runs: pd.DataFrame) -> str:
    """Return the unit of steps of the first of these runs, in the plural, for example `updates`."""
    return f"{_by_step_unit(runs)[0][0]}s"


def training(runs: pd.DataFrame) -> str:
    """Return how far comparable runs were trained, for example `12,000 updates (vae) and 900 generator updates (gan)`."""
    parts = [
        (f"{trained['step'].iloc[0]:,} {unit}s", ", ".join(sorted(trained["model"].unique())))
        for unit, trained in _by_step_unit(runs)
    ]
    return parts[0][0] if len(parts) == 1 else " and ".join(f"{steps} ({models})" for steps, models in parts)


def _by_step_unit(runs: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Group runs by the unit of their sweep's steps; `update` if the sweep's module is gone or invalid."""
    units = dict.fromkeys(runs["sweep"].unique(), "update")
    for name in units:
        with contextlib.suppress(InputError):
            units[name] = search_spaces.load(name).step
    kinds = runs["sweep"].map(units)
    return [(unit, runs[kinds == unit]) for unit in dict.fromkeys(kinds)]


def _refuse(runs: pd.DataFrame, column: str, what: str, remedy: str) -> None:
    different = runs.drop_duplicates(column).sort_values(column)[[column, "sweep", "label"]]
    if len(different) > 1:
        sides = [
            f"{value} (sweep {f'{sweep} {label}'.strip()})" for value, sweep, label in different.to_numpy()
        ]
        raise InputError(f"Not comparable, the runs differ in {what}: {sides[0]} and {sides[1]}.\n{remedy}")
