"""A small data set that a CPU learns in minutes: one ellipse, 16 x 16 grey, on the grid of three factors.

Factors, the last fastest: scale 6 (0.5 .. 1), pos_x 16 (left to right), pos_y 16 (top to bottom): 1,536
images. The ellipse is the one of dSprites, long axis horizontal, shrunk to a quarter; its center moves over the
middle half of the image. Each value is the share of 8 x 8 points of a pixel that are inside, exact in 64ths.
The Bernoulli reconstruction error of a perfect model, the entropy of the images, is 5.99 nats per image.

Source: our own. It was chosen because at this size it shows what the paper finds on dSprites: two factors are
easy to see and one is weak, and a plain VAE loses the weak one. Many other small sets show nothing.

Rendered again by each load, in about 30 ms.
"""

import hashlib
import math

import numpy as np
import torch

from trainables.data.readers.cache import check_bits
from trainables.images import Source
from trainables.pixels import Values

RECIPE = "sprites (rendered v1)"
SHAPE = (1, 16, 16)
FACTOR_NAMES = ("scale", "pos_x", "pos_y")
FACTOR_SIZES = (6, 16, 16)

SHA256 = "91ff179640aeb7adf0c7d4126005393c87131e201edf580376064ca72d87e805"
"""sha256 of the levels. No sample is closer to an outline than 3e-6 in the ellipse's quadratic form, and double
precision errs by about 1e-14: machines agree."""

SEMI_AXES = (12.77 / 4, 7.21 / 4)  # pixels at scale 1
_SAMPLES = 8  # along each side of a pixel


def find() -> Source:
    """The rendered set, 1.6 MB."""
    return Source(RECIPE, SHAPE, math.prod(FACTOR_SIZES), _pixels, FACTOR_NAMES, FACTOR_SIZES)


def _pixels(device: torch.device) -> Values:
    levels_NP = _levels()
    check_bits(RECIPE, hashlib.sha256(levels_NP.data).hexdigest(), SHA256)
    return Values(torch.from_numpy(levels_NP).to(device).float() / _SAMPLES**2)  # exact


def _levels() -> np.ndarray:
    """How many of each pixel's 64 samples are inside, uint8 (1536, 256)."""
    center = 4 + 8 * np.arange(16) / 15
    sample = (np.arange(16 * _SAMPLES) + 0.5) / _SAMPLES
    x_Xs = ((sample - center[:, None]) / SEMI_AXES[0]) ** 2
    y_Ys = ((sample - center[:, None]) / SEMI_AXES[1]) ** 2
    levels = []
    for scale in np.linspace(0.5, 1, 6):
        inside_XYss = x_Xs[:, None, None, :] <= scale**2 - y_Ys[:, :, None]
        counts_XYsw = np.bitwise_count(np.packbits(inside_XYss, axis=-1))  # a byte is one line of a pixel
        levels.append(counts_XYsw.reshape(16, 16, 16, _SAMPLES, 16).sum(axis=3, dtype=np.uint8))
    return np.stack(levels).reshape(1536, 256)
