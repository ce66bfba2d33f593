from collections.abc import Sequence
from random import Random

import numpy as np
import pytest
import scipy.stats
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from hypothesis.strategies import SearchStrategy

from sweeper.analysis import pareto

SMALL_WHOLE = st.integers(-4, 4).map(float)  # many ties and duplicates, and sums without rounding
ONE_TO_FOUR = st.integers(1, 4)


def losses(
    num_objectives: SearchStrategy[int] = ONE_TO_FOUR,
    elements: SearchStrategy[float] = SMALL_WHOLE,
    max_draws: int = 12,
) -> SearchStrategy[np.ndarray]:
    shapes = st.tuples(st.integers(1, max_draws), num_objectives)
    return shapes.flatmap(lambda shape: arrays(np.float64, shape, elements=elements))


def beats(a_M: np.ndarray, b_M: np.ndarray) -> bool:
    return bool((a_M <= b_M).all() and (a_M < b_M).any())


def hypervolume_by_inclusion_exclusion(losses_NM: np.ndarray, reference_M: np.ndarray) -> float:
    """Sum over all subsets of the signed volume of the intersection of their boxes."""
    total = 0.0
    for chosen in range(1, 2 ** len(losses_NM)):
        rows = [n for n in range(len(losses_NM)) if chosen >> n & 1]
        corner_M = losses_NM[rows].max(axis=0)
        total -= (-1) ** len(rows) * np.prod(np.maximum(reference_M - corner_M, 0))
    return total


def staircase_by_hand(losses_N2: np.ndarray, at: float) -> float:
    return min([y for x, y in losses_N2 if x <= at], default=np.inf)


# Signs


def test_maximized_objectives_change_sign_and_the_rest_do_not() -> None:
    values_NM = np.array([[40.0, 0.8], [20.0, 0.6]])
    losses_NM = pareto.to_losses(values_NM, ["minimize", "maximize"])
    assert losses_NM.tolist() == [[40.0, -0.8], [20.0, -0.6]]
    assert (pareto.to_losses(losses_NM, ["minimize", "maximize"]) == values_NM).all()


def test_an_unknown_direction_or_a_missing_one_is_refused() -> None:
    with pytest.raises(ValueError, match="up"):
        pareto.to_losses(np.zeros((1, 2)), ["up", "minimize"])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="2 objectives need as many directions, not 1"):
        pareto.to_losses(np.zeros((3, 2)), ["minimize"])


# Fronts


@given(losses())
def test_a_draw_is_on_the_front_exactly_if_no_other_draw_beats_it(losses_NM: np.ndarray) -> None:
    expected_N = [not any(beats(other_M, mine_M) for other_M in losses_NM) for mine_M in losses_NM]
    assert pareto.is_non_dominated(losses_NM).tolist() == expected_N


@given(losses(elements=st.sampled_from([-np.inf, -1.0, -0.0, 0.0, 1.0, np.inf, np.nan])))
def test_nan_rows_are_dominated_and_beat_nobody_and_infinities_are_ordered(losses_NM: np.ndarray) -> None:
    whole_NM = [row_M for row_M in losses_NM if not np.isnan(row_M).any()]
    expected_N = [
        not np.isnan(mine_M).any() and not any(beats(other_M, mine_M) for other_M in whole_NM)
        for mine_M in losses_NM
    ]
    assert pareto.is_non_dominated(losses_NM).tolist() == expected_N


@given(losses(), st.randoms(use_true_random=False))
def test_the_front_does_not_depend_on_the_order_of_draws_or_objectives(
    losses_NM: np.ndarray, random: Random
) -> None:
    front_N = pareto.is_non_dominated(losses_NM)
    rows = random.sample(range(losses_NM.shape[0]), losses_NM.shape[0])
    columns = random.sample(range(losses_NM.shape[1]), losses_NM.shape[1])
    assert (pareto.is_non_dominated(losses_NM[rows][:, columns]) == front_N[rows]).all()


