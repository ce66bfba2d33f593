"""A set of images: its description before loading (`Source`), and the images on a device (`Images`).

Shape suffixes: N images of the set, K factors, C H W one image, P = C * H * W pixels.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch

from trainables.pixels import Levels, Pixels


@dataclass(frozen=True, eq=False)
class Source:
    """A set of images that can be loaded.

    Attributes:
        recipe: The recipe of the images, for records and the run key, for example `dsprites (rendered v1)`.
        shape: One image, (C, H, W).
        num_images: N.
        pixels: Loads the images, for a device.
        factor_names: Ground-truth factors in index order; empty without ground truth.
        factor_sizes: Number of values of each factor.
        factors_NK: Values of the factors of each image, 0 .. size - 1; None if the images are the grid of the factors in
            mixed-radix order, the last factor the fastest, or without ground truth.
        notes: What a person should know before they train, for example which files were left out.
    """

    recipe: str
    shape: tuple[int, int, int]
    num_images: int
    pixels: Callable[[torch.device], Pixels] = field(repr=False)
    factor_names: tuple[str, ...] = ()
    factor_sizes: tuple[int, ...] = ()
    factors_NK: np.ndarray | None = field(default=None, repr=False)
    notes: tuple[str, ...] = ()

    @property
    def num_varying(self) -> int:
        """Number of factors with more than one value."""
        return sum(size > 1 for size in self.factor_sizes)

    def load(self, device: torch.device) -> "Images":
        """Load the whole set; on a CPU the processes of a machine share its memory.

        Raises:
            InputError: A file is damaged, foreign or not writable, or this machine renders different bits.
        """
        return Images(self, self.pixels(device))


@dataclass(frozen=True, eq=False)
class Images:
    """A whole set; batches are made on one device.

    Attributes:
        source: The description of the set.
        pixels: Its images.

    Raises:
        ValueError: The number of images or of rows of factors differs from the source's.
    """

    source: Source
    pixels: Pixels

    def __post_init__(self) -> None:
        source = self.source
        num_factors = math.prod(source.factor_sizes) if source.factors_NK is None else len(source.factors_NK)
        if len(self.pixels) != len(self) or (source.factor_sizes and num_factors != len(self)):
            raise ValueError(
                f"{source.recipe}: {len(self.pixels)} images and {num_factors} rows of factors; expected {len(self)}."
            )

    def __len__(self) -> int:
        return self.source.num_images

    @property
    def recipe(self) -> str:
        """The recipe of these images."""
        return self.source.recipe

    @property
    def shape(self) -> tuple[int, int, int]:
        """One image, (C, H, W)."""
        return self.source.shape

    @property
    def num_pixels(self) -> int:
        """Values of one image, channels included."""
        return math.prod(self.shape)

    @property
    def factor_names(self) -> tuple[str, ...]:
        """Ground-truth factors; empty without ground truth."""
        return self.source.factor_names

    @property
    def factor_sizes(self) -> tuple[int, ...]:
        """Number of values of each factor."""
        return self.source.factor_sizes

    @property
    def device(self) -> torch.device:
        """Where batches are made."""
        return self.pixels.device

    @property
    def are_on_device(self) -> bool:
        """Whether the device holds all images, so that batches need no data from the machine's memory."""
        return self.pixels.is_on_device

    def at(self, rows: torch.Tensor) -> torch.Tensor:
        """Images at int64 rows of any shape (...), as float32 (..., C, H, W) in [0, 1]."""
        return self.pixels.at(rows.reshape(-1)).reshape(*rows.shape, *self.shape)

    def factors(self, rows_N: np.ndarray) -> np.ndarray:
        """Factor values of rows, int64 (N, K); K is 0 without ground truth."""
        if self.source.factors_NK is not None:
            return self.source.factors_NK[rows_N].astype(np.int64)
        if not self.factor_sizes:
            return np.zeros((len(rows_N), 0), dtype=np.int64)
        return np.stack(np.unravel_index(rows_N, self.factor_sizes), axis=1).astype(np.int64)


def random_images(shape: tuple[int, int, int], num_images: int, device: torch.device) -> Images:
    """Images (C, H, W) of uniform noise, always the same, for measurements and checks."""
    generator = torch.Generator().manual_seed(0)
    size = (num_images, math.prod(shape))
    levels = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)
    return Source("random", shape, num_images, partial(Levels, levels, 255)).load(device)
