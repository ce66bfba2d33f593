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
from trainables.metrics import factor_vae_score
from trainables.metrics.factor_vae_score import NUM_SAMPLES, NUM_VOTES, sample_votes

SPRITES = (6, 16, 16)
DSPRITES = (3, 6, 40, 32, 32)

few_examples = settings(max_examples=12, deadline=None, derandomize=True, database=None)


def grid(factor_sizes: Sequence[int]) -> np.ndarray:
    """Factor values of the whole grid, (N, K)."""
    return np.stack(np.unravel_index(np.arange(math.prod(factor_sizes)), factor_sizes), axis=1)


def random_rows(factor_sizes: Sequence[int], num_images: int, generator: np.random.Generator) -> np.ndarray:
    rows_N = generator.integers(0, math.prod(factor_sizes), num_images)
    return np.stack(np.unravel_index(rows_N, factor_sizes), axis=1)


def encoding_of(
    factors_NK: np.ndarray,
    codes_ND: np.ndarray,
    kl: Sequence[float] | None = None,
    discrete: Sequence[int] = (),
    has_posterior: bool = True,
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
        logvar_ND=np.zeros(codes_ND.shape, dtype=np.float32) if has_posterior else None,
        kl_D=np.ones(num_codes) if kl is None else np.array(kl, dtype=np.float64),
        discrete_D=np.isin(np.arange(num_codes), discrete),
        recon_nats_N=None,
        recon_mse_N=np.zeros(num_images),
    )


def score(encoding: Encoding, seed: int = 0) -> float:
    return factor_vae_score.score(encoding, np.random.default_rng(seed))["factor_vae_score"]


def entangled_codes(seed: int, num_codes: int = 6) -> np.ndarray:
    """Codes on the sprites' grid that score somewhere between chance and 1, (1536, D)."""
    generator = np.random.default_rng(seed)
    mixed_ND = grid(SPRITES) / SPRITES @ generator.normal(size=(3, num_codes))
    return np.tanh(mixed_ND) + 0.3 * generator.normal(size=mixed_ND.shape)


def slow_score(encoding: Encoding, factor_V: np.ndarray, rows_VL: np.ndarray) -> float:
    """The definition, in loops: one vote after another, variances as their textbook sums."""

    def variance(values: np.ndarray, is_category: bool) -> float:
        n = len(values)
        if is_category:
            return int((values[:, None] != values[None, :]).sum()) / (2 * n * (n - 1))
        mean = math.fsum(values.tolist()) / n
        return math.fsum((x - mean) ** 2 for x in values.tolist()) / (n - 1)

    whole = {d: variance(encoding.mu_ND[:, d], is_label) for d, is_label in enumerate(encoding.discrete_D)}
    survivors = [
        d
        for d, kl in enumerate(encoding.kl_D)
        if (kl > 0.01 or encoding.discrete_D[d]) and whole[d] > 0.05**2
    ]
    votes: Counter[tuple[int, int]] = Counter()
    for factor, rows in zip(factor_V.tolist(), rows_VL, strict=True):
        ratios = {d: variance(encoding.mu_ND[rows, d], encoding.discrete_D[d]) / whole[d] for d in survivors}
        votes[min(ratios, key=ratios.__getitem__), factor] += 1
    return sum(max(n for (d, _), n in votes.items() if d == code) for code in {d for d, _ in votes}) / len(
        factor_V
    )


