"""SAP against closed forms, its objective minimized by another solver, known ceilings and its invariances."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize

from tests.trainables.metrics.test_factor_vae_score import (
    DSPRITES,
    encoding_of,
    few_examples,
    grid,
    random_rows,
)
from trainables.encoding import Encoding
from trainables.errors import InputError
from trainables.metrics import sap
from trainables.metrics.estimators.examples import split_rows

SMALL = (2, 3, 5, 12)


def scores(encoding: Encoding, seed: int = 0) -> dict[str, float]:
    return sap.score(encoding, np.random.default_rng(seed))


def sap_of(factors_NK: np.ndarray, codes_ND: np.ndarray, discrete: Sequence[int] = ()) -> float:
    return scores(encoding_of(factors_NK, codes_ND, discrete=discrete))["sap"]


def mixed_codes(seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return grid(SMALL) / SMALL @ generator.normal(size=(4, 4)) + 0.2 * generator.normal(size=(360, 4))


def share_of_ones(num_images: int, factor_N: np.ndarray, seed: int = 0) -> float:
    return float(np.mean(factor_N[split_rows(num_images, np.random.default_rng(seed))[1]]))


def test_a_lone_perfect_code_of_a_bit_beats_a_constant() -> None:
    # A constant names one of the two values for all images.
    bits_N = grid((2, 200))[:, :1]
    ones = share_of_ones(400, bits_N[:, 0])
    assert sap_of(bits_N, bits_N) in (pytest.approx(ones, abs=1e-12), pytest.approx(1 - ones, abs=1e-12))
    assert sap_of(bits_N, np.column_stack([-bits_N, 0 * bits_N])) == sap_of(bits_N, bits_N)


def test_a_perfect_code_of_random_dsprites_scores_the_known_ceiling() -> None:
    factors_NK = random_rows(DSPRITES, 15_000, np.random.default_rng(0))
    assert sap_of(factors_NK, factors_NK) == pytest.approx(0.245, abs=0.01)


def test_factors_with_two_codes_and_constant_codes_score_zero() -> None:
    factors_NK = grid(SMALL)
    assert sap_of(factors_NK, np.column_stack([factors_NK, factors_NK])) == 0
    assert sap_of(factors_NK, np.full((360, 3), 0.7)) == 0


def test_a_random_code_scores_what_luck_gives() -> None:
    generator = np.random.default_rng(0)
    factors_NK = random_rows((2, 3, 6), 6000, generator)
    assert 0 <= sap_of(factors_NK, generator.normal(size=(6000, 4))) < 0.02


def machine(code_N: np.ndarray, factor_N: np.ndarray, train: np.ndarray, test: np.ndarray) -> float:
    """Accuracy of an L2-regularized squared-hinge classifier, one against the rest, minimized by BFGS.

    As in liblinear the bias is penalized, and balancing weighs the value in question and not the rest against it; of
    two values, each by its own.
    """
    code_N = (code_N - code_N[train].mean()) / (code_N[train].std() or 1)
    values = sorted(set(factor_N[train].tolist()))
    balance = {v: len(train) / (len(values) * np.sum(factor_N[train] == v)) for v in values}
    margins = []
    for value in values:
        sign_N = np.where(factor_N[train] == value, 1, -1)
        rest = balance[values[1 - values.index(value)]] if len(values) == 2 else 1
        cost_N = 0.01 * np.where(sign_N > 0, balance[value], rest)

        def loss(wb: np.ndarray, sign_N: np.ndarray = sign_N, cost_N: np.ndarray = cost_N) -> float:
            slack_N = np.maximum(0, 1 - sign_N * (wb[0] * code_N[train] + wb[1]))
            cost: float = 0.5 * wb @ wb + cost_N @ slack_N**2
            return cost

        w, b = optimize.minimize(loss, np.zeros(2), tol=1e-9, options={"gtol": 1e-7}).x
        margins.append(w * code_N[test] + b)
    return float(np.mean(np.array(values)[np.argmax(margins, axis=0)] == factor_N[test]))


@pytest.mark.parametrize("seed", range(2))
def test_another_solver_of_the_same_objective_agrees(seed: int) -> None:
    generator = np.random.default_rng(seed)
    factors_NK = random_rows((2, 3, 7), 1200, generator)
    codes_ND = factors_NK @ generator.normal(size=(3, 3)) + 0.5 * generator.normal(size=(1200, 3))
    codes_ND = codes_ND.astype(np.float32).astype(np.float64)
    train, test = split_rows(1200, np.random.default_rng(0))
    values = scores(encoding_of(factors_NK, codes_ND))
    for k in range(3):
        accuracies = sorted(machine(code_N, factors_NK[:, k], train, test) for code_N in codes_ND.T)
        # An image of the 400 may lie on a boundary that two solvers draw 1e-4 apart.
        assert values[f"sap/factor_{k}"] == pytest.approx(accuracies[-1] - accuracies[-2], abs=2.5 / 400)


@few_examples
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
    before, after = (sap_of(grid(SMALL), codes) for codes in (codes_ND, changed_ND))
    assert after == pytest.approx(before, abs=1e-3)


def test_a_category_names_the_value_that_most_often_goes_with_it() -> None:
    factors_NK = np.repeat(grid((3, 4)), 40, axis=0)
    # Labels 9 and -4 both go with value 0; a fourth of label 2 goes with value 2.
    labels_N = np.array([9, 2, 2])[factors_NK[:, 0]]
    labels_N[:80] = -4
    labels_N[::4] = np.array([9, 2, 7])[factors_NK[::4, 0]]
    encoding = encoding_of(factors_NK, np.column_stack([labels_N, np.zeros(480)]), discrete=[0, 1])
    train, test = split_rows(480, np.random.default_rng(0))
    factor_N = factors_NK[:, 0]
    named = {
        label: np.bincount(factor_N[train][labels_N[train] == label], minlength=3).argmax()
        for label in (9, -4, 2, 7)
    }
    right = np.mean(
        [named[label] == value for label, value in zip(labels_N[test], factor_N[test], strict=True)]
    )
    majority = np.bincount(factor_N[train]).argmax()
    expected = right - np.mean(factor_N[test] == majority)
    assert scores(encoding)["sap/factor_0"] == pytest.approx(expected, abs=1e-12)


def test_a_label_unseen_in_training_is_given_the_commonest_value() -> None:
    encoding = encoding_of(np.array([[1]] * 299 + [[0]]), np.zeros((300, 1)))
    train, test = split_rows(300, np.random.default_rng(0))
    factors_NK, labels_N = np.ones((300, 1), dtype=int), np.zeros(300)
    factors_NK[train[:9]] = 0
    factors_NK[test[:9]] = 0
    labels_N[test[9:]] = 5
    encoding = encoding_of(factors_NK, np.column_stack([labels_N, factors_NK]), discrete=[0, 1])
    assert scores(encoding)["sap"] == pytest.approx(9 / 100, abs=1e-12)


def test_factors_that_vary_in_one_part_alone_are_left_out() -> None:
    train, _ = split_rows(360, np.random.default_rng(0))
    factors_NK = grid(SMALL)
    factors_NK[:, 1] = 0
    factors_NK[train[:5], 1] = 1
    assert list(scores(encoding_of(factors_NK, factors_NK))) == [
        "sap",
        "sap/factor_0",
        "sap/factor_2",
        "sap/factor_3",
    ]
    with pytest.raises(InputError, match="sap needs"):
        sap_of(factors_NK[:, 1:2], factors_NK)


def test_scores_are_counts_of_test_images() -> None:
    values = scores(encoding_of(grid(SMALL), mixed_codes(1)))
    for name, value in values.items():
        if name != "sap":
            assert math.isclose(value * 120, round(value * 120), abs_tol=1e-9)
