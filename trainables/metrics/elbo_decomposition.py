"""True total correlation of the codes, with the other parts of the KL in the ELBO.

Definition: With q(z) the equal mixture of the posteriors of the encoding's N images and p(z) = N(0, I), in nats:
    `elbo_decomposition` is the total correlation KL(q(z) || prod_d q(z_d)), the term that FactorVAE penalises;
    `elbo_decomposition/information` is I(x; z), at most log N, where it saturates (9.2 for 10,000 images);
    `elbo_decomposition/marginal_kl` is KL(q(z) || p(z)), total correlation plus dimension_kl;
    `elbo_decomposition/dimension_kl` is sum_d KL(q(z_d) || p(z_d)).
    information + marginal_kl is the mean KL of the posteriors, the metric `kl`, up to sampling error.
    Categories are left out; all nan where no code has a posterior, or a mean or a log variance is not finite.
Estimator: Means over 1,000 samples of q(z), image and noise from the generator, with q(z) and q(z_d) summed over all N
    posteriors: unbiased for this mixture. Its standard deviation is .01 to .1 nats in the cases of Chance. Takes .2 to .5 s for
    10,000 images and 10 codes.
Range: 0 up, each of them, but for sampling error; the total correlation to (D - 1) log N.
Direction: lower is better for the total correlation, though a collapsed encoder has 0 as well.
Chance: A mixture of few images looks dependent: the total correlation is at least kl - log N - dimension_kl, whatever
    the codes. Independent normal codes, of variance 1 with the noise of their posteriors, have on 10,000 random images
    (posterior deviation .1, .2, .3, .5): 2.5, .51, .13, .01 nats if there are 5, and 13.8, 6.9, 3.0, .33 if 10; on a
    whole factor grid that they encode factor by factor, 0. Compare at equal N and about equal `kl`, and read it as
    dependence only where information is well below log N.
Source: Kim & Mnih, Disentangling by Factorising, ICML 2018, Lemma 1 of the appendix for information and marginal_kl;
    Chen et al., Isolating Sources of Disentanglement in VAEs, NeurIPS 2018, for the other split.

Shape suffixes: N images, D Gaussian codes, S samples of z, E each single code and last the whole code.
"""

import math
from typing import Literal

import numpy as np

from trainables.encoding import Encoding
from trainables.metrics.estimators import activity

VERSION: int = 1
DIRECTION: Literal["minimize", "maximize"] = "minimize"
RANGE: tuple[float, float] = (-math.inf, math.inf)
TITLE: str = "True total correlation"
UNIT: str = "nats"
NEEDS_FACTORS: int = 0
IS_CHEAP: bool = False  # a second for every few runs

NUM_SAMPLES = 1000
SETTINGS: dict[str, int | float | str] = {"samples": NUM_SAMPLES}

CHUNK = 20_000
"""Pairs of a sample and a posterior that are compared at once: few enough that they stay in the cache."""

LEAST_LOG = -700.0
"""Exponentials of less are computed as this one's: those that underflow take several times as long."""

LEAST_SUM = 1e-250
"""Least sum of exponentials that can neither underflow nor notice `LEAST_LOG`; others are computed from logarithms."""

PARTS = ("information", "marginal_kl", "dimension_kl")


def score(encoding: Encoding, generator: np.random.Generator) -> dict[str, float]:
    """Score one run."""
    is_gaussian_D = ~encoding.discrete_D
    if encoding.logvar_ND is None or not is_gaussian_D.any() or activity.has_diverged(encoding):
        return _named(*[float("nan")] * 4)
    mu_ND = encoding.mu_ND[:, is_gaussian_D].astype(np.float64)
    logvar_ND = encoding.logvar_ND[:, is_gaussian_D].astype(np.float64)
    if not np.isfinite(logvar_ND).all():
        return _named(*[float("nan")] * 4)
    row_S = generator.integers(0, len(mu_ND), NUM_SAMPLES)
    noise_SD = generator.standard_normal((NUM_SAMPLES, mu_ND.shape[1]))
    z_SD = mu_ND[row_S] + np.exp(0.5 * logvar_ND[row_S]) * noise_SD
    log_posterior_S = (_log_normal(noise_SD) - 0.5 * logvar_ND[row_S]).sum(axis=1)
    log_prior_S = _log_normal(z_SD).sum(axis=1)
    log_joint_S, log_marginal_SD = log_densities(z_SD, mu_ND, logvar_ND)
    log_product_S = log_marginal_SD.sum(axis=1)
    return _named(
        float(np.mean(log_joint_S - log_product_S)),
        float(np.mean(log_posterior_S - log_joint_S)),
        float(np.mean(log_joint_S - log_prior_S)),
        float(np.mean(log_product_S - log_prior_S)),
    )


