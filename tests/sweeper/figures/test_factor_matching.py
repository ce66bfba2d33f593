"""Names of code dimensions, on codes of which it is known what they tell."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sweeper.figures.factor_matching import Matching, fraction, match, strengths
from trainables.encoding import Encoding

NAMES = ("scale", "pos_x", "pos_y")
SIZES = (3, 4, 5)


def grid() -> np.ndarray:
    return np.stack(np.unravel_index(np.arange(np.prod(SIZES)), SIZES), axis=1)


def encoding(
    codes_ND: np.ndarray,
    names: tuple[str, ...] = NAMES,
    kl_D: Sequence[float] | None = None,
    **changes: Any,
) -> Encoding:
    factors_NK = grid() if names else np.zeros((60, 0), dtype=np.int64)
    num_codes = codes_ND.shape[1]
    made = Encoding(
        data="grid",
        factor_names=names,
        factor_sizes=SIZES if names else (),
        rows_N=np.arange(60),
        factors_NK=factors_NK,
        mu_ND=codes_ND.astype(np.float32),
        logvar_ND=np.zeros((60, num_codes), dtype=np.float32),
        kl_D=np.ones(num_codes) if kl_D is None else np.array(kl_D),
        discrete_D=np.zeros(num_codes, dtype=bool),
        recon_nats_N=np.zeros(60),
        recon_mse_N=np.zeros(60),
    )
    return replace(made, **changes)


def labels(matching: Matching) -> list[str]:
    return [each.label for each in matching.dimensions]


def indices(matching: Matching) -> list[int]:
    return [each.index for each in matching.dimensions]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_a_permuted_perfect_code_has_a_row_for_each_factor_in_their_order(
    order: tuple[int, int, int],
) -> None:
    found = match(encoding(-2.0 * grid()[:, order]))
    assert labels(found) == ["scale 1.00", "pos_x 1.00", "pos_y 1.00"]
    assert indices(found) == [order.index(k) for k in range(3)]
    assert found.unmatched == ()


def test_strength_is_the_share_of_the_factor_that_is_told() -> None:
    codes_ND = np.stack([grid()[:, 1] // 2, grid()[:, 0]], axis=1)  # one bit of pos_x; all of scale
    assert strengths(encoding(codes_ND)) == pytest.approx(
        np.array([[0, np.log(2) / np.log(4), 0], [1, 0, 0]]), abs=1e-12
    )
    found = match(encoding(codes_ND))
    assert labels(found) == ["scale 1.00", "pos_x .50"]
    assert found.unmatched == (("pos_y", 0.0),)


def test_a_dimension_that_tells_two_factors_nearly_equally_says_both_the_stronger_first() -> None:
    both_N = grid()[:, 0] * 4 + grid()[:, 1]  # tells scale and pos_x wholly
    half_N = grid()[:, 1] // 2 * 5 + grid()[:, 2]  # half of pos_x, all of pos_y
    found = match(encoding(np.stack([both_N, half_N], axis=1)))
    assert labels(found) == ["scale 1.00, pos_x 1.00", "pos_y 1.00"]
    assert found.dimensions[0].factors == ("scale", "pos_x")


def test_inactive_dimensions_come_last_and_match_nothing() -> None:
    found = match(encoding(grid(), kl_D=[1.0, 0.0, 1.0]))
    assert labels(found) == ["scale 1.00", "pos_y 1.00", "inactive"]
    assert [each.is_active for each in found.dimensions] == [True, True, False]
    assert found.unmatched == (("pos_x", 0.0),)


def test_a_dimension_that_tells_nothing_is_between_those_that_do_and_those_that_are_inactive() -> None:
    _, x_N, y_N = grid().T
    mixed_N = (x_N + (y_N < 2)) % 2  # alone, x tells hardly anything of it, and y nothing
    codes_ND = np.stack([np.zeros(60), mixed_N, y_N], axis=1)
    found = match(encoding(codes_ND, kl_D=[0.0, 1.0, 1.0]))
    assert labels(found) == ["pos_y 1.00", "no factor", "inactive"]
    assert indices(found) == [2, 1, 0]
    assert [name for name, _ in found.unmatched] == ["scale", "pos_x"]


def test_of_two_dimensions_of_one_factor_the_stronger_comes_first() -> None:
    codes_ND = np.stack([grid()[:, 1] // 2, grid()[:, 1]], axis=1)
    assert labels(match(encoding(codes_ND))) == ["pos_x 1.00", "pos_x .50"]


def test_a_factor_with_one_value_is_not_asked_for() -> None:
    factors_NK = grid()
    factors_NK[:, 1] = 2
    found = match(encoding(grid(), factors_NK=factors_NK))
    assert labels(found) == ["scale 1.00", "pos_y 1.00", "no factor"]
    assert found.unmatched == ()


def test_without_ground_truth_dimensions_are_by_kl() -> None:
    found = match(encoding(grid(), names=(), kl_D=[0.5, 0.001, 1.234]))
    assert labels(found) == ["1.23 nats", "0.50 nats", "inactive"]
    assert indices(found) == [2, 0, 1]
    without_posterior = encoding(grid(), names=(), kl_D=[0, 0, 0], logvar_ND=None)
    assert labels(match(without_posterior)) == ["z0", "z1", "z2"]


def test_a_code_of_nothing_but_inactive_dimensions_matches_no_factor() -> None:
    found = match(encoding(grid(), kl_D=[0, 0, 0]))
    assert labels(found) == ["inactive"] * 3
    assert found.unmatched == tuple((name, 0.0) for name in NAMES)


def test_fractions_are_written_as_in_tables() -> None:
    assert [fraction(v) for v in (0.926, 1.0, -0.2, -0.001, 0.0, -1.0)] == [
        ".93",
        "1.00",
        "-.20",
        ".00",
        ".00",
        "-1.00",
    ]
