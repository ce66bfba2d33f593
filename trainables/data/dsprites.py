"""dSprites: a white square, ellipse or heart on black, binary, 64 x 64, on the full grid of five factors.

The official set if its file is in SWEEPER_DATA (default ~/.cache/sweeper), see `official.dsprites`; otherwise rendered.

Factors, the last fastest: shape 3 (square, ellipse, heart), scale 6 (0.5 .. 1), orientation 40 (0 .. 2 pi,
both ends included: the first is the last), pos_x 32 (left to right), pos_y 32 (top to bottom): 737,280
images. The official factor `color` has one value and is left out.

Source: Matthey, Higgins, Hassabis & Lerchner, dSprites, 2017. Its renderer was never published; this is the
geometry fitted to official frames. Of 12 labelled official images 9 are exact, 3 pixels differ in all; over
the whole set 0.023 % fewer pixels are white than in the official one. A square looks alike at 4 angles and an
ellipse at 2, so no representation can identify orientation.

Rendering takes 4 s of one core, once per user, and 377 MB of disk; see `readers.cache`.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch

from trainables.data.official import dsprites
from trainables.data.readers import cache
from trainables.data.readers.preparation import Preparation
from trainables.images import Source
from trainables.pixels import Packed

RECIPE = "dsprites (rendered v1)"
SHAPE = (1, 64, 64)
FACTOR_NAMES = ("shape", "scale", "orientation", "pos_x", "pos_y")
FACTOR_SIZES = (3, 6, 40, 32, 32)
POSITIONS = 32 * 32
"""Images of one sprite, which are rendered together."""

SHA256 = "d20cc24edfe054d48f6d9f113da71ac73eb72cbb9a865a919128408e4bf312c8"
"""sha256 of the bit-packed set. At scale 1, no pixel center is closer to an outline than 4e-8 pixels (square), 1e-7
(heart, along the radius) or 5e-9 in the ellipse's quadratic form, and double precision errs by about 1e-14:
machines agree."""

SQUARE_HALF_SIDE = 9.6  # pixels at scale 1, as all lengths below
ELLIPSE_SEMI_AXES = (12.77, 7.21)
HEART_OUTLINE = np.array(
    [  # angle from "down" in degrees, the same on both sides, and radius from the anchor
        (0, 9.22), (2, 8.55), (4, 8.45), (7, 7.75), (10, 7.35), (15, 6.85),
        (20, 6.5), (25, 6.25), (30, 6.09), (35, 5.95), (40, 5.92), (45, 5.9),
        (50, 5.95), (55, 6.02), (60, 6.17), (65, 6.35), (70, 6.57), (75, 6.87),
        (80, 7.22), (85, 7.64), (90, 8.12), (95, 8.65), (100, 9.17), (105, 9.69),
        (110, 10.2), (115, 10.56), (120, 10.9), (125, 11.15), (128, 11.05), (131, 11.25),
        (134, 11.25), (137, 11.22), (140, 11.2), (143, 11.1), (146, 10.97), (149, 10.77),
        (152, 10.55), (155, 10.3), (158, 9.95), (161, 9.57), (164, 9.05), (167, 8.5),
        (170, 7.9), (172.5, 7.3), (175, 6.45), (177, 6.47), (178.5, 5.5), (180, 5.32),
    ]
)  # fmt: skip

_WINDOW = 32
"""Pixels on a side of the square that holds any sprite; centered at 16 .. 48 it is inside the image."""


def find() -> Source:
    """The official set if its file exists, otherwise the rendered set.

    Raises:
        InputError: The file is not the official set.
    """
    converting = dsprites.conversion(_blocks)
    if converting is None:
        return rendered()
    cache.prepare(converting)
    return _source(converting)


def rendered() -> Source:
    """The rendered set, 377 MB."""
    return _source(Preparation(RECIPE, SHAPE, math.prod(FACTOR_SIZES), _blocks, SHA256))


def _source(prepared: Preparation) -> Source:
    def pixels(device: torch.device) -> Packed:
        return Packed(torch.from_numpy(cache.load(prepared)).to(device), math.prod(SHAPE))

    return Source(prepared.recipe, SHAPE, prepared.num_images, pixels, FACTOR_NAMES, FACTOR_SIZES)


def _blocks(first: int) -> Iterator[np.ndarray]:
    sprites = list(np.ndindex(FACTOR_SIZES[:3]))
    for shape, scale, orientation in sprites[first // POSITIONS :]:
        yield _block(shape, scale, orientation)


def _block(shape: int, scale: int, orientation: int) -> np.ndarray:
    """One sprite at all 32 x 32 positions, bit-packed, (1024, 512).

    An image row of 64 pixels is one big-endian 64-bit word. Axes: X pos_x, Y pos_y, w position in the window.
    """
    factor = (5 + scale) / 10
    angle = 2 * math.pi * (orientation % 39) / 39  # counter-clockwise as seen
    cos, sin = math.cos(angle) / factor, math.sin(angle) / factor
    center = 16 + 32 * np.arange(32) / 31
    first = center.astype(np.int64) - _WINDOW // 2
    offset_Xw = (first - center)[:, None] + np.arange(_WINDOW) + 0.5
    words_XYh = np.zeros((32, 32, 64), dtype=">u8")
    shift_X = (_WINDOW - first).astype(np.uint64)
    # One pos_y at a time, so that the arrays stay in the processor's cache: 3 times as fast.
    for pos_y, top in enumerate(first):
        up_w = -offset_Xw[pos_y]
        u_wXw = cos * offset_Xw + (sin * up_w)[:, None, None]
        v_wXw = -sin * offset_Xw + (cos * up_w)[:, None, None]
        window_wX = np.packbits(_INSIDE[shape](u_wXw, v_wXw), axis=-1).view(">u4")[..., 0]
        words_XYh[:, pos_y, top : top + _WINDOW] = (window_wX.astype(np.uint64) << shift_X).T
    return words_XYh.reshape(1024, 64).view(np.uint8)


def _in_square(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Whether points, u to the right and v up, are in the sprite of scale 1 at angle 0; the same below."""
    return np.maximum(np.abs(u), np.abs(v)) <= SQUARE_HALF_SIDE


def _in_ellipse(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return (u / ELLIPSE_SEMI_AXES[0]) ** 2 + (v / ELLIPSE_SEMI_AXES[1]) ** 2 <= 1


def _in_heart(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    angle, outline = HEART_OUTLINE.T
    radius = np.sqrt(u * u + v * v)
    inside = radius <= outline.min()
    ring = ~inside & (radius <= outline.max())  # arctan2 is slow, and decides only here
    from_down = np.degrees(np.arctan2(np.abs(u[ring]), -v[ring]))
    inside[ring] = radius[ring] <= np.interp(from_down, angle, outline)
    return inside


_INSIDE = (_in_square, _in_ellipse, _in_heart)
