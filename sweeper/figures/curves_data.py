"""Data of the curves figure: metrics of sweeps over training.

Shape suffixes: S seeds, T steps.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from sweeper import display
from sweeper.analysis import comparability, labels, results
from sweeper.figures.curves import MAX_LISTED, Column, CurveFigure, Line
from sweeper.figures.selection import RECON, Asked
from sweeper.figures.style import LEVELS_CAPTION
from sweeper.ledger.rows import SweepId
from trainables import contracts
from trainables.errors import InputError

_UNLIKE = (
    "Evaluations during training cannot be repeated: choose --metrics other than {metric}, "
    "or train in another --home."
)


def curves(asked: Asked, metrics: Sequence[str] = ()) -> CurveFigure:
    """Collect metrics against steps: means over the seeds of each draw with 95 % t intervals.

    A line averages the seeds that are done or diverged, as far as all of them were evaluated: it ends where the first
    one diverged, since the mean of the others is too optimistic. Draws without a finished seed are not shown.

    Args:
        asked: Sweeps to show.
        metrics: Metrics of the rows, instead of the reconstruction error and the two scores, if all sweeps have them.

    Raises:
        UnknownNameError: A metric is unknown.
        InputError: A sweep evaluated a metric at fewer than two steps, or the sweeps are not comparable.
    """
    tables = {sweep: _ended(results.curve_table(asked.records, sweep)) for sweep in asked.tables}
    tracked = {sweep: _tracked(table) for sweep, table in tables.items()}
    shared = set.intersection(*tracked.values())
    recon = next((name for name in RECON if name in shared), "")
    paper = dict.fromkeys([recon, "beta_vae_score", "factor_vae_score", *asked.objectives])
    rows = list(dict.fromkeys(metrics)) or [name for name in paper if name in shared]
    for sweep, known in tracked.items():
        for name in rows or asked.objectives:
            contracts.check_metrics([name])
            if name not in known:
                valid = f"Valid --metrics: {', '.join(sorted(known))}."
                more = "Train a variant that is evaluated more often, for example with --set evaluate_every=1000 --as curves."
                raise InputError(
                    f"Sweep {sweep} evaluated {name} at fewer than two steps, so it has no curve.\n"
                    f"{valid if known else more}"
                )
    asked.check(rows)
    evaluated = results.stack(list(tables.values()))
    comparability.refuse_mixed_estimators(evaluated[evaluated["metric"].isin(rows)], _UNLIKE)
    shown = {sweep: _draws(asked.tables[sweep]) for sweep in tables}
    columns = tuple(_column(asked, sweep, draws, tables[sweep], rows) for sweep, draws in shown.items())
    levels = tuple(asked.levels(name, evaluated) for name in rows)
    return CurveFigure(
        title=asked.title(f"Training curves: {', '.join(asked.models)}"),
        rows=tuple(map(labels.axis, rows)),
        columns=columns,
        caption=_caption(asked, shown, has_levels=any(levels)),
        levels=levels,
    )


def _ended(table: pd.DataFrame) -> pd.DataFrame:
    """Return the runs of a table that are done or diverged."""
    return table[table["status"].isin(["done", "diverged"])]


def _tracked(table: pd.DataFrame) -> set[str]:
    """Return the metrics, without parts, that a table of curves has at several steps."""
    num_steps = table[table["value"].notna()].groupby("metric")["step"].nunique()
    return set(num_steps[num_steps > 1].index) & set(contracts.metric_names())


@dataclass(frozen=True)
class _Draw:
    """A draw with a finished seed, and its seeds that are done or diverged."""

    number: int
    texts: Mapping[str, str]
    seeds: tuple[int, ...]
    has_diverged: bool


def _draws(table: pd.DataFrame) -> list[_Draw]:
    """Return the draws of a table of runs that have a finished seed, sorted by hyperparameters as numbers."""
    names = results.hyperparameters(table)
    runs = _ended(table).drop_duplicates("run_key")
    first = runs[runs["status"] == "done"].drop_duplicates("draw").to_dict("records")
    found = []
    for row in results.in_order([{str(name): value for name, value in row.items()} for row in first], names):
        own = runs[runs["draw"] == row["draw"]]
        texts = {name: display.typed_value(row[name]) for name in names}
        found.append(_Draw(row["draw"], texts, tuple(own["seed"]), "diverged" in set(own["status"])))
    return found


def _column(
    asked: Asked, sweep: SweepId, draws: Sequence[_Draw], table: pd.DataFrame, metrics: Sequence[str]
) -> Column:
    names = list(draws[0].texts)
    differing = [name for name in names if len({draw.texts[name] for draw in draws}) > 1] or names
    return Column(
        heading=asked.heading(sweep),
        unit=comparability.step_unit(asked.tables[sweep]),
        hyperparameters=", ".join(differing),
        labels=tuple(", ".join(draw.texts[name] for name in differing) for draw in draws),
        lines=tuple(tuple(_line(table, metric, draw) for draw in draws) for metric in metrics),
    )


def _line(table: pd.DataFrame, metric: str, draw: _Draw) -> Line:
    own = table[(table["draw"] == draw.number) & (table["metric"] == metric)]
    values = own.set_index(["seed", "step"])["value"].unstack("step")  # noqa: PD010
    whole = values.reindex(list(draw.seeds)).dropna(axis=1)
    return Line.from_seeds(whole.columns.to_numpy(), whole.to_numpy(dtype=np.float64))


def _caption(asked: Asked, shown: Mapping[SweepId, Sequence[_Draw]], *, has_levels: bool) -> str:
    draws = [draw for of_sweep in shown.values() for draw in of_sweep]
    num_seeds = [len(draw.seeds) for draw in draws]
    sentences = [f"Lines: {_means_of(num_seeds)}, up to {asked.trained()}."]
    if max(num_seeds) > 1:
        sentences.append("Shaded: 95 % Student t intervals of the means.")
    if has_levels:
        sentences.append(LEVELS_CAPTION)
    if num_diverged := sum(draw.has_diverged for draw in draws):
        sentences.append(f"Lines of draws with a seed that diverged ({num_diverged}) end before it did.")
    if num_hidden := sum(table["draw"].nunique() for table in asked.tables.values()) - len(draws):
        sentences.append(f"Not shown: {num_hidden} draw{'s' * (num_hidden > 1)} without a finished seed.")
    crowded = {sweep: len(of_sweep) for sweep, of_sweep in shown.items() if len(of_sweep) > MAX_LISTED}
    if crowded:
        parts = [
            f"{MAX_LISTED} of the {count} draws of {asked.heading(sweep)}" for sweep, count in crowded.items()
        ]
        sentences.append(f"The legend lists {' and '.join(parts)}.")
    return asked.caption(*sentences)


def _means_of(num_seeds: Sequence[int]) -> str:
    low, high = min(num_seeds), max(num_seeds)
    if high == 1:
        return "one seed each, which says nothing about the spread"
    return f"means of {low} seeds" if low == high else f"means of {low} to {high} seeds"
