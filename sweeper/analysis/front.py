"""The answer of one sweep, or of several side by side: fronts as CSV files and plain sentences.

Files contain no time, path, machine id or host name, and floats are written in the shortest form that reads back
exactly: equal results give equal bytes.

Shape suffixes: N draws, M objectives, S finished seeds of a draw.
"""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sweeper import display
from sweeper.analysis import calibration, comparability, labels, pareto, results
from sweeper.home import is_held
from sweeper.ledger.reader import Records
from sweeper.ledger.rows import SweepId
from trainables import durable
from trainables.config import canonical_json
from trainables.errors import InputError

SHARED_RECON = "recon_mse"
"""Reconstruction error that all models have, with or without a likelihood."""

MAX_DRAWS_COVERED = 6
"""Most draws of a model for which the hypervolume's interval was found to cover; with 11 it covered in 67 %, with 25 in 0 to 96 %."""

SEED = 0
"""Seed of every bootstrap, so that a repeated report gives the same numbers."""


@dataclass(frozen=True, eq=False)
class Answer:
    """The answer of one or several sweeps, from their committed runs.

    Attributes:
        sweeps: The sweeps, sorted; all of one scale and data set.
        objectives: Names of metrics.
        runs: Rows of `results.run_table` for the objectives.
        draws: First table of `results.draw_table`, with front_probability: the share of `pareto.bootstrap_front`'s
            resamples in which a draw is on the front of all draws; NaN if the draw may not be on a front.
        left_out: Second table of `results.draw_table`.
        reference_M: Reference point of the hypervolumes, in the objectives' units: `pareto.reference_point` of the
            means of all draws that may be on a front.
        volumes: Model -> hypervolume of the front of its means, and the ends of its 95 % bootstrap interval.
        resampled: Model -> bootstrap of its draws that may be on a front; models without such draws are missing.
        levels: Objective -> reference lines, see `calibration.levels`; empty if the data set was not calibrated.
        question: Questions of the sweeps.
        note: Sentences that belong to every picture of these sweeps.
    """

    sweeps: tuple[SweepId, ...]
    objectives: tuple[str, ...]
    runs: pd.DataFrame
    draws: pd.DataFrame
    left_out: pd.DataFrame
    reference_M: np.ndarray
    volumes: Mapping[str, tuple[float, float, float]]
    resampled: Mapping[str, pareto.BootstrapFront]
    levels: Mapping[str, tuple[tuple[str, float], ...]]
    question: str
    note: str


def answer(
    records: Records,
    sweeps: Sequence[SweepId],
    *,
    allow_diverged: bool = False,
    objectives: Sequence[str] = (),
    home: Path | None = None,
) -> Answer:
    """Answer sweeps from their committed runs.

    Args:
        records: The ledger.
        sweeps: Sweeps to answer, at least one.
        allow_diverged: Judge draws with diverged seeds by their finished ones, instead of keeping them off the fronts.
        objectives: Metrics to use instead of the sweeps' own objectives.
        home: Home whose calibrations are used.

    Raises:
        UnknownNameError: A sweep or metric is unknown, or a sweep has not computed the metric.
        InputError: The sweeps are not comparable, or none has a finished run.
    """
    sweeps = sorted(set(sweeps), key=str)
    runs = results.stack(list(results.run_tables(records, sweeps).values()))
    if not (runs["status"] == "done").any():
        raise _nothing_yet(records, sweeps, home)
    asked = {sweep: labels.words(records, sweep) for sweep in sweeps}
    own = {sweep: tuple(words["objectives"]) for sweep, words in asked.items()}
    chosen = tuple(objectives) or _agreed(own, comparability.computed(runs))
    draws, left_out = results.draw_table(runs, chosen, allow_diverged)
    reference_M, probability_N, volumes, resampled = _bootstrap(runs, draws, chosen)
    calibrated = calibration.references(home, runs["data"].iloc[0]) if home else {}
    return Answer(
        sweeps=tuple(sweeps),
        objectives=chosen,
        runs=runs[runs["metric"].isin(chosen)],
        draws=draws.assign(front_probability=probability_N),
        left_out=left_out,
        reference_M=reference_M,
        volumes=volumes,
        resampled=resampled,
        levels={name: calibration.levels(calibrated, results.metric_settings(runs, name)) for name in chosen},
        question=" ".join(dict.fromkeys(words["question"] for words in asked.values())),
        note=" ".join(dict.fromkeys(words["note"] for words in asked.values() if words["note"])),
    )