@pytest.mark.parametrize("num_objectives", [1, 2, 3])
def test_the_fronts_of_many_are_those_of_each(num_objectives: int) -> None:
    generator = np.random.default_rng(0)
    size = (20, 9, num_objectives)
    losses_BNM = generator.choice([-np.inf, 0.0, 1.0, 2.0, np.inf, np.nan], size)
    expected_BN = [pareto.is_non_dominated(losses_NM) for losses_NM in losses_BNM]
    assert pareto.is_non_dominated(losses_BNM).tolist() == np.stack(expected_BN).tolist()


def test_duplicates_stay_on_the_front_together_and_negative_zero_is_zero() -> None:
    assert pareto.is_non_dominated(np.array([[0.0, 1.0], [-0.0, 1.0], [0.0, 2.0]])).tolist() == [
        True,
        True,
        False,
    ]


@pytest.mark.parametrize("num_objectives", [1, 2, 3])
def test_no_draws_have_an_empty_front_and_no_volume(num_objectives: int) -> None:
    none_NM = np.zeros((0, num_objectives))
    assert pareto.is_non_dominated(none_NM).shape == (0,)
    assert pareto.hypervolume(none_NM, np.ones(num_objectives)) == 0


def test_ten_thousand_draws_that_are_all_on_the_front_are_all_found() -> None:
    x_N = np.random.default_rng(0).permutation(10_000).astype(float)
    assert pareto.is_non_dominated(np.stack([x_N, -x_N], axis=1)).all()


# Hypervolume


def test_hypervolume_of_a_staircase_is_the_area_counted_by_hand() -> None:
    staircase_N2 = np.array([[1.0, 3.0], [2.0, 2.0], [3.0, 1.0]])
    assert pareto.hypervolume(staircase_N2, np.array([4.0, 4.0])) == 3 + 2 + 1


@pytest.mark.parametrize("num_objectives", [1, 2, 3])
def test_the_volumes_of_many_are_those_of_each_to_the_last_bit(num_objectives: int) -> None:
    generator = np.random.default_rng(0)
    losses_BNM = generator.normal(size=(200, 11, num_objectives))
    losses_BNM[::3] = losses_BNM[::3].round()  # ties
    losses_BNM[generator.uniform(size=losses_BNM.shape) < 0.02] = np.nan
    losses_BNM[5] = np.inf
    for reference_M in (np.full(num_objectives, 0.7), np.full(num_objectives, -np.inf)):
        found_B = pareto.hypervolumes(losses_BNM, reference_M)
        assert found_B.tolist() == [pareto.hypervolume(each_NM, reference_M) for each_NM in losses_BNM]


def test_hypervolume_of_one_objective_is_the_distance_from_the_reference_to_the_best() -> None:
    assert pareto.hypervolume(np.array([[3.0], [1.0], [np.nan], [9.0]]), np.array([5.0])) == 4


@given(losses(max_draws=7), st.integers(-2, 5))
def test_hypervolume_equals_inclusion_and_exclusion_of_the_boxes(
    losses_NM: np.ndarray, reference: int
) -> None:
    reference_M = np.full(losses_NM.shape[1], float(reference))
    assert pareto.hypervolume(losses_NM, reference_M) == hypervolume_by_inclusion_exclusion(
        losses_NM, reference_M
    )


@given(losses(num_objectives=st.just(2), max_draws=30))
def test_hypervolume_of_two_whole_objectives_is_the_number_of_unit_cells_beaten(
    losses_N2: np.ndarray,
) -> None:
    cells_G2 = np.stack(np.meshgrid(np.arange(-4, 5), np.arange(-4, 5)), axis=-1).reshape(-1, 2)
    beaten_G = (losses_N2[:, None] <= cells_G2).all(axis=-1).any(axis=0)
    assert pareto.hypervolume(losses_N2, np.array([5.0, 5.0])) == beaten_G.sum()


def test_hypervolume_of_three_objectives_agrees_with_monte_carlo() -> None:
    generator = np.random.default_rng(1)
    losses_N3 = generator.random((20, 3))
    points_B3 = generator.random((100_000, 3))
    beaten_B = np.zeros(len(points_B3), dtype=bool)
    for row_3 in losses_N3:
        beaten_B |= (row_3 <= points_B3).all(axis=1)
    four_standard_errors = 4 * np.sqrt(0.25 / len(points_B3))
    assert abs(pareto.hypervolume(losses_N3, np.ones(3)) - beaten_B.mean()) < four_standard_errors


