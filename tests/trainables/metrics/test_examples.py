"""Which rows and factors metrics learn from."""

import dataclasses

import numpy as np
import pytest

from tests.trainables.metrics.test_metrics import a_vae
from trainables.errors import InputError
from trainables.metrics.estimators.examples import split_rows, standardized
from trainables.metrics.estimators.ground_truth import mean_and_parts, varying_factors


@pytest.mark.parametrize(
    ("num_images", "num_train", "num_test"),
    [
        (3, 2, 1),
        (1536, 1024, 512),
        (10_000, 6666, 3334),
        (15_000, 10_000, 5000),
        (15_001, 10_000, 5000),
        (90_000, 10_000, 5000),
    ],
)
def test_rows_are_split_two_to_one_and_never_shared(num_images: int, num_train: int, num_test: int) -> None:
    train, test = split_rows(num_images, np.random.default_rng(0))
    assert (len(train), len(test)) == (num_train, num_test)
    rows = set(train.tolist()) | set(test.tolist())
    assert len(rows) == num_train + num_test
    assert rows <= set(range(num_images))


def test_every_row_is_tested_as_often_as_any_other() -> None:
    tested = np.zeros(30)
    for seed in range(3000):
        tested[split_rows(30, np.random.default_rng(seed))[1]] += 1
    np.testing.assert_allclose(tested / 3000, 1 / 3, atol=0.035)


def test_training_rows_have_mean_zero_and_deviation_one_and_constants_are_zero() -> None:
    features_N3 = np.random.default_rng(0).normal([1, -50, 0.7], [3, 1e-4, 0], (90, 3)).astype(np.float32)
    train = np.arange(10, 60)
    standard_N3 = standardized(features_N3, train)
    np.testing.assert_allclose(standard_N3[train].mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(standard_N3[train].std(axis=0), [1, 1, 0], atol=1e-12)
    assert not standard_N3[:, 2].any()
    ratio = np.ptp(standard_N3[:, :2], axis=0) / np.ptp(features_N3[:, :2].astype(np.float64), axis=0)
    np.testing.assert_allclose(ratio, 1 / features_N3[train, :2].std(axis=0, dtype=np.float64), rtol=1e-9)


def test_factors_vary_where_every_part_has_two_of_their_values() -> None:
    vae = a_vae()
    vae = dataclasses.replace(vae, factors_NK=vae.factors_NK * [1, 0, 1])
    assert varying_factors(vae, "any") == [0, 2]
    assert varying_factors(vae, "any", np.arange(8), np.arange(96)) == [2]
    assert varying_factors(vae, "any", np.arange(96), num_needed=2) == [0, 2]
    with pytest.raises(InputError, match=r"any needs ground-truth factors .* at least 3; .* has 2\."):
        varying_factors(vae, "any", num_needed=3)
    with pytest.raises(InputError, match="are too few"):
        varying_factors(vae, "any", np.arange(0))


def test_the_mean_stands_before_its_parts() -> None:
    values = mean_and_parts("mig", {"scale": 0.25, "shape": 0.75})
    assert list(values.items()) == [("mig", 0.5), ("mig/scale", 0.25), ("mig/shape", 0.75)]
