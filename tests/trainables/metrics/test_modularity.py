"""Modularity against closed forms, its definition in loops and its invariances."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import mutual_info_score

from tests.trainables.metrics.test_factor_vae_score import (
    SPRITES,
    encoding_of,
    few_examples,
    grid,
    random_rows,
)
from tests.trainables.metrics.test_mig import mixed_codes
from trainables.encoding import Encoding
from trainables.errors import InputError
from trainables.metrics import modularity


def scores(encoding: Encoding) -> dict[str, float]:
    return modularity.score(encoding, np.random.default_rng(0))


def modularity_of(factors_NK: np.ndarray, codes_ND: np.ndarray, discrete: Sequence[int] = ()) -> float:
    return scores(encoding_of(factors_NK, codes_ND, discrete=discrete))["modularity"]


def test_a_perfect_code_scores_one_copied_bent_or_halved() -> None:
    factors_NK = grid(SPRITES)
    codes_ND = np.column_stack([factors_NK, -factors_NK, np.exp(factors_NK / 3), factors_NK // 4])
    values = scores(encoding_of(factors_NK, codes_ND))
    assert list(values) == ["modularity", *(f"modularity/dim_{d}" for d in range(12))]
    assert all(value == pytest.approx(1, abs=1e-12) for value in values.values())


@pytest.mark.parametrize("num_told", [1, 2, 3, 4])
def test_a_code_that_tells_factors_in_equal_parts_loses_one_share_for_each_but_the_first(
    num_told: int,
) -> None:
    factors_NK = grid((4, 4, 4, 4))
    label_N1 = factors_NK[:, :num_told] @ 4 ** np.arange(num_told)[:, None]
    expected = 1 - (num_told - 1) / 3
    assert modularity_of(factors_NK, label_N1, discrete=[0]) == pytest.approx(expected, abs=1e-12)


def test_a_code_of_unequal_parts_is_judged_by_squared_information() -> None:
    # It tells two bits of one factor and one of the other, and nothing of the third.
    factors_NK = grid((4, 2, 3))
    label_N1 = factors_NK[:, :2] @ np.array([[2], [1]])
    assert modularity_of(factors_NK, label_N1, discrete=[0]) == pytest.approx(1 - (1 / 4) / 2, abs=1e-12)


def test_a_constant_code_counts_as_zero() -> None:
    factors_NK = grid(SPRITES)
    assert modularity_of(factors_NK, np.full((1536, 4), 0.7)) == 0
    assert modularity_of(factors_NK, np.column_stack([factors_NK, np.ones(1536)])) == pytest.approx(
        0.75, abs=1e-12
    )


def test_rotated_codes_tell_two_factors() -> None:
    factors_NK = grid((8, 8, 8))
    a_N, b_N, c_N = factors_NK.T
    values = scores(encoding_of(factors_NK, np.column_stack([a_N + b_N, a_N - b_N, c_N])))
    assert list(values.values())[1:] == pytest.approx([0.5, 0.5, 1.0], abs=1e-12)


def test_luck_favors_factors_of_many_values() -> None:
    generator = np.random.default_rng(0)
    factors_NK = random_rows((3, 6, 40, 32, 32), 10_000, generator)
    # Information by luck goes with the values less one: 1 - (2^2 + 5^2 + 31^2 + 31^2) / (4 39^2) = .68, less its spread.
    assert modularity_of(factors_NK, generator.normal(size=(10_000, 10))) == pytest.approx(0.66, abs=0.03)


@pytest.mark.parametrize("seed", range(3))
def test_the_distance_from_the_nearest_ideal_code_agrees(seed: int) -> None:
    generator = np.random.default_rng(seed)
    factors_NK = random_rows((3, 6, 24), 1000, generator)
    codes_ND = (factors_NK @ generator.normal(size=(3, 4)) + generator.normal(size=(1000, 4))).astype(
        np.float32
    )
    found = []
    for code_N in codes_ND.astype(np.float64).T:
        bins_N = np.digitize(code_N, np.histogram(code_N, 20)[1][:-1])
        told = np.array([mutual_info_score(bins_N, factor_N) for factor_N in factors_NK.T])
        ideal = np.where(np.arange(3) == told.argmax(), told, 0)
        found.append(1 - np.sum((told - ideal) ** 2) / (told.max() ** 2 * 2))
    assert modularity_of(factors_NK, codes_ND) == pytest.approx(np.mean(found), abs=1e-9)


@few_examples
@given(
    order=st.permutations(range(5)),
    signs=st.lists(st.sampled_from([-1, 1]), min_size=5, max_size=5),
    exponents=st.lists(st.integers(-20, 20), min_size=5, max_size=5),
    factor_order=st.permutations(range(3)),
    seed=st.integers(0, 1000),
)
def test_order_sign_and_scale_do_not_matter(
    order: list[int], signs: list[int], exponents: list[int], factor_order: list[int], seed: int
) -> None:
    codes_ND = mixed_codes(seed)
    changed_ND = (codes_ND * signs * np.exp2(exponents))[:, order]
    before = modularity_of(grid(SPRITES), codes_ND)
    assert 0 < before < 1
    assert modularity_of(grid(SPRITES)[:, factor_order], changed_ND) == pytest.approx(before, abs=1e-9)


def test_factors_with_one_value_do_not_count() -> None:
    factors_NK = grid((1, 8, 8))
    a_N, b_N = factors_NK[:, 1:].T
    assert modularity_of(factors_NK, np.column_stack([a_N + b_N])) == pytest.approx(0, abs=1e-12)
    with pytest.raises(InputError, match=r"modularity needs .* at least 2; .* has 1\."):
        modularity_of(grid((1, 8)), grid((1, 8)))