@given(losses(), losses(), st.integers(0, 5))
def test_a_further_draw_never_lowers_the_volume_and_a_dominated_one_leaves_it(
    losses_NM: np.ndarray, others_NM: np.ndarray, seed: int
) -> None:
    num_objectives = losses_NM.shape[1]
    reference_M = np.full(num_objectives, 5.0)
    before = pareto.hypervolume(losses_NM, reference_M)
    further_M = np.resize(others_NM, num_objectives)
    assert pareto.hypervolume(np.vstack([losses_NM, further_M]), reference_M) >= before
    generator = np.random.default_rng(seed)
    beaten_M = generator.choice(losses_NM) + generator.integers(0, 3, num_objectives)
    assert pareto.hypervolume(np.vstack([losses_NM, beaten_M]), reference_M) == before


@given(losses(), st.permutations(range(4)))
def test_the_volume_is_that_of_the_front_alone_in_any_order(losses_NM: np.ndarray, order: list[int]) -> None:
    reference_M = np.arange(2.0, 2.0 + losses_NM.shape[1])
    volume = pareto.hypervolume(losses_NM, reference_M)
    columns = [c for c in order if c < losses_NM.shape[1]]
    front_NM = losses_NM[pareto.is_non_dominated(losses_NM)]
    assert pareto.hypervolume(front_NM[::-1][:, columns], reference_M[columns]) == volume


@given(losses(num_objectives=st.just(3)), st.sampled_from([0.5, 2.0, 8.0]), st.integers(-3, 3))
def test_the_volume_scales_with_the_unit_of_an_objective_and_ignores_its_origin(
    losses_N3: np.ndarray, factor: float, shift: int
) -> None:
    reference_3, units_3 = np.full(3, 5.0), np.array([1.0, factor, 1.0])
    volume = pareto.hypervolume(losses_N3, reference_3)
    moved = pareto.hypervolume(losses_N3 * units_3 + shift, reference_3 * units_3 + shift)
    assert moved == factor * volume


def test_draws_that_are_not_better_than_the_reference_in_everything_contribute_nothing() -> None:
    useless_N2 = np.array([[1.0, 4.0], [-9.0, 5.0], [np.nan, 0.0], [0.0, np.nan]])
    assert pareto.hypervolume(useless_N2, np.array([4.0, 4.0])) == 0


def test_the_reference_point_lies_a_tenth_of_the_range_behind_the_worst_finite_loss() -> None:
    losses_N2 = np.array([[10.0, -0.9], [20.0, -0.4], [np.nan, -0.5], [np.inf, -0.6]])
    assert np.allclose(pareto.reference_point(losses_N2), [21.0, -0.35], rtol=0, atol=1e-12)


def test_an_objective_in_which_all_are_equal_leaves_the_volume_of_the_others() -> None:
    losses_N2 = np.array([[1.0, 7.0], [3.0, 7.0]])
    reference_2 = pareto.reference_point(losses_N2)
    assert pareto.hypervolume(losses_N2, reference_2) == pareto.hypervolume(losses_N2[:, :1], reference_2[:1])


def test_without_a_finite_loss_nothing_is_better_than_the_reference() -> None:
    diverged_N2 = np.array([[np.nan, -0.5], [np.inf, -0.6]])
    assert pareto.reference_point(diverged_N2)[0] == -np.inf
    assert pareto.hypervolume(diverged_N2, pareto.reference_point(diverged_N2)) == 0


# Intervals over seeds


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.99, 0.999])
def test_the_bounds_of_student_t_agree_with_scipy(level: float) -> None:
    for dof in [*range(1, 61), 99, 100, 999, 1000, 4999, 9999, 10_000]:
        expected = scipy.stats.t.ppf((1 + level) / 2, dof)
        assert pareto.student_t_bound(level, dof) == pytest.approx(expected, rel=1e-9), dof


