"""A published set of pictures without ground truth, cropped and resized once from the user's files."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch

from trainables.data.readers import cache, preparation
from trainables.data.readers.files import is_there, state
from trainables.data.readers.pictures import open_pictures
from trainables.errors import InputError
from trainables.images import Source
from trainables.pixels import Levels

BLOCK = 256
"""Pictures that are stored at once."""


def find(
    recipe: str,
    places: tuple[str, ...],
    num_images: int,
    shape: tuple[int, int, int],
    crop: tuple[int, int] | None,
    source: str,
) -> Source:
    """The set, converted on first use.

    Args:
        recipe: Recipe of the images; a digest of their content is added, since the files may differ between users.
        places: Names of the archive or folder in SWEEPER_DATA; the first that exists is used.
        num_images: Number of pictures of the set.
        shape: (C, H, W) of the images.
        crop: Height and width of the central part of each picture that is kept, before resizing.
        source: How to get the files, for the error message.

    Raises:
        InputError: The files are missing or invalid.
    """
    paths = [preparation.folder() / place for place in places]
    found = [path for path in paths if is_there(path)]

    def blocks(first: int) -> Iterator[np.ndarray]:
        return _blocks(found[0], num_images, shape, crop, first)

    origin = state(path for path in found if path.exists())
    kept = preparation.Preparation(
        recipe, shape, num_images, blocks, is_packed=False, verb="Converting", origin=origin
    )
    if not found and not kept.path.exists():
        raise InputError(
            f"{recipe}: found no {' or '.join(places)} in {preparation.folder()} (set SWEEPER_DATA for another folder).\n{source}"
        )
    known_by = f"{recipe.removesuffix(')')}, {cache.prepare(kept)[:12]})"
    return Source(known_by, shape, num_images, partial(_pixels, kept))


def _pixels(kept: preparation.Preparation, device: torch.device) -> Levels:
    return Levels(torch.from_numpy(cache.load(kept)), 255, device)


def _blocks(
    path: Path, num_images: int, shape: tuple[int, int, int], crop: tuple[int, int] | None, first: int
) -> Iterator[np.ndarray]:
    with open_pictures(path) as pictures:
        if len(pictures) != num_images:
            raise InputError(
                f"{path} has {len(pictures):,} pictures; expected {num_images:,}.\n"
                "Download the complete set, or train on these pictures with --data " + str(path)
            )
        yield from in_blocks(pictures.levels(shape, crop, first))


def in_blocks(levels: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Images that come one by one, joined to arrays (n, P)."""
    block = []
    for level_CHW in levels:
        block.append(level_CHW.reshape(-1))
        if len(block) == BLOCK:
            yield np.stack(block)
            block = []
    if block:
        yield np.stack(block)
