"""Data of the metrics figure: how well the metrics of finished runs agree.

Shape suffixes: N runs, M metrics, B bootstrap resamples.
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from sweeper.analysis import front, results
from sweeper.figures.correlation import MAX_MODELS, NUM_RESAMPLES, Agreement, AgreementFigure, resamples
from sweeper.figures.selection import Asked, evaluate_command
from sweeper.scheduling.label_free import needs_factors
from trainables.errors import InputError

_MIN_RUNS = 3


def agreement(asked: Asked, metrics: Sequence[str] = ()) -> AgreementFigure:
    """Compare every pair of metrics over all finished runs.

    Args:
        asked: Sweeps to show.
        metrics: At least two metrics, instead of all scores against ground truth that every sweep has.

    Raises:
        UnknownNameError: A metric is unknown.
        InputError: There are fewer than two metrics, fewer than three runs with finite values, or more than six models;
            or the sweeps are not comparable.
    """
    names = list(dict.fromkeys(metrics)) or _maximized(asked)
    if len(names) < 2:
        commands = "; ".join(evaluate_command(sweep, "mig", asked.home) for sweep in asked.tables)
        remedy = (
            f"Compute more: {commands}"
            if asked.has_factors
            else "Choose two: --metrics recon_error,gaussian_tc"
        )
        raise InputError(
            f"Metrics are compared in pairs, so at least two are needed; found: {', '.join(names) or 'none'}.\n{remedy}"
        )
    asked.check(names)
    values = results.seed_values(asked.runs, names)
    models = {(sweep.name, sweep.label): table["model"].iloc[0] for sweep, table in asked.tables.items()}
    model_N = np.repeat(
        [asked.models.index(models[place[:2]]) for place in values], [len(own) for own in values.values()]
    )
    distinct = asked.distinct_draws
    draw_N = np.repeat([distinct[place] for place in values], [len(own) for own in values.values()])
    values_NM = np.concatenate(list(values.values()))
    finite_N = np.isfinite(values_NM).all(axis=1)
    if finite_N.sum() < _MIN_RUNS or len(asked.models) > MAX_MODELS:
        raise InputError(
            f"{finite_N.sum()} runs of {len(asked.models)} models have finite values of {', '.join(names)}.\n"
            f"A figure takes at least {_MIN_RUNS} runs and at most {MAX_MODELS} models: "
            "train more runs, or choose other sweeps or --metrics."
        )
    values_NM = values_NM[finite_N]
    draw_N = draw_N[finite_N]
    weights_BN = resamples(draw_N, front.generator())
    return AgreementFigure(
        title=f"Agreement of metrics over {len(values_NM)} runs",
        metrics=tuple(names),
        models=tuple(asked.models),
        model_N=model_N[finite_N],
        values_NM=values_NM,
        agreements={
            (i, j): Agreement.from_values(values_NM[:, i], values_NM[:, j], weights_BN)
            for i, j in combinations(range(len(names)), 2)
        },
        caption=_caption(asked, draw_N, int((~finite_N).sum())),
    )


def _maximized(asked: Asked) -> list[str]:
    """Return the shared metrics for which higher is better; only scores against ground truth if the images have it."""
    shared = [name for name in sorted(asked.shared()) if needs_factors(name) or not asked.has_factors]
    senses = zip(shared, results.directions(shared), strict=True)
    return [name for name, sense in senses if sense == "maximize"]


def _caption(asked: Asked, draw_N: np.ndarray, num_left_out: int) -> str:
    seeds = np.unique(draw_N, return_counts=True)[1]
    many = f"{min(seeds)}" if min(seeds) == max(seeds) else f"{min(seeds)} to {max(seeds)}"
    intervals = (
        f" with 95 % percentile intervals over {NUM_RESAMPLES:,} bootstrap resamples of the draws,"
        if len(seeds) > 1
        else ""
    )
    sentences = [
        f"Points: finished runs, each of {len(seeds)} draw{'s' * (len(seeds) > 1)} with {many} seeds, after "
        f"{asked.trained()}.",
        f"Above the diagonal: rank correlations over the runs of all models (Kendall's is tau-b){intervals} and Pearson's "
        "correlation; the darker, the stronger Spearman's.",
    ]
    if num_left_out:
        sentences.append(
            f"Not shown: {num_left_out} run{'s' * (num_left_out > 1)} with a value that is not finite."
        )
    return asked.caption(*sentences)