def test_the_bound_of_one_degree_of_freedom_is_that_of_cauchy() -> None:
    assert pareto.student_t_bound(0.8, 1) == pytest.approx(np.tan(0.4 * np.pi), rel=1e-13)


def test_the_bound_of_two_degrees_of_freedom_has_its_closed_form() -> None:
    level = 0.95  # F(t) = 1/2 + t / (2 sqrt(2 + t^2)), hence t = level sqrt(2 / (1 - level^2))
    assert pareto.student_t_bound(level, 2) == pytest.approx(level * np.sqrt(2 / (1 - level**2)), rel=1e-13)


@pytest.mark.parametrize(("level", "dof"), [(0, 3), (1, 3), (95, 3), (float("nan"), 3), (0.95, 0)])
def test_a_bound_of_an_impossible_level_or_dof_is_refused(level: float, dof: int) -> None:
    with pytest.raises(ValueError, match="level in"):
        pareto.student_t_bound(level, dof)


def test_the_interval_of_three_seeds_is_the_one_computed_by_hand() -> None:
    mean, lower, upper = pareto.mean_interval(np.array([1.0, 2.0, 3.0]))
    half_width = 4.3026527 / np.sqrt(3)  # the t of tables, 2 degrees of freedom; standard deviation 1
    assert [mean, lower, upper] == pytest.approx([2, 2 - half_width, 2 + half_width], abs=1e-7)


@given(arrays(np.float64, (5, 3, 2), elements=st.floats(-100, 100)))
def test_intervals_of_many_draws_and_objectives_are_those_of_each(values_SNM: np.ndarray) -> None:
    together = pareto.mean_interval(values_SNM)
    for n, m in np.ndindex(3, 2):
        alone = pareto.mean_interval(values_SNM[:, n, m])
        assert np.allclose([limit[n, m] for limit in together], alone, rtol=1e-9, atol=1e-9)


def test_one_seed_has_a_mean_and_no_limits() -> None:
    interval = pareto.mean_interval(np.array([[0.7, 8.0]]))
    assert interval.mean.tolist() == [0.7, 8.0]
    assert np.isnan(interval.lower).all()
    assert np.isnan(interval.upper).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_diverged_seed_leaves_no_limits(bad: float) -> None:
    interval = pareto.mean_interval(np.array([1.0, 2.0, bad]))
    assert np.isnan([interval.lower, interval.upper]).all()


def test_a_mean_of_no_seeds_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one seed"):
        pareto.mean_interval(np.zeros((0, 2)))


@pytest.mark.parametrize(("num_seeds", "level"), [(2, 0.95), (5, 0.95), (5, 0.8), (10, 0.99)])
def test_the_interval_covers_the_true_mean_as_often_as_it_says(num_seeds: int, level: float) -> None:
    num_trials = 20_000
    values_SN = np.random.default_rng(2).normal(3.0, 0.1, size=(num_seeds, num_trials))
    interval = pareto.mean_interval(values_SN, level)
    coverage = ((interval.lower <= 3.0) & (interval.upper >= 3.0)).mean()
    four_standard_errors = 4 * np.sqrt(level * (1 - level) / num_trials)
    assert abs(coverage - level) < four_standard_errors


# Bootstrap


def bootstrap(draws: Sequence[np.ndarray], num_resamples: int = 1000, seed: int = 0) -> pareto.BootstrapFront:
    reference_M = pareto.reference_point(np.concatenate(draws))
    return pareto.bootstrap_front(draws, reference_M, np.random.default_rng(seed), num_resamples)


def test_a_clearly_separated_draw_is_on_every_front_and_the_beaten_one_on_none() -> None:
    noise_S2 = np.random.default_rng(3).normal(0, 0.1, size=(5, 2))
    assert bootstrap([noise_S2, noise_S2 + 10, noise_S2 + np.array([-10, 10])]).membership_N.tolist() == [
        1,
        0,
        1,
    ]


