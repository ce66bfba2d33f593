"""Gaussian total correlation against its closed form and its invariances."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trainables.metrics.test_metrics import a_vae, score


def tc_of(codes_ND: np.ndarray, discrete_D: np.ndarray | None = None) -> float:
    codes_ND = np.asarray(codes_ND, dtype=np.float32)
    encoding = dataclasses.replace(
        a_vae(),
        rows_N=np.arange(len(codes_ND)),
        factors_NK=np.zeros((len(codes_ND), 3), dtype=np.int64),
        mu_ND=codes_ND,
        logvar_ND=np.zeros_like(codes_ND),
        kl_D=np.ones(codes_ND.shape[1]),
        discrete_D=np.zeros(codes_ND.shape[1], dtype=bool) if discrete_D is None else discrete_D,
        recon_nats_N=np.zeros(len(codes_ND)),
        recon_mse_N=np.zeros(len(codes_ND)),
    )
    return score("gaussian_tc", encoding)["gaussian_tc"]


def correlated(rho: float, num: int = 4000) -> np.ndarray:
    """Two codes whose sample correlation is exactly rho."""
    noise_N2 = np.random.default_rng(1).normal(size=(num, 2))
    noise_N2 -= noise_N2.mean(axis=0)
    white_N2 = np.linalg.qr(noise_N2)[0] * np.sqrt(num)
    return np.stack([white_N2[:, 0], rho * white_N2[:, 0] + np.sqrt(1 - rho**2) * white_N2[:, 1]], axis=1)


@pytest.mark.parametrize("rho", [0.0, 0.3, -0.9, 0.99])
def test_two_codes_have_minus_half_the_log_of_what_is_unexplained(rho: float) -> None:
    assert tc_of(correlated(rho)) == pytest.approx(-0.5 * np.log(1 - rho**2), abs=1e-5)


@given(st.permutations(range(4)), st.lists(st.sampled_from([-9.0, -1.0, 0.5, 3.0]), min_size=4, max_size=4))
def test_order_sign_and_scale_of_codes_do_not_matter(order: list[int], scales: list[float]) -> None:
    codes_N4 = np.random.default_rng(2).normal(size=(500, 4)) @ np.random.default_rng(3).normal(size=(4, 4))
    assert tc_of(codes_N4[:, order] * scales) == pytest.approx(tc_of(codes_N4), abs=1e-4)


@pytest.mark.parametrize("weights", [[1, 0], [1, 1], [3, 0], [0.1, 0], [0.5, -2]])
def test_a_linear_function_of_other_codes_is_infinitely_dependent(weights: list[float]) -> None:
    """Codes are of single precision: rounding leaves 15 to 17 nats that mean nothing."""
    codes_N2 = np.random.default_rng(4).normal(size=(3000, 2)).astype(np.float32)
    assert tc_of(np.column_stack([codes_N2, codes_N2 @ weights + 1])) == np.inf
    assert tc_of(np.column_stack([codes_N2, codes_N2 @ weights + 1e-4 * codes_N2[::-1, 0]])) < 11


def test_constant_codes_and_categories_are_left_out() -> None:
    codes_N2 = correlated(0.5)
    wider_N4 = np.concatenate([codes_N2, np.ones_like(codes_N2[:, :1]), codes_N2[:, :1].round()], axis=1)
    discrete_D = np.array([False, False, False, True])
    assert tc_of(wider_N4, discrete_D) == pytest.approx(tc_of(codes_N2), abs=1e-9)
    assert tc_of(np.ones((9, 3))) == 0
