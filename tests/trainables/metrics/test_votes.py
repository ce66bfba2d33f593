"""Votes against the same draws taken one vote after another."""

import numpy as np
import pytest

from tests.trainables.metrics.test_factor_vae_score import encoding_of, random_rows
from trainables.encoding import Encoding
from trainables.metrics.estimators import votes


def literal_sample(
    encoding: Encoding, num_votes: int, num_samples: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Floyd's method, vote after vote and number after number, from the same random numbers."""
    factors_NK = encoding.factors_NK
    counts = [np.bincount(values_N) for values_N in factors_NK.T]
    varied = [k for k, counts_k in enumerate(counts) if (counts_k > 1).sum() > 1]
    factor_V = generator.choice(varied, num_votes)
    rows_VL = np.empty((num_votes, num_samples), dtype=np.int64)
    for k in varied:
        votes_of_k = np.flatnonzero(factor_V == k)
        value_v = generator.choice(np.flatnonzero(counts[k] > 1), len(votes_of_k))
        steps, count_v = np.arange(num_samples)[:, None], counts[k][value_v]
        top_Lv = np.where(count_v >= num_samples, count_v - num_samples + steps, count_v - 1)
        drawn_Lv = generator.integers(0, top_Lv, endpoint=True)
        for v, (vote, value) in enumerate(zip(votes_of_k, value_v, strict=True)):
            picked: list[int] = []
            for pick, top in zip(drawn_Lv[:, v].tolist(), top_Lv[:, v].tolist(), strict=True):
                picked.append(top if count_v[v] >= num_samples and pick in picked else pick)
            rows_VL[vote] = np.flatnonzero(factors_NK[:, k] == value)[picked]
    return factor_V, rows_VL


@pytest.mark.parametrize("num_samples", [8, 64])
@pytest.mark.parametrize("sizes", [(3, 1, 40), (2, 300)])
def test_votes_are_those_of_literal_draws(sizes: tuple[int, ...], num_samples: int) -> None:
    """Of values with fewer images than a vote has, with as many, with more, and with more than one byte can count."""
    factors_NK = random_rows(sizes, 2500, np.random.default_rng(0))
    encoding = encoding_of(factors_NK, factors_NK)
    found = votes.sample("a score", encoding, 120, num_samples, np.random.default_rng(1))
    expected = literal_sample(encoding, 120, num_samples, np.random.default_rng(1))
    for found_V, expected_V in zip(found, expected, strict=True):
        np.testing.assert_array_equal(found_V, expected_V)
