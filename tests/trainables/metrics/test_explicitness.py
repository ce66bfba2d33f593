"""Explicitness against areas counted in pairs, a likelihood maximized by another solver, and closed forms."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize
from scipy.special import logsumexp
from sklearn.metrics import roc_auc_score

from tests.trainables.metrics.test_factor_vae_score import (
    DSPRITES,
    encoding_of,
    few_examples,
    grid,
    random_rows,
)
from trainables.encoding import Encoding
from trainables.errors import InputError
from trainables.metrics import explicitness
from trainables.metrics.estimators.examples import split_rows
from trainables.metrics.explicitness import mean_area

SMALL = (2, 3, 5, 12)


def scores(encoding: Encoding, seed: int = 0) -> dict[str, float]:
    return explicitness.score(encoding, np.random.default_rng(seed))


def explicitness_of(factors_NK: np.ndarray, codes_ND: np.ndarray, discrete: Sequence[int] = ()) -> float:
    return scores(encoding_of(factors_NK, codes_ND, discrete=discrete))["explicitness"]


def mixed_codes(seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return grid(SMALL) / SMALL @ generator.normal(size=(4, 4)) + 0.2 * generator.normal(size=(360, 4))


@pytest.mark.parametrize("decimals", [1, 9])
def test_an_area_is_the_fraction_of_pairs_in_order_and_half_of_the_ties(decimals: int) -> None:
    generator = np.random.default_rng(0)
    value_N = generator.integers(0, 4, 200)
    score_NV = np.round(generator.random((200, 4)) + 0.3 * np.eye(4)[value_N], decimals)
    areas = []
    for value in range(4):
        with_N, rest_N = score_NV[value_N == value, value], score_NV[value_N != value, value]
        areas.append(np.mean([(a > b) + (a == b) / 2 for a in with_N for b in rest_N]))
    assert mean_area(score_NV, value_N) == pytest.approx(np.mean(areas), abs=1e-12)


def test_areas_skip_values_that_do_not_occur() -> None:
    score_NV = np.array([[0.9, 0.5, 0.1], [0.2, 0.5, 0.8], [0.3, 0.5, 0.6]])
    assert mean_area(score_NV, np.array([0, 2, 2])) == 1
    assert mean_area(score_NV, np.array([2, 0, 0])) == 0
    assert mean_area(score_NV, np.array([1, 0, 2])) == pytest.approx((0.5 + 0 + 0.5) / 3)


def test_few_values_are_perfectly_explicit_mixed_or_not() -> None:
    factors_NK = np.repeat(grid((2, 3, 2)), 40, axis=0)
    assert explicitness_of(factors_NK, factors_NK) == 1
    turn_33 = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    assert explicitness_of(factors_NK, factors_NK @ turn_33) == 1


def test_a_perfect_code_of_random_dsprites_scores_its_ceiling() -> None:
    factors_NK = random_rows(DSPRITES, 10_000, np.random.default_rng(0))
    assert explicitness_of(factors_NK, factors_NK) == pytest.approx(0.982, abs=0.003)


def test_constant_codes_score_one_half_and_noise_about_that() -> None:
    assert explicitness_of(grid(SMALL), np.full((360, 3), 0.7)) == 0.5
    generator = np.random.default_rng(0)
    factors_NK = random_rows((2, 3, 6), 6000, generator)
    assert explicitness_of(factors_NK, generator.normal(size=(6000, 4))) == pytest.approx(0.5, abs=0.02)


def test_a_linear_classifier_does_not_see_what_is_not_linear() -> None:
    generator = np.random.default_rng(0)
    bits_N2 = generator.integers(0, 2, (3000, 2))
    different_N1 = (bits_N2[:, :1] != bits_N2[:, 1:]).astype(int)
    assert explicitness_of(different_N1, bits_N2) == pytest.approx(0.5, abs=0.05)
    assert explicitness_of(different_N1, np.column_stack([bits_N2, bits_N2.prod(axis=1)])) == 1


def probability(train_ND: np.ndarray, value_N: np.ndarray, test_ND: np.ndarray) -> np.ndarray:
    """Softmax regression with a penalty of half the squared weights, free biases, minimized by BFGS."""
    num_codes, num_values = train_ND.shape[1], value_N.max() + 1
    onehot_NV = np.eye(num_values)[value_N]

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights_DV = flat.reshape(num_codes + 1, num_values)
        logits_NV = train_ND @ weights_DV[1:] + weights_DV[0]
        error_NV = np.exp(logits_NV - logsumexp(logits_NV, axis=1, keepdims=True)) - onehot_NV
        slope_DV = np.concatenate([error_NV.sum(axis=0)[None], train_ND.T @ error_NV + weights_DV[1:]])
        nats = logsumexp(logits_NV, axis=1).sum() - (onehot_NV * logits_NV).sum()
        return nats + 0.5 * np.square(weights_DV[1:]).sum(), slope_DV.ravel()

    start = np.zeros((num_codes + 1) * num_values)
    best_DV = optimize.minimize(loss, start, jac=True, method="BFGS", options={"gtol": 1e-5}).x.reshape(
        -1, num_values
    )
    logits_NV = test_ND @ best_DV[1:] + best_DV[0]
    found_NV: np.ndarray = np.exp(logits_NV - logsumexp(logits_NV, axis=1, keepdims=True))
    return found_NV


@pytest.mark.parametrize("seed", range(2))
def test_another_solver_of_the_same_likelihood_agrees(seed: int) -> None:
    codes_ND = mixed_codes(seed).astype(np.float32).astype(np.float64)
    factors_NK = grid(SMALL)
    values = scores(encoding_of(factors_NK, codes_ND))
    train, test = split_rows(360, np.random.default_rng(0))
    standard_ND = (codes_ND - codes_ND[train].mean(axis=0)) / codes_ND[train].std(axis=0)
    for k in range(1, 4):
        found_NV = probability(standard_ND[train], factors_NK[train, k], standard_ND[test])
        expected = roc_auc_score(np.eye(SMALL[k])[factors_NK[test, k]], found_NV, average="macro")
        assert 0.5 < expected < 1
        assert values[f"explicitness/factor_{k}"] == pytest.approx(expected, abs=1e-3)


@settings(few_examples, max_examples=6)
@given(
    order=st.permutations(range(4)),
    signs=st.lists(st.sampled_from([-1, 1]), min_size=4, max_size=4),
    exponents=st.lists(st.integers(-20, 20), min_size=4, max_size=4),
    seed=st.integers(0, 1000),
)
def test_order_sign_and_scale_of_the_codes_do_not_matter(
    order: list[int], signs: list[int], exponents: list[int], seed: int
) -> None:
    codes_ND = mixed_codes(seed)
    changed_ND = (codes_ND * signs * np.exp2(exponents))[:, order]
    before, after = (explicitness_of(grid(SMALL), codes) for codes in (codes_ND, changed_ND))
    assert after == pytest.approx(before, abs=1e-3)


@pytest.mark.parametrize("names", [[0, 1, 2, 3, 4], [7, -300, 5, 0, 2]])
def test_a_category_is_explicit_whatever_its_names(names: list[int]) -> None:
    factors_NK = np.repeat(grid((5, 3)), 30, axis=0)
    codes_ND = np.column_stack([np.array(names)[factors_NK[:, 0]], factors_NK[:, 1]])
    assert explicitness_of(factors_NK, codes_ND, discrete=[0]) == 1


def test_values_seen_in_one_part_alone() -> None:
    train, test = split_rows(300, np.random.default_rng(0))
    factors_NK = np.random.default_rng(1).integers(0, 2, (300, 1))
    codes_ND = factors_NK.copy()
    factors_NK[train[:9]] = 3  # never tested: left out
    factors_NK[test[:9]] = 4  # never trained on: its area is 1/2
    codes_ND[test[:9]] = 0
    area_of_1 = roc_auc_score(factors_NK[test, 0] == 1, codes_ND[test, 0])
    area_of_0 = roc_auc_score(factors_NK[test, 0] == 0, -codes_ND[test, 0])
    assert explicitness_of(factors_NK, codes_ND) == pytest.approx(
        (area_of_0 + area_of_1 + 0.5) / 3, abs=1e-12
    )


def test_a_factor_with_one_value_is_left_out() -> None:
    factors_NK = np.repeat(grid((1, 3, 2)), 40, axis=0)
    values = scores(encoding_of(factors_NK, factors_NK))
    assert values == {"explicitness": 1.0, "explicitness/factor_1": 1.0, "explicitness/factor_2": 1.0}
    with pytest.raises(InputError, match="explicitness needs"):
        explicitness_of(factors_NK * 0, factors_NK)
