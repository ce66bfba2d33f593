"""Modularity: whether every code has information about only one factor; several codes may share a factor.

Definition: Of every code, 1 - sum over all factors but its best of I^2 / (I_best^2 (K - 1)), where I is its mutual
    information with a factor (20 bins, as in `mig`) and K the number of factors: 1 less the squared distance from the
    nearest ideal code, in units of that of a code that tells equally much of all factors. The mean over codes. On all
    images. Categories are bins already; a constant code has 0. Factors with one value are left out; nan where codes
    are not finite.
Range: 0 to 1.
Direction: higher is better, though nothing is asked but the shape of what a code tells, be it ever so little.
Chance: .66 for codes of noise on 10,000 random rows of dsprites, since luck itself favors factors of many values, .50
    on the 1,536 images of 6 x 16 x 16 values. Collapsed codes have that too: read it beside `active_dims`.
Source: Ridgeway & Mozer, Learning Deep Disentangled Embeddings with the F-Statistic Loss, NeurIPS 2018, section 4.
    Their normaliser, K - 1 times the squared best; that a code without information has 0 is of Locatello et al. 2019.

Shape suffixes: N images, D codes, K factors.
"""

from typing import Literal

import numpy as np

from trainables.encoding import Encoding
from trainables.metrics.estimators import activity, ground_truth, information

VERSION: int = 1
DIRECTION: Literal["minimize", "maximize"] = "maximize"
RANGE: tuple[float, float] = (0.0, 1.0)
TITLE: str = "Modularity"
UNIT: str = ""
NEEDS_FACTORS: int = 2
IS_CHEAP: bool = True

NUM_BINS = 20
SETTINGS: dict[str, int | float | str] = {"bins": NUM_BINS}


def score(encoding: Encoding, generator: np.random.Generator) -> dict[str, float]:  # noqa: ARG001
    """Score one run, with `modularity/dim_D` for every code; samples nothing.

    Raises:
        InputError: The images have fewer than two ground-truth factors with two values.
    """
    varying = ground_truth.varying_factors(encoding, "modularity", num_needed=2)
    names = [f"dim_{d}" for d in range(len(encoding.kl_D))]
    if activity.has_diverged(encoding):
        return ground_truth.mean_and_parts("modularity", dict.fromkeys(names, float("nan")))
    bins_ND = information.discretized(encoding.mu_ND, encoding.discrete_D, NUM_BINS)
    information_DK = information.mutual_information(bins_ND, encoding.factors_NK[:, varying])
    best_D = information_DK.max(axis=1)
    relative_DK = information_DK / np.where(best_D > 0, best_D, 1)[:, None]
    others_D = np.square(relative_DK).sum(axis=1) - 1
    modularity_D = np.where(best_D > 0, 1 - others_D / (len(varying) - 1), 0)
    return ground_truth.mean_and_parts("modularity", dict(zip(names, modularity_D.tolist(), strict=True)))
