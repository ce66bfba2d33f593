"""Images of one's own, by path: an .npz or HDF5 file, or a folder or archive of pictures.

A file has `images`, (N, H, W), (N, H, W, C) or (N, C, H, W) with C = 1 or 3, uint8 or bool or floats in [0, 1], and may
have `factors`, (N, K) numbers: their distinct values become 0, 1, .. in ascending order. Pictures are cropped to their middle
square and resized to 64 x 64, grey where the first ones are; they have no factors.

What the images are is told by their content: the recipe names the file and a digest of images and factors. They are converted
once per version of the file.

Shape suffixes: n images of a block, N all, K factors, P pixels.
"""

import hashlib
import itertools
import math
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import torch

from trainables.data import _cache
from trainables.data._arrays import StoredArray, open_arrays
from trainables.data._files import refusing
from trainables.data._images import Source
from trainables.data._picture_set import in_blocks
from trainables.data._pictures import open_pictures
from trainables.data._pixels import Levels, Packed, Pixels
from trainables.errors import InputError

PICTURE_SIZE = (64, 64)
NUM_LOOKED_AT = 16
"""Pictures that decide whether all are grey."""
PEEK = 1024
"""Images that decide whether levels are binary."""
MAX_SIDE = 1024
MAX_FACTORS = 32

Blocks = Callable[[int], Iterator[np.ndarray]]


def find(path: Path) -> Source:
    """The images at a path, converted when they are first asked for.

    Raises:
        InputError: There are none, or they are not what they should be.
    """
    if not path.exists():
        raise InputError(f"{path}: there is no such file or folder.\nName images of your own, or a data set.")
    is_arrays = path.is_file() and _has_arrays(path)
    wanted, factors_NK = _of_arrays(path) if is_arrays else (_of_pictures(path), None)
    digest = hashlib.sha256(_cache.prepare(wanted).encode())
    sizes: tuple[int, ...] = ()
    if factors_NK is not None:
        factors_NK, sizes = _coded(path, factors_NK)
        digest.update(f"{factors_NK.shape}".encode() + factors_NK.tobytes())
    names = tuple(f"factor_{k}" for k in range(len(sizes)))
    recipe = f"{path.stem} (own, {digest.hexdigest()[:12]})"
    pixels = partial(_pixels, wanted)
    return Source(recipe, wanted.shape, wanted.num_images, pixels, names, sizes, factors_NK)


def _pixels(wanted: _cache.Preparation, device: torch.device) -> Pixels:
    stored = torch.from_numpy(_cache.load(wanted))
    return (
        Packed(stored.to(device), math.prod(wanted.shape))
        if wanted.is_packed
        else Levels(stored, 255, device)
    )


def _has_arrays(path: Path) -> bool:
    """Whether a file is HDF5 or a zip of arrays, or calls itself so, and is no archive of pictures."""
    if zipfile.is_zipfile(path):
        with refusing(path), zipfile.ZipFile(path) as archive:
            return any(name.endswith(".npy") for name in archive.namelist())
    return h5py.is_hdf5(path) or path.suffix.lower() in (".npz", ".npy", ".h5", ".hdf5")


def _preparation(
    path: Path, shape: tuple[int, int, int], num_images: int, blocks: Blocks, origin: str, is_packed: bool
) -> _cache.Preparation:
    stem = f"own_{hashlib.sha256(f'{path} {origin}'.encode()).hexdigest()[:16]}"
    return _cache.Preparation(
        f"{path.stem} (own)", shape, num_images, blocks, None, is_packed, "Converting", origin, stem=stem
    )


