"""Your own images, by path: an .npz or HDF5 file, or a folder or archive of pictures.

A file has `images`, (N, H, W), (N, H, W, C) or (N, C, H, W) with C = 1 or 3, uint8 or bool or floats in [0, 1], and may
have `factors`, (N, K) numbers: their distinct values become 0, 1, .. in ascending order. Pictures are cropped to their central
square and resized to 64 x 64, in grey if the first 16 are grey; they have no factors.

Images are identified by their content: the recipe is a digest of images and factors, whatever their path. They are
converted once per version of the file.

Shape suffixes: n images of a block, N all, K factors, P pixels.
"""

import hashlib
import itertools
import math
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch

from trainables.data.official.picture_set import in_blocks
from trainables.data.readers import cache
from trainables.data.readers.arrays import StoredArray, open_arrays
from trainables.data.readers.files import is_zip, quoted, refusing, state
from trainables.data.readers.pictures import open_pictures
from trainables.errors import InputError
from trainables.images import Source
from trainables.pixels import Levels, Packed, Pixels

PICTURE_SIZE = (64, 64)
NUM_LOOKED_AT = 16
"""Pictures that decide whether all are grey."""
PEEK = 1024
"""Images that decide whether levels are binary."""
MAX_BLOCK_BYTES = 2**26
MAX_SIDE = 1024
MIN_IMAGES = 2
MAX_FACTORS = 32
MAX_VALUES_SHARE = 0.5
"""Most values of a factor, as a share of the number of images; with more it is a measurement, and scores make no sense."""

Blocks = Callable[[int], Iterator[np.ndarray]]


def find(path: Path) -> Source:
    """The images at a path, converted on first use.

    Raises:
        InputError: The images are missing or invalid.
    """
    with refusing(path):
        is_arrays = path.is_file() and _has_arrays(path)
    if not path.exists():
        raise InputError(
            f"{path}: no such file or folder.\nGive the path of your own images, or the name of a data set."
        )
    wanted, factors_NK = _of_arrays(path) if is_arrays else (_of_pictures(path), None)
    if wanted.num_images < MIN_IMAGES:
        raise InputError(
            f"{path} has {wanted.num_images} images, too few to train on.\nAdd images: at least {MIN_IMAGES} are needed."
        )
    content = f"{cache.prepare(wanted)} {wanted.num_images} {wanted.shape} {wanted.is_packed}"
    digest = hashlib.sha256(content.encode())
    sizes: tuple[int, ...] = ()
    if factors_NK is not None:
        factors_NK, sizes = _coded(path, factors_NK)
        digest.update(f"{factors_NK.shape}".encode() + factors_NK.tobytes())
    names = tuple(f"factor_{k}" for k in range(len(sizes)))
    recipe = f"own images ({digest.hexdigest()[:12]})"
    pixels = partial(_pixels, wanted)
    return Source(recipe, wanted.shape, wanted.num_images, pixels, names, sizes, factors_NK)


def _pixels(wanted: cache.Preparation, device: torch.device) -> Pixels:
    stored = torch.from_numpy(cache.load(wanted))
    return (
        Packed(stored.to(device), math.prod(wanted.shape))
        if wanted.is_packed
        else Levels(stored, 255, device)
    )


def _has_arrays(path: Path) -> bool:
    """Whether a file is HDF5 or a zip of arrays by content or suffix, not an archive of pictures."""
    with path.open("rb") as file:
        head = file.read(8)
    if is_zip(head) and path.suffix.lower() != ".npz":
        with zipfile.ZipFile(path) as archive:
            return "images.npy" in archive.namelist()
    return head.startswith(b"\x89HDF") or path.suffix.lower() in (".npz", ".npy", ".h5", ".hdf5")


def _preparation(
    path: Path, shape: tuple[int, int, int], num_images: int, blocks: Blocks, origin: str, is_packed: bool
) -> cache.Preparation:
    stem = f"own_{hashlib.sha256(f'{path} {origin}'.encode()).hexdigest()[:16]}"
    return cache.Preparation(
        f"{path.stem} (own)", shape, num_images, blocks, None, is_packed, "Converting", origin, stem=stem
    )


def _of_arrays(path: Path) -> tuple[cache.Preparation, np.ndarray | None]:
    with open_arrays(path, ["images"], ["factors"]) as arrays:
        images = arrays["images"]
        shape, _ = _layout(path, images)
        head = next(images.blocks(0, _rows(shape)))
        is_packed = head.dtype == bool or (head.dtype == np.uint8 and head.max() <= 1)
        factors_NK = _factors(path, arrays["factors"], images.shape[0]) if "factors" in arrays else None
    origin = state([path])
    blocks = partial(_array_blocks, path, is_packed)
    return _preparation(path, shape, images.shape[0], blocks, origin, is_packed), factors_NK


def _factors(path: Path, stored: StoredArray, num_images: int) -> np.ndarray:
    if len(stored.shape) != 2 or stored.shape[0] != num_images or stored.shape[1] > MAX_FACTORS:
        raise InputError(
            f"{path}: factors have shape {stored.shape}; expected ({num_images}, K): one row per image, K at most"
            f" {MAX_FACTORS}.\nSave them in this shape, or leave them out."
        )
    return np.concatenate(list(stored.blocks(rows=65_536)))


