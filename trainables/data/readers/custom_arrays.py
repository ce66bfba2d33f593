"""Your own images as arrays of an .npz or HDF5 file.

`images` is (N, H, W), (N, H, W, C) or (N, C, H, W) with C = 1 or 3, uint8 or bool or floats in [0, 1]; `factors`, which may be
missing, (N, K) numbers: their distinct values become 0, 1, .. in ascending order.

Shape suffixes: n images of a block, N all, K factors, P pixels.
"""

import difflib
import math
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from trainables.data.readers.arrays import array_names, open_arrays
from trainables.data.readers.files import RENEW, listed, quoted, refusal, state
from trainables.data.readers.preparation import Preparation, of_own
from trainables.data.readers.stored_array import StoredArray
from trainables.errors import InputError

PEEK = 1024
"""Images that decide whether levels are taken for binary at first."""
MAX_BLOCK_BYTES = 2**26
MAX_SIDE = 1024
MAX_FACTORS = 32
MAX_VALUES_SHARE = 0.5
"""Most values of a factor, as a share of the number of images; with more it is a measurement, and scores make no sense."""

IMAGES_NAMES = ("imgs", "image", "img", "pictures", "pics", "x", "x_train", "data", "frames", "arr_0")
FACTORS_NAMES = (
    *("factor", "labels", "label", "latents", "latents_classes", "latents_values", "classes"),
    *("targets", "target", "y", "y_train", "ground_truth", "attributes", "arr_1"),
)
"""Names under which such arrays are often saved, in lower case, the most telling first."""


class NotBinaryError(ValueError):
    """Images that were taken for binary by the first of them have other levels."""


def read(path: Path) -> tuple[list[Preparation], np.ndarray | None, tuple[str, ...]]:
    """Ways to convert the images, the first that works is right; the factors; and what a person should know of them.

    Raises:
        InputError: An array is missing or invalid.
    """
    with open_arrays(path, [], ["images", "factors"]) as arrays:
        names = array_names(path)
        if "images" not in arrays:
            raise _without_images(path, names)
        images = arrays["images"]
        shape, _ = _layout(path, images)
        head = next(images.blocks(0, _rows(shape)))
        may_be_binary = head.dtype == bool or (head.dtype == np.uint8 and head.max() <= 1)
        factors_NK = _factors(path, arrays["factors"], images.shape[0]) if "factors" in arrays else None
        notes = _notes(path, names, "factors" in arrays)
    origin = state([path])

    def way(is_packed: bool) -> Preparation:
        blocks = partial(_blocks, path, is_packed)
        return of_own(path, shape, images.shape[0], blocks, origin, is_packed=is_packed)

    levels = way(False)
    if not may_be_binary:
        return [levels], factors_NK, notes
    return [way(True), replace(levels, stem=f"{levels.stem}_levels")], factors_NK, notes


def _without_images(path: Path, names: Sequence[str]) -> InputError:
    found = f"has no array 'images'; it has {listed(names)}"
    if not names:
        return refusal(path, found, RENEW)
    alike = _nearest(names, "images", IMAGES_NAMES)
    new = {"images": names[0] if alike is None and len(names) == 1 else alike}
    left = [name for name in names if name != new["images"]]
    if (factors := _nearest(left, "factors", ("factors", *FACTORS_NAMES))) is not None:
        new["factors"] = factors
    return refusal(path, found, f"Save the array under the name 'images': {_renaming(path, new)}")


def _notes(path: Path, names: Sequence[str], has_factors: bool) -> tuple[str, ...]:
    unread = [name for name in names if name not in ("images", "factors")]
    if not unread:
        return ()
    if has_factors:
        return (f"{path}: not read: {listed(unread)}.",)
    text = f"{path} has no array 'factors', so no ground truth; not read: {listed(unread)}."
    if (alike := _nearest(unread, "factors", FACTORS_NAMES)) is not None:
        new = {"images": "images", "factors": alike}
        text += f"\nIf {quoted(alike)} is the ground truth, rename to 'factors': {_renaming(path, new)}"
    return (text,)


def _nearest(names: Sequence[str], wanted: str, usual: Sequence[str]) -> str | None:
    """The array that is probably wanted: under a usual name, or one that is spelled alike."""
    by_last = {name.rpartition("/")[2].lower(): name for name in names}
    close = difflib.get_close_matches(wanted, by_last, n=1, cutoff=0.6)
    return next((by_last[name] for name in (*usual, *close) if name in by_last), None)


def _renaming(path: Path, new: Mapping[str, str | None]) -> str:
    """How to save arrays under new names; None is any array."""
    is_npz = zipfile.is_zipfile(path)
    values: dict[str, str] = {}
    for name, old in new.items():
        is_plain = old is not None and is_npz and old.isidentifier() and old.isascii()
        values[name] = "..." if old is None else old if is_plain else f"file[{quoted(old)}]"
        if old is not None and name == "factors":
            values[name] += _as_column(path, old)
    if is_npz:
        return f"np.savez(path, {', '.join(f'{name}={value}' for name, value in values.items())})"
    return "with h5py, " + "; ".join(f"file[{n!r}] = {values[n]}" for n, old in new.items() if old != n)