def _of_arrays(path: Path) -> tuple[_cache.Preparation, np.ndarray | None]:
    with open_arrays(path, ["images"], ["factors"]) as arrays:
        images = arrays["images"]
        shape, _ = _layout(path, images)
        head = next(images.blocks(0, PEEK))
        is_packed = head.dtype == bool or (head.dtype == np.uint8 and head.max() <= 1)
        factors_NK = _whole(arrays["factors"]) if "factors" in arrays else None
    if factors_NK is not None and (factors_NK.ndim != 2 or len(factors_NK) != images.shape[0]):
        raise InputError(
            f"{path}: factors are {factors_NK.shape}, expected ({images.shape[0]}, K), a row for each image.\n"
            "Store them so, or leave them out."
        )
    stat = path.stat()
    origin = f"{stat.st_size} {stat.st_mtime_ns}"
    blocks = partial(_array_blocks, path, is_packed)
    return _preparation(path, shape, images.shape[0], blocks, origin, is_packed), factors_NK


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
            f"{path}: images are {images.dtype} {images.shape}; expected (N, H, W) or (N, H, W, C), C 1 or 3, sides of at"
            f" most {MAX_SIDE}.\nStore them so, as uint8, bool, or floats in [0, 1]."
        )
    return (channels, height, width), is_last


def _array_blocks(path: Path, is_packed: bool, first: int) -> Iterator[np.ndarray]:
    with open_arrays(path, ["images"]) as arrays:
        images = arrays["images"]
        _, is_last = _layout(path, images)
        row = first
        for block in images.blocks(first, PEEK):
            levels_n = _levels(path, row, block, is_packed)
            if levels_n.ndim == 4 and is_last:
                levels_n = levels_n.transpose(0, 3, 1, 2)
            levels_nP = np.ascontiguousarray(levels_n).reshape(len(block), -1)
            yield np.packbits(levels_nP, axis=1) if is_packed else levels_nP
            row += len(block)


def _levels(path: Path, row: int, block: np.ndarray, is_packed: bool) -> np.ndarray:
    if block.dtype.kind == "f":
        if not (np.isfinite(block).all() and block.min() >= 0 and block.max() <= 1):
            worst = f"{np.nanmin(block):g} to {np.nanmax(block):g}"
            raise InputError(
                f"{path}: images from row {row} on have values {worst}, or none at all; expected 0 to 1.\n"
                "Store floats in [0, 1], or uint8."
            )
        return np.rint(block * 255).astype(np.uint8)
    if is_packed and block.max() > 1:
        raise InputError(
            f"{path}: images from row {row} on have levels up to {block.max()}, but the first {PEEK:,} only 0 and 1.\n"
            "Store either bool or levels of 255."
        )
    return block.astype(np.uint8)


def _whole(stored: StoredArray) -> np.ndarray:
    return np.concatenate(list(stored.blocks(rows=65_536)))


def _coded(path: Path, factors_NK: np.ndarray) -> tuple[np.ndarray, tuple[int, ...]]:
    """Factor values as 0, 1, .., and how many each has."""
    if not 1 <= factors_NK.shape[1] <= MAX_FACTORS or not np.isfinite(factors_NK).all():
        raise InputError(
            f"{path}: factors are {factors_NK.shape}, expected 1 to {MAX_FACTORS} columns of finite numbers."
        )
    columns = [np.unique(column, return_inverse=True) for column in factors_NK.T]
    coded_NK = np.stack([codes for _, codes in columns], axis=1).astype(np.int64)
    return coded_NK, tuple(len(values) for values, _ in columns)


def _of_pictures(path: Path) -> _cache.Preparation:
    with open_pictures(path) as pictures:
        num_images = len(pictures)
        looked_at = itertools.islice(pictures.levels((3, *PICTURE_SIZE), "square"), NUM_LOOKED_AT)
        is_grey = all((rgb_CHW == rgb_CHW[:1]).all() for rgb_CHW in looked_at)
        origin = f"{_state(path, pictures.names)}"
    shape = (1 if is_grey else 3, *PICTURE_SIZE)
    blocks = partial(_picture_blocks, path, shape)
    return _preparation(path, shape, num_images, blocks, origin, is_packed=False)


def _picture_blocks(path: Path, shape: tuple[int, int, int], first: int) -> Iterator[np.ndarray]:
    with open_pictures(path) as pictures:
        yield from in_blocks(pictures.levels(shape, "square", first))


def _state(path: Path, names: tuple[str, ...]) -> str:
    """What changes when the pictures do."""
    files = [path / name for name in names] if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        stat = file.stat()
        digest.update(f"{file} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()
