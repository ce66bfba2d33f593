import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from sweeper.analysis import comparability, reasons, results
from sweeper.ledger.rows import SweepId
from sweeper.ledger.writer import Draw, Ledger, Member
from tests.specs import run_spec, sweep_spec
from trainables.blocks import Manifest, Point, RunEntry, Status, write_block
from trainables.config import StoredSpec, Value
from trainables.errors import InputError, UnknownNameError

GAMMA = SweepId("factorvae_gamma", "laptop")
BETA = SweepId("betavae_beta", "laptop")
GAN = SweepId("infowgan_gp", "laptop")
OBJECTIVES = ("recon_error", "factor_vae_score")
STEPS = 20
SPRITES = "sprites (rendered v1)"

Params = tuple[tuple[str, Value], ...]
"""Hyperparameters of a draw."""
Outcome = tuple[float, ...] | str
"""Objectives of a run at the horizon, or its status."""
Outcomes = Mapping[Params, Mapping[int, Outcome]]
"""Per draw and seed."""


def settings(metric: str, images: int = 1536) -> str:
    return f"{metric}(v1, images={images})"


def train(
    ledger: Ledger,
    sweep: SweepId,
    outcomes: Outcomes,
    *,
    model: str = "factor_vae",
    steps: int = STEPS,
    recipe: str = SPRITES,
    numerics: str = "cpu",
    images: int = 1536,
    code_version: str = "1",
    objectives: Sequence[str] = OBJECTIVES,
    order: Callable[[Iterable[str]], list[str]] = sorted,
    end: int | None = None,
) -> None:
    """Register a sweep and commit its runs.

    `outcomes` has per draw its hyperparameters, a tuple of pairs, and per seed the objectives at the horizon, or a
    status. A second call with more seeds adds them. `end` trains beyond the horizon.
    """
    data = recipe.partition(" ")[0]
    metrics = [*objectives, "kl"]
    spec = sweep_spec(model, objectives=objectives, metrics=metrics, data=data, steps=steps, note="A note.")
    draws = []
    wanted: dict[str, tuple[int, StoredSpec, Outcome]] = {}
    for number, (params, seeds) in enumerate(outcomes.items()):
        members = []
        for seed, outcome in seeds.items():
            key = f"{model} {recipe} {params} {seed}"
            run = run_spec(model, data=data, recipe=recipe, fields=dict(params), seed=seed)
            members.append(Member(key, seed, steps, run))
            wanted[key] = (seed, run, outcome)
        draws.append(Draw(number, dict(params), tuple(members)))
    ledger.register_sweep(sweep, spec, draws)

    def commit(keys: Sequence[str], status: Status, points: Sequence[Point], step: int) -> int:
        attempt = ledger.begin_attempt(keys)
        bad = step if status == "diverged" else None
        runs = [
            RunEntry(key, wanted[key][0], status, step, end or steps, wanted[key][1], bad) for key in keys
        ]
        names = {point.name for point in points if not point.name.startswith("train/")}
        manifest = Manifest(
            attempt=attempt,
            index=0,
            start_step=0,
            end_step=step,
            numerics=numerics,
            code_version=code_version,
            written_at_s=1e9,
            train_s=1.0,
            runs=tuple(runs),
            points=tuple(points),
            metric_identities={name: settings(name, images) for name in names},
        )
        ledger.take(write_block(ledger.storage, manifest, {}))
        return attempt

    def points_of(key: str, at: int) -> list[Point]:
        _, _, outcome = wanted[key]
        assert not isinstance(outcome, str)
        values = dict(zip(objectives, outcome, strict=True)) | {"kl": 3.0, "train/loss": 9.0}
        return [
            Point(key, step, 1e9, name, v + (at - step))
            for step in {10, at, steps}
            for name, v in values.items()
        ]

    done = order(key for key, (_, _, outcome) in wanted.items() if not isinstance(outcome, str))
    if done:
        ledger.end_attempt(
            commit(done, "done", [p for key in done for p in points_of(key, end or steps)], end or steps),
            "done",
        )
    for key, (_, _, outcome) in wanted.items():
        if outcome == "diverged":
            ledger.end_attempt(commit([key], "diverged", [], 7), "done")
        elif outcome == "running":
            commit([key], "running", [Point(key, 10, 1e9, name, 1.0) for name in objectives], 10)
        elif outcome == "failed":
            ledger.record_failure(key, ledger.begin_attempt([key]), "OOM", "too large")