def test_of_two_equal_draws_each_is_on_half_of_the_fronts_and_on_both_where_they_tie() -> None:
    values_S = np.random.default_rng(4).normal(size=9)
    same_S2 = np.stack(
        [values_S, values_S], axis=1
    )  # one objective in two guises: a front of one, but for ties
    result = bootstrap([same_S2, same_S2], num_resamples=4000)
    assert result.membership_N == pytest.approx([0.5, 0.5], abs=4 * np.sqrt(0.25 / 4000))


def test_two_draws_of_two_independent_objectives_are_each_on_three_quarters_of_the_fronts() -> None:
    independent_S2 = np.array([[x, y] for x in range(8) for y in range(8)], dtype=float)
    result = bootstrap([independent_S2, independent_S2], num_resamples=4000)
    assert result.membership_N == pytest.approx(
        [0.75, 0.75], abs=0.04
    )  # a mean ties in about 2 % of resamples


def test_a_seed_keeps_its_objectives_together() -> None:
    values_S = np.random.default_rng(5).normal(size=6)
    means_BM = bootstrap([np.stack([values_S, 1 - 2 * values_S], axis=1)]).means_BNM[:, 0]
    assert np.allclose(means_BM[:, 1], 1 - 2 * means_BM[:, 0], rtol=0, atol=1e-12)


def test_resampled_means_have_the_student_t_of_the_seeds_as_marginals_and_their_correlation() -> None:
    values_SM = np.random.default_rng(6).normal(size=(6, 2)) @ np.array([[1.0, 0.8], [0.0, 0.6]])
    means_BM = bootstrap([values_SM], num_resamples=20_000).means_BNM[:, 0]
    for level in (0.5, 0.95):
        _, lower_M, upper_M = pareto.mean_interval(values_SM, level)
        inside_M = ((means_BM >= lower_M) & (means_BM <= upper_M)).mean(axis=0)
        assert inside_M == pytest.approx([level] * 2, abs=4 * np.sqrt(level * (1 - level) / 20_000))
    found = np.corrcoef(means_BM.T)[0, 1]
    assert found == pytest.approx(np.corrcoef(values_SM.T)[0, 1], abs=0.05)


@pytest.mark.parametrize("num_seeds", [2, 3, 5])
def test_the_resamples_cover_the_true_mean_as_often_as_is_said(num_seeds: int) -> None:
    num_trials, generator = 400, np.random.default_rng(num_seeds)
    trials = generator.normal(3.0, 0.5, size=(num_trials, num_seeds, 1))
    means_BN1 = pareto.bootstrap_front(list(trials), np.array([99.0]), generator, 400).means_BNM
    lower_N1, upper_N1 = np.quantile(means_BN1, [0.025, 0.975], axis=0)
    assert np.mean((lower_N1 <= 3.0) & (upper_N1 >= 3.0)) == pytest.approx(0.95, abs=0.04)


def test_the_same_generator_gives_the_same_bootstrap_and_another_one_another() -> None:
    draws = [np.random.default_rng(n).normal(size=(3 + n, 2)) for n in range(4)]
    first, again, other = bootstrap(draws), bootstrap(draws), bootstrap(draws, seed=1)
    for name in ("means_BNM", "membership_N", "hypervolume_B"):
        assert (getattr(first, name) == getattr(again, name)).all()
        assert (getattr(first, name) != getattr(other, name)).any()


def test_equal_seeds_leave_the_plain_front_without_spread() -> None:
    losses_NM = np.array([[1.0, 3.0, 2.0], [2.0, 2.0, 2.0], [3.0, 3.0, 3.0]])
    reference_M = np.full(3, 4.0)
    twice = list(losses_NM[:, None].repeat(2, axis=1))
    result = pareto.bootstrap_front(twice, reference_M, np.random.default_rng(0), 10)
    assert (result.membership_N == pareto.is_non_dominated(losses_NM)).all()
    assert result.hypervolume_interval() == (pareto.hypervolume(losses_NM, reference_M),) * 2