def _rows(shape: tuple[int, int, int]) -> int:
    """Images per block: as many as are inspected, or as fit into 64 MiB."""
    return max(1, min(PEEK, MAX_BLOCK_BYTES // math.prod(shape)))


def _layout(path: Path, images: StoredArray) -> tuple[tuple[int, int, int], bool]:
    """(C, H, W) of an image, and whether channels come last."""
    is_known = images.dtype in (bool, np.uint8) or images.dtype.kind == "f"
    if is_known and len(images.shape) == 3:
        channels, (height, width), is_last = 1, images.shape[1:], True
    elif is_known and len(images.shape) == 4 and images.shape[3] in (1, 3):
        channels, (height, width), is_last = images.shape[3], images.shape[1:3], True
    elif is_known and len(images.shape) == 4 and images.shape[1] in (1, 3):
        channels, (height, width), is_last = images.shape[1], images.shape[2:], False
    else:
        height = width = 0
    if not (0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE):
        raise InputError(
            f"{path}: images are {images.dtype} {images.shape}; expected (N, H, W), (N, H, W, C) or (N, C, H, W), C 1 or 3,"
            f" sides of at most {MAX_SIDE}.\nSave them in one of these shapes, as uint8, bool, or floats in [0, 1]."
        )
    return (channels, height, width), is_last


def _array_blocks(path: Path, is_packed: bool, first: int) -> Iterator[np.ndarray]:
    with open_arrays(path, ["images"]) as arrays:
        images = arrays["images"]
        shape, is_last = _layout(path, images)
        row = first
        for block in images.blocks(first, _rows(shape)):
            levels_n = _levels(path, row, block, is_packed)
            if levels_n.ndim == 4 and is_last:
                levels_n = levels_n.transpose(0, 3, 1, 2)
            levels_nP = np.ascontiguousarray(levels_n).reshape(len(block), -1)
            yield np.packbits(levels_nP, axis=1) if is_packed else levels_nP
            row += len(block)


def _levels(path: Path, row: int, block: np.ndarray, is_packed: bool) -> np.ndarray:
    if block.dtype.kind == "f":
        finite = block[np.isfinite(block)]
        if finite.size < block.size or finite.min() < 0 or finite.max() > 1:
            what = f"values {finite.min():g} to {finite.max():g}" if finite.size else "no finite values"
            and_nan = " and NaN or infinity" * (finite.size < block.size)
            raise InputError(
                f"{path}: images from row {row} on have {what}{and_nan}; expected 0 to 1.\n"
                "Save floats in [0, 1], or uint8."
            )
        return np.rint(block * 255).astype(np.uint8)
    if is_packed and block.max() > 1:
        raise InputError(
            f"{path}: images from row {row} on have levels up to {block.max()}, but the first ones only 0 and 1.\n"
            "Save either bool, or uint8 levels from 0 to 255."
        )
    return block.astype(np.uint8)


def _coded(path: Path, factors_NK: np.ndarray) -> tuple[np.ndarray, tuple[int, ...]]:
    """Factor values as 0, 1, .., and the number of values of each factor."""
    if not np.isfinite(factors_NK).all():
        raise InputError(
            f"{path}: factors contain NaN or infinity; expected finite numbers.\nReplace these values, or leave the factors out."
        )
    columns = [np.unique(column, return_inverse=True) for column in factors_NK.T]
    for k, (values, _) in enumerate(columns):
        if len(values) > len(factors_NK) * MAX_VALUES_SHARE:
            raise InputError(
                f"{path}: factor {k} has {len(values)} values in {len(factors_NK)} images, too many: each is a separate class.\n"
                "Round it to few values that many images share, or leave it out."
            )
    coded_NK = np.stack([codes for _, codes in columns], axis=1).astype(np.int64)
    return coded_NK, tuple(len(values) for values, _ in columns)


def _of_pictures(path: Path) -> cache.Preparation:
    with open_pictures(path) as pictures:
        num_images = len(pictures)
        looked_at = itertools.islice(pictures.levels((3, *PICTURE_SIZE), "square"), NUM_LOOKED_AT)
        is_grey = all((rgb_CHW == rgb_CHW[:1]).all() for rgb_CHW in looked_at)
        origin = state([path / name for name in pictures.names] if path.is_dir() else [path])
    shape = (1 if is_grey else 3, *PICTURE_SIZE)
    blocks = partial(_picture_blocks, path, shape)
    return _preparation(path, shape, num_images, blocks, origin, is_packed=False)


def _picture_blocks(path: Path, shape: tuple[int, int, int], first: int) -> Iterator[np.ndarray]:
    with open_pictures(path) as pictures:
        levels = pictures.levels((3, *PICTURE_SIZE), "square", first)
        if shape[0] == 1:
            names = pictures.names[first:]
            levels = (_grey(path, name, rgb) for name, rgb in zip(names, levels, strict=True))
        yield from in_blocks(levels)


def _grey(path: Path, name: str, rgb_CHW: np.ndarray) -> np.ndarray:
    if (rgb_CHW != rgb_CHW[:1]).any():
        raise InputError(
            f"{path}: {quoted(name)} is in color, but the first {NUM_LOOKED_AT} pictures are grey.\n"
            "Convert it to grey, or rename a color picture so that it comes first."
        )
    return rgb_CHW[:1]
