"""The mutual information gap against closed forms, scikit-learn, known ceilings and its invariances."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import mutual_info_score

from tests.trainables.metrics.test_factor_vae_score import (
    DSPRITES,
    SPRITES,
    encoding_of,
    few_examples,
    grid,
    random_rows,
)
from trainables.encoding import Encoding
from trainables.errors import InputError
from trainables.metrics import mig


def scores(encoding: Encoding) -> dict[str, float]:
    return mig.score(encoding, np.random.default_rng(0))


def mig_of(factors_NK: np.ndarray, codes_ND: np.ndarray, discrete: Sequence[int] = ()) -> float:
    return scores(encoding_of(factors_NK, codes_ND, discrete=discrete))["mig"]


def mixed_codes(seed: int, num_codes: int = 5) -> np.ndarray:
    generator = np.random.default_rng(seed)
    mixed_ND = grid(SPRITES) / SPRITES @ generator.normal(size=(3, num_codes))
    return np.tanh(mixed_ND) + 0.2 * generator.normal(size=mixed_ND.shape)


def test_a_perfect_code_scores_one_in_any_order_and_curve() -> None:
    factors_NK = grid(SPRITES)
    assert mig_of(factors_NK, factors_NK) == pytest.approx(1, abs=1e-12)
    assert mig_of(factors_NK, -factors_NK[:, [2, 0, 1]] * [0.1, 3, 1]) == pytest.approx(1, abs=1e-12)


def test_twenty_bins_have_their_ceiling() -> None:
    values = scores(encoding_of(grid((2, 40, 32)), grid((2, 40, 32))))
    # 40 values lie two to a bin; of 32, 24 do and 8 are alone.
    expected = {
        "factor_0": 1,
        "factor_1": np.log(20) / np.log(40),
        "factor_2": 1 - 0.75 * np.log(2) / np.log(32),
    }
    assert values["mig"] == pytest.approx(np.mean(list(expected.values())), abs=1e-12)
    for name, value in expected.items():
        assert values[f"mig/{name}"] == pytest.approx(value, abs=1e-12)


def test_a_perfect_code_of_random_dsprites_scores_the_known_ceiling() -> None:
    factors_NK = random_rows(DSPRITES, 10_000, np.random.default_rng(0))
    assert mig_of(factors_NK, factors_NK) == pytest.approx(0.895, abs=0.002)


def test_a_random_code_scores_next_to_nothing() -> None:
    generator = np.random.default_rng(0)
    factors_NK = random_rows(DSPRITES, 10_000, generator)
    assert 0 < mig_of(factors_NK, generator.normal(size=(10_000, 10))) < 0.001


def test_factors_with_two_codes_and_rotated_ones_score_zero() -> None:
    factors_NK = grid((8, 8))
    a_N, b_N = factors_NK.T
    assert mig_of(factors_NK, np.column_stack([factors_NK, -factors_NK])) == pytest.approx(0, abs=1e-12)
    assert mig_of(factors_NK, np.column_stack([a_N + b_N, a_N - b_N])) == pytest.approx(0, abs=1e-12)


def test_half_of_a_factor_is_its_entropy_in_bits() -> None:
    # A code of two of four bits, beside one of the first bit alone.
    bits_N = grid((16,))
    codes_N2 = np.column_stack([bits_N // 4, bits_N // 8])
    assert mig_of(bits_N, codes_N2) == pytest.approx(1 / 4, abs=1e-12)
    assert mig_of(bits_N, codes_N2[:, :1]) == pytest.approx(2 / 4, abs=1e-12)


def test_constant_codes_score_zero_and_change_nothing() -> None:
    factors_NK = grid(SPRITES)
    assert mig_of(factors_NK, np.full((1536, 3), 0.7)) == 0
    wider_ND = np.column_stack([np.full(1536, 0.7), mixed_codes(0)])
    assert mig_of(factors_NK, wider_ND) == mig_of(factors_NK, mixed_codes(0))


@pytest.mark.parametrize("seed", range(3))
def test_the_definition_in_loops_agrees(seed: int) -> None:
    generator = np.random.default_rng(seed)
    factors_NK = random_rows((3, 6, 24), 1000, generator)
    codes_ND = (factors_NK @ generator.normal(size=(3, 4)) + generator.normal(size=(1000, 4))).astype(
        np.float32
    )
    gaps = []
    for factor_N in factors_NK.T:
        told = []
        for code_N in codes_ND.astype(np.float64).T:
            edges = np.histogram(code_N, 20)[1]
            told.append(mutual_info_score(np.digitize(code_N, edges[:-1]), factor_N))
        told.sort(reverse=True)
        gaps.append((told[0] - told[1]) / mutual_info_score(factor_N, factor_N))
    assert mig_of(factors_NK, codes_ND) == pytest.approx(np.mean(gaps), abs=1e-9)


@few_examples
@given(
    order=st.permutations(range(5)),
    signs=st.lists(st.sampled_from([-1, 1]), min_size=5, max_size=5),
    exponents=st.lists(st.integers(-20, 20), min_size=5, max_size=5),
    seed=st.integers(0, 1000),
)
def test_order_sign_and_scale_of_the_codes_do_not_matter(
    order: list[int], signs: list[int], exponents: list[int], seed: int
) -> None:
    codes_ND = mixed_codes(seed)
    changed_ND = (codes_ND * signs * np.exp2(exponents))[:, order]
    assert mig_of(grid(SPRITES), changed_ND) == pytest.approx(mig_of(grid(SPRITES), codes_ND), abs=1e-9)


@few_examples
@given(names=st.permutations([0, 1, 2, 7, -300]))
def test_the_names_of_categories_do_not_matter(names: list[int]) -> None:
    factors_NK = grid((5, 8))
    labels_N = np.array(names)[factors_NK[:, 0]]
    codes_ND = np.column_stack([labels_N, factors_NK[:, 1]])
    assert mig_of(factors_NK, codes_ND, discrete=[0]) == pytest.approx(1, abs=1e-12)


def test_a_factor_with_one_value_is_left_out() -> None:
    factors_NK = grid((1, 5, 8))
    values = scores(encoding_of(factors_NK, factors_NK))
    assert list(values) == ["mig", "mig/factor_1", "mig/factor_2"]
    assert values["mig"] == pytest.approx(1, abs=1e-12)
    with pytest.raises(InputError, match="mig needs"):
        mig_of(factors_NK * 0, factors_NK)


def test_a_diverged_run_has_the_same_names() -> None:
    encoding = encoding_of(grid(SPRITES), grid(SPRITES))
    diverged = scores(dataclasses.replace(encoding, mu_ND=encoding.mu_ND * np.float32("nan")))
    assert list(diverged) == list(scores(encoding))
    assert np.isnan(list(diverged.values())).all()