def test_of_a_single_seed_nothing_is_known() -> None:
    lone, many = np.array([[1.0, 1.0]]), np.array([[2.0, 2.0], [2.0, 2.0]])
    on_front = bootstrap([lone, many])
    assert np.isnan(on_front.membership_N).tolist() == [True, False]
    assert np.isnan(on_front.hypervolume_interval()).all()
    behind = bootstrap([lone + 2, many])
    assert np.isfinite(behind.hypervolume_interval()).all()


def test_a_draw_with_a_diverged_seed_is_on_no_front() -> None:
    draws = [np.array([[0.0, 0.0], [np.nan, np.nan]]), np.array([[1.0, 1.0]] * 2)]
    assert bootstrap(draws).membership_N.tolist() == [0, 1]


def test_the_hypervolume_interval_covers_its_share_of_the_resamples() -> None:
    result = bootstrap([np.random.default_rng(n).normal(size=(5, 2)) for n in range(4)])
    lower, upper = result.hypervolume_interval(0.9)
    assert ((result.hypervolume_B >= lower) & (result.hypervolume_B <= upper)).mean() == pytest.approx(
        0.9, abs=0.002
    )


@pytest.mark.parametrize("draws", [[], [np.zeros((3, 2)), np.zeros((0, 2))]])
def test_a_bootstrap_without_draws_or_seeds_is_refused(draws: list[np.ndarray]) -> None:
    with pytest.raises(ValueError, match="at least one"):
        pareto.bootstrap_front(draws, np.ones(2), np.random.default_rng(0))


# Staircases and their band


@given(losses(num_objectives=st.just(2)), arrays(np.float64, 5, elements=SMALL_WHOLE))
def test_the_staircase_is_the_best_second_objective_at_or_below_the_first(
    losses_N2: np.ndarray, grid_G: np.ndarray
) -> None:
    expected_G = [staircase_by_hand(losses_N2, at) for at in grid_G]
    assert pareto.attained(losses_N2, grid_G).tolist() == expected_G


@given(losses(num_objectives=st.just(2)))
def test_the_staircase_is_that_of_the_front_alone_and_never_rises(losses_N2: np.ndarray) -> None:
    assume(len(losses_N2) > 1)
    grid_G = np.arange(-5.0, 6.0)
    staircase_G = pareto.attained(losses_N2, grid_G)
    front_N2 = losses_N2[pareto.is_non_dominated(losses_N2)]
    assert (pareto.attained(front_N2, grid_G) == staircase_G).all()
    assert (staircase_G[1:] <= staircase_G[:-1]).all()


def test_a_staircase_leaves_out_rows_with_a_nan() -> None:
    losses_N2 = np.array([[0.0, np.nan], [np.nan, -9.0], [1.0, 2.0]])
    assert pareto.attained(losses_N2, np.array([0.0, 1.0])).tolist() == [np.inf, 2.0]


@settings(max_examples=50)
@given(arrays(np.float64, (7, 3, 2), elements=SMALL_WHOLE), arrays(np.float64, 4, elements=SMALL_WHOLE))
def test_the_band_is_made_of_order_statistics_of_the_staircases(
    means_BN2: np.ndarray, grid_G: np.ndarray
) -> None:
    each_BG = [[staircase_by_hand(means_N2, at) for at in grid_G] for means_N2 in means_BN2]
    band_QG = pareto.attainment_band(means_BN2, grid_G)
    for q, quantile in enumerate([0.025, 0.5, 0.975]):
        for g, values_B in enumerate(np.transpose(each_BG)):
            lowest = min(v for v in values_B if (values_B <= v).mean() >= quantile)
            assert band_QG[q, g] == lowest


def test_the_band_of_one_draw_has_the_quantiles_of_its_second_objective_beyond_its_first() -> None:
    values_S = np.random.default_rng(7).normal(size=20)
    result = bootstrap([np.stack([np.zeros(20), values_S], axis=1)], num_resamples=999)
    before_Q, after_Q = pareto.attainment_band(result.means_BNM, np.array([-1.0, 1.0])).T
    assert (before_Q == np.inf).all()
    assert np.allclose(
        after_Q, np.quantile(result.means_BNM[:, 0, 1], [0.025, 0.5, 0.975]), rtol=0, atol=0.02
    )