def gamma(value: float) -> Params:
    return (("gamma", value),)


def beta(value: float) -> Params:
    return (("beta", value),)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.db", tmp_path / "storage") as ledger:
        yield ledger


@pytest.fixture
def runs(ledger: Ledger) -> pd.DataFrame:
    """Three draws: (2 -+ 1, .5), (3, .75) which is on the front too, (3, .6) which is not."""
    outcomes = {
        gamma(1.0): {0: (1.0, 0.5), 1: (2.0, 0.5), 2: (3.0, 0.5)},
        gamma(10.0): {0: (3.0, 0.7), 1: (3.0, 0.8)},
        gamma(2.0): {0: (3.0, 0.6)},
    }
    train(ledger, GAMMA, outcomes)
    return results.run_table(ledger.records, GAMMA)


def at(table: pd.DataFrame, **where: object) -> dict[Hashable, Any]:
    """The one row with these values."""
    for name, value in where.items():
        table = table[table[name] == value]
    (row,) = table.to_dict("records")
    return row


def test_the_run_table_has_a_row_for_every_run_and_metric_whatever_became_of_it(ledger: Ledger) -> None:
    train(
        ledger, GAMMA, {gamma(1.0): {0: (8.5, 0.75), 1: "diverged", 2: "running", 3: "failed", 4: "planned"}}
    )
    table = results.run_table(ledger.records, GAMMA)
    assert list(table.columns) == [
        *("sweep", "scale", "label", "model", "gamma", "draw", "seed", "status", "metric", "value", "unit"),
        *("metric_settings", "data", "numerics", "code_version", "step", "run_key"),
    ]
    assert list(zip(table["seed"], table["metric"], strict=True)) == [
        (seed, metric) for seed in range(5) for metric in (*OBJECTIVES, "kl")
    ]
    assert list(table["status"][::3]) == ["done", "diverged", "running", "failed", "planned"]
    assert set(table["step"]) == {STEPS}
    assert table["value"].notna().tolist() == [True] * 3 + [False] * 12
    row = at(table, seed=0, metric="recon_error")
    assert row == {
        "sweep": "factorvae_gamma",
        "scale": "laptop",
        "label": "",
        "model": "factor_vae",
        "gamma": 1.0,
        "draw": 0,
        "seed": 0,
        "status": "done",
        "metric": "recon_error",
        "value": 8.5,
        "unit": "nats per image",
        "metric_settings": settings("recon_error"),
        "data": SPRITES,
        "numerics": "cpu",
        "code_version": "1",
        "step": STEPS,
        "run_key": f"factor_vae {SPRITES} {gamma(1.0)} 0",
    }


def test_the_curve_table_has_every_evaluation_up_to_the_horizon_and_no_training_statistics(
    ledger: Ledger,
) -> None:
    train(ledger, GAMMA, {gamma(1.0): {0: (8.0, 0.5), 1: (9.0, 0.5)}}, end=30)
    table = results.curve_table(ledger.records, GAMMA)
    assert list(table.columns) == list(results.run_table(ledger.records, GAMMA).columns)
    recon = table[table["metric"] == "recon_error"]
    assert list(recon[["seed", "step", "value"]].itertuples(index=False, name=None)) == [
        (0, 10, 28.0),
        (0, 20, 18.0),
        (1, 10, 29.0),
        (1, 20, 19.0),
    ]
    assert set(table["metric"]) == {*OBJECTIVES, "kl"}


