"""3D Shapes: an object in a room, RGB, 64 x 64, on the full grid of six factors.

Factors, the last fastest: floor_hue 10, wall_hue 10, object_hue 10, scale 8, shape 4 (cube, cylinder, sphere, capsule),
orientation 15: 480,000 images. The official set if `3dshapes.h5` is in SWEEPER_DATA (default ~/.cache/sweeper), see
`official.shapes3d`; otherwise a lookalike with the same factors and the geometry measured on official images, see
`rendering.room`. The lookalike is stored as layers, 10 MB in all, from which images are composed on demand.

Reconstruction errors of the two are comparable only above their floors, the entropy of the levels: 3,401 nats per image for the
lookalike (standard error 7), some 3,270 (110) on 25 official images. The paper uses six latents and a width of 256.

Source: Burgess & Kim, 3D Shapes Dataset, 2018.
"""

import itertools
import math
from collections.abc import Iterator

import numpy as np
import torch

from trainables.data.official import shapes3d
from trainables.data.readers import cache
from trainables.data.readers.preparation import Preparation
from trainables.data.rendering import room
from trainables.images import Source
from trainables.pixels import Layered, Levels

RECIPE = "shapes3d (lookalike v1)"
SHAPE = (3, 64, 64)
FACTOR_NAMES = room.FACTOR_NAMES
FACTOR_SIZES = room.FACTOR_SIZES

_NUM_HUES = len(room.HUE_COLORS)
_LAYERS_SHAPE = (len(room.MATERIALS), room.SIZE, room.SIZE)


def find() -> Source:
    """The official set if its file exists, 5.9 GB once converted; otherwise the lookalike.

    Raises:
        InputError: The file is not the official set.
    """
    converting = shapes3d.conversion()
    if converting is None:
        return lookalike()
    cache.prepare(converting)

    def pixels(device: torch.device) -> Levels:
        return Levels(torch.from_numpy(cache.load(converting)), 255, device)

    return Source(converting.recipe, SHAPE, converting.num_images, pixels, FACTOR_NAMES, FACTOR_SIZES)


def lookalike() -> Source:
    """The rendered set."""
    return Source(RECIPE, SHAPE, math.prod(FACTOR_SIZES), _layered, FACTOR_NAMES, FACTOR_SIZES)


def _layered(device: torch.device) -> Layered:
    rendering = Preparation(RECIPE, _LAYERS_SHAPE, room.NUM_GEOMETRIES, _blocks, room.SHA256, is_packed=False)
    weights_GMS = torch.from_numpy(cache.load(rendering)).unflatten(1, (len(room.MATERIALS), -1))
    hues = itertools.product(range(_NUM_HUES), repeat=3)
    colors_KMC = torch.from_numpy(np.stack([room.colors(*three) for three in hues]))
    return Layered(weights_GMS.to(device), colors_KMC.to(device))


def _blocks(first: int) -> Iterator[np.ndarray]:
    for weights_GMHW in room.blocks(first):
        yield weights_GMHW.reshape(len(weights_GMHW), -1)
