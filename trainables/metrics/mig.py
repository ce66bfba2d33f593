"""Mutual information gap: how much more information one code has about each factor than any other code.

Definition: Every code is cut into 20 bins of equal width between its extremes (`_information`); of every factor, the
    mutual information with the code that tells most of it less that with the second, divided by the entropy of the
    factor; the mean over factors. On all images. Categories are bins already; a constant code tells 0; without a
    second code that one tells 0. Factors with one value are left out; nan where codes are not finite.
Range: 0 to 1. Twenty bins cannot tell 40 values: a perfect code reaches .902 on all of dsprites (.896 on 10,000 random
    rows of it, where the second code has information by luck), and 1 where no factor has more than 20 values.
Direction: higher is better.
Chance: .0003 for 10 codes of noise on 10,000 random rows of dsprites, .002 for 6 on the 1,536 images of 6 x 16 x 16
    values. Two factors rotated by 45 degrees, and factors that have two codes, have 0 as well.
Source: Chen et al., Isolating Sources of Disentanglement in VAEs, NeurIPS 2018, section 4; with the bins of Locatello
    et al., Challenging Common Assumptions in the Unsupervised Learning of Disentangled Representations, ICML 2019.
    Chen et al. take the information of sampled codes under the true posterior: their numbers are not comparable.

Shape suffixes: N images, D codes, K factors.
"""

from typing import Literal

import numpy as np

from trainables.encoding import Encoding
from trainables.metrics.estimators import activity, ground_truth, information

VERSION: int = 1
DIRECTION: Literal["minimize", "maximize"] = "maximize"
RANGE: tuple[float, float] = (0.0, 1.0)
TITLE: str = "Mutual information gap"
UNIT: str = ""
NEEDS_FACTORS: int = 1
IS_CHEAP: bool = True

NUM_BINS = 20
SETTINGS: dict[str, int | float | str] = {"bins": NUM_BINS}


def score(encoding: Encoding, generator: np.random.Generator) -> dict[str, float]:  # noqa: ARG001
    """Score one run, with `mig/FACTOR` for every factor that varies; samples nothing.

    Raises:
        InputError: The images have no ground-truth factor with two values.
    """
    varying = ground_truth.varying_factors(encoding, "mig")
    names = [encoding.factor_names[k] for k in varying]
    if activity.has_diverged(encoding):
        return ground_truth.mean_and_parts("mig", dict.fromkeys(names, float("nan")))
    factors_NK = encoding.factors_NK[:, varying]
    bins_ND = information.discretized(encoding.mu_ND, encoding.discrete_D, NUM_BINS)
    information_DK = information.mutual_information(bins_ND, factors_NK)
    if len(information_DK) == 1:
        information_DK = np.pad(information_DK, ((0, 1), (0, 0)))
    second_K, first_K = np.sort(information_DK, axis=0)[-2:]
    gap_K = (first_K - second_K) / information.entropy(factors_NK)
    return ground_truth.mean_and_parts("mig", dict(zip(names, gap_K.tolist(), strict=True)))