def test_runs_that_another_sweep_takes_further_are_read_at_this_sweeps_horizon(ledger: Ledger) -> None:
    longer = SweepId("factorvae_gamma", "laptop", "longer")
    outcomes = {gamma(1.0): {0: (8.0, 0.5)}}
    train(ledger, GAMMA, outcomes)
    before = results.run_table(ledger.records, GAMMA)
    key = f"factor_vae {SPRITES} {gamma(1.0)} 0"
    ledger.register_sweep(
        longer, sweep_spec(metrics=[]), [Draw(0, {"gamma": 1.0}, (Member(key, 0, 40, run_spec()),))]
    )
    entry = RunEntry(key, 0, "done", 40, 40, run_spec())
    point = Point(key, 40, 1e9, "recon_error", 1.0)
    later = Manifest(ledger.begin_attempt([key]), 0, STEPS, 40, "gpu", "2", 1e9, 1.0, (entry,), (point,))
    assert ledger.take(write_block(ledger.storage, later, {})) == "taken"
    assert before.equals(results.run_table(ledger.records, GAMMA))
    (row,) = results.run_table(ledger.records, longer).to_dict("records")
    assert (row["value"], row["step"], row["numerics"], row["code_version"]) == (1.0, 40, "mixed", "mixed")


def test_a_draw_is_the_mean_and_the_t_interval_of_its_seeds(runs: pd.DataFrame) -> None:
    table, left_out = results.draw_table(runs, OBJECTIVES)
    row = at(table, gamma=1.0)
    half_width = stats.t.ppf(0.975, 2) / math.sqrt(3)  # of 1, 2, 3, whose standard deviation is 1
    assert row["recon_error"] == 2.0
    assert row["recon_error_lower"] == pytest.approx(2 - half_width, rel=1e-9)
    assert row["recon_error_upper"] == pytest.approx(2 + half_width, rel=1e-9)
    assert (row["factor_vae_score"], row["factor_vae_score_lower"]) == (0.5, 0.5)
    assert (row["num_seeds"], row["num_diverged"]) == (3, 0)
    lone = at(table, gamma=2.0)
    assert lone["recon_error"] == 3.0
    assert math.isnan(lone["recon_error_lower"])
    assert row["metric_settings"] == f"{settings('recon_error')}; {settings('factor_vae_score')}"
    assert left_out.empty


def test_draws_are_in_the_order_of_their_numbers_and_the_front_is_marked(runs: pd.DataFrame) -> None:
    table, _ = results.draw_table(runs, OBJECTIVES)
    assert list(table["gamma"]) == [1.0, 2.0, 10.0]
    assert list(table["on_front"]) == list(table["on_model_front"]) == [True, False, True]


def test_a_model_has_its_own_front_beside_that_of_all(ledger: Ledger) -> None:
    train(ledger, GAMMA, {gamma(1.0): {0: (1.0, 0.9)}, gamma(2.0): {0: (2.0, 0.8)}})
    train(ledger, BETA, {beta(1): {0: (1.0, 0.7)}, beta(4): {0: (0.5, 0.6)}}, model="beta_vae")
    both = results.stack([results.run_table(ledger.records, sweep) for sweep in (GAMMA, BETA)])
    table, _ = results.draw_table(both, OBJECTIVES)
    assert list(table["model"]) == ["beta_vae"] * 2 + ["factor_vae"] * 2
    assert list(table["on_front"]) == [False, True, True, False]
    assert list(table["on_model_front"]) == [True, True, True, False]
    assert list(table["beta"])[:2] == [1, 4]
    assert isinstance(table["beta"][0], int)
    assert table["gamma"].isna().tolist() == [True, True, False, False]


def test_a_draw_with_a_diverged_seed_is_off_the_front_unless_allowed(ledger: Ledger) -> None:
    train(
        ledger,
        GAMMA,
        {gamma(1.0): {0: (1.0, 0.9), 1: "diverged"}, gamma(2.0): {0: (2.0, 0.8), 1: (2.0, 0.8)}},
    )
    runs = results.run_table(ledger.records, GAMMA)
    table, left_out = results.draw_table(runs, OBJECTIVES)
    assert list(table["on_front"]) == list(table["on_model_front"]) == [False, True]
    assert list(table["recon_error"]) == [1.0, 2.0]
    assert at(table, gamma=1.0)["num_diverged"] == 1
    assert at(left_out, gamma=1.0)["reason"] == "1 of 2 seeds done (1 diverged); off the front"
    table, left_out = results.draw_table(runs, OBJECTIVES, allow_diverged=True)
    assert list(table["on_front"]) == [True, False]
    assert at(left_out, gamma=1.0)["reason"] == "1 of 2 seeds done (1 diverged)"