def _nothing_yet(records: Records, sweeps: Sequence[SweepId], home: Path | None) -> InputError:
    lines = []
    for sweep in sweeps:
        found = ", ".join(f"{count} {status}" for status, count in sorted(records.counts(sweep).items()))
        lines.append(f"Sweep {sweep} has no finished run yet ({found or 'no runs'}).")
    first = sweeps[0]
    where = {"scale": first.scale, "label": first.label, "home": home}
    if home and is_held(home):
        return InputError(
            f"{' '.join(lines)}\nIt is training: {display.command('status', first.name, **where)}"
        )
    return InputError(f"{' '.join(lines)}\nTrain first: {display.command('run', first.name, **where)}")


def _agreed(objectives: Mapping[SweepId, Sequence[str]], computed: set[str]) -> tuple[str, ...]:
    """Return common objectives of sweeps: their own if they agree, else with the reconstruction error of all models.

    Args:
        objectives: Objectives of each sweep.
        computed: Metrics that all sweeps have.
    """
    (first, chosen), *others = objectives.items()
    for sweep, other in others:
        if tuple(other) != tuple(chosen):
            shared = (SHARED_RECON, *chosen[1:])
            if all(each[1:] == chosen[1:] for each in objectives.values()) and computed.issuperset(shared):
                return shared
            raise InputError(
                f"Sweep {first} has the objectives {', '.join(chosen)}; sweep {sweep} has {', '.join(other)}.\n"
                "Choose common ones, for example: --objectives recon_mse,factor_vae_score"
            )
    return tuple(chosen)


def _bootstrap(
    runs: pd.DataFrame, draws: pd.DataFrame, objectives: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray, dict[str, tuple[float, float, float]], dict[str, pareto.BootstrapFront]]:
    """Return reference point (in the objectives' units), front probabilities, and hypervolumes and resamples by model."""
    sense, values = results.directions(objectives), results.seed_values(runs, objectives)
    eligible_N = draws["is_eligible"].to_numpy(dtype=bool)
    shown, probability_N = draws[eligible_N], np.full(len(draws), np.nan)
    # Draws of two sweeps that share runs are one draw: resampled separately they would compete. The one with the most
    # seeds represents them all.
    distinct = results.distinct_draws(runs)
    numbers = [distinct[place] for place in places(shown)]
    every = [pareto.to_losses(values[place], sense) for place in places(shown)]
    losses = pareto.by_distinct_draw(every, numbers)
    means = {number: losses_SM.mean(axis=0) for number, losses_SM in losses.items()}
    reference_M = pareto.reference_point(_rows_of(means, objectives))
    limits_2M = np.sort(pareto.to_losses(results.ranges(objectives), sense), axis=0)
    # Equal draws are resampled equally, so the resamples of a lone model are those of all draws.
    resampled_of = cache(lambda *own: _resampled([losses[n] for n in own], reference_M, limits_2M))
    if losses:
        of_all = resampled_of(*losses)
        membership = dict(zip(losses, of_all.membership_N, strict=True))
        probability_N[eligible_N] = [membership[number] for number in numbers]
    volumes, resampled = {}, {}
    for model in sorted(set(shown["model"])):
        own = dict.fromkeys(n for n, other in zip(numbers, shown["model"], strict=True) if other == model)
        resampled[model] = resampled_of(*own)
        interval = resampled[model].hypervolume_interval()
        volume = pareto.hypervolume(_rows_of({n: means[n] for n in own}, objectives), reference_M)
        volumes[model] = (volume, *interval)
    return pareto.to_losses(reference_M, sense), probability_N, volumes, resampled


def _rows_of(means: Mapping[int, np.ndarray], objectives: Sequence[str]) -> np.ndarray:
    return np.array(list(means.values())).reshape(-1, len(objectives))


def _resampled(
    losses: Sequence[np.ndarray], reference_M: np.ndarray, limits_2M: np.ndarray
) -> pareto.BootstrapFront:
    return pareto.bootstrap_front(losses, reference_M, generator(), limits_2M=limits_2M)


def generator() -> np.random.Generator:
    """Return a new random generator for a bootstrap."""
    return np.random.Generator(np.random.PCG64(SEED))


def band(answer: Answer, model: str) -> pareto.Band:
    """Return the band of a model's front, in losses of two objectives; inf (unknown) if a draw on the front has one seed.

    Args:
        answer: Answer with two objectives.
        model: A model with a draw that may be on a front.
    """
    found = pareto.front_band(answer.resampled[model].means_BNM)
    on_front = answer.draws[(answer.draws["model"] == model) & answer.draws["on_model_front"]]
    is_known = not (on_front["num_seeds"] == 1).any()  # the spread of a single seed is unknown
    return found if is_known else found._replace(losses_QG=np.full_like(found.losses_QG, np.inf))


def places(draws: pd.DataFrame) -> list[tuple[str, str, int]]:
    """Return sweep, label and number of each draw of a table."""
    return results.tuples_of(draws[["sweep", "label", "draw"]])


