"""Mutual information between codes: how much information two of them share, linear or not.

Definition: Mean over all pairs of different codes of their mutual information in nats, every code cut into 20 bins of
    equal width between its least and greatest value; a category's bins are its labels. A constant code has 0 with every
    other and counts in the mean, so collapse lowers it. 0 for a single code; nan where codes are not finite.
Range: 0 to log 20 = 3.00 nats, reached by copies of one uniform code (more if categories have more labels).
Direction: lower is better, though collapsed codes have 0 as well.
Chance: What few images make up: for 10 independent codes on 10,000 images .015 nats (normal) or .018 (uniform), on
    1,536 images .096 or .127; so compare at equal N only.
Source: Locatello et al., Challenging Common Assumptions in the Unsupervised Learning of Disentangled Representations,
    ICML 2019, section 5.2, on the means of q(z|x).
"""

import math
from typing import Literal

import numpy as np

from trainables.encoding import Encoding
from trainables.metrics.estimators import activity, information

VERSION: int = 1
DIRECTION: Literal["minimize", "maximize"] = "minimize"
RANGE: tuple[float, float] = (0.0, math.inf)
TITLE: str = "Mutual information between codes"
UNIT: str = "nats"
NEEDS_FACTORS: int = 0
IS_CHEAP: bool = True

NUM_BINS = 20
SETTINGS: dict[str, int | float | str] = {"bins": NUM_BINS}


def score(encoding: Encoding, generator: np.random.Generator) -> dict[str, float]:  # noqa: ARG001
    """Score one run; samples nothing."""
    if activity.has_diverged(encoding):
        return {"mutual_information": float("nan")}
    bins_ND = information.discretized(encoding.mu_ND, encoding.discrete_D, NUM_BINS)
    information_DD = information.mutual_information(bins_ND, bins_ND)
    is_pair_DD = ~np.eye(len(information_DD), dtype=bool)
    return {"mutual_information": float(information_DD[is_pair_DD].mean()) if is_pair_DD.any() else 0.0}