def test_unfinished_draws_are_judged_by_what_is_done_and_listed(ledger: Ledger) -> None:
    outcomes: Outcomes = {
        gamma(1.0): {0: (1.0, 0.9), 1: "running", 2: "planned", 3: (3.0, 0.9)},
        gamma(2.0): {0: "diverged", 1: "failed"},
        gamma(4.0): {0: (1.0, 0.9)},
    }
    train(ledger, GAMMA, outcomes)
    table, left_out = results.draw_table(results.run_table(ledger.records, GAMMA), OBJECTIVES)
    assert list(table["gamma"]) == [1.0, 4.0]
    assert (at(table, gamma=1.0)["recon_error"], at(table, gamma=1.0)["num_seeds"]) == (2.0, 2)
    assert list(left_out["reason"]) == [
        "2 of 4 seeds done (1 planned, 1 running)",
        "0 of 2 seeds done (1 diverged, 1 failed)",
    ]
    assert list(left_out["num_planned"]) == [4, 2]


def test_an_objective_that_is_nan_keeps_the_draw_off_the_front_and_says_so(ledger: Ledger) -> None:
    train(ledger, GAMMA, {gamma(1.0): {0: (1.0, math.nan), 1: (1.0, 0.9)}, gamma(2.0): {0: (2.0, 0.8)}})
    table, left_out = results.draw_table(
        results.run_table(ledger.records, GAMMA), OBJECTIVES, allow_diverged=True
    )
    assert list(table["on_front"]) == [False, True]
    assert np.isnan(table["factor_vae_score"][0])
    assert list(left_out["reason"]) == ["factor_vae_score is not finite or not committed; off the front"]


def test_an_infinite_objective_is_named_with_the_cause(ledger: Ledger) -> None:
    """As the dependence of codes is on fewer images than codes."""
    images = reasons.not_finite(
        np.array([[1.0, math.inf]]), ["recon_mse", "gaussian_tc"], ["", "gaussian_tc(v2, images=8)"]
    )
    assert images.startswith(
        "gaussian_tc is infinite on 8 images (a code is a linear function of others, as always with no"
    )
    train(ledger, GAMMA, {gamma(1.0): {0: (math.inf, 0.5)}})
    _, left_out = results.draw_table(results.run_table(ledger.records, GAMMA), OBJECTIVES)
    assert list(left_out["reason"]) == ["recon_error is infinite on 1,536 images; off the front"]


def test_seeds_of_two_numerics_classes_make_a_draw_mixed(ledger: Ledger) -> None:
    train(ledger, GAMMA, {gamma(1.0): {0: (1.0, 0.9)}, gamma(2.0): {0: (2.0, 0.9)}})
    train(ledger, GAMMA, {gamma(1.0): {1: (1.0, 0.9)}}, numerics="gpu")
    table, _ = results.draw_table(results.run_table(ledger.records, GAMMA), OBJECTIVES)
    assert list(table["numerics"]) == ["mixed", "cpu"]
    assert list(table["code_version"]) == ["1", "1"]


def refusal(ledger: Ledger, sweep: SweepId = BETA, **how: Any) -> str:
    """Text of the refusal to compare one draw of each model."""
    train(ledger, GAMMA, {gamma(1.0): {0: (1.0, 0.9)}})
    train(ledger, sweep, {beta(1.0): {0: (1.0, 0.9)}}, model="beta_vae", **how)
    both = results.stack([results.run_table(ledger.records, each) for each in (GAMMA, sweep)])
    with pytest.raises(InputError, match=r"^Not comparable, .*\n.*$") as error:
        results.draw_table(both, OBJECTIVES)
    return str(error.value)


