"""Mean squared reconstruction error: the one reconstruction axis that VAEs and GANs share.

Definition: Squared difference between an image and its reconstruction from the representation (the mean of q(z|x), or
    Q's mean), mean over pixels, channels and images.
Range: 0 to 1 for images in [0, 1].
Direction: lower is better.
Chance: the variance of a pixel over the images, mean over pixels, for a decoder that always gives the mean image.
Source: Common practice; no likelihood enters, hence no comparison with a published figure of the FactorVAE paper.
"""

from typing import Literal

import numpy as np

from trainables.encoding import Encoding

VERSION: int = 1
DIRECTION: Literal["minimize", "maximize"] = "minimize"
RANGE: tuple[float, float] = (0.0, 1.0)
TITLE: str = "Mean squared reconstruction error"
UNIT: str = "per pixel"
NEEDS_FACTORS: int = 0
IS_CHEAP: bool = True
SETTINGS: dict[str, int | float | str] = {}


def score(encoding: Encoding, generator: np.random.Generator) -> dict[str, float]:  # noqa: ARG001
    """Score one run; samples nothing."""
    return {"recon_mse": float(encoding.recon_mse_N.mean(dtype=np.float64))}
