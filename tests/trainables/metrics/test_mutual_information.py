from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import mutual_info_score

from trainables.encoding import Encoding
from trainables.metrics import mutual_information

few_examples = settings(max_examples=12, deadline=None, derandomize=True, database=None)


def encoding_of(codes_ND: np.ndarray, discrete: Sequence[int] = ()) -> Encoding:
    num_images, num_codes = codes_ND.shape
    return Encoding(
        data="a test set",
        factor_names=(),
        factor_sizes=(),
        rows_N=np.arange(num_images),
        factors_NK=np.zeros((num_images, 0), dtype=np.int64),
        mu_ND=codes_ND.astype(np.float32),
        logvar_ND=None,
        kl_D=np.zeros(num_codes),
        discrete_D=np.isin(np.arange(num_codes), discrete),
        recon_nats_N=None,
        recon_mse_N=np.zeros(num_images),
    )


def score(codes_ND: np.ndarray, discrete: Sequence[int] = ()) -> float:
    values = mutual_information.score(encoding_of(codes_ND, discrete), np.random.default_rng(0))
    return values["mutual_information"]


def entangled_codes(seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    z_ND = generator.normal(size=(500, 4))
    return z_ND + 0.5 * np.square(z_ND[:, ::-1]) * generator.normal(size=4)


def slow_score(codes_ND: np.ndarray) -> float:
    """The reference library's formula, with scikit-learn's mutual information, pair by pair."""
    codes_ND = codes_ND.astype(np.float32).astype(np.float64)
    bins = [np.digitize(code, np.linspace(code.min(), code.max(), 21)[:-1]) for code in codes_ND.T]
    pairs = [mutual_info_score(a, b) for i, a in enumerate(bins) for j, b in enumerate(bins) if i != j]
    return float(sum(pairs) / len(pairs))


@pytest.mark.parametrize("seed", range(4))
def test_a_slow_obviously_right_scorer_agrees(seed: int) -> None:
    assert score(entangled_codes(seed)) == pytest.approx(slow_score(entangled_codes(seed)), abs=1e-9)


def test_copies_of_a_uniform_code_have_the_logarithm_of_the_bins() -> None:
    ramp_N = np.arange(400.0)
    assert score(np.column_stack([ramp_N, -3 * ramp_N, ramp_N + 7])) == pytest.approx(np.log(20), rel=1e-12)


def test_codes_of_a_grid_have_none() -> None:
    a_N, b_N = np.unravel_index(np.arange(600), (20, 30))
    assert score(np.column_stack([a_N, b_N])) == pytest.approx(0, abs=1e-12)


def test_a_rotated_square_has_its_closed_form() -> None:
    a_N, b_N = np.unravel_index(np.arange(160_000), (400, 400))
    # On 20 x 20 bins the square is a diamond of 180 full cells and 40 half ones on its edges.
    joint_entropy = np.log(200) + 0.1 * np.log(2)
    bin_shares = np.abs(np.arange(20) - 9.5) / -100 + 0.1
    expected = -2 * bin_shares @ np.log(bin_shares) - joint_entropy
    assert expected > 0.2
    assert score(np.column_stack([a_N + b_N, a_N - b_N])) == pytest.approx(expected, abs=0.005)


def test_constant_codes_count_in_the_mean_with_nothing() -> None:
    ramp_N = np.arange(400.0)
    codes_ND = np.column_stack([ramp_N, ramp_N, np.full(400, 2.0), np.zeros(400)])
    # One of the six pairs says all, the five others nothing.
    assert score(codes_ND) == pytest.approx(np.log(20) / 6, rel=1e-12)
    assert score(np.zeros((400, 3))) == 0.0


def test_a_single_code_shares_with_none() -> None:
    assert score(np.arange(400.0)[:, None]) == 0.0


def test_a_category_has_its_labels_for_bins() -> None:
    ramp_N = np.arange(400)
    label_N = np.array([5, -1, 1000, 1001])[ramp_N % 4]
    codes_ND = np.column_stack([label_N, ramp_N % 4])
    assert score(codes_ND, discrete=[0]) == pytest.approx(np.log(4), rel=1e-12)
    # Cut into bins, the two close labels would be one.
    assert score(codes_ND) < np.log(4) - 0.1


def test_independent_codes_are_left_with_what_few_images_make_up() -> None:
    codes_ND = np.random.default_rng(0).random((10_000, 6))
    # The bias of a table of counts: (20 - 1)^2 / (2 N).
    assert score(codes_ND) == pytest.approx(361 / 20_000, rel=0.05)


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
    codes_ND = entangled_codes(seed)
    changed_ND = (codes_ND * signs * np.exp2(exponents))[:, order]  # powers of two: no bit is lost
    assert score(codes_ND) > 0.05
    assert score(changed_ND) == pytest.approx(score(codes_ND), abs=1e-9)
