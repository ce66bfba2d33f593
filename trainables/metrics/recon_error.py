"""Reconstruction error: what the decoder still does not know about an image, given its code.

Definition: Bernoulli cross entropy of an image with its reconstruction from one sampled z, summed over pixels and
    channels, mean over the images. nan for a model without a likelihood (a GAN): `recon_mse` is what all models share.
Range: 0 up. Binary images reach 0; others only the entropy of their grey levels, which is large (5.99 nats on
    `sprites`, some 3,500 on 3D Shapes).
Direction: lower is better.
Chance: ln 2 nats per pixel for a decoder that says 1/2 everywhere.
Source: Kim & Mnih, Disentangling by Factorising, ICML 2018, the horizontal axis of figures 5 and 10.
"""

import math
from typing import Literal

import numpy as np

from trainables.encoding import Encoding

VERSION: int = 1
DIRECTION: Literal["minimize", "maximize"] = "minimize"
RANGE: tuple[float, float] = (0.0, math.inf)
TITLE: str = "Reconstruction error"
UNIT: str = "nats per image"
NEEDS_FACTORS: int = 0
IS_CHEAP: bool = True
SETTINGS: dict[str, int | float | str] = {}


def score(encoding: Encoding, generator: np.random.Generator) -> dict[str, float]:  # noqa: ARG001
    """Score one run; samples nothing, since the encoding holds the error at the z that was sampled with it."""
    if encoding.recon_nats_N is None:
        return {"recon_error": float("nan")}
    return {"recon_error": float(encoding.recon_nats_N.mean(dtype=np.float64))}