def _as_column(path: Path, name: str) -> str:
    """What makes an array one of two axes."""
    with suppress(InputError), open_arrays(path, [name]) as arrays:
        return "[:, None]" if len(arrays[name].shape) == 1 else ""
    return ""


def _factors(path: Path, stored: StoredArray, num_images: int) -> np.ndarray:
    if len(stored.shape) != 2 or stored.shape[0] != num_images or stored.shape[1] > MAX_FACTORS:
        is_one = stored.shape == (num_images,)
        raise InputError(
            f"{path}: factors have shape {stored.shape}; expected ({num_images}, K): one row per image, K at most"
            f" {MAX_FACTORS}.\nSave {'factors[:, None]' if is_one else 'them in this shape'}, or leave them out."
        )
    return np.concatenate(list(stored.blocks(rows=65_536)))


def _rows(shape: tuple[int, int, int]) -> int:
    """Images per block: as many as are inspected, or as fit into 64 MiB."""
    return max(1, min(PEEK, MAX_BLOCK_BYTES // math.prod(shape)))


def _layout(path: Path, images: StoredArray) -> tuple[tuple[int, int, int], bool]:
    """(C, H, W) of an image, and whether channels come last."""
    shape, dtype = images.shape, images.dtype
    if dtype not in (bool, np.uint8) and dtype.kind != "f":
        raise InputError(
            f"{path}: images are {dtype.name}; expected uint8, bool, or floats in [0, 1].\n"
            "If they are levels from 0 to 255, save images.astype(np.uint8)."
        )
    if len(shape) == 3:
        channels, (height, width), is_last = 1, shape[1:], True
    elif len(shape) == 4 and shape[3] in (1, 3):
        channels, (height, width), is_last = shape[3], shape[1:3], True
    elif len(shape) == 4 and shape[1] in (1, 3):
        channels, (height, width), is_last = shape[1], shape[2:], False
    elif len(shape) == 4:
        found = min(shape[1], shape[3])
        kept = f"images[{'...' if shape[3] == found else ':'}, :{3 if found > 3 else 1}]"
        raise InputError(
            f"{path}: images have {found} channels, shape {shape}; expected 1 or 3.\n"
            f"Save 1 or 3 of them, for example {kept}."
        )
    else:
        raise InputError(
            f"{path}: images have shape {shape}; expected (N, H, W), (N, H, W, C) or (N, C, H, W), C 1 or 3.\n"
            "Save them in one of these shapes."
        )
    if max(height, width) > MAX_SIDE:
        raise InputError(
            f"{path}: images are {height} x {width}; expected sides of at most {MAX_SIDE}.\nMake them smaller."
        )
    return (channels, height, width), is_last


def _blocks(path: Path, is_packed: bool, first: int) -> Iterator[np.ndarray]:
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
        is_valid_n = ((block >= 0) & (block <= 1)).reshape(len(block), -1).all(axis=1)  # NaN is neither
        if not is_valid_n.all():
            raise _unscaled(path, row, block, int(is_valid_n.argmin()))
        return np.rint(block * 255).astype(np.uint8)
    if is_packed and block.max() > 1:
        raise NotBinaryError(f"{path}: images from row {row} on have levels up to {block.max()}")
    return block.astype(np.uint8)


def _unscaled(path: Path, row: int, block: np.ndarray, worst: int) -> InputError:
    """The error for a block with an image that has values other than 0 to 1."""
    image = block[worst]
    if not np.isfinite(image).all():
        return InputError(
            f"{path}: image {row + worst} has NaN or infinity; expected 0 to 1.\n"
            "Replace such values, or leave out such images."
        )
    finite = block[np.isfinite(block)]
    low, high = finite.min(), finite.max()
    if low >= 0 and high <= 255:
        found, remedy = f"values up to {image.max():g}", "Divide by 255, or save uint8."
    elif low >= -1 and high <= 1:
        found, remedy = f"values down to {image.min():g}", "Save (images + 1) / 2."
    else:
        up_to = f"up to {image.max():g}" if low >= 0 else f"from {image.min():g} to {image.max():g}"
        found, remedy = f"values {up_to}", "Scale them to 0 to 1, or save uint8 levels from 0 to 255."
    return InputError(f"{path}: image {row + worst} has {found}; expected 0 to 1.\n{remedy}")


def coded(path: Path, factors_NK: np.ndarray) -> tuple[np.ndarray, tuple[int, ...]]:
    """Factor values as 0, 1, .., and the number of values of each factor.

    Raises:
        InputError: They are not finite, or a factor has too many values.
    """
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
