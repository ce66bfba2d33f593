"""Rendered images, kept once per user in an HDF5 file that every process maps into its memory.

The folder is SWEEPER_DATA, else ~/.cache/sweeper. A file is rendered under a lock, written under another name
and renamed last, so it is whole or absent. It may be copied to another machine, or be on a read-only disk.

Shape suffixes: N images, B bytes of one bit-packed image. Imports no torch.
"""

import contextlib
import errno
import fcntl
import hashlib
import math
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from trainables.durable import sync_folder
from trainables.errors import InputError


@dataclass(frozen=True)
class Rendering:
    """A set of binary images that can be rendered, and the bits it must give.

    Attributes:
        recipe: As in `Images`; the file is named after it.
        shape: One image, (C, H, W).
        num_images: N.
        sha256: Of all N * B bytes, in order.
        blocks: Renders the images from the first to the last in arrays (any n, B) of uint8, packed as by
            `numpy.packbits`.
    """

    recipe: str
    shape: tuple[int, int, int]
    num_images: int
    sha256: str
    blocks: Callable[[], Iterator[np.ndarray]]

    @property
    def packed_shape(self) -> tuple[int, int]:
        """(N, B)."""
        return self.num_images, math.ceil(math.prod(self.shape) / 8)

    @property
    def attributes(self) -> dict[str, Any]:
        """What the file says of itself."""
        return {"recipe": self.recipe, "sha256": self.sha256, "shape": self.shape}

    @property
    def path(self) -> Path:
        """The file, for example `dsprites_rendered_v1.h5`."""
        return folder() / (re.sub(r"\W+", "_", self.recipe).strip("_") + ".h5")


def folder() -> Path:
    """Where rendered sets are kept."""
    return Path(os.environ.get("SWEEPER_DATA") or "~/.cache/sweeper").expanduser().absolute()


def check_bits(recipe: str, found: str, pinned: str) -> None:
    """Stop where rendered images differ from those that all other runs were trained on.

    Args:
        recipe: What was rendered.
        found: sha256 of the bits rendered here.
        pinned: sha256 of the bits of this recipe.

    Raises:
        InputError: They differ.
    """
    if found != pinned:
        raise InputError(
            f"{recipe}: this machine renders other bits than the pinned ones "
            f"(sha256 {found[:12]}, not {pinned[:12]}).\n"
            "Runs here could not be compared with others: use another NumPy version or machine."
        )


def load(rendering: Rendering) -> np.ndarray:
    """All images, bit-packed (N, B), mapped from the cache, which is rendered first where it is absent.

    The array may be written to, which changes neither the file nor other processes; until then they share its
    pages. The content is hashed once per version of the file, later only its header is checked.

    Raises:
        InputError: The file is damaged or foreign, it cannot be written, or this machine renders other bits.
    """
    path = rendering.path
    if not path.exists():
        _create(rendering, path)
    try:
        with h5py.File(path, "r", locking=False) as file:
            offset = _checked_offset(file, rendering)
        # Mode "c", not "r": torch warns of arrays that it could write to and must not.
        packed_NB = np.memmap(path, np.uint8, "c", offset, rendering.packed_shape)
        _check_content_once(path, packed_NB, rendering.sha256)
    except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:  # what h5py says of odd files
        raise InputError(
            f"{path} is not a whole copy of {rendering.recipe}: {error}.\n"
            "Delete it: it is then rendered anew."
        ) from None
    return packed_NB


def _checked_offset(file: h5py.File, rendering: Rendering) -> int:
    """Position of the images in the file, in bytes."""
    images = file.get("images")
    wanted = rendering.packed_shape
    if not isinstance(images, h5py.Dataset) or images.dtype != np.uint8 or images.shape != wanted:
        raise ValueError(f"it has no uint8 dataset 'images' of shape {wanted}")
    for name, value in rendering.attributes.items():
        found = images.attrs.get(name)
        if not np.array_equal(found, value):
            raise ValueError(f"its {name} is {found}, not {value}")
    offset = images.id.get_offset()
    if offset is None:
        raise ValueError("its images are not contiguous")
    return offset


def _check_content_once(path: Path, packed_NB: np.ndarray, sha256: str) -> None:
    """Hash the images unless a note beside the file says that this version of it was hashed before."""
    stat = path.stat()
    state = f"{sha256} {stat.st_size} {stat.st_mtime_ns} {stat.st_ino}\n"
    note = path.with_suffix(".verified")
    with contextlib.suppress(OSError):
        if note.read_text() == state:
            return
    if hashlib.sha256(packed_NB.data).hexdigest() != sha256:
        raise ValueError("its images are damaged")
    with contextlib.suppress(OSError):  # on a read-only disk every process hashes
        note.write_text(state)


def _create(rendering: Rendering, path: Path) -> None:
    """Render the file, or wait for the process that does."""
    size_bytes = math.prod(rendering.packed_shape)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path.with_suffix(".lock"), rendering.recipe):
            if not path.exists():
                # Asked first, because HDF5 2.0 can crash where the disk is full.
                if shutil.disk_usage(path.parent).free < size_bytes + 2**20:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                _write(rendering, path)
    except (OSError, RuntimeError) as error:  # h5py raises either
        raise InputError(
            f"Cannot keep {rendering.recipe} in {path.parent}: {error}.\n"
            f"Set SWEEPER_DATA to a folder on a local disk with {size_bytes / 2**30:.1f} GiB of room."
        ) from None


@contextlib.contextmanager
def _locked(path: Path, recipe: str) -> Iterator[None]:
    """Hold a lock that ends with the process, however that ends."""
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"Waiting for another process to render {recipe} ({path})", file=sys.stderr, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _write(rendering: Rendering, path: Path) -> None:
    partial = path.with_suffix(".partial")
    digest, row = hashlib.sha256(), 0
    try:
        with h5py.File(partial, "w", locking=False) as file:
            images = file.create_dataset("images", rendering.packed_shape, np.uint8)
            images.attrs.update(rendering.attributes)
            for block_nB in _with_progress(rendering):
                images[row : row + len(block_nB)] = block_nB
                digest.update(block_nB.data)
                row += len(block_nB)
        check_bits(rendering.recipe, digest.hexdigest(), rendering.sha256)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
        sync_folder(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def _with_progress(rendering: Rendering) -> Iterator[np.ndarray]:
    """The blocks, with a line on stderr that a terminal overwrites and a log file gets every 5 s."""
    text = f"Rendering {rendering.recipe}, once per user"
    start, end, period_s = ("\r", "", 0.2) if sys.stderr.isatty() else ("", "\n", 5.0)
    done, next_s = 0, 0.0
    for block_nB in rendering.blocks():
        if time.monotonic() >= next_s:
            print(f"{start}{text}: {done / rendering.num_images:4.0%}", end=end, file=sys.stderr, flush=True)
            next_s = time.monotonic() + period_s
        yield block_nB
        done += len(block_nB)
    print(f"{start}{text}: 100%", file=sys.stderr, flush=True)
