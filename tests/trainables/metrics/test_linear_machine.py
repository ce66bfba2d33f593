"""Linear machines of single codes against LinearSVC, which they stand in for."""

from collections.abc import Callable

import numpy as np
import pytest
from sklearn.svm import LinearSVC

from tests.trainables.metrics.test_factor_vae_score import SPRITES, grid, random_rows
from trainables.metrics.estimators import linear_machine
from trainables.metrics.estimators.examples import split_rows, standardized

PENALTY_C = 0.01
GENERATOR = np.random.default_rng(0)
FACTORS_NK = {"sprites": grid(SPRITES), "few rows": random_rows((2, 40, 7), 250, GENERATOR)}
CODES_ND: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "perfect": lambda factors_NK: factors_NK,
    "noisy": lambda factors_NK: factors_NK / (factors_NK.max(axis=0) + 1) + 0.1 * noise(factors_NK),
    "random": lambda factors_NK: noise(factors_NK),
    "entangled": lambda factors_NK: np.tanh(factors_NK @ GENERATOR.normal(size=(3, 3)) / 5),
    "one outlier": lambda factors_NK: np.where(
        np.arange(len(factors_NK))[:, None] == 7, 1e4, noise(factors_NK)
    ),
    "few values": lambda factors_NK: factors_NK // 2,
    "constant": lambda factors_NK: np.column_stack([factors_NK[:, 0], 0 * factors_NK[:, :2]]),
}


def noise(factors_NK: np.ndarray) -> np.ndarray:
    return GENERATOR.normal(size=(len(factors_NK), 3))


def library(train_N: np.ndarray, values_N: np.ndarray, test_T: np.ndarray) -> np.ndarray:
    machine = LinearSVC(C=PENALTY_C, class_weight="balanced", dual=False, random_state=0)
    predicted: np.ndarray = machine.fit(train_N[:, None], values_N).predict(test_T[:, None])
    return predicted


@pytest.mark.parametrize("codes", CODES_ND)
@pytest.mark.parametrize("factors", FACTORS_NK)
def test_predictions_are_those_of_the_library_or_too_close(codes: str, factors: str) -> None:
    factors_NK = FACTORS_NK[factors]
    train, test = split_rows(len(factors_NK), np.random.default_rng(0))
    standard_ND = standardized(CODES_ND[codes](factors_NK), train)
    found = linear_machine.predicted(standard_ND[train], factors_NK[train], standard_ND[test], PENALTY_C)
    decided = [(d, k) for d in range(3) for k in range(3) if found[d][k] is not None]
    assert len(decided) >= 4
    for d, k in decided:
        expected = library(standard_ND[train, d], factors_NK[train, k], standard_ND[test, d])
        np.testing.assert_array_equal(found[d][k], expected)


def test_values_that_no_image_tells_apart_are_too_close() -> None:
    values_N1 = np.arange(30)[:, None] % 3
    assert linear_machine.predicted(np.zeros((30, 1)), values_N1, np.zeros((5, 1)), PENALTY_C) == [[None]]
