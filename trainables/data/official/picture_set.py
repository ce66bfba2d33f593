"""A published set of pictures without ground truth, from the files that the user has: cropped and resized once."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch

from trainables.data.readers import cache
from trainables.data.readers.files import is_there, state
from trainables.data.readers.pictures import open_pictures
from trainables.errors import InputError
from trainables.images import Source
from trainables.pixels import Levels

BLOCK = 256
"""Pictures that are kept at once."""


def find(
    recipe: str,
    places: tuple[str, ...],
    num_images: int,
    shape: tuple[int, int, int],
    crop: tuple[int, int] | None,
    source: str,
) -> Source:
    """The set, converted when it is first asked for.

    Args:
        recipe: What the images are, to which a digest of their content is added: nobody else knows which pictures these are.
        places: Names of the archive or folder in SWEEPER_DATA, whichever is there first.
        num_images: How many pictures it has.
        shape: (C, H, W) of the images.
        crop: Height and width of the middle that is kept of each picture, before it is resized.
        source: Where the files come from, for who lacks them.

    Raises:
        InputError: The files are not there, or not what they should be.
    """
    paths = [cache.folder() / place for place in places]
    found = [path for path in paths if is_there(path)]

    def blocks(first: int) -> Iterator[np.ndarray]:
        return _blocks(found[0], num_images, shape, crop, first)

    origin = state(path for path in found if path.exists())
    kept = cache.Preparation(
        recipe, shape, num_images, blocks, is_packed=False, verb="Converting", origin=origin
    )
    if not found and not kept.path.exists():
        raise InputError(
            f"{recipe} needs files of yours: {' or '.join(places)} in {cache.folder()} (or SWEEPER_DATA).\n{source}"
        )
    known_by = f"{recipe.removesuffix(')')}, {cache.prepare(kept)[:12]})"
    return Source(known_by, shape, num_images, partial(_pixels, kept))


def _pixels(kept: cache.Preparation, device: torch.device) -> Levels:
    return Levels(torch.from_numpy(cache.load(kept)), 255, device)


def _blocks(
    path: Path, num_images: int, shape: tuple[int, int, int], crop: tuple[int, int] | None, first: int
) -> Iterator[np.ndarray]:
    with open_pictures(path) as pictures:
        if len(pictures) != num_images:
            raise InputError(
                f"{path} has {len(pictures):,} pictures, not {num_images:,}.\n"
                "Get the whole set, or train on this one by its path: --data " + str(path)
            )
        yield from in_blocks(pictures.levels(shape, crop, first))


def in_blocks(levels: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Images one by one as arrays (n, P)."""
    block = []
    for level_CHW in levels:
        block.append(level_CHW.reshape(-1))
        if len(block) == BLOCK:
            yield np.stack(block)
            block = []
    if block:
        yield np.stack(block)
