import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from trainables.encoding import Encoding
from trainables.errors import InputError
from trainables.metrics import factor_vae_score, factor_vae_score_heldout
from trainables.metrics.factor_vae_score_heldout import heldout_accuracy, sample_votes

SPRITES = (6, 16, 16)
DSPRITES = (3, 6, 40, 32, 32)

few_examples = settings(max_examples=8, deadline=None, derandomize=True, database=None)


def grid(factor_sizes: Sequence[int]) -> np.ndarray:
    return np.stack(np.unravel_index(np.arange(math.prod(factor_sizes)), factor_sizes), axis=1)


def random_rows(factor_sizes: Sequence[int], num_images: int, generator: np.random.Generator) -> np.ndarray:
    rows_N = generator.integers(0, math.prod(factor_sizes), num_images)
    return np.stack(np.unravel_index(rows_N, factor_sizes), axis=1)


def encoding_of(
    factors_NK: np.ndarray,
    codes_ND: np.ndarray,
    kl: Sequence[float] | None = None,
    discrete: Sequence[int] = (),
) -> Encoding:
    num_images, num_codes = codes_ND.shape
    sizes = tuple(int(n) for n in factors_NK.max(axis=0) + 1)
    return Encoding(
        data="a test grid",
        factor_names=tuple(f"factor_{k}" for k in range(len(sizes))),
        factor_sizes=sizes,
        rows_N=np.arange(num_images),
        factors_NK=factors_NK.astype(np.int64),
        mu_ND=codes_ND.astype(np.float32),
        logvar_ND=np.zeros(codes_ND.shape, dtype=np.float32),
        kl_D=np.ones(num_codes) if kl is None else np.array(kl, dtype=np.float64),
        discrete_D=np.isin(np.arange(num_codes), discrete),
        recon_nats_N=None,
        recon_mse_N=np.zeros(num_images),
    )


def score(encoding: Encoding, seed: int = 0) -> float:
    return factor_vae_score_heldout.score(encoding, np.random.default_rng(seed))["factor_vae_score_heldout"]


def entangled_codes(seed: int, num_codes: int = 6) -> np.ndarray:
    """Codes on the sprites' grid that score somewhere between chance and 1, (1536, D)."""
    generator = np.random.default_rng(seed)
    mixed_ND = grid(SPRITES) / SPRITES @ generator.normal(size=(3, num_codes))
    return np.tanh(mixed_ND) + 0.3 * generator.normal(size=mixed_ND.shape)


def slow_score(encoding: Encoding, factor_V: np.ndarray, rows_VL: np.ndarray) -> float:
    """The definition of the reference library, vote by vote, for codes that are no categories."""
    codes_ND = encoding.mu_ND.astype(np.float64)
    whole_D = np.var(codes_ND, axis=0, ddof=1)
    survivors = [d for d, variance in enumerate(whole_D) if math.sqrt(variance) >= 0.05]
    winners = []
    for rows in rows_VL:
        ratios = {d: np.var(codes_ND[rows, d], ddof=1) / whole_D[d] for d in survivors}
        winners.append(min(ratios, key=ratios.__getitem__))
    pairs = list(zip(winners, factor_V.tolist(), strict=True))
    training, evaluation = Counter(pairs[:10_000]), pairs[10_000:]
    factors = range(len(encoding.factor_sizes))
    classifier = {d: int(np.argmax([training[d, k] for k in factors])) for d in survivors}
    return float(sum(classifier[d] == k for d, k in evaluation) / 5_000)


@pytest.mark.parametrize("seed", range(2))
def test_a_slow_obviously_right_scorer_agrees_on_the_same_votes(seed: int) -> None:
    codes_ND = entangled_codes(seed, num_codes=4)
    codes_ND[:, 2] *= 0.01
    encoding = encoding_of(grid(SPRITES), codes_ND)
    found = score(encoding, seed)
    assert 0.4 < found < 1
    assert found == pytest.approx(slow_score(encoding, *sample_votes(encoding, np.random.default_rng(seed))))


def test_perfect_codes_score_one_with_idle_dimensions_beside() -> None:
    generator = np.random.default_rng(0)
    factors_NK = random_rows(DSPRITES, 10_000, generator)
    codes_ND = np.concatenate([-0.1 * factors_NK, generator.normal(size=(10_000, 5))], axis=1)
    assert score(encoding_of(factors_NK, codes_ND)) == 1.0


def test_every_factor_may_have_two_codes() -> None:
    factors_NK = grid(SPRITES)
    assert score(encoding_of(factors_NK, np.concatenate([factors_NK, -3 * factors_NK], axis=1))) == 1.0


def test_a_rotated_pair_of_factors_is_told_apart_by_a_coin() -> None:
    a_N, b_N, c_N, d_N = grid((8, 8, 8, 8)).T
    codes_ND = np.column_stack([a_N, b_N, c_N + d_N, c_N - d_N])
    # 1/2 for the clean half, 1/4 for the rotated one; no majority is gained by luck.
    assert score(encoding_of(grid((8, 8, 8, 8)), codes_ND)) == pytest.approx(0.75, abs=0.02)


