"""The beta-VAE score against closed forms, its draws against their law, and its invariances."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tests.trainables.metrics.test_factor_vae_score import (
    DSPRITES,
    SPRITES,
    encoding_of,
    entangled_codes,
    grid,
    random_rows,
)
from trainables.encoding import Encoding
from trainables.errors import InputError
from trainables.metrics import beta_vae_score
from trainables.metrics.beta_vae_score import CHUNK, NUM_PAIRS, mean_distance, sample_pairs

very_few_examples = settings(max_examples=4, deadline=None, derandomize=True, database=None)


def score(encoding: Encoding, seed: int = 0) -> float:
    return beta_vae_score.score(encoding, np.random.default_rng(seed))["beta_vae_score"]


def test_a_perfect_code_scores_one_copied_bent_and_beside_noise() -> None:
    generator = np.random.default_rng(0)
    factors_NK = random_rows(DSPRITES, 10_000, generator)
    noise_ND = generator.normal(size=(10_000, 3))
    assert (
        score(encoding_of(factors_NK, np.column_stack([factors_NK, -np.exp(factors_NK / 9), noise_ND]))) == 1
    )


def test_a_factor_may_lack_its_code_and_the_score_stay_one() -> None:
    """The failure that the FactorVAE paper shows: the factor that moves all others is the one without a code."""
    assert score(encoding_of(grid(SPRITES), grid(SPRITES)[:, 1:])) == 1


def test_two_factors_without_a_code_are_told_apart_no_better_than_by_a_coin() -> None:
    factors_NK = grid((8, 8, 8, 8))
    assert score(encoding_of(factors_NK, factors_NK[:, :2])) == pytest.approx(0.75, abs=0.02)


def test_two_rotated_factors_are_told_apart_no_better_than_by_a_coin() -> None:
    factors_NK = grid((8, 8, 8, 8))
    a_N, b_N, c_N, d_N = factors_NK.T
    rotated = encoding_of(factors_NK, np.column_stack([a_N, b_N, c_N + d_N, c_N - d_N]))
    assert score(rotated) == pytest.approx(0.75, abs=0.02)


def test_noise_and_constants_are_near_chance() -> None:
    generator = np.random.default_rng(0)
    factors_NK = random_rows(DSPRITES, 10_000, generator)
    assert score(encoding_of(factors_NK, generator.normal(size=(10_000, 10)))) == pytest.approx(
        0.21, abs=0.025
    )
    assert score(encoding_of(factors_NK, np.full((10_000, 2), 0.7))) == pytest.approx(0.2, abs=0.02)


def test_a_constant_code_changes_nothing() -> None:
    codes_ND = entangled_codes(0)
    wider_ND = np.column_stack([codes_ND[:, :2], np.full(1536, 0.7), codes_ND[:, 2:]])
    before, after = (score(encoding_of(grid(SPRITES), codes)) for codes in (codes_ND, wider_ND))
    assert 0.4 < before < 1
    assert after == pytest.approx(before, abs=1e-3)


@very_few_examples
@given(
    order=st.permutations(range(6)),
    signs=st.lists(st.sampled_from([-1, 1]), min_size=6, max_size=6),
    exponents=st.lists(st.integers(-20, 20), min_size=6, max_size=6),
    seed=st.integers(0, 1000),
)
def test_order_sign_and_scale_of_the_codes_do_not_matter(
    order: list[int], signs: list[int], exponents: list[int], seed: int
) -> None:
    codes_ND = entangled_codes(seed)
    changed_ND = (codes_ND * signs * np.exp2(exponents))[:, order]
    before, after = (score(encoding_of(grid(SPRITES), codes), seed) for codes in (codes_ND, changed_ND))
    assert after == pytest.approx(before, abs=1e-3)


@very_few_examples
@given(names=st.permutations([0, 1, 2, 7, -3]))
def test_the_names_of_categories_do_not_matter(names: list[int]) -> None:
    generator = np.random.default_rng(0)
    factors_NK = grid((5, 8, 16))
    noisy_N = np.where(generator.random(640) < 0.4, generator.integers(0, 5, 640), factors_NK[:, 0])
    before, after = (
        score(encoding_of(factors_NK, np.column_stack([labels_N, factors_NK[:, 2]]), discrete=[0]))
        for labels_N in (noisy_N, np.array(names)[noisy_N])
    )
    assert after == before > 0.6


def test_distances_are_their_sums_in_loops() -> None:
    generator = np.random.default_rng(0)
    codes_ND = np.column_stack([generator.integers(-1, 3, 50), generator.normal(size=(50, 2))])
    encoding = encoding_of(random_rows((3, 4), 50, generator), codes_ND, discrete=[0])
    num_examples = CHUNK + 3
    first_EL, second_EL = generator.integers(0, 50, (2, num_examples, NUM_PAIRS))
    expected_ED = np.zeros((num_examples, 3))
    for e in range(num_examples):
        for i, j in zip(first_EL[e], second_EL[e], strict=True):
            expected_ED[e, 0] += encoding.mu_ND[i, 0] != encoding.mu_ND[j, 0]
            for d in (1, 2):
                expected_ED[e, d] += abs(float(encoding.mu_ND[i, d]) - float(encoding.mu_ND[j, d]))
    np.testing.assert_allclose(
        mean_distance(encoding, first_EL, second_EL), expected_ED / NUM_PAIRS, rtol=1e-12
    )


def test_pairs_are_those_of_literal_draws() -> None:
    factors_NK = random_rows((3, 5, 300), 500, np.random.default_rng(0))
    factor_E = np.random.default_rng(1).integers(0, 3, 40)
    first_EL, second_EL = sample_pairs(factors_NK, factor_E, np.random.default_rng(2))
    generator = np.random.default_rng(2)
    np.testing.assert_array_equal(first_EL, generator.integers(0, 500, (40, NUM_PAIRS)))
    for k in range(3):
        values_EL = factors_NK[first_EL[factor_E == k], k]
        rows_by_value = [np.flatnonzero(factors_NK[:, k] == value) for value in range(300)]
        counts_EL = np.array([[len(rows_by_value[value]) for value in values_L] for values_L in values_EL])
        places_EL = generator.integers(0, counts_EL)
        for e, second_L in enumerate(second_EL[factor_E == k]):
            expected = [
                rows_by_value[value][place] for value, place in zip(values_EL[e], places_EL[e], strict=True)
            ]
            assert second_L.tolist() == expected


def test_pairs_share_their_factor_and_everything_else_is_independent() -> None:
    factors_NK = random_rows((3, 5, 4), 90, np.random.default_rng(0))
    factor_E = np.random.default_rng(1).integers(0, 3, 2000)
    first_EL, second_EL = sample_pairs(factors_NK, factor_E, np.random.default_rng(2))
    assert first_EL.shape == second_EL.shape == (2000, NUM_PAIRS)
    assert stats.chisquare(np.bincount(first_EL.ravel(), minlength=90)).pvalue > 0.001
    for k in range(3):
        first, second = first_EL[factor_E == k].ravel(), second_EL[factor_E == k].ravel()
        assert (factors_NK[first, k] == factors_NK[second, k]).all()
        for value in range(3):
            rows = np.flatnonzero(factors_NK[:, k] == value)
            pairs = np.zeros((90, 90))
            np.add.at(pairs, (first, second), 1)
            # Any two rows of the value meet as often as any other two, a row and itself among them.
            assert stats.chisquare(pairs[np.ix_(rows, rows)].ravel()).pvalue > 0.001


def test_factors_with_one_value_are_never_picked() -> None:
    factors_NK = grid((1, 6, 8))
    # A classifier without features names the commoner of two factors, not of three.
    assert score(encoding_of(factors_NK, 0 * factors_NK)) == pytest.approx(0.5, abs=0.03)
    with pytest.raises(InputError, match=r"beta_vae_score needs .* at least 2; .* has 1\."):
        score(encoding_of(grid((1, 40)), grid((1, 40))))


def test_a_score_is_a_fraction_of_the_test_examples() -> None:
    right = score(encoding_of(grid(SPRITES), entangled_codes(1))) * 5000
    assert right == pytest.approx(round(right), abs=1e-9)
