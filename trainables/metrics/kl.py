"""KL of the posterior to the prior: how many nats the code spends on an image, in total and by dimension.

Definition: KL(q(z|x) || N(0, I)), mean over the images; `kl/dim_0`, `kl/dim_1` and on are its terms, in the order of
    the code. All nan for a model without a posterior.
Range: 0 up; a dimension near 0 is collapsed and says nothing about the image.
Direction: lower is cheaper; with the reconstruction error it is the other half of the negative ELBO.
Chance: 0 for a code that ignores the image and equals the prior.
Source: Kingma & Welling, Auto-Encoding Variational Bayes, ICLR 2014, appendix B.
"""

import math
from typing import Literal

import numpy as np

from trainables.encoding import Encoding

VERSION: int = 1
DIRECTION: Literal["minimize", "maximize"] = "minimize"
RANGE: tuple[float, float] = (0.0, math.inf)
TITLE: str = "KL of the posterior to the prior"
UNIT: str = "nats per image"
NEEDS_FACTORS: int = 0
IS_CHEAP: bool = True
SETTINGS: dict[str, int | float | str] = {}


def score(encoding: Encoding, generator: np.random.Generator) -> dict[str, float]:  # noqa: ARG001
    """Score one run; samples nothing."""
    kl_D = encoding.kl_D if encoding.logvar_ND is not None else np.full(len(encoding.kl_D), np.nan)
    return {"kl": float(kl_D.sum()), **{f"kl/dim_{d}": float(kl) for d, kl in enumerate(kl_D)}}