def test_noise_scores_chance_and_less_than_on_its_training_votes() -> None:
    fresh, own = [], []
    for seed in range(4):
        generator = np.random.default_rng(seed)
        factors_NK = random_rows(DSPRITES, 10_000, generator)
        encoding = encoding_of(factors_NK, generator.normal(size=(10_000, 10)))
        fresh.append(score(encoding, seed))
        own.append(factor_vae_score.score(encoding, np.random.default_rng(seed))["factor_vae_score"])
    assert np.mean(fresh) == pytest.approx(0.2, abs=0.015)
    assert np.mean(own) > np.mean(fresh) + 0.03


def test_a_code_whose_deviation_is_small_is_pruned_whatever_its_kl() -> None:
    """Unpruned, the faint trace of factor 7 scores 1.00 instead of 0.87."""
    factors_NK = grid([2] * 8)
    codes_ND = 4.0 * factors_NK
    kept, pruned = codes_ND.copy(), codes_ND.copy()
    kept[:, 7], pruned[:, 7] = 0.1002 * factors_NK[:, 7], 0.0997 * factors_NK[:, 7]
    assert score(encoding_of(factors_NK, kept, kl=[0.011] * 8)) == 1.0
    assert score(encoding_of(factors_NK, pruned, kl=[5.0] * 8)) == pytest.approx(0.875, abs=0.02)


@pytest.mark.parametrize("discrete", [(), (0, 1)])
def test_constant_codes_score_zero(discrete: tuple[int, ...]) -> None:
    assert score(encoding_of(grid(SPRITES), np.full((1536, 2), 0.7), discrete=discrete)) == 0.0


def test_a_category_that_is_the_shape_scores_one_whatever_its_labels() -> None:
    factors_NK = grid((3, 10, 12))
    codes_ND = np.column_stack([np.array([5, -1, 2])[factors_NK[:, 0]], factors_NK[:, 1:]])
    assert score(encoding_of(factors_NK, codes_ND, discrete=[0])) == 1.0


@few_examples
@given(
    order=st.permutations(range(6)),
    signs=st.lists(st.sampled_from([-1, 1]), min_size=6, max_size=6),
    exponents=st.lists(st.integers(0, 20), min_size=6, max_size=6),
    seed=st.integers(0, 1000),
)
def test_order_sign_and_scale_of_the_codes_do_not_matter(
    order: list[int], signs: list[int], exponents: list[int], seed: int
) -> None:
    codes_ND = entangled_codes(seed)
    changed_ND = (codes_ND * signs * np.exp2(exponents))[:, order]  # powers of two: no bit is lost
    before, after = (score(encoding_of(grid(SPRITES), codes), seed) for codes in (codes_ND, changed_ND))
    assert 0.34 < before < 1
    assert after == before


def test_evaluation_votes_are_not_those_that_are_learned_from() -> None:
    factor_V = np.zeros(15_000, dtype=np.int64)
    factor_V[10_000:] = 1
    assert heldout_accuracy(np.zeros(15_000, dtype=np.int64), factor_V) == 0.0
    factor_V[10_000:11_250] = 0
    assert heldout_accuracy(np.zeros(15_000, dtype=np.int64), factor_V) == 0.25


def test_a_code_without_training_votes_is_taken_for_the_first_factor() -> None:
    code_V, factor_V = np.zeros(15_000, dtype=np.int64), np.ones(15_000, dtype=np.int64)
    code_V[10_000:] = 1
    factor_V[10_000:11_000] = 0
    assert heldout_accuracy(code_V, factor_V) == 0.2


def test_votes_are_uniform_and_share_their_factor() -> None:
    factors_NK = grid((3, 70))
    factor_V, rows_VL = sample_votes(encoding_of(factors_NK, factors_NK), np.random.default_rng(0))
    assert rows_VL.shape == (15_000, 64)
    values_VL = np.where((factor_V == 0)[:, None], factors_NK[rows_VL, 0], factors_NK[rows_VL, 1])
    assert (values_VL == values_VL[:, :1]).all()
    # Of 70 rows 64 are drawn once each; of 3 rows some recur.
    distinct_V = (np.diff(np.sort(rows_VL, axis=1), axis=1) > 0).sum(axis=1) + 1
    assert set(distinct_V[factor_V == 0]) == {64}
    assert distinct_V[factor_V == 1].max() == 3
    assert stats.chisquare(np.bincount(factor_V)).pvalue > 0.001
    assert stats.chisquare(np.bincount(values_VL[factor_V == 1, 0])).pvalue > 0.001


def test_images_with_constant_factors_are_refused_like_those_without() -> None:
    with pytest.raises(InputError, match=r"factor_vae_score_heldout needs .* a test grid has none"):
        score(encoding_of(np.zeros((200, 2)), np.ones((200, 3))))