def literal_votes(encoding: Encoding, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Votes drawn one by one, as the docstring tells it."""
    factors, rows = [], []
    for _ in range(800):
        factor = generator.integers(len(encoding.factor_sizes))
        value = generator.integers(encoding.factor_sizes[factor])
        candidates = np.flatnonzero(encoding.factors_NK[:, factor] == value)
        factors.append(factor)
        rows.append(generator.choice(candidates, 100, replace=len(candidates) < 100))
    return np.array(factors), np.array(rows)


def test_a_perfect_code_scores_one() -> None:
    assert score(encoding_of(grid(SPRITES), grid(SPRITES))) == 1.0


def test_a_perfect_code_of_ten_thousand_random_rows_scores_one_with_idle_dimensions_beside() -> None:
    generator = np.random.default_rng(0)
    factors_NK = random_rows(DSPRITES, 10_000, generator)
    codes_ND = np.concatenate([factors_NK, generator.normal(size=(10_000, 5))], axis=1)
    assert score(encoding_of(factors_NK, codes_ND)) == 1.0


def test_a_perfect_code_may_bend_its_factors() -> None:
    codes_ND = np.exp(grid(SPRITES) / 3.0) * [1, -5, 1e-2] + [0, 100, 0]
    assert score(encoding_of(grid(SPRITES), codes_ND)) == 1.0


def test_every_factor_may_have_two_codes() -> None:
    factors_NK = grid(SPRITES)
    codes_ND = np.concatenate([factors_NK, -0.3 * factors_NK, factors_NK**2], axis=1)
    assert score(encoding_of(factors_NK, codes_ND)) == 1.0


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
    assert 0.35 < before < 1
    assert after == before


@few_examples
@given(names=st.permutations([0, 1, 2, 7, -3]), seed=st.integers(0, 1000))
def test_the_names_of_categories_do_not_matter(names: list[int], seed: int) -> None:
    generator = np.random.default_rng(seed)
    factors_NK = grid((5, 8, 16))
    noisy_N = np.where(generator.random(640) < 0.4, generator.integers(0, 5, 640), factors_NK[:, 0])
    others_ND = factors_NK[:, 1:] @ generator.normal(size=(2, 2)) + generator.normal(size=(640, 2))
    before, after = (
        score(encoding_of(factors_NK, np.column_stack([labels_N, others_ND]), discrete=[0]), seed)
        for labels_N in (noisy_N, np.array(names)[noisy_N])
    )
    assert after == before


def test_a_category_that_is_the_shape_scores_one_with_and_without_a_posterior() -> None:
    factors_NK = grid((3, 10, 12))
    labels_N = np.array([5, -1, 2])[factors_NK[:, 0]]
    codes_ND = np.column_stack([labels_N, factors_NK[:, 1:]])
    for has_posterior in (True, False):
        encoding = encoding_of(factors_NK, codes_ND, discrete=[0], has_posterior=has_posterior)
        assert score(encoding) == 1.0


@pytest.mark.parametrize("kl", [1.0, 0.0])
@pytest.mark.parametrize("has_posterior", [True, False])
@pytest.mark.parametrize("discrete", [(), (0, 1)])
def test_a_constant_code_scores_zero(kl: float, has_posterior: bool, discrete: tuple[int, ...]) -> None:
    codes_ND = np.full((1536, 2), 0.7)
    assert score(encoding_of(grid(SPRITES), codes_ND, [kl, kl], discrete, has_posterior)) == 0.0


def test_a_constant_mean_of_narrow_posterior_leaves_the_other_codes_alone() -> None:
    codes_ND = np.column_stack([np.full(1536, 3.0), grid(SPRITES)])
    assert score(encoding_of(grid(SPRITES), codes_ND)) == 1.0


def test_a_random_code_is_near_chance() -> None:
    scores = []
    for seed in range(5):
        generator = np.random.default_rng(seed)
        factors_NK = random_rows(DSPRITES, 10_000, generator)
        scores.append(score(encoding_of(factors_NK, generator.normal(size=(10_000, 10))), seed))
    # Chance alone is 1/5, and 800 independent votes on 10 codes have an expected majority of .259.
    assert min(scores) > 0.23
    assert max(scores) < 0.29


def test_one_code_knows_one_factor() -> None:
    factors_NK = grid(SPRITES)
    factor_V, _ = sample_votes(encoding_of(factors_NK, factors_NK), np.random.default_rng(0))
    most_frequent = np.bincount(factor_V).max() / NUM_VOTES
    assert score(encoding_of(factors_NK, factors_NK[:, :1])) == most_frequent


def test_a_factor_that_only_a_collapsed_code_knows_is_lost() -> None:
    """Unpruned, the faint trace of factor 7 in a collapsed code scores 1.00 instead of 0.87."""
    factors_NK = grid([2] * 8)
    generator = np.random.default_rng(1)
    codes_ND = factors_NK + 0.01 * generator.normal(size=factors_NK.shape)
    codes_ND[:, 7] *= 1e-4
    collapsed = encoding_of(factors_NK, codes_ND, kl=[2.0] * 7 + [5e-9])
    factor_V, _ = sample_votes(collapsed, np.random.default_rng(0))
    assert score(collapsed) == np.mean(factor_V != 7) == pytest.approx(0.875, abs=0.03)
    assert score(encoding_of(factors_NK, codes_ND, has_posterior=False)) == np.mean(factor_V != 7)
    assert score(encoding_of(factors_NK, codes_ND, kl=[2.0] * 8)) == np.mean(factor_V != 7)


def test_a_code_at_the_threshold_is_collapsed() -> None:
    kept, pruned = (
        encoding_of(grid(SPRITES), grid(SPRITES), kl=[kl, 1.0, 1.0]) for kl in (np.nextafter(0.01, 1), 0.01)
    )
    assert score(kept) == 1.0
    assert score(pruned) < 0.75


def test_two_rotated_factors_are_told_apart_no_better_than_by_a_coin() -> None:
    factors_NK = grid((8, 8, 8, 8))
    a_N, b_N, c_N, d_N = factors_NK.T
    rotated = encoding_of(factors_NK, np.column_stack([a_N, b_N, c_N + d_N, c_N - d_N]))
    # 1/2 for the clean half, 1/4 for the rotated one, and what a majority of 200 coins gains (.014).
    assert np.mean([score(rotated, seed) for seed in range(5)]) == pytest.approx(0.764, abs=0.012)


@pytest.mark.parametrize("seed", range(3))
def test_a_slow_obviously_right_scorer_agrees_on_the_same_votes(seed: int) -> None:
    generator = np.random.default_rng(seed)
    codes_ND = entangled_codes(seed)
    codes_ND[:, 5] = (grid(SPRITES)[:, 0] + generator.integers(0, 3, 1536)) // 2
    kl = [0.3, 0.004, 1.0, 0.02, 2.0, 0.0]
    encoding = encoding_of(grid(SPRITES), codes_ND, kl, discrete=[5])
    votes = sample_votes(encoding, np.random.default_rng(seed))
    assert score(encoding, seed) == slow_score(encoding, *votes)


def test_votes_drawn_one_by_one_score_the_same_on_average() -> None:
    generator = np.random.default_rng(4)
    factors_NK = random_rows((3, 6, 12), 1000, generator)
    codes_ND = factors_NK / (3, 6, 12) @ generator.normal(size=(3, 4)) + 0.5 * generator.normal(
        size=(1000, 4)
    )
    encoding = encoding_of(factors_NK, codes_ND)
    fast = [score(encoding, seed) for seed in range(100)]
    slow = [slow_score(encoding, *literal_votes(encoding, np.random.default_rng(seed))) for seed in range(6)]
    assert 0.4 < np.mean(fast) < 0.95
    assert abs(np.mean(fast) - np.mean(slow)) < 3 * np.std(fast) / math.sqrt(len(slow))


def votes_of(encoding: Encoding, num_draws: int) -> tuple[np.ndarray, np.ndarray]:
    draws = [sample_votes(encoding, np.random.default_rng(seed)) for seed in range(num_draws)]
    return np.concatenate([f for f, _ in draws]), np.concatenate([r for _, r in draws])


def test_the_images_of_a_vote_share_its_factor_and_are_distinct_where_they_can_be() -> None:
    factors_NK = grid((3, 110))
    factor_V, rows_VL = votes_of(encoding_of(factors_NK, factors_NK), 1)
    assert rows_VL.shape == (800, 100)
    for factor, rows in zip(factor_V, rows_VL, strict=True):
        assert len(set(factors_NK[rows, factor])) == 1
        # Of 110 rows 100 are drawn once each; of 3 rows every one recurs.
        assert len(set(rows)) == (100 if factor == 0 else 3)


def test_a_value_with_just_enough_images_gives_all_of_them() -> None:
    factors_NK = grid((4, NUM_SAMPLES))
    factor_V, rows_VL = votes_of(encoding_of(factors_NK, factors_NK), 1)
    for rows in rows_VL[factor_V == 0]:
        assert sorted(rows % NUM_SAMPLES) == list(range(NUM_SAMPLES))


def test_factors_values_and_images_are_drawn_uniformly() -> None:
    factors_NK = grid((3, 110))
    factor_V, rows_VL = votes_of(encoding_of(factors_NK, factors_NK), 20)
    is_first_V = factor_V == 0
    assert stats.chisquare(np.bincount(factor_V)).pvalue > 0.001
    for factor, is_vote_V in ((0, is_first_V), (1, ~is_first_V)):
        value_v = factors_NK[rows_VL[is_vote_V, 0], factor]
        assert stats.chisquare(np.bincount(value_v)).pvalue > 0.001
    # Without replacement from 110: each is left out of a vote with probability 1/11.
    left_out = is_first_V.sum() - np.bincount(rows_VL[is_first_V].ravel() % 110, minlength=110)
    chi2 = np.sum((left_out - is_first_V.sum() / 11) ** 2) / (is_first_V.sum() / 11 * 10 / 11) * 109 / 110
    assert 0.001 < stats.chi2.cdf(chi2, 109) < 0.999
    # With replacement from 3: all of 100 x 8,000 independent.
    assert stats.chisquare(np.bincount(rows_VL[~is_first_V].ravel() // 110)).pvalue > 0.001


def test_any_two_images_are_left_out_together_as_often_as_any_other_two() -> None:
    factors_NK = grid((3, 102))
    factor_V, rows_VL = votes_of(encoding_of(factors_NK, factors_NK), 40)
    seen_V102 = np.zeros(((factor_V == 0).sum(), 102), dtype=bool)
    np.put_along_axis(seen_V102, rows_VL[factor_V == 0] % 102, True, axis=1)
    missing_V2 = np.nonzero(~seen_V102)[1].reshape(-1, 2)
    pairs = np.bincount(missing_V2 @ [102, 1], minlength=102**2).reshape(102, 102)
    assert stats.chisquare(pairs[np.triu_indices(102, 1)]).pvalue > 0.001


def test_values_without_images_and_factors_with_one_value_are_never_picked() -> None:
    factors_NK = grid((1, 5, 8))
    factors_NK = factors_NK[factors_NK[:, 1] != 2]
    factor_V, rows_VL = votes_of(encoding_of(factors_NK, factors_NK), 1)
    assert set(factor_V) == {1, 2}
    assert rows_VL.max() < len(factors_NK)
    assert set(factors_NK[rows_VL[factor_V == 1], 1].ravel()) == {0, 1, 3, 4}


def test_a_value_that_one_image_has_is_never_picked_since_no_code_moves_there() -> None:
    """All variances would be 0, and the first code would win: the score would depend on the order of the codes."""
    generator = np.random.default_rng(0)
    factors_NK = np.column_stack([np.arange(400), *generator.integers(0, 4, (2, 400))])
    codes_ND = np.column_stack([factors_NK[:, 1:], generator.normal(size=400)])
    factor_V, _ = votes_of(encoding_of(factors_NK, codes_ND), 1)
    assert set(factor_V) == {1, 2}
    scores = [
        score(encoding_of(factors_NK, codes_ND[:, order])) for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0])
    ]
    assert scores == [1.0] * 3
    with pytest.raises(InputError, match=r"needs ground-truth factors with two values of two"):
        score(encoding_of(factors_NK[:, :1], codes_ND))


def test_images_with_constant_factors_are_refused_like_those_without() -> None:
    with pytest.raises(InputError, match="a test grid has none"):
        score(encoding_of(np.zeros((200, 2)), np.ones((200, 3))))


def test_another_generator_gives_other_votes_of_about_the_same_score() -> None:
    encoding = encoding_of(grid(SPRITES), entangled_codes(0))
    scores = [score(encoding, seed) for seed in range(10)]
    assert len(set(scores)) > 3
    assert 0 < np.std(scores) < 0.03


def test_a_score_is_a_number_of_eight_hundredths() -> None:
    votes = score(encoding_of(grid(SPRITES), entangled_codes(1))) * 800
    assert votes == pytest.approx(round(votes), abs=1e-9)