def write_csv(answer: Answer, path: Path) -> Path:
    """Write the draws with a finished seed, one per row, by sweep and hyperparameters.

    Columns: sweep, scale, label (if a sweep has one), model, the hyperparameters of all sweeps (empty if the sweep does
    not have one), num_seeds, num_diverged, each objective with its 95 % limits, on_front (of all sweeps here),
    on_model_front, data, metric_settings, numerics, code_version.
    """
    return _write_table(answer, answer.draws.drop(columns=["draw", "is_eligible", "front_probability"]), path)


def write_left_out(answer: Answer, path: Path) -> Path:
    """Write `answer.left_out` to `<stem>_left_out.csv` beside a file of `write_csv`; only a header if it is empty."""
    beside = path.with_name(f"{path.stem}_left_out.csv")
    return _write_table(answer, answer.left_out.drop(columns="draw"), beside)


def write_runs(answer: Answer, path: Path) -> Path:
    """Write one row per run and objective, from which everything in `write_csv` can be computed again."""
    rows = results.in_order(rows_of(answer.runs), results.hyperparameters(answer.runs))
    return _write_table(answer, pd.DataFrame(rows, columns=answer.runs.columns, dtype=object), path)


def rows_of(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table as dictionaries with unchanged values."""
    return [dict(zip(table.columns, row, strict=True)) for row in results.tuples_of(table)]


def _write_table(answer: Answer, table: pd.DataFrame, path: Path) -> Path:
    if not any(sweep.label for sweep in answer.sweeps):
        table = table.drop(columns="label")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows(map(_cell, row) for row in results.tuples_of(table))
    return durable.replace_file(path, text.getvalue().encode())


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else repr(float(value))
    return canonical_json(value) if isinstance(value, list | dict) else str(value)


def label_of(answer: Answer, row: Mapping[str, Any]) -> str:
    """Return the label of a draw: its hyperparameters, and its sweep if several sweeps have the model."""
    values = {name: row[name] for name in results.hyperparameters(answer.runs)}
    given = ", ".join(labels.hyperparameter(name, v) for name, v in values.items() if _cell(v))
    of_model = answer.runs[answer.runs["model"] == row["model"]]
    asked = set(results.tuples_of(of_model[["sweep", "label"]].drop_duplicates()))
    return f"{given} ({labels.told_apart(row['sweep'], row['label'], asked)})" if len(asked) > 1 else given


def summary(answer: Answer) -> list[str]:
    """Return the answer as plain sentences for a terminal."""
    run, draws = answer.runs.iloc[0], answer.draws
    front = draws[draws["on_front"]].sort_values(answer.objectives[0], kind="stable")
    scope = f"{run['scale']} scale, {comparability.training(answer.runs)} on {run['data']}"
    none = "none; every draw has a diverged seed or an objective that is not finite"
    shown = "; ".join(_on_front(answer, row) for row in rows_of(front)) or none
    sentences = [f"Front of {len(draws)} draw{'s' * (len(draws) != 1)} ({scope}): {shown}."]
    if answer.volumes:
        point = ", ".join(map(labels.quantity, answer.objectives, answer.reference_M))
        volumes = [
            f"{f'{model} {labels.number(v[0])} {labels.limits(*v[1:])}'.strip()}"
            for model, v in answer.volumes.items()
        ]
        sentences.append(f"Hypervolume against reference ({point}): {', '.join(volumes)}.")
        if draws["model"].value_counts().max() > MAX_DRAWS_COVERED:
            sentences.append(
                f"With more than {MAX_DRAWS_COVERED} draws of a model, its hypervolume is too large and the interval"
                " covers the truth less often than in 95 % of cases: do not compare models by it."
            )
    if len(classes := set(answer.runs["numerics"].unique()) - {""}) > 1 or "mixed" in classes:
        sentences.append(
            "Runs were trained in several numerics classes, between which the last bits of a run may differ"
            " (column numerics of pareto --csv and export)."
        )
    sentences += [
        f"{row['model']} {label_of(answer, row)}: {row['reason']}." for row in rows_of(answer.left_out)
    ]
    return [*sentences, answer.note] if answer.note else sentences


def _on_front(answer: Answer, row: Mapping[str, Any]) -> str:
    limits = {name: labels.limits(row[f"{name}_lower"], row[f"{name}_upper"]) for name in answer.objectives}
    said = [labels.quantity(name, row[name], text) for name, text in limits.items()]
    said += [
        *([f"P(front) {row['front_probability']:.2f}"] if row["num_seeds"] > 1 else []),
        f"{row['num_seeds']} seed{'s' * (row['num_seeds'] != 1)}",
    ]
    return f"{row['model']} {label_of(answer, row)} ({', '.join(said)})"