def test_mixed_metric_settings_are_refused_and_both_are_named(ledger: Ledger) -> None:
    text = refusal(ledger, images=1000)
    assert "factor_vae_score(v1, images=1000) (sweep betavae_beta)" in text
    assert "factor_vae_score(v1, images=1536) (sweep factorvae_gamma)" in text


def test_mixed_metric_settings_are_refused_inside_a_sweep(ledger: Ledger) -> None:
    train(ledger, GAMMA, {gamma(1.0): {0: (1.0, 0.9)}})
    train(ledger, GAMMA, {gamma(1.0): {1: (1.0, 0.9)}}, images=1000)
    with pytest.raises(InputError, match=r"images=1000.*images=1536"):
        results.draw_table(results.run_table(ledger.records, GAMMA), OBJECTIVES)


def test_mixed_data_are_refused_and_both_are_named(ledger: Ledger) -> None:
    sides = f"data: sprites (official) (sweep betavae_beta) and {SPRITES} (sweep factorvae_gamma)"
    assert sides in refusal(ledger, recipe="sprites (official)")


def test_mixed_scales_are_refused_and_both_are_named(ledger: Ledger) -> None:
    sides = "scale: laptop (sweep factorvae_gamma) and paper (sweep betavae_beta b)"
    assert sides in refusal(ledger, SweepId("betavae_beta", "paper", "b"))


def test_mixed_horizons_are_refused_and_both_are_named(ledger: Ledger) -> None:
    sides = "updates: 15 (sweep betavae_beta) and 20 (sweep factorvae_gamma)"
    assert sides in refusal(ledger, steps=15)


def test_steps_of_different_kinds_need_not_be_equally_many_and_are_both_told(ledger: Ledger) -> None:
    train(ledger, GAMMA, {gamma(1.0): {0: (1.0, 0.9)}})
    train(ledger, GAN, {(("information", 0.0),): {0: (1.0, 0.5)}}, model="info_wgan_gp", steps=7)
    runs = results.stack([results.run_table(ledger.records, sweep) for sweep in (GAMMA, GAN)])
    draws, _ = results.draw_table(runs, OBJECTIVES)
    assert set(draws["model"]) == {"factor_vae", "info_wgan_gp"}
    assert comparability.training(runs) == "20 updates (factor_vae) and 7 generator updates (info_wgan_gp)"
    assert comparability.training(runs[runs["sweep"] == GAMMA.name]) == "20 updates"


def test_an_objective_that_nobody_computed_or_knows_is_unknown(runs: pd.DataFrame, ledger: Ledger) -> None:
    with pytest.raises(UnknownNameError, match=r"Unknown metric 'factor_vae_scor'. Did you mean"):
        results.draw_table(runs, ("recon_error", "factor_vae_scor"))
    with pytest.raises(InputError, match=r"have no recon_mse\. Compute it with evaluate --metric recon_mse"):
        results.draw_table(runs, ("recon_mse", "factor_vae_score"))
    with pytest.raises(UnknownNameError, match="Unknown sweep 'betavae_beta-laptop'"):
        results.run_table(ledger.records, BETA)


def test_a_hyperparameter_named_like_a_column_is_refused(ledger: Ledger) -> None:
    train(ledger, GAMMA, {(("scale", 1.0),): {0: (1.0, 0.9)}})
    with pytest.raises(InputError, match="'scale' of sweep factorvae_gamma-laptop"):
        results.run_table(ledger.records, GAMMA)


def test_a_sweep_without_runs_is_a_table_without_rows(ledger: Ledger) -> None:
    train(ledger, GAMMA, {})
    table = results.run_table(ledger.records, GAMMA)
    assert table.empty
    assert results.curve_table(ledger.records, GAMMA).empty
    train(ledger, BETA, {beta(1.0): {0: (1.0, 0.9)}})
    draws, _ = results.draw_table(results.stack([table, results.run_table(ledger.records, BETA)]), OBJECTIVES)
    assert list(draws["beta"]) == [1.0]
