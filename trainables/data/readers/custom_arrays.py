"""Your own images as arrays of an .npz, .npy or HDF5 file.

Images are (N, H, W), (N, H, W, C) or (N, C, H, W) with C = 1, 3 or 4 (with opacity): bool, integers from 0 to 255 or floats from
0 to 1. Factors, which may be missing, are (N, K) or (N,) numbers: their distinct values become 0, 1, .. in ascending order.

Shape suffixes: n images of a block, N all, K factors, P pixels.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from trainables.data.readers import usual_names
from trainables.data.readers.arrays import NAMELESS, array_names, open_arrays
from trainables.data.readers.factors import MAX_FACTORS, Factors
from trainables.data.readers.files import refusal, state
from trainables.data.readers.levels import levels, on_white
from trainables.data.readers.own import Found
from trainables.data.readers.preparation import Preparation, of_own
from trainables.data.readers.stored_array import StoredArray
from trainables.errors import InputError
from trainables.reading import Reading

PEEK = 1024
"""Images that decide whether levels are taken for binary at first."""
MAX_BLOCK_BYTES = 2**26
MAX_SIDE = 1024


@dataclass(frozen=True)
class _Layout:
    """How an array holds images: (C, H, W) of one of them as it is trained on, and how its channels are stored."""

    shape: tuple[int, int, int]
    is_last: bool
    has_opacity: bool


def read(path: Path, reading: Reading) -> Found:
    """Describe the images of a file.

    Raises:
        InputError: An array is missing or invalid, or an option is for pictures.
    """
    names = array_names(path)
    name = _images_name(path, names, reading)
    with open_arrays(path, [name]) as arrays:
        images = arrays[name]
        layout = _layout(path, images)
        head = next(images.blocks(0, _rows(layout.shape)))
    factors = _factors(path, names, images.shape[0], reading)
    read_names = {name, reading.factors or "factors"} - ({"factors"} if reading.factor_sizes else set())
    has_factors = factors is not None or bool(reading.factor_sizes)
    notes = usual_names.not_read(path, [each for each in names if each not in read_names], has_factors)
    if layout.has_opacity:
        notes += (f"{path}: images have 4 channels, read as red, green, blue and opacity, on white.",)
    ways = _ways(path, name, images, layout, _may_be_binary(head, layout))
    return Found(ways, factors, notes)


def _images_name(path: Path, names: list[str], reading: Reading) -> str:
    """The array of images, which is there; the only one of an .npy file has no name."""
    if reading.labels or reading.follow_links:
        option = f"--{'labels' if reading.labels else 'follow-links'}"
        remedy = "Leave it out; the ground truth of arrays is given with --factors or --factor-sizes."
        raise InputError(f"{option} is for pictures; {path} has arrays.\n{remedy}")
    if names == [NAMELESS]:
        if reading.images:
            raise refusal(path, "has one array without a name", "Leave out --images.")
        return NAMELESS
    name = reading.images or "images"
    if name not in names:
        raise usual_names.missing(path, "images", name, names)
    return name


def _factors(path: Path, names: list[str], num_images: int, reading: Reading) -> Factors | None:
    """The ground truth as an array of the file, or of an .npy file of its own."""
    place, name = path, reading.factors or "factors"
    if file := reading.files.get("factors"):
        place, name = Path(file).expanduser(), NAMELESS
    elif reading.factor_sizes or (name not in names and not reading.factors):
        return None
    elif name not in names:
        if names == [NAMELESS]:
            raise refusal(path, "has one array without a name", "Give the ground truth as --factors FILE.npy")
        raise usual_names.missing(path, "factors", name, names)
    with open_arrays(place, [name]) as arrays:
        return Factors(place, _checked(place, arrays[name], num_images))


def _checked(path: Path, stored: StoredArray, num_images: int) -> np.ndarray:
    """Values of factors, (N, K)."""
    if len(stored.shape) > 2 or stored.shape[0] != num_images or math.prod(stored.shape[1:]) > MAX_FACTORS:
        raise InputError(
            f"{path}: factors have shape {stored.shape}; expected ({num_images}, K): one row per image, K at most"
            f" {MAX_FACTORS}.\nSave them in this shape, or leave them out."
        )
    values = np.concatenate(list(stored.blocks(rows=65_536)))
    return values.reshape(num_images, -1)


def _may_be_binary(head: np.ndarray, layout: _Layout) -> bool:
    is_number = head.dtype.kind == "f"
    return not layout.has_opacity and not is_number and bool(head.min() >= 0 and head.max() <= 1)


def _ways(
    path: Path, name: str, images: StoredArray, layout: _Layout, may_be_binary: bool
) -> list[Preparation]:
    origin = state([path]) + (f" {name}" if name not in ("images", NAMELESS) else "")

    def way(is_packed: bool) -> Preparation:
        blocks = partial(_blocks, path, name, is_packed)
        return of_own(path, layout.shape, images.shape[0], blocks, origin, is_packed=is_packed)

    plain = way(False)
    if not may_be_binary:
        return [plain]
    return [way(True), replace(plain, stem=f"{plain.stem}_levels")]


def _rows(shape: tuple[int, int, int]) -> int:
    """Images per block: as many as are inspected, or as fit into 64 MiB."""
    return max(1, min(PEEK, MAX_BLOCK_BYTES // math.prod(shape)))


def _layout(path: Path, images: StoredArray) -> _Layout:
    shape = images.shape
    found = _channels(shape)
    if found is None:
        if len(shape) == 4:
            least = min(shape[1], shape[3])
            kept = f"images[{'...' if shape[3] == least else ':'}, :{3 if least > 3 else 1}]"
            raise InputError(
                f"{path}: images have {least} channels, shape {shape}; expected 1, 3 or 4.\n"
                f"Save 1 or 3 of them, for example {kept}."
            )
        raise InputError(
            f"{path}: images have shape {shape}; expected (N, H, W), (N, H, W, C) or (N, C, H, W), C 1, 3 or 4.\n"
            "Save them in one of these shapes."
        )
    channels, axis = found
    height, width = shape[1:] if axis is None else shape[1:3] if axis == 3 else shape[2:]
    if max(height, width) > MAX_SIDE:
        raise InputError(
            f"{path}: images are {height} x {width}; expected sides of at most {MAX_SIDE}.\nMake them smaller."
        )
    return _Layout((min(channels, 3), height, width), axis == 3, channels == 4)


def _channels(shape: tuple[int, ...]) -> tuple[int, int | None] | None:
    """How many channels images have, and along which axis; None if they are no images."""
    if len(shape) == 3:
        return 1, None
    for wanted in ((1, 3), (4,)):
        for axis in (3, 1):
            if len(shape) == 4 and shape[axis] in wanted:
                return shape[axis], axis
    return None


def _blocks(path: Path, name: str, is_packed: bool, first: int) -> Iterator[np.ndarray]:
    with open_arrays(path, [name]) as arrays:
        layout = _layout(path, arrays[name])
        row = first
        for block in arrays[name].blocks(first, _rows(layout.shape)):
            levels_n = levels(path, row, block, is_packed)
            if levels_n.ndim == 4 and layout.is_last:
                levels_n = levels_n.transpose(0, 3, 1, 2)
            if layout.has_opacity:
                levels_n = on_white(levels_n)
            levels_nP = np.ascontiguousarray(levels_n).reshape(len(block), -1)
            yield np.packbits(levels_nP, axis=1) if is_packed else levels_nP
            row += len(block)
