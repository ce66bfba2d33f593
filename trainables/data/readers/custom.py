"""Your own images, by path: an .npz, .npy or HDF5 file (`custom_arrays`), or a folder or archive of pictures (`custom_pictures`).

Images are identified by their content: the recipe is a digest of images and factors, whatever their path. They are
converted once per version of the file.

Shape suffixes: N images, K factors.
"""

import hashlib
import math
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import torch

from trainables.data.readers import cache, custom_arrays, custom_pictures
from trainables.data.readers.factors import Factors, grid
from trainables.data.readers.files import is_zip, refusal, refusing
from trainables.data.readers.levels import NotBinaryError
from trainables.data.readers.own import Found
from trainables.data.readers.preparation import Preparation
from trainables.errors import InputError
from trainables.images import Source
from trainables.pixels import Levels, Packed, Pixels
from trainables.reading import Reading

KINDS = "an .npz, .npy or HDF5 file, or a folder, .zip or .tar of pictures"
MIN_IMAGES = 2


def find(path: Path, reading: Reading | None = None) -> Source:
    """The images at a path, converted on first use.

    Args:
        path: A file or a folder.
        reading: How to read it, by default as usual.

    Raises:
        InputError: The images are missing or invalid.
    """
    found = _found(path, reading or Reading())
    num_images = found.ways[0].num_images
    if num_images < MIN_IMAGES:
        plural = "" if num_images == 1 else "s"
        fewer = f"has {num_images} image{plural}; at least {MIN_IMAGES} are needed"
        raise refusal(path, fewer, *found.notes[:1] or ("Add images.",))
    factors = found.factors
    if reading and reading.factor_sizes:
        factors = grid(path, reading.factor_sizes, num_images)
    return _source(found, factors)


def _found(path: Path, reading: Reading) -> Found:
    with refusing(path):
        is_there, is_arrays = path.exists(), path.is_file() and _has_arrays(path, reading.images or "images")
    if not is_there:
        raise InputError(
            f"{path}: no such file or folder.\nGive the path of your own images, or the name of a data set."
        )
    return custom_arrays.read(path, reading) if is_arrays else custom_pictures.read(path, KINDS, reading)


def _source(found: Found, factors: Factors | None) -> Source:
    """The set, whose recipe is a digest of its images and of what is known of them."""
    coded_NK, sizes = factors.coded() if factors else (None, ())
    wanted, sha256 = _prepared(found.ways)
    digest = hashlib.sha256(f"{sha256} {wanted.num_images} {wanted.shape} {wanted.is_packed}".encode())
    names = tuple(f"factor_{k}" for k in range(len(sizes)))
    if factors and coded_NK is not None:
        digest.update(f"{coded_NK.shape}".encode() + coded_NK.tobytes())
        if factors.names:
            names = factors.names
            digest.update("\n".join(names).encode())
    recipe = f"own images ({digest.hexdigest()[:12]})"
    pixels = partial(_pixels, wanted)
    return Source(recipe, wanted.shape, wanted.num_images, pixels, names, sizes, coded_NK, found.notes)


def _prepared(ways: Sequence[Preparation]) -> tuple[Preparation, str]:
    """The conversion that is there, or the first that can be made, and the sha256 of its images."""
    there = [way for way in ways if way.path.exists()]
    for way in there or ways[:-1]:
        with suppress(NotBinaryError):
            return way, cache.prepare(way)
    return ways[-1], cache.prepare(ways[-1])


def _pixels(wanted: Preparation, device: torch.device) -> Pixels:
    stored = torch.from_numpy(cache.load(wanted))
    return (
        Packed(stored.to(device), math.prod(wanted.shape))
        if wanted.is_packed
        else Levels(stored, 255, device)
    )


def _has_arrays(path: Path, name: str) -> bool:
    """Whether a file is HDF5, .npy or a zip of arrays by content or suffix, not an archive of pictures."""
    with path.open("rb") as file:
        head = file.read(8)
    if is_zip(head) and path.suffix.lower() != ".npz":
        with zipfile.ZipFile(path) as archive:
            return f"{name}.npy" in archive.namelist()
    return head.startswith((b"\x89HDF", b"\x93NUMPY")) or path.suffix.lower() in (
        *(".npz", ".npy"),
        *(".h5", ".hdf5"),
    )
