"""Images on a device in compact form, gathered by row.

Shape suffixes: N images of the set, K factors, C H W one image, P = C * H * W pixels.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Images:
    """A whole data set on one device.

    Rows of a factor grid are in mixed-radix order, the last factor fastest.

    Attributes:
        recipe: What these images are, for the record and the run key, for example `dsprites (rendered v1)`.
        shape: One image, (C, H, W).
        stored: Values in [0, 1], float32 (N, P), for a set so small that it need not be compact; else uint8:
            bit-packed binary images (N, ceil(P / 8)), first pixel in the highest bit as `numpy.packbits` does it,
            where `num_levels` is 1, or levels (N, P).
        num_levels: A stored level stands for the value level / num_levels in [0, 1].
        factor_names: Ground-truth factors in index order; empty without ground truth.
        factor_sizes: Number of values of each factor; their product is N.
    """

    recipe: str
    shape: tuple[int, int, int]
    stored: torch.Tensor
    num_levels: int
    factor_names: tuple[str, ...] = ()
    factor_sizes: tuple[int, ...] = ()

    def __len__(self) -> int:
        return self.stored.shape[0]

    @property
    def num_pixels(self) -> int:
        """Values of one image, channels included."""
        return math.prod(self.shape)

    def at(self, rows: torch.Tensor) -> torch.Tensor:
        """Images at int64 rows of any shape (...), as float32 (..., C, H, W) in [0, 1]."""
        stored = self.stored.index_select(0, rows.reshape(-1))
        if stored.is_floating_point():
            levels = stored
        elif self.num_levels == 1:
            shifts = torch.arange(7, -1, -1, dtype=torch.uint8, device=stored.device)
            levels = ((stored[..., None] >> shifts) & 1).flatten(1)[:, : self.num_pixels].float()
        else:
            levels = stored.float() / self.num_levels
        return levels.reshape(*rows.shape, *self.shape)

    def factors(self, rows_N: np.ndarray) -> np.ndarray:
        """Factor values of rows, int64 (N, K); K is 0 without ground truth."""
        if not self.factor_sizes:
            return np.zeros((len(rows_N), 0), dtype=np.int64)
        return np.stack(np.unravel_index(rows_N, self.factor_sizes), axis=1).astype(np.int64)
