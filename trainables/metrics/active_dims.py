"""Active dimensions: how many codes carry information about the image.

Definition: Number of codes whose standard deviation over the images is above 0.05 (for a category, the root of Gini's
    variance) and, where there is a Gaussian posterior, whose mean KL to the prior is above 0.01 nats. These are the
    codes that `factor_vae_score` and `factor_vae_score_heldout` vote with. nan where codes are not finite.
Range: 0 to D, whole.
Direction: higher is taken as better, so that collapse shows; more than there are factors is no merit.
Chance: 0 for a collapsed encoder; an untrained one may have all D.
Source: Kim & Mnih, Disentangling by Factorising, ICML 2018, section 4 (collapsed dimensions are left out); the deviation as
    in disentanglement_lib.
"""

import math
from typing import Literal

import numpy as np

from trainables.encoding import Encoding
from trainables.metrics.estimators import activity

VERSION: int = 2
DIRECTION: Literal["minimize", "maximize"] = "maximize"
RANGE: tuple[float, float] = (0.0, math.inf)
TITLE: str = "Active dimensions"
UNIT: str = "dimensions"
NEEDS_FACTORS: int = 0
IS_CHEAP: bool = True
SETTINGS: dict[str, int | float | str] = {
    "prune_kl": activity.PRUNE_KL,
    "prune_std": activity.PRUNE_STD,
}


def score(encoding: Encoding, generator: np.random.Generator) -> dict[str, float]:  # noqa: ARG001
    """Score one run; samples nothing."""
    if activity.has_diverged(encoding):
        return {"active_dims": float("nan")}
    return {"active_dims": float(activity.is_active(encoding).sum())}
