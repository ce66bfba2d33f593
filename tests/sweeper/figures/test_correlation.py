"""Correlations of metrics over runs, against scipy and against loops."""

import numpy as np
import pytest
from scipy import stats

from sweeper.figures.correlation import NUM_RESAMPLES, Agreement, resamples


def some(num_runs: int, seed: int, num_values: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Two related metrics; with few values there are ties."""
    generator = np.random.default_rng(seed)
    a_N = generator.normal(size=num_runs)
    b_N = a_N + generator.normal(size=num_runs)
    if num_values:
        a_N, b_N = (np.floor(v_N * num_values) / num_values for v_N in (a_N, b_N))
    return a_N, b_N


@pytest.mark.parametrize("num_values", [None, 1, 2])
@pytest.mark.parametrize("num_runs", [3, 10, 80])
def test_the_correlations_are_those_of_scipy(num_runs: int, num_values: int | None) -> None:
    a_N, b_N = some(num_runs, num_runs + 1, num_values)
    found = Agreement.from_values(a_N, b_N, np.ones((1, num_runs)))
    assert found.spearman.value == pytest.approx(stats.spearmanr(a_N, b_N).statistic, abs=1e-12)
    assert found.kendall.value == pytest.approx(stats.kendalltau(a_N, b_N).statistic, abs=1e-12)
    assert found.pearson == pytest.approx(stats.pearsonr(a_N, b_N).statistic, abs=1e-12)


def test_a_resample_has_the_correlations_of_its_runs_repeated() -> None:
    a_N, b_N = some(12, 0, num_values=2)
    weights_BN = resamples(np.arange(12), np.random.default_rng(5))[:1]
    repeated = np.repeat(np.arange(12), weights_BN[0].astype(int))
    found = Agreement.from_values(a_N, b_N, weights_BN)
    spearman = stats.spearmanr(a_N[repeated], b_N[repeated]).statistic
    kendall = stats.kendalltau(a_N[repeated], b_N[repeated]).statistic
    assert found.spearman[1:] == pytest.approx((spearman, spearman), abs=1e-12)
    assert found.kendall[1:] == pytest.approx((kendall, kendall), abs=1e-12)


def test_the_interval_is_the_middle_95_percent_of_the_resamples() -> None:
    a_N, b_N = some(30, 1)
    weights_BN = resamples(np.arange(30), np.random.default_rng(0))
    assert weights_BN.shape == (NUM_RESAMPLES, 30)
    assert (weights_BN.sum(axis=1) == 30).all()
    taus = []
    for weights_N in weights_BN[:200]:
        repeated = np.repeat(np.arange(30), weights_N.astype(int))
        taus.append(stats.kendalltau(a_N[repeated], b_N[repeated]).statistic)
    found = Agreement.from_values(a_N, b_N, weights_BN[:200]).kendall
    assert (found.lower, found.upper) == pytest.approx(tuple(np.quantile(taus, [0.025, 0.975])), abs=1e-12)
    assert found.lower < found.value < found.upper


def test_the_runs_of_a_draw_are_resampled_together() -> None:
    draw_N = np.array([4, 4, 0, 7, 7, 7])
    weights_BN = resamples(draw_N, np.random.default_rng(0))
    for draw in (0, 4, 7):
        own_BN = weights_BN[:, draw_N == draw]
        assert (own_BN == own_BN[:, :1]).all()
    assert (weights_BN[:, [0, 2, 3]].sum(axis=1) == 3).all()
    assert weights_BN[:, 2].mean() == pytest.approx(1.0, abs=0.15)


def test_independent_metrics_of_clustered_runs_hold_zero_as_often_as_is_said() -> None:
    generator, draw_N, num_trials = np.random.default_rng(0), np.repeat(np.arange(10), 5), 80

    def metric() -> np.ndarray:
        return generator.standard_normal(10)[draw_N] + 0.3 * generator.standard_normal(50)

    found = [
        Agreement.from_values(metric(), metric(), resamples(draw_N, generator)[:200]).spearman
        for _ in range(num_trials)
    ]
    assert np.mean([lower <= 0 <= upper for _, lower, upper in found]) > 0.85


def test_of_a_lone_draw_there_is_no_interval() -> None:
    a_N, b_N = some(5, 0)
    found = Agreement.from_values(a_N, b_N, resamples(np.zeros(5, dtype=int), np.random.default_rng(0)))
    assert np.isfinite(found.spearman.value)
    assert np.isnan([*found.spearman[1:], *found.kendall[1:]]).all()


def test_equal_orders_agree_wholly_and_reversed_ones_not_at_all() -> None:
    a_N = np.arange(9.0)
    weights_BN = resamples(np.arange(9), np.random.default_rng(0))
    same, reverse = (Agreement.from_values(a_N, b_N, weights_BN) for b_N in (np.exp(a_N), -(a_N**3)))
    assert same.spearman == same.kendall == pytest.approx((1, 1, 1))
    assert reverse.spearman == reverse.kendall == pytest.approx((-1, -1, -1))
    assert 0 < same.pearson < 1


def test_a_constant_metric_agrees_with_none() -> None:
    found = Agreement.from_values(
        np.full(5, 0.3), np.arange(5.0), resamples(np.arange(5), np.random.default_rng(0))
    )
    assert np.isnan([*found.spearman, *found.kendall, found.pearson]).all()
