"""Binned codes and their mutual information against closed forms and scikit-learn."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import mutual_info_score

from trainables.metrics.estimators.information import discretized, entropy, mutual_information

few_examples = settings(max_examples=20, deadline=None, derandomize=True, database=None)
labels = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 30)), min_size=1, max_size=60).map(np.array)


def bins_of(codes_ND: np.ndarray, num_bins: int, discrete: Sequence[int] = ()) -> np.ndarray:
    codes_ND = np.asarray(codes_ND, dtype=np.float32)
    return discretized(codes_ND, np.isin(np.arange(codes_ND.shape[1]), discrete), num_bins)


@few_examples
@given(labels)
def test_information_is_that_of_scikit_learn(pairs_N2: np.ndarray) -> None:
    a_N, b_N = pairs_N2.T
    found = mutual_information(pairs_N2[:, :1], pairs_N2[:, 1:])
    assert found.shape == (1, 1)
    assert found[0, 0] == pytest.approx(mutual_info_score(a_N, b_N), abs=1e-12)


@few_examples
@given(labels)
def test_entropy_is_that_of_scipy_and_bounds_information(pairs_N2: np.ndarray) -> None:
    expected = [stats.entropy(np.unique(label_N, return_counts=True)[1]) for label_N in pairs_N2.T]
    np.testing.assert_allclose(entropy(pairs_N2), expected, atol=1e-12)
    information = mutual_information(pairs_N2[:, :1], pairs_N2[:, 1:])[0, 0]
    assert 0 <= information <= min(expected) + 1e-12


def test_every_column_meets_every_other() -> None:
    a_ND, b_NK = (np.random.default_rng(n).integers(0, n, (500, n)) for n in (2, 3))
    expected_DK = [[mutual_info_score(a, b) for b in b_NK.T] for a in a_ND.T]
    np.testing.assert_allclose(mutual_information(a_ND, b_NK), expected_DK, atol=1e-12)


def test_a_noisy_bit_tells_what_its_errors_leave() -> None:
    # One in eight is wrong, on both sides: log 2 less the entropy of the error.
    a_N = np.arange(16) // 8
    b_N = np.where(np.arange(16) % 8 == 0, 1 - a_N, a_N)
    expected = np.log(2) + np.log(1 / 8) / 8 + np.log(7 / 8) * 7 / 8
    assert mutual_information(a_N[:, None], b_N[:, None])[0, 0] == pytest.approx(expected, abs=1e-15)


def test_constants_and_independent_grids_share_exactly_nothing() -> None:
    grid_N2 = np.stack(np.unravel_index(np.arange(7 * 11), (7, 11)), axis=1)
    assert mutual_information(grid_N2[:, :1], grid_N2[:, 1:])[0, 0] == 0
    assert mutual_information(np.full((77, 1), 3), grid_N2).max() == 0
    assert entropy(np.full((77, 1), 3)).tolist() == [0]


def test_no_columns_give_an_empty_table() -> None:
    assert mutual_information(np.zeros((5, 0), dtype=int), np.zeros((5, 3), dtype=int)).shape == (0, 3)
    assert mutual_information(np.zeros((5, 3), dtype=int), np.zeros((5, 0), dtype=int)).shape == (3, 0)


@pytest.mark.parametrize("num_bins", [1, 2, 7, 20])
def test_bins_are_equally_wide_and_hold_both_ends(num_bins: int) -> None:
    codes_N = np.linspace(-3, 5, 1001)
    bins_N = bins_of(codes_N[:, None], num_bins)[:, 0]
    assert bins_N.dtype == np.int64
    assert (np.diff(bins_N) >= 0).all()
    counts = np.bincount(bins_N)
    assert len(counts) == num_bins
    assert np.ptp(counts) <= 2


def test_bins_hold_what_the_histogram_counts() -> None:
    codes_ND = np.random.default_rng(0).standard_cauchy((500, 4)).astype(np.float32)
    for code_N, bins_N in zip(codes_ND.T, bins_of(codes_ND, 20).T, strict=True):
        expected = np.histogram(code_N.astype(np.float64), 20)[0]
        assert np.bincount(bins_N, minlength=20).tolist() == expected.tolist()


def test_a_constant_code_has_one_bin_and_a_category_its_labels() -> None:
    codes_N2 = np.column_stack([np.full(6, 0.7), [5, -1, 900, 5, 5, -1]])
    bins_N2 = bins_of(codes_N2, 2, discrete=[1])
    assert len(set(bins_N2[:, 0])) == 1
    assert bins_N2[:, 1].tolist() == [1, 0, 2, 1, 1, 0]


def test_a_code_that_varies_in_its_last_bits_is_still_cut() -> None:
    one = np.float32(1)
    codes_N = np.array([one, np.nextafter(one, np.float32(2)), np.float32(3e38)])
    assert len(set(bins_of(codes_N[:2, None], 20)[:, 0])) == 2
    assert bins_of(codes_N[:, None], 20)[:, 0].tolist() == [0, 0, 19]
