import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.ensemble import GradientBoostingClassifier

from trainables.contracts import Metric
from trainables.encoding import Encoding
from trainables.errors import InputError
from trainables.metrics import dci, explicitness, sap
from trainables.metrics.dci import concentration, split

SMALL = (2, 3, 2)

few_examples = settings(max_examples=25, deadline=None, derandomize=True, database=None)
matrices = st.builds(
    lambda seed, rows, columns: np.random.default_rng(seed).gamma(0.3, size=(rows, columns)),
    st.integers(0, 10_000),
    st.integers(2, 8),
    st.integers(2, 8),
)


def grid(factor_sizes: Sequence[int], num_repeats: int = 1) -> np.ndarray:
    rows_N = np.arange(math.prod(factor_sizes) * num_repeats) % math.prod(factor_sizes)
    return np.stack(np.unravel_index(rows_N, factor_sizes), axis=1)


def encoding_of(factors_NK: np.ndarray, codes_ND: np.ndarray) -> Encoding:
    num_images, num_codes = codes_ND.shape
    sizes = tuple(int(n) for n in factors_NK.max(axis=0) + 1)
    return Encoding(
        data="a test grid",
        factor_names=tuple(f"factor_{k}" for k in range(len(sizes))),
        factor_sizes=sizes,
        rows_N=np.arange(num_images),
        factors_NK=factors_NK.astype(np.int64),
        mu_ND=codes_ND.astype(np.float32),
        logvar_ND=None,
        kl_D=np.zeros(num_codes),
        discrete_D=np.zeros(num_codes, dtype=bool),
        recon_nats_N=None,
        recon_mse_N=np.zeros(num_images),
    )


def score(factors_NK: np.ndarray, codes_ND: np.ndarray, seed: int = 0) -> tuple[float, float, float]:
    """Disentanglement, completeness and informativeness."""
    values = dci.score(encoding_of(factors_NK, codes_ND), np.random.default_rng(seed))
    return values["dci"], values["dci/completeness"], values["dci/informativeness"]


def noise(num_codes: int, seed: int = 0, num_images: int = 480) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(num_images, num_codes))


FACTORS_NK = grid(SMALL, 40)
"""480 images, so 240 for training and as many for testing."""


