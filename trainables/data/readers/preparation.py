"""What is prepared once per user, and where it is kept: in SWEEPER_DATA, else ~/.cache/sweeper.

Shape suffixes: N images, B bytes of one image as it is kept. Imports no torch.
"""

import hashlib
import math
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainables.errors import InputError


@dataclass(frozen=True)
class Preparation:
    """A set of images that can be prepared.

    Attributes:
        recipe: Recipe of the images; the file is named after it.
        shape: One image, (C, H, W).
        num_images: N.
        blocks: Makes the images from a row on, in order, in arrays (any n, B) of uint8. It is resumed only at
            the end of a block that it yielded before.
        sha256: Hash of all N * B bytes in order, if known beforehand; otherwise the hash of the result is recorded.
        is_packed: Whether an image has eight binary pixels per byte, as by `numpy.packbits`, or one byte per pixel.
        verb: What preparing them is called in the progress line.
        origin: What they are made from: an interrupted preparation from another origin starts over.
        check: Checks all images (N, B) once they exist; raises InputError if they are invalid.
        stem: Name of the file without suffix; by default made from the recipe.
    """

    recipe: str
    shape: tuple[int, int, int]
    num_images: int
    blocks: Callable[[int], Iterator[np.ndarray]]
    sha256: str | None = None
    is_packed: bool = True
    verb: str = "Rendering"
    origin: str = ""
    check: Callable[[np.ndarray], None] | None = None
    stem: str = ""

    @property
    def stored_shape(self) -> tuple[int, int]:
        """(N, B)."""
        pixels = math.prod(self.shape)
        return self.num_images, math.ceil(pixels / 8) if self.is_packed else pixels

    @property
    def num_bytes(self) -> int:
        """Size of all images as stored."""
        return math.prod(self.stored_shape)

    @property
    def attributes(self) -> dict[str, Any]:
        """What the file says about itself, besides the sha256."""
        return {"recipe": self.recipe, "shape": self.shape}

    @property
    def path(self) -> Path:
        """The file, for example `dsprites_rendered_v1.h5`."""
        return folder() / ((self.stem or re.sub(r"\W+", "_", self.recipe).strip("_")) + ".h5")


def folder() -> Path:
    """The folder where sets are stored and downloaded files are searched."""
    named = os.environ.get("SWEEPER_DATA") or "~/.cache/sweeper"
    try:
        return Path(named).expanduser().absolute()
    except RuntimeError as error:  # no home folder
        raise InputError(f"SWEEPER_DATA {named}: {error}.\nSet it to a folder on a local disk.") from None


def of_own(
    path: Path,
    shape: tuple[int, int, int],
    num_images: int,
    blocks: Callable[[int], Iterator[np.ndarray]],
    origin: str,
    *,
    is_packed: bool,
) -> Preparation:
    """How to convert a person's own images at a path; for the arguments see `Preparation`."""
    stem = f"own_{hashlib.sha256(f'{path} {origin}'.encode()).hexdigest()[:16]}"
    return Preparation(
        f"{path.stem} (own)", shape, num_images, blocks, None, is_packed, "Converting", origin, stem=stem
    )
