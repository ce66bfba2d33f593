"""Gaussian total correlation: how dependent the codes would be if they were jointly Gaussian.

Definition: KL(N(m, S) || prod_d N(m_d, S_dd)) = 1/2 (sum_d log S_dd - log det S) nats, where m and S are the mean and
    covariance of the codes over the images: -1/2 log det of their correlation matrix. Codes that are constant and
    categories are left out; inf where a code is a linear function of others up to rounding (an eigenvalue of the
    correlations below 1e-12 D), nan where codes are not finite. Dependence that leaves correlations at zero is not seen.
Range: 0 to inf.
Direction: lower is better, though collapsed and merely rotated codes have 0 as well.
Chance: about D (D - 1) / (4 N) for independent codes on N images.
Source: Watanabe 1960 for the total correlation; computed on the means of q(z|x) as in Locatello et al., Challenging
    Common Assumptions in the Unsupervised Learning of Disentangled Representations, ICML 2019.
"""

import math
from typing import Literal

import numpy as np

from trainables.encoding import Encoding
from trainables.metrics.estimators import activity

VERSION: int = 2
DIRECTION: Literal["minimize", "maximize"] = "minimize"
RANGE: tuple[float, float] = (0.0, math.inf)
TITLE: str = "Gaussian total correlation"
UNIT: str = "nats"
NEEDS_FACTORS: int = 0
IS_CHEAP: bool = True
SETTINGS: dict[str, int | float | str] = {}

ROUNDING = 1e-12
"""Share of its variance that rounding leaves to a code that is a sum of others, with room for a mean far from zero."""


def score(encoding: Encoding, generator: np.random.Generator) -> dict[str, float]:  # noqa: ARG001
    """Score one run; samples nothing."""
    if activity.has_diverged(encoding):
        return {"gaussian_tc": float("nan")}
    codes_ND = encoding.mu_ND[:, ~encoding.discrete_D].astype(np.float64)
    centered_ND = codes_ND - codes_ND.mean(axis=0)
    deviation_D = np.sqrt(np.square(centered_ND).mean(axis=0))
    varies_D = deviation_D > 0
    standard_ND = centered_ND[:, varies_D] / deviation_D[varies_D]
    correlation_DD = standard_ND.T @ standard_ND / len(standard_ND)
    if np.linalg.eigvalsh(correlation_DD).min(initial=1.0) < ROUNDING * len(correlation_DD):
        return {"gaussian_tc": float("inf")}
    return {"gaussian_tc": max(0.0, -0.5 * float(np.linalg.slogdet(correlation_DD).logabsdet))}