def reference(factors_NK: np.ndarray, codes_ND: np.ndarray, seed: int) -> tuple[float, float, float]:
    """The reference library's steps, with scipy's entropies, on the same rows and tie-breaks."""
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(codes_ND))
    train, test = order[: len(order) // 2], order[len(order) // 2 :]
    codes_ND = codes_ND.astype(np.float32)
    importance_DK, accuracies = np.zeros((codes_ND.shape[1], factors_NK.shape[1])), []
    for k in range(factors_NK.shape[1]):
        model = GradientBoostingClassifier(random_state=int(generator.integers(2**31)))
        model.fit(codes_ND[train], factors_NK[train, k])
        importance_DK[:, k] = np.abs(model.feature_importances_)
        accuracies.append(model.score(codes_ND[test], factors_NK[test, k]))
    num_codes, num_factors = importance_DK.shape
    per_code = 1 - stats.entropy(importance_DK.T + 1e-11, base=num_factors)
    per_factor = 1 - stats.entropy(importance_DK + 1e-11, base=num_codes)
    total = importance_DK.sum()
    return (
        sum(per_code[d] * importance_DK[d].sum() / total for d in range(num_codes)),
        sum(per_factor[k] * importance_DK[:, k].sum() / total for k in range(num_factors)),
        sum(accuracies) / num_factors,
    )


@pytest.mark.parametrize("seed", range(2))
def test_the_reference_in_loops_agrees(seed: int) -> None:
    codes_ND = FACTORS_NK @ np.random.default_rng(seed).normal(size=(3, 4)) + 0.4 * noise(4, seed)
    found = score(FACTORS_NK, codes_ND, seed)
    assert found == pytest.approx(reference(FACTORS_NK, codes_ND, seed), abs=1e-9)
    assert all(0.01 < value < 0.99 for value in found)


def test_perfect_codes_score_one_in_any_order_sign_and_scale() -> None:
    assert score(FACTORS_NK, FACTORS_NK) == pytest.approx((1, 1, 1), abs=1e-8)
    assert score(FACTORS_NK, FACTORS_NK[:, [2, 0, 1]] * [-1e-3, 5, 100]) == pytest.approx((1, 1, 1), abs=1e-8)


def test_a_factor_spread_over_two_codes_costs_completeness_alone() -> None:
    a_N = grid((4,), 120)[:, 0]
    codes_ND = np.column_stack([a_N // 2, a_N % 2])
    assert score(a_N[:, None], codes_ND)[0] == 1.0
    factors_NK = np.column_stack([a_N, np.random.default_rng(0).integers(0, 2, 480)])
    disentanglement, completeness, informativeness = score(
        factors_NK, np.column_stack([codes_ND, factors_NK[:, 1]])
    )
    assert disentanglement == pytest.approx(1, abs=0.01)
    assert 0.4 < completeness < 0.8
    assert informativeness == 1.0


def test_one_code_of_two_factors_costs_disentanglement_alone() -> None:
    factors_NK = grid((2, 2), 120)
    codes_ND = np.column_stack([factors_NK @ [2, 1], np.zeros(480)])
    assert score(factors_NK, codes_ND) == pytest.approx((0, 1, 1), abs=1e-8)


def test_a_single_code_is_complete_by_definition() -> None:
    assert score(grid((2, 2), 120), (grid((2, 2), 120) @ [2, 1])[:, None]) == pytest.approx(
        (0, 1, 1), abs=1e-8
    )


def test_rotated_codes_score_low_though_they_tell_everything() -> None:
    factors_NK = grid((3, 3), 53)
    a_N, b_N = factors_NK.T
    disentanglement, completeness, informativeness = score(
        factors_NK, np.column_stack([a_N + b_N, a_N - b_N])
    )
    assert disentanglement < 0.1
    assert completeness < 0.1
    assert informativeness == 1.0


def test_noise_scores_little_and_guesses() -> None:
    disentanglement, completeness, informativeness = score(FACTORS_NK, noise(6))
    assert disentanglement < 0.05
    assert completeness < 0.05
    assert informativeness == pytest.approx((1 / 2 + 1 / 3 + 1 / 2) / 3, abs=0.07)


def test_constant_codes_score_zero_and_guess() -> None:
    disentanglement, completeness, informativeness = score(FACTORS_NK, np.ones((480, 3)))
    assert (disentanglement, completeness) == (0.0, 0.0)
    assert informativeness == pytest.approx((1 / 2 + 1 / 3 + 1 / 2) / 3, abs=0.07)


def test_a_constant_code_beside_others_has_no_weight() -> None:
    codes_ND = np.column_stack([np.full(480, 3.0), FACTORS_NK])
    assert score(FACTORS_NK, codes_ND) == pytest.approx((1, 1, 1), abs=1e-8)


def test_a_factor_with_one_value_is_left_out() -> None:
    codes_ND = FACTORS_NK @ np.random.default_rng(5).normal(size=(3, 3)) + 0.4 * noise(3)
    with_constant_NK = np.insert(FACTORS_NK, 1, 4, axis=1)
    assert score(with_constant_NK, codes_ND) == score(FACTORS_NK, codes_ND)
    with pytest.raises(InputError, match=r"dci needs .*factors"):
        score(np.full((480, 2), 3), codes_ND)


def test_a_value_that_training_never_sees_is_not_told() -> None:
    order_N = np.random.default_rng(0).permutation(480)
    rare_N = np.zeros(480, dtype=np.int64)
    rare_N[order_N[-120:]] = 1  # a half of the test images
    factors_NK = np.column_stack([rare_N, FACTORS_NK[:, 0]])
    disentanglement, completeness, informativeness = score(factors_NK, factors_NK[:, ::-1])
    assert (disentanglement, completeness) == pytest.approx((1, 1), abs=1e-8)
    assert informativeness == pytest.approx((0.5 + 1) / 2)


def test_training_and_test_images_are_disjoint_and_of_the_stated_number() -> None:
    for num_images, expected in (
        (384, (192, 192)),
        (1999, (999, 1000)),
        (5000, (1000, 4000)),
        (10_000, (1000, 5000)),
    ):
        train_n, test_n = split(num_images, np.random.default_rng(0))
        assert (len(train_n), len(test_n)) == expected
        assert len(set(train_n) | set(test_n)) == sum(expected)


def test_concentration_of_known_matrices() -> None:
    assert concentration(np.eye(4)) == pytest.approx(1, abs=1e-8)
    assert concentration(np.ones((3, 4))) == pytest.approx(0, abs=1e-12)
    assert concentration(np.zeros((3, 4))) == 0.0
    assert concentration(np.ones((3, 1))) == 1.0
    # A row that is shared by two of four columns counts 1/2; with weight 2 of 3 beside a pure one, 2/3.
    assert concentration(np.array([[1.0, 1, 0, 0], [0, 0, 1, 0]])) == pytest.approx(2 / 3, abs=1e-8)


@few_examples
@given(matrix=matrices, seed=st.integers(0, 1000))
def test_concentration_knows_neither_order_nor_scale_and_stays_in_range(
    matrix: np.ndarray, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    moved = matrix[generator.permutation(len(matrix))][:, generator.permutation(matrix.shape[1])]
    assert concentration(7 * moved) == pytest.approx(concentration(matrix), abs=1e-8)
    assert 0 <= concentration(matrix) <= 1
    per_row = 1 - stats.entropy(matrix.T + 1e-11, base=matrix.shape[1])
    assert concentration(matrix) == pytest.approx(np.average(per_row, weights=matrix.sum(axis=1)), abs=1e-9)


def test_a_code_in_another_unit_scores_the_same_to_the_bit() -> None:
    """Trees of scikit-learn see no step below 1e-7: a perfect code times 1e-7 scored 0, 0 and .167."""
    factors_NK = grid((3, 4), num_repeats=20)
    codes_ND = np.concatenate([factors_NK + 0.1 * noise(2, num_images=240), noise(1, 1, 240)], axis=1)
    expected = score(factors_NK, codes_ND)
    for exponent in (-120, -24, 120):
        assert score(factors_NK, np.ldexp(codes_ND.astype(np.float32), exponent)) == expected, exponent


def test_rescaling_is_exact_and_leaves_constant_codes() -> None:
    codes_ND = noise(3, num_images=50) * [1e-30, 1, 0] + [0, 0, 7]
    codes_ND = codes_ND.astype(np.float32)
    found_ND = dci.rescaled(codes_ND)
    assert np.all((found_ND[:, :2].std(axis=0) >= 1) & (found_ND[:, :2].std(axis=0) < 2))
    assert np.array_equal(found_ND[:, 2], codes_ND[:, 2])
    ratio_N = found_ND[:, 0].astype(np.float64) / codes_ND[:, 0]
    assert len(set(ratio_N)) == 1
    assert np.log2(ratio_N[0]) % 1 == 0


@pytest.mark.parametrize("num_images", [2, 3])
def test_so_few_images_that_there_is_nothing_to_learn_are_refused(num_images: int) -> None:
    """One image for training has one value of every factor: no code has an importance, which would look like a score of 0."""
    factors_NK = np.arange(num_images)[:, None]
    encoding = encoding_of(factors_NK, factors_NK.astype(np.float32))
    with pytest.raises(InputError, match=f"learns and tests; the {num_images} of a test grid are too few"):
        dci.score(encoding, np.random.default_rng(0))


@pytest.mark.parametrize("metric", [sap, explicitness])
def test_other_metrics_of_two_images_name_the_cause_too(metric: Metric) -> None:
    factors_NK = np.arange(2)[:, None]
    with pytest.raises(InputError, match="the 2 of a test grid are too few"):
        metric.score(encoding_of(factors_NK, factors_NK.astype(np.float32)), np.random.default_rng(0))
