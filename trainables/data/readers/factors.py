"""Ground truth of your own images: values as a person has them, and the codes that are made from them. Imports no torch.

Shape suffixes: N images, K factors.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainables.data.readers.files import quoted
from trainables.errors import InputError

MAX_FACTORS = 512
MAX_VALUES_SHARE = 0.5
"""Most values of a factor, as a share of the number of images; with more it is a measurement, and scores make no sense."""


@dataclass(frozen=True, eq=False)
class Factors:
    """Ground truth as it was found.

    Attributes:
        place: Where it was found, for errors.
        values_NK: Any finite numbers; each distinct one of a column is a value of the factor.
        names: Their names, K of them; empty if they have none.
    """

    place: Path
    values_NK: np.ndarray
    names: tuple[str, ...] = ()

    def called(self, k: int) -> str:
        """A factor in words, for errors."""
        return f"factor {quoted(self.names[k])}" if self.names else f"factor {k}"

    def coded(self) -> tuple[np.ndarray, tuple[int, ...]]:
        """Values as 0, 1, .. in ascending order, int64 (N, K), and the number of values of each factor.

        Raises:
            InputError: They are not finite, or a factor has too many values.
        """
        if not np.isfinite(self.values_NK).all():
            raise InputError(
                f"{self.place}: factors contain NaN or infinity; expected finite numbers.\n"
                "Replace these values, or leave the factors out."
            )
        columns = [np.unique(column, return_inverse=True) for column in self.values_NK.T]
        num_images = len(self.values_NK)
        for k, (values, _) in enumerate(columns):
            if len(values) > num_images * MAX_VALUES_SHARE:
                raise InputError(
                    f"{self.place}: {self.called(k)} has {len(values)} values in {num_images} images, too many: each is a separate class.\n"
                    "Round it to few values that many images share, or leave it out."
                )
        coded_NK = np.stack([codes for _, codes in columns], axis=1).astype(np.int64)
        return coded_NK, tuple(len(values) for values, _ in columns)


def grid(place: Path, sizes: tuple[int, ...], num_images: int) -> Factors:
    """The factors of images that are all combinations of their values, the last factor the fastest.

    Raises:
        InputError: The number of images is another one.
    """
    text = ",".join(map(str, sizes))
    if math.prod(sizes) != num_images:
        raise InputError(
            f"--factor-sizes {text}: a grid of {math.prod(sizes):,} images; {place} has {num_images:,}.\n"
            "Give the number of values of every factor, slowest first; their product is the number of images."
        )
    if len(sizes) > MAX_FACTORS:
        raise InputError(
            f"--factor-sizes: {len(sizes)} factors; expected at most {MAX_FACTORS}.\nLeave out sizes of 1."
        )
    return Factors(place, np.stack(np.unravel_index(np.arange(num_images), sizes), axis=1))