def log_densities(
    z_SD: np.ndarray, mu_ND: np.ndarray, logvar_ND: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Log densities of the equal mixture of N Gaussians, float64: of the whole code (S,), of each single code (S, D)."""
    num_images, num_codes = mu_ND.shape
    mu_DN, half_logvar_DN = mu_ND.T.astype(np.float64, order="C"), 0.5 * logvar_ND.T.astype(np.float64)
    half_logvar_EN = np.concatenate([half_logvar_DN, half_logvar_DN.sum(axis=0, keepdims=True)])
    least_E = half_logvar_EN.min(axis=1)
    sums_SE = _sums(z_SD, mu_DN, half_logvar_DN, np.exp(least_E[:, None] - half_logvar_EN))
    is_safe_S = sums_SE.min(axis=1) > LEAST_SUM
    log_SE = np.log(np.where(is_safe_S[:, None], sums_SE, 1)) - least_E
    for s in np.flatnonzero(~is_safe_S):
        log_SE[s] = _log_sums(z_SD[s], mu_DN, half_logvar_EN)
    constant_E = np.append(np.ones(num_codes), num_codes) * 0.5 * np.log(2 * np.pi)
    log_SE -= np.log(num_images) + constant_E
    return log_SE[:, -1], log_SE[:, :-1]


def _sums(
    z_SD: np.ndarray, mu_DN: np.ndarray, half_logvar_DN: np.ndarray, weight_EN: np.ndarray
) -> np.ndarray:
    """Weighted sums over the images of exp(-(z - mu)^2 / (2 variance)), (S, E); for the whole code of its product."""
    num_images = mu_DN.shape[1]
    num_samples = max(1, CHUNK // num_images)
    sums_SE = np.empty((len(z_SD), len(weight_EN)))
    # A code of a run about to diverge may be too far off to square, or too narrow.
    with np.errstate(over="ignore", invalid="ignore"):
        factor_DN = -0.5 * np.exp(-2 * half_logvar_DN)
        arrays_3SN = np.empty((3, num_samples, num_images))
        for start in range(0, len(z_SD), num_samples):
            z_sD = z_SD[start : start + num_samples]
            sums_sE = sums_SE[start : start + num_samples]
            distance_sN, term_sN, product_sN = arrays_3SN[:, : len(z_sD)]
            product_sN.fill(1)
            # One code after another: the large arrays are (chunk, N), never (chunk, N, D).
            for d, mu_N in enumerate(mu_DN):
                np.subtract(z_sD[:, d, None], mu_N, out=distance_sN)
                np.multiply(distance_sN, factor_DN[d], out=term_sN)
                term_sN *= distance_sN
                np.exp(np.maximum(term_sN, LEAST_LOG, out=term_sN), out=term_sN)
                sums_sE[:, d] = term_sN @ weight_EN[d]
                product_sN *= term_sN
            sums_sE[:, -1] = product_sN @ weight_EN[-1]
    return sums_SE


def _log_sums(z_D: np.ndarray, mu_DN: np.ndarray, half_logvar_EN: np.ndarray) -> np.ndarray:
    """Logarithms of the sums over the images of the densities of a sample, however far off, without powers of 2 pi, (E,)."""
    with np.errstate(over="ignore"):
        distance_DN = (z_D[:, None] - mu_DN) * np.exp(-half_logvar_EN[:-1])
        square_DN = np.square(distance_DN)
    terms_EN = -0.5 * np.concatenate([square_DN, square_DN.sum(axis=0, keepdims=True)]) - half_logvar_EN
    greatest_E = terms_EN.max(axis=1)
    return greatest_E + np.log(np.exp(terms_EN - greatest_E[:, None]).sum(axis=1))


def _log_normal(x_SD: np.ndarray) -> np.ndarray:
    return -0.5 * (np.square(x_SD) + np.log(2 * np.pi))


def _named(total_correlation: float, *parts: float) -> dict[str, float]:
    named = {f"elbo_decomposition/{part}": value for part, value in zip(PARTS, parts, strict=True)}
    return {"elbo_decomposition": total_correlation, **named}
