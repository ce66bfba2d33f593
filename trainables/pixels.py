"""Pixels of a whole data set in compact form, from which batches are made on the training device.

Shape suffixes: n requested images, N all, P = C * H * W pixels, B bytes of a bit-packed image, G geometries,
M materials, C channels, S = H * W places of an image.
"""

from abc import ABC, abstractmethod

import torch

HOST_SHARE = 0.125
"""Share of a GPU's memory: a larger set stays in the machine's memory, where its processes share it."""


class Pixels(ABC):
    """All images of a set, in rows."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where batches are made."""

    @property
    def is_on_device(self) -> bool:
        """Whether the device holds all images, so that a batch waits for nothing."""
        return True

    @abstractmethod
    def __len__(self) -> int:
        """Number of images."""

    @abstractmethod
    def at(self, rows_n: torch.Tensor) -> torch.Tensor:
        """Images at int64 rows (n,) on this device, float32 (n, P) in [0, 1]."""


class Packed(Pixels):
    """Binary images, eight pixels a byte, the first in the highest bit as in `numpy.packbits`.

    Args:
        stored_NB: uint8, on the device.
        num_pixels: P.
    """

    def __init__(self, stored_NB: torch.Tensor, num_pixels: int) -> None:
        self.stored_NB, self._num_pixels = stored_NB, num_pixels

    @property
    def device(self) -> torch.device:
        """Where batches are made."""
        return self.stored_NB.device

    def __len__(self) -> int:
        return len(self.stored_NB)

    def at(self, rows_n: torch.Tensor) -> torch.Tensor:
        """Pixels of these rows, float32 (n, P)."""
        stored_nB = self.stored_NB.index_select(0, rows_n)
        shifts = torch.arange(7, -1, -1, dtype=torch.uint8, device=self.device)
        return ((stored_nB[..., None] >> shifts) & 1).flatten(1)[:, : self._num_pixels].float()


class Levels(Pixels):
    """Grey or color levels, a byte each; a set too large for a GPU stays in the machine's memory.

    Args:
        stored_NP: uint8, on the CPU.
        num_levels: A stored level stands for the value level / num_levels.
        device: Where batches are made.
    """

    def __init__(self, stored_NP: torch.Tensor, num_levels: int, device: torch.device) -> None:
        self._device, self.num_levels = device, num_levels
        self.stored_NP = stored_NP.to(device) if _has_room(stored_NP, device) else stored_NP

    @property
    def device(self) -> torch.device:
        """Where batches are made."""
        return self._device

    @property
    def is_on_device(self) -> bool:
        """Whether the device holds all images."""
        return self.stored_NP.device.type == self._device.type

    def __len__(self) -> int:
        return len(self.stored_NP)

    def at(self, rows_n: torch.Tensor) -> torch.Tensor:
        """Pixels of these rows, float32 (n, P)."""
        stored_nP = self.stored_NP.index_select(0, rows_n.to(self.stored_NP.device))
        return _share(stored_nP.to(self._device).float(), self.num_levels)


def _share(levels: torch.Tensor, num_levels: int) -> torch.Tensor:
    """Levels over their number, correctly rounded everywhere: CUDA turns a division by a number into a product."""
    return levels / torch.full((1,), num_levels, dtype=levels.dtype, device=levels.device)


def _has_room(stored_NP: torch.Tensor, device: torch.device) -> bool:
    if device.type != "cuda":
        return True
    return stored_NP.nbytes <= HOST_SHARE * torch.cuda.get_device_properties(device).total_memory


class Values(Pixels):
    """Uncompressed values in [0, 1], for a set so small that it need not be compact.

    Args:
        stored_NP: float32, on the device.
    """

    def __init__(self, stored_NP: torch.Tensor) -> None:
        self.stored_NP = stored_NP

    @property
    def device(self) -> torch.device:
        """Where batches are made."""
        return self.stored_NP.device

    def __len__(self) -> int:
        return len(self.stored_NP)

    def at(self, rows_n: torch.Tensor) -> torch.Tensor:
        """Pixels of these rows, float32 (n, P)."""
        return self.stored_NP.index_select(0, rows_n)


class Layered(Pixels):
    """Scenes in all colors, composed from one layer per material: only as large as the geometries.

    A level is the sum over materials of weight times color, in 128ths, rounded half up, at most 255. All sums are
    whole numbers below 2**24: float32 is exact, and every device gives the same.

    Rows are colors by geometries: row = coloring * G + geometry.

    Args:
        weights_GMS: uint8, on the device; 128 is fully lit.
        colors_KMC: uint8, the colors of the materials in each coloring, on the device.
    """

    def __init__(self, weights_GMS: torch.Tensor, colors_KMC: torch.Tensor) -> None:
        self.weights_GMS, self.colors_KMC = weights_GMS, colors_KMC

    @property
    def device(self) -> torch.device:
        """Where batches are made."""
        return self.weights_GMS.device

    def __len__(self) -> int:
        return len(self.colors_KMC) * len(self.weights_GMS)

    def at(self, rows_n: torch.Tensor) -> torch.Tensor:
        """Pixels of these rows, float32 (n, P)."""
        num_geometries, materials, _ = self.weights_GMS.shape
        weights_nMS = self.weights_GMS.index_select(0, rows_n % num_geometries)
        colors_nMC = self.colors_KMC.index_select(0, rows_n // num_geometries).float()
        # One material at a time: exact in any order, and no product of three axes is held in memory.
        sums_nCS = sum(colors_nMC[:, m, :, None] * weights_nMS[:, m, None].float() for m in range(materials))
        assert isinstance(sums_nCS, torch.Tensor)
        return _share(((sums_nCS + 64) / 128).floor_().clamp_(max=255), 255).flatten(1)
